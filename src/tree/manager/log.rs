//! What a transaction writes into the migration log: from the command, and from where its target stood and will stand.

use std::time::Instant;

use vtpm_engine::execute::command_code;
use vtpm_protocol::codec::Encode;
use vtpm_protocol::instance::{
    GetMigrationLogIn, GetMigrationLogOut, InstanceState, LogEntry, LogStep, LoggedStep, MAX_CAP_LOG_BYTES,
    MAX_LOG, MigrationSide, MigrationTicket, Uuid,
};
use vtpm_protocol::rc::ResponseCode;

use super::{Effect, Transaction, store_failed};
use crate::migration::State;
use crate::sentence;
use crate::store::Op;
use crate::tree::Tree;
use crate::tree::instance::Instance;
use crate::tree::log::{LogChange, Taken, step_of};

/// The command as the log sees it.
pub(super) struct Logged {
    step: Option<LoggedStep>,
    start: Instant,
    at_ms: u64,
    length: usize,
    /// The ticket of an instance that is being made.
    pub(super) draft: Option<(MigrationTicket, std::sync::Arc<Instance>)>,
    /// Whom the command is about.
    pub(super) target: Option<std::sync::Arc<Instance>>,
    pub(super) change: Option<LogChange>,
}

impl Logged {
    pub(super) fn new(tree: &Tree, command: &[u8]) -> Self {
        Self {
            step: command_code(command).and_then(step_of),
            start: Instant::now(),
            at_ms: tree.clock.now_ms(),
            length: command.len(),
            draft: None,
            target: None,
            change: None,
        }
    }

    fn step(&self, step: LoggedStep, response: usize) -> LogStep {
        let spent_us = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        let bytes = u64::try_from(self.length.saturating_add(response)).unwrap_or(u64::MAX);
        LogStep { step, at_ms: self.at_ms, span_us: spent_us, spent_us, bytes, count: 1 }
    }
}

/// A ticket of a migration; that of an instance which was made without a storage key is none.
fn of_migration(ticket: Option<&MigrationTicket>) -> Option<&MigrationTicket> {
    ticket.filter(|ticket| !ticket.storage_name.is_empty())
}

fn side(step: LoggedStep, before: &State) -> MigrationSide {
    match step {
        LoggedStep::Arm | LoggedStep::Lock | LoggedStep::GetKey | LoggedStep::GetData => {
            MigrationSide::Source
        }
        _ if before.source_locked() => MigrationSide::Source,
        _ => MigrationSide::Destination,
    }
}

impl Transaction<'_> {
    /// The operations that log the pending command, where it is a step of a migration. A log that cannot be read does not stop a
    /// migration.
    pub(super) fn log_step(&mut self, response: usize) -> Vec<Op> {
        let Some(step) = self.logged.step else { return Vec::new() };
        let Some(pending) = &self.pending else { return Vec::new() };
        let (ticket, instance, side) = match &pending.effect {
            Effect::Birth { .. } => {
                let Some((ticket, child)) = &self.logged.draft else { return Vec::new() };
                (of_migration(Some(ticket)), child, MigrationSide::Destination)
            }
            Effect::Change { target, state, .. } => {
                let Some(instance) = &self.logged.target else { return Vec::new() };
                let ticket = of_migration(state.ticket()).or(of_migration(target.state.ticket()));
                (ticket, instance, side(step, &target.state))
            }
            Effect::Death { target, handle } => {
                let Some(instance) = self.topology.get(handle) else { return Vec::new() };
                (of_migration(target.state.ticket()), instance, side(step, &target.state))
            }
            Effect::Own => return Vec::new(),
        };
        let Some(ticket) = ticket else { return Vec::new() };
        let taken = Taken {
            migration_id: ticket.migration_id,
            uuid: instance.uuid(),
            name: instance.name(),
            side,
            step: self.logged.step(step, response),
        };
        match self.tree.log.with_step(&*self.tree.persistence, self.processing.id(), &taken) {
            Ok((ops, change)) => {
                self.logged.change = Some(change);
                ops
            }
            Err(error) => {
                log::error!("a step of a migration is not logged: {}", sentence(&error));
                Vec::new()
            }
        }
    }

    /// The pending step of a migration is durable, and about to be seen in the memory.
    pub(super) fn count_step(&self) {
        let Some((step, pending)) = self.logged.step.zip(self.pending.as_ref()) else { return };
        let (before, after) = match &pending.effect {
            Effect::Change { target, state, .. } => (Some(target.state.kind()), Some(state.kind())),
            Effect::Birth { .. } => (None, Some(InstanceState::DestinationLocked)),
            Effect::Death { target, .. } => (Some(target.state.kind()), None),
            Effect::Own => return,
        };
        self.tree.metrics.migrations.count(step, before, after);
    }

    /// GetMigrationLog.
    pub(super) fn page_of_log(&self, input: &GetMigrationLogIn) -> Result<GetMigrationLogOut, ResponseCode> {
        let wanted = Some(input.uuid).filter(|uuid| *uuid != Uuid([0; 16]));
        let all = self.tree.log.entries(&*self.tree.persistence, self.processing.id(), wanted);
        let all = all.map_err(|e| store_failed(&e))?;
        let first = usize::try_from(input.first).unwrap_or(usize::MAX);
        let count = usize::try_from(input.count).unwrap_or(usize::MAX).min(MAX_LOG);
        let mut rest = all.into_iter().skip(first).peekable();
        let (mut entries, mut size): (Vec<LogEntry>, usize) = (Vec::new(), 0);
        while let Some(entry) = rest.peek() {
            size = size.saturating_add(entry.to_bytes().len());
            if entries.len() >= count || size > MAX_CAP_LOG_BYTES {
                break;
            }
            entries.extend(rest.next());
        }
        Ok(GetMigrationLogOut { more: rest.peek().is_some(), entries })
    }
}
