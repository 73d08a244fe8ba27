//! `TPM2_Policy_AC_SendSelect` (Part 3, 32.4).

use super::extend;
use crate::alg::{digest_2b, hash_of};
use crate::command::{Context, Output, parameters};
use vtpm_protocol::codec::{Encode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Tpm2bName, TpmCc};

/// The policy is for `TPM2_AC_Send` to a certain attached component. There are none here, nor this command, so that such a policy authorizes
/// nothing; its digest is computed all the same, for other TPMs.
///
/// # Errors
/// `TPM_RC_CPHASH` when the policy has a hash already, `TPM_RC_COMMAND_CODE` when it has a command already.
pub fn policy_ac_send_select(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (object, auth_handle, ac, include_object): (Tpm2bName, Tpm2bName, Tpm2bName, bool) = parameters(r)?;
    let handle = cx.handle(0)?;
    let session = cx.state.session_mut(handle)?;
    if !session.cp_hash.is_empty() {
        return Err(ResponseCode::CPHASH);
    }
    if session.command_code.0 != 0 {
        return Err(ResponseCode::COMMAND_CODE);
    }
    session.cp_hash = digest_2b(&hash_of(session.auth_hash).digest(&[&object, &auth_handle, &ac]));
    session.flags.is_name_hash_defined = true;
    let code = TpmCc::POLICY_AC_SEND_SELECT.to_bytes();
    let included: &[u8] = if include_object { &object } else { &[] };
    extend(session, &[&code, included, &auth_handle, &ac, &include_object.to_bytes()]);
    session.command_code = TpmCc::AC_SEND;
    Ok(Output::none())
}

#[cfg(test)]
mod tests {
    use crate::command::policy::testing::{START, b2, both, digest, hash, policy};
    use crate::testing::TestTpm;
    use vtpm_protocol::codec::Encode;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{Tpm2bName, TpmCc, TpmHandle};

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
        use crate::testing::objects::{run_with_policy, start_policy};
        use vtpm_protocol::tpm::{TpmAlgId, TpmSe};
        let mut tpm = TestTpm::started();
        let session = start_policy(&mut tpm, TpmSe::POLICY);
        let input = (name(b"object"), name(b"auth"), name(b"ac"), false);
        policy(&mut tpm, CODE, session, &input).unwrap();
        let digest = b2(&digest(&mut tpm, session));
        let owner = &mut tpm.state().permanent_mut().owner;
        owner.policy = crate::state::Policy { alg: TpmAlgId::SHA256, digest };
        tpm.resave();
        let result = run_with_policy(
            &mut tpm,
            TpmCc::HIERARCHY_CHANGE_AUTH,
            &[TpmHandle::OWNER],
            session,
            &b2(b"new"),
        );
        assert_eq!(result, Err(ResponseCode::POLICY_CC.session(1)));
    }
}
