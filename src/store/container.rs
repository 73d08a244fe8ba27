//! A store in one file or on one block device, without a file beside it.
//!
//! The database is in memory, and its image is written out with every transaction. There are three slots for it behind a block that says what this is:
//!
//! ```text
//! 0       4096              4096 + slot        4096 + 2 slot      4096 + 3 slot
//! | block | number, image … | number, image …  | number, image …  |
//! ```
//!
//! The image with the highest number whose hash holds is the one that counts. One slot always has what is on the medium, so that a loss of power in
//! the middle of writing another one leaves the state before; the third is for what need only outlive the process
//! ([`Durability::Process`]), since a write that nobody synchronised must not be followed by one over the only good image.
//!
//! The block is written last when a store is made: until then there is none.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, MAIN_DB};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{Durability, StoreError, schema};
use crate::host_key::HostKey;

const MAGIC: [u8; 16] = *b"vtpmd TPM state\0";
const FORMAT: u32 = 1;
/// The unit in which everything here is measured.
const BLOCK: usize = 4096;
const SLOTS: usize = 3;
/// Of a new file that has no size of its own. Only what is used is on the medium.
const USUAL_SLOT: u64 = 2 << 20;
/// Less cannot hold a TPM with what its limits allow.
const LEAST_SLOT: u64 = 1 << 20;
/// No more is read or written at once.
const LARGEST_SLOT: u64 = 64 << 20;
/// In front of an image: identity (16), number (8), length (8), SHA-256 over these and the image (32).
const IMAGE_HEADER: usize = 64;
/// Where the hash stands in it.
const HASHED: usize = 32;

/// How long a device is waited for: udev locks it while it looks at what has just appeared, or was just closed by another program.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(10);

/// What the block says.
struct Front {
    identity: [u8; 16],
    slot: u64,
    /// The host key, if it is not the caller's.
    host_key: Option<Zeroizing<[u8; 32]>>,
}

impl Front {
    /// Magic (16), format (4), whether there is a host key (4), length of a slot (8), identity (16), host key (32), SHA-256 of these.
    fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(BLOCK));
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&FORMAT.to_be_bytes());
        bytes.extend_from_slice(&u32::from(self.host_key.is_some()).to_be_bytes());
        bytes.extend_from_slice(&self.slot.to_be_bytes());
        bytes.extend_from_slice(&self.identity);
        bytes.extend_from_slice(self.host_key.as_ref().map_or(&[0; 32], |key| &**key));
        let hash = Sha256::digest(&*bytes);
        bytes.extend_from_slice(&hash);
        bytes.resize(BLOCK, 0);
        bytes
    }

    /// `None` if it is no block of ours.
    fn read(bytes: &[u8], path: &Path) -> Result<Option<Self>, StoreError> {
        let Some(rest) = bytes.strip_prefix(&MAGIC) else { return Ok(None) };
        let broken = || StoreError::BrokenContainer { path: path.to_owned() };
        let (format, rest) = rest.split_first_chunk().ok_or_else(broken)?;
        let format = u32::from_be_bytes(*format);
        if format > FORMAT {
            let (found, known) = (format.into(), FORMAT.into());
            return Err(StoreError::Newer { path: path.to_owned(), found, known });
        }
        let (has_key, rest) = rest.split_first_chunk().ok_or_else(broken)?;
        let (slot, rest) = rest.split_first_chunk().ok_or_else(broken)?;
        let (identity, rest) = rest.split_first_chunk().ok_or_else(broken)?;
        let (key, rest) = rest.split_first_chunk().ok_or_else(broken)?;
        let (hash, _) = rest.split_first_chunk::<32>().ok_or_else(broken)?;
        let hashed = bytes.get(..bytes.len().saturating_sub(rest.len())).ok_or_else(broken)?;
        let slot = u64::from_be_bytes(*slot);
        let sound = Sha256::digest(hashed)[..] == hash[..] && (LEAST_SLOT..=LARGEST_SLOT).contains(&slot);
        if !sound {
            return Err(broken());
        }
        let host_key = (u32::from_be_bytes(*has_key) != 0).then(|| Zeroizing::new(*key));
        Ok(Some(Self { identity: *identity, slot, host_key }))
    }
}

/// An image as it lies in a slot, and where.
struct Image {
    slot: usize,
    number: u64,
    /// With its header.
    bytes: Vec<u8>,
}

/// What is known of a store.
struct Store {
    front: Front,
    /// The block is written.
    complete: bool,
    /// The number of the newest image.
    number: u64,
    /// Its slot.
    newest: usize,
    /// The slot of the newest image that is on the medium.
    durable: usize,
}

/// A file or device with a store in it, or room for one. Nobody else has it while this exists.
pub(crate) struct Container {
    path: PathBuf,
    file: File,
    store: Mutex<Option<Store>>,
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError + use<> {
    let path = path.to_owned();
    move |source| StoreError::Io { action, path, source: Arc::new(source) }
}

/// As much as there is, up to the length of `buffer`.
fn read_up_to(file: &File, buffer: &mut [u8], mut at: u64) -> io::Result<usize> {
    let mut done = 0usize;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at) {
            Ok(0) => break,
            Ok(got) => {
                done = done.saturating_add(got);
                at = at.saturating_add(got as u64);
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// The first block of a file, which may be shorter.
fn first_block(file: &File) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut block = Zeroizing::new(vec![0; BLOCK]);
    let got = read_up_to(file, &mut block, 0)?;
    block.truncate(got);
    Ok(block)
}

impl Front {
    fn place(&self, slot: usize) -> u64 {
        (slot as u64).saturating_mul(self.slot).saturating_add(BLOCK as u64)
    }

    /// How long the image in a slot is, and its number, if it is one of this store; both unproven.
    fn claim(&self, file: &File, slot: usize) -> io::Result<Option<(u64, usize)>> {
        let mut header = [0; IMAGE_HEADER];
        if read_up_to(file, &mut header, self.place(slot))? < IMAGE_HEADER {
            return Ok(None);
        }
        let Some(rest) = header.strip_prefix(&self.identity) else { return Ok(None) };
        let Some((number, rest)) = rest.split_first_chunk() else { return Ok(None) };
        let Some((length, _)) = rest.split_first_chunk() else { return Ok(None) };
        let length = u64::from_be_bytes(*length).saturating_add(IMAGE_HEADER as u64);
        let length = usize::try_from(length).ok().filter(|&length| length as u64 <= self.slot);
        Ok(length.map(|length| (u64::from_be_bytes(*number), length)))
    }

    /// The newest image that is whole.
    fn newest(&self, file: &File) -> io::Result<Option<Image>> {
        let mut claims = Vec::new();
        for slot in 0..SLOTS {
            claims.extend(self.claim(file, slot)?.map(|(number, length)| (number, slot, length)));
        }
        claims.sort_unstable();
        for (number, slot, length) in claims.into_iter().rev() {
            let mut bytes = vec![0; length];
            let got = read_up_to(file, &mut bytes, self.place(slot))?;
            if got == length && bytes.get(HASHED..IMAGE_HEADER) == Some(&image_hash(&bytes)[..]) {
                return Ok(Some(Image { slot, number, bytes }));
            }
        }
        Ok(None)
    }
}

/// Of all but the place where it stands.
fn image_hash(bytes: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(bytes.get(..HASHED).unwrap_or_default());
    hash.update(bytes.get(IMAGE_HEADER..).unwrap_or_default());
    hash.finalize().into()
}

/// What is found by looking.
pub(crate) struct Found {
    /// The length of the newest image, if there is a store.
    pub(crate) size: Option<u64>,
    /// The first bytes, up to a block of them.
    pub(crate) start: Zeroizing<Vec<u8>>,
}

impl Container {
    /// Looks at a file or device, whoever has it. One that is not there is empty.
    ///
    /// # Errors
    /// [`StoreError`]; `Newer` or `BrokenContainer` for a store that cannot be opened.
    pub(crate) fn look(path: &Path) -> Result<Found, StoreError> {
        let file = match File::open(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return Ok(Found { size: None, start: Zeroizing::default() });
            }
            opened => opened.map_err(io_error("open", path))?,
        };
        let start = first_block(&file).map_err(io_error("read", path))?;
        let Some(front) = Front::read(&start, path)? else { return Ok(Found { size: None, start }) };
        let newest = front.newest(&file).map_err(io_error("read", path))?;
        let newest = newest.ok_or_else(|| StoreError::BrokenContainer { path: path.to_owned() })?;
        Ok(Found { size: Some(newest.bytes.len().saturating_sub(IMAGE_HEADER) as u64), start })
    }

    /// Opens a file or device. What is not there is made, as a file of this mode.
    ///
    /// # Errors
    /// [`StoreError`]; `Locked` if another process has it.
    pub(crate) fn open(path: &Path, mode: u32) -> Result<Arc<Self>, StoreError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(mode)
            .open(path)
            .map_err(io_error("open", path))?;
        let is_device = file.metadata().map_err(io_error("examine", path))?.file_type().is_block_device();
        let begin = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if is_device && begin.elapsed() < PATIENCE => {
                    std::thread::sleep(PAUSE);
                }
                Err(TryLockError::WouldBlock) => {
                    let holder = "another process".into();
                    return Err(StoreError::Locked { path: path.to_owned(), holder });
                }
                Err(TryLockError::Error(source)) => return Err(io_error("lock", path)(source)),
            }
        }
        let start = first_block(&file).map_err(io_error("read", path))?;
        let store = Front::read(&start, path)?.map(|front| Store {
            front,
            complete: true,
            number: 0,
            newest: 0,
            durable: 0,
        });
        Ok(Arc::new(Self { path: path.to_owned(), file, store: Mutex::new(store) }))
    }

    fn store(&self) -> MutexGuard<'_, Option<Store>> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(io::Error) -> StoreError + use<> {
        io_error(action, &self.path)
    }

    fn missing(&self) -> StoreError {
        StoreError::Missing { path: self.path.clone() }
    }

    /// The file or device.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is a store, made to its end.
    pub(crate) fn has_store(&self) -> bool {
        self.store().as_ref().is_some_and(|store| store.complete)
    }

    /// The host key that is kept in it.
    pub(crate) fn host_key(&self) -> Option<HostKey> {
        self.store().as_ref()?.front.host_key.clone().map(HostKey::from_bytes)
    }

    /// Leaves no store. What is left of one cannot be read: its host key was here, or is the caller's.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(crate) fn clear(&self) -> Result<(), StoreError> {
        *self.store() = None;
        self.file
            .write_all_at(&[0; BLOCK], 0)
            .and_then(|()| self.file.sync_all())
            .map_err(self.failed("clear"))
    }

    /// Makes room for a store, with a new host key unless the caller has one. It is there when it is [finished](Self::finish).
    ///
    /// # Errors
    /// [`StoreError`]; `TooSmall` for a device without room, `Exists`.
    pub(crate) fn prepare(&self, own_key: bool) -> Result<(), StoreError> {
        let metadata = self.file.metadata().map_err(self.failed("examine"))?;
        // The length of a device is where its end is.
        let length = (&self.file).seek(SeekFrom::End(0)).map_err(self.failed("examine"))?;
        let block = BLOCK as u64;
        let room =
            length.saturating_sub(block).div_euclid(SLOTS as u64).div_euclid(block).saturating_mul(block);
        let slot = match room {
            LEAST_SLOT.. => room.min(LARGEST_SLOT),
            _ if metadata.is_file() => USUAL_SLOT,
            _ => {
                let least = LEAST_SLOT.saturating_mul(SLOTS as u64).saturating_add(block);
                return Err(StoreError::TooSmall { path: self.path.clone(), length, least });
            }
        };
        let mut identity = [0; 16];
        getrandom::fill(&mut identity).map_err(StoreError::Random)?;
        let mut host_key = own_key.then(|| Zeroizing::new([0; 32]));
        if let Some(key) = &mut host_key {
            getrandom::fill(&mut **key).map_err(StoreError::Random)?;
        }
        let mut store = self.store();
        if store.as_ref().is_some_and(|store| store.complete) {
            return Err(StoreError::Exists { path: self.path.clone() });
        }
        let front = Front { identity, slot, host_key };
        *store = Some(Store { front, complete: false, number: 0, newest: 0, durable: 0 });
        Ok(())
    }

    /// Says that the store is made: from here on it is one.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(crate) fn finish(&self) -> Result<(), StoreError> {
        let mut store = self.store();
        let store = store.as_mut().ok_or_else(|| self.missing())?;
        self.file
            .write_all_at(&store.front.to_bytes(), 0)
            // The name of a new file, too.
            .and_then(|()| self.file.sync_all())
            .and_then(|()| match self.path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
                _ => File::open(".")?.sync_all(),
            })
            .map_err(self.failed("make durable"))?;
        store.complete = true;
        Ok(())
    }

    /// A database in memory with the newest image, or an empty one, that grows no further than an image may.
    ///
    /// What is read may be in the memory of the system only, since whoever wrote it may not have had it synchronised: it is written once more.
    pub(super) fn connect(&self) -> Result<Connection, StoreError> {
        let failed = schema::explain(&self.path, "open");
        let mut connection = Connection::open_in_memory().map_err(&failed)?;
        let mut guard = self.store();
        let store = guard.as_mut().ok_or_else(|| self.missing())?;
        match store.front.newest(&self.file).map_err(self.failed("read"))? {
            Some(Image { slot, number, bytes }) => {
                self.file
                    .write_all_at(&bytes, store.front.place(slot))
                    .and_then(|()| self.file.sync_all())
                    .map_err(self.failed("write"))?;
                (store.number, store.newest, store.durable) = (number, slot, slot);
                let image = bytes.get(IMAGE_HEADER..).unwrap_or_default();
                connection.deserialize_read_exact(MAIN_DB, image, image.len(), false).map_err(&failed)?;
            }
            None if store.complete => return Err(StoreError::BrokenContainer { path: self.path.clone() }),
            None => {}
        }
        let page: u64 =
            connection.pragma_query_value(None, "page_size", |row| row.get(0)).map_err(&failed)?;
        let pages = store.front.slot.saturating_sub(IMAGE_HEADER as u64).checked_div(page).unwrap_or(0);
        connection.pragma_update(None, "max_page_count", pages).map_err(&failed)?;
        Ok(connection)
    }

    /// Writes what is in the database.
    pub(super) fn write(&self, connection: &Connection, durability: Durability) -> Result<(), StoreError> {
        let failed = schema::explain(&self.path, "write");
        let image = connection.serialize(MAIN_DB).map_err(failed)?;
        let mut guard = self.store();
        let store = guard.as_mut().ok_or_else(|| self.missing())?;
        let number = store.number.checked_add(1).ok_or(StoreError::NumberTooLarge)?;
        let mut bytes = Vec::with_capacity(image.len().saturating_add(IMAGE_HEADER));
        bytes.extend_from_slice(&store.front.identity);
        bytes.extend_from_slice(&number.to_be_bytes());
        bytes.extend_from_slice(&(image.len() as u64).to_be_bytes());
        bytes.extend_from_slice(&[0; 32]);
        bytes.extend_from_slice(&image);
        let hash = image_hash(&bytes);
        if let Some(place) = bytes.get_mut(HASHED..IMAGE_HEADER) {
            place.copy_from_slice(&hash);
        }
        if bytes.len() as u64 > store.front.slot {
            return Err(self.failed("write")(ErrorKind::StorageFull.into()));
        }
        // The oldest one, so that all are overwritten in turn.
        let next = |after: usize| after.wrapping_add(1) % SLOTS;
        let mut slot = next(store.newest);
        if slot == store.durable {
            slot = next(slot);
        }
        self.file.write_all_at(&bytes, store.front.place(slot)).map_err(self.failed("write"))?;
        if durability == Durability::Medium {
            // The length of a file that has grown goes along.
            self.file.sync_data().map_err(self.failed("synchronise"))?;
            store.durable = slot;
        }
        (store.number, store.newest) = (number, slot);
        Ok(())
    }

    /// Writes what is in the database into all slots: nothing of what was before remains.
    pub(super) fn overwrite(&self, connection: &Connection) -> Result<(), StoreError> {
        (0..SLOTS).try_for_each(|_| self.write(connection, Durability::Medium))
    }
}
