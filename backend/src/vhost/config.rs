//! The configuration space. It is between QEMU and the back end; the QEMU device shows none of it to the guest.
//!
//! | offset | size | name | access |
//! | --- | --- | --- | --- |
//! | 0 | le32 | `version`: 1 | read |
//! | 4 | le32 | `max_command_size` | read |
//! | 8 | le32 | `machine_reset`: any write is `_TPM_Init`; reads as 0 | write |
//! | 12 | le32 | `run_state`: 1 the machine runs, 0 it is stopped; reads as what was written last | read, write |
//!
//! Anything else that is written is ignored and logged: an error here would make QEMU drop the device.

/// The length of the configuration space in bytes.
pub const CONFIG_SIZE: usize = 16;
/// What `version` says.
pub const CONFIG_VERSION: u32 = 1;
/// The offset of the doorbell that a machine reset rings.
pub const CONFIG_MACHINE_RESET: u32 = 8;
/// The offset of the doorbell for run and stop.
pub const CONFIG_RUN_STATE: u32 = 12;

use crate::device::MAX_COMMAND_SIZE;

/// What a write to the configuration space means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doorbell {
    MachineReset,
    RunState(bool),
    /// A write to nothing that can be written.
    Nothing,
}

/// Which doorbell `bytes` at `offset` ring.
pub(crate) fn doorbell(offset: u32, bytes: &[u8]) -> Doorbell {
    let Ok(value) = <[u8; 4]>::try_from(bytes) else {
        return Doorbell::Nothing;
    };
    match (offset, u32::from_le_bytes(value)) {
        (CONFIG_MACHINE_RESET, _) => Doorbell::MachineReset,
        (CONFIG_RUN_STATE, run @ 0..=1) => Doorbell::RunState(run == 1),
        _ => Doorbell::Nothing,
    }
}

/// `size` bytes of the configuration space from `offset` on; `None` when they reach past its end.
pub(crate) fn read(running: bool, offset: u32, size: u32) -> Option<Vec<u8>> {
    let mut space = Vec::with_capacity(CONFIG_SIZE);
    space.extend_from_slice(&CONFIG_VERSION.to_le_bytes());
    let max_command_size = u32::try_from(MAX_COMMAND_SIZE).unwrap_or(u32::MAX);
    space.extend_from_slice(&max_command_size.to_le_bytes());
    space.extend_from_slice(&0u32.to_le_bytes());
    space.extend_from_slice(&u32::from(running).to_le_bytes());

    let start = usize::try_from(offset).ok()?;
    let end = start.checked_add(usize::try_from(size).ok()?)?;
    space.get(start..end).map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_version_and_command_size_little_endian() {
        let space = read(false, 0, 16).unwrap();
        assert_eq!(space, [1, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(read(true, 12, 4).unwrap(), [1, 0, 0, 0]);
    }

    #[test]
    fn reads_past_the_end_are_refused() {
        assert_eq!(read(true, 12, 5), None);
        assert_eq!(read(true, 17, 0), None);
        assert_eq!(read(true, u32::MAX, u32::MAX), None);
    }

    #[test]
    fn only_whole_words_ring_doorbells() {
        assert_eq!(doorbell(8, &[0; 4]), Doorbell::MachineReset);
        assert_eq!(doorbell(8, &[9; 4]), Doorbell::MachineReset);
        assert_eq!(doorbell(12, &[1, 0, 0, 0]), Doorbell::RunState(true));
        assert_eq!(doorbell(12, &[0, 0, 0, 0]), Doorbell::RunState(false));
        for (offset, bytes) in [
            (12, &[2, 0, 0, 0][..]),
            (0, &[1, 0, 0, 0]),
            (4, &[0; 4]),
            (8, &[0; 3]),
            (8, &[0; 8]),
            (9, &[0; 4]),
            (16, &[0; 4]),
        ] {
            assert_eq!(doorbell(offset, bytes), Doorbell::Nothing, "{offset} {bytes:?}");
        }
    }
}
