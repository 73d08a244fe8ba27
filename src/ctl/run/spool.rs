//! Where a stream is between export and import: in memory, for the source has all of it in its escrow; or, under a strict lock, in a
//! durable file, for it is nowhere else then.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use vtpm_protocol::instance::MigrationTicket;

use super::super::files::Sink;
use super::super::{CtlError, Result};
use crate::migration::client::ClientError;

/// Bytes that are copied at once.
const AT_ONCE: usize = 16 << 10;

/// A whole stream.
pub(super) enum Spool {
    /// In memory.
    Memory(Vec<u8>),
    /// In a file.
    File { path: PathBuf, length: u64 },
}

/// The file of a strict migration, in the state directory.
pub(super) fn file_name(name: &str, ticket: &MigrationTicket) -> String {
    format!("{name}-{}.stream", hex::encode(ticket.migration_id))
}

impl Spool {
    /// The file that an earlier run has left, whole.
    pub(super) fn find(path: &Path) -> Result<Option<Self>> {
        match fs::metadata(path) {
            Ok(found) => Ok(Some(Self::File { path: path.to_owned(), length: found.len() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(CtlError::File { path: path.to_owned(), source }),
        }
    }

    pub(super) fn length(&self) -> u64 {
        match self {
            Self::Memory(bytes) => u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            Self::File { length, .. } => *length,
        }
    }

    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Self::Memory(_) => None,
            Self::File { path, .. } => Some(path),
        }
    }

    /// The destination has it: a second copy is of no use.
    pub(super) fn done_with(&self) {
        if let Some(path) = self.path()
            && let Err(error) = fs::remove_file(path)
        {
            log::warn!("{} stays behind: {error}", path.display());
        }
    }

    /// Writes all of it, and tells after each part how much that was.
    pub(super) fn copy(
        &self,
        out: &mut dyn Write,
        mut sent: impl FnMut(u64),
    ) -> std::result::Result<(), ClientError> {
        let mut input: Box<dyn Read + '_> = match self {
            Self::Memory(bytes) => Box::new(bytes.as_slice()),
            Self::File { path, .. } => Box::new(BufReader::new(File::open(path).map_err(ClientError::Io)?)),
        };
        let mut buffer = vec![0; AT_ONCE];
        let mut total = 0u64;
        loop {
            let n = match input.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other.map_err(ClientError::Io)?,
            };
            if n == 0 {
                return out.flush().map_err(ClientError::Io);
            }
            out.write_all(buffer.get(..n).unwrap_or_default()).map_err(ClientError::Io)?;
            total = total.saturating_add(u64::try_from(n).unwrap_or(u64::MAX));
            sent(total);
        }
    }
}

/// A stream that is being written.
pub(super) enum Writer {
    Memory(Vec<u8>),
    File(Sink, PathBuf),
}

impl Writer {
    pub(super) fn create(path: Option<PathBuf>) -> Result<Self> {
        Ok(match path {
            None => Self::Memory(Vec::new()),
            Some(path) => Self::File(Sink::create(&path)?, path),
        })
    }

    pub(super) fn finish(self) -> Result<Spool> {
        match self {
            Self::Memory(bytes) => Ok(Spool::Memory(bytes)),
            Self::File(sink, path) => {
                sink.finish()?;
                let found = fs::metadata(&path).map(|found| found.len());
                let length = found.map_err(|source| CtlError::File { path: path.clone(), source })?;
                Ok(Spool::File { path, length })
            }
        }
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Memory(all) => all.write(bytes),
            Self::File(sink, _) => sink.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::File(sink, _) => sink.flush(),
        }
    }
}
