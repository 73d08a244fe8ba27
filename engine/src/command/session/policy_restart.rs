//! `TPM2_PolicyRestart` (Part 3, 11.2).

use crate::command::{Context, Output, parameters};
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;

/// Sets a policy session to its initial state, keeping its keys, its nonce and the time at which it began.
///
/// # Errors
/// Those of the parameters.
pub fn policy_restart(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let () = parameters(r)?;
    let handle = cx.handle(0)?;
    cx.state.session_mut(handle)?.reset_policy();
    Ok(Output::none())
}

#[cfg(test)]
mod tests {
    use crate::testing::TestTpm;
    use crate::testing::objects::start_policy;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{Tpm2bDigest, TpmCc, TpmHandle, TpmSe, TpmlPcrSelection};

    #[test]
    fn a_session_forgets_its_policy_but_not_when_it_began() {
        let mut tpm = TestTpm::started();
        let session = start_policy(&mut tpm, TpmSe::POLICY);
        let before = tpm.state().session(session).unwrap().clone();
        tpm.env.now += 5000;
        let input = (Tpm2bDigest::empty(), TpmlPcrSelection::default());
        tpm.run(TpmCc::POLICY_PCR, &[session], &input).unwrap();
        tpm.run(TpmCc::POLICY_AUTH_VALUE, &[session], &()).unwrap();
        tpm.run(TpmCc::POLICY_RESTART, &[session], &()).unwrap();
        let after = tpm.state().session(session).unwrap().clone();
        assert_eq!((after.start_time, after.pcr_counter), (before.start_time, 0));
        assert!(after.policy_digest == before.policy_digest && after.nonce_tpm == before.nonce_tpm);
        assert_eq!(after.flags, before.flags);
    }

    #[test]
    fn only_a_loaded_policy_or_trial_session_restarts() {
        let mut tpm = TestTpm::started();
        let mut rc = |h| tpm.run(TpmCc::POLICY_RESTART, &[TpmHandle(h)], &());
        assert_eq!(rc(0x0300_0000), Err(ResponseCode::REFERENCE_H0));
        for other in [0x0200_0000, 0x0300_0040, 0x8000_0000, TpmHandle::RS_PW.0] {
            assert_eq!(rc(other), Err(ResponseCode::VALUE.handle(1)), "{other:x}");
        }
        let hmac = start_policy(&mut tpm, TpmSe::HMAC);
        let alias = TpmHandle(0x0300_0000 + hmac.index());
        assert_eq!(tpm.run(TpmCc::POLICY_RESTART, &[alias], &()), Err(ResponseCode::HANDLE.handle(1)));
        let trial = start_policy(&mut tpm, TpmSe::TRIAL);
        assert_eq!(tpm.run(TpmCc::POLICY_RESTART, &[trial], &0u8), Err(ResponseCode::SIZE));
        assert_eq!(tpm.run(TpmCc::POLICY_RESTART, &[trial], &()), Ok(vec![]));
    }
}
