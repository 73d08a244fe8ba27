//! The file: its lock, its creation, its tables, and how a connection to it is set up.

use std::ffi::{OsString, c_int};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::hooks::Wal;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior, ffi};
use subtle::ConstantTimeEq;

use super::seal::{self, WrappingKey};
use super::{Container, Durability, StoreError};
use crate::host_key::HostKey;

/// "vtpm": the mark of this program in SQLite's header.
const APPLICATION_ID: i64 = 0x7674_706d;

/// With so many pages in it the log moves into the database.
const LONG_LOG: c_int = 1000;

/// What leads from each format to the next; the first from nothing to format 1. A released line is never changed.
const MIGRATIONS: &[&str] = &[FORMAT_1];

const FORMAT_1: &str = "
    CREATE TABLE store (
        only      INTEGER PRIMARY KEY CHECK (only = 1),
        identity  BLOB NOT NULL CHECK (length(identity) = 16),
        key_check BLOB NOT NULL CHECK (length(key_check) = 32)
    ) STRICT;
    -- Counts transactions. It tells after a failed one whether it took place.
    CREATE TABLE ledger (
        only         INTEGER PRIMARY KEY CHECK (only = 1),
        transactions INTEGER NOT NULL
    ) STRICT;
    INSERT INTO ledger (only, transactions) VALUES (1, 0);
    CREATE TABLE instance (
        id         INTEGER PRIMARY KEY AUTOINCREMENT,
        parent     INTEGER REFERENCES instance (id) ON DELETE RESTRICT,
        handle     INTEGER NOT NULL UNIQUE,
        name       TEXT NOT NULL UNIQUE,
        uuid       BLOB NOT NULL UNIQUE CHECK (length(uuid) = 16),
        attributes INTEGER NOT NULL,
        sequence   INTEGER NOT NULL,
        seal       BLOB NOT NULL
    ) STRICT;
    CREATE INDEX instance_by_parent ON instance (parent);
    CREATE TABLE instance_key (
        instance INTEGER PRIMARY KEY REFERENCES instance (id) ON DELETE CASCADE,
        wrapped  BLOB NOT NULL
    ) STRICT;
    CREATE TABLE record (
        id       INTEGER PRIMARY KEY,
        instance INTEGER NOT NULL REFERENCES instance (id) ON DELETE CASCADE,
        name     BLOB NOT NULL,
        version  INTEGER NOT NULL,
        sealed   BLOB NOT NULL,
        UNIQUE (instance, name)
    ) STRICT;
";

/// The newest format that this program knows.
pub(super) fn newest_format() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// Says what an error of SQLite means for the database at `path`.
pub(super) fn explain(path: &Path, action: &'static str) -> impl Fn(rusqlite::Error) -> StoreError {
    move |source| {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => StoreError::DiskFull { path, source: Arc::new(source) },
            Some(ErrorCode::SystemIoFailure) if extended_code(&source) == Some(ffi::SQLITE_IOERR_WRITE) => {
                if is_read_only(&path) {
                    StoreError::ReadOnly { path }
                } else {
                    StoreError::WriteRefused { path, source: Arc::new(source) }
                }
            }
            Some(ErrorCode::ReadOnly) => StoreError::ReadOnly { path },
            Some(ErrorCode::NotADatabase) => StoreError::NotADatabase { path },
            Some(ErrorCode::DatabaseCorrupt) => StoreError::Damaged { path, source: Arc::new(source) },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                StoreError::Locked { path, holder: "another program".into() }
            }
            _ => StoreError::Database { action, source: Arc::new(source) },
        }
    }
}

fn extended_code(error: &rusqlite::Error) -> Option<c_int> {
    error.sqlite_error().map(|error| error.extended_code)
}

/// Whether the file system of the database takes no writes, as ext4 after an error of its own. It is asked by way of the lock file: a database that
/// is opened and closed beside its connection loses the connection's lock.
fn is_read_only(database: &Path) -> bool {
    let opened = OpenOptions::new().write(true).open(database.with_extension("lock"));
    opened.is_err_and(|error| error.kind() == io::ErrorKind::ReadOnlyFilesystem)
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::ReadOnlyFilesystem => StoreError::ReadOnly { path },
        _ => StoreError::Io { action, path, source: Arc::new(source) },
    }
}

/// Where a database is.
#[derive(Clone)]
pub(super) enum Place {
    /// In a file of its own, with a log beside it.
    File(PathBuf),
    /// In memory, and its image in a container.
    Container(Arc<Container>),
}

impl Place {
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::File(path) => path,
            Self::Container(container) => container.path(),
        }
    }

    /// What follows on a `COMMIT` before the transaction is as durable as it is to be.
    pub(super) fn keep(&self, connection: &Connection, durability: Durability) -> Result<(), StoreError> {
        match self {
            Self::File(_) => Ok(()),
            Self::Container(container) => container.write(connection, durability),
        }
    }

    /// Leaves nothing of what was overwritten or deleted, and synchronises the rest: writes the log into the database and empties it.
    pub(super) fn consolidate(&self, connection: &Connection) -> Result<(), StoreError> {
        match self {
            Self::File(path) => empty_log(connection, path),
            Self::Container(container) => container.overwrite(connection),
        }
    }

    /// Has what is in the log written once more, into a file that takes its place, and synchronised there. The caller has no connection.
    ///
    /// A system that could not synchronise a file keeps in its memory what it could not write, and calls it written: that is what everybody
    /// reads, and no later synchronisation says that a loss of power takes it away. What the log has must be safe before any of it moves
    /// into the database. Writing it again where it is would not do: ext4 may go on to take a block for empty which it failed to write at
    /// first, and say nothing either.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::ReadOnly`].
    pub(super) fn renew_log(&self) -> Result<(), StoreError> {
        match self {
            Self::File(path) => renew(&with_suffix(path, "-wal")),
            // It has none.
            Self::Container(_) => Ok(()),
        }
    }

    /// As [`Self::renew_log`], with the database.
    ///
    /// # Errors
    /// As there.
    pub(super) fn renew(&self) -> Result<(), StoreError> {
        self.renew_log()?;
        match self {
            Self::File(path) => renew(path),
            // Writes every image whole, over the oldest one.
            Self::Container(_) => Ok(()),
        }
    }

    fn connect(&self) -> Result<Connection, StoreError> {
        match self {
            Self::File(path) => {
                find(path)?;
                raw_connection(path)
            }
            Self::Container(container) => container.connect(),
        }
    }
}

/// Holds off other processes while it exists.
pub(super) struct Lock {
    _file: File,
}

/// Makes sure that there is a file at `path`.
pub(super) fn find(path: &Path) -> Result<(), StoreError> {
    match path.try_exists().map_err(io_error("find", path))? {
        true => Ok(()),
        false => Err(StoreError::Missing { path: path.to_owned() }),
    }
}

/// Takes the lock file beside the database. SQLite's own lock keeps others out of the file as well; this one exists
/// before the database does, and names who holds it.
pub(super) fn lock(database: &Path) -> Result<Lock, StoreError> {
    let path = database.with_extension("lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io_error("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Only for the message; the holder may be about to write it.
            let _ = (&file).take(20).read_to_string(&mut holder);
            let holder = match holder.trim().parse::<u32>() {
                Ok(process) => format!("process {process}"),
                Err(_) => "another process".into(),
            };
            return Err(StoreError::Locked { path: database.to_owned(), holder });
        }
        Err(TryLockError::Error(source)) => return Err(io_error("lock", &path)(source)),
    }
    // Only for the message, too; on a full medium it has to go without.
    let _ =
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(Lock { _file: file })
}

/// Makes a new database. It is made under another name and linked to `path` when it is complete, so that an
/// interrupted `vtpmd init` can be repeated. The caller holds the lock.
pub(super) fn create(path: &Path, host_key: &HostKey) -> Result<(), StoreError> {
    let exists = || StoreError::Exists { path: path.to_owned() };
    if path.symlink_metadata().is_ok() {
        return Err(exists());
    }
    let draft = with_suffix(path, ".new");
    remove_leftovers(&draft)?;
    // SQLite gives the files that it makes beside a database the mode of the database.
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)
        .map_err(io_error("create", &draft))?;
    let linked = fill(&draft, host_key).and_then(|()| {
        fs::hard_link(&draft, path).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => exists(),
            _ => io_error("create", path)(source),
        })
    });
    let removed = remove_leftovers(&draft);
    linked?;
    removed?;
    synchronise_directory(path)
}

/// Makes a new database in a container that is prepared for one.
pub(super) fn create_in(container: &Arc<Container>, host_key: &HostKey) -> Result<(), StoreError> {
    let mut connection = container.connect()?;
    make_tables(&mut connection, container.path(), host_key)?;
    container.write(&connection, Durability::Medium)
}

fn make_tables(connection: &mut Connection, path: &Path, host_key: &HostKey) -> Result<(), StoreError> {
    let failed = explain(path, "write a new database");
    let mut identity = [0u8; 16];
    getrandom::fill(&mut identity).map_err(StoreError::Random)?;
    configure(connection).map_err(&failed)?;
    connection.pragma_update(None, "application_id", APPLICATION_ID).map_err(&failed)?;
    migrate(connection, 0).map_err(&failed)?;
    connection
        .execute(
            "INSERT INTO store (only, identity, key_check) VALUES (1, ?1, ?2)",
            (identity, seal::key_check_value(host_key, &identity)),
        )
        .map(drop)
        .map_err(failed)
}

fn fill(draft: &Path, host_key: &HostKey) -> Result<(), StoreError> {
    let failed = explain(draft, "write a new database");
    let mut connection = raw_connection(draft)?;
    make_tables(&mut connection, draft, host_key)?;
    // Closing does that, too, but says nothing when the medium is full, and the log does not go along to the other name.
    empty_log(&connection, draft)?;
    connection.close().map_err(|(_, source)| failed(source))?;
    // The file itself must be durable before it gets its name.
    File::open(draft).and_then(|file| file.sync_all()).map_err(io_error("make durable", draft))
}

/// Opens the database and brings it to the newest format. Returns what was made from the host key with it.
pub(super) fn open(place: &Place, host_key: &HostKey) -> Result<(Connection, WrappingKey), StoreError> {
    let path = place.path();
    let mut connection = connect(place)?;
    let failed = explain(path, "open");
    let (identity, key_check): ([u8; 16], [u8; 32]) = connection
        .query_row("SELECT identity, key_check FROM store", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .map_err(&failed)?;
    if !bool::from(seal::key_check_value(host_key, &identity).ct_eq(&key_check)) {
        return Err(StoreError::WrongHostKey { path: path.to_owned() });
    }
    let format = read_format(&connection).map_err(&failed)?;
    // A container has it with what is kept first.
    migrate(&mut connection, format).map_err(explain(path, "bring to the newest format"))?;
    Ok((connection, WrappingKey::new(host_key, &identity)))
}

/// Opens the database and makes sure that it is one of ours, not newer than this program, and ours alone.
pub(super) fn connect(place: &Place) -> Result<Connection, StoreError> {
    let path = place.path();
    let failed = explain(path, "open");
    let connection = place.connect()?;
    let foreign = || StoreError::NotADatabase { path: path.to_owned() };
    let application: i64 =
        connection.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(&failed)?;
    if application != APPLICATION_ID {
        return Err(foreign());
    }
    let found = read_format(&connection).map_err(&failed)?;
    if found > newest_format() {
        return Err(StoreError::Newer { path: path.to_owned(), found, known: newest_format() });
    }
    if found < 1 {
        return Err(foreign());
    }
    configure(&connection).map_err(&failed)?;
    Ok(connection)
}

fn raw_connection(path: &Path) -> Result<Connection, StoreError> {
    let failed = explain(path, "open");
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .map_err(&failed)?;
    connection.busy_timeout(Duration::from_secs(2)).map_err(&failed)?;
    // Before the first access: the log's index then lives in this process's memory and no second process can join.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(&failed)?;
    Ok(connection)
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "secure_delete", true)?;
    // Copies of pages that a savepoint keeps must not go to a file elsewhere.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "journal_size_limit", 16 << 20)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_prepared_statement_cache_capacity(32);
    connection.wal_hook(Some(move_log_when_long));
    Ok(())
}

/// Moves the log into the database when it is long, as SQLite does by itself. But SQLite forgets what went wrong at that: where the log could not
/// be synchronised, what the commits before left in it is lost with a loss of power, and all that follows it with them, and no later
/// synchronisation says so. Told here, it fails the commit, which did take place; then everything is opened and written anew.
///
/// All else stays in the log, and is tried again with the next commit.
fn move_log_when_long(log: &Wal, pages: c_int) -> rusqlite::Result<()> {
    if pages < LONG_LOG {
        return Ok(());
    }
    match log.checkpoint() {
        Err(error) if extended_code(&error) == Some(ffi::SQLITE_IOERR_FSYNC) => Err(error),
        Err(error) => {
            log::debug!("the log of the state database stays as long as it is: {error}");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// Puts a durable copy of a file in its place. There may be no such file, or nothing in it.
fn renew(path: &Path) -> Result<(), StoreError> {
    let copy = with_suffix(path, ".again");
    let copied = match File::open(path) {
        Ok(file) => copy_durably(file, &copy),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => Err(error),
    };
    let renewed =
        copied.and_then(|bytes| if bytes == 0 { fs::remove_file(&copy) } else { fs::rename(&copy, path) });
    match renewed {
        Ok(()) => synchronise_directory(path),
        Err(error) => {
            let _ = fs::remove_file(&copy);
            Err(io_error("write a new copy of", path)(error))
        }
    }
}

/// How many bytes there were.
fn copy_durably(mut from: File, to: &Path) -> io::Result<u64> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(to)?;
    let bytes = io::copy(&mut from, &mut file)?;
    file.sync_all()?;
    Ok(bytes)
}

fn read_format(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn migrate(connection: &mut Connection, from: i64) -> rusqlite::Result<()> {
    let done = usize::try_from(from).unwrap_or(0);
    if done >= MIGRATIONS.len() {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for step in MIGRATIONS.iter().skip(done) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", newest_format())?;
    transaction.commit()
}

/// Closes a connection that failed, without the write-out that closing otherwise does: what the file holds is looked
/// at by the next connection.
pub(super) fn abandon(connection: Connection) {
    let _ = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
    drop(connection);
}

/// Writes the log into the database, synchronises both and empties the log.
fn empty_log(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let busy: bool = connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
        .map_err(explain(path, "empty its log"))?;
    if busy {
        return Err(StoreError::Locked { path: path.to_owned(), holder: "another program".into() });
    }
    Ok(())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn remove_leftovers(draft: &Path) -> Result<(), StoreError> {
    for file in [draft.to_owned(), with_suffix(draft, "-wal"), with_suffix(draft, "-journal")] {
        match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("remove", &file)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn synchronise_directory(path: &Path) -> Result<(), StoreError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory).and_then(|d| d.sync_all()).map_err(io_error("make durable", directory))
}
