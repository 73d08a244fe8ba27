//! `TPM2_PolicyAuthValue` (Part 3, 23.14).

use super::extend;
use crate::command::{Context, Output, parameters};
use vtpm_protocol::codec::{Encode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::TpmCc;

/// The policy needs the authorization value of the entity, proven by HMAC.
///
/// # Errors
/// Those of the parameters.
pub fn policy_auth_value(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let () = parameters(r)?;
    let handle = cx.handle(0)?;
    let session = cx.state.session_mut(handle)?;
    extend(session, &[&TpmCc::POLICY_AUTH_VALUE.to_bytes()]);
    session.flags.is_auth_value_needed = true;
    session.flags.is_password_needed = false;
    Ok(Output::none())
}

#[cfg(test)]
mod tests {
    use crate::testing::TestTpm;
    use vtpm_protocol::codec::{Decode, Reader};
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::*;

    fn start(tpm: &mut TestTpm, kind: TpmSe) -> TpmHandle {
        let input = (Tpm2bNonce::new(vec![7; 16]).unwrap(), 0u16, kind, TpmAlgId::NULL, TpmAlgId::SHA256);
        let out = tpm.run(TpmCc::START_AUTH_SESSION, &[TpmHandle::NULL; 2], &input).unwrap();
        TpmHandle::decode(&mut Reader::new(&out)).unwrap()
    }

    #[test]
    fn extends_the_digest_and_restart_forgets_it() {
        let mut tpm = TestTpm::started();
        let session = start(&mut tpm, TpmSe::TRIAL);
        tpm.run(TpmCc::POLICY_AUTH_VALUE, &[session], &()).unwrap();
        let digest = tpm.run(TpmCc::POLICY_GET_DIGEST, &[session], &()).unwrap();
        // As tpm2_policyauthvalue of tpm2-tools prints it.
        assert_eq!(
            hex::encode(&digest[2..]),
            "8fcd2169ab92694e0c633f1ab772842b8241bbc20288981fc7ac1eddc1fddb0e"
        );
        tpm.run(TpmCc::POLICY_RESTART, &[session], &()).unwrap();
        assert_eq!(tpm.run(TpmCc::POLICY_GET_DIGEST, &[session], &()).unwrap()[2..], [0; 32]);
    }

    #[test]
    fn takes_policy_sessions_only() {
        let mut tpm = TestTpm::started();
        let hmac = start(&mut tpm, TpmSe::HMAC);
        assert_eq!(tpm.run(TpmCc::POLICY_AUTH_VALUE, &[hmac], &()), Err(ResponseCode::VALUE.handle(1)));
        let alias = TpmHandle::new(TpmHt::POLICY_SESSION, hmac.index());
        assert_eq!(tpm.run(TpmCc::POLICY_AUTH_VALUE, &[alias], &()), Err(ResponseCode::HANDLE.handle(1)));
    }
}
