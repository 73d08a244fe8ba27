use crate::testing::TestTpm;
use crate::testing::objects::*;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::*;

/// Both areas of a duplicable object of a template.
fn areas(tpm: &mut TestTpm, template: TpmtPublic) -> (TpmtPublic, TpmtSensitive) {
    let primary = create_primary(tpm, TpmHandle::OWNER, duplicable(template)).unwrap();
    let sensitive = tpm.state().object(primary.handle).unwrap().sensitive.clone().unwrap();
    flush(tpm, primary.handle);
    (primary.public, sensitive)
}

fn rc(
    tpm: &mut TestTpm,
    sensitive: Option<&TpmtSensitive>,
    public: &TpmtPublic,
    hierarchy: TpmHandle,
) -> Result<(), ResponseCode> {
    load_external(tpm, sensitive.cloned(), public, hierarchy).map(|h| flush(tpm, h))
}

#[test]
fn loads_public_areas_into_any_hierarchy_and_both_areas_into_null() {
    let mut tpm = TestTpm::started();
    for template in [ecc_signing_key(), rsa_signing_key(), hmac_key(), symmetric_key()] {
        let (public, sensitive) = areas(&mut tpm, template);
        for hierarchy in [TpmHandle::OWNER, TpmHandle::ENDORSEMENT, TpmHandle::PLATFORM, TpmHandle::NULL] {
            assert_eq!(rc(&mut tpm, None, &public, hierarchy), Ok(()));
            let expected = match hierarchy {
                TpmHandle::NULL => Ok(()),
                _ => Err(ResponseCode::HIERARCHY.parameter(3)),
            };
            assert_eq!(rc(&mut tpm, Some(&sensitive), &public, hierarchy), expected);
        }
        let handle = load_external(&mut tpm, Some(sensitive), &public, TpmHandle::NULL).unwrap();
        let object = tpm.state().object(handle).unwrap();
        assert_eq!(object.name, object.qualified_name);
        assert!(object.flags.external && !object.flags.public_only && !object.is_parent());
        flush(&mut tpm, handle);
    }
    let (public, _) = areas(&mut tpm, ecc_signing_key());
    tpm.state().volatile_mut().state_clear.eh_enable = false;
    tpm.resave();
    let disabled = rc(&mut tpm, None, &public, TpmHandle::ENDORSEMENT);
    assert_eq!(disabled, Err(ResponseCode::HIERARCHY.parameter(3)));
    assert_eq!(rc(&mut tpm, None, &public, TpmHandle::LOCKOUT), Err(ResponseCode::VALUE.parameter(3)));
}

#[test]
fn a_sensitive_area_does_not_come_with_claims_of_having_been_protected() {
    let mut tpm = TestTpm::started();
    let (public, sensitive) = areas(&mut tpm, ecc_signing_key());
    for claim in [TpmaObject::FIXED_TPM, TpmaObject::FIXED_PARENT, TpmaObject::RESTRICTED] {
        let public = with(public.clone(), claim);
        let expected = Err(ResponseCode::ATTRIBUTES.parameter(2));
        assert_eq!(rc(&mut tpm, Some(&sensitive), &public, TpmHandle::NULL), expected);
    }
    // A public area alone may carry them: it is that of a key elsewhere.
    let public = with(public, TpmaObject::FIXED_TPM | TpmaObject::FIXED_PARENT | TpmaObject::RESTRICTED);
    assert_eq!(rc(&mut tpm, None, &public, TpmHandle::OWNER), Ok(()));
}

#[test]
fn areas_of_two_keys_are_not_bound() {
    let mut tpm = TestTpm::started();
    for template in [ecc_signing_key(), rsa_signing_key(), hmac_key(), symmetric_key()] {
        let (public, _) = areas(&mut tpm, template.clone());
        let (_, other) = areas(&mut tpm, with(template, TpmaObject::NO_DA));
        assert_eq!(rc(&mut tpm, Some(&other), &public, TpmHandle::NULL), Err(ResponseCode::BINDING));
    }
}

#[test]
fn without_a_name_algorithm_there_is_no_name_and_no_binding_but_for_rsa() {
    let mut tpm = TestTpm::started();
    for template in [ecc_signing_key(), rsa_signing_key(), hmac_key(), symmetric_key()] {
        let rsa = template.parms.alg() == TpmAlgId::RSA;
        let (public, sensitive) = areas(&mut tpm, template.clone());
        let nameless = TpmtPublic { name_alg: TpmAlgId::NULL, ..public };
        let handle = load_external(&mut tpm, Some(sensitive), &nameless, TpmHandle::NULL).unwrap();
        assert!(tpm.state().object(handle).unwrap().name.is_empty());
        flush(&mut tpm, handle);
        let (_, other) = areas(&mut tpm, with(template, TpmaObject::NO_DA));
        let expected = if rsa { Err(ResponseCode::BINDING) } else { Ok(()) };
        assert_eq!(rc(&mut tpm, Some(&other), &nameless, TpmHandle::NULL), expected);
    }
}

#[test]
fn public_areas_are_checked_for_what_they_are() {
    let mut tpm = TestTpm::started();
    let (public, _) = areas(&mut tpm, ecc_signing_key());
    let PublicId::Ecc(point) = public.unique.clone() else { panic!() };
    let mut y = point.y.to_vec();
    y[31] ^= 1;
    let coordinate = |b: &[u8]| Tpm2bEccParameter::new(b).unwrap();
    for (x, y, expected) in [
        (coordinate(&point.x), coordinate(&y), ResponseCode::ECC_POINT),
        (coordinate(&point.x[1..]), coordinate(&point.y), ResponseCode::KEY),
        (Tpm2bEccParameter::empty(), Tpm2bEccParameter::empty(), ResponseCode::KEY),
        (coordinate(&[0; 32]), coordinate(&[0; 32]), ResponseCode::ECC_POINT),
    ] {
        let bad = TpmtPublic { unique: PublicId::Ecc(TpmsEccPoint { x, y }), ..public.clone() };
        assert_eq!(rc(&mut tpm, None, &bad, TpmHandle::OWNER), Err(expected.parameter(2)));
    }

    let (public, sensitive) = areas(&mut tpm, rsa_signing_key());
    let PublicId::Rsa(n) = public.unique.clone() else { panic!() };
    let modulus = |b: &[u8]| PublicId::Rsa(Tpm2bPublicKeyRsa::new(b).unwrap());
    let (mut even, mut low) = (n.to_vec(), n.to_vec());
    even[255] &= 0xfe;
    low[0] &= 0x7f;
    for unique in [modulus(&n[1..]), modulus(&low), modulus(&even), modulus(&[])] {
        let bad = TpmtPublic { unique, ..public.clone() };
        assert_eq!(rc(&mut tpm, None, &bad, TpmHandle::OWNER), Err(ResponseCode::KEY.parameter(2)));
        assert_eq!(
            rc(&mut tpm, Some(&sensitive), &bad, TpmHandle::NULL),
            Err(ResponseCode::KEY.parameter(2))
        );
    }
    for (e, expected) in [
        (3, Err(ResponseCode::VALUE.parameter(2))),
        (17, Ok(())),
        (18, Err(ResponseCode::VALUE.parameter(2))),
    ] {
        let mut other = public.clone();
        if let PublicParms::Rsa { exponent, .. } = &mut other.parms {
            *exponent = e;
        }
        assert_eq!(rc(&mut tpm, None, &other, TpmHandle::OWNER), expected);
    }

    let (public, _) = areas(&mut tpm, hmac_key());
    let unique = PublicId::Digest(Tpm2bDigest::new(vec![1; 31]).unwrap());
    let bad = TpmtPublic { unique, ..public };
    assert_eq!(rc(&mut tpm, None, &bad, TpmHandle::OWNER), Err(ResponseCode::KEY.parameter(2)));
}

#[test]
fn sensitive_areas_are_checked_for_what_they_are() {
    let mut tpm = TestTpm::started();
    let null = TpmHandle::NULL;
    let (public, good) = areas(&mut tpm, ecc_signing_key());
    let d = |b: &[u8]| SensitiveComposite::Ecc(Secret2b::new(b).unwrap());
    for bad in [d(&[0; 32]), d(&[0xff; 32]), d(&[])] {
        let bad = TpmtSensitive { sensitive: bad, ..good.clone() };
        assert_eq!(rc(&mut tpm, Some(&bad), &public, null), Err(ResponseCode::KEY_SIZE));
    }
    let auth_value = Tpm2bAuth::new(vec![1; 33]).unwrap();
    let long = TpmtSensitive { auth_value, ..good.clone() };
    assert_eq!(rc(&mut tpm, Some(&long), &public, null), Err(ResponseCode::SIZE.parameter(1)));
    let (rsa, prime) = areas(&mut tpm, rsa_signing_key());
    assert_eq!(rc(&mut tpm, Some(&good), &rsa, null), Err(ResponseCode::TYPE.parameter(1)));
    let p = |b: &[u8]| SensitiveComposite::Rsa(Secret2b::new(b).unwrap());
    let bytes = prime.sensitive.expose().to_vec();
    for bad in [p(&bytes[1..]), p(&[0; 128]), p(&[])] {
        let bad = TpmtSensitive { sensitive: bad, ..prime.clone() };
        assert_eq!(rc(&mut tpm, Some(&bad), &rsa, null), Err(ResponseCode::KEY_SIZE.parameter(1)));
    }
    let (cipher, key) = areas(&mut tpm, symmetric_key());
    let long = SensitiveComposite::Sym(Secret2b::new(vec![1; 32]).unwrap());
    let bad = TpmtSensitive { sensitive: long, ..key };
    assert_eq!(rc(&mut tpm, Some(&bad), &cipher, null), Err(ResponseCode::KEY_SIZE.parameter(1)));
}

#[test]
fn padded_authorization_values_lose_their_zeros() {
    let mut tpm = TestTpm::started();
    let (public, good) = areas(&mut tpm, hmac_key());
    let mut auth = b"pw".to_vec();
    auth.resize(32, 0);
    let sensitive = TpmtSensitive { auth_value: Tpm2bAuth::new(auth).unwrap(), ..good };
    let handle = load_external(&mut tpm, Some(sensitive), &public, TpmHandle::NULL).unwrap();
    assert_eq!(tpm.state().auth_value(handle).unwrap().expose(), b"pw");
}

#[test]
fn the_schemes_of_a_public_area_are_checked_and_with_a_sensitive_area_the_rest() {
    let mut tpm = TestTpm::started();
    let (public, sensitive) = areas(&mut tpm, ecc_signing_key());
    let ecc = |symmetric, scheme, kdf| {
        let parms = PublicParms::Ecc { symmetric, scheme, curve: TpmEccCurve::NIST_P256, kdf };
        TpmtPublic { parms, ..public.clone() }
    };
    let null = Scheme::NULL;
    let scheme = |alg| Scheme::new(alg, TpmAlgId::SHA256);
    let (sign, decrypt) = (TpmaObject::SIGN_ENCRYPT, TpmaObject::DECRYPT);
    let storage = with(without(ecc(NO_SYM, null, null), sign), decrypt | TpmaObject::RESTRICTED);
    let attributes = Some(ResponseCode::ATTRIBUTES);
    for (bad, alone, with_sensitive) in [
        (ecc(NO_SYM, scheme(TpmAlgId::ECDH), null), Some(ResponseCode::SCHEME), Some(ResponseCode::SCHEME)),
        (ecc(AES_128, null, null), Some(ResponseCode::SYMMETRIC), Some(ResponseCode::SYMMETRIC)),
        (ecc(NO_SYM, null, scheme(TpmAlgId::MGF1)), Some(ResponseCode::KDF), Some(ResponseCode::KDF)),
        (storage, Some(ResponseCode::SYMMETRIC), attributes),
        (with(ecc(NO_SYM, null, null), TpmaObject::RESTRICTED), Some(ResponseCode::SCHEME), attributes),
        // These a public area alone may have.
        (
            TpmtPublic { auth_policy: Tpm2bDigest::new([1; 20]).unwrap(), ..public.clone() },
            None,
            Some(ResponseCode::SIZE),
        ),
        (without(ecc(NO_SYM, null, null), sign), None, attributes),
        (with(public.clone(), TpmaObject::FIRMWARE_LIMITED), None, attributes),
        (with(public.clone(), TpmaObject::ENCRYPTED_DUPLICATION), None, None),
        (with(public.clone(), TpmaObject::ST_CLEAR | TpmaObject::ADMIN_WITH_POLICY), None, None),
    ] {
        let code = |rc: Option<ResponseCode>| rc.map_or(Ok(()), |rc| Err(rc.parameter(2)));
        assert_eq!(rc(&mut tpm, None, &bad, TpmHandle::OWNER), code(alone), "{bad:?}");
        assert_eq!(rc(&mut tpm, Some(&sensitive), &bad, TpmHandle::NULL), code(with_sensitive), "{bad:?}");
    }
    let unknown = TpmtPublic { name_alg: TpmAlgId(0x7fff), ..public };
    assert_eq!(rc(&mut tpm, None, &unknown, TpmHandle::OWNER), Err(ResponseCode::HASH.parameter(2)));
}

#[test]
fn a_full_memory_is_told_before_anything_else() {
    let mut tpm = TestTpm::started();
    let (public, sensitive) = areas(&mut tpm, hmac_key());
    for _ in 0..3 {
        load_external(&mut tpm, None, &public, TpmHandle::OWNER).unwrap();
    }
    let full = Err(ResponseCode::OBJECT_MEMORY);
    assert_eq!(rc(&mut tpm, None, &public, TpmHandle::OWNER), full);
    assert_eq!(rc(&mut tpm, Some(&sensitive), &public, TpmHandle::OWNER), full);
}
