//! Duplicate and Import together, as the one makes what the other takes.

use crate::crypto::HashAlg;
use crate::entity::object_name;
use crate::secret;
use crate::testing::TestTpm;
use crate::testing::objects::*;
use crate::wrap::Wrapper;
use vtpm_protocol::codec::{Encode, decode_exact};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::*;

mod areas;
mod rewrap;

type Key = Secret2b<66>;

/// The policy that allows `TPM2_Duplicate`.
fn policy() -> Tpm2bDigest {
    let digest = HashAlg::Sha256.digest(&[&[0; 32], &[0, 0, 1, 0x6c], &[0, 0, 1, 0x4b]]);
    Tpm2bDigest::new(digest.as_slice()).unwrap()
}

/// A template whose object may be duplicated.
fn movable(template: TpmtPublic) -> TpmtPublic {
    TpmtPublic { auth_policy: policy(), ..duplicable(template) }
}

fn key(bytes: &[u8]) -> Key {
    Key::new(bytes).unwrap()
}

struct Duplicated {
    key: Key,
    duplicate: Tpm2bPrivate,
    seed: Tpm2bEncryptedSecret,
}

/// With a fresh policy session.
fn duplicate(
    tpm: &mut TestTpm,
    object: TpmHandle,
    new_parent: TpmHandle,
    key_in: &Key,
    symmetric: TpmtSymDefObject,
) -> Result<Duplicated, ResponseCode> {
    let session = start_policy(tpm, TpmSe::POLICY);
    tpm.run(TpmCc::POLICY_COMMAND_CODE, &[session], &TpmCc::DUPLICATE).unwrap();
    let out = run_with_policy(tpm, TpmCc::DUPLICATE, &[object, new_parent], session, &(key_in, symmetric));
    flush(tpm, session);
    out.map(|bytes| {
        let (key, duplicate, seed) = decode_exact(&bytes).unwrap();
        Duplicated { key, duplicate, seed }
    })
}

fn import(
    tpm: &mut TestTpm,
    parent: TpmHandle,
    public: &TpmtPublic,
    key: &Key,
    d: &Duplicated,
    symmetric: TpmtSymDefObject,
) -> Result<Tpm2bPrivate, ResponseCode> {
    let parameters = (key, Sized2b(public.clone()), &d.duplicate, &d.seed, symmetric);
    let (_, out) = tpm.run_with(TpmCc::IMPORT, &[parent], &[b""], &parameters)?;
    Ok(decode_exact(&out).unwrap())
}

/// A source TPM with a movable HMAC key with authorization value `pw`, a target TPM with a storage key, and that key's public area in the
/// source.
struct Pair {
    source: TestTpm,
    target: TestTpm,
    object: TpmHandle,
    public: TpmtPublic,
    new_parent: TpmHandle,
    parent: TpmHandle,
}

fn pair(storage_key: TpmtPublic, template: TpmtPublic) -> Pair {
    let (mut source, mut target) = (TestTpm::started(), TestTpm::started());
    // Both test environments give the same randomness.
    target.state().permanent_mut().owner.seed = Secret2b::new(vec![5; 64]).unwrap();
    target.resave();
    let old_parent = create_primary(&mut source, TpmHandle::OWNER, ecc_storage_key()).unwrap().handle;
    let created = create(&mut source, old_parent, movable(template), b"pw", b"").unwrap();
    let object = load(&mut source, old_parent, &created).unwrap();
    flush(&mut source, old_parent);
    let parent = create_primary(&mut target, TpmHandle::OWNER, storage_key).unwrap();
    let new_parent = load_external(&mut source, None, &parent.public, TpmHandle::OWNER).unwrap();
    Pair { source, target, object, public: created.public, new_parent, parent: parent.handle }
}

fn secrets(tpm: &mut TestTpm, handle: TpmHandle) -> Vec<u8> {
    tpm.state().object(handle).unwrap().sensitive.to_owned().unwrap().to_bytes()
}

#[test]
fn an_object_moves_to_another_tpm_with_every_combination_of_wrappers() {
    for storage_key in [ecc_storage_key(), rsa_storage_key()] {
        for template in [hmac_key(), ecc_storage_key(), rsa_signing_key(), symmetric_key()] {
            let mut p = pair(storage_key.clone(), template);
            for outer in [true, false] {
                for (symmetric, given) in
                    [(NO_SYM, key(b"")), (AES_128, key(b"")), (AES_128, key(b"0123456789abcdef"))]
                {
                    let new_parent = if outer { p.new_parent } else { TpmHandle::NULL };
                    let d = duplicate(&mut p.source, p.object, new_parent, &given, symmetric).unwrap();
                    assert_eq!(d.seed.is_empty(), !outer);
                    let made = symmetric != NO_SYM && given.is_empty();
                    assert_eq!(d.key.len(), if made { 16 } else { 0 });
                    let inner = if made { &d.key } else { &given };
                    let private = import(&mut p.target, p.parent, &p.public, inner, &d, symmetric).unwrap();
                    let moved = load_areas(&mut p.target, p.parent, &private, &p.public).unwrap();
                    assert_eq!(secrets(&mut p.target, moved), secrets(&mut p.source, p.object));
                    assert_eq!(p.target.state().auth_value(moved).unwrap().expose(), b"pw");
                    flush(&mut p.target, moved);
                }
            }
        }
    }
}

#[test]
fn parents_of_every_curve_share_the_seed() {
    for curve in ECC_CURVES {
        let mut p = pair(ecc_storage_key_on(curve), hmac_key());
        let d = duplicate(&mut p.source, p.object, p.new_parent, &key(b""), NO_SYM).unwrap();
        let mut import_it = |d: &Duplicated| import(&mut p.target, p.parent, &p.public, &d.key, d, NO_SYM);
        let private = import_it(&d).unwrap();
        // Another point of the curve: the size of x, then x and y.
        let g = secret::curve(curve).unwrap().parameters();
        let seed = |x: &[u8], y: &[u8]| {
            let point =
                TpmsEccPoint { x: Tpm2bEccParameter::new(x).unwrap(), y: Tpm2bEccParameter::new(y).unwrap() };
            Tpm2bEncryptedSecret::new(point.to_bytes()).unwrap()
        };
        let with = |seed| Duplicated { seed, key: d.key.clone(), duplicate: d.duplicate.clone() };
        assert_eq!(import_it(&with(seed(g.gx, g.gy))).unwrap_err(), ResponseCode::INTEGRITY.parameter(3));
        assert_eq!(import_it(&with(seed(g.gy, g.gx))).unwrap_err(), ResponseCode::ECC_POINT.parameter(4));
        let moved = load_areas(&mut p.target, p.parent, &private, &p.public).unwrap();
        assert_eq!(secrets(&mut p.target, moved), secrets(&mut p.source, p.object));
    }
}

#[test]
fn wrappers_take_every_cipher() {
    let mode = TpmAlgId::CFB;
    for (sym, size) in [
        (TpmtSymDef::Aes { key_bits: 256, mode }, 32),
        (TpmtSymDef::Camellia { key_bits: 192, mode }, 24),
        (TpmtSymDef::Tdes { key_bits: 128, mode }, 16),
        (TpmtSymDef::Tdes { key_bits: 192, mode }, 24),
    ] {
        let symmetric = TpmtSymDefObject(sym);
        let parms = PublicParms::Ecc {
            symmetric,
            scheme: Scheme::NULL,
            curve: TpmEccCurve::NIST_P256,
            kdf: Scheme::NULL,
        };
        let mut p = pair(TpmtPublic { parms, ..ecc_storage_key() }, hmac_key());
        for given in [key(b""), key(&[7; 32][..size])] {
            let d = duplicate(&mut p.source, p.object, p.new_parent, &given, symmetric).unwrap();
            let inner = if given.is_empty() { &d.key } else { &given };
            assert_eq!(inner.len(), size);
            let private = import(&mut p.target, p.parent, &p.public, inner, &d, symmetric).unwrap();
            let moved = load_areas(&mut p.target, p.parent, &private, &p.public).unwrap();
            assert_eq!(secrets(&mut p.target, moved), secrets(&mut p.source, p.object));
            flush(&mut p.target, moved);
        }
    }
}

#[test]
fn a_symmetric_parent_takes_duplicates_without_outer_wrapper() {
    let mut p = pair(ecc_storage_key(), hmac_key());
    let none = key(b"");
    let outer = duplicate(&mut p.source, p.object, p.new_parent, &none, NO_SYM).unwrap();
    let parent = create_primary(&mut p.target, TpmHandle::OWNER, symmetric_storage_key()).unwrap().handle;
    let rc = import(&mut p.target, parent, &p.public, &none, &outer, NO_SYM);
    assert_eq!(rc, Err(ResponseCode::TYPE.handle(1)));
    let inner = duplicate(&mut p.source, p.object, TpmHandle::NULL, &none, AES_128).unwrap();
    assert!(import(&mut p.target, parent, &p.public, &inner.key, &inner, AES_128).is_ok());
}

#[test]
fn duplication_role_without_policy_is_refused() {
    let mut p = pair(ecc_storage_key(), hmac_key());
    let handles = [p.object, p.new_parent];
    let parameters = (key(b""), NO_SYM);
    let none = p.source.run(TpmCc::DUPLICATE, &handles, &parameters);
    assert_eq!(none, Err(ResponseCode::AUTH_MISSING));
    let password = p.source.run_with(TpmCc::DUPLICATE, &handles, &[b"pw"], &parameters);
    assert_eq!(password, Err(ResponseCode::AUTH_TYPE));
    let session = start_policy(&mut p.source, TpmSe::POLICY);
    let rc = run_with_policy(&mut p.source, TpmCc::DUPLICATE, &handles, session, &parameters);
    assert_eq!(rc, Err(ResponseCode::POLICY_FAIL.session(1)));

    // A policy that is satisfied, but says nothing of the command.
    let empty = Tpm2bDigest::new(vec![0; 32]).unwrap();
    let template = TpmtPublic { auth_policy: empty, ..duplicable(hmac_key()) };
    flush(&mut p.source, p.object);
    let open = create_primary(&mut p.source, TpmHandle::OWNER, template).unwrap().handle;
    let handles = [open, p.new_parent];
    let rc = run_with_policy(&mut p.source, TpmCc::DUPLICATE, &handles, session, &parameters);
    assert_eq!(rc, Err(ResponseCode::POLICY_FAIL.session(1)));
    p.source.run(TpmCc::POLICY_COMMAND_CODE, &[session], &TpmCc::UNSEAL).unwrap();
    let rc = run_with_policy(&mut p.source, TpmCc::DUPLICATE, &handles, session, &parameters);
    assert_eq!(rc, Err(ResponseCode::POLICY_FAIL.session(1)));
}

#[test]
fn what_is_fixed_to_its_parent_stays() {
    let mut tpm = TestTpm::started();
    let fixed = TpmtPublic { auth_policy: policy(), ..hmac_key() };
    let object = create_primary(&mut tpm, TpmHandle::OWNER, fixed).unwrap().handle;
    let rc = duplicate(&mut tpm, object, TpmHandle::NULL, &key(b""), NO_SYM).map(|_| ());
    assert_eq!(rc, Err(ResponseCode::ATTRIBUTES.handle(1)));
}

#[test]
fn new_parents_are_asymmetric_storage_keys() {
    let mut p = pair(ecc_storage_key(), hmac_key());
    let none = key(b"");
    for template in [ecc_signing_key(), symmetric_storage_key(), derivation_parent()] {
        let parent = create_primary(&mut p.source, TpmHandle::OWNER, template).unwrap().handle;
        let rc = duplicate(&mut p.source, p.object, parent, &none, NO_SYM).map(|_| ());
        assert_eq!(rc, Err(ResponseCode::TYPE.handle(2)));
        flush(&mut p.source, parent);
    }
}

#[test]
fn encrypted_duplication_insists_on_both_wrappers() {
    let mut p = pair(ecc_storage_key(), with(hmac_key(), TpmaObject::ENCRYPTED_DUPLICATION));
    let none = key(b"");
    let mut rc = |parent, symmetric| duplicate(&mut p.source, p.object, parent, &none, symmetric);
    let e = rc(p.new_parent, NO_SYM).map(|_| ());
    assert_eq!(e, Err(ResponseCode::SYMMETRIC.parameter(2)));
    let e = rc(TpmHandle::NULL, AES_128).map(|_| ());
    assert_eq!(e, Err(ResponseCode::HIERARCHY.handle(2)));
    let d = rc(p.new_parent, AES_128).unwrap();
    let seedless = Duplicated {
        key: d.key.clone(),
        duplicate: d.duplicate.clone(),
        seed: Tpm2bEncryptedSecret::empty(),
    };
    let mut rc = |key, d, symmetric| import(&mut p.target, p.parent, &p.public, key, d, symmetric);
    assert_eq!(rc(&none, &d, NO_SYM), Err(ResponseCode::ATTRIBUTES.parameter(1)));
    assert_eq!(rc(&d.key, &seedless, AES_128), Err(ResponseCode::ATTRIBUTES.parameter(4)));
    assert!(rc(&d.key, &d, AES_128).is_ok());
}

#[test]
fn encryption_keys_are_as_long_as_the_algorithm_says() {
    let mut p = pair(ecc_storage_key(), hmac_key());
    let size = ResponseCode::SIZE.parameter(1);
    for (k, symmetric) in [(key(b"k"), NO_SYM), (key(&[1; 15]), AES_128), (key(&[1; 32]), AES_128)] {
        let rc = duplicate(&mut p.source, p.object, p.new_parent, &k, symmetric).map(|_| ());
        assert_eq!(rc, Err(size));
    }
    let d = duplicate(&mut p.source, p.object, p.new_parent, &key(b""), AES_128).unwrap();
    for (k, symmetric) in [(key(b"k"), NO_SYM), (key(b""), AES_128), (key(&[1; 32]), AES_128)] {
        assert_eq!(import(&mut p.target, p.parent, &p.public, &k, &d, symmetric), Err(size));
    }
}

#[test]
fn a_wrong_key_seed_parent_public_area_or_byte_is_refused() {
    let mut p = pair(ecc_storage_key(), hmac_key());
    let none = key(b"");
    let integrity = Err(ResponseCode::INTEGRITY.parameter(3));
    let d = duplicate(&mut p.source, p.object, p.new_parent, &none, AES_128).unwrap();
    for wrong in [[0u8; 16], [0xff; 16], [7; 16]] {
        assert_eq!(import(&mut p.target, p.parent, &p.public, &key(&wrong), &d, AES_128), integrity);
    }
    let other = with(p.public.clone(), TpmaObject::NO_DA);
    assert_eq!(import(&mut p.target, p.parent, &other, &d.key, &d, AES_128), integrity);
    let stranger =
        create_primary_with(&mut p.target, TpmHandle::OWNER, ecc_storage_key(), b"", b"2").unwrap().handle;
    assert_eq!(import(&mut p.target, stranger, &p.public, &d.key, &d, AES_128), integrity);
    for i in 0..d.duplicate.len() {
        let mut bytes = d.duplicate.to_vec();
        bytes[i] ^= 1;
        let bad = Duplicated {
            key: none.clone(),
            duplicate: Tpm2bPrivate::new(bytes).unwrap(),
            seed: d.seed.clone(),
        };
        let rc = import(&mut p.target, p.parent, &p.public, &d.key, &bad, AES_128);
        let expected = if i == 0 { Err(ResponseCode::SIZE.parameter(3)) } else { integrity.clone() };
        assert_eq!(rc, expected, "byte {i}");
    }
    for (cut, expected) in [(d.seed.len() - 1, ResponseCode::INSUFFICIENT), (1, ResponseCode::INSUFFICIENT)] {
        let seed = Tpm2bEncryptedSecret::new(&d.seed[..cut]).unwrap();
        let bad = Duplicated { key: none.clone(), duplicate: d.duplicate.clone(), seed };
        let rc = import(&mut p.target, p.parent, &p.public, &d.key, &bad, AES_128);
        assert_eq!(rc, Err(expected.parameter(4)));
    }
    let mut off = d.seed.to_vec();
    *off.last_mut().unwrap() ^= 1;
    let seed = Tpm2bEncryptedSecret::new(off).unwrap();
    let bad = Duplicated { key: none, duplicate: d.duplicate.clone(), seed };
    let rc = import(&mut p.target, p.parent, &p.public, &d.key, &bad, AES_128);
    assert_eq!(rc, Err(ResponseCode::ECC_POINT.parameter(4)));
}

#[test]
fn a_seed_that_is_not_encrypted_to_an_rsa_parent_is_refused() {
    let mut p = pair(rsa_storage_key(), hmac_key());
    let none = key(b"");
    let mut d = duplicate(&mut p.source, p.object, p.new_parent, &none, NO_SYM).unwrap();
    let mut seed = d.seed.to_vec();
    seed[255] ^= 1;
    for (bytes, expected) in [
        (seed, ResponseCode::VALUE),
        (d.seed[1..].to_vec(), ResponseCode::SIZE),
        (vec![0xff; 256], ResponseCode::VALUE),
    ] {
        d.seed = Tpm2bEncryptedSecret::new(bytes).unwrap();
        let rc = import(&mut p.target, p.parent, &p.public, &none, &d, NO_SYM);
        assert_eq!(rc, Err(expected.parameter(4)));
    }
}

/// A duplicate whose outer wrapper is made with a seed that nobody has to know.
#[test]
fn an_empty_seed_is_refused() {
    let mut p = pair(rsa_storage_key(), hmac_key());
    let none = key(b"");
    let plain = duplicate(&mut p.source, p.object, TpmHandle::NULL, &none, NO_SYM).unwrap();
    let parent = p.target.state().object(p.parent).unwrap().clone();
    let rsa = secret::rsa_public(&parent.public).unwrap();
    let mut rng = crate::crypto::KdfaStream::new(HashAlg::Sha256, b"seed", b"test", b"");
    let seed = rsa.encrypt_oaep(HashAlg::Sha256, b"DUPLICATE\0", b"", &mut rng).unwrap();
    let name = object_name(&p.public);
    let wrapper = Wrapper { alg: HashAlg::Sha256, seed: b"", name: &name, cipher: AES_128_CIPHER };
    let forged = Duplicated {
        key: none.clone(),
        duplicate: Tpm2bPrivate::new(wrapper.seal(&plain.duplicate).unwrap()).unwrap(),
        seed: Tpm2bEncryptedSecret::new(seed).unwrap(),
    };
    let rc = import(&mut p.target, p.parent, &p.public, &none, &forged, NO_SYM);
    assert_eq!(rc, Err(ResponseCode::VALUE.parameter(4)));
}

#[test]
fn only_what_may_have_been_duplicated_is_imported() {
    let mut p = pair(ecc_storage_key(), hmac_key());
    let none = key(b"");
    let d = duplicate(&mut p.source, p.object, p.new_parent, &none, NO_SYM).unwrap();
    for claim in [TpmaObject::FIXED_TPM, TpmaObject::FIXED_PARENT] {
        let public = with(p.public.clone(), claim);
        let rc = import(&mut p.target, p.parent, &public, &none, &d, NO_SYM);
        assert_eq!(rc, Err(ResponseCode::ATTRIBUTES.parameter(2)));
    }
    let nameless = TpmtPublic { name_alg: TpmAlgId::NULL, ..p.public.clone() };
    let rc = import(&mut p.target, p.parent, &nameless, &none, &d, NO_SYM);
    assert_eq!(rc, Err(ResponseCode::HASH.parameter(2)));
    let leaf = create_primary(&mut p.target, TpmHandle::OWNER, ecc_signing_key()).unwrap().handle;
    let rc = import(&mut p.target, leaf, &p.public, &none, &d, NO_SYM);
    assert_eq!(rc, Err(ResponseCode::TYPE.handle(1)));
}

/// Without wrappers a duplicate is in the clear, so that everyone can make one.
fn clear(sensitive: &TpmtSensitive) -> Duplicated {
    let mut bytes = Vec::new();
    vtpm_protocol::codec::encode_sized(&sensitive.to_bytes(), &mut bytes);
    Duplicated {
        key: key(b""),
        duplicate: Tpm2bPrivate::new(bytes).unwrap(),
        seed: Tpm2bEncryptedSecret::empty(),
    }
}

#[test]
fn areas_that_do_not_fit_are_refused_by_a_fixed_parent_at_once_and_by_another_when_loaded() {
    let mut p = pair(ecc_storage_key(), hmac_key());
    let none = key(b"");
    let good = p.source.state().object(p.object).unwrap().sensitive.clone().unwrap();
    let group = create(&mut p.target, p.parent, duplicable(ecc_storage_key()), b"", b"").unwrap();
    let group = load(&mut p.target, p.parent, &group).unwrap();

    let other_key = TpmtSensitive {
        sensitive: SensitiveComposite::Bits(Secret2b::new(vec![1; 32]).unwrap()),
        ..good.clone()
    };
    let other_type = TpmtSensitive {
        sensitive: SensitiveComposite::Sym(Secret2b::new(vec![1; 16]).unwrap()),
        ..good.clone()
    };
    let long_auth = TpmtSensitive { auth_value: Tpm2bAuth::new(vec![1; 33]).unwrap(), ..good.clone() };
    for (sensitive, at_import, at_load) in [
        (other_key, ResponseCode::BINDING, ResponseCode::BINDING),
        (other_type, ResponseCode::TYPE.parameter(3), ResponseCode::TYPE.parameter(1)),
        (long_auth, ResponseCode::SIZE.parameter(3), ResponseCode::SIZE.parameter(1)),
    ] {
        let d = clear(&sensitive);
        assert_eq!(import(&mut p.target, p.parent, &p.public, &none, &d, NO_SYM), Err(at_import));
        let private = import(&mut p.target, group, &p.public, &none, &d, NO_SYM).unwrap();
        assert_eq!(load_areas(&mut p.target, group, &private, &p.public), Err(at_load));
    }
    let d = clear(&good);
    assert!(import(&mut p.target, p.parent, &p.public, &none, &d, NO_SYM).is_ok());

    let mut long = d.duplicate.to_vec();
    long.push(0);
    let mut short = d.duplicate.to_vec();
    short.pop();
    let mut lies = d.duplicate.to_vec();
    lies[1] += 1;
    lies.push(0);
    for (bytes, expected) in [
        (long, ResponseCode::SIZE),
        (short, ResponseCode::SIZE),
        (lies, ResponseCode::SIZE),
        (vec![0], ResponseCode::INSUFFICIENT),
        (vec![0, 1, 0], ResponseCode::INSUFFICIENT),
    ] {
        let bad = Duplicated { duplicate: Tpm2bPrivate::new(bytes).unwrap(), ..clear(&good) };
        let rc = import(&mut p.target, p.parent, &p.public, &none, &bad, NO_SYM);
        assert_eq!(rc, Err(expected.parameter(3)));
    }
}
