//! The TPM of the program, whose store can be in the hands of another process for a while.
//!
//! Two hosts that share a directory hand the TPM in it from one process to the other with the machine (`--migration`): the one that is left closes
//! the store when the state has been given out, the one that is arrived at opens it when the state comes. What is given out is a save, which comes
//! back once; so whoever opens the store first has the TPM, and the other one has not.

use std::io::{Read, Write};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use vtpm_backend::device::{ControlledTpm, DeviceError, TpmDevice};
use vtpm_protocol::codec::Encode;
use vtpm_protocol::control::InfoFlags;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::TpmSt;
use zeroize::Zeroizing;

use super::arguments::Migration;
use crate::daemon::{DaemonError, Single};
use crate::sentence;
use crate::store::StoreError;
use crate::swtpm::error::SwtpmError;
use crate::swtpm::state::StatePlace;
use crate::tree::{Instance, describe_tpm};

/// Between two attempts to open a store that another process has, as swtpm has it.
const PAUSE: Duration = Duration::from_millis(10);
/// How long an arriving machine waits for the process that it left, as with swtpm: the file system between the two hosts may be slow.
const PATIENCE: Duration = Duration::from_secs(3);

/// The TPM, with its store open or in other hands.
pub(super) struct SharedTpm {
    state: StatePlace,
    key: Option<Zeroizing<Vec<u8>>>,
    gives_way: bool,
    single: RwLock<Option<Single>>,
}

impl SharedTpm {
    /// The TPM in `state`, which `key` opens. Its store is opened now, and made if there is none, unless the TPM is yet to arrive.
    ///
    /// # Errors
    /// As [`StatePlace::open`]; `NoState` if there is nothing to which a TPM could arrive.
    pub(super) fn open(
        state: StatePlace,
        key: Option<Zeroizing<Vec<u8>>>,
        migration: Migration,
    ) -> Result<Self, SwtpmError> {
        let tpm = Self { state, key, gives_way: migration.release_lock_outgoing, single: RwLock::new(None) };
        if !migration.incoming {
            *tpm.write() = Some(tpm.attempt()?);
        } else if tpm.state.size()?.is_none() {
            // What arrives is in the directory already, and only waits for its machine.
            return Err(SwtpmError::NoState(tpm.state.path().to_owned()));
        }
        Ok(tpm)
    }

    /// Where the state is.
    pub(super) fn state(&self) -> &StatePlace {
        &self.state
    }

    /// Does something with the store, if it is open.
    pub(super) fn if_open<T>(&self, work: impl FnOnce(&Single) -> T) -> Option<T> {
        self.read().as_ref().map(work)
    }

    /// Ends in good order.
    pub(super) fn close(&self) {
        if let Some(single) = self.write().take() {
            single.close();
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Option<Single>> {
        self.single.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Option<Single>> {
        self.single.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn attempt(&self) -> Result<Single, SwtpmError> {
        self.state.open(self.key.as_ref().map(|key| key.as_slice()))
    }

    /// Opens the store if it is not open, and waits `patience` for another process that has it.
    fn reopen(&self, patience: Duration) -> Result<(), DeviceError> {
        let begin = Instant::now();
        let mut single = self.write();
        while single.is_none() {
            match self.attempt() {
                Ok(opened) => {
                    log::info!(
                        "the state in {} is in the hands of this process",
                        self.state.path().display()
                    );
                    *single = Some(opened);
                }
                Err(SwtpmError::State(DaemonError::Store(StoreError::Locked { .. })))
                    if begin.elapsed() < patience =>
                {
                    std::thread::sleep(PAUSE);
                }
                Err(error) => return Err(DeviceError::Refused(sentence(&error))),
            }
        }
        Ok(())
    }

    /// Asks the instance, for which the store is opened.
    fn ask<T>(&self, patience: Duration, work: impl FnOnce(&Instance) -> T) -> Result<T, DeviceError> {
        loop {
            if let Some(single) = self.read().as_ref() {
                return Ok(work(&single.instance()));
            }
            self.reopen(patience)?;
        }
    }

    /// As [`Self::ask`] for what the machine needs now.
    fn ask_now<T>(&self, work: impl FnOnce(&Instance) -> Result<T, DeviceError>) -> Result<T, DeviceError> {
        self.ask(Duration::ZERO, work)?
    }

    /// Tells the instance, if it is here.
    fn tell(&self, work: impl FnOnce(&Instance)) {
        self.if_open(|single| work(&single.instance()));
    }
}

impl TpmDevice for SharedTpm {
    fn execute(&self, locality: u8, command: &[u8], slot: Option<u16>) -> Vec<u8> {
        self.ask(Duration::ZERO, |tpm| tpm.execute(locality, command, slot)).unwrap_or_else(|error| {
            log::error!("a command is not executed: {error}");
            // As of a TPM that is locked for a migration.
            (TpmSt::NO_SESSIONS, 10u32, ResponseCode::RETRY.value()).to_bytes()
        })
    }

    fn completed(&self, slot: u16) {
        self.tell(|tpm| tpm.completed(slot));
    }

    fn queue_stopped(&self) {
        self.tell(TpmDevice::queue_stopped);
    }

    fn machine_reset(&self) {
        self.tell(TpmDevice::machine_reset);
    }

    fn run_state(&self, running: bool) {
        self.tell(|tpm| tpm.run_state(running));
    }

    fn migration_started(&self, logging: bool) {
        self.tell(|tpm| tpm.migration_started(logging));
    }

    fn save(&self, out: &mut dyn Write) -> Result<(), DeviceError> {
        self.ask_now(|tpm| tpm.save(out))
    }

    fn load(&self, input: &mut dyn Read) -> Result<(), DeviceError> {
        self.ask(PATIENCE, |tpm| tpm.load(input))?
    }
}

impl ControlledTpm for SharedTpm {
    fn power_on(&self) -> Result<(), DeviceError> {
        self.ask(PATIENCE, ControlledTpm::power_on)?
    }

    fn save_unannounced(&self, out: &mut dyn Write) -> Result<(), DeviceError> {
        self.ask_now(|tpm| tpm.save_unannounced(out))
    }

    fn has_left(&self) {
        if self.gives_way {
            self.close();
            log::info!(
                "the state in {} is free for the host that the machine goes to",
                self.state.path().display()
            );
        }
    }

    fn hash_start(&self) -> Result<(), DeviceError> {
        self.ask_now(ControlledTpm::hash_start)
    }

    fn hash_data(&self, data: &[u8]) -> Result<(), DeviceError> {
        self.ask_now(|tpm| tpm.hash_data(data))
    }

    fn hash_end(&self) -> Result<(), DeviceError> {
        self.ask_now(ControlledTpm::hash_end)
    }

    fn is_established(&self) -> bool {
        self.if_open(|single| single.instance().is_established()).unwrap_or(false)
    }

    fn reset_established(&self, locality: u8) -> Result<bool, DeviceError> {
        self.ask_now(|tpm| tpm.reset_established(locality))
    }

    fn cancel(&self) {
        // Who opens or closes the store executes nothing that could be cancelled.
        if let Ok(single) = self.single.try_read()
            && let Some(single) = single.as_ref()
        {
            single.instance().cancel();
        }
    }

    fn machine_resumed(&self, patience: Duration) -> bool {
        self.ask(patience, |tpm| tpm.machine_resumed(patience)).unwrap_or_else(|error| {
            log::error!("the TPM is not here any more: {error}");
            false
        })
    }

    fn info(&self, flags: InfoFlags) -> String {
        describe_tpm(flags)
    }
}
