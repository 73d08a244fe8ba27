//! `TPM2_ClearControl` (Part 3, 24.7).

use crate::command::{Context, Output, parameters};
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::TpmHandle;

/// Disables `TPM2_Clear`, or enables it again.
///
/// # Errors
/// `TPM_RC_AUTH_FAIL` when lockoutAuth is to enable it, which only the platform may.
pub fn clear_control(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (disable,): (bool,) = parameters(r)?;
    if cx.handle(0)? == TpmHandle::LOCKOUT && !disable {
        return Err(ResponseCode::AUTH_FAIL);
    }
    cx.state.permanent_mut().disable_clear = disable;
    Ok(Output::none())
}

#[cfg(test)]
mod tests {
    use crate::testing::TestTpm;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{TpmCc, TpmHandle, TpmSu};

    fn control(tpm: &mut TestTpm, by: TpmHandle, disable: u8) -> Result<(), ResponseCode> {
        tpm.run_with(TpmCc::CLEAR_CONTROL, &[by], &[b""], &disable).map(drop)
    }

    #[test]
    fn the_lockout_may_disable_clear_and_only_the_platform_enable_it() {
        let mut tpm = TestTpm::started();
        let clear =
            |tpm: &mut TestTpm| tpm.run_with(TpmCc::CLEAR, &[TpmHandle::LOCKOUT], &[b""], &()).map(drop);
        control(&mut tpm, TpmHandle::LOCKOUT, 1).unwrap();
        assert_eq!(clear(&mut tpm), Err(ResponseCode::DISABLED));
        assert_eq!(control(&mut tpm, TpmHandle::LOCKOUT, 0), Err(ResponseCode::AUTH_FAIL));
        // It is no failed authorization of lockoutAuth, and it lasts.
        assert!(tpm.state().permanent.da.lockout_auth_enabled);
        tpm.init();
        tpm.run(TpmCc::STARTUP, &[], &TpmSu::CLEAR).unwrap();
        assert_eq!(clear(&mut tpm), Err(ResponseCode::DISABLED));
        control(&mut tpm, TpmHandle::PLATFORM, 0).unwrap();
        clear(&mut tpm).unwrap();
    }

    #[test]
    fn takes_yes_and_no_from_lockout_and_platform() {
        let mut tpm = TestTpm::started();
        assert_eq!(control(&mut tpm, TpmHandle::PLATFORM, 2), Err(ResponseCode::VALUE.parameter(1)));
        assert_eq!(control(&mut tpm, TpmHandle::OWNER, 1), Err(ResponseCode::VALUE.handle(1)));
    }
}
