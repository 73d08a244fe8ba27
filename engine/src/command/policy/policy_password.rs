//! `TPM2_PolicyPassword` (Part 3, 23.18).

use super::extend;
use crate::command::{Context, Output, parameters};
use vtpm_protocol::codec::{Encode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::TpmCc;

/// The policy needs the authorization value of the entity, as a password. Its digest is that of `TPM2_PolicyAuthValue`, so that one policy
/// allows both.
///
/// # Errors
/// Those of the parameters.
pub fn policy_password(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let () = parameters(r)?;
    let handle = cx.handle(0)?;
    let session = cx.state.session_mut(handle)?;
    extend(session, &[&TpmCc::POLICY_AUTH_VALUE.to_bytes()]);
    session.flags.is_password_needed = true;
    session.flags.is_auth_value_needed = false;
    Ok(Output::none())
}

#[cfg(test)]
mod tests {
    use crate::command::policy::testing::{START, both, digest, hash, policy};
    use crate::testing::TestTpm;
    use vtpm_protocol::codec::Encode;
    use vtpm_protocol::tpm::TpmCc;

    #[test]
    fn the_digest_is_that_of_policy_auth_value_and_the_later_of_the_two_counts() {
        let mut tpm = TestTpm::started();
        let (session, trial) = both(&mut tpm);
        for session in [session, trial] {
            policy(&mut tpm, TpmCc::POLICY_PASSWORD, session, &()).unwrap();
            let once = hash(&[&START, &TpmCc::POLICY_AUTH_VALUE.to_bytes()]);
            assert_eq!(digest(&mut tpm, session), once);
            let needed = |tpm: &mut TestTpm| {
                let flags = tpm.state().session(session).unwrap().flags;
                (flags.is_password_needed, flags.is_auth_value_needed)
            };
            assert_eq!(needed(&mut tpm), (true, false));
            policy(&mut tpm, TpmCc::POLICY_AUTH_VALUE, session, &()).unwrap();
            assert_eq!(needed(&mut tpm), (false, true));
            policy(&mut tpm, TpmCc::POLICY_PASSWORD, session, &()).unwrap();
            assert_eq!(needed(&mut tpm), (true, false));
        }
    }
}
