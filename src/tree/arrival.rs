//! Steps of a migration that no command asks for: the first command of an instance that was imported is one, and what
//! [`fallback`](super::fallback) does another. Both are logged where the commands of the same migration are.

use crate::logging::about;
use std::time::Instant;

use vtpm_protocol::instance::{LogStep, LoggedStep, MigrationId, MigrationSide};
use vtpm_protocol::rc::ResponseCode;

use super::Tree;
use super::instance::{Inner, Instance};
use super::log::{LogChange, Taken};
use super::persistence::{Ops, name};

impl Instance {
    /// The instance is about to execute for the first time since it was imported: from here on it lives here, durably.
    pub(super) fn settle_arrival(&self, tree: &Tree, inner: &mut Inner) -> Result<(), ResponseCode> {
        let Some(live) = inner.state.first_command() else { return Ok(()) };
        let start = Instant::now();
        let id = live.arrived_by().unwrap_or_default();
        let mut ops = Ops::new(self.id());
        ops.put(name::STATE, live.to_record());
        let what = (LoggedStep::FirstCommand, MigrationSide::Destination);
        let change = self.log_unasked(tree, what, (id, start), &mut ops);
        self.commit(tree, inner, ops)?;
        let before = std::mem::replace(&mut inner.state, live).kind();
        let after = inner.state.kind();
        tree.metrics.migrations.count(LoggedStep::FirstCommand, Some(before), Some(after));
        if let Some(change) = change {
            tree.log.apply(change);
        }
        about!(info, self, "instance {} lives here now", self.name());
        Ok(())
    }

    /// Into the migration log of whoever locked or imported the instance: its parent or the root.
    pub(super) fn log_unasked(
        &self,
        tree: &Tree,
        (step, side): (LoggedStep, MigrationSide),
        (id, since): (MigrationId, Instant),
        ops: &mut Ops,
    ) -> Option<LogChange> {
        let topology = tree.topology();
        let parent = self.parent().and_then(|handle| topology.get(&handle)).map(|parent| parent.id());
        let store = &*tree.persistence;
        let processing = [parent, Some(tree.root().id())]
            .into_iter()
            .flatten()
            .find(|&processing| tree.log.knows(store, processing, (self.uuid(), id)))?;
        let spent_us = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
        let at_ms = tree.clock.now_ms();
        let step = LogStep { step, at_ms, span_us: spent_us, spent_us, bytes: 0, count: 1 };
        let taken = Taken { migration_id: id, uuid: self.uuid(), name: self.name(), side, step };
        let (list, change) = tree.log.with_step(store, processing, &taken).ok()?;
        ops.list.extend(list);
        Some(change)
    }
}
