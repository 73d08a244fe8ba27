//! `TPM2_ReadOnlyControl` (Part 3, 24.9), and what the read-only mode refuses.

use crate::command::{Context, Output, parameters};
use crate::state::State;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{TpmCc, TpmaNv};

/// Begins or ends the read-only mode, which ends with the boot in any case.
///
/// # Errors
/// Those of the parameters.
pub fn read_only_control(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (on,): (bool,) = parameters(r)?;
    if cx.state.volatile.state_clear.read_only != on {
        cx.state.volatile_mut().state_clear.read_only = on;
    }
    Ok(Output::none())
}

/// Commands that are refused in read-only mode whatever they ask for: those that make something lasting, or change it. Those that may write to
/// some NV indices ask [`State::check_read_only`].
#[must_use]
pub const fn is_refused_in_read_only_mode(code: TpmCc) -> bool {
    matches!(
        code,
        TpmCc::NV_UNDEFINE_SPACE_SPECIAL
            | TpmCc::EVICT_CONTROL
            | TpmCc::HIERARCHY_CONTROL
            | TpmCc::NV_UNDEFINE_SPACE
            | TpmCc::CHANGE_EPS
            | TpmCc::CHANGE_PPS
            | TpmCc::CLEAR
            | TpmCc::CLEAR_CONTROL
            | TpmCc::CLOCK_SET
            | TpmCc::HIERARCHY_CHANGE_AUTH
            | TpmCc::NV_DEFINE_SPACE
            | TpmCc::NV_DEFINE_SPACE2
            | TpmCc::PCR_ALLOCATE
            | TpmCc::PCR_SET_AUTH_POLICY
            | TpmCc::PCR_SET_AUTH_VALUE
            | TpmCc::PP_COMMANDS
            | TpmCc::SET_PRIMARY_POLICY
            | TpmCc::CLOCK_RATE_ADJUST
            | TpmCc::CREATE_PRIMARY
            | TpmCc::CREATE
            | TpmCc::CREATE_LOADED
            | TpmCc::OBJECT_CHANGE_AUTH
            | TpmCc::NV_GLOBAL_WRITE_LOCK
            | TpmCc::NV_INCREMENT
            | TpmCc::NV_CHANGE_AUTH
            | TpmCc::DICTIONARY_ATTACK_PARAMETERS
            | TpmCc::SET_ALGORITHM_SET
            | TpmCc::SET_COMMAND_CODE_AUDIT_STATUS
    )
}

impl State {
    /// Whether an index with these attributes may be written to or locked now: in read-only mode only one whose data does not last.
    ///
    /// # Errors
    /// `TPM_RC_READ_ONLY` when not.
    pub fn check_read_only(&self, attributes: TpmaNv) -> Result<(), ResponseCode> {
        let lasting = !attributes.has(TpmaNv::ORDERLY | TpmaNv::CLEAR_ST_CLEAR);
        if self.volatile.state_clear.read_only && lasting { Err(ResponseCode::READ_ONLY) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::is_refused_in_read_only_mode;
    use crate::command::nv::testing::{INDEX, OPEN, define, public, write};
    use crate::command::table::COMMANDS;
    use crate::testing::{TestTpm, command_bytes};
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{Tpm2bEvent, TpmCc, TpmHandle, TpmSu, TpmaNv, TpmaStartupClear};

    fn control(tpm: &mut TestTpm, by: TpmHandle, on: u8) -> Result<(), ResponseCode> {
        tpm.run_with(TpmCc::READ_ONLY_CONTROL, &[by], &[b""], &on).map(drop)
    }

    fn startup_clear(tpm: &mut TestTpm) -> TpmaStartupClear {
        let input =
            (vtpm_protocol::tpm::TpmCap::TPM_PROPERTIES, vtpm_protocol::tpm::TpmPt::STARTUP_CLEAR, 1u32);
        let out = tpm.run(TpmCc::GET_CAPABILITY, &[], &input).unwrap();
        TpmaStartupClear(u32::from_be_bytes(out[out.len() - 4..].try_into().unwrap()))
    }

    #[test]
    fn every_command_that_lasts_is_refused_before_anything_is_looked_at() {
        let mut tpm = TestTpm::started();
        control(&mut tpm, TpmHandle::PLATFORM, 1).unwrap();
        assert!(startup_clear(&mut tpm).has(TpmaStartupClear::READ_ONLY));
        let mut refused = 0;
        for command in COMMANDS.iter().filter(|c| c.code.0 < 0x1_0000) {
            let rc = tpm.rc(&command_bytes(command.code, &[], &[], &[0xff; 3]));
            assert_eq!(
                rc == ResponseCode::READ_ONLY,
                is_refused_in_read_only_mode(command.code),
                "{:?}",
                command.code
            );
            refused += u32::from(rc == ResponseCode::READ_ONLY);
        }
        assert!(refused > 10, "{refused}");
        // Measurements go on.
        let event = Tpm2bEvent::new(*b"event").unwrap();
        tpm.run_with(TpmCc::PCR_EVENT, &[TpmHandle(0)], &[b""], &event).unwrap();
        control(&mut tpm, TpmHandle::PLATFORM, 0).unwrap();
        assert!(!startup_clear(&mut tpm).has(TpmaStartupClear::READ_ONLY));
        tpm.run_with(TpmCc::CLEAR, &[TpmHandle::LOCKOUT], &[b""], &()).unwrap();
    }

    #[test]
    fn only_indices_whose_data_does_not_last_are_written() {
        let mut tpm = TestTpm::started();
        let passing = TpmHandle(INDEX.0 + 1);
        define(&mut tpm, TpmHandle::OWNER, b"", public(INDEX, OPEN, 8)).unwrap();
        let attributes = OPEN | TpmaNv::ORDERLY | TpmaNv::CLEAR_ST_CLEAR;
        define(&mut tpm, TpmHandle::OWNER, b"", public(passing, attributes, 8)).unwrap();
        write(&mut tpm, TpmHandle::OWNER, b"", b"12345678", 0).unwrap();
        control(&mut tpm, TpmHandle::PLATFORM, 1).unwrap();
        assert_eq!(write(&mut tpm, TpmHandle::OWNER, b"", b"12345678", 0), Err(ResponseCode::READ_ONLY));
        let data = (vtpm_protocol::tpm::Tpm2bMaxNvBuffer::new(*b"87654321").unwrap(), 0u16);
        tpm.run_with(TpmCc::NV_WRITE, &[TpmHandle::OWNER, passing], &[b""], &data).unwrap();
        tpm.run_with(TpmCc::NV_READ, &[TpmHandle::OWNER, INDEX], &[b""], &(8u16, 0u16)).unwrap();
    }

    #[test]
    fn it_ends_with_the_boot_but_not_with_a_sleep() {
        let mut tpm = TestTpm::started();
        control(&mut tpm, TpmHandle::PLATFORM, 1).unwrap();
        for (kind, still) in [(TpmSu::STATE, true), (TpmSu::CLEAR, false)] {
            tpm.run(TpmCc::SHUTDOWN, &[], &TpmSu::STATE).unwrap();
            tpm.init();
            tpm.run(TpmCc::STARTUP, &[], &kind).unwrap();
            assert_eq!(startup_clear(&mut tpm).has(TpmaStartupClear::READ_ONLY), still);
        }
    }

    #[test]
    fn takes_yes_and_no_from_the_platform() {
        let mut tpm = TestTpm::started();
        assert_eq!(control(&mut tpm, TpmHandle::PLATFORM, 2), Err(ResponseCode::VALUE.parameter(1)));
        assert_eq!(control(&mut tpm, TpmHandle::OWNER, 1), Err(ResponseCode::VALUE.handle(1)));
    }
}
