//! Objects with every cipher and hash: keys, parents and their children, Names.

use crate::alg::{SymCipher, hash_alg};
use crate::crypto::SymAlg;
use crate::crypto::sym::{BlockCipher, Mode};
use crate::testing::TestTpm;
use crate::testing::objects::*;
use vtpm_protocol::codec::decode_exact;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::*;

const OWNER: TpmHandle = TpmHandle::OWNER;

fn every_cipher(mode: TpmAlgId) -> Vec<TpmtSymDefObject> {
    let aes = AES_KEY_BITS.map(|key_bits| TpmtSymDef::Aes { key_bits, mode });
    let camellia = CAMELLIA_KEY_BITS.map(|key_bits| TpmtSymDef::Camellia { key_bits, mode });
    let tdes = TDES_KEY_BITS.map(|key_bits| TpmtSymDef::Tdes { key_bits, mode });
    [&aes[..], &camellia, &tdes].concat().into_iter().map(TpmtSymDefObject).collect()
}

fn cipher_key(sym: TpmtSymDefObject) -> TpmtPublic {
    TpmtPublic { parms: PublicParms::SymCipher { sym }, ..symmetric_key() }
}

/// A key whose bits the caller gives.
fn given(sym: TpmtSymDefObject) -> TpmtPublic {
    without(cipher_key(sym), TpmaObject::SENSITIVE_DATA_ORIGIN)
}

fn key_bytes(tpm: &mut TestTpm, handle: TpmHandle) -> Vec<u8> {
    tpm.state().object(handle).unwrap().sensitive.as_ref().unwrap().sensitive.expose().to_vec()
}

#[test]
fn the_tpm_makes_keys_of_every_cipher() {
    let mut tpm = TestTpm::started();
    let parent = create_primary(&mut tpm, OWNER, ecc_storage_key()).unwrap().handle;
    for sym in every_cipher(TpmAlgId::NULL) {
        let cipher = SymCipher::of(sym.0).unwrap();
        let child = create(&mut tpm, parent, cipher_key(sym), b"", b"").unwrap();
        let child = load(&mut tpm, parent, &child).unwrap();
        let primary = create_primary(&mut tpm, OWNER, cipher_key(sym)).unwrap().handle;
        for handle in [child, primary] {
            let key = key_bytes(&mut tpm, handle);
            assert_eq!(key.len(), cipher.key_size());
            assert!(cipher.alg.is_good_key(&key));
            if cipher.alg == SymAlg::Tdes {
                assert!(key.iter().all(|byte| byte.count_ones() % 2 == 1), "{key:x?}");
            }
            flush(&mut tpm, handle);
        }
        // The seed gives the same primary key again.
        let again = create_primary(&mut tpm, OWNER, cipher_key(sym)).unwrap().handle;
        assert_eq!(again, child);
        flush(&mut tpm, again);
    }
}

#[test]
fn a_key_that_the_caller_gives_encrypts_as_it_should() {
    let mut tpm = TestTpm::started();
    let parent = create_primary(&mut tpm, OWNER, ecc_storage_key()).unwrap().handle;
    for sym in every_cipher(TpmAlgId::CBC) {
        let cipher = SymCipher::of(sym.0).unwrap();
        let key: Vec<u8> = (1..=cipher.key_size() as u8).map(|i| i.wrapping_mul(29)).collect();
        let created = create(&mut tpm, parent, given(sym), b"", &key).unwrap();
        let handle = load(&mut tpm, parent, &created).unwrap();
        let iv = vec![1; cipher.alg.block_size()];
        let input =
            (Tpm2bMaxBuffer::new([5; 48]).unwrap(), false, TpmAlgId::NULL, Tpm2bIv::new(iv.clone()).unwrap());
        let (_, out) = tpm.run_with(TpmCc::ENCRYPT_DECRYPT2, &[handle], &[b""], &input).unwrap();
        let (data, _): (Tpm2bMaxBuffer, Tpm2bIv) = decode_exact(&out).unwrap();
        let mut expected = [5; 48];
        let keyed = BlockCipher::new(cipher.alg, &key).unwrap();
        keyed.encrypt(Mode::Cbc, &mut iv.clone(), &mut expected).unwrap();
        assert_eq!(data.as_slice(), expected);
        flush(&mut tpm, handle);
    }
}

#[test]
fn a_key_of_another_size_and_a_weak_one_are_refused() {
    let mut tpm = TestTpm::started();
    let parent = create_primary(&mut tpm, OWNER, ecc_storage_key()).unwrap().handle;
    for sym in every_cipher(TpmAlgId::CFB) {
        let size = SymCipher::of(sym.0).unwrap().key_size();
        for wrong in [size - 1, size + 1, 8] {
            let result = create(&mut tpm, parent, given(sym), b"", &vec![0x25; wrong]).map(drop);
            assert_eq!(result, Err(ResponseCode::KEY_SIZE));
        }
    }
    let tdes = TpmtSymDefObject(TpmtSymDef::Tdes { key_bits: 128, mode: TpmAlgId::CFB });
    let weak = [[1; 8], [0x25; 8]].concat();
    assert_eq!(create(&mut tpm, parent, given(tdes), b"", &weak).map(drop), Err(ResponseCode::KEY));
    // Nor does one come from outside.
    let sensitive = |key: &[u8]| TpmtSensitive {
        auth_value: Tpm2bAuth::empty(),
        seed_value: Tpm2bAuth::new([9; 32]).unwrap(),
        sensitive: SensitiveComposite::Sym(Secret2b::new(key).unwrap()),
    };
    let template = without(given(tdes), TpmaObject::FIXED_TPM | TpmaObject::FIXED_PARENT);
    for (key, rc) in [(&weak[..], ResponseCode::KEY), (&[0x25; 24], ResponseCode::KEY_SIZE)] {
        let result = load_external(&mut tpm, Some(sensitive(key)), &template, TpmHandle::NULL);
        assert_eq!(result, Err(rc.parameter(1)));
    }
}

#[test]
fn cmac_is_for_keys_that_only_sign() {
    let mut tpm = TestTpm::started();
    for sym in every_cipher(TpmAlgId::CMAC) {
        let result = create_primary(&mut tpm, OWNER, cipher_key(sym)).map(drop);
        assert_eq!(result, Err(ResponseCode::SCHEME.parameter(2)));
        let signing = without(cipher_key(sym), TpmaObject::DECRYPT);
        let key = create_primary(&mut tpm, OWNER, signing).unwrap().handle;
        flush(&mut tpm, key);
    }
}

#[test]
fn parents_of_every_cipher_protect_their_children() {
    let mut tpm = TestTpm::started();
    for sym in every_cipher(TpmAlgId::CFB) {
        let of_ecc = TpmtPublic {
            parms: PublicParms::Ecc {
                symmetric: sym,
                scheme: Scheme::NULL,
                curve: TpmEccCurve::NIST_P256,
                kdf: Scheme::NULL,
            },
            ..ecc_storage_key()
        };
        let of_cipher = TpmtPublic { parms: PublicParms::SymCipher { sym }, ..symmetric_storage_key() };
        let (mut private, mut public) = (None, None);
        for parent in [of_ecc, of_cipher] {
            let parent = create_primary(&mut tpm, OWNER, parent).unwrap().handle;
            let child = create(&mut tpm, parent, sealed_data(), b"", b"data").unwrap();
            let loaded = load(&mut tpm, parent, &child).unwrap();
            let (_, out) = tpm.run_with(TpmCc::UNSEAL, &[loaded], &[b""], &()).unwrap();
            assert_eq!(out, [&[0, 4][..], b"data"].concat());
            flush(&mut tpm, loaded);
            // A child of another parent is none of this one.
            if let (Some(private), Some(public)) = (&private, &public) {
                let result = load_areas(&mut tpm, parent, private, public).map(drop);
                assert_eq!(result, Err(ResponseCode::INTEGRITY.parameter(1)));
            }
            let mut bad = child.private.to_vec();
            *bad.last_mut().unwrap() ^= 1;
            let bad = Tpm2bPrivate::new(bad).unwrap();
            let result = load_areas(&mut tpm, parent, &bad, &child.public).map(drop);
            assert_eq!(result, Err(ResponseCode::INTEGRITY.parameter(1)));
            (private, public) = (Some(child.private), Some(child.public));
            flush(&mut tpm, parent);
        }
    }
}

#[test]
fn a_name_is_made_with_any_hash() {
    let mut tpm = TestTpm::started();
    for &name_alg in HASH_ALGS {
        let primary = create_primary(&mut tpm, OWNER, TpmtPublic { name_alg, ..ecc_storage_key() }).unwrap();
        let size = hash_alg(name_alg).unwrap().digest_size();
        assert_eq!((primary.name.len(), &primary.name[..2]), (2 + size, &name_alg.0.to_be_bytes()[..]));
        let child = TpmtPublic { name_alg, ..sealed_data() };
        let child = create(&mut tpm, primary.handle, child, &[1; 20], b"data").unwrap();
        let loaded = load(&mut tpm, primary.handle, &child).unwrap();
        assert!(tpm.run_with(TpmCc::UNSEAL, &[loaded], &[&[1; 20]], &()).is_ok());
        flush(&mut tpm, loaded);
        flush(&mut tpm, primary.handle);
    }
}
