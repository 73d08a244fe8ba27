//! What an instance gives its engine for the time of one command.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use vtpm_engine::env::{Change, CommitFailed, Environment, Limits};
use vtpm_engine::instances::InstanceManager;
use vtpm_protocol::rc::ResponseCode;

use super::manager::Transaction;
use super::persistence::{Ops, name};
use super::priority::GivesWay;
use super::replay::LastCommand;
use super::{Tree, TreeEvent};
use crate::logging::about;
use crate::sentence;
use crate::store::{Batch, Durability, InstanceId, StoreError};

/// Milliseconds that never go back while the process lives, and go on over restarts as well as the host's clock does.
pub struct Clock {
    base: u64,
    start: Instant,
}

impl Clock {
    /// Starts at the host's time of day.
    #[must_use]
    pub fn start() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { base: u64::try_from(since.as_millis()).unwrap_or_default(), start: Instant::now() }
    }

    /// Now.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.base.saturating_add(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}

/// Random bytes of the system.
///
/// # Panics
/// When the system has none, which Linux does not do once it is up. The panic ends the command with `TPM_RC_FAILURE`; to go on without
/// randomness would be worse.
#[expect(clippy::expect_used, reason = "see the section on panics; no input leads here")]
pub(super) fn fill_random(out: &mut [u8]) {
    getrandom::fill(out).expect("the system has random bytes");
}

/// The code of a response; `TPM_RC_FAILURE` for bytes that are none.
pub(super) fn code_of(response: &[u8]) -> ResponseCode {
    match response.get(6..10).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes) {
        Some(code) => ResponseCode::from_value(code),
        None => ResponseCode::FAILURE,
    }
}

/// What belongs to this boot of the machine (PCRs, sessions, transient objects, the command in flight) need not outlive a loss of power: the
/// machine does not either, and the next one starts with `_TPM_Init` (`boot.rs`).
fn durability_of(changes: &[Change]) -> Durability {
    if changes.iter().all(|change| change.key.is_volatile()) {
        Durability::Process
    } else {
        Durability::Medium
    }
}

/// Randomness and time only: for a TPM that is being made, of which nothing is durable yet.
pub(super) struct Workshop<'a>(pub(super) &'a Clock);

impl Environment for Workshop<'_> {
    fn fill_random(&mut self, out: &mut [u8]) {
        fill_random(out);
    }

    fn now_ms(&mut self) -> u64 {
        self.0.now_ms()
    }

    /// Whoever makes the TPM stores all of it when it is ready.
    fn commit(&mut self, _changes: Vec<Change>, _response: &[u8]) -> Result<(), CommitFailed> {
        Ok(())
    }
}

/// The environment of one command of one instance.
pub(super) struct CommandEnvironment<'a> {
    tree: &'a Tree,
    instance: InstanceId,
    /// The command and its place in the queue, where it came from one.
    in_flight: Option<(u16, &'a [u8])>,
    manager: Option<Transaction<'a>>,
    /// How much the TPM may keep.
    limits: Limits,
    /// Somebody wants the command to end.
    canceled: Option<&'a AtomicBool>,
    /// What became durable as the last command.
    pub(super) last: Option<LastCommand>,
    /// While the command computes for long.
    gives_way: Option<GivesWay>,
    /// The store does not know what came of a commit.
    pub(super) in_doubt: bool,
    /// What happened to the tree.
    pub(super) events: Vec<TreeEvent>,
}

impl<'a> CommandEnvironment<'a> {
    pub(super) fn new(
        tree: &'a Tree,
        instance: InstanceId,
        in_flight: Option<(u16, &'a [u8])>,
        manager: Option<Transaction<'a>>,
    ) -> Self {
        Self {
            tree,
            instance,
            in_flight,
            manager,
            limits: Limits::MOST,
            canceled: None,
            last: None,
            gives_way: None,
            in_doubt: false,
            events: Vec::new(),
        }
    }

    /// For a TPM that may keep no more than this.
    pub(super) const fn limited(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// With a flag that calls the command off.
    pub(super) const fn cancelable(mut self, flag: &'a AtomicBool) -> Self {
        self.canceled = Some(flag);
        self
    }

    fn tell_of(&self, error: &StoreError) {
        let (id, error) = (self.instance, sentence(error));
        match self.tree.topology().values().find(|instance| instance.id() == id) {
            Some(instance) => {
                about!(error, instance, "instance {} could not be written: {error}", instance.name());
            }
            None => log::error!("{id} could not be written: {error}"),
        }
    }

    /// The command is over. An instance command that changed nothing in the processing instance is committed only now.
    pub(super) fn finish(&mut self, response: Vec<u8>) -> Vec<u8> {
        let waiting = self.manager.as_ref().is_some_and(Transaction::is_pending);
        if !waiting || code_of(&response) != ResponseCode::SUCCESS {
            return response;
        }
        match self.commit(Vec::new(), &response) {
            Ok(()) => response,
            Err(CommitFailed) => super::instance::error_response(ResponseCode::NV_UNAVAILABLE),
        }
    }

    /// The engine panicked: what it managed is to be read anew.
    pub(super) fn abandon(&mut self) {
        if let Some(manager) = &mut self.manager {
            manager.distrust();
        }
    }

    fn try_commit(&mut self, changes: Vec<Change>, response: &[u8]) -> Result<(), StoreError> {
        let mut durability = durability_of(&changes);
        let mut ops = Ops::new(self.instance);
        for Change { key, value } in changes {
            let key = name::live(key)?;
            match value {
                Some(value) => ops.put(key, value),
                None => ops.delete(key),
            }
        }
        let last = self.in_flight.map(|(slot, command)| LastCommand::new(slot, command, response));
        if let Some(last) = &last {
            ops.put(name::LAST_COMMAND, last.to_record());
        }
        // A command that failed commits what it must (a failed authorization counts), but manages nothing.
        let manager = self.manager.as_mut().filter(|_| code_of(response) == ResponseCode::SUCCESS);
        let mut list = ops.list;
        if let Some(manager) = manager {
            let managed = manager.take_ops(response.len());
            if !managed.is_empty() {
                durability = Durability::Medium;
            }
            list.extend(managed);
            self.tree.persistence.commit(Batch { ops: list, durability })?;
            self.events.extend(manager.apply());
        } else {
            self.tree.persistence.commit(Batch { ops: list, durability })?;
        }
        self.last = last.or(self.last.take());
        Ok(())
    }
}

impl Environment for CommandEnvironment<'_> {
    fn fill_random(&mut self, out: &mut [u8]) {
        fill_random(out);
    }

    fn now_ms(&mut self) -> u64 {
        self.tree.clock.now_ms()
    }

    fn commit(&mut self, changes: Vec<Change>, response: &[u8]) -> Result<(), CommitFailed> {
        self.try_commit(changes, response).map_err(|error| {
            self.tell_of(&error);
            if error.outcome_is_unknown() {
                self.in_doubt = true;
                if self.manager.as_ref().is_some_and(Transaction::moves_topology) {
                    self.tree.in_doubt.store(true, Ordering::Release);
                }
                self.abandon();
            }
            if let Some(manager) = &mut self.manager {
                manager.forget();
            }
            CommitFailed
        })
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn search_begins(&mut self) {
        self.gives_way = GivesWay::begin();
    }

    fn search_ends(&mut self) {
        self.gives_way = None;
    }

    fn is_canceled(&mut self) -> bool {
        self.canceled.is_some_and(|flag| flag.load(Ordering::Acquire))
    }

    fn instances(&mut self) -> Option<&mut dyn InstanceManager> {
        self.manager.as_mut().map(|m| m as &mut dyn InstanceManager)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_that_of_the_host_and_does_not_go_back() {
        let clock = Clock::start();
        let (a, b) = (clock.now_ms(), clock.now_ms());
        assert!(a <= b);
        // 2020-01-01.
        assert!(a > 1_577_836_800_000);
    }

    #[test]
    fn bytes_that_are_no_response_are_no_success() {
        assert_eq!(code_of(&[0; 9]), ResponseCode::FAILURE);
        assert_eq!(code_of(&[0x80, 1, 0, 0, 0, 10, 0, 0, 0, 0]), ResponseCode::SUCCESS);
    }
}
