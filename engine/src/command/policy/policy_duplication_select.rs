//! `TPM2_PolicyDuplicationSelect` (Part 3, 23.15).

use super::bind::bind_to_names;
use super::extend;
use crate::command::{Context, Output, parameters};
use vtpm_protocol::codec::{Encode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Tpm2bName, TpmCc};

/// The policy is for duplication to a certain new parent, of a certain object or of whichever.
///
/// # Errors
/// Those of [`bind_to_names`].
pub fn policy_duplication_select(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (object, new_parent, include_object): (Tpm2bName, Tpm2bName, bool) = parameters(r)?;
    let handle = cx.handle(0)?;
    let session = cx.state.session_mut(handle)?;
    bind_to_names(session, TpmCc::DUPLICATE, &[&object, &new_parent])?;
    let code = TpmCc::POLICY_DUPLICATION_SELECT.to_bytes();
    let included: &[u8] = if include_object { &object } else { &[] };
    extend(session, &[&code, included, &new_parent, &include_object.to_bytes()]);
    Ok(Output::none())
}

#[cfg(test)]
mod tests {
    use crate::command::policy::testing::{START, b2, both, digest, hash, policy, start_policy};
    use crate::testing::TestTpm;
    use vtpm_protocol::codec::Encode;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{Tpm2bName, TpmCc, TpmSe};

    const CODE: TpmCc = TpmCc::POLICY_DUPLICATION_SELECT;

    fn names() -> (Tpm2bName, Tpm2bName) {
        (Tpm2bName::new(*b"object").unwrap(), Tpm2bName::new(*b"parent").unwrap())
    }

    #[test]
    fn the_digest_has_the_object_only_if_it_is_included_but_the_check_always() {
        let mut tpm = TestTpm::started();
        let (object, parent) = names();
        for (include, named) in [(true, &b"object"[..]), (false, b"")] {
            let (session, trial) = both(&mut tpm);
            for session in [session, trial] {
                policy(&mut tpm, CODE, session, &(&object, &parent, include)).unwrap();
                let parts = [&START[..], &CODE.to_bytes(), named, b"parent", &[u8::from(include)]];
                assert_eq!(digest(&mut tpm, session), hash(&parts));
                let state = tpm.state().session(session).unwrap();
                assert_eq!(state.cp_hash.to_vec(), hash(&[b"objectparent"]));
                assert!(state.flags.is_name_hash_defined);
                assert_eq!(state.command_code, TpmCc::DUPLICATE);
            }
        }
    }

    #[test]
    fn a_policy_has_one_hash_and_one_command() {
        let mut tpm = TestTpm::started();
        let (object, parent) = names();
        let (session, trial) = both(&mut tpm);
        let other = start_policy(&mut tpm, TpmSe::POLICY);
        for session in [session, trial] {
            let input = (&object, &parent, false);
            assert_eq!(
                policy(&mut tpm, CODE, session, &(&object, &parent, 2u8)),
                Err(ResponseCode::VALUE.parameter(3))
            );
            policy(&mut tpm, CODE, session, &input).unwrap();
            assert_eq!(policy(&mut tpm, CODE, session, &input), Err(ResponseCode::CPHASH));
            let code = TpmCc::POLICY_COMMAND_CODE;
            let refused = Err(ResponseCode::VALUE.parameter(1));
            assert_eq!(policy(&mut tpm, code, session, &TpmCc::SIGN), refused);
            assert_eq!(policy(&mut tpm, code, session, &TpmCc::DUPLICATE), Ok(()));
        }
        policy(&mut tpm, TpmCc::POLICY_COMMAND_CODE, other, &TpmCc::DUPLICATE).unwrap();
        let result = policy(&mut tpm, CODE, other, &(&object, &parent, false));
        assert_eq!(result, Err(ResponseCode::COMMAND_CODE));
        policy(&mut tpm, TpmCc::POLICY_RESTART, other, &()).unwrap();
        policy(&mut tpm, TpmCc::POLICY_CP_HASH, other, &b2(&[1; 32])).unwrap();
        let result = policy(&mut tpm, CODE, other, &(&object, &parent, false));
        assert_eq!(result, Err(ResponseCode::CPHASH));
    }
}
