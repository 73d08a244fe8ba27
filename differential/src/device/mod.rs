//! The TPMs that are compared: command bytes in, response bytes out, and what the platform does to them.

mod ours;
mod swtpm;

pub use ours::Ours;
pub use swtpm::Swtpm;

/// The device is gone: it ended, hung, or panicked.
#[derive(Debug)]
pub struct Died(pub String);

/// A TPM.
pub trait Device {
    /// One command.
    ///
    /// # Errors
    /// [`Died`].
    fn execute(&mut self, command: &[u8]) -> Result<Vec<u8>, Died>;

    /// `_TPM_Init`.
    ///
    /// # Errors
    /// [`Died`].
    fn power_cycle(&mut self) -> Result<(), Died>;

    /// The locality of the commands that follow.
    ///
    /// # Errors
    /// [`Died`].
    fn set_locality(&mut self, locality: u8) -> Result<(), Died>;

    /// `_TPM_Hash_Start`, `_TPM_Hash_Data` and `_TPM_Hash_End`.
    ///
    /// # Errors
    /// [`Died`].
    fn measure(&mut self, data: &[u8]) -> Result<(), Died>;

    /// Runs a command without effect, where the device can do that: only for it not to crash.
    ///
    /// # Errors
    /// [`Died`].
    fn probe(&mut self, _command: &[u8]) -> Result<(), Died> {
        Ok(())
    }

    /// How often it was dropped and went on from what it had saved.
    fn reloaded(&self) -> u64 {
        0
    }
}
