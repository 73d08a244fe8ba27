//! The machine runs again on the source although its TPM was locked for a migration.
//!
//! Under the policy `availability` the TPM lives again at once. Under any other it waits for a receipt of the destination. A TPM whose machine
//! was saved on this host goes with its machine in any case: there is no other host that could have it.

use std::time::Instant;

use vtpm_engine::Tpm;
use vtpm_protocol::instance::{InstanceState, LoggedStep, MigrationSide};
use vtpm_protocol::rc::ResponseCode;

use super::environment::Workshop;
use super::instance::{Inner, Instance, restore};
use super::persistence::{Ops, Stored, name};
use super::{Tree, TreeEvent};
use crate::logging::about;
use crate::sentence;
use crate::store::{Batch, StoreError};

impl Instance {
    /// The machine runs. Whether it finds its TPM locked, which a receipt must settle.
    pub(super) fn machine_runs(&self) -> bool {
        let Some(tree) = self.tree_handle().upgrade() else { return false };
        let Ok(mut inner) = self.enter(&tree) else { return false };
        // A slot has a machine, too, that waits for its TPM.
        if !inner.state.source_locked() {
            return false;
        }
        if inner.state.is_save() {
            let woken = self.wake_saved(&tree, &mut inner);
            drop(inner);
            if woken.is_ok() {
                tree.tell_of(self.handle(), TreeEvent::Moved);
            }
            return false;
        }
        match self.unlock_for_machine(&tree, &mut inner) {
            Ok(true) => about!(
                warn,
                self,
                "instance {} lives here again because its machine does, without a receipt: its policy is {}",
                self.name(),
                inner.state.policy()
            ),
            Ok(false) => about!(
                warn,
                self,
                "the machine of instance {} runs, but its TPM is locked; a receipt of the destination settles it",
                self.name()
            ),
            Err(code) => about!(error, self, "instance {} cannot live here again: {code}", self.name()),
        }
        !inner.state.executes()
    }

    /// The machine of an instance that may be saved runs, from what was saved or without it: in one transaction the TPM lives again and what was
    /// saved is void. A reset that is owed is made in it, as after a start that did not come from there.
    pub(super) fn wake_saved(&self, tree: &Tree, inner: &mut Inner) -> Result<(), ResponseCode> {
        if !inner.state.is_save() {
            return Ok(());
        }
        let whole = inner.state.kind() == InstanceState::Saved;
        let reset = inner.reset_owed;
        match self.unlock_for_machine(tree, inner) {
            Ok(_) => {
                let how = if reset { "starts anew" } else { "runs on from where it was saved" };
                let what =
                    if whole { "what was saved is not taken back any more" } else { "it was not saved" };
                about!(info, self, "instance {}: its machine {how}; {what}", self.name());
                Ok(())
            }
            Err(code) => {
                about!(error, self, "instance {} cannot live again: {code}", self.name());
                Err(code)
            }
        }
    }

    /// The TPM of a machine that is saved here, to be looked at.
    pub(super) fn saved_tpm(&self, tree: &Tree, inner: &Inner) -> Option<Tpm> {
        if !inner.state.is_save() {
            return None;
        }
        let mut held = Stored::read(&*tree.persistence, self.id()).ok()?.held;
        inner.state.clone().machine_runs(&mut held)?;
        restore(held.live).ok()
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
            about!(error, self, "instance {}: {what}", self.name());
            ResponseCode::FAILURE
        };
        let unavailable = |error: &StoreError| {
            about!(error, self, "instance {}: {}", self.name(), sentence(error));
            ResponseCode::NV_UNAVAILABLE
        };
        let stored = Stored::read(&*tree.persistence, self.id()).map_err(|error| unavailable(&error))?;
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
            unavailable(&error)
        })?;
        let before = std::mem::replace(&mut inner.state, state).kind();
        let after = inner.state.kind();
        tree.metrics.migrations.count(LoggedStep::MachineRuns, Some(before), Some(after));
        inner.exchange_tpm(Some(tpm));
        if let Some(change) = change {
            tree.log.apply(change);
        }
        Ok(true)
    }
}
