//! Snapshots that QEMU keeps in a disk: memory, devices and all (`savevm`, `loadvm`).

use crate::error::{Error, Result, ensure};
use crate::guest::Guest;
use serde_json::{Value, json};
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

/// The disk is made within this.
const PATIENCE: Duration = Duration::from_secs(60);

/// Gives a machine a disk that snapshots go into, made by QEMU itself at `path`.
///
/// # Errors
/// [`Error::Io`] if the file cannot be made, [`Error::Qmp`] if QEMU refuses.
pub fn add_disk(guest: &mut Guest, path: &Path) -> Result<()> {
    File::create(path).map_err(Error::io(path.display().to_string()))?;
    let qmp = guest.qmp();
    let file = json!({ "driver": "file", "node-name": "file", "filename": path.display().to_string() });
    qmp.execute("blockdev-add", file)?;
    let disk = json!({ "driver": "qcow2", "file": "file", "size": 1u64 << 30 });
    qmp.execute("blockdev-create", json!({ "job-id": "make", "options": disk }))?;
    let started = Instant::now();
    loop {
        let jobs: Value = qmp.execute("query-jobs", json!({}))?;
        if jobs.to_string().contains("concluded") {
            break;
        }
        ensure(started.elapsed() < PATIENCE, format!("the disk is not made: {jobs}"))?;
        std::thread::sleep(Duration::from_millis(10));
    }
    qmp.execute("job-dismiss", json!({ "id": "make" }))?;
    let disk = json!({ "driver": "qcow2", "node-name": "disk", "file": "file" });
    qmp.execute("blockdev-add", disk).map(drop)
}

/// Types a line at QEMU's monitor for people; what it says.
///
/// # Errors
/// As [`crate::qmp::Qmp::execute`].
pub fn monitor(guest: &mut Guest, line: &str) -> Result<String> {
    let said = guest.qmp().execute("human-monitor-command", json!({ "command-line": line }))?;
    Ok(said.as_str().unwrap_or_default().trim().to_owned())
}
