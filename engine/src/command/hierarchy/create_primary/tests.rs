use crate::crypto::{HashAlg, ecc};
use crate::secret;
use crate::testing::TestTpm;
use crate::testing::objects::*;
use vtpm_protocol::codec::Encode;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::*;

/// A TPM whose owner and endorsement seeds are 64 times 1 and 2, and their proofs 3 and 4.
fn seeded() -> TestTpm {
    let mut tpm = TestTpm::started();
    let permanent = tpm.state().permanent_mut();
    permanent.owner.seed = Secret2b::new(vec![1; 64]).unwrap();
    permanent.endorsement.seed = Secret2b::new(vec![2; 64]).unwrap();
    permanent.owner.proof = Secret2b::new(vec![3; 64]).unwrap();
    permanent.endorsement.proof = Secret2b::new(vec![4; 64]).unwrap();
    tpm.resave();
    tpm
}

fn unique(tpm: &mut TestTpm, hierarchy: TpmHandle, template: TpmtPublic, data: &[u8]) -> PublicId {
    let primary = create_primary_with(tpm, hierarchy, template, b"", data).unwrap();
    flush(tpm, primary.handle);
    primary.public.unique
}

fn seed_value(tpm: &mut TestTpm, handle: TpmHandle) -> Vec<u8> {
    tpm.state().object(handle).unwrap().sensitive.as_ref().unwrap().seed_value.expose().to_vec()
}

/// Computed by a program of its own from the description in `object::generate` and `crypto`, not by this code.
#[test]
fn primary_keys_are_frozen() {
    let mut tpm = seeded();
    let PublicId::Ecc(point) = unique(&mut tpm, TpmHandle::OWNER, ecc_storage_key(), b"") else { panic!() };
    assert_eq!(hex::encode(&*point.x), "80c2c55d48112e02975daec93cd734be178d7f001bb94c43739ce16c8a35db0c");
    let PublicId::Ecc(point) = unique(&mut tpm, TpmHandle::OWNER, ecc_storage_key(), b"entropy") else {
        panic!()
    };
    assert_eq!(hex::encode(&*point.x), "85b7e23c3aae2066346c787f1cf70fa17835acabc13b024037aac34aea8a4873");
    let ek = create_primary(&mut tpm, TpmHandle::ENDORSEMENT, ecc_storage_key()).unwrap();
    let PublicId::Ecc(point) = &ek.public.unique else { panic!() };
    assert_eq!(hex::encode(&*point.x), "389093f62ef70d944a9f122a772281e6db384a5a40e4bb1c8ffc625869ece605");
    assert_eq!(
        hex::encode(seed_value(&mut tpm, ek.handle)),
        "f8eb4fb3a107e6588db7aaf494175920dadf23c61bbcd905eee00ce74e4d7186"
    );
    let PublicId::Digest(unique) = unique(&mut tpm, TpmHandle::OWNER, hmac_key(), b"") else { panic!() };
    assert_eq!(hex::encode(&*unique), "9a704b567220f8cc92ca30344001cffbc31207098cb6050224bdf5e2f8fcf77a");
    let owner = create_primary(&mut tpm, TpmHandle::OWNER, ecc_storage_key()).unwrap();
    assert_eq!(
        hex::encode(seed_value(&mut tpm, owner.handle)),
        "9813feb042bf287bb21faab4aa03024bf6e5d53ad276fd20ec80bbca4465e265"
    );
}

/// By the same program.
#[test]
fn primary_keys_of_every_curve_are_frozen() {
    let mut tpm = seeded();
    for (curve, x) in [
        (TpmEccCurve::NIST_P192, "8a2b02e14e647563d1dbc25beb1923ae068dead78aae2316"),
        (TpmEccCurve::NIST_P224, "7a148d7b2699f8003bc7214755b1828320f47136a78f949de9825230"),
        (TpmEccCurve::NIST_P256, "80c2c55d48112e02975daec93cd734be178d7f001bb94c43739ce16c8a35db0c"),
        (
            TpmEccCurve::NIST_P384,
            "c9ad8f18eeea12d62ba391b5220ddf2ffef4caafa1516ee2dfa760c667006cd01b35e5bf9bd7bb4081ca248c4a89b5cd",
        ),
        (
            TpmEccCurve::NIST_P521,
            "00ff5e49eecbf2d1f2d1e77994263117a2c51c691bc57a354754c3254d9133b3bf149646dcc3591874d4f4a64792652e\
             02836b1f529dd71e3c2df4bd51b34899d622",
        ),
        (TpmEccCurve::SM2_P256, "36162bb451cf0f16c94268c643a7340e82ecc6e128f70c339772739e8ac5c604"),
    ] {
        let template = ecc_storage_key_on(curve);
        let PublicId::Ecc(point) = unique(&mut tpm, TpmHandle::OWNER, template, b"") else { panic!() };
        assert_eq!(hex::encode(&*point.x), x, "{curve:?}");
    }
}

/// Of every size, also computed by a program of its own.
#[test]
fn an_rsa_primary_key_is_frozen() {
    for (bits, digest) in [
        (1024, "497f685e7192f07168d32f4a3ab7b9b1ed6818f60e3fa1589082696b4ad621a9"),
        (2048, "79d78b5c2a90bc9d2c2834112da9ac19953749a7176084b334f6f640e3ad5925"),
        (3072, "21affb5f3456629f1f38495ff40473ec773663b70f93075f8a764b8832fee90a"),
        (4096, "000e2182aad41e4dd36037980ef18c9d292adab9bc57cdf3bb4eb0d49f240e77"),
    ] {
        let mut tpm = seeded();
        let mut template = rsa_storage_key();
        if let PublicParms::Rsa { key_bits, .. } = &mut template.parms {
            *key_bits = bits;
        }
        let PublicId::Rsa(n) = unique(&mut tpm, TpmHandle::OWNER, template, b"") else { panic!() };
        assert_eq!(n.len(), usize::from(bits / 8));
        assert_eq!(hex::encode(HashAlg::Sha256.digest(&[&n]).as_slice()), digest, "{bits}");
    }
}

#[test]
fn the_same_template_gives_the_same_key_and_another_gives_another() {
    let mut tpm = TestTpm::started();
    let owner = TpmHandle::OWNER;
    let key = unique(&mut tpm, owner, ecc_storage_key(), b"");
    assert_eq!(unique(&mut tpm, owner, ecc_storage_key(), b""), key);
    tpm.init();
    tpm.run(TpmCc::STARTUP, &[], &TpmSu::CLEAR).unwrap();
    assert_eq!(unique(&mut tpm, owner, ecc_storage_key(), b""), key);
    assert_ne!(unique(&mut tpm, owner, ecc_storage_key(), b"x"), key);
    assert_ne!(unique(&mut tpm, TpmHandle::PLATFORM, ecc_storage_key(), b""), key);
    assert_ne!(unique(&mut tpm, owner, without(ecc_storage_key(), TpmaObject::NO_DA), b""), key);
    let mut template = ecc_storage_key();
    template.unique = PublicId::Ecc(TpmsEccPoint {
        x: Tpm2bEccParameter::new(vec![1]).unwrap(),
        y: Tpm2bEccParameter::empty(),
    });
    assert_ne!(unique(&mut tpm, owner, template, b""), key);
    let mut template = ecc_storage_key();
    template.auth_policy = Tpm2bDigest::new(vec![7; 32]).unwrap();
    assert_ne!(unique(&mut tpm, owner, template, b""), key);
    // The authorization value is no part of what the key is made of.
    let primary = create_primary_with(&mut tpm, owner, ecc_storage_key(), b"auth", b"").unwrap();
    assert_eq!(primary.public.unique, key);
}

#[test]
fn objects_of_the_null_hierarchy_differ_after_a_reset() {
    let mut tpm = TestTpm::started();
    let key = unique(&mut tpm, TpmHandle::NULL, ecc_storage_key(), b"");
    assert_eq!(unique(&mut tpm, TpmHandle::NULL, ecc_storage_key(), b""), key);
    tpm.init();
    tpm.run(TpmCc::STARTUP, &[], &TpmSu::CLEAR).unwrap();
    assert_ne!(unique(&mut tpm, TpmHandle::NULL, ecc_storage_key(), b""), key);
}

#[test]
fn an_endorsement_key_survives_a_change_of_the_proofs_but_its_children_do_not() {
    let mut tpm = TestTpm::started();
    let ek = |tpm: &mut TestTpm| {
        let primary = create_primary(tpm, TpmHandle::ENDORSEMENT, ecc_storage_key()).unwrap();
        let seed = seed_value(tpm, primary.handle);
        flush(tpm, primary.handle);
        (primary.public, seed)
    };
    let (public, seed) = ek(&mut tpm);
    assert_eq!(ek(&mut tpm), (public.clone(), seed.clone()));
    for change in [TpmHandle::OWNER, TpmHandle::ENDORSEMENT] {
        let permanent = tpm.state().permanent_mut();
        let hierarchy =
            if change == TpmHandle::OWNER { &mut permanent.owner } else { &mut permanent.endorsement };
        hierarchy.proof = Secret2b::new(vec![9; 64]).unwrap();
        tpm.resave();
        let (public_now, seed_now) = ek(&mut tpm);
        assert_eq!(public_now, public);
        assert_ne!(seed_now, seed);
    }
}

#[test]
fn private_and_public_part_belong_together_in_every_type() {
    let mut tpm = TestTpm::started();
    for template in [
        ecc_storage_key(),
        rsa_storage_key(),
        ecc_signing_key(),
        hmac_key(),
        symmetric_key(),
        symmetric_storage_key(),
        derivation_parent(),
    ] {
        let primary = create_primary(&mut tpm, TpmHandle::OWNER, template.clone()).unwrap();
        let object = tpm.state().object(primary.handle).unwrap().clone();
        let blame = crate::object::Blame { public: 2, sensitive: 1 };
        let check =
            crate::object::validate::check_object(None, &object.public, object.sensitive.as_ref(), blame);
        assert_eq!(check, Ok(()), "{template:?}");
        let seed = seed_value(&mut tpm, primary.handle);
        let keeps = !matches!(template.parms.alg(), TpmAlgId::RSA | TpmAlgId::ECC)
            || template.attributes.has(TpmaObject::RESTRICTED);
        assert_eq!(seed.len(), if keeps { 32 } else { 0 }, "{template:?}");
        flush(&mut tpm, primary.handle);
    }
}

#[test]
fn returns_name_creation_data_and_ticket_that_fit_each_other() {
    let mut tpm = TestTpm::started();
    tpm.locality = 2;
    let pcrs = Tpml(vec![TpmsPcrSelection::of(TpmAlgId::SHA256, [0, 17])]);
    let outside = Tpm2bData::new(*b"outside").unwrap();
    let parameters = (sensitive(b"", b""), Sized2b(ecc_signing_key()), &outside, &pcrs);
    let (handle, out) =
        tpm.run_with(TpmCc::CREATE_PRIMARY, &[TpmHandle::ENDORSEMENT], &[b""], &parameters).unwrap();
    assert_eq!(handle, Some(TpmHandle(0x8000_0000)));
    let (public, Sized2b(data), hash, ticket, name): (
        Tpm2bPublic,
        Sized2b<TpmsCreationData>,
        Tpm2bDigest,
        TpmtTk,
        Tpm2bName,
    ) = vtpm_protocol::codec::decode_exact(&out).unwrap();
    let expected = HashAlg::Sha256.digest(&[&public.0.to_bytes()]);
    assert_eq!(name.as_slice(), [&[0, 0x0b], expected.as_slice()].concat());
    assert_eq!(hash.as_slice(), HashAlg::Sha256.digest(&[&data.to_bytes()]).as_slice());
    let pcr_digest = HashAlg::Sha256.digest(&[&[0; 32], &[0xff; 32]]);
    let handle_bytes = Tpm2bName::new([0x40, 0, 0, 0x0b]).unwrap();
    let expected = TpmsCreationData {
        pcr_select: pcrs,
        pcr_digest: crate::alg::digest_2b(&pcr_digest),
        locality: TpmaLocality::TWO,
        parent_name_alg: TpmAlgId::NULL,
        parent_name: handle_bytes.clone(),
        parent_qualified_name: handle_bytes,
        outside_info: outside,
    };
    assert_eq!(data, expected);
    let proof = tpm.state().permanent.endorsement.proof.expose().to_vec();
    let mac = crate::crypto::hmac(crate::context::HASH, &proof, &[&[0x80, 0x21], &name, &hash]);
    assert_eq!((ticket.hierarchy, ticket.digest.as_slice()), (TpmHandle::ENDORSEMENT, &*mac));
}

#[test]
fn the_new_key_works_with_its_authorization_value() {
    let mut tpm = TestTpm::started();
    let primary = create_primary_with(&mut tpm, TpmHandle::OWNER, ecc_storage_key(), b"pw\0\0", b"").unwrap();
    let parameters = (sensitive(b"", b"x"), Sized2b(sealed_data()), Tpm2bData::empty(), 0u32);
    assert_eq!(
        tpm.run_with(TpmCc::CREATE, &[primary.handle], &[b"no"], &parameters),
        Err(ResponseCode::BAD_AUTH.session(1))
    );
    assert!(tpm.run_with(TpmCc::CREATE, &[primary.handle], &[b"pw"], &parameters).is_ok());
    let object = tpm.state().object(primary.handle).unwrap().clone();
    let d = object.sensitive.as_ref().unwrap().sensitive.expose().to_vec();
    let PublicId::Ecc(point) = &primary.public.unique else { panic!() };
    assert_eq!(ecc::public_of(crate::crypto::Curve::NistP256, &d), Ok(secret::point(point)));
}

#[test]
fn there_is_room_for_three() {
    let mut tpm = TestTpm::started();
    for n in 0..3 {
        let primary = create_primary(&mut tpm, TpmHandle::OWNER, ecc_storage_key()).unwrap();
        assert_eq!(primary.handle, TpmHandle(0x8000_0000 + n));
    }
    let full = create_primary(&mut tpm, TpmHandle::OWNER, ecc_storage_key()).map(|p| p.handle);
    assert_eq!(full, Err(ResponseCode::OBJECT_MEMORY));
    flush(&mut tpm, TpmHandle(0x8000_0001));
    let primary = create_primary(&mut tpm, TpmHandle::OWNER, ecc_storage_key()).unwrap();
    assert_eq!(primary.handle, TpmHandle(0x8000_0001));
}

#[test]
fn the_hierarchy_authorizes_it() {
    let mut tpm = TestTpm::started();
    tpm.state().permanent_mut().owner.auth = Tpm2bAuth::new(*b"owner").unwrap();
    tpm.resave();
    let refused = create_primary(&mut tpm, TpmHandle::OWNER, ecc_storage_key()).map(|p| p.handle);
    assert_eq!(refused, Err(ResponseCode::BAD_AUTH.session(1)));
    let parameters = (sensitive(b"", b""), Sized2b(ecc_storage_key()), Tpm2bData::empty(), 0u32);
    assert!(tpm.run_with(TpmCc::CREATE_PRIMARY, &[TpmHandle::OWNER], &[b"owner"], &parameters).is_ok());
    let rc = tpm.run_with(TpmCc::CREATE_PRIMARY, &[TpmHandle::LOCKOUT], &[b""], &parameters);
    assert_eq!(rc, Err(ResponseCode::VALUE.handle(1)));
    tpm.state().volatile_mut().state_clear.eh_enable = false;
    tpm.resave();
    let rc = tpm.run_with(TpmCc::CREATE_PRIMARY, &[TpmHandle::ENDORSEMENT], &[b""], &parameters);
    assert_eq!(rc, Err(ResponseCode::HIERARCHY.handle(1)));
}

#[test]
fn secrets_of_symmetric_objects_come_from_the_caller_only_without_sensitive_data_origin() {
    let mut tpm = TestTpm::started();
    let mut rc = |template, data: &[u8]| {
        create_primary_with(&mut tpm, TpmHandle::OWNER, template, b"", data).map(|p| {
            flush(&mut tpm, p.handle);
        })
    };
    assert_eq!(rc(sealed_data(), b""), Err(ResponseCode::ATTRIBUTES.parameter(2)));
    assert_eq!(rc(sealed_data(), b"data"), Ok(()));
    assert_eq!(rc(hmac_key(), b"entropy"), Ok(()));
    let own = without(hmac_key(), TpmaObject::SENSITIVE_DATA_ORIGIN);
    assert_eq!(rc(own.clone(), &[1; 64]), Ok(()));
    assert_eq!(rc(own, &[1; 65]), Err(ResponseCode::SIZE));
    let own = without(symmetric_key(), TpmaObject::SENSITIVE_DATA_ORIGIN);
    assert_eq!(rc(own.clone(), &[1; 16]), Ok(()));
    assert_eq!(rc(own, &[1; 24]), Err(ResponseCode::KEY_SIZE));
    assert_eq!(
        rc(without(ecc_storage_key(), TpmaObject::SENSITIVE_DATA_ORIGIN), &[1; 32]),
        Err(ResponseCode::ATTRIBUTES.parameter(2))
    );
}

#[test]
fn exponents_are_primes_above_two_to_the_sixteenth() {
    let mut tpm = TestTpm::started();
    for exponent in [3, 17, 65535, 65539] {
        let mut template = rsa_signing_key();
        if let PublicParms::Rsa { exponent: e, .. } = &mut template.parms {
            *e = exponent;
        }
        let rc = create_primary(&mut tpm, TpmHandle::OWNER, template).map(|p| flush(&mut tpm, p.handle));
        let expected = if exponent == 65539 { Ok(()) } else { Err(ResponseCode::RANGE) };
        assert_eq!(rc, expected, "{exponent}");
    }
}

#[test]
fn parameters_that_are_not_whole_blame_their_number() {
    let mut tpm = TestTpm::started();
    let owner = [TpmHandle::OWNER];
    let mut rc = |p: &dyn Encode| tpm.run_with(TpmCc::CREATE_PRIMARY, &owner, &[b""], p).map(|_| ());
    assert_eq!(rc(&()), Err(ResponseCode::INSUFFICIENT.parameter(1)));
    assert_eq!(rc(&0u16), Err(ResponseCode::SIZE.parameter(1)));
    assert_eq!(rc(&sensitive(b"", b"")), Err(ResponseCode::INSUFFICIENT.parameter(2)));
    let start = (sensitive(b"", b""), Sized2b(ecc_storage_key()));
    assert_eq!(rc(&(&start.0, &start.1, 67u16)), Err(ResponseCode::SIZE.parameter(3)));
    assert_eq!(rc(&(&start.0, &start.1, 0u16)), Err(ResponseCode::INSUFFICIENT.parameter(4)));
    assert_eq!(rc(&(&start.0, &start.1, 0u16, 0u32, 0u8)), Err(ResponseCode::SIZE));
    let mut nameless = ecc_storage_key();
    nameless.name_alg = TpmAlgId::NULL;
    assert_eq!(rc(&(&start.0, Sized2b(nameless), 0u16, 0u32)), Err(ResponseCode::HASH.parameter(2)));
}

#[test]
fn templates_that_contradict_themselves_are_refused() {
    let mut tpm = TestTpm::started();
    let (restricted, fixed_tpm) = (TpmaObject::RESTRICTED, TpmaObject::FIXED_TPM);
    let xor = Scheme { kdf: TpmAlgId::KDF1_SP800_108, ..Scheme::new(TpmAlgId::XOR, TpmAlgId::SHA256) };
    let keyed_hash = |scheme| TpmtPublic { parms: PublicParms::KeyedHash { scheme }, ..hmac_key() };
    let ecc = |symmetric, kdf| {
        let scheme = Scheme::new(TpmAlgId::ECDSA, TpmAlgId::SHA256);
        let parms = PublicParms::Ecc { symmetric, scheme, curve: TpmEccCurve::NIST_P256, kdf };
        TpmtPublic { parms, ..ecc_signing_key() }
    };
    let no_cipher = PublicParms::SymCipher { sym: NO_SYM };
    let with_policy =
        |size| TpmtPublic { auth_policy: Tpm2bDigest::new(vec![1; size]).unwrap(), ..hmac_key() };
    let kdf = Scheme::new(TpmAlgId::KDF1_SP800_108, TpmAlgId::SHA256);
    let (attributes, scheme) = (ResponseCode::ATTRIBUTES, ResponseCode::SCHEME);
    for (template, rc) in [
        // fixedTPM without fixedParent, and the other way round: the parent is the hierarchy, which stays in the TPM.
        (without(hmac_key(), TpmaObject::FIXED_PARENT), attributes),
        (without(hmac_key(), fixed_tpm), attributes),
        (with(hmac_key(), TpmaObject::ENCRYPTED_DUPLICATION), attributes),
        // Restricted to nothing, and to both uses.
        (with(sealed_data(), restricted), attributes),
        (with(ecc_storage_key(), TpmaObject::SIGN_ENCRYPT), attributes),
        (keyed_hash(Scheme::NULL), scheme),
        (keyed_hash(xor), scheme),
        (ecc(NO_SYM, kdf), ResponseCode::KDF),
        (ecc(AES_128, Scheme::NULL), ResponseCode::SYMMETRIC),
        (TpmtPublic { parms: no_cipher, ..symmetric_storage_key() }, ResponseCode::SYMMETRIC),
        (with_policy(20), ResponseCode::SIZE),
    ] {
        let made = create_primary(&mut tpm, TpmHandle::OWNER, template.clone()).map(|_| ());
        assert_eq!(made, Err(rc.parameter(2)), "{template:?}");
    }
    create_primary(&mut tpm, TpmHandle::OWNER, with_policy(32)).unwrap();
    let long = create_primary_with(&mut tpm, TpmHandle::OWNER, hmac_key(), &[1; 33], b"").map(|_| ());
    assert_eq!(long, Err(ResponseCode::SIZE.parameter(1)));
}
