//! What the program says: on its standard streams, or in the file of `--logfile`.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use crate::swtpm::error::{SwtpmError, file};

/// Where lines go.
pub(super) struct Log(Option<File>);

impl Log {
    /// Opens the file, if there is to be one.
    pub(super) fn open(path: Option<&str>) -> Result<Self, SwtpmError> {
        let Some(path) = path else { return Ok(Self(None)) };
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o640).custom_flags(libc::O_NOFOLLOW);
        options.open(path).map(|log| Self(Some(log))).map_err(file("open", path))
    }

    /// A line about what was done.
    pub(super) fn line(&mut self, text: &str) -> Result<(), SwtpmError> {
        match &mut self.0 {
            Some(log) => writeln!(log, "{text}").map_err(file("write to", "the log")),
            None => writeln!(std::io::stdout(), "{text}").map_err(file("write to", "standard output")),
        }
    }

    /// A line about what failed.
    pub(super) fn error(&mut self, text: &str) {
        let _unsaid = match &mut self.0 {
            Some(log) => writeln!(log, "{text}"),
            None => writeln!(std::io::stderr(), "{text}"),
        };
    }
}
