//! The durable state of all instances: one SQLite database, every value sealed, one writer.
//!
//! # What a commit is worth
//!
//! [`Store::commit`] takes a [`Batch`], which is applied as a whole or not at all, and returns when the batch is as durable as it says
//! ([`Durability`]): on the medium (write-ahead log, synchronised), or with the system, where it outlives this process. A later
//! batch that goes to the medium takes all before it along, so that what a loss of power leaves is always
//! the state of some earlier moment. Batches that wait at the same time, of whichever
//! instances, share one transaction and so one synchronisation. A batch that is refused does not touch its
//! neighbours. When a transaction fails, the database is opened anew, what is in it is written out and synchronised again, and only then
//! the batches are told whether they are in: a system that lost pages in a failed synchronisation reports
//! success for the next one, so neither the failed call nor a later good one proves anything. Only if that fails too is the
//! outcome unknown, and said to be ([`StoreError::outcome_is_unknown`]).
//!
//! # What the seals are worth
//!
//! Values are sealed with AES-256-GCM under a key of their instance, which is wrapped by the [host key](crate::host_key).
//! The names, sizes and number of records, the tree, and the names, UUIDs and attributes of instances are not secret, but
//! sealed against change as well. Someone who can write the file cannot, without being noticed when it is read,
//!
//! - change a value, or exchange values among records, instances or databases,
//! - put back one record, or some records of an instance, to an earlier version, remove one or bring a removed one back:
//!   the instance's row is sealed over the versions of all its records, and the version counts on with every batch,
//! - change a name, UUID, handle, parent or attribute.
//!
//! Not noticed is what is consistent in itself: all rows of an instance (row, key and records) put back together to one
//! earlier moment, all rows of an instance removed, and the whole file put back. Noticing those needs a number that
//! only grows and that lives outside the file, such as an NV counter of a TPM of the host.
//!
//! Deleting an instance destroys its wrapped key: SQLite overwrites the page with zeros, and the write-ahead log is
//! emptied before the deletion is acknowledged, or as soon as the medium allows. What file system and medium keep
//! of overwritten blocks is out of the store's reach; it is of use only together with the host key.

mod apply;
mod container;
mod counters;
mod early_sync;
mod error;
mod group;
mod schema;
mod seal;
#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "a test that overflows fails, as it should")]
mod tests;
mod writer;

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, mpsc};
use std::thread::JoinHandle;

use zeroize::Zeroizing;

pub(crate) use self::container::Container;
pub use self::counters::Counters;
pub use self::error::{InstanceList, StoreError};
use self::group::{Gathering, Ticket};
use self::schema::Place;
use self::writer::{Request, Writer};
use crate::host_key::HostKey;

/// The most bytes that one value may have.
pub const MAX_VALUE_BYTES: usize = 16 << 20;

/// Number of an instance, in this store for ever: it is not given out again when the instance is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(pub u64);

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "instance {}", self.0)
    }
}

/// What is known of an instance without opening its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceRow {
    /// Its number, from [`Store::allocate_id`].
    pub id: InstanceId,
    /// Its parent; the root has none.
    pub parent: Option<InstanceId>,
    /// Its handle in the instance commands; unique.
    pub handle: u32,
    /// Its name; unique.
    pub name: String,
    /// The UUID of its machine; unique.
    pub uuid: [u8; 16],
    /// Attribute bits, which mean nothing to the store.
    pub attributes: u32,
}

/// An instance of which what the store has does not hold together. What its row says is what stands there now, which nobody vouches for.
#[derive(Clone, Debug)]
pub struct DamagedInstance {
    /// Its number.
    pub id: InstanceId,
    /// Its name, if there is something like one.
    pub name: Option<String>,
    /// The UUID of its machine, if there is something like one.
    pub uuid: Option<[u8; 16]>,
    /// What was found.
    pub error: StoreError,
}

/// Name of a record within its instance: 1 to [`RecordName::MAX_BYTES`] bytes, by custom a kind and an index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordName {
    // Bytes behind `length` are zero, so that comparing the fields compares the names.
    bytes: [u8; RecordName::MAX_BYTES],
    length: u8,
}

impl RecordName {
    /// The most bytes in a name.
    pub const MAX_BYTES: usize = 16;

    /// A name of these bytes; fails if there are none or too many.
    pub fn new(name: &[u8]) -> Result<Self, StoreError> {
        let refused = || StoreError::BadRecordName(name.len());
        let mut bytes = [0; Self::MAX_BYTES];
        bytes.get_mut(..name.len()).ok_or_else(refused)?.copy_from_slice(name);
        match u8::try_from(name.len()) {
            Ok(length) if length > 0 => Ok(Self { bytes, length }),
            _ => Err(refused()),
        }
    }

    /// The name of a record that exists once in an instance.
    pub const fn kind(kind: u8) -> Self {
        let mut bytes = [0; Self::MAX_BYTES];
        bytes[0] = kind;
        Self { bytes, length: 1 }
    }

    /// The name of one of many: a kind and an index, such as an NV index or the handle of a persistent object.
    pub const fn indexed(kind: u8, index: u32) -> Self {
        let [a, b, c, d] = index.to_be_bytes();
        let mut bytes = [0; Self::MAX_BYTES];
        [bytes[0], bytes[1], bytes[2], bytes[3], bytes[4]] = [kind, a, b, c, d];
        Self { bytes, length: 5 }
    }

    /// The bytes of the name.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }

    fn length(&self) -> u8 {
        self.length
    }
}

impl fmt::Display for RecordName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record {}", hex::encode(self.as_bytes()))
    }
}

impl fmt::Debug for RecordName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordName({})", hex::encode(self.as_bytes()))
    }
}

/// A record as it is read: its name and its value.
pub type Record = (RecordName, Zeroizing<Vec<u8>>);

/// One change.
pub enum Op {
    /// Makes an instance; its id comes from [`Store::allocate_id`], its parent exists.
    CreateInstance(InstanceRow),
    /// Destroys an instance that has no children, with all its records and its key.
    DeleteInstance(InstanceId),
    /// Replaces what is known of an instance.
    UpdateInstance(InstanceRow),
    /// Writes a record, whether or not it is there.
    Put {
        /// The instance.
        instance: InstanceId,
        /// The name of the record.
        key: RecordName,
        /// Its new value, of at most [`MAX_VALUE_BYTES`].
        value: Zeroizing<Vec<u8>>,
    },
    /// Removes a record; one that is not there is no error.
    Delete {
        /// The instance.
        instance: InstanceId,
        /// The name of the record.
        key: RecordName,
    },
}

impl Op {
    fn instance(&self) -> InstanceId {
        match self {
            Self::CreateInstance(row) | Self::UpdateInstance(row) => row.id,
            Self::DeleteInstance(instance) | Self::Put { instance, .. } | Self::Delete { instance, .. } => {
                *instance
            }
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Put { value, .. } => value.len(),
            _ => 0,
        }
    }
}

/// What a batch outlives once it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Durability {
    /// A loss of power.
    #[default]
    Medium,
    /// The end of this process, however it comes: for what means nothing any more once the host has lost its power.
    Process,
}

/// Changes that take effect together or not at all, in this order.
#[derive(Default)]
pub struct Batch {
    /// The changes.
    pub ops: Vec<Op>,
    /// What they outlive.
    pub durability: Durability,
}

impl Batch {
    /// Changes that outlive a loss of power.
    #[must_use]
    pub const fn new(ops: Vec<Op>) -> Self {
        Self { ops, durability: Durability::Medium }
    }
}

/// How much the store has written since it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// Batches that were made durable.
    pub commits: u64,
    /// Transactions that they took.
    pub transactions: u64,
    /// How many of those were synchronised.
    pub synchronised: u64,
}

/// Numbers that were given out by [`Store::allocate_id`] and are not in the database yet.
#[derive(Default)]
struct Reserved(Mutex<BTreeSet<InstanceId>>);

impl Reserved {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<InstanceId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The open store. It is shared among threads by reference.
pub struct Store {
    writer: Arc<Mutex<Writer>>,
    requests: mpsc::Sender<Request>,
    gathering: Arc<Gathering>,
    /// Requests that the thread has not taken, about: while there are any, a commit goes behind them, to share their transaction.
    waiting: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
    next_id: AtomicU64,
    reserved: Arc<Reserved>,
    counters: Arc<Counters>,
}

impl Store {
    /// Makes a new, empty store at `path` and opens it. Its directory exists; a database that is there already is left
    /// alone ([`StoreError::Exists`]). The file appears complete or not at all.
    pub fn create(path: &Path, host_key: &HostKey) -> Result<Self, StoreError> {
        let lock = schema::lock(path)?;
        schema::create(path, host_key)?;
        Self::start(Writer::open(Place::File(path.to_owned()), host_key, Some(lock))?)
    }

    /// Makes a new, empty store in a container that was prepared for one, and opens it. The container is to be told when all is in it.
    pub(crate) fn create_in(container: &Arc<Container>, host_key: &HostKey) -> Result<Self, StoreError> {
        schema::create_in(container, host_key)?;
        Self::open_in(container, host_key)
    }

    /// Opens the store in a container. As [`Store::open`].
    pub(crate) fn open_in(container: &Arc<Container>, host_key: &HostKey) -> Result<Self, StoreError> {
        Self::start(Writer::open(Place::Container(Arc::clone(container)), host_key, None)?)
    }

    /// Opens the store at `path`, which no other process may have open. An instance that was tampered with does
    /// not keep the store from opening; see [`Store::damaged`].
    pub fn open(path: &Path, host_key: &HostKey) -> Result<Self, StoreError> {
        // Told apart first: a lock file is not left where no store is.
        schema::find(path)?;
        let lock = schema::lock(path)?;
        Self::start(Writer::open(Place::File(path.to_owned()), host_key, Some(lock))?)
    }

    fn start(writer: Writer) -> Result<Self, StoreError> {
        let (requests, queue) = mpsc::channel();
        let (next_id, reserved, counters) = (writer.next_id(), writer.reserved(), writer.counters());
        let path = writer.path().to_owned();
        let (writer, waiting) = (Arc::new(Mutex::new(writer)), Arc::new(AtomicUsize::new(0)));
        let gathering: Arc<Gathering> = Arc::default();
        let thread = std::thread::Builder::new()
            .name("store".into())
            .spawn({
                let (writer, waiting) = (Arc::clone(&writer), Arc::clone(&waiting));
                let gathering = Arc::clone(&gathering);
                move || Writer::run(&writer, &queue, &gathering, &waiting)
            })
            .map_err(|source| StoreError::Io {
                action: "start the thread for",
                path,
                source: Arc::new(source),
            })?;
        let next_id = AtomicU64::new(next_id);
        Ok(Self { writer, requests, gathering, waiting, thread: Some(thread), next_id, reserved, counters })
    }

    /// Makes `batch` durable and returns when it is. Many threads may wait here at once; they share transactions.
    pub fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        if batch.ops.is_empty() {
            return Ok(());
        }
        // Where nobody else writes there is nothing to share, and nobody to wait for.
        if self.waiting.load(Ordering::Relaxed) == 0
            && let Ok(mut writer) = self.writer.try_lock()
        {
            return writer.commit(batch);
        }
        self.join(batch)?.wait()
    }

    /// Has the thread make `batch` durable, with others that wait.
    fn join(&self, batch: Batch) -> Result<Ticket, StoreError> {
        let (ticket, begins_a_group) = self.gathering.push(batch)?;
        if begins_a_group {
            self.waiting.fetch_add(1, Ordering::Relaxed);
            self.requests.send(Request::Commits).map_err(|_| StoreError::Closed)?;
        }
        Ok(ticket)
    }

    /// All instances that are intact, in the order of their numbers.
    pub fn instances(&self) -> Result<Vec<InstanceRow>, StoreError> {
        self.ask(Request::Instances)?
    }

    /// Instances whose row, key or set of records does not hold together, and what was found. They cannot be read or
    /// written, only deleted. A single corrupted value shows when [`Store::records`] reads it.
    pub fn damaged(&self) -> Result<Vec<DamagedInstance>, StoreError> {
        self.ask(Request::Damaged)?
    }

    /// All records of an instance, in the order of their names.
    pub fn records(&self, id: InstanceId) -> Result<Vec<Record>, StoreError> {
        self.ask(|reply| Request::Records(id, reply))?
    }

    /// Reserves a number for an instance that is about to be created. One that is not used is lost until the store
    /// is opened again; one that was ever in the store does not come back.
    pub fn allocate_id(&self) -> InstanceId {
        let id = InstanceId(self.next_id.fetch_add(1, Ordering::Relaxed));
        self.reserved.lock().insert(id);
        id
    }

    /// Whether it works still: its thread is there, and no panic has left a writer behind that nothing can be written with. Says nothing
    /// of the medium, and does not wait for it.
    pub fn lives(&self) -> bool {
        let panicked = matches!(self.writer.try_lock(), Err(TryLockError::Poisoned(_)));
        !panicked && self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// What was written since the store was opened.
    pub fn statistics(&self) -> Statistics {
        Statistics {
            commits: self.counters.commits.get(),
            transactions: self.counters.transactions(),
            synchronised: self.counters.synchronised.get(),
        }
    }

    /// All that is counted.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Writes all that is in the log into the database file, durably: the file alone then has everything, and can be moved. Closing does
    /// that as well, but cannot say that it failed.
    pub fn consolidate(&self) -> Result<(), StoreError> {
        self.ask(Request::EmptyLog)?
    }

    /// Finishes the commits that wait, and closes the database. Dropping the store does the same.
    pub fn close(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        if let Some(thread) = self.thread.take() {
            // If the thread is gone there is nothing left to close.
            let _ = self.requests.send(Request::Close);
            let _ = thread.join();
            // What a panic left behind is not written to.
            if let Ok(mut writer) = self.writer.lock() {
                writer.close();
            }
        }
    }

    fn ask<T>(&self, request: impl FnOnce(mpsc::Sender<T>) -> Request) -> Result<T, StoreError> {
        let (reply, answer) = mpsc::channel();
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.requests.send(request(reply)).map_err(|_| StoreError::Closed)?;
        answer.recv().map_err(|_| StoreError::Closed)
    }

    /// Runs `inspect` on the writer, between transactions.
    #[cfg(test)]
    fn with_writer<T: Send + 'static>(&self, inspect: impl FnOnce(&mut Writer) -> T + Send + 'static) -> T {
        self.ask(|reply: mpsc::Sender<T>| {
            Request::Inspect(Box::new(move |writer| {
                let _ = reply.send(inspect(writer));
            }))
        })
        .unwrap()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.stop();
    }
}
