//! `TPM2_PolicyAuthorize` (Part 3, 23.16).

use super::{clear_digest, is_trial, update};
use crate::alg::hash_alg;
use crate::command::{Context, Output, parameters};
use crate::crypto::{HashAlg, ct_eq};
use crate::ticket;
use vtpm_protocol::codec::{Decode, Encode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Tpm2bDigest, Tpm2bName, Tpm2bNonce, TpmAlgId, TpmCc, TpmtTkVerified};

/// The policy so far was approved by the owner of a key, whose signature was verified here; from here on it is the key that counts, so
/// that the owner can approve other policies later.
///
/// # Errors
/// `TPM_RC_VALUE` of parameter 1 when another policy was approved, of parameter 4 for a ticket that was not made here for this key and
/// this approval; `TPM_RC_HASH`, `TPM_RC_SIZE` of parameter 3 for what is no Name of a key; `TPM_RC_TAG` for a ticket of another kind.
pub fn policy_authorize(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (approved, policy_ref, key_sign, TpmtTkVerified(check)): (Tpm2bDigest, Tpm2bNonce, Tpm2bName, _) =
        parameters(r)?;
    let handle = cx.handle(0)?;
    let alg = name_alg(&key_sign).map_err(|e| e.parameter(3))?;
    let session = cx.state.session(handle)?;
    if !is_trial(session) {
        if !ct_eq(&session.policy_digest, &approved) {
            return Err(ResponseCode::VALUE.parameter(1));
        }
        let digest = alg.digest(&[&approved, &policy_ref]);
        let expected = ticket::verified(cx.state, check.hierarchy, &digest, &key_sign);
        if !ticket::is_same(&check, &expected) {
            return Err(ResponseCode::VALUE.parameter(4));
        }
    }
    let session = cx.state.session_mut(handle)?;
    clear_digest(session);
    update(session, &TpmCc::POLICY_AUTHORIZE.to_bytes(), &key_sign, &policy_ref);
    Ok(Output::none())
}

/// The algorithm of a Name that is an algorithm and a digest.
///
/// # Errors
/// `TPM_RC_SIZE` for a Name that is too short for an algorithm or not as long as this one has it; `TPM_RC_HASH` for one that is not
/// implemented.
pub(super) fn name_alg(name: &[u8]) -> Result<HashAlg, ResponseCode> {
    let mut r = Reader::new(name);
    let id = TpmAlgId::decode(&mut r).map_err(|_| ResponseCode::SIZE)?;
    let alg = hash_alg(id).ok_or(ResponseCode::HASH)?;
    if r.remaining() == alg.digest_size() { Ok(alg) } else { Err(ResponseCode::SIZE) }
}

#[cfg(test)]
mod tests {
    use crate::command::policy::testing::{START, b2, both, digest, hash, policy, updated};
    use crate::signing::test_keys::*;
    use crate::testing::TestTpm;
    use vtpm_protocol::codec::decode_exact;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::*;

    const CODE: TpmCc = TpmCc::POLICY_AUTHORIZE;

    /// The Name of a key, and the ticket that it signed `approved` with `policy_ref`.
    fn approve(tpm: &mut TestTpm, approved: &[u8], policy_ref: &[u8]) -> (Tpm2bName, TpmtTk) {
        let key = load(tpm, ecc(Scheme::new(TpmAlgId::ECDSA, TpmAlgId::SHA256)));
        let digest = b2(&hash(&[approved, policy_ref]));
        let input = (&digest, TpmtSigScheme(Scheme::NULL), TpmtTk::null(TpmSt::HASHCHECK));
        let (_, signature) = tpm.run_with(TpmCc::SIGN, &[key], &[AUTH], &input).unwrap();
        let signature: TpmtSignature = decode_exact(&signature).unwrap();
        let out = tpm.run(TpmCc::VERIFY_SIGNATURE, &[key], &(digest, signature)).unwrap();
        let name = tpm.state().object(key).unwrap().name.clone();
        crate::testing::objects::flush(tpm, key);
        (name, decode_exact(&out).unwrap())
    }

    #[test]
    fn an_approved_policy_becomes_that_of_the_key_and_a_trial_needs_no_approval() {
        let mut tpm = TestTpm::started();
        let (session, trial) = both(&mut tpm);
        policy(&mut tpm, TpmCc::POLICY_AUTH_VALUE, session, &()).unwrap();
        let approved = digest(&mut tpm, session);
        for policy_ref in [&b""[..], b"ref"] {
            policy(&mut tpm, TpmCc::POLICY_RESTART, session, &()).unwrap();
            policy(&mut tpm, TpmCc::POLICY_AUTH_VALUE, session, &()).unwrap();
            let (name, ticket) = approve(&mut tpm, &approved, policy_ref);
            policy(&mut tpm, CODE, session, &(b2(&approved), b2(policy_ref), &name, ticket)).unwrap();
            let expected = updated(&START, CODE, &name, policy_ref);
            assert_eq!(digest(&mut tpm, session), expected);
            // What the approved policy asks for is asked for all the same.
            assert!(tpm.state().session(session).unwrap().flags.is_auth_value_needed);
            let input = (b2(b""), b2(policy_ref), &name, TpmtTk::null(TpmSt::VERIFIED));
            policy(&mut tpm, CODE, trial, &input).unwrap();
            assert_eq!(digest(&mut tpm, trial), expected);
        }
    }

    #[test]
    fn the_approval_is_of_this_policy_with_this_reference_by_this_key() {
        let mut tpm = TestTpm::started();
        let (session, _) = both(&mut tpm);
        let (name, ticket) = approve(&mut tpm, &START, b"ref");
        let mut rc = |approved: &[u8], policy_ref: &[u8], name: &Tpm2bName, ticket: &TpmtTk| {
            policy(&mut tpm, CODE, session, &(b2(approved), b2(policy_ref), name, ticket))
        };
        assert_eq!(rc(&[1; 32], b"ref", &name, &ticket), Err(ResponseCode::VALUE.parameter(1)));
        assert_eq!(rc(b"", b"ref", &name, &ticket), Err(ResponseCode::VALUE.parameter(1)));
        let not_approved = Err(ResponseCode::VALUE.parameter(4));
        assert_eq!(rc(&START, b"reF", &name, &ticket), not_approved);
        let mut other = name.to_vec();
        other[9] ^= 1;
        assert_eq!(rc(&START, b"ref", &Tpm2bName::new(other).unwrap(), &ticket), not_approved);
        let other = TpmtTk { hierarchy: TpmHandle::PLATFORM, ..ticket.clone() };
        assert_eq!(rc(&START, b"ref", &name, &other), not_approved);
        assert_eq!(rc(&START, b"ref", &name, &TpmtTk::null(TpmSt::VERIFIED)), not_approved);
        let other = TpmtTk { tag: TpmSt::CREATION, ..ticket.clone() };
        assert_eq!(rc(&START, b"ref", &name, &other), Err(ResponseCode::TAG.parameter(4)));
        assert_eq!(rc(&START, b"ref", &name, &ticket), Ok(()));
    }

    #[test]
    fn a_key_has_a_name_with_an_implemented_hash() {
        let mut tpm = TestTpm::started();
        let (session, trial) = both(&mut tpm);
        for (name, expected) in [
            (&b""[..], ResponseCode::SIZE),
            (b"\0", ResponseCode::SIZE),
            (b"\0\x0b", ResponseCode::SIZE),
            (&[0x40, 0, 0, 1], ResponseCode::HASH),
            (&[&[0, 0x0b][..], &[7; 31]].concat(), ResponseCode::SIZE),
            (&[&[0, 0x0b][..], &[7; 33]].concat(), ResponseCode::SIZE),
        ] {
            for session in [session, trial] {
                let name = Tpm2bName::new(name).unwrap();
                let input = (b2(&START), b2(b""), name, TpmtTk::null(TpmSt::VERIFIED));
                let result = policy(&mut tpm, CODE, session, &input);
                assert_eq!(result, Err(expected.parameter(3)));
            }
        }
    }

    #[test]
    fn a_ticket_ends_with_its_hierarchy_and_none_is_of_the_null_hierarchy() {
        let mut tpm = TestTpm::started();
        let (session, _) = both(&mut tpm);
        let (name, ticket) = approve(&mut tpm, &START, b"");
        tpm.run_with(TpmCc::CLEAR, &[TpmHandle::LOCKOUT], &[b""], &()).unwrap();
        let refused = Err(ResponseCode::VALUE.parameter(4));
        assert_eq!(policy(&mut tpm, CODE, session, &(b2(&START), b2(b""), &name, ticket)), refused);
        let key = load(&mut tpm, in_hierarchy(ecc(Scheme::NULL), TpmHandle::NULL));
        let name = tpm.state().object(key).unwrap().name.clone();
        let null = TpmtTk::null(TpmSt::VERIFIED);
        assert_eq!(policy(&mut tpm, CODE, session, &(b2(&START), b2(b""), &name, null)), refused);
    }
}
