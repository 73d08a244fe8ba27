//! One instance of the tree: its TPM, its place in a migration, its last command, under one lock.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use vtpm_backend::device::{MAX_COMMAND_SIZE, TpmDevice};
use vtpm_engine::Tpm;
use vtpm_engine::execute::command_code;
use vtpm_protocol::codec::Encode;
use vtpm_protocol::instance::{
    InstanceAttributes, InstanceName, InstanceState, LockFlags, MAX_INSTANCE_COMMAND, Uuid, cc,
};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{HEADER_SIZE, TpmCc, TpmHandle, TpmSt, TpmSu};
use zeroize::Zeroizing;

use super::environment::{CommandEnvironment, code_of, fill_random};
use super::limits::{Admission, Allowance, InstanceLimits};
use super::manager::Transaction;
use super::persistence::{Ops, Stored, name};
use super::replay::LastCommand;
use super::shown::{Entered, Shown};
use super::{Identity, Topology, Tree, TreeError, TreeEvent};
use crate::logging::about;
use crate::metrics::command_label;
use crate::migration::State;
use crate::sentence;
use crate::store::{Batch, InstanceId, InstanceRow, StoreError};

/// What lies under the lock of an instance.
pub(super) struct Inner {
    /// Whether the rest agrees with the store; if not it is read anew at the next use.
    pub(super) loaded: bool,
    /// It was put to sleep: `state` is that of the store, and the rest is read anew.
    pub(super) asleep: bool,
    /// It was used since the last round of those who put instances to sleep.
    pub(super) used: bool,
    /// The instance is gone from the tree.
    pub(super) deleted: bool,
    /// Where it stands.
    pub(super) state: State,
    /// The TPM, while it executes commands.
    pub(super) tpm: Option<Tpm>,
    /// The last command of its queue that changed anything.
    pub(super) last: Option<LastCommand>,
    /// The machine was reset when its TPM could not be: it is, before it executes another command.
    pub(super) reset_owed: bool,
    /// That one is owed stands in the store.
    pub(super) reset_recorded: bool,
    /// What its machine may still send, where that is limited.
    allowance: Allowance,
}

impl Inner {
    /// Another TPM, or none, with nothing left of the one before. The store follows, or has done so.
    pub(super) fn exchange_tpm(&mut self, tpm: Option<Tpm>) {
        self.tpm = tpm;
        self.last = None;
        self.reset_owed = false;
        self.reset_recorded = false;
    }

    /// Forgets what the store has as well.
    pub(super) fn fall_asleep(&mut self) {
        (self.tpm, self.last) = (None, None);
        (self.loaded, self.asleep) = (false, true);
    }
}

/// One instance.
pub struct Instance {
    tree: Weak<Tree>,
    identity: Identity,
    parent: Option<u32>,
    pub(super) inner: Mutex<Inner>,
    /// Where it stands, for those who do not take the lock.
    pub(super) shown: Shown,
    /// How many are connected to its doors.
    pub(super) clients: AtomicUsize,
    /// The command at hand is to end; each begins without.
    pub(super) canceled: AtomicBool,
}

/// The name of a command, for the log.
fn name_of(command: &[u8]) -> &'static str {
    command_code(command).map_or("no command", command_label)
}

/// A response that says nothing but a code.
pub(super) fn error_response(code: ResponseCode) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_SIZE);
    (TpmSt::NO_SESSIONS, 10u32, code.value()).encode(&mut out);
    out
}

/// Why an instance cannot be read.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    /// The store failed, for now or because what it has was changed.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// What the store has is no instance.
    #[error("{0}")]
    Content(String),
}

impl Unreadable {
    fn response_code(&self) -> ResponseCode {
        match self {
            // The medium, which may work again: the guest tries again then, where FAILURE would tell it that its TPM is broken.
            Self::Store(error) if !error.is_damage() => ResponseCode::NV_UNAVAILABLE,
            Self::Store(_) | Self::Content(_) => ResponseCode::FAILURE,
        }
    }
}

/// Where a command comes from.
pub(super) struct Origin {
    pub(super) locality: u8,
    pub(super) slot: Option<u16>,
    /// A machine's front door, and not a client of the raw socket.
    pub(super) machine: bool,
    /// The longest response that fits there.
    pub(super) limit: usize,
}

impl Instance {
    /// An instance of the store, which is read when it is first used.
    pub(super) fn new(tree: Weak<Tree>, row: InstanceRow, parent: Option<u32>) -> Result<Self, TreeError> {
        let inner = Inner {
            loaded: false,
            asleep: false,
            used: false,
            deleted: false,
            state: State::new_live(),
            tpm: None,
            last: None,
            reset_owed: false,
            reset_recorded: false,
            allowance: Allowance::default(),
        };
        Ok(Self {
            tree,
            identity: Identity::read(row)?,
            parent,
            inner: Mutex::new(inner),
            shown: Shown::default(),
            clients: AtomicUsize::new(0),
            canceled: AtomicBool::new(false),
        })
    }

    /// A sibling for the tree that `self` is in.
    pub(super) fn tree_handle(&self) -> Weak<Tree> {
        self.tree.clone()
    }

    /// The instance handle.
    #[must_use]
    pub fn handle(&self) -> u32 {
        self.identity.row.handle
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &InstanceName {
        &self.identity.name
    }

    /// The UUID.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        self.identity.uuid
    }

    /// The attributes.
    #[must_use]
    pub fn attributes(&self) -> InstanceAttributes {
        self.identity.attributes
    }

    /// The handle of the parent; the root has none.
    #[must_use]
    pub fn parent(&self) -> Option<u32> {
        self.parent
    }

    pub(super) fn id(&self) -> InstanceId {
        self.identity.row.id
    }

    /// Where it stands; `None` when the store cannot be read or the instance is deleted.
    #[must_use]
    pub fn state(&self) -> Option<InstanceState> {
        let tree = self.tree.upgrade()?;
        self.enter(&tree).ok().map(|inner| inner.state.kind())
    }

    /// As [`Self::state`]; but the TPM of an instance that was not used yet stays in the store.
    #[must_use]
    pub fn stored_state(&self) -> Option<InstanceState> {
        let tree = self.tree.upgrade()?;
        {
            // What a panic left is read anew at the next use, and from the store here.
            let inner = self.inner.lock().ok();
            if inner.as_ref().is_some_and(|inner| inner.deleted) {
                return None;
            }
            if let Some(inner) = inner.filter(|inner| inner.loaded || inner.asleep) {
                return Some(inner.state.kind());
            }
        }
        let stored = Stored::read(&*tree.persistence, self.id());
        let state = match &stored {
            Ok(stored) => stored.state.as_ref().and_then(|record| State::from_record(record).ok()),
            Err(error) => {
                about!(error, self, "instance {}: {}", self.name(), sentence(error));
                None
            }
        };
        match &state {
            Some(state) => self.shown.show_stored(state.kind()),
            None if stored.as_ref().err().is_none_or(StoreError::is_damage) => self.shown.show_damaged(),
            None => {}
        }
        state.map(|state| state.kind())
    }

    /// Whether it is gone from the tree, for good.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).deleted
    }

    /// Whether an ordinary command would be executed now.
    #[must_use]
    pub fn executes(&self) -> bool {
        matches!(self.state(), Some(InstanceState::Live | InstanceState::Imported))
    }

    /// Takes the lock, and reads from the store what is not known.
    ///
    /// # Errors
    /// `TPM_RC_NV_UNAVAILABLE` when the store does not answer for now, `TPM_RC_FAILURE` when what it has is no instance (the log says
    /// why), or the instance is deleted.
    pub(super) fn enter(&self, tree: &Tree) -> Result<Entered<'_>, ResponseCode> {
        let inner = self.inner.lock().unwrap_or_else(|poisoned| {
            self.inner.clear_poison();
            let mut inner = poisoned.into_inner();
            (inner.loaded, inner.asleep) = (false, false);
            inner
        });
        let mut inner = Entered::new(inner, &self.shown);
        if inner.deleted {
            return Err(ResponseCode::FAILURE);
        }
        if !inner.loaded {
            if let Err(error) = self.load_inner(tree, &mut inner) {
                about!(
                    error,
                    self,
                    "instance {} ({:#010x}) cannot be read: {}",
                    self.name(),
                    self.handle(),
                    sentence(&error)
                );
                drop(inner);
                let code = error.response_code();
                if code == ResponseCode::FAILURE {
                    self.shown.show_damaged();
                }
                return Err(code);
            }
            tree.rounds.call();
        }
        inner.used = true;
        Ok(inner)
    }

    fn load_inner(&self, tree: &Tree, inner: &mut Inner) -> Result<(), Unreadable> {
        let stored = Stored::read(&*tree.persistence, self.id())?;
        let record = stored.state.as_ref().ok_or_else(|| Unreadable::Content("it has no state".into()))?;
        let state = State::from_record(record)
            .map_err(|rc| Unreadable::Content(format!("its state does not decode: {rc}")))?;
        let tpm = if state.executes() {
            Some(restore(stored.held.live).map_err(Unreadable::Content)?)
        } else {
            None
        };
        let last = stored.last_command.as_ref().and_then(|bytes| LastCommand::from_record(bytes));
        let reset_recorded = stored.reset_owed;
        let reset_owed = inner.reset_owed || reset_recorded;
        let allowance = std::mem::take(&mut inner.allowance);
        *inner = Inner {
            loaded: true,
            asleep: false,
            used: true,
            deleted: false,
            state,
            tpm,
            last,
            reset_owed,
            reset_recorded,
            allowance,
        };
        Ok(())
    }

    /// `_TPM_Init` and `TPM2_Startup(CLEAR)` of the root, which nobody else powers on; locks its platform hierarchy out.
    pub(super) fn start_root(&self) -> Result<(), TreeError> {
        self.machine_reset();
        let mut startup = Vec::new();
        (TpmSt::NO_SESSIONS, 12u32, TpmCc::STARTUP, TpmSu::CLEAR).encode(&mut startup);
        self.start_step("TPM2_Startup", &startup)?;
        // Startup leaves platformAuth empty, and the platform can clear the owner. Nobody is the platform of the root.
        let mut auth = Zeroizing::new([0; 32]);
        fill_random(&mut *auth);
        let mut change = Zeroizing::new(Vec::with_capacity(64));
        (TpmSt::SESSIONS, 61u32, TpmCc::HIERARCHY_CHANGE_AUTH, TpmHandle::PLATFORM, 9u32).encode(&mut change);
        (TpmHandle::RS_PW, 0u16, 0u8, 0u16, 32u16, *auth).encode(&mut change);
        self.start_step("TPM2_HierarchyChangeAuth", &change)
    }

    fn start_step(&self, command: &'static str, bytes: &[u8]) -> Result<(), TreeError> {
        match code_of(&self.execute_long(bytes)) {
            ResponseCode::SUCCESS => Ok(()),
            code => Err(TreeError::Root { command, code }),
        }
    }

    /// Executes a command that may be an instance command longer than any other, and have as long a response: for
    /// the raw socket of the root, and for clients in the process.
    #[must_use]
    pub fn execute_long(&self, command: &[u8]) -> Vec<u8> {
        self.run(command, &Origin { locality: 0, slot: None, machine: false, limit: MAX_INSTANCE_COMMAND })
    }

    pub(super) fn run(&self, command: &[u8], origin: &Origin) -> Vec<u8> {
        let Some(tree) = self.tree.upgrade() else { return error_response(ResponseCode::FAILURE) };
        let start = Instant::now();
        let response = self.run_in(&tree, command, origin);
        let (code, took) = (code_of(&response), start.elapsed());
        tree.metrics.commands.count(command, code, took);
        about!(
            trace,
            self,
            [command = name_of(command), code = code.value()],
            "instance {}: {} takes {took:?}: {code}",
            self.name(),
            name_of(command)
        );
        crate::fault::response_is_made();
        response
    }

    fn run_in(&self, tree: &Arc<Tree>, command: &[u8], origin: &Origin) -> Vec<u8> {
        let mut events = if self.attributes().privileged() {
            match tree.settle_doubt() {
                Ok(events) => events,
                Err(error) => {
                    log::error!("the instances cannot be listed: {}", sentence(&error));
                    return error_response(ResponseCode::NV_UNAVAILABLE);
                }
            }
        } else {
            Vec::new()
        };
        let topology = tree.topology();
        let response = match self.enter(tree) {
            Ok(mut inner) => {
                let before = inner.state.kind();
                let result = self.run_locked(tree, &topology, &mut inner, command, origin, &mut events);
                let event = match inner.state.kind() {
                    after if after != before => Some(TreeEvent::Moved as fn(Arc<Self>) -> TreeEvent),
                    // A machine that stands still sends nothing.
                    _ if origin.machine && inner.state.source_locked() && !inner.state.is_save() => {
                        Some(TreeEvent::Resumed as _)
                    }
                    _ => None,
                };
                drop(inner);
                if let Some((event, instance)) = event.zip(topology.get(&self.handle())) {
                    events.push(event(instance.clone()));
                }
                result.unwrap_or_else(error_response)
            }
            Err(code) => error_response(code),
        };
        for event in events {
            tree.tell(&event);
        }
        response
    }

    /// Takes the lock for destroying what is there, be it readable or not.
    ///
    /// # Errors
    /// `TPM_RC_HANDLE` when the instance is deleted.
    pub(super) fn enter_to_delete(&self) -> Result<Entered<'_>, ResponseCode> {
        let inner = self.inner.lock().unwrap_or_else(|poisoned| {
            self.inner.clear_poison();
            poisoned.into_inner()
        });
        if inner.deleted { Err(ResponseCode::HANDLE) } else { Ok(Entered::new(inner, &self.shown)) }
    }

    /// The part of a command that runs under the lock. An error is answered with a bare code.
    fn run_locked(
        &self,
        tree: &Tree,
        topology: &Topology,
        inner: &mut Inner,
        command: &[u8],
        origin: &Origin,
        events: &mut Vec<TreeEvent>,
    ) -> Result<Vec<u8>, ResponseCode> {
        if origin.machine {
            self.wake_saved(tree, inner)?;
        }
        if !inner.state.executes() {
            return Err(ResponseCode::RETRY);
        }
        if inner.reset_owed {
            self.reset_tpm(tree, inner)?;
        }
        if let (Some(slot), Some(last)) = (origin.slot, &inner.last)
            && let Some(response) = last.response_to(slot, command)
        {
            about!(info, self, "instance {}: command in flight answered from its record", self.name());
            tree.metrics.replayed.count();
            return Ok(response.to_vec());
        }
        let long = command.len() > MAX_COMMAND_SIZE;
        if long && !command_code(command).is_some_and(cc::is_instance_command) {
            return Err(ResponseCode::COMMAND_SIZE);
        }
        let limits = self.limits(tree);
        if origin.machine {
            self.admit(tree, &limits, inner)?;
        }
        self.settle_arrival(tree, inner)?;
        self.forget_old_command(tree, inner);
        let Some(tpm) = &mut inner.tpm else { return Err(ResponseCode::FAILURE) };

        let manager = self
            .attributes()
            .privileged()
            .then(|| Transaction::new(tree, topology, self, origin.limit, command));
        let in_flight = origin.slot.map(|slot| (slot, command));
        self.canceled.store(false, Ordering::Release);
        let mut env = CommandEnvironment::new(tree, self.id(), in_flight, manager)
            .limited(limits.engine)
            .cancelable(&self.canceled);
        let executed = catch_unwind(AssertUnwindSafe(|| tpm.execute(&mut env, origin.locality, command)));
        let response = match executed {
            Ok(response) => env.finish(response),
            Err(_) => {
                // The panic hook has written the message. Other tenants go on; this one goes on from its last durable state.
                about!(error, self, "instance {}: a command ended in a panic", self.name());
                env.abandon();
                inner.loaded = false;
                return Err(ResponseCode::FAILURE);
            }
        };
        if env.in_doubt {
            inner.loaded = false;
        }
        if let Some(last) = env.last.take() {
            inner.last = Some(last);
        }
        events.append(&mut env.events);
        Ok(response)
    }

    /// The root is the operator's, who has set the limits.
    fn limits(&self, tree: &Tree) -> InstanceLimits {
        let limits = tree.instance_limits.get().copied().filter(|_| self.parent.is_some());
        limits.unwrap_or_default()
    }

    /// Counts a command of the machine.
    fn admit(&self, tree: &Tree, limits: &InstanceLimits, inner: &mut Inner) -> Result<(), ResponseCode> {
        let Some(rate) = limits.rate else { return Ok(()) };
        match inner.allowance.take(rate, tree.clock.now_ms()) {
            Admission::Granted => return Ok(()),
            Admission::Refused { is_news: true } => about!(
                warn,
                self,
                "instance {}: more than {} commands a second; what is too much is answered TPM_RC_RETRY",
                self.name(),
                rate.per_second
            ),
            Admission::Refused { is_news: false } => {}
        }
        tree.metrics.rate_limited.count();
        Err(ResponseCode::RETRY)
    }

    /// `_TPM_Init`. Where it cannot be made durable it is still owed: software that boots after a reset must not find the PCRs of
    /// what ran before.
    pub(super) fn reset_tpm(&self, tree: &Tree, inner: &mut Inner) -> Result<(), ResponseCode> {
        inner.reset_owed = true;
        self.settle_arrival(tree, inner)?;
        self.forget_command(tree, inner);
        if inner.last.is_some() {
            return Err(ResponseCode::NV_UNAVAILABLE);
        }
        let Some(tpm) = &mut inner.tpm else { return Err(ResponseCode::FAILURE) };
        let mut env = CommandEnvironment::new(tree, self.id(), None, None);
        let done = tpm.init(&mut env);
        if env.in_doubt {
            inner.loaded = false;
        }
        done.map_err(|_| ResponseCode::NV_UNAVAILABLE)?;
        if inner.reset_recorded {
            let mut ops = Ops::new(self.id());
            ops.delete(name::RESET);
            self.commit(tree, inner, ops)?;
            inner.reset_recorded = false;
        }
        inner.reset_owed = false;
        Ok(())
    }

    /// The machine of a source-locked instance was reset: should the instance live again, its PCRs must not be those of the boot
    /// before.
    pub(super) fn owe_reset(&self, tree: &Tree, inner: &mut Inner) {
        if !inner.reset_owed {
            inner.reset_owed = true;
            let mut ops = Ops::new(self.id());
            ops.put(name::RESET, Zeroizing::new(vec![1]));
            inner.reset_recorded |= self.commit(tree, inner, ops).is_ok();
        }
    }

    /// Commits operations outside of a command.
    pub(super) fn commit(&self, tree: &Tree, inner: &mut Inner, ops: Ops) -> Result<(), ResponseCode> {
        tree.persistence.commit(Batch::new(ops.list)).map_err(|error| {
            about!(error, self, "instance {} could not be written: {}", self.name(), sentence(&error));
            inner.loaded &= !error.outcome_is_unknown();
            ResponseCode::NV_UNAVAILABLE
        })
    }

    fn forget_old_command(&self, tree: &Tree, inner: &mut Inner) {
        if inner.last.as_mut().is_some_and(LastCommand::grow_old) {
            self.forget_command(tree, inner);
        }
    }

    pub(super) fn forget_command(&self, tree: &Tree, inner: &mut Inner) {
        if inner.last.is_some() {
            let mut ops = Ops::new(self.id());
            ops.delete(name::LAST_COMMAND);
            if self.commit(tree, inner, ops).is_ok() {
                inner.last = None;
            }
        }
    }
}

/// A TPM from its records, with its clock going on from where it stopped.
pub(super) fn restore(records: crate::migration::content::Records) -> Result<Tpm, String> {
    let records: Vec<(_, Zeroizing<Vec<u8>>)> = records.into_iter().collect();
    Tpm::from_records(&records)
        .map_err(|error| format!("its records do not make a TPM: {}", sentence(&error)))
}

impl Instance {
    /// The lock flags of a device migration, where one is armed.
    #[must_use]
    pub fn armed(&self) -> Option<LockFlags> {
        let tree = self.tree.upgrade()?;
        match &self.enter(&tree).ok()?.state {
            State::Live(live) => live.armed.as_ref().map(|armed| armed.flags),
            _ => None,
        }
    }
}
