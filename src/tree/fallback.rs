//! The machine runs again on the source although its TPM was locked for a migration.
//!
//! Under the policy `availability` the TPM lives again at once. Under any other it waits for a receipt of the destination.

use std::time::Instant;

use vtpm_protocol::instance::{LoggedStep, MigrationSide};
use vtpm_protocol::rc::ResponseCode;

use super::Tree;
use super::environment::Workshop;
use super::instance::{Inner, Instance, restore};
use super::persistence::{Ops, Stored, name};
use crate::sentence;
use crate::store::Batch;

impl Instance {
    /// The machine runs. Whether it finds its TPM locked, which a receipt must settle.
    pub(super) fn machine_runs(&self) -> bool {
        let Some(tree) = self.tree_handle().upgrade() else { return false };
        let Ok(mut inner) = self.enter(&tree) else { return false };
        // A slot has a machine, too, that waits for its TPM.
        if !inner.state.source_locked() {
            return false;
        }
        match self.unlock_for_machine(&tree, &mut inner) {
            Ok(true) => log::warn!(
                "instance {} lives here again because its machine does, without a receipt: its policy is {}",
                self.name(),
                inner.state.policy()
            ),
            Ok(false) => log::warn!(
                "the machine of instance {} runs, but its TPM is locked; a receipt of the destination settles it",
                self.name()
            ),
            Err(code) => log::error!("instance {} cannot live here again: {code}", self.name()),
        }
        !inner.state.executes()
    }

    /// One transaction: the state, the records from the escrow, and a reset of the machine meanwhile.
    fn unlock_for_machine(&self, tree: &Tree, inner: &mut Inner) -> Result<bool, ResponseCode> {
        // Asked without the records first: mostly there is nothing to be done.
        if inner.state.clone().machine_runs(&mut Default::default()).is_none() {
            return Ok(false);
        }
        let start = Instant::now();
        let id = inner.state.ticket().map(|ticket| ticket.migration_id).unwrap_or_default();
        let failed = |what: String| {
            log::error!("instance {}: {what}", self.name());
            ResponseCode::FAILURE
        };
        let stored = Stored::read(&*tree.persistence, self.id()).map_err(|error| failed(sentence(&error)))?;
        let (before, mut after) = (stored.held.clone(), stored.held);
        let Some(state) = inner.state.clone().machine_runs(&mut after) else { return Ok(false) };
        let mut tpm = restore(after.live).map_err(failed)?;
        tpm.thaw_clock(tree.clock.now_ms());
        if inner.reset_owed {
            tpm.init(&mut Workshop(&tree.clock)).map_err(|_| ResponseCode::FAILURE)?;
        }
        after.live = tpm.records().into_iter().collect();
        let mut ops = Ops::new(self.id());
        ops.exchange(&before, &after).map_err(|error| failed(sentence(&error)))?;
        ops.put(name::STATE, state.to_record());
        ops.delete(name::LAST_COMMAND);
        ops.delete(name::RESET);
        let what = (LoggedStep::MachineRuns, MigrationSide::Source);
        let change = self.log_unasked(tree, what, (id, start), &mut ops);
        tree.persistence.commit(Batch::new(ops.list)).map_err(|error| {
            inner.loaded &= !error.outcome_is_unknown();
            failed(sentence(&error))
        })?;
        inner.state = state;
        inner.exchange_tpm(Some(tpm));
        if let Some(change) = change {
            tree.log.apply(change);
        }
        Ok(true)
    }
}
