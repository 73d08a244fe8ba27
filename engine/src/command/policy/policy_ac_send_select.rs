//! `TPM2_Policy_AC_SendSelect` (Part 3, 32.4).

use super::bind::bind_to_names;
use super::extend;
use crate::command::{Context, Output, parameters};
use vtpm_protocol::codec::{Encode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Tpm2bName, TpmCc};

/// The policy is for `TPM2_AC_Send` to a certain attached component. There are none here, nor this command, so that such a policy authorizes
/// nothing; its digest is computed all the same, for other TPMs.
///
/// # Errors
/// Those of [`bind_to_names`].
pub fn policy_ac_send_select(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (object, auth_handle, ac, include_object): (Tpm2bName, Tpm2bName, Tpm2bName, bool) = parameters(r)?;
    let handle = cx.handle(0)?;
    let session = cx.state.session_mut(handle)?;
    bind_to_names(session, TpmCc::AC_SEND, &[&object, &auth_handle, &ac])?;
    let code = TpmCc::POLICY_AC_SEND_SELECT.to_bytes();
    let included: &[u8] = if include_object { &object } else { &[] };
    extend(session, &[&code, included, &auth_handle, &ac, &include_object.to_bytes()]);
    Ok(Output::none())
}

#[cfg(test)]
mod tests {
    use crate::command::policy::testing::{
        START, authorize_owner, b2, both, digest, hash, policy, start_policy,
    };
    use crate::testing::TestTpm;
    use vtpm_protocol::codec::Encode;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{Tpm2bName, TpmCc, TpmSe};

    const CODE: TpmCc = TpmCc::POLICY_AC_SEND_SELECT;

    fn name(bytes: &[u8]) -> Tpm2bName {
        Tpm2bName::new(bytes).unwrap()
    }

    #[test]
    fn the_digest_is_that_of_the_formula_and_the_command_that_of_the_policy() {
        let mut tpm = TestTpm::started();
        for (include, named) in [(true, &b"object"[..]), (false, b"")] {
            let (session, trial) = both(&mut tpm);
            for session in [session, trial] {
                let input = (name(b"object"), name(b"auth"), name(b"ac"), include);
                policy(&mut tpm, CODE, session, &input).unwrap();
                let parts = [&START[..], &CODE.to_bytes(), named, b"auth", b"ac", &[u8::from(include)]];
                assert_eq!(digest(&mut tpm, session), hash(&parts));
                assert_eq!(policy(&mut tpm, CODE, session, &input), Err(ResponseCode::CPHASH));
            }
        }
    }

    #[test]
    fn a_policy_has_one_hash_and_one_command() {
        let mut tpm = TestTpm::started();
        let (session, _) = both(&mut tpm);
        let input = (name(b"object"), name(b"auth"), name(b"ac"), false);
        policy(&mut tpm, TpmCc::POLICY_COMMAND_CODE, session, &TpmCc::SIGN).unwrap();
        assert_eq!(policy(&mut tpm, CODE, session, &input), Err(ResponseCode::COMMAND_CODE));
        policy(&mut tpm, TpmCc::POLICY_RESTART, session, &()).unwrap();
        policy(&mut tpm, TpmCc::POLICY_NAME_HASH, session, &b2(&[1; 32])).unwrap();
        assert_eq!(policy(&mut tpm, CODE, session, &input), Err(ResponseCode::CPHASH));
    }

    #[test]
    fn such_a_policy_authorizes_no_command_that_there_is() {
        let mut tpm = TestTpm::started();
        let session = start_policy(&mut tpm, TpmSe::POLICY);
        let input = (name(b"object"), name(b"auth"), name(b"ac"), false);
        policy(&mut tpm, CODE, session, &input).unwrap();
        assert_eq!(authorize_owner(&mut tpm, session), Err(ResponseCode::POLICY_CC.session(1)));
    }
}
