//! The files that `vtpmctl` reads and writes; `-` is standard input or output.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use vtpm_protocol::codec::decode_exact;
use vtpm_protocol::instance::{InstanceSummary, MigrationTicket};

use super::{CtlError, Result};

pub(super) fn is_dash(path: &Path) -> bool {
    path.as_os_str() == "-"
}

pub(super) fn open(path: &Path) -> Result<Box<dyn Read>> {
    if is_dash(path) {
        return Ok(Box::new(io::stdin()));
    }
    let file = File::open(path).map_err(|source| CtlError::File { path: path.to_owned(), source })?;
    Ok(Box::new(file))
}

pub(super) fn read_ticket(path: &Path, instance: &InstanceSummary) -> Result<MigrationTicket> {
    let mut bytes = Vec::new();
    // No ticket is near this size; a device or a huge file is not read to its end.
    open(path)?
        .take(1 << 16)
        .read_to_end(&mut bytes)
        .map_err(|source| CtlError::File { path: path.to_owned(), source })?;
    let ticket: MigrationTicket = decode_exact(&bytes).map_err(|_| CtlError::Ticket(path.to_owned()))?;
    if ticket.uuid != instance.uuid {
        return Err(CtlError::ForeignTicket {
            ticket: uuid::Uuid::from_bytes(ticket.uuid.0),
            own: uuid::Uuid::from_bytes(instance.uuid.0),
        });
    }
    Ok(ticket)
}

/// A private file under another name until it is whole, so that one that broke off neither looks like a whole one nor is in the way of
/// the next attempt; or a pipe or device, as it is.
pub(super) struct Sink {
    out: Box<dyn Write>,
    path: PathBuf,
    /// The file that is written, and what it is to be called.
    partial: Option<(PathBuf, PathBuf)>,
}

impl Sink {
    /// Fails before anything is done where `path` is a file with content: there may be no second copy of it.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let failed = |source| CtlError::File { path: path.to_owned(), source };
        if is_dash(path) {
            return Ok(Self { out: Box::new(io::stdout()), path: path.to_owned(), partial: None });
        }
        // Where a link leads, there the file is.
        let target = match fs::canonicalize(path) {
            Ok(target) => target,
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
            Err(error) => return Err(failed(error)),
        };
        match fs::metadata(&target) {
            Ok(found) if found.is_file() && found.len() > 0 => {
                return Err(failed(io::ErrorKind::AlreadyExists.into()));
            }
            Ok(found) if !found.is_file() => {
                let file = OpenOptions::new().write(true).open(&target).map_err(failed)?;
                return Ok(Self { out: Box::new(file), path: path.to_owned(), partial: None });
            }
            _ => {}
        }
        let name = target.file_name().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
        let partial = target.with_file_name(format!(".{}.partial", name.display()));
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&partial)
            .map_err(failed)?;
        Ok(Self { out: Box::new(file), path: path.to_owned(), partial: Some((partial, target)) })
    }

    /// Writes all of it and ends.
    pub(super) fn put(mut self, bytes: &[u8]) -> Result<()> {
        let written = self.out.write_all(bytes);
        written.map_err(|source| CtlError::File { path: self.path.clone(), source })?;
        self.finish()
    }

    /// It is whole: it gets its name, and both are on the medium.
    pub(super) fn finish(mut self) -> Result<()> {
        let failed = |source| CtlError::File { path: self.path.clone(), source };
        self.out.flush().map_err(failed)?;
        let Some((partial, target)) = &self.partial else { return Ok(()) };
        let named = || -> io::Result<()> {
            File::open(partial)?.sync_all()?;
            fs::rename(partial, target)?;
            let dir = target.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
            File::open(dir)?.sync_all()
        };
        named().map_err(failed)?;
        self.partial = None;
        Ok(())
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if let Some((partial, _)) = &self.partial {
            let _gone = fs::remove_file(partial);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut all: Vec<String> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        all.sort();
        all
    }

    #[test]
    fn a_file_has_its_name_when_it_is_whole_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stream");
        let mut sink = Sink::create(&path).unwrap();
        sink.write_all(b"half").unwrap();
        assert!(!path.exists());
        drop(sink);
        assert!(names(dir.path()).is_empty());
        Sink::create(&path).unwrap().put(b"whole").unwrap();
        assert_eq!(
            (names(dir.path()), fs::read(&path).unwrap()),
            (vec!["stream".to_owned()], b"whole".to_vec())
        );
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&path).unwrap());
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_file_with_content_is_not_written_over_and_an_empty_one_is() {
        let dir = tempfile::tempdir().unwrap();
        let (full, empty, link) =
            (dir.path().join("full"), dir.path().join("empty"), dir.path().join("link"));
        fs::write(&full, b"x").unwrap();
        fs::write(&empty, b"").unwrap();
        assert!(matches!(Sink::create(&full), Err(CtlError::File { .. })));
        std::os::unix::fs::symlink(&empty, &link).unwrap();
        Sink::create(&link).unwrap().put(b"y").unwrap();
        assert_eq!(fs::read(&empty).unwrap(), b"y");
        assert!(matches!(Sink::create(&link), Err(CtlError::File { .. })));
        assert!(matches!(Sink::create(&dir.path().join("no/dir")), Err(CtlError::File { .. })));
    }

    #[test]
    fn a_pipe_is_written_as_it_is() {
        Sink::create(Path::new("/dev/null")).unwrap().put(b"z").unwrap();
    }
}
