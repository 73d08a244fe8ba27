use crate::crypto::{HashAlg, hmac, kdfa};
use crate::testing::TestTpm;
use crate::testing::objects::*;
use crate::wrap::Wrapper;
use vtpm_protocol::codec::{Encode, encode_sized};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::*;

fn parent(tpm: &mut TestTpm) -> TpmHandle {
    create_primary(tpm, TpmHandle::OWNER, ecc_storage_key()).unwrap().handle
}

/// What a parent would have made of a sensitive area, for areas that it would not make. `wrapped` is what the wrapper holds.
fn forge(tpm: &mut TestTpm, parent: TpmHandle, public: &TpmtPublic, wrapped: &[u8]) -> Tpm2bPrivate {
    let parent = tpm.state().object(parent).unwrap().clone();
    let name = crate::entity::object_name(public);
    let wrapper = Wrapper {
        alg: parent.name_alg().unwrap(),
        seed: parent.sensitive.as_ref().unwrap().seed_value.expose(),
        name: &name,
        cipher: AES_128_CIPHER,
    };
    Tpm2bPrivate::new(wrapper.seal_with_iv(&[9; 16], wrapped).unwrap()).unwrap()
}

fn sized(sensitive: &TpmtSensitive) -> Vec<u8> {
    let mut out = Vec::new();
    encode_sized(&sensitive.to_bytes(), &mut out);
    out
}

fn sensitive_of(tpm: &mut TestTpm, handle: TpmHandle) -> TpmtSensitive {
    tpm.state().object(handle).unwrap().sensitive.clone().unwrap()
}

#[test]
fn a_loaded_child_has_the_names_and_the_hierarchy_of_its_line() {
    let mut tpm = TestTpm::started();
    let parent = create_primary(&mut tpm, TpmHandle::ENDORSEMENT, ecc_storage_key()).unwrap().handle;
    let created = create(&mut tpm, parent, hmac_key(), b"auth\0", b"").unwrap();
    let parameters = (&created.private, Sized2b(created.public.clone()));
    let (handle, out) = tpm.run_with(TpmCc::LOAD, &[parent], &[b""], &parameters).unwrap();
    let name = crate::entity::object_name(&created.public);
    assert_eq!((handle, out), (Some(TpmHandle(0x8000_0001)), name.to_bytes()));
    let parent = tpm.state().object(parent).unwrap().clone();
    let object = tpm.state().object(handle.unwrap()).unwrap();
    assert_eq!(object.hierarchy, TpmHandle::ENDORSEMENT);
    let expected = HashAlg::Sha256.digest(&[&parent.qualified_name, &name]);
    assert_eq!(object.qualified_name[2..], *expected);
    assert_eq!(object.sensitive.as_ref().unwrap().auth_value.expose(), b"auth");
}

#[test]
fn st_clear_goes_down_the_line() {
    let mut tpm = TestTpm::started();
    let template = with(ecc_storage_key(), TpmaObject::ST_CLEAR);
    let top = create_primary(&mut tpm, TpmHandle::OWNER, template).unwrap().handle;
    let child = create(&mut tpm, top, ecc_storage_key(), b"", b"").unwrap();
    let child = load(&mut tpm, top, &child).unwrap();
    let grandchild = create(&mut tpm, child, ecc_signing_key(), b"", b"").unwrap();
    let grandchild = load(&mut tpm, child, &grandchild).unwrap();
    for handle in [top, child, grandchild] {
        assert!(tpm.state().object(handle).unwrap().flags.st_clear);
    }
    flush(&mut tpm, top);
    let clean = parent(&mut tpm);
    assert!(!tpm.state().object(clean).unwrap().flags.st_clear);
}

#[test]
fn a_private_area_with_any_changed_byte_is_refused() {
    let mut tpm = TestTpm::started();
    let parent = parent(&mut tpm);
    let created = create(&mut tpm, parent, sealed_data(), b"", b"data").unwrap();
    for i in 0..created.private.len() {
        let mut bytes = created.private.to_vec();
        bytes[i] ^= 1;
        let bad = Tpm2bPrivate::new(bytes).unwrap();
        let rc = load_areas(&mut tpm, parent, &bad, &created.public).unwrap_err();
        // The first two bytes are the size of the HMAC.
        let shape = if i == 0 { ResponseCode::SIZE } else { ResponseCode::INTEGRITY };
        assert_eq!(rc, shape.parameter(1), "byte {i}");
    }
    for size in 0..created.private.len() {
        let cut = Tpm2bPrivate::new(&created.private[..size]).unwrap();
        let rc = load_areas(&mut tpm, parent, &cut, &created.public).unwrap_err();
        assert!(
            [ResponseCode::SIZE, ResponseCode::INSUFFICIENT, ResponseCode::INTEGRITY]
                .iter()
                .any(|c| c.parameter(1) == rc),
            "{size}: {rc}"
        );
    }
    assert!(load(&mut tpm, parent, &created).is_ok());
}

#[test]
fn private_and_public_area_and_parent_belong_together() {
    let mut tpm = TestTpm::started();
    let one = parent(&mut tpm);
    let two = create_primary_with(&mut tpm, TpmHandle::OWNER, ecc_storage_key(), b"", b"2").unwrap().handle;
    let created = create(&mut tpm, one, sealed_data(), b"", b"data").unwrap();
    let wrong = Err(ResponseCode::INTEGRITY.parameter(1));
    assert_eq!(load(&mut tpm, two, &created), wrong);
    for changed in [TpmaObject::NO_DA, TpmaObject::ADMIN_WITH_POLICY] {
        let public = with(created.public.clone(), changed);
        assert_eq!(load_areas(&mut tpm, one, &created.private, &public), wrong);
    }
    let other = create(&mut tpm, one, sealed_data(), b"", b"data").unwrap();
    assert_eq!(load_areas(&mut tpm, one, &created.private, &other.public), wrong);
}

#[test]
fn areas_that_the_parent_protects_but_that_do_not_fit_are_refused() {
    let mut tpm = TestTpm::started();
    // Whoever knows the seed of a parent that can be duplicated can make these.
    let top = parent(&mut tpm);
    let group = create(&mut tpm, top, duplicable(ecc_storage_key()), b"", b"").unwrap();
    let parent = load(&mut tpm, top, &group).unwrap();
    flush(&mut tpm, top);

    let created = create(&mut tpm, parent, duplicable(hmac_key()), b"", b"").unwrap();
    let handle = load(&mut tpm, parent, &created).unwrap();
    let good = sensitive_of(&mut tpm, handle);
    flush(&mut tpm, handle);
    let public = created.public.clone();
    let mut rc = |wrapped: Vec<u8>| {
        let private = forge(&mut tpm, parent, &public, &wrapped);
        let result = load_areas(&mut tpm, parent, &private, &public);
        if let Ok(handle) = result {
            flush(&mut tpm, handle);
        }
        result.map(|_| ())
    };
    assert_eq!(rc(sized(&good)), Ok(()));
    let mut long = sized(&good);
    long.push(0);
    assert_eq!(rc(long), Err(ResponseCode::SENSITIVE));
    let mut size = sized(&good);
    size[1] -= 1;
    assert_eq!(rc(size), Err(ResponseCode::SENSITIVE));
    assert_eq!(rc(vec![]), Err(ResponseCode::SENSITIVE));
    assert_eq!(rc(vec![0, 0]), Err(ResponseCode::SENSITIVE));

    let bits = |b: &[u8]| SensitiveComposite::Bits(Secret2b::new(b).unwrap());
    let auth = |b: &[u8]| Tpm2bAuth::new(b).unwrap();
    let with_auth = TpmtSensitive { auth_value: auth(&[7; 33]), ..good.clone() };
    assert_eq!(rc(sized(&with_auth)), Err(ResponseCode::SIZE.parameter(1)));
    let with_seed = TpmtSensitive { seed_value: auth(&[7; 31]), ..good.clone() };
    assert_eq!(rc(sized(&with_seed)), Err(ResponseCode::KEY_SIZE.parameter(1)));
    let with_seed = TpmtSensitive { seed_value: auth(&[7; 33]), ..good.clone() };
    assert_eq!(rc(sized(&with_seed)), Err(ResponseCode::KEY_SIZE.parameter(1)));
    let with_seed = TpmtSensitive { seed_value: auth(&[7; 32]), ..good.clone() };
    assert_eq!(rc(sized(&with_seed)), Err(ResponseCode::BINDING));
    let with_key = TpmtSensitive { sensitive: bits(&[7; 32]), ..good.clone() };
    assert_eq!(rc(sized(&with_key)), Err(ResponseCode::BINDING));
    let with_key = TpmtSensitive { sensitive: bits(&[7; 65]), ..good.clone() };
    assert_eq!(rc(sized(&with_key)), Err(ResponseCode::KEY_SIZE.parameter(1)));
    let ecc = SensitiveComposite::Ecc(Secret2b::new(vec![7; 32]).unwrap());
    let with_type = TpmtSensitive { sensitive: ecc, ..good };
    assert_eq!(rc(sized(&with_type)), Err(ResponseCode::TYPE.parameter(1)));
}

#[test]
fn a_key_of_the_wrong_lineage_does_not_get_in() {
    let mut tpm = TestTpm::started();
    let top = parent(&mut tpm);
    let group = create(&mut tpm, top, duplicable(ecc_storage_key()), b"", b"").unwrap();
    let parent = load(&mut tpm, top, &group).unwrap();
    let created = create(&mut tpm, parent, duplicable(ecc_signing_key()), b"", b"").unwrap();
    let handle = load(&mut tpm, parent, &created).unwrap();
    let sensitive = sensitive_of(&mut tpm, handle);
    flush(&mut tpm, handle);
    for claim in [
        TpmaObject::FIXED_TPM,
        TpmaObject::FIXED_TPM | TpmaObject::FIXED_PARENT,
        TpmaObject::ENCRYPTED_DUPLICATION,
    ] {
        let public = with(created.public.clone(), claim);
        let private = forge(&mut tpm, parent, &public, &sized(&sensitive));
        let rc = load_areas(&mut tpm, parent, &private, &public);
        assert_eq!(rc, Err(ResponseCode::ATTRIBUTES.parameter(2)));
    }
}

#[test]
fn asks_for_a_slot_a_private_area_a_parent_and_a_name() {
    let mut tpm = TestTpm::started();
    let parent = parent(&mut tpm);
    let created = create(&mut tpm, parent, ecc_signing_key(), b"", b"").unwrap();
    let empty = Tpm2bPrivate::empty();
    let rc = load_areas(&mut tpm, parent, &empty, &created.public);
    assert_eq!(rc, Err(ResponseCode::SIZE.parameter(1)));
    let nameless = TpmtPublic { name_alg: TpmAlgId::NULL, ..created.public.clone() };
    let rc = load_areas(&mut tpm, parent, &created.private, &nameless);
    assert_eq!(rc, Err(ResponseCode::HASH.parameter(2)));
    let leaf = load(&mut tpm, parent, &created).unwrap();
    assert_eq!(load(&mut tpm, leaf, &created), Err(ResponseCode::TYPE.handle(1)));
    load(&mut tpm, parent, &created).unwrap();
    assert_eq!(load(&mut tpm, parent, &created), Err(ResponseCode::OBJECT_MEMORY));
}

/// By a parent that can be duplicated, as its own children are checked when they come.
#[test]
fn a_public_area_that_the_parent_protects_is_checked_nevertheless() {
    let mut tpm = TestTpm::started();
    let top = parent(&mut tpm);
    let group = create(&mut tpm, top, duplicable(ecc_storage_key()), b"", b"").unwrap();
    let parent = load(&mut tpm, top, &group).unwrap();
    flush(&mut tpm, top);
    let null = Scheme::NULL;
    let aes_256 = TpmtSymDefObject(TpmtSymDef::Aes { key_bits: 256, mode: TpmAlgId::CFB });
    let ecc =
        |symmetric, scheme, kdf| PublicParms::Ecc { symmetric, scheme, curve: TpmEccCurve::NIST_P256, kdf };
    let kdf = Scheme::new(TpmAlgId::MGF1, TpmAlgId::SHA256);
    let (fixed, both) = (TpmaObject::FIXED_PARENT, TpmaObject::SIGN_ENCRYPT | TpmaObject::DECRYPT);
    let auth_policy = Tpm2bDigest::new([1; 20]).unwrap();
    let (signing, storage) = (duplicable(ecc_signing_key()), duplicable(ecc_storage_key()));
    let data = duplicable(sealed_data());
    for (good, bad, expected) in [
        (&signing, TpmtPublic { auth_policy, ..signing.clone() }, ResponseCode::SIZE),
        (
            &signing,
            TpmtPublic { parms: ecc(AES_128, null, null), ..signing.clone() },
            ResponseCode::SYMMETRIC,
        ),
        (&signing, TpmtPublic { parms: ecc(NO_SYM, null, kdf), ..signing.clone() }, ResponseCode::KDF),
        (
            &signing,
            with(TpmtPublic { parms: ecc(NO_SYM, null, null), ..signing.clone() }, TpmaObject::RESTRICTED),
            ResponseCode::SCHEME,
        ),
        (&signing, with(signing.clone(), both | TpmaObject::RESTRICTED), ResponseCode::ATTRIBUTES),
        (&signing, without(signing.clone(), both), ResponseCode::ATTRIBUTES),
        (&storage, TpmtPublic { parms: ecc(NO_SYM, null, null), ..storage.clone() }, ResponseCode::SYMMETRIC),
        // What stays with the parent has its algorithms.
        (
            &storage,
            with(TpmtPublic { name_alg: TpmAlgId::SHA384, ..storage.clone() }, fixed),
            ResponseCode::HASH,
        ),
        (
            &storage,
            with(TpmtPublic { parms: ecc(aes_256, null, null), ..storage.clone() }, fixed),
            ResponseCode::SYMMETRIC,
        ),
        (&data, TpmtPublic { parms: hmac_key().parms, ..data.clone() }, ResponseCode::SCHEME),
        (&data, with(data.clone(), TpmaObject::RESTRICTED), ResponseCode::ATTRIBUTES),
    ] {
        let secret: &[u8] = if *good == data { b"data" } else { b"" };
        let created = create(&mut tpm, parent, good.clone(), b"", secret).unwrap();
        let handle = load(&mut tpm, parent, &created).unwrap();
        let wrapped = sized(&sensitive_of(&mut tpm, handle));
        flush(&mut tpm, handle);
        let bad = TpmtPublic { unique: created.public.unique, ..bad };
        let private = forge(&mut tpm, parent, &bad, &wrapped);
        let rc = load_areas(&mut tpm, parent, &private, &bad);
        assert_eq!(rc, Err(expected.parameter(2)), "{bad:?}");
    }
}

#[test]
fn an_initialization_vector_is_a_block_and_a_key_has_the_size_that_the_public_area_says() {
    let mut tpm = TestTpm::started();
    let top = parent(&mut tpm);
    let group = create(&mut tpm, top, duplicable(ecc_storage_key()), b"", b"").unwrap();
    let parent = load(&mut tpm, top, &group).unwrap();
    flush(&mut tpm, top);
    let created = create(&mut tpm, parent, duplicable(rsa_signing_key()), b"", b"").unwrap();
    let handle = load(&mut tpm, parent, &created).unwrap();
    let sensitive = sensitive_of(&mut tpm, handle);
    flush(&mut tpm, handle);

    let key = tpm.state().object(parent).unwrap().clone();
    let seed = key.sensitive.as_ref().unwrap().seed_value.expose();
    let mac_key = kdfa(HashAlg::Sha256, seed, b"INTEGRITY", &[], &[], 256);
    let name = crate::entity::object_name(&created.public);
    for (size, expected) in [(15u16, ResponseCode::VALUE), (8, ResponseCode::VALUE), (17, ResponseCode::SIZE)]
    {
        let behind_the_mac = (size, [0u8; 32]).to_bytes();
        let mut private = Vec::new();
        encode_sized(&hmac(HashAlg::Sha256, &mac_key, &[&behind_the_mac, &name]), &mut private);
        private.extend(behind_the_mac);
        let private = Tpm2bPrivate::new(private).unwrap();
        let rc = load_areas(&mut tpm, parent, &private, &created.public);
        assert_eq!(rc, Err(expected.parameter(1)), "{size}");
    }
    let PublicId::Rsa(n) = created.public.unique.clone() else { panic!() };
    let unique = PublicId::Rsa(Tpm2bPublicKeyRsa::new(&n[1..]).unwrap());
    let short = TpmtPublic { unique, ..created.public };
    let private = forge(&mut tpm, parent, &short, &sized(&sensitive));
    assert_eq!(load_areas(&mut tpm, parent, &private, &short), Err(ResponseCode::KEY.parameter(2)));
}
