//! The one table of commands. Dispatch, `TPM2_GetCapability` and audit defaults are read from it.

use super::{Command, Flags, HandleKind as K, HandleSpec, Role};
use super::{random, startup};
use vtpm_protocol::tpm::{TpmCc, TpmaCc};

const fn h(kind: K, role: Role) -> HandleSpec {
    HandleSpec { kind, role }
}

/// Most rows: no check between the authorizations.
const fn row(code: TpmCc, handles: &'static [HandleSpec], flags: Flags, run: super::Handler) -> Command {
    Command { code, handles, flags, run, middle: None }
}

const N: Flags = Flags::NONE;

/// All commands, in ascending order of their codes, vendor commands last.
pub static COMMANDS: &[Command] = &[
    row(TpmCc::STARTUP, &[], Flags { nv: true, sessions: false, ..N }, startup::startup),
    row(TpmCc::SHUTDOWN, &[], Flags { nv: true, ..N }, startup::shutdown),
    row(TpmCc::STIR_RANDOM, &[], Flags { nv: true, decrypt: true, ..N }, random::stir_random),
    row(TpmCc::GET_RANDOM, &[], Flags { encrypt: true, ..N }, random::get_random),
];

/// The row of a code.
#[must_use]
pub fn find(code: TpmCc) -> Option<&'static Command> {
    COMMANDS.binary_search_by_key(&code, |c| c.code).ok().and_then(|i| COMMANDS.get(i))
}

/// Whether a code has the V bit.
#[must_use]
pub const fn is_vendor(code: TpmCc) -> bool {
    code.0 & TpmaCc::V.0 != 0
}

/// `TPMA_CC` of a row (Part 2, 8.9).
#[must_use]
pub fn attributes(command: &Command) -> TpmaCc {
    let handles = u32::try_from(command.handles.len()).unwrap_or_default() << 25;
    let mut bits = TpmaCc((command.code.0 & 0xffff) | handles);
    for (on, bit) in [
        (command.flags.nv, TpmaCc::NV),
        (command.flags.extensive, TpmaCc::EXTENSIVE),
        (command.flags.flushed, TpmaCc::FLUSHED),
        (command.flags.r_handle, TpmaCc::R_HANDLE),
        (is_vendor(command.code), TpmaCc::V),
    ] {
        bits = bits.with(bit, on);
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_ascend_so_that_binary_search_finds_them() {
        assert!(COMMANDS.is_sorted_by(|a, b| a.code < b.code));
    }

    #[test]
    fn authorized_handles_come_first() {
        for c in COMMANDS {
            let roles: Vec<bool> = c.handles.iter().map(|h| h.role != Role::None).collect();
            assert!(roles.is_sorted_by(|a, b| a >= b), "{:?}", c.code);
        }
    }
}
