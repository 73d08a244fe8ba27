//! What a front door knows of the TPM behind it.

use std::io::{Read, Write};
use std::time::Duration;

use vtpm_protocol::control::InfoFlags;

/// The longest command that a front door passes on and the longest response that a device returns, in bytes.
pub use vtpm_protocol::tpm::{MAX_COMMAND_SIZE, MAX_RESPONSE_SIZE};

/// Why a device could not do what its front door asked for; the sentence is for the operator's log.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The state may not leave or enter now: nothing was prepared, or the instance is in another state.
    #[error("{0}")]
    Refused(String),
    /// The stream is damaged, truncated, foreign, or replayed.
    #[error("{0}")]
    BadStream(String),
    /// The pipe to QEMU failed.
    #[error("the migration stream to or from QEMU broke off")]
    Io(#[source] std::io::Error),
    /// Something under the device failed, the store for one.
    #[error("{0}")]
    Internal(String),
}

/// One TPM instance as a front door sees it. All calls may come from any thread; the device serialises them.
pub trait TpmDevice: Send + Sync + 'static {
    /// Executes one command at `locality` and returns its response: always one, never an empty one, at most
    /// [`MAX_RESPONSE_SIZE`] bytes. What the command changed is durable when this returns.
    ///
    /// `slot` is the position in the avail ring (the free-running 16-bit index) from which the command came. A device keeps the
    /// last command that changed anything with its slot and response, durably, until [`Self::completed`]: offered
    /// again with the same slot and bytes, it is answered from there and not executed twice. A command from another
    /// slot means that the guest went on and forgets it, as do [`Self::queue_stopped`] and [`Self::machine_reset`].
    /// `None` is for channels that never offer a command again; it leaves alone what is kept.
    ///
    /// The command has at least the ten bytes of a header and at most [`MAX_COMMAND_SIZE`]; nothing else is known of
    /// it. A panic is answered with `TPM_RC_FAILURE`, as is a response that is empty or too long.
    fn execute(&self, locality: u8, command: &[u8], slot: Option<u16>) -> Vec<u8>;

    /// The used index has moved past `slot`: the guest has the response. Called for every slot, also for those whose
    /// command never reached the device.
    fn completed(&self, slot: u16);

    /// The queue was stopped in good order with nothing in flight; slots start anew.
    fn queue_stopped(&self);

    /// The machine was reset: `_TPM_Init`. Idempotent.
    fn machine_reset(&self);

    /// The queue was started: the guest can offer commands, so that its machine runs or is about to. Back ends that are told
    /// [`Self::run_state`] may never call it.
    fn queue_started(&self) {}

    /// A client has come in at one of the doors. What it wants follows.
    fn client_arrived(&self) {}

    /// A client has left, with all that it was about to do.
    fn client_left(&self) {}

    /// The virtual machine runs (`true`) or is stopped.
    fn run_state(&self, running: bool);

    /// QEMU switched dirty logging on (`true`): a live migration has begun; or off: it is over or was cancelled.
    fn migration_started(&self, logging: bool);

    /// Locks the instance and writes its migration stream. After an error the instance is as the durable state says,
    /// and QEMU must be told that the save failed.
    ///
    /// # Errors
    /// [`DeviceError`]; `Refused` when no ticket was armed.
    fn save(&self, out: &mut dyn Write) -> Result<(), DeviceError>;

    /// Reads a migration stream up to its end and recreates the instance from it.
    ///
    /// # Errors
    /// [`DeviceError`]; the instance is then as empty as before.
    fn load(&self, input: &mut dyn Read) -> Result<(), DeviceError>;
}

/// What the [control channel](crate::control) tells and asks of an instance besides: the machine is switched on and off there, and the
/// hardware of a dynamic launch speaks.
pub trait ControlledTpm: TpmDevice {
    /// The machine was switched on or reset: `_TPM_Init`. Idempotent, as [`TpmDevice::machine_reset`]. An instance that is locked for a
    /// migration owes its reset.
    ///
    /// # Errors
    /// `Refused` when there is no TPM here that could be switched on: the instance waits for a migration, or gave one up.
    fn power_on(&self) -> Result<(), DeviceError>;

    /// As [`TpmDevice::save`], for a channel that does not tell when a migration begins ([`TpmDevice::migration_started`]), nor when it is
    /// over: what is done then is done now.
    ///
    /// # Errors
    /// As [`TpmDevice::save`].
    fn save_unannounced(&self, out: &mut dyn Write) -> Result<(), DeviceError>;

    /// All that [`Self::save_unannounced`] wrote has been read, and nothing more of the state will be asked for: whoever shares its store
    /// with another process may let go of it.
    fn has_left(&self) {}

    /// `_TPM_Hash_Start`.
    ///
    /// # Errors
    /// `Refused` when the instance executes no commands, `Internal` when the store cannot be written.
    fn hash_start(&self) -> Result<(), DeviceError>;

    /// `_TPM_Hash_Data`.
    ///
    /// # Errors
    /// `Refused` when the instance executes no commands.
    fn hash_data(&self, data: &[u8]) -> Result<(), DeviceError>;

    /// `_TPM_Hash_End`.
    ///
    /// # Errors
    /// As [`Self::hash_start`].
    fn hash_end(&self) -> Result<(), DeviceError>;

    /// The bit `tpmEstablishment`; not set while the instance executes no commands.
    fn is_established(&self) -> bool;

    /// Resets [`Self::is_established`] for locality 3 or 4; `false` for another, which may not.
    ///
    /// # Errors
    /// As [`Self::hash_start`].
    fn reset_established(&self, locality: u8) -> Result<bool, DeviceError>;

    /// Ends the command that is being executed with `TPM_RC_CANCELED`, if it is one that can be ended. Never waits.
    fn cancel(&self);

    /// The machine runs on after the state was saved, as [`TpmDevice::run_state`] tells it. Whether commands are executed: where a receipt
    /// is being asked for, it is waited for that long.
    fn machine_resumed(&self, patience: Duration) -> bool;

    /// What TPM this is, as JSON in the form of libtpms: an object with a member for each flag that is known.
    fn info(&self, flags: InfoFlags) -> String;
}
