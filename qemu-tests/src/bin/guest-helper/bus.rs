//! What the guest's buses can do to the device.

use crate::Failure;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// The device node.
pub(crate) const TPM: &str = "/dev/tpm0";

const DRIVER: &str = "/sys/bus/virtio/drivers/tpm_virtio";

/// The virtio device of id 62, bound or not.
fn device() -> Result<PathBuf, Failure> {
    for entry in fs::read_dir("/sys/bus/virtio/devices")? {
        let path = entry?.path();
        let id = fs::read_to_string(path.join("device"))?;
        if u32::from_str_radix(id.trim().trim_start_matches("0x"), 16) == Ok(62) {
            return Ok(fs::canonicalize(path)?);
        }
    }
    Err("no virtio device of id 62".into())
}

fn name(device: &Path) -> Result<String, Failure> {
    let name = device.file_name().and_then(|name| name.to_str());
    Ok(name.ok_or("a device without a name")?.to_owned())
}

/// Waits until the device node is there, or gone.
fn wait_for_node(present: bool) -> Result<(), Failure> {
    let started = Instant::now();
    while Path::new(TPM).exists() != present {
        if started.elapsed() > Duration::from_secs(10) {
            let what = if present { "did not appear" } else { "did not go away" };
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("{TPM} {what}")).into());
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn unbind(device: &Path) -> Result<(), Failure> {
    fs::write(format!("{DRIVER}/unbind"), name(device)?)?;
    wait_for_node(false)
}

fn bind(device: &Path) -> Result<(), Failure> {
    fs::write(format!("{DRIVER}/bind"), name(device)?)?;
    wait_for_node(true)
}

pub(crate) fn rebind() -> Result<(), Failure> {
    let device = device()?;
    unbind(&device)?;
    bind(&device)
}

/// Resets the PCI function that the virtio device belongs to, with the method named `flr` and no other.
pub(crate) fn function_level_reset(unbound: bool) -> Result<(), Failure> {
    let device = device()?;
    let function = device.parent().ok_or("a device without a parent")?;
    if unbound {
        unbind(&device)?;
    }
    fs::write(function.join("reset_method"), "flr")
        .map_err(|error| format!("{}: no function-level reset: {error}", function.display()))?;
    fs::write(function.join("reset"), "1")?;
    if unbound {
        bind(&device)?;
    }
    Ok(())
}
