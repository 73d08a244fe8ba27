//! The instance commands, carried out: figures 10 to 17 on the tree of one processing instance.
//!
//! A [`Transaction`] lives for one command. A method checks, computes the next state of its one target, and leaves the
//! operations for the store and the effect on the memory in [`Pending`]; the environment of the command commits the first and
//! then lets the second happen. Until then the target stays locked.

mod commands;
mod log;
mod peers;

use std::sync::{Arc, MutexGuard};

use vtpm_engine::Tpm;
use vtpm_engine::instances::InstanceManager;
use vtpm_protocol::codec::Encode;
use vtpm_protocol::instance::migration::Manifest;
use vtpm_protocol::instance::{
    INSTANCE_SELF, InstanceState, InstanceSummary, MAX_INSTANCE_DATA, PieceInfo, PieceKind, ReceiptOut,
};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::Tpm2b;

use super::environment::Workshop;
use super::instance::{Inner, Instance, restore};
use super::left_out::LeftOut;
use super::persistence::{Ops, Stored, name};
use super::shown::Entered;
use super::{Topology, Tree, TreeEvent, receipts};
use crate::logging::about;
use crate::migration::content::{self, Held};
use crate::migration::destination::DestinationLocked;
use crate::migration::state::Settled;
use crate::migration::{State, StepError};
use crate::sentence;
use crate::store::{InstanceId, Op, StoreError};

/// What of a response is not the parameter `data`: header, sessions, other parameters.
const RESPONSE_ROOM: usize = 600;

/// The changes of one instance command, not durable yet.
struct Pending<'a> {
    ops: Vec<Op>,
    effect: Effect<'a>,
}

/// What a committed command does to the memory.
enum Effect<'a> {
    /// The target stands elsewhere.
    Change { target: Entered<'a>, handle: u32, state: Box<State>, tpm: TpmChange },
    /// There is a new instance.
    Birth { child: Arc<Instance>, _parent: Option<Entered<'a>>, _births: MutexGuard<'a, ()> },
    /// The target is gone.
    Death { target: Entered<'a>, handle: u32 },
    /// Nothing: records of the processing instance that are read from the store each time.
    Own,
}

/// What becomes of the TPM of an instance.
enum TpmChange {
    /// As it was.
    Keep,
    /// It does not execute here any more.
    Remove,
    /// It executes from now on.
    Install(Box<Tpm>),
}

/// One instance command of one processing instance.
pub(super) struct Transaction<'a> {
    tree: &'a Tree,
    topology: &'a Topology,
    processing: &'a Instance,
    /// The longest response that fits where the command came from.
    limit: usize,
    pending: Option<Pending<'a>>,
    /// The instance that CreateInstance is about to make, while its ticket is being signed.
    draft: Option<Draft<'a>>,
    /// The instance whose encrypted keys are to be kept as they leave.
    keeps_key: Option<InstanceId>,
    logged: log::Logged,
}

/// An instance without its ticket.
struct Draft<'a> {
    slot: DestinationLocked,
    ops: Ops,
    effect: Effect<'a>,
    handle: u32,
}

/// The target of a command, locked.
struct Target<'a> {
    instance: &'a Arc<Instance>,
    inner: Entered<'a>,
}

fn store_failed(error: &StoreError) -> ResponseCode {
    ::log::error!("{}", sentence(error));
    ResponseCode::NV_UNAVAILABLE
}

/// A step that was refused is worth a line in the log: it is seldom, and the code alone says little.
fn refused(instance: &Instance) -> impl Fn(StepError) -> ResponseCode + '_ {
    move |error| {
        about!(info, instance, "instance {}: {error}", instance.name());
        error.response_code()
    }
}

impl<'a> Transaction<'a> {
    pub(super) fn new(
        tree: &'a Tree,
        topology: &'a Topology,
        processing: &'a Instance,
        limit: usize,
        command: &[u8],
    ) -> Self {
        let logged = log::Logged::new(tree, command);
        Self { tree, topology, processing, limit, pending: None, draft: None, keeps_key: None, logged }
    }

    pub(super) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether the pending command makes or destroys an instance.
    pub(super) fn moves_topology(&self) -> bool {
        self.pending.as_ref().is_some_and(|p| matches!(p.effect, Effect::Birth { .. } | Effect::Death { .. }))
    }

    /// The operations, for the batch, and with them what they leave in the migration log. `response` is the length of the response.
    pub(super) fn take_ops(&mut self, response: usize) -> Vec<Op> {
        let logged = self.log_step(response);
        let mut ops = self.pending.as_mut().map(|p| std::mem::take(&mut p.ops)).unwrap_or_default();
        ops.extend(logged);
        ops
    }

    /// The batch is durable: the memory follows.
    pub(super) fn apply(&mut self) -> Option<TreeEvent> {
        if let Some(change) = self.logged.change.take() {
            self.tree.log.apply(change);
            self.count_step();
        }
        match self.pending.take()?.effect {
            Effect::Change { mut target, handle, state, tpm } => {
                let moved = target.state.kind() != state.kind();
                target.state = *state;
                match tpm {
                    TpmChange::Keep => {}
                    TpmChange::Remove => target.exchange_tpm(None),
                    TpmChange::Install(tpm) => {
                        target.exchange_tpm(Some(*tpm));
                        self.tree.rounds.call();
                    }
                }
                let instance = self.topology.get(&handle).filter(|_| moved);
                instance.cloned().map(TreeEvent::Moved)
            }
            Effect::Own => None,
            Effect::Birth { child, .. } => {
                self.tree.exchange_topology(|t| t.insert(child.handle(), child.clone()));
                Some(TreeEvent::Created(child))
            }
            Effect::Death { mut target, handle } => {
                target.deleted = true;
                (target.tpm, target.last) = (None, None);
                self.tree.exchange_topology(|t| t.remove(&handle));
                self.topology.get(&handle).cloned().map(TreeEvent::Deleted)
            }
        }
    }

    /// The batch is not durable, or the command failed.
    pub(super) fn forget(&mut self) {
        self.pending = None;
        self.draft = None;
        self.logged.change = None;
    }

    /// What is in memory of the target may not be what the store has.
    pub(super) fn distrust(&mut self) {
        if let Some(Pending {
            effect: Effect::Change { target, .. } | Effect::Death { target, .. }, ..
        }) = &mut self.pending
        {
            target.loaded = false;
        }
    }

    /// The processing instance names itself by its handle or by [`INSTANCE_SELF`].
    fn is_self(&self, handle: u32) -> bool {
        handle == INSTANCE_SELF || handle == self.processing.handle()
    }

    fn find(&self, handle: u32) -> Result<&'a Arc<Instance>, ResponseCode> {
        let handle = if self.is_self(handle) { self.processing.handle() } else { handle };
        self.topology.get(&handle).ok_or(ResponseCode::HANDLE)
    }

    /// Locks the target. Its place below the processing instance was checked by [`InstanceManager::check_descendant`], and is checked
    /// again: a manager does not depend on its caller for that.
    fn target(&mut self, handle: u32) -> Result<Target<'a>, ResponseCode> {
        self.check_descendant(handle, false)?;
        if self.pending.is_some() {
            return Err(ResponseCode::FAILURE);
        }
        let instance = self.find(handle)?;
        self.logged.target = Some(instance.clone());
        // Another client may have deleted it since this command looked for it.
        let entered = instance.enter(self.tree);
        let gone = |code| if instance.is_deleted() { ResponseCode::HANDLE } else { code };
        Ok(Target { instance, inner: entered.map_err(gone)? })
    }

    fn stored(&self, instance: &Instance) -> Result<Stored, ResponseCode> {
        Stored::read(&*self.tree.persistence, instance.id()).map_err(|e| store_failed(&e))
    }

    fn held(&self, instance: &Instance) -> Result<Held, ResponseCode> {
        Ok(self.stored(instance)?.held)
    }

    /// Keeps the next state and what it goes with: `before` is what the instance holds in the store, `after` what it will.
    fn change(
        &mut self,
        target: Target<'a>,
        (before, after): (&Held, &Held),
        state: State,
        tpm: TpmChange,
    ) -> Result<(), ResponseCode> {
        let mut ops = Ops::new(target.instance.id());
        ops.exchange(before, after).map_err(|e| store_failed(&e))?;
        ops.put(name::STATE, state.to_record());
        if !matches!(tpm, TpmChange::Keep) {
            ops.delete(name::LAST_COMMAND);
            ops.delete(name::RESET);
        }
        let handle = target.instance.handle();
        let effect = Effect::Change { target: target.inner, handle, state: Box::new(state), tpm };
        self.pending = Some(Pending { ops: ops.list, effect });
        Ok(())
    }

    /// The state alone changes.
    fn change_state(&mut self, target: Target<'a>, state: State) -> Result<(), ResponseCode> {
        let held = Held::default();
        self.change(target, (&held, &held), state, TpmChange::Keep)
    }

    /// The children of an instance as they are now.
    fn children(&self, handle: u32) -> Vec<Arc<Instance>> {
        let topology = self.tree.topology();
        topology.values().filter(|i| i.parent() == Some(handle)).cloned().collect()
    }

    /// An instance below the root that the tree does not have.
    fn left_out(&self, handle: u32) -> Result<Option<LeftOut>, ResponseCode> {
        if self.processing.handle() != self.tree.root || self.find(handle).is_ok() {
            return Ok(None);
        }
        let all = self.tree.left_out().map_err(|error| store_failed(&error))?;
        Ok(all.into_iter().find(|one| one.summary.instance == handle))
    }

    fn summary(&self, instance: &Instance, state: InstanceState) -> InstanceSummary {
        InstanceSummary {
            instance: instance.handle(),
            uuid: instance.uuid(),
            state,
            attributes: instance.attributes(),
            name: instance.name().clone(),
        }
    }

    /// How much of `data` fits a response.
    fn data_limit(&self) -> u32 {
        let room = self.limit.saturating_sub(RESPONSE_ROOM).min(MAX_INSTANCE_DATA);
        u32::try_from(room).unwrap_or(u32::MAX)
    }

    /// A TPM that goes on from these records on this host.
    fn thaw(&self, instance: &Instance, records: content::Records) -> Result<Box<Tpm>, ResponseCode> {
        let mut tpm = restore(records).map_err(|what| {
            about!(warn, instance, "instance {}: {what}", instance.name());
            StepError::Unsound.response_code()
        })?;
        tpm.thaw_clock(self.tree.clock.now_ms());
        Ok(Box::new(tpm))
    }

    /// The `_TPM_Init` that a machine reset called for while it could not be done. All records of `tpm` are about to be written.
    fn pay_reset(&self, inner: &Inner, tpm: &mut Tpm) -> Result<(), ResponseCode> {
        if inner.reset_owed {
            tpm.init(&mut Workshop(&self.tree.clock)).map_err(|_| ResponseCode::FAILURE)?;
        }
        Ok(())
    }

    /// The manifest that an export which has not begun would end with counts as a piece of what is left.
    fn remaining(state: &State, held: &Held) -> Vec<PieceInfo> {
        match state {
            State::Exporting(exporting) => exporting.remaining(&held.live),
            State::Exported(_) => Vec::new(),
            _ => {
                let mut pieces = content::pieces(&held.live);
                let (policy, past) = (state.policy(), state.past_to_send().0);
                let manifest = Manifest { policy, past, pieces: pieces.clone() }.to_bytes();
                let size = u32::try_from(manifest.len()).unwrap_or(u32::MAX);
                pieces.push(PieceInfo { kind: PieceKind::Manifest, handle: 0, size });
                pieces
            }
        }
    }

    /// The source lock takes the TPM of the target away.
    fn engage(&mut self, target: Target<'a>, state: State) -> Result<(), ResponseCode> {
        if !self.children(target.instance.handle()).is_empty() {
            return Err(ResponseCode::PARENT);
        }
        // What the engine keeps in memory only, such as the time since the last commit, becomes part of the records.
        let mut tpm = target.inner.tpm.clone().ok_or(ResponseCode::FAILURE)?;
        self.pay_reset(&target.inner, &mut tpm)?;
        tpm.freeze_clock(self.tree.clock.now_ms());
        let before = self.held(target.instance)?;
        let after = Held { live: tpm.records().into_iter().collect(), ..before.clone() };
        self.change(target, (&before, &after), state, TpmChange::Remove)
    }

    /// What AbortMigration or CommitMigration decided. `before` is what the store holds, `after` what the step made of it.
    fn settle(
        &mut self,
        target: Target<'a>,
        (before, mut after): (Held, Held),
        settled: Settled,
    ) -> Result<ReceiptOut, ResponseCode> {
        match settled {
            Settled::Revealed(None, secret) => receipt_out(secret.expose()),
            Settled::Revealed(Some(state), secret) => {
                self.change(target, (&before, &after), state, TpmChange::Remove)?;
                receipt_out(secret.expose())
            }
            Settled::Revived(state) => {
                let mut tpm = self.thaw(target.instance, after.live)?;
                self.pay_reset(&target.inner, &mut tpm)?;
                after.live = tpm.records().into_iter().collect();
                self.change(target, (&before, &after), state, TpmChange::Install(tpm))?;
                receipt_out(&[])
            }
            Settled::Disarmed(state) => {
                about!(
                    info,
                    target.instance,
                    "instance {}: its ticket is dead, and was taken away",
                    target.instance.name()
                );
                self.change_state(target, state)?;
                receipt_out(&[])
            }
            Settled::Gone => {
                self.destroy(target)?;
                receipt_out(&[])
            }
        }
    }

    fn destroy(&mut self, target: Target<'a>) -> Result<(), ResponseCode> {
        let Target { instance, inner } = target;
        if !self.children(instance.handle()).is_empty() {
            return Err(ResponseCode::PARENT);
        }
        let mut ops = vec![Op::DeleteInstance(instance.id())];
        // What nobody has used since the start is in the store only; what cannot be read has nothing to say.
        let state = if inner.loaded {
            Some(inner.state.clone())
        } else {
            self.stored(instance).ok().and_then(|stored| State::from_record(stored.state.as_ref()?).ok())
        };
        if let Some(state) = state {
            let (store, root) = (&*self.tree.persistence, self.tree.root().id());
            let kept = receipts::keep(store, root, state, self.tree.clock.now_ms());
            ops.extend(kept.map_err(|error| store_failed(&error))?);
        }
        let effect = Effect::Death { target: inner, handle: instance.handle() };
        self.pending = Some(Pending { ops, effect });
        Ok(())
    }
}

fn receipt_out(secret: &[u8]) -> Result<ReceiptOut, ResponseCode> {
    Ok(ReceiptOut { receipt: Tpm2b::new(secret)? })
}
