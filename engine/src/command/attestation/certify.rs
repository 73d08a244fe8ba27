//! `TPM2_Certify` (Part 3, 18.2).

use super::{Signer, attest};
use crate::command::{Context, Output, parameters};
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Attested, Tpm2bData, Tpm2bName, TpmtSigScheme};

/// Signs Name and Qualified Name of a loaded object: proof that this TPM holds it. Under an anonymous scheme the Qualified Name, which would
/// link the object to its hierarchy, is left out.
///
/// # Errors
/// Those of [`Signer::new`] and [`attest`].
pub fn certify(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (qualifying_data, TpmtSigScheme(requested)): (Tpm2bData, _) = parameters(r)?;
    let signer = Signer::new(cx, 1, requested, 2)?;
    let object = cx.state.object(cx.handle(0)?)?;
    let qualified_name =
        if signer.is_anonymous() { Tpm2bName::empty() } else { object.qualified_name.clone() };
    let attested = Attested::Certify { name: object.name.clone(), qualified_name };
    Ok(Output::of(&attest(cx, &signer, qualifying_data, attested)?))
}

#[cfg(test)]
mod tests {
    use crate::command::attestation::testing::*;
    use crate::crypto::{Curve, HashAlg, Point, ecc as curves};
    use crate::secret::point;
    use crate::signing::test_keys::*;
    use crate::testing::TestTpm;
    use crate::testing::objects::{create_primary, ecc_storage_key, flush};
    use vtpm_protocol::codec::decode_exact;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::*;

    fn input(scheme: Scheme) -> (Tpm2bData, TpmtSigScheme) {
        (nonce(), TpmtSigScheme(scheme))
    }

    fn certify(tpm: &mut TestTpm, object: TpmHandle, key: TpmHandle) -> Result<Attestation, ResponseCode> {
        attestation(tpm, TpmCc::CERTIFY, &[object, key], &[AUTH, AUTH], &input(Scheme::NULL))
    }

    #[test]
    fn names_of_the_object_are_signed_by_any_kind_of_key() {
        let mut tpm = TestTpm::started();
        let object = load(&mut tpm, without(ecc(Scheme::NULL), TpmaObject::USER_WITH_AUTH));
        for key in [
            ecc(ECDSA),
            restricted(rsa(Scheme::new(TpmAlgId::RSASSA, TpmAlgId::SHA384))),
            keyed_hash(Scheme::new(TpmAlgId::HMAC, TpmAlgId::SHA256)),
        ] {
            let key = load(&mut tpm, key);
            let out = certify(&mut tpm, object, key).unwrap();
            out.check(&mut tpm, key, &nonce());
            let certified = tpm.state().object(object).unwrap().clone();
            let expected = Attested::Certify {
                name: certified.name.clone(),
                qualified_name: certified.qualified_name.clone(),
            };
            assert_eq!(out.attest.attested, expected);
            flush(&mut tpm, key);
        }
    }

    #[test]
    fn without_a_signer_there_is_no_signature() {
        let mut tpm = TestTpm::started();
        let object = load(&mut tpm, ecc(ECDSA));
        let wrong_for_any_key = input(Scheme::new(TpmAlgId::HMAC, TpmAlgId::SHA1));
        let handles = [object, TpmHandle::NULL];
        let out = attestation(&mut tpm, TpmCc::CERTIFY, &handles, &[AUTH, b""], &wrong_for_any_key).unwrap();
        assert_eq!(out.signature, TpmtSignature::Null);
        assert_eq!(out.attest.qualified_signer.as_slice(), TpmHandle::NULL.0.to_be_bytes());
        assert_eq!(out.attest.extra_data, nonce());
        assert_ne!(out.attest.firmware_version, crate::command::attestation::FIRMWARE_VERSION);
    }

    #[test]
    fn the_object_is_authorized_in_the_admin_role() {
        let mut tpm = TestTpm::started();
        let key = load(&mut tpm, ecc(ECDSA));
        let object = load(&mut tpm, with(rsa(Scheme::NULL), TpmaObject::ADMIN_WITH_POLICY));
        assert_eq!(certify(&mut tpm, object, key).map(drop), Err(ResponseCode::AUTH_TYPE.session(1)));
        let run = |tpm: &mut TestTpm, passwords: &[&[u8]]| {
            attestation(tpm, TpmCc::CERTIFY, &[key, key], passwords, &input(Scheme::NULL)).map(drop)
        };
        assert_eq!(run(&mut tpm, &[]), Err(ResponseCode::AUTH_MISSING));
        assert_eq!(run(&mut tpm, &[AUTH]), Err(ResponseCode::AUTH_MISSING));
        assert_eq!(run(&mut tpm, &[b"no", AUTH]), Err(ResponseCode::AUTH_FAIL.session(1)));
        assert_eq!(run(&mut tpm, &[AUTH, b"no"]), Err(ResponseCode::AUTH_FAIL.session(2)));
        assert_eq!(run(&mut tpm, &[AUTH, AUTH]), Ok(()));
        let public = load(&mut tpm, public_only(ecc(ECDSA)));
        assert_eq!(certify(&mut tpm, public, key).map(drop), Err(ResponseCode::AUTH_UNAVAILABLE.session(1)));
    }

    #[test]
    fn keys_that_do_not_sign_and_schemes_that_do_not_fit_are_refused() {
        let mut tpm = TestTpm::started();
        let object = load(&mut tpm, ecc(ECDSA));
        for key in [without(ecc(Scheme::NULL), TpmaObject::SIGN_ENCRYPT), symmetric()] {
            let key = load(&mut tpm, key);
            assert_eq!(certify(&mut tpm, object, key).map(drop), Err(ResponseCode::KEY.handle(2)));
            flush(&mut tpm, key);
        }
        let no_scheme = load(&mut tpm, rsa(Scheme::NULL));
        let rc = certify(&mut tpm, object, no_scheme).map(drop);
        assert_eq!(rc, Err(ResponseCode::SCHEME.parameter(2)));
        let other = input(Scheme::new(TpmAlgId::ECDSA, TpmAlgId::SHA384));
        let rc = attestation(&mut tpm, TpmCc::CERTIFY, &[no_scheme, object], &[AUTH, AUTH], &other);
        assert_eq!(rc.map(drop), Err(ResponseCode::SCHEME.parameter(2)));
    }

    #[test]
    fn a_signature_voids_a_shutdown_before_it() {
        let mut tpm = TestTpm::started();
        let key = load(&mut tpm, ecc(ECDSA));
        tpm.run(TpmCc::SHUTDOWN, &[], &TpmSu::STATE).unwrap();
        certify(&mut tpm, key, key).unwrap();
        tpm.init();
        let resumed = tpm.run(TpmCc::STARTUP, &[], &TpmSu::STATE);
        assert_eq!(resumed, Err(ResponseCode::VALUE.parameter(1)));
    }

    #[test]
    fn an_anonymous_signature_names_neither_signer_nor_the_object_s_ancestors() {
        let ecdaa = Scheme::new(TpmAlgId::ECDAA, TpmAlgId::SHA256);
        let mut tpm = TestTpm::started();
        let object = load(&mut tpm, ecc(ECDSA));
        let signer = in_hierarchy(restricted(ecc(ecdaa)), TpmHandle::ENDORSEMENT);
        let key = load(&mut tpm, signer.clone());
        let none = Sized2b(TpmsEccPoint::default());
        let (_, out) = tpm.run_with(TpmCc::COMMIT, &[key], &[AUTH], &(none, 0u16, 0u16)).unwrap();
        let (_, _, Sized2b(e), count): (Tpm2bEccPoint, Tpm2bEccPoint, Tpm2bEccPoint, u16) =
            decode_exact(&out).unwrap();

        // Which commitment it is to use up, the caller has to say.
        let rc = certify(&mut tpm, object, key).map(drop);
        assert_eq!(rc, Err(ResponseCode::SCHEME.parameter(2)));
        let input = input(Scheme { count, ..ecdaa });
        let out = attestation(&mut tpm, TpmCc::CERTIFY, &[object, key], &[AUTH, AUTH], &input).unwrap();
        assert!(out.attest.qualified_signer.is_empty() && out.attest.extra_data.is_empty());
        let name = tpm.state().object(object).unwrap().name.clone();
        let attested = Attested::Certify { name, qualified_name: Tpm2bName::empty() };
        assert_eq!(out.attest.attested, attested);
        // The caller's data is in the digest that was signed.
        let TpmtSignature::Ecc { scheme: TpmAlgId::ECDAA, r, s, .. } = &out.signature else { panic!() };
        let sha256 = HashAlg::Sha256;
        let digest = sha256.digest(&[&nonce(), &sha256.digest(&[&out.bytes])]);
        let t = sha256.digest(&[r, &digest]);
        let PublicId::Ecc(q) = &signer.public.unique else { panic!() };
        let parameters = Curve::NistP256.parameters();
        let generator = Point { x: parameters.gx.to_vec(), y: parameters.gy.to_vec() };
        assert!(curves::tests::is_sum(Curve::NistP256, (s, &generator), &point(&e), (&t, &point(q))));
    }

    /// CVE-2026-6726: an attestation carried data of an object that was no longer there.
    #[test]
    fn cve_2026_6726_nothing_of_a_flushed_object_is_attested() {
        let mut tpm = TestTpm::started();
        let key = load(&mut tpm, ecc(ECDSA));
        let first = create_primary(&mut tpm, TpmHandle::OWNER, ecc_storage_key()).unwrap();
        let certify = |tpm: &mut TestTpm, object| {
            attestation(tpm, TpmCc::CERTIFY, &[object, key], &[b"", AUTH], &input(Scheme::NULL))
        };
        certify(&mut tpm, first.handle).unwrap();
        flush(&mut tpm, first.handle);
        let handles = [first.handle, key];
        assert_eq!(certify(&mut tpm, first.handle).map(drop), Err(ResponseCode::REFERENCE_H0));
        // As the signer, too.
        let as_signer =
            attestation(&mut tpm, TpmCc::CERTIFY, &[key, first.handle], &[AUTH, b""], &input(Scheme::NULL));
        assert_eq!(as_signer.map(drop), Err(ResponseCode::REFERENCE_H1));
        // Another object in the same slot is attested as what it is.
        let second = create_primary(&mut tpm, TpmHandle::PLATFORM, ecc_storage_key()).unwrap();
        assert_eq!(second.handle, handles[0]);
        let out = certify(&mut tpm, second.handle).unwrap();
        let Attested::Certify { name, qualified_name } = out.attest.attested else { panic!() };
        let object = tpm.state().object(second.handle).unwrap();
        assert_eq!((&name, &qualified_name), (&object.name, &object.qualified_name));
        assert_ne!(name, first.name);
        // Clear flushes the objects of the owner; what signed before does not sign any more.
        tpm.run_with(TpmCc::CLEAR, &[TpmHandle::LOCKOUT], &[b""], &()).unwrap();
        assert_eq!(certify(&mut tpm, second.handle).map(drop), Err(ResponseCode::REFERENCE_H1));
    }
}
