//! What can go wrong in the store, in sentences for the operator.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::{InstanceId, RecordName};

/// An error of the store. It can be cloned, because one failed transaction is told to every batch in it.
///
/// After an error of [`commit`](super::Store::commit) the batch is not in the store, with the one exception that
/// [`StoreError::outcome_is_unknown`] names.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// A new store was to be made where one is.
    #[error("there is a state database at {path} already")]
    Exists {
        /// The database.
        path: PathBuf,
    },
    /// There is no store to open.
    #[error("there is no state database at {path}; `vtpmd init` makes one")]
    Missing {
        /// The database.
        path: PathBuf,
    },
    /// Another process has the store open.
    #[error("the state at {path} is in use by {holder}")]
    Locked {
        /// The database.
        path: PathBuf,
        /// Who holds it, as far as it is known.
        holder: String,
    },
    /// The file is no SQLite database, or one of another program.
    #[error("{path} is not a state database of vtpmd")]
    NotADatabase {
        /// The file.
        path: PathBuf,
    },
    /// A file or device that holds a state has lost what makes it one, or has no image of the state that is whole.
    #[error("the state in {path} is damaged")]
    BrokenContainer {
        /// The file or device.
        path: PathBuf,
    },
    /// A device on which a state was to be made has no room for one.
    #[error("{path} has {length} bytes, and a state needs {least}")]
    TooSmall {
        /// The device.
        path: PathBuf,
        /// Its length in bytes.
        length: u64,
        /// What it needs.
        least: u64,
    },
    /// The database was written by a later release.
    #[error(
        "the state database {path} has format {found}, and this program knows formats up to {known}: it was written by a newer vtpmd"
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// The format of the database.
        found: i64,
        /// The newest format of this program.
        known: i64,
    },
    /// The host key is not the one that the store was made with.
    #[error("the host key is not the one that the state database {path} was made with")]
    WrongHostKey {
        /// The database.
        path: PathBuf,
    },
    /// A sealed value does not open: it was changed, or moved from another record, instance or version.
    #[error("{record} of {instance} is corrupted: its seal does not hold")]
    CorruptedRecord {
        /// The instance.
        instance: InstanceId,
        /// The record.
        record: RecordName,
    },
    /// What the store knows about an instance does not hold together.
    #[error("{instance} is corrupted: {what}")]
    CorruptedInstance {
        /// The instance.
        instance: InstanceId,
        /// Which part of it.
        what: &'static str,
    },
    /// SQLite found the structure of its file broken.
    #[error("the state database {path} is damaged")]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: Arc<rusqlite::Error>,
    },
    /// The medium has no room.
    #[error("there is no room left for the state database {path}")]
    DiskFull {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: Arc<rusqlite::Error>,
    },
    /// The file system takes no more writes.
    #[error("the file system of {path} is read-only")]
    ReadOnly {
        /// The database, or a file beside it.
        path: PathBuf,
    },
    /// The medium or the file system refused to take what was to be written, for another reason than want of room.
    #[error("the state database {path} cannot be written")]
    WriteRefused {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: Arc<rusqlite::Error>,
    },
    /// The file system refused something.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system answered.
        #[source]
        source: Arc<io::Error>,
    },
    /// SQLite failed otherwise.
    #[error("the state database failed to {action}")]
    Database {
        /// What was tried.
        action: &'static str,
        /// What SQLite said.
        #[source]
        source: Arc<rusqlite::Error>,
    },
    /// A commit failed, and then so did finding out what came of it. The batch may be in the store or not; read the
    /// instance anew once the store answers again.
    #[error(
        "a commit failed and its outcome could not be found out; the state of {instances} must be read again"
    )]
    OutcomeUnknown {
        /// The instances that the batch touched.
        instances: InstanceList,
        /// Why the outcome could not be found out.
        #[source]
        source: Box<StoreError>,
    },
    /// An earlier failure has not been mended yet. The batch was not tried.
    #[error("the store has not recovered from an earlier failure")]
    Unavailable {
        /// Why it could not recover.
        #[source]
        source: Box<StoreError>,
    },
    /// Another instance has that name, handle or UUID.
    #[error("{taken} is taken by another instance")]
    Conflict {
        /// What is taken: a name, a handle or a UUID with its value.
        taken: String,
    },
    /// The batch names an instance that does not exist.
    #[error("there is no {0}")]
    UnknownInstance(InstanceId),
    /// An instance with children cannot be deleted.
    #[error("{0} has descendants")]
    HasDescendants(InstanceId),
    /// An instance was to be created whose id did not come from [`allocate_id`](super::Store::allocate_id).
    #[error("{0} cannot be created: its number was not reserved, or has been used")]
    NotReserved(InstanceId),
    /// An instance would become its own ancestor.
    #[error("{0} cannot become a descendant of itself")]
    Cycle(InstanceId),
    /// A value is larger than [`MAX_VALUE_BYTES`](super::MAX_VALUE_BYTES).
    #[error("{record} of {instance} would have {bytes} bytes, and a value has at most {most}", most = super::MAX_VALUE_BYTES)]
    ValueTooLarge {
        /// The instance.
        instance: InstanceId,
        /// The record.
        record: RecordName,
        /// The size that was asked for.
        bytes: usize,
    },
    /// A record name has no byte, or more than [`RecordName::MAX_BYTES`].
    #[error("a record name has between 1 and {most} bytes, not {0}", most = RecordName::MAX_BYTES)]
    BadRecordName(usize),
    /// A number does not fit the database.
    #[error("a number is too large for the state database")]
    NumberTooLarge,
    /// The random number generator of the system failed.
    #[error("the system gave no random bytes")]
    Random(#[source] getrandom::Error),
    /// The store was closed, or its thread has ended.
    #[error("the store is closed")]
    Closed,
}

/// Instances, for a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstanceList(pub Vec<InstanceId>);

impl std::fmt::Display for InstanceList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (position, id) in self.0.iter().enumerate() {
            write!(f, "{}{id}", if position == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl StoreError {
    /// Whether the batch may be in the store although its commit failed. The caller then reads the instance anew
    /// before it goes on with it.
    pub fn outcome_is_unknown(&self) -> bool {
        matches!(self, Self::OutcomeUnknown { .. })
    }

    /// Whether a write was refused, of which nothing counts: what was written before it lacks the end that would make it valid. The
    /// connection knows, and goes on. A failed synchronisation is something else: nobody knows what is on the medium then.
    pub(crate) fn is_refused_write(&self) -> bool {
        matches!(self, Self::DiskFull { .. } | Self::ReadOnly { .. } | Self::WriteRefused { .. })
    }

    /// Whether what the store has does not hold together, so that reading it again is useless.
    pub(crate) fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::CorruptedRecord { .. }
                | Self::CorruptedInstance { .. }
                | Self::Damaged { .. }
                | Self::UnknownInstance(_)
                | Self::BadRecordName(_)
                | Self::ValueTooLarge { .. }
                | Self::NumberTooLarge
        )
    }

    /// Whether there is no room.
    pub(super) fn is_full(&self) -> bool {
        match self {
            Self::DiskFull { .. } => true,
            Self::Io { source, .. } => source.kind() == io::ErrorKind::StorageFull,
            _ => false,
        }
    }

    /// Whether the failure is the batch's own fault, so that repeating it is useless.
    pub(crate) fn is_about_the_batch(&self) -> bool {
        match self {
            Self::Conflict { .. }
            | Self::UnknownInstance(_)
            | Self::HasDescendants(_)
            | Self::NotReserved(_)
            | Self::Cycle(_)
            | Self::ValueTooLarge { .. }
            | Self::BadRecordName(_)
            | Self::NumberTooLarge
            | Self::CorruptedInstance { .. }
            | Self::CorruptedRecord { .. } => true,
            Self::Database { source, .. } => {
                source.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation)
            }
            _ => false,
        }
    }
}
