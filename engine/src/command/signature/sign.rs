//! `TPM2_Sign` (Part 3, 20.2).

use crate::alg::hash_alg;
use crate::command::{Context, Output, parameters};
use crate::signing::{self, is_signing_key, select_scheme};
use crate::ticket;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Tpm2bDigest, TpmaObject, TpmtSigScheme, TpmtTkHashcheck};

/// Signs a digest that was made outside, or by this TPM as the ticket says. A restricted key signs nothing without a ticket, so that it
/// never signs what looks like an attestation.
///
/// # Errors
/// `TPM_RC_KEY` for a handle of no signing key; `TPM_RC_ATTRIBUTES` for a key for X.509 signatures; `TPM_RC_SCHEME`; `TPM_RC_TAG`, `TPM_RC_VALUE`,
/// `TPM_RC_TICKET` for a ticket that is not one, is not for this digest, or is missing; `TPM_RC_SIZE` for a digest that is not as long as the
/// hash of the scheme has it; and those of [`signing::sign`].
pub fn sign(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (digest, TpmtSigScheme(requested), TpmtTkHashcheck(validation)): (Tpm2bDigest, _, _) = parameters(r)?;
    let key = cx.state.object(cx.handle(0)?)?.clone();
    if !is_signing_key(&key) {
        return Err(ResponseCode::KEY.handle(1));
    }
    if key.has(TpmaObject::X509_SIGN) {
        return Err(ResponseCode::ATTRIBUTES.handle(1));
    }
    let scheme = select_scheme(&key, requested).map_err(|e| e.parameter(2))?;
    let alg = hash_alg(scheme.hash).ok_or(ResponseCode::SCHEME.parameter(2))?;
    if key.has(TpmaObject::RESTRICTED) || !validation.digest.is_empty() {
        let expected = ticket::hash_check(cx.state, validation.hierarchy, scheme.hash, &digest);
        if !ticket::is_same(&validation, &expected) {
            return Err(ResponseCode::TICKET.parameter(3));
        }
    }
    if digest.len() != alg.digest_size() {
        return Err(ResponseCode::SIZE.parameter(1));
    }
    Ok(Output::of(&signing::sign(cx, &key, scheme, &digest)?))
}

#[cfg(test)]
mod tests {
    use crate::signing::test_keys::*;
    use crate::testing::{Raw, TestTpm};
    use crate::ticket;
    use vtpm_protocol::codec::{Encode, decode_exact};
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::*;

    fn digest(n: usize) -> Tpm2bDigest {
        Tpm2bDigest::new(vec![0x5a; n]).unwrap()
    }

    fn sign(
        tpm: &mut TestTpm,
        key: TpmHandle,
        digest: &Tpm2bDigest,
        scheme: Scheme,
        validation: &TpmtTk,
    ) -> Result<TpmtSignature, ResponseCode> {
        let input = (digest, TpmtSigScheme(scheme), validation);
        let (_, out) = tpm.run_with(TpmCc::SIGN, &[key], &[AUTH], &input)?;
        Ok(decode_exact(&out).unwrap())
    }

    fn verify(
        tpm: &mut TestTpm,
        key: TpmHandle,
        digest: &Tpm2bDigest,
        sig: &TpmtSignature,
    ) -> Result<(), ResponseCode> {
        tpm.run(TpmCc::VERIFY_SIGNATURE, &[key], &(digest, sig)).map(drop)
    }

    const NULL_TICKET: TpmtTk = TpmtTk::null(TpmSt::HASHCHECK);
    const ECDSA: Scheme = Scheme::new(TpmAlgId::ECDSA, TpmAlgId::SHA256);

    #[test]
    fn every_scheme_with_every_hash_makes_a_signature_that_verifies_over_this_digest_only() {
        let mut tpm = TestTpm::started();
        let mut keys = vec![
            (rsa(Scheme::NULL), [TpmAlgId::RSASSA, TpmAlgId::RSAPSS].as_slice()),
            (keyed_hash(Scheme::NULL), &[TpmAlgId::HMAC]),
        ];
        keys.extend(ECC_CURVES.map(|curve| {
            let schemes = [TpmAlgId::ECDSA, TpmAlgId::ECSCHNORR, TpmAlgId::SM2].as_slice();
            (ecc_on(curve, Scheme::NULL), schemes)
        }));
        for (key, schemes) in keys {
            tpm.state().transient.clear();
            let key = load(&mut tpm, key);
            for &scheme in schemes {
                for &hash in HASH_ALGS {
                    let digest = digest(hash_size(hash).unwrap());
                    let sig = sign(&mut tpm, key, &digest, Scheme::new(scheme, hash), &NULL_TICKET).unwrap();
                    assert_eq!(verify(&mut tpm, key, &digest, &sig), Ok(()), "{scheme:?} {hash:?}");
                    let mut other = digest.to_vec();
                    other[0] ^= 1;
                    let other = Tpm2bDigest::new(other).unwrap();
                    let expected = Err(ResponseCode::SIGNATURE.parameter(2));
                    assert_eq!(verify(&mut tpm, key, &other, &sig), expected, "{scheme:?} {hash:?}");
                }
            }
        }
    }

    #[test]
    fn the_key_s_scheme_may_be_repeated_or_left_out_but_not_changed() {
        let mut tpm = TestTpm::started();
        let key = load(&mut tpm, ecc(ECDSA));
        assert!(sign(&mut tpm, key, &digest(32), Scheme::NULL, &NULL_TICKET).is_ok());
        assert!(sign(&mut tpm, key, &digest(32), ECDSA, &NULL_TICKET).is_ok());
        for other in [
            Scheme::new(TpmAlgId::ECDSA, TpmAlgId::SHA384),
            Scheme::new(TpmAlgId::ECSCHNORR, TpmAlgId::SHA256),
            Scheme::new(TpmAlgId::RSASSA, TpmAlgId::SHA256),
        ] {
            assert_eq!(
                sign(&mut tpm, key, &digest(32), other, &NULL_TICKET),
                Err(ResponseCode::SCHEME.parameter(2))
            );
        }
    }

    #[test]
    fn a_scheme_is_needed_and_must_fit_the_type_of_the_key() {
        let mut tpm = TestTpm::started();
        let scheme_error = Err(ResponseCode::SCHEME.parameter(2));
        for key in [rsa(Scheme::NULL), ecc(Scheme::NULL), keyed_hash(Scheme::NULL)] {
            let fitting = match key.public.parms.alg() {
                TpmAlgId::RSA => TpmAlgId::RSASSA,
                TpmAlgId::ECC => TpmAlgId::ECDSA,
                _ => TpmAlgId::HMAC,
            };
            let key = load(&mut tpm, key);
            assert_eq!(sign(&mut tpm, key, &digest(32), Scheme::NULL, &NULL_TICKET), scheme_error);
            for scheme in [TpmAlgId::RSASSA, TpmAlgId::ECDSA, TpmAlgId::HMAC] {
                let result =
                    sign(&mut tpm, key, &digest(32), Scheme::new(scheme, TpmAlgId::SHA256), &NULL_TICKET);
                if scheme == fitting { assert!(result.is_ok()) } else { assert_eq!(result, scheme_error) }
            }
        }
        tpm.state().transient.clear();
        let key = load(&mut tpm, rsa(Scheme::new(TpmAlgId::OAEP, TpmAlgId::SHA256)));
        assert_eq!(sign(&mut tpm, key, &digest(32), Scheme::NULL, &NULL_TICKET), scheme_error);
    }

    #[test]
    fn a_restricted_key_signs_with_the_ticket_of_this_digest_only() {
        let mut tpm = TestTpm::started();
        let key = load(&mut tpm, restricted(ecc(ECDSA)));
        let digest = digest(32);
        let refused = Err(ResponseCode::TICKET.parameter(3));
        let ticket = ticket::hash_check(tpm.state(), TpmHandle::OWNER, TpmAlgId::SHA256, &digest);
        assert!(sign(&mut tpm, key, &digest, Scheme::NULL, &ticket).is_ok());
        assert_eq!(sign(&mut tpm, key, &digest, Scheme::NULL, &NULL_TICKET), refused);

        let other = Tpm2bDigest::new(vec![1; 32]).unwrap();
        assert_eq!(sign(&mut tpm, key, &other, Scheme::NULL, &ticket), refused);
        let elsewhere = TpmtTk { hierarchy: TpmHandle::PLATFORM, ..ticket.clone() };
        assert_eq!(sign(&mut tpm, key, &digest, Scheme::NULL, &elsewhere), refused);
        let wrong_hash = ticket::hash_check(tpm.state(), TpmHandle::OWNER, TpmAlgId::SHA512, &digest);
        assert_eq!(sign(&mut tpm, key, &digest, Scheme::NULL, &wrong_hash), refused);
    }

    #[test]
    fn a_ticket_counts_for_any_key_and_has_the_form_of_one() {
        let mut tpm = TestTpm::started();
        let key = load(&mut tpm, ecc(ECDSA));
        let good = ticket::hash_check(tpm.state(), TpmHandle::OWNER, TpmAlgId::SHA256, &digest(32));
        let mut tampered = good.digest.to_vec();
        tampered[0] ^= 1;
        let tampered = TpmtTk { digest: Tpm2bDigest::new(tampered).unwrap(), ..good.clone() };
        let kind = TpmtTk { tag: TpmSt::VERIFIED, ..good.clone() };
        let hierarchy = TpmtTk { hierarchy: TpmHandle::LOCKOUT, ..good.clone() };
        for (ticket, rc) in
            [(tampered, ResponseCode::TICKET), (kind, ResponseCode::TAG), (hierarchy, ResponseCode::VALUE)]
        {
            let result = sign(&mut tpm, key, &digest(32), Scheme::NULL, &ticket);
            assert_eq!(result, Err(rc.parameter(3)));
        }
    }

    #[test]
    fn a_digest_of_another_length_than_the_hash_has_is_refused() {
        let mut tpm = TestTpm::started();
        let key = load(&mut tpm, keyed_hash(Scheme::NULL));
        let scheme = Scheme::new(TpmAlgId::HMAC, TpmAlgId::SHA256);
        for n in [0, 31, 33, 64] {
            let result = sign(&mut tpm, key, &digest(n), scheme, &NULL_TICKET);
            assert_eq!(result, Err(ResponseCode::SIZE.parameter(1)));
        }
    }

    #[test]
    fn keys_that_are_not_for_signing_digests_do_not() {
        let mut tpm = TestTpm::started();
        let storage = load(&mut tpm, without(ecc(ECDSA), TpmaObject::SIGN_ENCRYPT));
        let cipher = load(&mut tpm, symmetric());
        for key in [storage, cipher] {
            let result = sign(&mut tpm, key, &digest(32), ECDSA, &NULL_TICKET);
            assert_eq!(result, Err(ResponseCode::KEY.handle(1)));
        }
        let x509 = load(&mut tpm, with(ecc(ECDSA), TpmaObject::X509_SIGN));
        let result = sign(&mut tpm, x509, &digest(32), ECDSA, &NULL_TICKET);
        assert_eq!(result, Err(ResponseCode::ATTRIBUTES.handle(1)));
    }

    #[test]
    fn the_key_has_to_be_authorized() {
        let mut tpm = TestTpm::started();
        let key = load(&mut tpm, ecc(ECDSA));
        let input = (digest(32), TpmtSigScheme(Scheme::NULL), NULL_TICKET);
        let mut rc =
            |key, passwords: &[&[u8]]| tpm.run_with(TpmCc::SIGN, &[key], passwords, &input).map(drop);
        assert_eq!(rc(key, &[]), Err(ResponseCode::AUTH_MISSING));
        assert_eq!(rc(key, &[b"wrong"]), Err(ResponseCode::AUTH_FAIL.session(1)));
        assert_eq!(rc(key, &[AUTH]), Ok(()));
        assert_eq!(rc(TpmHandle(0x8000_0002), &[AUTH]), Err(ResponseCode::REFERENCE_H0));
        let public = load(&mut tpm, public_only(ecc(ECDSA)));
        let policy_only = load(&mut tpm, without(ecc(ECDSA), TpmaObject::USER_WITH_AUTH));
        let mut rc = |key| tpm.run_with(TpmCc::SIGN, &[key], &[AUTH], &input).map(drop);
        assert_eq!(rc(public), Err(ResponseCode::AUTH_UNAVAILABLE));
        assert_eq!(rc(policy_only), Err(ResponseCode::AUTH_UNAVAILABLE));
    }

    #[test]
    fn a_private_part_of_another_key_signs_nothing() {
        let mut tpm = TestTpm::started();
        let mut mixed = rsa(Scheme::new(TpmAlgId::RSASSA, TpmAlgId::SHA256));
        let sensitive = mixed.sensitive.as_mut().unwrap();
        let SensitiveComposite::Rsa(prime) = &sensitive.sensitive else { panic!() };
        let mut other = prime.expose().to_vec();
        other[64] ^= 1;
        sensitive.sensitive = SensitiveComposite::Rsa(Secret2b::new(other).unwrap());
        let key = load(&mut tpm, mixed);
        let result = sign(&mut tpm, key, &digest(32), Scheme::NULL, &NULL_TICKET);
        assert_eq!(result, Err(ResponseCode::BINDING));
    }

    #[test]
    fn a_commitment_that_was_not_made_signs_nothing() {
        let mut tpm = TestTpm::started();
        let ecdaa = Scheme::new(TpmAlgId::ECDAA, TpmAlgId::SHA256);
        let key = load(&mut tpm, ecc(ecdaa));
        let result = sign(&mut tpm, key, &digest(32), Scheme { count: 1, ..ecdaa }, &NULL_TICKET);
        assert_eq!(result, Err(ResponseCode::VALUE));
    }

    #[test]
    fn parameters_are_whole_and_of_known_algorithms() {
        let mut tpm = TestTpm::started();
        let key = load(&mut tpm, ecc(Scheme::NULL));
        let mut rc = |bytes: &[u8]| tpm.run_with(TpmCc::SIGN, &[key], &[AUTH], &Raw(bytes)).unwrap_err();
        let digest = digest(32).to_bytes();
        let scheme = TpmtSigScheme(ECDSA).to_bytes();
        let ticket = NULL_TICKET.to_bytes();
        for (n, (before, cut)) in (1..).zip([
            (vec![], &digest),
            (digest.clone(), &scheme),
            ([&digest[..], &scheme].concat(), &ticket),
        ]) {
            for keep in 0..cut.len() {
                let bytes = [&before, &cut[..keep]].concat();
                assert_eq!(rc(&bytes), ResponseCode::INSUFFICIENT.parameter(n), "{n} {keep}");
            }
        }
        assert_eq!(rc(&[&digest[..], &scheme, &ticket, &[0]].concat()), ResponseCode::SIZE);
        assert_eq!(rc(&[0, 65]), ResponseCode::SIZE.parameter(1));
        assert_eq!(rc(&[&digest[..], &[0, 6]].concat()), ResponseCode::SCHEME.parameter(2));
        assert_eq!(rc(&[&digest[..], &[0, 0x18, 0, 0x0a]].concat()), ResponseCode::HASH.parameter(2));
    }
}
