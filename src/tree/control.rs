//! What the control channel asks of an instance: switching it on, and the signals of a dynamic launch.

use std::io::Write;
use std::time::{Duration, Instant};

use vtpm_backend::device::{ControlledTpm, DeviceError, TpmDevice};
use vtpm_engine::{CommitFailed, Tpm};
use vtpm_protocol::control::InfoFlags;

use super::environment::CommandEnvironment;
use super::info::describe_tpm;
use super::instance::{Inner, Instance};
use super::{Tree, TreeEvent};

/// Between two looks at whether the receipt is there.
const RECEIPT_PAUSE: Duration = Duration::from_millis(5);
/// How long a ticket is looked for when nobody told that a migration began: connections, TLS, and the answers of all peers. The machine
/// stands still meanwhile.
const SEARCH_WAIT: Duration = Duration::from_secs(4);

impl Instance {
    /// Lets the hardware speak to the TPM. It speaks for a machine that runs, so that an imported instance lives here from now on.
    fn signal(
        &self,
        work: impl FnOnce(&mut Tpm, &mut CommandEnvironment<'_>) -> Result<(), CommitFailed>,
    ) -> Result<(), DeviceError> {
        let tree = self.tree_or_gone()?;
        let mut guard = self.enter(&tree).map_err(|rc| DeviceError::Internal(rc.to_string()))?;
        let inner: &mut Inner = &mut guard;
        let before = inner.state.kind();
        let result = self.signal_locked(&tree, inner, work);
        let moved = inner.state.kind() != before;
        drop(guard);
        if moved {
            tree.tell_of(self.handle(), TreeEvent::Moved);
        }
        result
    }

    fn signal_locked(
        &self,
        tree: &Tree,
        inner: &mut Inner,
        work: impl FnOnce(&mut Tpm, &mut CommandEnvironment<'_>) -> Result<(), CommitFailed>,
    ) -> Result<(), DeviceError> {
        let failed = |_| DeviceError::Internal("the store cannot be written".into());
        self.wake_saved(tree, inner).map_err(failed)?;
        if !inner.state.executes() {
            return Err(DeviceError::Refused(format!("instance {} is {}", self.name(), inner.state.kind())));
        }
        if inner.reset_owed {
            self.reset_tpm(tree, inner).map_err(failed)?;
        }
        self.settle_arrival(tree, inner).map_err(failed)?;
        let gone = || DeviceError::Internal("it has no TPM".into());
        let tpm = inner.tpm.as_mut().ok_or_else(gone)?;
        let mut env = CommandEnvironment::new(tree, self.id(), None, None);
        let done = work(tpm, &mut env);
        if env.in_doubt {
            inner.loaded = false;
        }
        done.map_err(|CommitFailed| DeviceError::Internal("the store cannot be written".into()))
    }
}

impl ControlledTpm for Instance {
    fn power_on(&self) -> Result<(), DeviceError> {
        let tree = self.tree_or_gone()?;
        let off = {
            let inner = self.enter(&tree).map_err(|rc| DeviceError::Internal(rc.to_string()))?;
            (!inner.state.executes() && !inner.state.source_locked()).then(|| inner.state.kind())
        };
        match off {
            Some(state) => Err(DeviceError::Refused(format!(
                "instance {} is {state}: there is no TPM that could be switched on",
                self.name()
            ))),
            // One that is saved owes the reset until it has something to do: QEMU switches the TPM on as well before it goes back to a
            // snapshot, and then brings what was saved.
            None => {
                self.machine_reset();
                Ok(())
            }
        }
    }

    fn save_unannounced(&self, out: &mut dyn Write) -> Result<(), DeviceError> {
        self.migration_started(true);
        let saved = self.save_within(out, SEARCH_WAIT);
        self.migration_started(false);
        saved
    }

    fn hash_start(&self) -> Result<(), DeviceError> {
        self.signal(|tpm, env| tpm.hash_start(env))
    }

    fn hash_data(&self, data: &[u8]) -> Result<(), DeviceError> {
        self.signal(|tpm, _| {
            tpm.hash_data(data);
            Ok(())
        })
    }

    fn hash_end(&self) -> Result<(), DeviceError> {
        self.signal(|tpm, env| tpm.hash_end(env))
    }

    fn is_established(&self) -> bool {
        let Ok(tree) = self.tree_or_gone() else { return false };
        self.enter(&tree).is_ok_and(|inner| match &inner.tpm {
            Some(tpm) => tpm.is_established(),
            // Asked before the first command, when it is not decided yet whether the machine goes on or starts anew.
            None => self.saved_tpm(&tree, &inner).is_some_and(|tpm| tpm.is_established()),
        })
    }

    fn reset_established(&self, locality: u8) -> Result<bool, DeviceError> {
        let mut may = false;
        self.signal(|tpm, env| {
            may = tpm.reset_established(env, locality)?;
            Ok(())
        })?;
        Ok(may)
    }

    fn cancel(&self) {
        self.cancel_command();
    }

    fn machine_resumed(&self, patience: Duration) -> bool {
        self.run_state(true);
        // Without a link nobody asks for a receipt.
        let Ok(tree) = self.tree_or_gone() else { return false };
        if tree.ticket_finder.get().is_none() {
            return self.executes();
        }
        drop(tree);
        let begin = Instant::now();
        loop {
            if self.executes() {
                return true;
            }
            if begin.elapsed() >= patience {
                return false;
            }
            std::thread::sleep(RECEIPT_PAUSE);
        }
    }

    fn info(&self, flags: InfoFlags) -> String {
        describe_tpm(flags)
    }
}
