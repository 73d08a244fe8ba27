//! The log: to standard error or where `--log` says.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, Ordering};

use env_logger::Target;
use log::LevelFilter;

use crate::swtpm::error::{SwtpmError, file};
use crate::swtpm::process::take_fd;
use crate::swtpm::suboptions::SubOptions;

const NAMES: &[&str] = &["file", "fd", "level", "prefix", "truncate"];
/// swtpm's level from which on it logs what the TPM does.
const VERBOSE: u32 = 5;
/// From here on everything is logged.
const EVERYTHING: u32 = 10;

/// The log goes elsewhere than to standard error.
static APART: AtomicBool = AtomicBool::new(false);

/// Whether the log goes elsewhere than to standard error, so that what is said there is not in it.
pub(super) fn is_apart() -> bool {
    APART.load(Ordering::Relaxed)
}

/// Starts the log as the value of `--log` says; without one, warnings go to standard error.
pub(super) fn start(text: Option<&str>) -> Result<(), SwtpmError> {
    let Some(text) = text else {
        install(LevelFilter::Warn, "swtpm: ", None);
        return Ok(());
    };
    let sub = SubOptions::parse("--log", NAMES, text)?;
    let level = match sub.number::<u32>("level")? {
        None | Some(1..VERBOSE) => LevelFilter::Info,
        Some(0) => LevelFilter::Warn,
        Some(VERBOSE..EVERYTHING) => LevelFilter::Debug,
        Some(_) => LevelFilter::Trace,
    };
    let truncate = sub.flag("truncate")?;
    let to = match (sub.text("file"), sub.descriptor("fd")?) {
        (Some("-"), _) => return Ok(()),
        (Some(path), _) => {
            let mut options = OpenOptions::new();
            options.create(true).mode(0o640).custom_flags(libc::O_NOFOLLOW);
            if truncate {
                options.write(true).truncate(true);
            } else {
                options.append(true);
            }
            Some(options.open(path).map_err(file("open", path))?)
        }
        (None, Some(fd)) => Some(File::from(take_fd(fd)?)),
        (None, None) => None,
    };
    install(level, sub.text("prefix").unwrap_or_default(), to);
    Ok(())
}

fn install(level: LevelFilter, prefix: &str, to: Option<File>) {
    let prefix = prefix.to_owned();
    let mut builder = env_logger::Builder::new();
    // Only what is ours: the libraries' own notes are for their authors.
    builder.filter_level(level.min(LevelFilter::Warn));
    for module in ["vtpmd", "vtpm_backend", "vtpm_engine"] {
        builder.filter_module(module, level);
    }
    builder.format(move |out, record| writeln!(out, "{prefix}{}", record.args()));
    if let Some(to) = to {
        APART.store(true, Ordering::Relaxed);
        builder.target(Target::Pipe(Box::new(to)));
    }
    builder.init();
}
