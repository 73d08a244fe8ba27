//! `TPM2_PolicySigned` (Part 3, 23.3).

use super::authorization::{Terms, no_ticket};
use super::is_trial;
use crate::alg::{digest_2b, hash_alg};
use crate::command::{Context, Output, parameters};
use crate::signing;
use vtpm_protocol::codec::{Encode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{GivenSignature, Tpm2bDigest, Tpm2bNonce, TpmAlgId, TpmCc, TpmSt, TpmtSignature};

/// The policy needs an authorization that the owner of a key signed: for this session or any, for one command or any, for a time or for
/// ever. A negative expiration asks for a ticket.
///
/// # Errors
/// Those of [`Terms::begin`]; `TPM_RC_SCHEME`, `TPM_RC_SIGNATURE`, `TPM_RC_HANDLE` of parameter 5 as in [`signing::verify`].
pub fn policy_signed(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (nonce, cp_hash, policy_ref, expiration, GivenSignature(signature)): (
        Tpm2bNonce,
        Tpm2bDigest,
        Tpm2bNonce,
        i32,
        GivenSignature,
    ) = parameters(r)?;
    let (auth_object, handle) = (cx.handle(0)?, cx.handle(1)?);
    let key = cx.state.object(auth_object)?.clone();
    let terms = Terms::begin(cx, handle, &nonce, cp_hash, policy_ref, expiration)?;
    let session = cx.state.session_mut(handle)?;
    let trial = is_trial(session);
    if !trial {
        let alg = hash_alg(signature_hash(&signature)).ok_or(ResponseCode::SCHEME.parameter(5))?;
        let signed = alg.digest(&[&nonce, &expiration.to_bytes(), &terms.cp_hash, &terms.policy_ref]);
        signing::verify(&key, &digest_2b(&signed), &signature).map_err(|e| e.parameter(5))?;
    }
    terms.apply(session, TpmCc::POLICY_SIGNED, &key.name);
    if expiration >= 0 || trial {
        return Ok(no_ticket(TpmSt::AUTH_SIGNED));
    }
    Ok(terms.ticket(cx, TpmSt::AUTH_SIGNED, auth_object, &key.name))
}

fn signature_hash(signature: &TpmtSignature) -> TpmAlgId {
    match signature {
        TpmtSignature::Rsa { hash, .. } | TpmtSignature::Ecc { hash, .. } => *hash,
        TpmtSignature::Hmac(mac) => mac.hash_alg,
        TpmtSignature::Null => TpmAlgId::NULL,
    }
}

#[cfg(test)]
mod tests {
    use crate::command::policy::testing::{
        Authorized, START, authorized, b2, both, digest, hash, nonce, policy, updated,
    };
    use crate::signing::test_keys::*;
    use crate::testing::TestTpm;
    use vtpm_protocol::codec::{Encode, decode_exact};
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::*;

    const CODE: TpmCc = TpmCc::POLICY_SIGNED;
    const SHA256: Scheme = Scheme::new(TpmAlgId::ECDSA, TpmAlgId::SHA256);

    type Terms<'a> = (&'a [u8], &'a [u8], &'a [u8], i32);

    fn sign(tpm: &mut TestTpm, key: TpmHandle, scheme: Scheme, terms: Terms<'_>) -> TpmtSignature {
        let (nonce, cp_hash, policy_ref, expiration) = terms;
        let alg = crate::alg::hash_alg(scheme.hash).unwrap();
        let digest = alg.digest(&[nonce, &expiration.to_bytes(), cp_hash, policy_ref]);
        let input = (b2(&digest), TpmtSigScheme(scheme), TpmtTk::null(TpmSt::HASHCHECK));
        decode_exact(&tpm.run_with(TpmCc::SIGN, &[key], &[AUTH], &input).unwrap().1).unwrap()
    }

    fn run(
        tpm: &mut TestTpm,
        key: TpmHandle,
        session: TpmHandle,
        (nonce, cp_hash, policy_ref, expiration): Terms<'_>,
        signature: &TpmtSignature,
    ) -> Result<Authorized, ResponseCode> {
        let input = (b2(nonce), b2(cp_hash), b2(policy_ref), expiration, signature);
        tpm.run(CODE, &[key, session], &input).map(|out| authorized(&out))
    }

    fn name(tpm: &mut TestTpm, key: TpmHandle) -> Vec<u8> {
        tpm.state().object(key).unwrap().name.to_vec()
    }

    #[test]
    fn every_kind_of_key_signs_an_authorization_and_its_public_part_suffices_but_for_hmac() {
        let mut tpm = TestTpm::started();
        let (session, trial) = both(&mut tpm);
        for (key, scheme) in [
            (rsa(Scheme::NULL), Scheme::new(TpmAlgId::RSAPSS, TpmAlgId::SHA384)),
            (ecc(Scheme::NULL), SHA256),
            (keyed_hash(Scheme::NULL), Scheme::new(TpmAlgId::HMAC, TpmAlgId::SHA1)),
        ] {
            tpm.state().transient.clear();
            let (full, public) = (load(&mut tpm, key.clone()), load(&mut tpm, public_only(key)));
            let nonce = nonce(&mut tpm, session);
            let terms = (&*nonce, &[3; 32][..], &b"ref"[..], 100);
            let signature = sign(&mut tpm, full, scheme, terms);
            let expected = updated(&START, CODE, &name(&mut tpm, full), b"ref");
            let none = Ok((vec![], TpmtTk::null(TpmSt::AUTH_SIGNED)));
            assert_eq!(run(&mut tpm, full, session, terms, &signature), none);
            assert_eq!(digest(&mut tpm, session), expected);
            policy(&mut tpm, TpmCc::POLICY_RESTART, session, &()).unwrap();
            let hmac = scheme.scheme == TpmAlgId::HMAC;
            let by_public = if hmac { Err(ResponseCode::HANDLE.parameter(5)) } else { none.clone() };
            assert_eq!(run(&mut tpm, public, session, terms, &signature), by_public);
            policy(&mut tpm, TpmCc::POLICY_RESTART, session, &()).unwrap();
            // A trial asks for none of it.
            policy(&mut tpm, TpmCc::POLICY_RESTART, trial, &()).unwrap();
            let terms = (&b"nonce"[..], &b"hash"[..], &b"ref"[..], -1);
            assert_eq!(run(&mut tpm, public, trial, terms, &signature), none);
            assert_eq!(digest(&mut tpm, trial), expected);
        }
    }

    #[test]
    fn sealed_data_cannot_be_guessed_without_its_authorization() {
        let mut tpm = TestTpm::started();
        let (session, _) = both(&mut tpm);
        let sealed = without(keyed_hash(Scheme::NULL), TpmaObject::SIGN_ENCRYPT);
        let guess = sealed.sensitive.as_ref().unwrap().sensitive.expose().to_vec();
        let sealed = load(&mut tpm, sealed);
        let signed = hash(&[&0i32.to_bytes()]);
        for secret in [guess.as_slice(), b"another guess"] {
            let digest = crate::crypto::hmac(crate::crypto::HashAlg::Sha256, secret, &[&signed]).to_vec();
            let signature = TpmtSignature::Hmac(TpmtHa { hash_alg: TpmAlgId::SHA256, digest });
            let answer = run(&mut tpm, sealed, session, (b"", b"", b"", 0), &signature);
            assert_eq!(answer, Err(ResponseCode::HANDLE.parameter(5)));
        }
    }

    #[test]
    fn the_signature_is_over_all_the_terms() {
        let mut tpm = TestTpm::started();
        let (session, trial) = both(&mut tpm);
        let key = load(&mut tpm, ecc(Scheme::NULL));
        let nonce = nonce(&mut tpm, session);
        let terms: Terms<'_> = (&nonce, &[3; 32], b"ref", 100);
        let signature = sign(&mut tpm, key, SHA256, terms);
        let bad = Err(ResponseCode::SIGNATURE.parameter(5));
        for other in [
            (&b""[..], &[3; 32][..], &b"ref"[..], 100),
            (&nonce, &[4; 32], b"ref", 100),
            (&nonce, b"", b"ref", 100),
            (&nonce, &[3; 32], b"reF", 100),
            (&nonce, &[3; 32], b"ref", -100),
            (&nonce, &[3; 32], b"ref", 0),
        ] {
            assert_eq!(run(&mut tpm, key, session, other, &signature), bad, "{other:?}");
        }
        let null = TpmtSignature::Null;
        for session in [session, trial] {
            let result = run(&mut tpm, key, session, terms, &null);
            assert_eq!(result, Err(ResponseCode::SCHEME.parameter(5)));
        }
        let rsa = load(&mut tpm, rsa(Scheme::NULL));
        assert_eq!(run(&mut tpm, rsa, session, terms, &signature), Err(ResponseCode::SCHEME.parameter(5)));
        assert!(run(&mut tpm, key, session, terms, &signature).is_ok());
    }

    #[test]
    fn the_terms_are_checked_before_the_signature() {
        let mut tpm = TestTpm::started();
        let (session, _) = both(&mut tpm);
        let key = load(&mut tpm, ecc(Scheme::NULL));
        let signature = sign(&mut tpm, key, SHA256, (b"", b"", b"", 0));
        tpm.env.now += 2_000;
        let mut rc = |terms: Terms<'_>| run(&mut tpm, key, session, terms, &signature).map(drop);
        assert_eq!(rc((b"other", b"", b"", 0)), Err(ResponseCode::NONCE.parameter(1)));
        assert_eq!(rc((b"", b"", b"", 1)), Err(ResponseCode::EXPIRED.parameter(4)));
        assert_eq!(rc((b"", b"short", b"", 0)), Err(ResponseCode::SIZE.parameter(2)));
        assert_eq!(rc((b"", b"", b"", 0)), Ok(()));
        tpm.run(TpmCc::POLICY_CP_HASH, &[session], &b2(&hash(&[b"x"]))).unwrap();
        let result = run(&mut tpm, key, session, (b"", &[1; 32], b"", 0), &signature);
        assert_eq!(result, Err(ResponseCode::CPHASH));
    }

    #[test]
    fn a_negative_expiration_gives_a_ticket_of_the_hierarchy_of_the_key() {
        let mut tpm = TestTpm::started();
        let (session, _) = both(&mut tpm);
        for hierarchy in [TpmHandle::ENDORSEMENT, TpmHandle::NULL] {
            let key = load(&mut tpm, in_hierarchy(ecc(Scheme::NULL), hierarchy));
            let terms: Terms<'_> = (b"", b"", b"ref", -100);
            let signature = sign(&mut tpm, key, SHA256, terms);
            let (timeout, ticket) = run(&mut tpm, key, session, terms, &signature).unwrap();
            assert_eq!((ticket.tag, ticket.hierarchy), (TpmSt::AUTH_SIGNED, hierarchy));
            assert_eq!(timeout, ((1u64 << 63) | 100_000).to_bytes());
            let before = digest(&mut tpm, session);
            policy(&mut tpm, TpmCc::POLICY_RESTART, session, &()).unwrap();
            let name = Tpm2bName::new(name(&mut tpm, key)).unwrap();
            let input = (b2(&timeout), b2(b""), b2(b"ref"), name, ticket);
            policy(&mut tpm, TpmCc::POLICY_TICKET, session, &input).unwrap();
            assert_eq!(digest(&mut tpm, session), before);
            policy(&mut tpm, TpmCc::POLICY_RESTART, session, &()).unwrap();
        }
    }
}
