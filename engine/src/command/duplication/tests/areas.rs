//! Import of public and sensitive areas that everyone can make, and new parents that no secret fits into.

use super::*;

/// Both areas of a duplicable object of a template.
fn areas(tpm: &mut TestTpm, template: TpmtPublic) -> (TpmtPublic, TpmtSensitive) {
    let primary = create_primary(tpm, TpmHandle::OWNER, duplicable(template)).unwrap();
    let sensitive = tpm.state().object(primary.handle).unwrap().sensitive.clone().unwrap();
    flush(tpm, primary.handle);
    (primary.public, sensitive)
}

fn rc(
    tpm: &mut TestTpm,
    parent: TpmHandle,
    public: &TpmtPublic,
    sensitive: &TpmtSensitive,
) -> Result<(), ResponseCode> {
    import(tpm, parent, public, &key(b""), &clear(sensitive), NO_SYM).map(drop)
}

#[test]
fn a_fixed_parent_checks_the_public_area_and_another_does_when_it_is_loaded() {
    let mut tpm = TestTpm::started();
    let fixed = create_primary(&mut tpm, TpmHandle::OWNER, ecc_storage_key()).unwrap().handle;
    let group = create(&mut tpm, fixed, duplicable(ecc_storage_key()), b"", b"").unwrap();
    let group = load(&mut tpm, fixed, &group).unwrap();
    let (hmac, bits) = areas(&mut tpm, hmac_key());
    let (ecc, d) = areas(&mut tpm, ecc_signing_key());
    let (rsa, p) = areas(&mut tpm, rsa_signing_key());
    let null = Scheme::NULL;
    let of_ecc = |symmetric, kdf| {
        let parms = PublicParms::Ecc { symmetric, scheme: null, curve: TpmEccCurve::NIST_P256, kdf };
        TpmtPublic { parms, ..ecc.clone() }
    };
    let kdf = Scheme::new(TpmAlgId::MGF1, TpmAlgId::SHA256);
    let auth_policy = Tpm2bDigest::new([1; 20]).unwrap();
    let PublicId::Rsa(n) = &rsa.unique else { panic!() };
    let short = PublicId::Rsa(Tpm2bPublicKeyRsa::new(&n[1..]).unwrap());
    let other = PublicId::Digest(Tpm2bDigest::new([1; 32]).unwrap());
    let seedless = TpmtSensitive { seed_value: Tpm2bAuth::new([1; 31]).unwrap(), ..bits.clone() };
    let (sign, restricted) = (TpmaObject::SIGN_ENCRYPT, TpmaObject::RESTRICTED);
    let public = |code: ResponseCode| code.parameter(2);
    for (area, sensitive, expected) in [
        (TpmtPublic { parms: sealed_data().parms, ..hmac.clone() }, &bits, public(ResponseCode::SCHEME)),
        (TpmtPublic { auth_policy, ..hmac.clone() }, &bits, public(ResponseCode::SIZE)),
        (with(hmac.clone(), restricted | TpmaObject::DECRYPT), &bits, public(ResponseCode::ATTRIBUTES)),
        (with(hmac.clone(), TpmaObject::FIRMWARE_LIMITED), &bits, public(ResponseCode::ATTRIBUTES)),
        (without(of_ecc(NO_SYM, null), sign), &d, public(ResponseCode::ATTRIBUTES)),
        (of_ecc(AES_128, null), &d, public(ResponseCode::SYMMETRIC)),
        (of_ecc(NO_SYM, kdf), &d, public(ResponseCode::KDF)),
        (with(of_ecc(NO_SYM, null), restricted), &d, public(ResponseCode::SCHEME)),
        (TpmtPublic { unique: short, ..rsa.clone() }, &p, public(ResponseCode::KEY)),
        (TpmtPublic { unique: other, ..hmac.clone() }, &bits, ResponseCode::BINDING),
        (hmac.clone(), &seedless, ResponseCode::KEY_SIZE.parameter(3)),
        (hmac.clone(), &d, ResponseCode::TYPE.parameter(3)),
    ] {
        assert_eq!(rc(&mut tpm, fixed, &area, sensitive), Err(expected), "{area:?}");
        assert_eq!(rc(&mut tpm, group, &area, sensitive), Ok(()));
    }
    for (area, sensitive) in [(hmac, &bits), (ecc, &d), (rsa, &p)] {
        assert_eq!(rc(&mut tpm, fixed, &area, sensitive), Ok(()));
    }
}

#[test]
fn an_import_takes_no_slot_but_a_loaded_parent_with_its_private_part() {
    let mut tpm = TestTpm::started();
    let (public, sensitive) = areas(&mut tpm, hmac_key());
    let parent = create_primary(&mut tpm, TpmHandle::OWNER, ecc_storage_key()).unwrap();
    let alone = load_external(&mut tpm, None, &parent.public, TpmHandle::OWNER).unwrap();
    let derivation = create_primary(&mut tpm, TpmHandle::OWNER, derivation_parent()).unwrap().handle;
    assert_eq!(rc(&mut tpm, parent.handle, &public, &sensitive), Ok(()));
    assert_eq!(rc(&mut tpm, alone, &public, &sensitive), Err(ResponseCode::AUTH_UNAVAILABLE));
    assert_eq!(rc(&mut tpm, derivation, &public, &sensitive), Err(ResponseCode::TYPE.handle(1)));
}

/// RSA with 1024 bits has room for OAEP with SHA-384, but not for a digest of it inside, and with SHA-512 for nothing at all.
#[test]
fn a_new_parent_that_no_secret_fits_into_is_refused() {
    let mut p = pair(ecc_storage_key(), hmac_key());
    let PublicParms::Rsa { symmetric, scheme, exponent, .. } = rsa_storage_key().parms else { panic!() };
    let small = PublicParms::Rsa { symmetric, scheme, key_bits: 1024, exponent };
    let of = |name_alg| TpmtPublic { name_alg, parms: small.clone(), ..rsa_storage_key() };
    let [sha384, sha512] = [TpmAlgId::SHA384, TpmAlgId::SHA512].map(|alg| areas(&mut p.source, of(alg)).0);
    // Without a name algorithm there is no digest either, and nothing that says that a point is on its curve.
    let nameless = TpmtPublic { name_alg: TpmAlgId::NULL, ..areas(&mut p.source, ecc_storage_key()).0 };
    for (parent, expected) in
        [(sha384, ResponseCode::VALUE), (sha512, ResponseCode::HASH), (nameless, ResponseCode::KEY)]
    {
        let parent = load_external(&mut p.source, None, &parent, TpmHandle::OWNER).unwrap();
        let rc = duplicate(&mut p.source, p.object, parent, &key(b""), NO_SYM).map(|_| ());
        assert_eq!(rc, Err(expected));
        let input = (Tpm2bPrivate::new(*b"anything").unwrap(), Tpm2bName::empty(), 0u16);
        let rc = p.source.run_with(TpmCc::REWRAP, &[TpmHandle::NULL, parent], &[b""], &input).map(drop);
        assert_eq!(rc, Err(expected));
        flush(&mut p.source, parent);
    }
}
