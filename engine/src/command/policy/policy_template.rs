//! `TPM2_PolicyTemplate` (Part 3, 23.21).

use super::{digest_size, extend};
use crate::command::{Context, Output, parameters};
use crate::crypto::ct_eq;
use vtpm_protocol::codec::{Encode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Tpm2bDigest, TpmCc};

/// The policy is for the creation of objects with a certain template, given by its hash.
///
/// # Errors
/// `TPM_RC_CPHASH` when the policy has a hash that is not this templateHash; `TPM_RC_SIZE` for what is no digest of the session's hash.
pub fn policy_template(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (hash,): (Tpm2bDigest,) = parameters(r)?;
    let handle = cx.handle(0)?;
    let session = cx.state.session_mut(handle)?;
    let same = session.flags.is_template_hash_defined && ct_eq(&hash, &session.cp_hash);
    if !session.cp_hash.is_empty() && !same {
        return Err(ResponseCode::CPHASH);
    }
    if hash.len() != digest_size(session) {
        return Err(ResponseCode::SIZE.parameter(1));
    }
    extend(session, &[&TpmCc::POLICY_TEMPLATE.to_bytes(), &hash]);
    session.cp_hash = hash;
    session.flags.is_template_hash_defined = true;
    Ok(Output::none())
}

#[cfg(test)]
mod tests {
    use crate::command::policy::testing::{START, b2, both, digest, hash, policy};
    use crate::testing::TestTpm;
    use vtpm_protocol::codec::Encode;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::TpmCc;

    const CODE: TpmCc = TpmCc::POLICY_TEMPLATE;

    #[test]
    fn the_digest_is_that_of_the_formula_and_a_second_hash_is_held_against_the_first() {
        let mut tpm = TestTpm::started();
        let (session, trial) = both(&mut tpm);
        for session in [session, trial] {
            policy(&mut tpm, CODE, session, &b2(&[5; 32])).unwrap();
            assert_eq!(digest(&mut tpm, session), hash(&[&START, &CODE.to_bytes(), &[5; 32]]));
            let state = tpm.state().session(session).unwrap();
            assert!(state.flags.is_template_hash_defined && state.cp_hash.as_slice() == [5; 32]);
            assert_eq!(policy(&mut tpm, CODE, session, &b2(&[5; 32])), Ok(()));
            assert_eq!(policy(&mut tpm, CODE, session, &b2(&[6; 32])), Err(ResponseCode::CPHASH));
        }
    }

    #[test]
    fn a_hash_of_another_kind_stands_in_its_way() {
        let mut tpm = TestTpm::started();
        let (session, _) = both(&mut tpm);
        for other in
            [TpmCc::POLICY_CP_HASH, TpmCc::POLICY_NAME_HASH, TpmCc::POLICY_PARAMETERS, TpmCc::POLICY_TEMPLATE]
        {
            policy(&mut tpm, TpmCc::POLICY_RESTART, session, &()).unwrap();
            policy(&mut tpm, other, session, &b2(&[5; 32])).unwrap();
            let expected = if other == CODE { Ok(()) } else { Err(ResponseCode::CPHASH) };
            assert_eq!(policy(&mut tpm, CODE, session, &b2(&[5; 32])), expected, "{other:?}");
        }
    }

    #[test]
    fn a_hash_has_the_size_of_the_session_s() {
        let mut tpm = TestTpm::started();
        let (session, trial) = both(&mut tpm);
        for session in [session, trial] {
            for size in [0, 20, 31, 33, 64] {
                let result = policy(&mut tpm, CODE, session, &b2(&vec![5; size]));
                assert_eq!(result, Err(ResponseCode::SIZE.parameter(1)), "{size}");
            }
        }
    }
}
