//! `TPM2_PCR_SetAuthValue` (Part 3, 22.7).

use crate::command::{Context, Output, parameters};
use crate::pcr::has_authorization;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::Tpm2bAuth;

/// Sets the authorization value of the PCRs to whose group the handle belongs, until the next `Startup(CLEAR)` or `TPM2_Clear`. The response is
/// authorized with the new one.
///
/// # Errors
/// `TPM_RC_VALUE` for a PCR that cannot have one.
pub fn pcr_set_auth_value(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (auth,): (Tpm2bAuth,) = parameters(r)?;
    if !has_authorization(cx.handle(0)?) {
        return Err(ResponseCode::VALUE);
    }
    cx.state.volatile_mut().state_clear.pcr_auth = auth.without_trailing_zeros();
    Ok(Output::none())
}

#[cfg(test)]
mod tests {
    use crate::testing::TestTpm;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{Tpm2bAuth, Tpm2bEvent, TpmCc, TpmHandle, TpmSu};

    fn set(tpm: &mut TestTpm, pcr: u32, old: &[u8], new: &[u8]) -> Result<(), ResponseCode> {
        let new = Tpm2bAuth::new(new).unwrap();
        tpm.run_with(TpmCc::PCR_SET_AUTH_VALUE, &[TpmHandle(pcr)], &[old], &new).map(drop)
    }

    fn extend(tpm: &mut TestTpm, pcr: u32, password: &[u8]) -> Result<(), ResponseCode> {
        let event = Tpm2bEvent::new(*b"event").unwrap();
        tpm.locality = 2;
        let result = tpm.run_with(TpmCc::PCR_EVENT, &[TpmHandle(pcr)], &[password], &event).map(drop);
        tpm.locality = 0;
        result
    }

    #[test]
    fn the_group_has_one_value() {
        let mut tpm = TestTpm::started();
        set(&mut tpm, 20, b"", b"pw\0").unwrap();
        for pcr in 20..=22 {
            // A wrong one is no attack that counts.
            assert_eq!(extend(&mut tpm, pcr, b""), Err(ResponseCode::BAD_AUTH.session(1)));
            extend(&mut tpm, pcr, b"pw").unwrap();
        }
        extend(&mut tpm, 16, b"").unwrap();
        set(&mut tpm, 22, b"pw", b"").unwrap();
        extend(&mut tpm, 21, b"").unwrap();
    }

    #[test]
    fn it_ends_with_the_boot_and_with_clear_but_not_with_a_sleep() {
        let mut tpm = TestTpm::started();
        set(&mut tpm, 20, b"", b"pw").unwrap();
        for (kind, password) in [(TpmSu::STATE, &b"pw"[..]), (TpmSu::CLEAR, b"")] {
            tpm.run(TpmCc::SHUTDOWN, &[], &TpmSu::STATE).unwrap();
            tpm.init();
            tpm.run(TpmCc::STARTUP, &[], &kind).unwrap();
            extend(&mut tpm, 20, password).unwrap();
        }
        set(&mut tpm, 20, b"", b"pw").unwrap();
        tpm.run_with(TpmCc::CLEAR, &[TpmHandle::PLATFORM], &[b""], &()).unwrap();
        extend(&mut tpm, 20, b"").unwrap();
    }

    #[test]
    fn most_pcrs_cannot_have_one() {
        let mut tpm = TestTpm::started();
        for pcr in (0..20).chain([23]) {
            assert_eq!(set(&mut tpm, pcr, b"", b""), Err(ResponseCode::VALUE), "{pcr}");
        }
        for pcr in [24, TpmHandle::NULL.0] {
            assert_eq!(set(&mut tpm, pcr, b"", b""), Err(ResponseCode::VALUE.handle(1)));
        }
    }
}
