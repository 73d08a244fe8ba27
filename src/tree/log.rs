//! The migration log: what was done to instances on their way, with the times, for `vtpmctl migrate status`. One record of the processing
//! instance for each UUID, written in the transaction of each step, so that it is there also when the instance is gone. No decision is ever
//! made by it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

use vtpm_protocol::codec::{Encode, decode_exact};
use vtpm_protocol::instance::{
    InstanceName, LogEntry, LogStep, LoggedStep, MAX_LOG, MAX_LOG_STEPS, MigrationId, MigrationSide, Uuid,
};
use zeroize::Zeroizing;

use super::Persistence;
use super::persistence::{Ops, name};
use crate::logging::Short;
use crate::store::{InstanceId, Op, StoreError};

type Entries = BTreeMap<Uuid, LogEntry>;

/// The logs of all processing instances of a tree, each read from the store when it is first wanted.
#[derive(Default)]
pub(super) struct MigrationLog(Mutex<BTreeMap<InstanceId, Entries>>);

/// A step of a migration that is about to become durable.
pub(super) struct Taken<'a> {
    pub(super) migration_id: MigrationId,
    pub(super) uuid: Uuid,
    pub(super) name: &'a InstanceName,
    /// Which end is here, unless the log knows.
    pub(super) side: MigrationSide,
    pub(super) step: LogStep,
}

/// What the log becomes when a transaction is durable.
pub(super) struct LogChange {
    processing: InstanceId,
    entry: LogEntry,
    dropped: Option<Uuid>,
}

impl LogChange {
    /// The step that became durable, for the log of the daemon. One that follows others of its kind is of less interest: the pieces of a
    /// state.
    fn tell(&self) {
        let LogEntry { migration_id, uuid, name, side, steps } = &self.entry;
        let Some(step) = steps.last() else { return };
        let level = if step.count > 1 { ::log::Level::Debug } else { ::log::Level::Info };
        ::log::log!(
            level, instance:% = name, uuid:% = uuid, migration:% = Short(migration_id), side = side.as_str(),
            step = step.step.as_str();
            "instance {name}: step {} of migration {} is durable; this is its {side}", step.step, Short(migration_id)
        );
    }
}

fn newest(entry: &LogEntry) -> u64 {
    entry.steps.last().map(|step| step.at_ms).unwrap_or_default()
}

fn read(persistence: &dyn Persistence, processing: InstanceId) -> Result<Entries, StoreError> {
    let mut entries = Entries::new();
    for (record, value) in persistence.records(processing)? {
        if record.as_bytes().first() != Some(&name::LOG) {
            continue;
        }
        match decode_exact::<LogEntry>(&value) {
            Ok(entry) => drop(entries.insert(entry.uuid, entry)),
            Err(code) => log::warn!("a record of the migration log does not decode: {code}"),
        }
    }
    Ok(entries)
}

impl MigrationLog {
    fn of<'a>(
        logs: &'a mut MutexGuard<'_, BTreeMap<InstanceId, Entries>>,
        persistence: &dyn Persistence,
        processing: InstanceId,
    ) -> Result<&'a mut Entries, StoreError> {
        match logs.entry(processing) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(place) => Ok(place.insert(read(persistence, processing)?)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<InstanceId, Entries>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The operations that log a step, and what to hand to [`Self::apply`] after they are durable.
    pub(super) fn with_step(
        &self,
        persistence: &dyn Persistence,
        processing: InstanceId,
        taken: &Taken<'_>,
    ) -> Result<(Vec<Op>, LogChange), StoreError> {
        let mut logs = self.lock();
        let entries = Self::of(&mut logs, persistence, processing)?;
        let known = entries.get(&taken.uuid).filter(|entry| entry.migration_id == taken.migration_id);
        let mut entry = known.cloned().unwrap_or_else(|| LogEntry {
            migration_id: taken.migration_id,
            uuid: taken.uuid,
            name: taken.name.clone(),
            side: taken.side,
            steps: Vec::new(),
        });
        add(&mut entry.steps, taken.step);
        let mut ops = Ops::new(processing);
        let full = entries.len() >= MAX_LOG && !entries.contains_key(&taken.uuid);
        let dropped = entries.values().min_by_key(|e| newest(e)).filter(|_| full).map(|e| e.uuid);
        if let Some(uuid) = dropped {
            ops.delete(name::log(uuid)?);
        }
        ops.put(name::log(taken.uuid)?, Zeroizing::new(entry.to_bytes()));
        Ok((ops.list, LogChange { processing, entry, dropped }))
    }

    /// The transaction is durable.
    pub(super) fn apply(&self, change: LogChange) {
        change.tell();
        let mut logs = self.lock();
        if let Some(entries) = logs.get_mut(&change.processing) {
            if let Some(uuid) = change.dropped {
                entries.remove(&uuid);
            }
            entries.insert(change.entry.uuid, change.entry);
        }
    }

    /// Whether the log of that processing instance has this migration.
    pub(super) fn knows(
        &self,
        persistence: &dyn Persistence,
        processing: InstanceId,
        (uuid, id): (Uuid, MigrationId),
    ) -> bool {
        let mut logs = self.lock();
        Self::of(&mut logs, persistence, processing)
            .is_ok_and(|entries| entries.get(&uuid).is_some_and(|entry| entry.migration_id == id))
    }

    /// The entries, the newest first; of one instance only where it is named.
    pub(super) fn entries(
        &self,
        persistence: &dyn Persistence,
        processing: InstanceId,
        wanted: Option<Uuid>,
    ) -> Result<Vec<LogEntry>, StoreError> {
        let mut logs = self.lock();
        let entries = Self::of(&mut logs, persistence, processing)?;
        let mut list: Vec<LogEntry> =
            entries.values().filter(|e| wanted.is_none_or(|uuid| uuid == e.uuid)).cloned().collect();
        list.sort_by_key(|entry| std::cmp::Reverse(newest(entry)));
        Ok(list)
    }
}

/// The same step again in a row counts on; of too many, the second oldest is dropped.
fn add(steps: &mut Vec<LogStep>, step: LogStep) {
    if let Some(last) = steps.last_mut().filter(|last| last.step == step.step) {
        let since = step.at_ms.saturating_sub(last.at_ms).saturating_mul(1000);
        last.span_us = since.saturating_add(step.span_us);
        last.spent_us = last.spent_us.saturating_add(step.spent_us);
        last.bytes = last.bytes.saturating_add(step.bytes);
        last.count = last.count.saturating_add(step.count);
        return;
    }
    if steps.len() >= MAX_LOG_STEPS && steps.len() > 1 {
        steps.remove(1);
    }
    steps.push(step);
}

/// The step that a command is, where it is one of a migration.
pub(super) fn step_of(command: vtpm_protocol::tpm::TpmCc) -> Option<LoggedStep> {
    use vtpm_protocol::instance::cc;
    Some(match command {
        cc::CREATE_INSTANCE => LoggedStep::Prepare,
        cc::ARM_INSTANCE => LoggedStep::Arm,
        cc::LOCK_INSTANCE => LoggedStep::Lock,
        cc::GET_INSTANCE_KEY => LoggedStep::GetKey,
        cc::GET_INSTANCE_DATA => LoggedStep::GetData,
        cc::SET_INSTANCE_KEY => LoggedStep::SetKey,
        cc::SET_INSTANCE_DATA => LoggedStep::SetData,
        cc::UNLOCK_INSTANCE | cc::IMPORT_FOREIGN_STATE => LoggedStep::Unlock,
        cc::RESET_INSTANCE => LoggedStep::Reset,
        cc::ABORT_MIGRATION => LoggedStep::Abort,
        cc::COMMIT_MIGRATION => LoggedStep::Commit,
        cc::DELETE_INSTANCE => LoggedStep::Delete,
        _ => return None,
    })
}
