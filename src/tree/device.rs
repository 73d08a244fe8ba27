//! An instance as the front doors know it: commands of its machine, what QEMU tells of that, and the device migration.

use std::io::{Read, Write};

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use vtpm_backend::device::{DeviceError, MAX_COMMAND_SIZE, MAX_RESPONSE_SIZE, TpmDevice};
use vtpm_protocol::rc::ResponseCode;

use super::instance::{Instance, Origin, error_response};
use super::persistence::Stored;
use super::{Tree, TreeEvent};
use crate::logging::about;
use crate::migration::State;
use crate::migration::client::{self, ClientError};
use crate::sentence;

/// How long the device migration waits in `save` for a ticket that is still looked for. The machine stands still meanwhile; but without a
/// ticket the migration fails, and the search has as a rule gone on since the migration began.
const SAVE_WAIT: Duration = Duration::from_secs(1);

/// Where the state goes.
enum Leave {
    /// To the destination of a ticket.
    Depart(Box<client::Departure>),
    /// Into the keeping of whoever saves the machine, to come back here.
    Save,
}

impl Instance {
    /// What `save` sends: with the ticket that was armed, or the one that a lock is engaged with already; to a file that this host reads again,
    /// where that is permitted.
    fn leave(&self, tree: &Tree) -> Result<Leave, DeviceError> {
        let inner = self.enter(tree).map_err(|rc| DeviceError::Internal(rc.to_string()))?;
        let armed = match &inner.state {
            State::Live(live) => live.armed.as_ref(),
            _ => None,
        };
        match &inner.state {
            State::Live(_) | State::Imported(_) => {
                if let Some(armed) = armed {
                    let (ticket, lock) = (armed.ticket.clone(), Some(armed.flags));
                    return Ok(Leave::Depart(Box::new(client::Departure { ticket, lock })));
                }
                let stored = Stored::read(&*tree.persistence, self.id());
                let stored = stored.map_err(|error| DeviceError::Internal(sentence(&error)))?;
                if tree.may_be_saved(stored.saves) {
                    return Ok(Leave::Save);
                }
                Err(DeviceError::Refused(format!(
                    "no migration is prepared for instance {}: it has no ticket of a destination, nor may its machine be saved here",
                    self.name()
                )))
            }
            // A migration that broke off is repeated: the stream to the same destination comes again, bit for bit.
            state if state.source_locked() => match state.ticket() {
                Some(ticket) => {
                    Ok(Leave::Depart(Box::new(client::Departure { ticket: ticket.clone(), lock: None })))
                }
                None => Err(DeviceError::Internal("a lock without a ticket".into())),
            },
            state => Err(DeviceError::Refused(format!("instance {} is {}", self.name(), state.kind()))),
        }
    }

    /// Has the command at hand end early, if it is one that takes long. Without a lock, which that command has.
    pub(super) fn cancel_command(&self) {
        self.canceled.store(true, Ordering::Release);
    }

    /// Waits for a ticket, but no longer than `patience`, locks, and writes the migration stream.
    pub(super) fn save_within(&self, out: &mut dyn Write, patience: Duration) -> Result<(), DeviceError> {
        let tree = self.tree_or_gone()?;
        if let Some(finder) = tree.ticket_finder.get() {
            finder.await_ticket(self, patience);
        }
        let client = tree.local_client();
        match self.leave(&tree)? {
            Leave::Depart(departure) => client.export(self.handle(), &departure, out)?,
            Leave::Save => client.save(self.handle(), out)?,
        }
        Ok(())
    }

    fn tell(&self, event: impl FnOnce(Arc<Self>) -> TreeEvent) {
        if let Some(tree) = self.tree_handle().upgrade() {
            tree.tell_of(self.handle(), event);
        }
    }

    pub(super) fn tree_or_gone(&self) -> Result<Arc<Tree>, DeviceError> {
        self.tree_handle().upgrade().ok_or_else(|| DeviceError::Internal("vtpmd is shutting down".into()))
    }
}

impl From<ClientError> for DeviceError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Io(error) => Self::Io(error),
            ClientError::Stream(_) | ClientError::Foreign(_) => Self::BadStream(sentence(&error)),
            ClientError::Rejected { .. } => Self::BadStream(error.to_string()),
            ClientError::Refused { .. }
            | ClientError::State(_)
            | ClientError::Outdated(_)
            | ClientError::NoStorageKey => Self::Refused(error.to_string()),
            other => Self::Internal(sentence(&other)),
        }
    }
}

impl TpmDevice for Instance {
    fn execute(&self, locality: u8, command: &[u8], slot: Option<u16>) -> Vec<u8> {
        if command.len() > MAX_COMMAND_SIZE {
            return error_response(ResponseCode::COMMAND_SIZE);
        }
        self.run(command, &Origin { locality, slot, machine: true, limit: MAX_RESPONSE_SIZE })
    }

    fn client_arrived(&self) {
        self.clients.fetch_add(1, Ordering::AcqRel);
    }

    fn client_left(&self) {
        self.clients.fetch_sub(1, Ordering::AcqRel);
        if let Some(tree) = self.tree_handle().upgrade() {
            tree.rounds.call();
        }
    }

    fn completed(&self, slot: u16) {
        let Some(tree) = self.tree_handle().upgrade() else { return };
        if let Ok(mut inner) = self.enter(&tree)
            && let Some(last) = &mut inner.last
        {
            last.complete(slot);
        }
    }

    fn queue_stopped(&self) {
        let Some(tree) = self.tree_handle().upgrade() else { return };
        if let Ok(mut inner) = self.enter(&tree) {
            self.forget_command(&tree, &mut inner);
        }
    }

    fn machine_reset(&self) {
        let Some(tree) = self.tree_handle().upgrade() else { return };
        let Ok(mut guard) = self.enter(&tree) else { return };
        let inner = &mut *guard;
        let before = inner.state.kind();
        if inner.state.source_locked() {
            self.owe_reset(&tree, inner);
        } else if inner.state.executes()
            && let Err(code) = self.reset_tpm(&tree, inner)
        {
            about!(
                error,
                self,
                "instance {}: the machine was reset, but its TPM not yet ({code}); it is before its next command",
                self.name()
            );
        }
        let moved = inner.state.kind() != before;
        drop(guard);
        if moved {
            tree.tell_of(self.handle(), TreeEvent::Moved);
        }
    }

    fn run_state(&self, running: bool) {
        if running && self.machine_runs() {
            self.tell(TreeEvent::Resumed);
        }
    }

    fn queue_started(&self) {
        if self.machine_runs() {
            self.tell(TreeEvent::Resumed);
        }
    }

    fn migration_started(&self, logging: bool) {
        about!(
            info,
            self,
            "instance {}: a live migration {}",
            self.name(),
            if logging { "has begun" } else { "is over" }
        );
        self.tell(|instance| TreeEvent::Migrating(instance, logging));
    }

    fn save(&self, out: &mut dyn Write) -> Result<(), DeviceError> {
        self.save_within(out, SAVE_WAIT)
    }

    fn load(&self, input: &mut dyn Read) -> Result<(), DeviceError> {
        let tree = self.tree_or_gone()?;
        tree.local_client().import(self.handle(), input)?;
        Ok(())
    }
}
