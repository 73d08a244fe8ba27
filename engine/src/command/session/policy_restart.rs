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
    use vtpm_protocol::tpm::{Tpm2bDigest, TpmCc, TpmSe, TpmlPcrSelection};

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
}
