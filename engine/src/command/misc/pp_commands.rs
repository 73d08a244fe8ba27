//! `TPM2_PP_Commands` (Part 3, 26.2).

use crate::command::{Context, Output, parameters, table};
use crate::state::MAX_PP_COMMANDS;
use std::collections::BTreeSet;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{TpmCc, Tpml, TpmlCc};

/// Changes which commands need physical presence when the platform authorizes them. This one always does, so that nothing changes where nobody
/// can be present, as in a virtual machine. What cannot need it, or is not there, is passed over.
///
/// # Errors
/// Those of the parameters.
pub fn pp_commands(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (set, clear): (TpmlCc, TpmlCc) = parameters(r)?;
    let mut all: BTreeSet<TpmCc> = cx.state.permanent.pp_commands.0.iter().copied().collect();
    all.extend(set.0.into_iter().filter(|&code| may_need_presence(code) && table::find(code).is_some()));
    all.retain(|code| *code == TpmCc::PP_COMMANDS || !clear.0.contains(code));
    let list: Vec<TpmCc> = all.into_iter().take(MAX_PP_COMMANDS).collect();
    if list != cx.state.permanent.pp_commands.0 {
        cx.state.permanent_mut().pp_commands = Tpml(list);
    }
    Ok(Output::none())
}

/// The commands that the platform can authorize, of which Part 3 says that they may need physical presence.
pub const fn may_need_presence(code: TpmCc) -> bool {
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
            | TpmCc::SET_PRIMARY_POLICY
            | TpmCc::CLOCK_RATE_ADJUST
            | TpmCc::CREATE_PRIMARY
            | TpmCc::CREATE_LOADED
            | TpmCc::NV_GLOBAL_WRITE_LOCK
            | TpmCc::SET_ALGORITHM_SET
            | TpmCc::SET_COMMAND_CODE_AUDIT_STATUS
            | TpmCc::READ_ONLY_CONTROL
    )
}

#[cfg(test)]
mod tests {
    use crate::testing::TestTpm;
    use vtpm_protocol::codec::Encode;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{TpmCap, TpmCc, TpmHandle, TpmSu, Tpml, TpmlCc};

    fn change(tpm: &mut TestTpm, set: &[TpmCc], clear: &[TpmCc]) -> Result<(), ResponseCode> {
        let lists: (TpmlCc, TpmlCc) = (Tpml(set.to_vec()), Tpml(clear.to_vec()));
        tpm.run_with(TpmCc::PP_COMMANDS, &[TpmHandle::PLATFORM], &[b""], &lists).map(drop)
    }

    fn told(tpm: &mut TestTpm) -> Vec<u8> {
        let out = tpm.run(TpmCc::GET_CAPABILITY, &[], &(TpmCap::PP_COMMANDS, 0u32, 100u32)).unwrap();
        out[5..].to_vec()
    }

    #[test]
    fn nobody_is_present_and_nothing_changes() {
        let mut tpm = TestTpm::started();
        assert_eq!(change(&mut tpm, &[TpmCc::CLEAR], &[]), Err(ResponseCode::PP.session(1)));
        assert_eq!(change(&mut tpm, &[], &[TpmCc::PP_COMMANDS]), Err(ResponseCode::PP.session(1)));
        assert_eq!(told(&mut tpm), (1u32, TpmCc::PP_COMMANDS).to_bytes());
    }

    #[test]
    fn commands_of_the_platform_can_need_presence_and_others_cannot() {
        let mut tpm = TestTpm::started();
        tpm.env.present = true;
        change(&mut tpm, &[TpmCc::CLEAR, TpmCc::GET_RANDOM, TpmCc(7), TpmCc::CLEAR_CONTROL], &[]).unwrap();
        change(&mut tpm, &[], &[TpmCc::PP_COMMANDS, TpmCc::CLEAR_CONTROL, TpmCc(7)]).unwrap();
        assert_eq!(told(&mut tpm), (2u32, TpmCc::CLEAR, TpmCc::PP_COMMANDS).to_bytes());
        tpm.env.present = false;
        tpm.init();
        tpm.run(TpmCc::STARTUP, &[], &TpmSu::CLEAR).unwrap();
        let clear = |tpm: &mut TestTpm, by| tpm.run_with(TpmCc::CLEAR, &[by], &[b""], &()).map(drop);
        assert_eq!(clear(&mut tpm, TpmHandle::PLATFORM), Err(ResponseCode::PP.session(1)));
        clear(&mut tpm, TpmHandle::LOCKOUT).unwrap();
        tpm.env.present = true;
        clear(&mut tpm, TpmHandle::PLATFORM).unwrap();
    }

    #[test]
    fn lists_are_short_and_for_the_platform() {
        let mut tpm = TestTpm::started();
        tpm.env.present = true;
        let platform = [TpmHandle::PLATFORM];
        let rc = |tpm: &mut TestTpm, handles: &[TpmHandle], lists: &dyn Encode| {
            tpm.run_with(TpmCc::PP_COMMANDS, handles, &[b""], lists).unwrap_err()
        };
        assert_eq!(rc(&mut tpm, &platform, &(u32::MAX, 0u32)), ResponseCode::SIZE.parameter(1));
        assert_eq!(rc(&mut tpm, &platform, &(0u32, u32::MAX)), ResponseCode::SIZE.parameter(2));
        assert_eq!(rc(&mut tpm, &[TpmHandle::OWNER], &(0u32, 0u32)), ResponseCode::VALUE.handle(1));
    }
}
