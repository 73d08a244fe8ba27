//! What alone touches the database, under one lock.
//!
//! A commit that finds it free and nothing waiting is written by whoever makes it, so that no other thread has to wake. All else goes to a
//! thread of its own. That takes the first commit that waits and every other one behind it, gives each batch a savepoint in one transaction,
//! and answers them all when that is durable. While it synchronises, the next ones gather. Reads go through it
//! too, since the database admits one connection.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rusqlite::Connection;

use super::apply::{Catalogue, Changes, Draft};
use super::early_sync::EarlySync;
use super::group::{Gathering, Group, Outcomes};
use super::schema::{self, Lock, Place, explain};
use super::seal::WrappingKey;
use super::{
    Batch, Counters, DamagedInstance, Durability, InstanceId, InstanceList, InstanceRow, Op, Record,
    Reserved, StoreError,
};
use crate::sentence;

type Reply<T> = Sender<Result<T, StoreError>>;

pub(super) enum Request {
    /// The next group of [`Gathering`] is there.
    Commits,
    Instances(Reply<Vec<InstanceRow>>),
    Damaged(Reply<Vec<DamagedInstance>>),
    Records(InstanceId, Reply<Vec<Record>>),
    EmptyLog(Reply<()>),
    Close,
    #[cfg(test)]
    Inspect(Box<dyn FnOnce(&mut Writer) + Send>),
}

/// An open database and what is known of its content.
struct Database {
    connection: Connection,
    catalogue: Catalogue,
    /// The number of the latest transaction.
    ledger: i64,
    /// What the connection's transactions outlive.
    durability: Durability,
}

pub(super) struct Writer {
    place: Place,
    wrapping: WrappingKey,
    /// Not there after a failure that could not be mended yet; every request tries again, but for the pause.
    database: Option<Database>,
    /// Until when nobody tries again, and what went wrong the last time.
    pause: Option<(Instant, StoreError)>,
    next_id: u64,
    reserved: Arc<Reserved>,
    counters: Arc<Counters>,
    /// Not there if its thread could not be started; everything works without, only not as evenly.
    early_sync: Option<EarlySync>,
    /// A deletion is durable, but its traces are still in the log.
    traces_remain: bool,
    #[cfg(test)]
    pub(super) faults: Faults,
    // Dropped after the connection: fields are dropped in this order. A container has one of its own.
    _lock: Option<Lock>,
}

/// How a transaction went wrong.
enum Failure {
    /// It cannot have taken place.
    Undone(StoreError),
    /// Its `COMMIT` failed; it may have taken place, with these outcomes.
    AtCommit(StoreError, Outcomes),
}

impl Writer {
    pub(super) fn open(
        place: Place,
        host_key: &crate::host_key::HostKey,
        lock: Option<Lock>,
    ) -> Result<Self, StoreError> {
        let path = place.path();
        // The process before this one may have been killed while its medium failed.
        match place.renew_log() {
            Err(error) if error.is_full() => log::warn!("{}", sentence(&error)),
            renewed => renewed?,
        }
        let (connection, wrapping) = schema::open(&place, host_key)?;
        // Also wipes what a deletion left in the log when the process was killed before it could.
        let traces_remain = match place.consolidate(&connection) {
            Ok(()) => false,
            // What is in the log can be read there; a full medium is no reason not to start.
            Err(error) if error.is_full() => {
                log::warn!("the log of the state database could not be emptied: {}", sentence(&error));
                true
            }
            Err(error) => return Err(error),
        };
        let database = Database::load(connection, path, &wrapping)?;
        let highest: Option<i64> = database
            .connection
            .query_row(
                "SELECT max(coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'instance'), 0),
                            coalesce((SELECT max(id) FROM instance), 0))",
                [],
                |row| row.get(0),
            )
            .map_err(explain(path, "open"))?;
        let highest = u64::try_from(highest.unwrap_or(0)).map_err(|_| StoreError::NumberTooLarge)?;
        let counters: Arc<Counters> = Arc::default();
        counters.found_damaged(database.catalogue.damaged().len());
        let early_sync = match &place {
            Place::File(path) => EarlySync::start(path, Arc::clone(&counters))
                .inspect_err(|error| log::warn!("the state database has no thread for its log: {error}"))
                .ok(),
            // It has no log.
            Place::Container(_) => None,
        };
        Ok(Self {
            place,
            wrapping,
            database: Some(database),
            pause: None,
            next_id: highest.saturating_add(1),
            reserved: Arc::default(),
            early_sync,
            counters,
            traces_remain,
            #[cfg(test)]
            faults: Faults::default(),
            _lock: lock,
        })
    }

    pub(super) fn path(&self) -> &Path {
        self.place.path()
    }

    pub(super) fn next_id(&self) -> u64 {
        self.next_id
    }

    pub(super) fn reserved(&self) -> Arc<Reserved> {
        Arc::clone(&self.reserved)
    }

    pub(super) fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    #[cfg(test)]
    pub(super) fn connection(&self) -> &Connection {
        &self.database.as_ref().unwrap().connection
    }

    /// Serves requests until one says to close or no one is left to make any, or a panic has left nothing to go on with. A caller that no
    /// longer waits for its answer is no error.
    pub(super) fn run(
        writer: &Mutex<Self>,
        requests: &Receiver<Request>,
        gathering: &Gathering,
        waiting: &AtomicUsize,
    ) {
        let _closed_at_the_end = ClosedAtTheEnd(gathering);
        while let Ok(request) = requests.recv() {
            let Ok(mut this) = writer.lock() else { return };
            waiting.store(0, Ordering::Relaxed);
            match request {
                Request::Commits => gathering.take().into_iter().for_each(|group| this.commit_group(group)),
                Request::Instances(reply) => {
                    let _ = reply.send(this.ready().map(|database| database.catalogue.intact()));
                }
                Request::Damaged(reply) => {
                    let _ = reply.send(this.ready().map(|database| database.catalogue.damaged()));
                }
                Request::Records(id, reply) => {
                    let path = this.path().to_owned();
                    let records = this.ready().and_then(|database| {
                        database.catalogue.read_records(&database.connection, &path, id)
                    });
                    let _ = reply.send(records);
                }
                Request::EmptyLog(reply) => {
                    let place = this.place.clone();
                    let emptied = this.ready().and_then(|database| place.consolidate(&database.connection));
                    let _ = reply.send(emptied);
                }
                Request::Close => break,
                #[cfg(test)]
                Request::Inspect(inspect) => inspect(&mut this),
            }
        }
    }

    /// Closes the database.
    pub(super) fn close(&mut self) {
        if let Some(database) = self.database.take()
            && let Err((_, error)) = database.connection.close()
        {
            log::error!("cannot close the state database {}: {error}", self.path().display());
        }
    }

    /// The database, recovered first if an earlier failure left it closed.
    fn ready(&mut self) -> Result<&mut Database, StoreError> {
        if self.database.is_none() {
            let unavailable = |source| StoreError::Unavailable { source: Box::new(source) };
            let begin = Instant::now();
            if let Some((until, error)) = &self.pause
                && begin < *until
            {
                return Err(unavailable(error.clone()));
            }
            let recovered = self.recover();
            // A large database takes its time to copy, and the medium has others to serve.
            let until = Instant::now().checked_add(begin.elapsed());
            self.pause = until.zip(recovered.as_ref().err().cloned());
            let database = recovered.map_err(unavailable)?.database;
            log::info!("the state database {} works again", self.path().display());
            self.database = Some(database);
        }
        self.database.as_mut().ok_or(StoreError::Closed)
    }

    /// Makes one batch durable.
    pub(super) fn commit(&mut self, batch: Batch) -> Result<(), StoreError> {
        let outcomes = self.outcomes(&[batch]);
        self.note(&outcomes);
        self.wipe_traces();
        outcomes.into_iter().next().unwrap_or(Err(StoreError::Closed))
    }

    fn commit_group(&mut self, group: Group) {
        let outcomes = self.outcomes(&group.batches);
        self.note(&outcomes);
        // Before the answers, so that an acknowledged deletion has left the files.
        self.wipe_traces();
        group.answer(outcomes);
    }

    fn outcomes(&mut self, batches: &[Batch]) -> Outcomes {
        if let Err(error) = self.ready() {
            return batches.iter().map(|_| Err(error.clone())).collect();
        }
        match self.transaction(batches) {
            Ok(outcomes) => outcomes,
            // One batch may be too much for the medium while its neighbours are not: each gets its own try.
            Err(error) if batches.len() > 1 => {
                log::warn!(
                    "a transaction of {} commits failed, trying them singly: {}",
                    batches.len(),
                    sentence(&error)
                );
                batches.iter().flat_map(|batch| self.outcomes(std::slice::from_ref(batch))).collect()
            }
            Err(error) => vec![Err(error)],
        }
    }

    /// Applies `batches` in one transaction. An error means that none of them is in the database.
    fn transaction(&mut self, batches: &[Batch]) -> Result<Outcomes, StoreError> {
        let (error, outcomes) = match self.try_transaction(batches) {
            Ok(outcomes) => return Ok(outcomes),
            Err(Failure::Undone(error)) => (error, None),
            Err(Failure::AtCommit(error, outcomes)) => (error, Some(outcomes)),
        };
        let Some(database) = self.database.take() else { return Err(error) };
        let expected = database.ledger.checked_add(1);
        let rolled_back =
            database.connection.is_autocommit() || database.connection.execute_batch("ROLLBACK").is_ok();
        if rolled_back && error.is_refused_write() {
            self.database = Some(database);
            return Err(error);
        }
        log::error!("the state database failed, opening it anew: {}", sentence(&error));
        schema::abandon(database.connection);
        match (self.recover(), outcomes) {
            (Ok(recovered), outcomes) => {
                self.database = Some(recovered.database);
                match outcomes {
                    Some(outcomes) if Some(recovered.found) == expected => {
                        self.count(batches, &outcomes);
                        Ok(outcomes)
                    }
                    _ => Err(error),
                }
            }
            (Err(source), None) => {
                log::error!("the state database could not be opened anew: {}", sentence(&source));
                Err(error)
            }
            (Err(source), Some(outcomes)) => {
                log::error!("the state database could not be opened anew: {}", sentence(&source));
                Ok(unknown(batches, outcomes, &source))
            }
        }
    }

    fn try_transaction(&mut self, batches: &[Batch]) -> Result<Outcomes, Failure> {
        let path = self.place.path().to_owned();
        let Self { place, wrapping, database: Some(database), reserved, counters, .. } = self else {
            return Err(Failure::Undone(StoreError::Closed));
        };
        let path = path.as_path();
        let failed = explain(path, "write");
        let undone = |error| Failure::Undone(failed(error));
        let durability = strictest(batches);
        database.outlive(durability).map_err(undone)?;
        let Database { connection, catalogue, ledger, .. } = database;
        run(connection, "BEGIN IMMEDIATE").map_err(undone)?;
        // A batch that is alone needs no savepoint to be refused: the transaction ends with it.
        let has_neighbours = batches.len() > 1;

        let mut changes = Changes::new();
        let mut outcomes = Vec::with_capacity(batches.len());
        for batch in batches {
            let numbers = reserved.lock();
            let draft = Draft {
                connection,
                path,
                wrapping,
                reserved: &numbers,
                catalogue,
                transaction: &changes,
                batch: Changes::new(),
            };
            // Nor does one that will not be: should it be refused all the same, all are tried singly.
            let may_go_back = has_neighbours && !draft.is_safe(batch);
            if may_go_back {
                run(connection, "SAVEPOINT batch").map_err(undone)?;
            }
            match draft.apply(batch) {
                Ok(changed) => {
                    changes.extend(changed);
                    outcomes.push(Ok(()));
                }
                Err(error)
                    if error.is_about_the_batch()
                        && (may_go_back || !has_neighbours)
                        && !connection.is_autocommit() =>
                {
                    if may_go_back {
                        run(connection, "ROLLBACK TO batch").map_err(undone)?;
                    }
                    outcomes.push(Err(error));
                }
                Err(error) => return Err(Failure::Undone(error)),
            }
            if may_go_back {
                run(connection, "RELEASE batch").map_err(undone)?;
            }
        }
        if outcomes.iter().all(Result::is_err) {
            run(connection, "ROLLBACK").map_err(undone)?;
            return Ok(outcomes);
        }

        let next = ledger.checked_add(1).ok_or(Failure::Undone(StoreError::NumberTooLarge))?;
        connection
            .prepare_cached("UPDATE ledger SET transactions = ?1")
            .and_then(|mut statement| statement.execute([next]))
            .map_err(undone)?;
        crate::fault::step_begins();
        let begin = Instant::now();
        #[cfg(test)]
        let committed = self.faults.commit(connection);
        #[cfg(not(test))]
        let committed = run(connection, "COMMIT");
        let committed = committed.map_err(failed).and_then(|()| place.keep(connection, durability));
        crate::fault::step_is_over(committed.is_ok());
        if let Err(error) = committed {
            return Err(Failure::AtCommit(error, outcomes));
        }
        if durability == Durability::Medium {
            counters.sync_took.observe_duration(begin.elapsed());
        }
        *ledger = next;
        catalogue.merge(changes);
        self.count(batches, &outcomes);
        Ok(outcomes)
    }

    /// Notes what became durable.
    fn count(&mut self, batches: &[Batch], outcomes: &Outcomes) {
        match (strictest(batches), &mut self.early_sync) {
            (Durability::Process, sync) => {
                self.counters.left.count();
                sync.iter_mut().for_each(EarlySync::left);
            }
            (Durability::Medium, sync) => {
                self.counters.synchronised.count();
                sync.iter_mut().for_each(EarlySync::synchronised);
            }
        }
        let mut shared = 0u64;
        for (batch, _) in batches.iter().zip(outcomes).filter(|(_, outcome)| outcome.is_ok()) {
            shared = shared.saturating_add(1);
            for op in &batch.ops {
                match op {
                    Op::CreateInstance(row) => {
                        self.reserved.lock().remove(&row.id);
                    }
                    Op::DeleteInstance(_) => self.traces_remain = true,
                    _ => {}
                }
            }
        }
        self.counters.commits.add(shared);
        self.counters.shared.observe(shared);
    }

    /// Notes which batches did not become durable, and what is damaged after those that did.
    fn note(&self, outcomes: &Outcomes) {
        outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).for_each(|e| self.counters.failure(e));
        // Only a deletion mends.
        if let Some(database) = &self.database
            && self.traces_remain
            && self.counters.damaged.load(Ordering::Relaxed) > 0
        {
            self.counters.found_damaged(database.catalogue.damaged().len());
        }
    }

    /// Opens the database anew and makes sure of what it holds.
    ///
    /// What is read may be in the memory of the system only. So all of it is written into new files ([`Place::renew`]) and the log into the
    /// database; then a transaction overwrites the beginning of the log, so that no remnant of a failed one behind it can become valid
    /// after a loss of power.
    fn recover(&mut self) -> Result<Recovered, StoreError> {
        #[cfg(test)]
        self.faults.recovery()?;
        let path = self.place.path();
        self.place.renew()?;
        let connection = schema::connect(&self.place)?;
        self.place.consolidate(&connection)?;
        let mut database = Database::load(connection, path, &self.wrapping)?;
        self.counters.found_damaged(database.catalogue.damaged().len());
        let found = database.ledger;
        database.ledger = found.checked_add(1).ok_or(StoreError::NumberTooLarge)?;
        database
            .connection
            .execute("UPDATE ledger SET transactions = ?1", [database.ledger])
            .map_err(explain(path, "write"))?;
        self.place.keep(&database.connection, Durability::Medium)?;
        Ok(Recovered { database, found })
    }

    /// Empties the log after a deletion, which still holds the key of the deleted instance.
    fn wipe_traces(&mut self) {
        if !self.traces_remain {
            return;
        }
        let Some(database) = &self.database else { return };
        match self.place.consolidate(&database.connection) {
            Ok(()) => self.traces_remain = false,
            Err(error) => log::warn!(
                "traces of a deleted instance remain, and will be wiped later: {}",
                sentence(&error)
            ),
        }
    }
}

/// Runs a statement that is prepared once and has neither parameters nor rows.
fn run(connection: &Connection, statement: &'static str) -> rusqlite::Result<()> {
    connection.prepare_cached(statement)?.execute([]).map(|_| ())
}

/// The outcomes of a transaction of which nobody knows whether it took place; what was refused before stays refused.
fn unknown(batches: &[Batch], outcomes: Outcomes, source: &StoreError) -> Outcomes {
    let outcome_of = |(batch, outcome): (&Batch, Result<(), StoreError>)| {
        outcome.and_then(|()| {
            let mut instances: Vec<_> = batch.ops.iter().map(Op::instance).collect();
            instances.sort_unstable();
            instances.dedup();
            Err(StoreError::OutcomeUnknown {
                instances: InstanceList(instances),
                source: Box::new(source.clone()),
            })
        })
    };
    batches.iter().zip(outcomes).map(outcome_of).collect()
}

struct Recovered {
    database: Database,
    /// The number of the latest transaction that was found.
    found: i64,
}

impl Database {
    fn load(connection: Connection, path: &Path, wrapping: &WrappingKey) -> Result<Self, StoreError> {
        let failed = explain(path, "read");
        let catalogue = Catalogue::load(&connection, wrapping).map_err(&failed)?;
        let ledger =
            connection.query_row("SELECT transactions FROM ledger", [], |row| row.get(0)).map_err(&failed)?;
        // As the connection was configured.
        Ok(Self { connection, catalogue, ledger, durability: Durability::Medium })
    }

    /// Whether the transactions from here on are synchronised. In either case their order in the log is that of the commits, and
    /// the log is synchronised before anything moves from it into the database file.
    fn outlive(&mut self, durability: Durability) -> rusqlite::Result<()> {
        if self.durability != durability {
            let level = match durability {
                Durability::Medium => "FULL",
                Durability::Process => "NORMAL",
            };
            self.connection.pragma_update(None, "synchronous", level)?;
            self.durability = durability;
        }
        Ok(())
    }
}

/// What a transaction of these batches must outlive.
fn strictest(batches: &[Batch]) -> Durability {
    if batches.iter().all(|b| b.durability == Durability::Process) {
        Durability::Process
    } else {
        Durability::Medium
    }
}

/// However the thread ends, nobody waits for it in vain.
struct ClosedAtTheEnd<'a>(&'a Gathering);

impl Drop for ClosedAtTheEnd<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Failures that a test asks for, since a medium does not fail on demand.
#[cfg(test)]
#[derive(Default)]
pub(super) struct Faults {
    /// The next `COMMIT` reports an error without taking place.
    pub(super) before_commit: bool,
    /// The next `COMMIT` reports an error although it took place: a failed synchronisation looks like this.
    pub(super) after_commit: bool,
    /// That many attempts to open the database anew fail.
    pub(super) recoveries: u32,
}

#[cfg(test)]
impl Faults {
    fn error() -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC), None)
    }

    fn commit(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        if std::mem::take(&mut self.before_commit) {
            return Err(Self::error());
        }
        connection.execute_batch("COMMIT")?;
        if std::mem::take(&mut self.after_commit) { Err(Self::error()) } else { Ok(()) }
    }

    fn recovery(&mut self) -> Result<(), StoreError> {
        match self.recoveries.checked_sub(1) {
            None => Ok(()),
            Some(left) => {
                self.recoveries = left;
                Err(explain(Path::new("injected"), "open")(Self::error()))
            }
        }
    }
}
