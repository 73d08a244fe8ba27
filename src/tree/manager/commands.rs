//! The instance commands, each on its one target.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use vtpm_engine::Tpm;
use vtpm_engine::foreign::Foreign;
use vtpm_engine::instances::{InstanceKey, InstanceManager, TicketFault, VerifiedTicket};
use vtpm_protocol::codec::{Encode, decode_exact};
use vtpm_protocol::instance::migration::PIECE_OVERHEAD;
use vtpm_protocol::instance::{
    CreateInstanceIn, CreateInstanceOut, ForeignFormat, GetInstanceCapabilityIn, GetInstanceCapabilityOut,
    GetInstanceDataIn, GetInstanceDataOut, GetInstanceInfoOut, GetInstanceKeyOut, GetMigrationLogIn,
    GetMigrationLogOut, GetReceiptIn, GetReceiptOut, INSTANCE_SELF, Identity, ImportForeignStateIn,
    InstanceCapability, InstanceCapabilityData, InstanceName, InstanceState, KeyRole, LimitTag,
    ListInstancesIn, ListInstancesOut, ListPeersIn, ListPeersOut, LockFlags, MAX_CAP_HANDLES,
    MAX_CAP_INSTANCES, MAX_CAP_PIECES, MAX_INSTANCE_COMMAND, MigrationTicket, PeerEntry, PermitSaveIn,
    PieceKind, ReceiptIn, ReceiptOut, SavePermission, SetInstanceDataIn, SetInstancePolicyIn,
    UnlockInstanceIn,
};
use vtpm_protocol::rc::ResponseCode;
use zeroize::Zeroizing;

use super::{Draft, Effect, Pending, Target, TpmChange, Transaction, refused, store_failed};
use crate::logging::about;
use crate::migration::content::Held;
use crate::migration::destination::DestinationLocked;
use crate::migration::source::Armed;
use crate::migration::state::{Settled, Unlocked};
use crate::migration::{State, Step, StepError};
use crate::sentence;
use crate::store::{InstanceRow, Op};
use crate::tree::environment::{Workshop, fill_random};
use crate::tree::handle_of;
use crate::tree::instance::Instance;
use crate::tree::persistence::{Ops, name};
use crate::tree::receipts;

/// `count` items from `list` and whether there are more.
fn page<T>(list: impl Iterator<Item = T>, count: u32, cap: usize) -> (Vec<T>, bool) {
    let mut list = list.peekable();
    let count = usize::try_from(count).unwrap_or(usize::MAX).min(cap);
    let page: Vec<T> = list.by_ref().take(count).collect();
    (page, list.peek().is_some())
}

impl InstanceManager for Transaction<'_> {
    fn check_descendant(&mut self, instance: u32, allow_self: bool) -> Result<(), ResponseCode> {
        let mut at = match self.find(instance) {
            Err(code) => return if self.left_out(instance)?.is_some() { Ok(()) } else { Err(code) },
            Ok(found) => found,
        };
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

    fn draft_instance(
        &mut self,
        parent: u32,
        input: &CreateInstanceIn,
    ) -> Result<MigrationTicket, ResponseCode> {
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
        let child = Arc::new(child);
        self.logged.draft = Some((ticket.clone(), child.clone()));
        let mut ops = Ops::new(id);
        ops.list.push(Op::CreateInstance(row));
        let effect = Effect::Birth { child, _parent: parent_lock, _births: births };
        self.draft = Some(Draft { slot, ops, effect, handle });
        Ok(ticket)
    }

    fn create_instance(&mut self, ticket: MigrationTicket) -> Result<CreateInstanceOut, ResponseCode> {
        let Draft { mut slot, mut ops, effect, handle } = self.draft.take().ok_or(ResponseCode::FAILURE)?;
        let MigrationTicket { signer, certificate, signature, .. } = ticket.clone();
        let drafted = slot.slot.ticket;
        slot.slot.ticket = MigrationTicket { signer, certificate, signature, ..drafted };
        if slot.slot.ticket != ticket {
            return Err(ResponseCode::FAILURE);
        }
        ops.put(name::STATE, State::DestinationLocked(slot).to_record());
        self.pending = Some(Pending { ops: ops.list, effect });
        Ok(CreateInstanceOut { instance: handle, ticket })
    }

    fn lock_instance(
        &mut self,
        instance: u32,
        ticket: VerifiedTicket,
        flags: LockFlags,
    ) -> Result<(), ResponseCode> {
        let target = self.target(instance)?;
        let ticket = self.admit(target.instance, ticket)?;
        let state = target.inner.state.clone();
        let state = state.lock(target.instance.uuid(), ticket, flags).map_err(refused(target.instance))?;
        self.engage(target, state)
    }

    fn lock_to_save(&mut self, instance: u32) -> Result<(), ResponseCode> {
        let target = self.target(instance)?;
        if !self.tree.may_be_saved(self.stored(target.instance)?.saves) {
            return Err(refused(target.instance)(StepError::NotPermitted));
        }
        // A key that never leaves this host: what is saved is of use here only.
        let keys = self.stored_identity()?.keys;
        let own = keys.iter().find(|key| key.role == KeyRole::EccStorage);
        let storage = &own.ok_or(ResponseCode::NV_UNINITIALIZED)?.public;
        let state = target.inner.state.clone();
        let state = state.save(target.instance.uuid(), storage, &mut fill_random);
        let state = state.map_err(refused(target.instance))?;
        self.engage(target, state)
    }

    fn refuse_ticket(&mut self, instance: u32, fault: TicketFault) -> ResponseCode {
        match self.find(instance) {
            Ok(instance) => refused(instance)(StepError::Signature(fault)),
            Err(code) => code,
        }
    }

    fn get_instance_key(&mut self, instance: u32, storage_key: &[u8]) -> Result<InstanceKey, ResponseCode> {
        let target = self.target(instance)?;
        let held = self.held(target.instance)?;
        let got = target.inner.state.clone().get_key(storage_key, &mut fill_random);
        let (next, structure) = got.map_err(refused(target.instance))?;
        let Some(structure) = structure else {
            return decode_exact(&held.sent_key).map(InstanceKey::Encrypted);
        };
        let state = next.clone().unwrap_or_else(|| target.inner.state.clone());
        self.keeps_key = state.keeps_key(&held).then(|| target.instance.id());
        if next.is_some() || self.keeps_key.is_some() {
            self.change_state(target, state)?;
        }
        Ok(InstanceKey::Plain(structure))
    }

    fn keep_instance_key(&mut self, encrypted: &GetInstanceKeyOut) -> Result<(), ResponseCode> {
        if let Some(id) = self.keeps_key.take() {
            let mut ops = Ops::new(id);
            ops.put(name::SENT_KEY, Zeroizing::new(encrypted.to_bytes()));
            self.pending.as_mut().ok_or(ResponseCode::FAILURE)?.ops.extend(ops.list);
        }
        Ok(())
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
        let held = self.held(target.instance)?;
        let pieces = Self::remaining(&target.inner.state, &held);
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
        let before = self.held(target.instance)?;
        let mut after = before.clone();
        let exported = target.inner.state.clone().export(&request, &mut after);
        let (next, out) = exported.map_err(refused(target.instance))?;
        if let Some(state) = next {
            self.change(target, (&before, &after), state, TpmChange::Keep)?;
        }
        Ok(out)
    }

    fn delete_instance(&mut self, instance: u32) -> Result<(), ResponseCode> {
        self.check_descendant(instance, false)?;
        if let Some(left_out) = self.left_out(instance)? {
            if left_out.has_children {
                return Err(ResponseCode::PARENT);
            }
            self.pending = Some(Pending { ops: vec![Op::DeleteInstance(left_out.id)], effect: Effect::Own });
            return Ok(());
        }
        let instance = self.find(instance)?;
        // Not by way of `target`: what the store can no longer read can still be destroyed.
        let inner = instance.enter_to_delete()?;
        self.destroy(Target { instance, inner })
    }

    fn set_instance_key(&mut self, instance: u32, key_structure: &[u8]) -> Result<(), ResponseCode> {
        let target = self.target(instance)?;
        let state = target.inner.state.clone().set_key(key_structure).map_err(refused(target.instance))?;
        self.change_state(target, state)
    }

    fn set_instance_data(&mut self, instance: u32, input: &SetInstanceDataIn) -> Result<(), ResponseCode> {
        let target = self.target(instance)?;
        let before = self.held(target.instance)?;
        let mut after = before.clone();
        let state = target.inner.state.clone().accept(&input.data, &mut after);
        let state = state.map_err(refused(target.instance))?;
        self.change(target, (&before, &after), state, TpmChange::Keep)
    }

    fn unlock_instance(&mut self, instance: u32, input: &UnlockInstanceIn) -> Result<(), ResponseCode> {
        let target = self.target(instance)?;
        let unlocked = target.inner.state.clone().unlock(&input.digest);
        let before = self.held(target.instance)?;
        let (state, tpm) = match unlocked.map_err(refused(target.instance))? {
            Unlocked::Fresh(state) => (state, Box::new(Tpm::manufacture(&mut Workshop(&self.tree.clock)))),
            Unlocked::Imported(state) => (state, self.thaw(target.instance, before.live.clone())?),
            Unlocked::Again => return Ok(()),
            Unlocked::WithoutSaved => {
                let mut after = before.clone();
                let next = target.inner.state.clone().machine_runs(&mut after);
                let settled = Settled::Revived(next.ok_or(ResponseCode::FAILURE)?);
                return self.settle(target, (before, after), settled).map(drop);
            }
            Unlocked::TakenBack => {
                about!(
                    info,
                    target.instance,
                    "instance {}: its saved state was taken back; it goes on from there when its machine runs",
                    target.instance.name()
                );
                // No reset that was owed meanwhile, by a start of the host or of another machine, is the business of this machine.
                let state = target.inner.state.clone();
                return self.change(target, (&before, &before), state, TpmChange::Remove);
            }
        };
        let after = Held { live: tpm.records().into_iter().collect(), ..Held::default() };
        self.change(target, (&before, &after), state, TpmChange::Install(tpm))
    }

    fn import_foreign_state(
        &mut self,
        instance: u32,
        input: &ImportForeignStateIn,
    ) -> Result<(), ResponseCode> {
        let target = self.target(instance)?;
        let unlocked = target.inner.state.clone().unlock(&input.digest).map_err(refused(target.instance))?;
        // Only what has never held a TPM takes one over.
        let Unlocked::Fresh(state) = unlocked else {
            return Err(refused(target.instance)(target.inner.state.illegal(Step::Unlock)));
        };
        let ForeignFormat::Libtpms = input.format;
        let adopted = Foreign::read(&input.state)
            .and_then(|foreign| Tpm::adopt(foreign, &mut Workshop(&self.tree.clock)))
            .map_err(|error| {
                about!(warn, target.instance, "instance {}: {}", target.instance.name(), sentence(&error));
                StepError::Unsound.response_code()
            })?;
        let tpm = Box::new(adopted);
        let before = self.held(target.instance)?;
        let after = Held { live: tpm.records().into_iter().collect(), ..Held::default() };
        self.change(target, (&before, &after), state, TpmChange::Install(tpm))
    }

    fn arm_instance(
        &mut self,
        instance: u32,
        ticket: Option<VerifiedTicket>,
        flags: LockFlags,
    ) -> Result<(), ResponseCode> {
        let target = self.target(instance)?;
        let ticket = ticket.map(|ticket| self.admit(target.instance, ticket)).transpose()?;
        let armed = ticket.map(|ticket| Armed { ticket, flags });
        let uuid = target.instance.uuid();
        let state = target.inner.state.clone().arm(uuid, armed).map_err(refused(target.instance))?;
        self.change_state(target, state)
    }

    fn set_instance_policy(
        &mut self,
        instance: u32,
        input: &SetInstancePolicyIn,
    ) -> Result<(), ResponseCode> {
        let target = self.target(instance)?;
        let state = target.inner.state.clone().set_policy(input.policy).map_err(refused(target.instance))?;
        self.change_state(target, state)
    }

    fn permit_save(&mut self, instance: u32, input: &PermitSaveIn) -> Result<(), ResponseCode> {
        let target = self.target(instance)?;
        let mut ops = Ops::new(target.instance.id());
        match input.permission {
            SavePermission::Configured => ops.delete(name::SAVES),
            permission => ops.put(name::SAVES, Zeroizing::new(permission.to_bytes())),
        }
        // Read from the store whenever it matters.
        self.pending = Some(Pending { ops: ops.list, effect: Effect::Own });
        Ok(())
    }

    fn reset_instance(&mut self, instance: u32) -> Result<(), ResponseCode> {
        let target = self.target(instance)?;
        let before = self.held(target.instance)?;
        let mut after = before.clone();
        let state = target.inner.state.clone().reset(&mut after).map_err(refused(target.instance))?;
        self.change(target, (&before, &after), state, TpmChange::Remove)
    }

    fn abort_migration(&mut self, instance: u32, input: &ReceiptIn) -> Result<ReceiptOut, ResponseCode> {
        let target = self.target(instance)?;
        let before = self.held(target.instance)?;
        let mut after = before.clone();
        let settled = target.inner.state.clone().abort(&input.receipt, &mut after);
        let settled = settled.map_err(refused(target.instance))?;
        self.settle(target, (before, after), settled)
    }

    fn commit_migration(&mut self, instance: u32, input: &ReceiptIn) -> Result<ReceiptOut, ResponseCode> {
        let target = self.target(instance)?;
        let settled = target.inner.state.clone().commit(&input.receipt);
        let settled = settled.map_err(refused(target.instance))?;
        self.settle(target, Default::default(), settled)
    }

    fn list_instances(
        &mut self,
        parent: u32,
        input: &ListInstancesIn,
    ) -> Result<ListInstancesOut, ResponseCode> {
        self.check_descendant(parent, true)?;
        let parent = self.find(parent)?.handle();
        let children = self.children(parent).into_iter().map(|child| (child.handle(), Ok(child)));
        let left_out = if parent == self.tree.root {
            self.tree.left_out().map_err(|error| store_failed(&error))?
        } else {
            Vec::new()
        };
        let left_out = left_out.into_iter().map(|one| (one.summary.instance, Err(one.summary)));
        let mut wanted: Vec<_> =
            children.chain(left_out).filter(|(handle, _)| *handle >= input.first).collect();
        wanted.sort_by_key(|(handle, _)| *handle);
        let (page, more) = page(wanted.into_iter(), input.count, MAX_CAP_INSTANCES);
        let mut instances = Vec::with_capacity(page.len());
        for (_, child) in page {
            let child = match child {
                Ok(child) => child,
                Err(damaged) => {
                    instances.push(damaged);
                    continue;
                }
            };
            match child.enter(self.tree) {
                Ok(inner) => instances.push(self.summary(&child, inner.state.kind())),
                // For now nothing can be read.
                Err(code @ ResponseCode::NV_UNAVAILABLE) => return Err(code),
                Err(_) if child.is_deleted() => {}
                // The log has what is wrong with it.
                Err(_) => instances.push(self.summary(&child, InstanceState::Damaged)),
            }
        }
        Ok(ListInstancesOut { more, instances })
    }

    fn get_instance_info(&mut self, instance: u32) -> Result<GetInstanceInfoOut, ResponseCode> {
        let Target { instance, inner } = self.target(instance)?;
        let saves = self.stored(instance)?.saves;
        let parent = instance.parent().filter(|&p| !self.is_self(p)).unwrap_or(INSTANCE_SELF);
        let children = u32::try_from(self.children(instance.handle()).len()).unwrap_or(u32::MAX);
        Ok(GetInstanceInfoOut {
            summary: self.summary(instance, inner.state.kind()),
            parent,
            children,
            next: inner.state.next_sequence(),
            outcome: inner.state.outcome(),
            policy: inner.state.policy(),
            arrival: inner.state.arrived_by().unwrap_or_default(),
            ticket: inner.state.ticket().cloned(),
            save_permission: saves,
            may_be_saved: self.tree.may_be_saved(saves),
        })
    }

    fn add_peer(&mut self, entry: &PeerEntry) -> Result<(), ResponseCode> {
        self.put_peer(entry)
    }

    fn remove_peer(&mut self, label: &InstanceName) -> Result<(), ResponseCode> {
        self.delete_peer(label)
    }

    fn list_peers(&mut self, input: &ListPeersIn) -> Result<ListPeersOut, ResponseCode> {
        self.page_of_peers(input)
    }

    fn migration_log(&mut self, input: &GetMigrationLogIn) -> Result<GetMigrationLogOut, ResponseCode> {
        self.page_of_log(input)
    }

    fn kept_receipt(&mut self, input: &GetReceiptIn) -> Result<GetReceiptOut, ResponseCode> {
        let kept = receipts::find(&*self.tree.persistence, self.processing.id(), &input.migration_id);
        kept.map_err(|error| store_failed(&error))?.ok_or(ResponseCode::VALUE.parameter(1))
    }

    fn identity(&mut self) -> Result<Identity, ResponseCode> {
        self.stored_identity()
    }
}
