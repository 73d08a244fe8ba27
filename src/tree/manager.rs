//! The instance commands, carried out: figures 10 to 17 on the tree of one processing instance.
//!
//! A [`Transaction`] lives for one command. A method checks, computes the next state of its one target, and leaves the
//! operations for the store and the effect on the memory in [`Pending`]; the environment of the command commits the first and
//! then lets the second happen. Until then the target stays locked.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};

use vtpm_engine::instances::InstanceManager;
use vtpm_engine::{RecordKey, Tpm};
use vtpm_protocol::codec::Encode;
use vtpm_protocol::instance::migration::{Manifest, PIECE_OVERHEAD};
use vtpm_protocol::instance::{
    ArmInstanceIn, CreateInstanceIn, CreateInstanceOut, GetInstanceCapabilityIn, GetInstanceCapabilityOut,
    GetInstanceDataIn, GetInstanceDataOut, GetInstanceInfoOut, INSTANCE_SELF, InstanceCapability,
    InstanceCapabilityData, InstanceSummary, LimitTag, ListInstancesIn, ListInstancesOut, LockInstanceIn,
    MAX_CAP_HANDLES, MAX_CAP_INSTANCES, MAX_CAP_PIECES, MAX_INSTANCE_COMMAND, MAX_INSTANCE_DATA, PieceInfo,
    PieceKind, ReceiptIn, ReceiptOut, SetInstanceDataIn, UnlockInstanceIn,
};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::Tpm2b;
use zeroize::Zeroizing;

use super::environment::{Workshop, fill_random};
use super::instance::{Inner, Instance, restore};
use super::persistence::{Ops, Stored, name};
use super::{Topology, Tree, TreeEvent, handle_of};
use crate::migration::content::{self, PieceId};
use crate::migration::destination::DestinationLocked;
use crate::migration::source::{Armed, Export, ExportNext};
use crate::migration::state::Settled;
use crate::migration::{State, Step, StepError};
use crate::sentence;
use crate::store::{InstanceRow, Op, StoreError};

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
    Change { target: MutexGuard<'a, Inner>, state: Box<State>, tpm: TpmChange },
    /// There is a new instance.
    Birth { child: Arc<Instance>, _parent: Option<MutexGuard<'a, Inner>>, _births: MutexGuard<'a, ()> },
    /// The target is gone.
    Death { target: MutexGuard<'a, Inner>, handle: u32 },
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
}

/// The target of a command, locked.
struct Target<'a> {
    instance: &'a Arc<Instance>,
    inner: MutexGuard<'a, Inner>,
}

fn store_failed(error: &StoreError) -> ResponseCode {
    log::error!("{}", sentence(error));
    ResponseCode::NV_UNAVAILABLE
}

/// A step that was refused is worth a line in the log: it is seldom, and the code alone says little.
fn refused(instance: &Instance) -> impl Fn(StepError) -> ResponseCode + '_ {
    move |error| {
        log::info!("instance {}: {error}", instance.name());
        error.response_code()
    }
}

impl<'a> Transaction<'a> {
    pub(super) fn new(
        tree: &'a Tree,
        topology: &'a Topology,
        processing: &'a Instance,
        limit: usize,
    ) -> Self {
        Self { tree, topology, processing, limit, pending: None }
    }

    pub(super) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether the pending command makes or destroys an instance.
    pub(super) fn moves_topology(&self) -> bool {
        self.pending.as_ref().is_some_and(|p| !matches!(p.effect, Effect::Change { .. }))
    }

    /// The operations, for the batch.
    pub(super) fn take_ops(&mut self) -> Vec<Op> {
        self.pending.as_mut().map(|p| std::mem::take(&mut p.ops)).unwrap_or_default()
    }

    /// The batch is durable: the memory follows.
    pub(super) fn apply(&mut self) -> Option<TreeEvent> {
        match self.pending.take()?.effect {
            Effect::Change { mut target, state, tpm } => {
                target.state = *state;
                match tpm {
                    TpmChange::Keep => {}
                    TpmChange::Remove => target.exchange_tpm(None),
                    TpmChange::Install(tpm) => target.exchange_tpm(Some(*tpm)),
                }
                None
            }
            Effect::Birth { child, .. } => {
                self.tree.exchange_topology(|t| drop(t.insert(child.handle(), child.clone())));
                Some(TreeEvent::Created(child))
            }
            Effect::Death { mut target, handle } => {
                target.deleted = true;
                (target.tpm, target.last) = (None, None);
                self.tree.exchange_topology(|t| drop(t.remove(&handle)));
                self.topology.get(&handle).cloned().map(TreeEvent::Deleted)
            }
        }
    }

    /// The batch is not durable, or the command failed.
    pub(super) fn forget(&mut self) {
        self.pending = None;
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
        Ok(Target { instance, inner: instance.enter(self.tree)? })
    }

    fn stored(&self, instance: &Instance) -> Result<Stored, ResponseCode> {
        Stored::read(&*self.tree.persistence, instance.id()).map_err(|e| store_failed(&e))
    }

    /// Keeps the next state and the operations that go with it.
    fn change(&mut self, target: Target<'a>, mut ops: Ops, state: State, tpm: TpmChange) {
        ops.put(name::STATE, state.to_record());
        if !matches!(tpm, TpmChange::Keep) {
            ops.delete(name::LAST_COMMAND);
            ops.delete(name::RESET);
        }
        let effect = Effect::Change { target: target.inner, state: Box::new(state), tpm };
        self.pending = Some(Pending { ops: ops.list, effect });
    }

    /// The children of an instance as they are now.
    fn children(&self, handle: u32) -> Vec<Arc<Instance>> {
        let topology = self.tree.topology();
        topology.values().filter(|i| i.parent() == Some(handle)).cloned().collect()
    }

    fn summary(&self, instance: &Instance, inner: &Inner) -> InstanceSummary {
        InstanceSummary {
            instance: instance.handle(),
            uuid: instance.uuid(),
            state: inner.state.kind(),
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
            log::warn!("instance {}: {what}", instance.name());
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

    fn put_records(ops: &mut Ops, records: &content::Records) -> Result<(), ResponseCode> {
        for (&key, value) in records {
            ops.put(live_name(key)?, value.clone());
        }
        Ok(())
    }

    fn delete_content(ops: &mut Ops, stored: &Stored) -> Result<(), ResponseCode> {
        for &key in stored.live.keys() {
            ops.delete(live_name(key)?);
        }
        ops.delete(name::PARTIAL);
        Ok(())
    }

    /// The manifest that an export which has not begun would end with counts as a piece of what is left.
    fn remaining(state: &State, stored: &Stored) -> Vec<PieceInfo> {
        match state {
            State::Exporting(exporting) => exporting.remaining(&stored.live),
            State::Exported(_) => Vec::new(),
            _ => {
                let mut pieces = content::pieces(&stored.live);
                let manifest = Manifest { pieces: pieces.clone() }.to_bytes();
                let size = u32::try_from(manifest.len()).unwrap_or(u32::MAX);
                pieces.push(PieceInfo { kind: PieceKind::Manifest, handle: 0, size });
                pieces
            }
        }
    }

    fn settle(&mut self, target: Target<'a>, settled: Settled) -> Result<ReceiptOut, ResponseCode> {
        let mut ops = Ops::new(target.instance.id());
        match settled {
            Settled::Revealed(None, secret) => receipt_out(secret.expose()),
            Settled::Revealed(Some(state), secret) => {
                let stored = self.stored(target.instance)?;
                Self::delete_content(&mut ops, &stored)?;
                self.change(target, ops, state, TpmChange::Remove);
                receipt_out(secret.expose())
            }
            Settled::Revived(state) => {
                let stored = self.stored(target.instance)?;
                for &key in stored.escrow.keys() {
                    ops.delete(name::escrow(key).map_err(|e| store_failed(&e))?);
                }
                let mut tpm = self.thaw(target.instance, stored.all())?;
                self.pay_reset(&target.inner, &mut tpm)?;
                let records: content::Records = tpm.records().into_iter().collect();
                for key in stored.live.keys().filter(|key| !records.contains_key(key)) {
                    ops.delete(live_name(*key)?);
                }
                Self::put_records(&mut ops, &records)?;
                self.change(target, ops, state, TpmChange::Install(tpm));
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
        let ops = vec![Op::DeleteInstance(instance.id())];
        let effect = Effect::Death { target: inner, handle: instance.handle() };
        self.pending = Some(Pending { ops, effect });
        Ok(())
    }
}

fn live_name(key: RecordKey) -> Result<crate::store::RecordName, ResponseCode> {
    name::live(key).map_err(|e| store_failed(&e))
}

fn receipt_out(secret: &[u8]) -> Result<ReceiptOut, ResponseCode> {
    Ok(ReceiptOut { receipt: Tpm2b::new(secret)? })
}

/// `count` items from `list` and whether there are more.
fn page<T>(list: impl Iterator<Item = T>, count: u32, cap: usize) -> (Vec<T>, bool) {
    let mut list = list.peekable();
    let count = usize::try_from(count).unwrap_or(usize::MAX).min(cap);
    let page: Vec<T> = list.by_ref().take(count).collect();
    (page, list.peek().is_some())
}

impl InstanceManager for Transaction<'_> {
    fn check_descendant(&mut self, instance: u32, allow_self: bool) -> Result<(), ResponseCode> {
        let mut at = self.find(instance)?;
        if at.handle() == self.processing.handle() {
            return if allow_self { Ok(()) } else { Err(ResponseCode::HIERARCHY) };
        }
        while let Some(parent) = at.parent() {
            if parent == self.processing.handle() {
                return Ok(());
            }
            at = self.topology.get(&parent).ok_or(ResponseCode::FAILURE)?;
        }
        Err(ResponseCode::HIERARCHY)
    }

    fn create_instance(
        &mut self,
        parent: u32,
        input: &CreateInstanceIn,
    ) -> Result<CreateInstanceOut, ResponseCode> {
        self.check_descendant(parent, true)?;
        let parent = self.find(parent)?;
        if !parent.attributes().privileged() {
            return Err(ResponseCode::ATTRIBUTES);
        }
        // The processing instance is locked already; any other parent is, until its child is in the topology.
        let parent_lock = if self.is_self(parent.handle()) { None } else { Some(parent.enter(self.tree)?) };
        if parent_lock.as_ref().is_some_and(|inner| !inner.state.executes()) {
            return Err(ResponseCode::RETRY);
        }
        let births = self.tree.births();
        let taken = self.tree.topology();
        if taken.values().any(|i| *i.name() == input.name || i.uuid() == input.uuid) {
            return Err(ResponseCode::NV_DEFINED);
        }
        if taken.len() >= self.tree.max_instances.load(Ordering::Relaxed) {
            return Err(ResponseCode::NV_SPACE);
        }
        let slot = DestinationLocked::create(input.uuid, &input.storage_public, &mut fill_random)
            .map_err(|_| ResponseCode::KEY.parameter(4))?;
        let ticket = slot.slot.ticket.clone();
        let id = self.tree.persistence.allocate_id();
        let handle = handle_of(id.0).ok_or(ResponseCode::OBJECT_HANDLES)?;
        let row = InstanceRow {
            id,
            parent: Some(parent.id()),
            handle,
            name: input.name.as_str().to_owned(),
            uuid: input.uuid.0,
            attributes: input.attributes.bits(),
        };
        let child = Instance::new(self.processing.tree_handle(), row.clone(), Some(parent.handle()))
            .map_err(|_| ResponseCode::FAILURE)?;
        let mut ops = Ops::new(id);
        ops.list.push(Op::CreateInstance(row));
        ops.put(name::STATE, State::DestinationLocked(slot).to_record());
        let effect = Effect::Birth { child: Arc::new(child), _parent: parent_lock, _births: births };
        self.pending = Some(Pending { ops: ops.list, effect });
        Ok(CreateInstanceOut { instance: handle, ticket })
    }

    fn lock_instance(&mut self, instance: u32, input: &LockInstanceIn) -> Result<(), ResponseCode> {
        let target = self.target(instance)?;
        let state = target.inner.state.clone();
        let state = state
            .lock(target.instance.uuid(), input.ticket.clone(), input.flags)
            .map_err(refused(target.instance))?;
        if !self.children(target.instance.handle()).is_empty() {
            return Err(ResponseCode::PARENT);
        }
        // What the engine keeps in memory only, such as the time since the last commit, becomes part of the records.
        let mut tpm = target.inner.tpm.clone().ok_or(ResponseCode::FAILURE)?;
        self.pay_reset(&target.inner, &mut tpm)?;
        tpm.freeze_clock(self.tree.clock.now_ms());
        let records: content::Records = tpm.records().into_iter().collect();
        let mut ops = Ops::new(target.instance.id());
        for key in self.stored(target.instance)?.live.keys().filter(|key| !records.contains_key(key)) {
            ops.delete(live_name(*key)?);
        }
        Self::put_records(&mut ops, &records)?;
        self.change(target, ops, state, TpmChange::Remove);
        Ok(())
    }

    fn get_instance_key(
        &mut self,
        instance: u32,
        storage_key: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, ResponseCode> {
        let target = self.target(instance)?;
        let (next, structure) = target
            .inner
            .state
            .clone()
            .get_key(storage_key, &mut fill_random)
            .map_err(refused(target.instance))?;
        if let Some(state) = next {
            let ops = Ops::new(target.instance.id());
            self.change(target, ops, state, TpmChange::Keep);
        }
        Ok(structure)
    }

    fn get_instance_capability(
        &mut self,
        instance: u32,
        input: &GetInstanceCapabilityIn,
    ) -> Result<GetInstanceCapabilityOut, ResponseCode> {
        let data_limit = self.data_limit();
        if input.capability == InstanceCapability::Limits {
            self.check_descendant(instance, false)?;
            let long = u32::try_from(self.limit.min(MAX_INSTANCE_COMMAND)).unwrap_or(u32::MAX);
            let limits = [
                (LimitTag::MaxCommand, long),
                (LimitTag::MaxResponse, long),
                (LimitTag::MaxData, data_limit),
                (LimitTag::PieceOverhead, u32::try_from(PIECE_OVERHEAD).unwrap_or(u32::MAX)),
            ];
            let wanted = limits.into_iter().filter(|&(tag, _)| tag as u32 >= input.property);
            let (list, more) = page(wanted, input.count, MAX_CAP_PIECES);
            return Ok(GetInstanceCapabilityOut { more, data: InstanceCapabilityData::Limits(list) });
        }
        let target = self.target(instance)?;
        if !target.inner.state.source_locked() {
            return Err(refused(target.instance)(target.inner.state.illegal(Step::GetCapability)));
        }
        let stored = self.stored(target.instance)?;
        let pieces = Self::remaining(&target.inner.state, &stored);
        let handles = |kind| {
            let of_kind = pieces.iter().filter(move |p| p.kind == kind && p.handle >= input.property);
            page(of_kind.map(|p| p.handle), input.count, MAX_CAP_HANDLES)
        };
        let (data, more) = match input.capability {
            InstanceCapability::NvIndices => {
                let (list, more) = handles(PieceKind::NvIndex);
                (InstanceCapabilityData::NvIndices(list), more)
            }
            InstanceCapability::Persistent => {
                let (list, more) = handles(PieceKind::Persistent);
                (InstanceCapabilityData::Persistent(list), more)
            }
            InstanceCapability::Pieces | InstanceCapability::Limits => {
                let first = usize::try_from(input.property).unwrap_or(usize::MAX);
                let (list, more) = page(pieces.into_iter().skip(first), input.count, MAX_CAP_PIECES);
                (InstanceCapabilityData::Pieces(list), more)
            }
        };
        Ok(GetInstanceCapabilityOut { more, data })
    }

    fn get_instance_data(
        &mut self,
        instance: u32,
        input: &GetInstanceDataIn,
    ) -> Result<GetInstanceDataOut, ResponseCode> {
        let target = self.target(instance)?;
        let request = GetInstanceDataIn { max_size: input.max_size.min(self.data_limit()), ..*input };
        let fail = refused(target.instance);
        let exporting = match target.inner.state.clone() {
            State::SourceKeyed(keyed) => keyed.begin(),
            State::Exporting(exporting) if request.sequence < exporting.next_sequence() => {
                return exporting.repeat(&request, &self.stored(target.instance)?.all()).map_err(fail);
            }
            State::Exporting(exporting) => exporting,
            State::Exported(exported) => {
                return exported.repeat(&request, &self.stored(target.instance)?.all()).map_err(fail);
            }
            other => return Err(fail(other.illegal(Step::GetData))),
        };
        let strict = exporting.session.flags.strict();
        let stored = self.stored(target.instance)?;
        let Export { next, out, moved } = exporting.export(&request, &stored.live).map_err(fail)?;
        let mut ops = Ops::new(target.instance.id());
        for (&key, value) in stored.live.iter().filter(|&(&key, _)| moved.contains(&PieceId::of(key))) {
            ops.delete(live_name(key)?);
            if !strict {
                ops.put(name::escrow(key).map_err(|e| store_failed(&e))?, value.clone());
            }
        }
        let state = match next {
            ExportNext::Exporting(exporting) => State::Exporting(exporting),
            ExportNext::Exported(exported) => State::Exported(exported),
        };
        self.change(target, ops, state, TpmChange::Keep);
        Ok(out)
    }

    fn delete_instance(&mut self, instance: u32) -> Result<(), ResponseCode> {
        self.check_descendant(instance, false)?;
        let instance = self.find(instance)?;
        // Not by way of `target`: what the store can no longer read can still be destroyed.
        let inner = instance.enter_to_delete()?;
        self.destroy(Target { instance, inner })
    }

    fn set_instance_key(&mut self, instance: u32, key_structure: &[u8]) -> Result<(), ResponseCode> {
        let target = self.target(instance)?;
        let state = target.inner.state.clone().set_key(key_structure).map_err(refused(target.instance))?;
        let ops = Ops::new(target.instance.id());
        self.change(target, ops, state, TpmChange::Keep);
        Ok(())
    }

    fn set_instance_data(&mut self, instance: u32, input: &SetInstanceDataIn) -> Result<(), ResponseCode> {
        let target = self.target(instance)?;
        let fail = refused(target.instance);
        let importing = match target.inner.state.clone() {
            State::DestinationKeyed(keyed) => keyed.begin(),
            State::Importing(importing) => importing,
            other => return Err(fail(other.illegal(Step::SetData))),
        };
        let partial = self.stored(target.instance)?.partial;
        let accepted = importing.accept(&input.data, partial).map_err(fail)?;
        let mut ops = Ops::new(target.instance.id());
        Self::put_records(&mut ops, &accepted.records)?;
        if accepted.partial.is_empty() {
            ops.delete(name::PARTIAL);
        } else {
            ops.put(name::PARTIAL, accepted.partial);
        }
        self.change(target, ops, State::Importing(accepted.next), TpmChange::Keep);
        Ok(())
    }

    fn unlock_instance(&mut self, instance: u32, input: &UnlockInstanceIn) -> Result<(), ResponseCode> {
        let target = self.target(instance)?;
        let fail = refused(target.instance);
        let mut ops = Ops::new(target.instance.id());
        match target.inner.state.clone() {
            State::DestinationLocked(empty) => {
                let live = empty.unlock_fresh(&input.digest).map_err(fail)?;
                let tpm = Tpm::manufacture(&mut Workshop(&self.tree.clock));
                Self::put_records(&mut ops, &tpm.records().into_iter().collect())?;
                self.change(target, ops, State::Live(live), TpmChange::Install(Box::new(tpm)));
            }
            State::Importing(importing) => {
                let imported = importing.unlock(&input.digest).map_err(fail)?;
                let tpm = self.thaw(target.instance, self.stored(target.instance)?.live)?;
                Self::put_records(&mut ops, &tpm.records().into_iter().collect())?;
                self.change(target, ops, State::Imported(imported), TpmChange::Install(tpm));
            }
            State::DestinationKeyed(_) => return Err(fail(StepError::Incomplete)),
            other => return Err(fail(other.illegal(Step::Unlock))),
        }
        Ok(())
    }

    fn arm_instance(&mut self, instance: u32, input: &ArmInstanceIn) -> Result<(), ResponseCode> {
        let target = self.target(instance)?;
        let armed = input.ticket.clone().map(|ticket| Armed { ticket, flags: input.flags });
        let uuid = target.instance.uuid();
        let state = target.inner.state.clone().arm(uuid, armed).map_err(refused(target.instance))?;
        let ops = Ops::new(target.instance.id());
        self.change(target, ops, state, TpmChange::Keep);
        Ok(())
    }

    fn reset_instance(&mut self, instance: u32) -> Result<(), ResponseCode> {
        let target = self.target(instance)?;
        let state = target.inner.state.clone().reset().map_err(refused(target.instance))?;
        let mut ops = Ops::new(target.instance.id());
        Self::delete_content(&mut ops, &self.stored(target.instance)?)?;
        self.change(target, ops, state, TpmChange::Remove);
        Ok(())
    }

    fn abort_migration(&mut self, instance: u32, input: &ReceiptIn) -> Result<ReceiptOut, ResponseCode> {
        let target = self.target(instance)?;
        let settled = target.inner.state.clone().abort(&input.receipt);
        let settled = settled.map_err(refused(target.instance))?;
        self.settle(target, settled)
    }

    fn commit_migration(&mut self, instance: u32, input: &ReceiptIn) -> Result<ReceiptOut, ResponseCode> {
        let target = self.target(instance)?;
        let settled = target.inner.state.clone().commit(&input.receipt);
        let settled = settled.map_err(refused(target.instance))?;
        self.settle(target, settled)
    }

    fn list_instances(
        &mut self,
        parent: u32,
        input: &ListInstancesIn,
    ) -> Result<ListInstancesOut, ResponseCode> {
        self.check_descendant(parent, true)?;
        let children = self.children(self.find(parent)?.handle());
        let wanted = children.iter().filter(|child| child.handle() >= input.first);
        let (page, more) = page(wanted, input.count, MAX_CAP_INSTANCES);
        let mut instances = Vec::with_capacity(page.len());
        for child in page {
            match child.enter(self.tree) {
                Ok(inner) => instances.push(self.summary(child, &inner)),
                // One that cannot be read must not hide its siblings. The log has it.
                Err(_) => continue,
            }
        }
        Ok(ListInstancesOut { more, instances })
    }

    fn get_instance_info(&mut self, instance: u32) -> Result<GetInstanceInfoOut, ResponseCode> {
        let Target { instance, inner } = self.target(instance)?;
        let parent = instance.parent().filter(|&p| !self.is_self(p)).unwrap_or(INSTANCE_SELF);
        let children = u32::try_from(self.children(instance.handle()).len()).unwrap_or(u32::MAX);
        Ok(GetInstanceInfoOut {
            summary: self.summary(instance, &inner),
            parent,
            children,
            next: inner.state.next_sequence(),
            outcome: inner.state.outcome(),
            ticket: inner.state.ticket().cloned(),
        })
    }
}
