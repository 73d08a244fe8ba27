//! `TPM2_VerifySignature` (Part 3, 20.1).

use crate::command::{Context, Output, parameters};
use crate::signing;
use crate::ticket;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{GivenSignature, Tpm2bDigest, TpmAlgId, TpmHandle, TpmSt, TpmaObject, TpmtTk};

/// Checks a signature over a digest with a loaded key, and returns a ticket that says so. The ticket is a NULL one for a key of
/// the null hierarchy or without a Name.
///
/// # Errors
/// `TPM_RC_ATTRIBUTES` for a key without the sign attribute; `TPM_RC_SIGNATURE`, `TPM_RC_SCHEME`, `TPM_RC_HANDLE` as in [`signing::verify`].
pub fn verify_signature(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (digest, GivenSignature(signature)): (Tpm2bDigest, _) = parameters(r)?;
    let key = cx.state.object(cx.handle(0)?)?;
    if !key.has(TpmaObject::SIGN_ENCRYPT) {
        return Err(ResponseCode::ATTRIBUTES.handle(1));
    }
    signing::verify(key, &digest, &signature).map_err(|e| e.parameter(2))?;
    let validation = if key.hierarchy == TpmHandle::NULL || key.public.name_alg == TpmAlgId::NULL {
        TpmtTk::null(TpmSt::VERIFIED)
    } else {
        ticket::verified(cx.state, key.hierarchy, &digest, &key.name)
    };
    Ok(Output::of(&validation))
}

#[cfg(test)]
mod tests {
    use crate::signing::test_keys::*;
    use crate::testing::{Raw, TestTpm};
    use crate::ticket;
    use vtpm_protocol::codec::{Encode, decode_exact};
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::*;

    const ECDSA: Scheme = Scheme::new(TpmAlgId::ECDSA, TpmAlgId::SHA256);

    fn signature(tpm: &mut TestTpm, key: TpmHandle, digest: &Tpm2bDigest, scheme: Scheme) -> TpmtSignature {
        let input = (digest, TpmtSigScheme(scheme), TpmtTk::null(TpmSt::HASHCHECK));
        decode_exact(&tpm.run_with(TpmCc::SIGN, &[key], &[AUTH], &input).unwrap().1).unwrap()
    }

    fn verify(
        tpm: &mut TestTpm,
        key: TpmHandle,
        digest: &Tpm2bDigest,
        signature: &TpmtSignature,
    ) -> Result<TpmtTk, ResponseCode> {
        let out = tpm.run(TpmCc::VERIFY_SIGNATURE, &[key], &(digest, signature))?;
        Ok(decode_exact(&out).unwrap())
    }

    fn digest() -> Tpm2bDigest {
        Tpm2bDigest::new(vec![0x5a; 32]).unwrap()
    }

    #[test]
    fn the_ticket_is_bound_to_digest_key_and_hierarchy() {
        let mut tpm = TestTpm::started();
        for hierarchy in [TpmHandle::OWNER, TpmHandle::ENDORSEMENT, TpmHandle::PLATFORM] {
            tpm.state().transient.clear();
            let key = load(&mut tpm, in_hierarchy(ecc(ECDSA), hierarchy));
            let public = load(&mut tpm, public_only(in_hierarchy(ecc(ECDSA), hierarchy)));
            let sig = signature(&mut tpm, key, &digest(), Scheme::NULL);
            let name = tpm.state().object(key).unwrap().name.clone();
            let expected = ticket::verified(tpm.state(), hierarchy, &digest(), &name);
            assert_eq!(verify(&mut tpm, key, &digest(), &sig), Ok(expected.clone()));
            assert_eq!(verify(&mut tpm, public, &digest(), &sig), Ok(expected));
        }
    }

    #[test]
    fn keys_of_the_null_hierarchy_or_without_a_name_get_a_null_ticket() {
        let mut tpm = TestTpm::started();
        let key = load(&mut tpm, in_hierarchy(ecc(ECDSA), TpmHandle::NULL));
        let mut nameless = public_only(ecc(ECDSA));
        nameless.public.name_alg = TpmAlgId::NULL;
        nameless.name = Tpm2bName::empty();
        let nameless = load(&mut tpm, nameless);
        let sig = signature(&mut tpm, key, &digest(), Scheme::NULL);
        for key in [key, nameless] {
            assert_eq!(verify(&mut tpm, key, &digest(), &sig), Ok(TpmtTk::null(TpmSt::VERIFIED)));
        }
    }

    #[test]
    fn a_signature_of_another_key_or_scheme_is_not_genuine() {
        let mut tpm = TestTpm::started();
        let key = load(&mut tpm, rsa(Scheme::NULL));
        let rsassa = Scheme::new(TpmAlgId::RSASSA, TpmAlgId::SHA256);
        let sig = signature(&mut tpm, key, &digest(), rsassa);
        let TpmtSignature::Rsa { scheme, hash, sig } = sig else { panic!("{sig:?}") };
        let cut = Tpm2bPublicKeyRsa::new(&sig[1..]).unwrap();
        for bad in [
            TpmtSignature::Rsa { scheme: TpmAlgId::RSAPSS, hash, sig: sig.clone() },
            TpmtSignature::Rsa { scheme, hash: TpmAlgId::SHA512, sig: sig.clone() },
            TpmtSignature::Rsa { scheme, hash, sig: cut },
            TpmtSignature::Rsa { scheme, hash, sig: Tpm2bPublicKeyRsa::empty() },
        ] {
            let result = verify(&mut tpm, key, &digest(), &bad);
            assert_eq!(result, Err(ResponseCode::SIGNATURE.parameter(2)), "{bad:?}");
        }
        let short = Tpm2bDigest::new(vec![0x5a; 31]).unwrap();
        let good = TpmtSignature::Rsa { scheme, hash, sig };
        assert_eq!(verify(&mut tpm, key, &short, &good), Err(ResponseCode::SIGNATURE.parameter(2)));
        let other = load(&mut tpm, ecc(Scheme::NULL));
        assert_eq!(verify(&mut tpm, other, &digest(), &good), Err(ResponseCode::SCHEME.parameter(2)));
        let empty = Tpm2bEccParameter::empty();
        let zeros = TpmtSignature::Ecc { scheme: TpmAlgId::ECDSA, hash, r: empty.clone(), s: empty };
        assert_eq!(verify(&mut tpm, other, &digest(), &zeros), Err(ResponseCode::SIGNATURE.parameter(2)));
    }

    #[test]
    fn a_missing_or_unknown_signature_is_no_scheme() {
        let mut tpm = TestTpm::started();
        let key = load(&mut tpm, ecc(ECDSA));
        let result = verify(&mut tpm, key, &digest(), &TpmtSignature::Null);
        assert_eq!(result, Err(ResponseCode::SCHEME.parameter(2)));
        let result = tpm.run(TpmCc::VERIFY_SIGNATURE, &[key], &(digest(), 0x99u16));
        assert_eq!(result, Err(ResponseCode::SCHEME.parameter(2)));
    }

    #[test]
    fn an_hmac_needs_the_key_and_the_key_s_scheme() {
        let mut tpm = TestTpm::started();
        let hmac = |hash| Scheme::new(TpmAlgId::HMAC, hash);
        let free = load(&mut tpm, keyed_hash(Scheme::NULL));
        let fixed = load(&mut tpm, keyed_hash(hmac(TpmAlgId::SHA256)));
        let public = load(&mut tpm, public_only(keyed_hash(Scheme::NULL)));
        let sig = signature(&mut tpm, free, &digest(), hmac(TpmAlgId::SHA256));
        assert!(verify(&mut tpm, fixed, &digest(), &sig).is_ok());
        assert_eq!(verify(&mut tpm, public, &digest(), &sig), Err(ResponseCode::HANDLE.parameter(2)));
        let sha1 = Tpm2bDigest::new(vec![1; 20]).unwrap();
        let sig = signature(&mut tpm, free, &sha1, hmac(TpmAlgId::SHA1));
        assert!(verify(&mut tpm, free, &sha1, &sig).is_ok());
        assert_eq!(verify(&mut tpm, fixed, &sha1, &sig), Err(ResponseCode::SIGNATURE.parameter(2)));
    }

    #[test]
    fn a_key_that_does_not_sign_does_not_verify() {
        let mut tpm = TestTpm::started();
        let key = load(&mut tpm, ecc(ECDSA));
        let sig = signature(&mut tpm, key, &digest(), Scheme::NULL);
        let storage = load(&mut tpm, without(ecc(ECDSA), TpmaObject::SIGN_ENCRYPT));
        assert_eq!(verify(&mut tpm, storage, &digest(), &sig), Err(ResponseCode::ATTRIBUTES.handle(1)));
        assert_eq!(verify(&mut tpm, TpmHandle::NULL, &digest(), &sig), Err(ResponseCode::VALUE.handle(1)));
    }

    #[test]
    fn parameters_are_whole_and_of_known_algorithms() {
        let mut tpm = TestTpm::started();
        let key = load(&mut tpm, ecc(ECDSA));
        let good = (digest(), signature(&mut tpm, key, &digest(), Scheme::NULL)).to_bytes();
        let mut rc = |bytes: &[u8]| tpm.run(TpmCc::VERIFY_SIGNATURE, &[key], &Raw(bytes)).unwrap_err();
        for keep in 0..good.len() {
            let n = if keep < 34 { 1 } else { 2 };
            assert_eq!(rc(&good[..keep]), ResponseCode::INSUFFICIENT.parameter(n), "{keep}");
        }
        assert_eq!(rc(&[&good[..], &[0]].concat()), ResponseCode::SIZE);
        assert_eq!(rc(&[0, 65]), ResponseCode::SIZE.parameter(1));
        let with = |hash: [u8; 2]| [&good[..36], &hash, &good[38..]].concat();
        assert_eq!(rc(&with([0, 6])), ResponseCode::HASH.parameter(2));
        let long = [&good[..38], &[0xff, 0xff]].concat();
        assert_eq!(rc(&long), ResponseCode::SIZE.parameter(2));
    }

    #[test]
    fn the_key_is_in_memory_and_there() {
        let mut tpm = TestTpm::started();
        let key = load(&mut tpm, ecc(ECDSA));
        let sig = signature(&mut tpm, key, &digest(), Scheme::NULL);
        for (handle, rc) in [
            (TpmHandle(0x8000_0002), ResponseCode::REFERENCE_H0),
            (TpmHandle(0x8100_0000), ResponseCode::HANDLE.handle(1)),
            (TpmHandle::OWNER, ResponseCode::VALUE.handle(1)),
        ] {
            assert_eq!(verify(&mut tpm, handle, &digest(), &sig), Err(rc));
        }
    }
}
