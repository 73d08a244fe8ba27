use crate::command::asymmetric::testing::{KDF2, decrypt, decrypting, encrypt, z_gen};
use crate::crypto::HashAlg;
use crate::secret;
use crate::signing::test_keys::*;
use crate::testing::TestTpm;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::*;

#[test]
fn what_is_encrypted_decrypts_again() {
    let mut tpm = TestTpm::started();
    for curve in ECC_CURVES {
        tpm.state().transient.clear();
        let key = load(&mut tpm, decrypting(ecc_on(curve, Scheme::NULL)));
        let public = load(&mut tpm, public_only(decrypting(ecc_on(curve, Scheme::NULL))));
        for (plain_text, hash) in [
            (vec![], TpmAlgId::SHA1),
            (b"secret".to_vec(), TpmAlgId::SHA256),
            (vec![7; 1024], TpmAlgId::SHA512),
        ] {
            let scheme = Scheme::new(TpmAlgId::KDF2, hash);
            let (c1, c2, c3) = encrypt(&mut tpm, public, &plain_text, scheme).unwrap();
            let size = secret::curve(curve).unwrap().field_size();
            assert_eq!((c1.0.x.len(), c2.len()), (size, plain_text.len()));
            assert_eq!(decrypt(&mut tpm, key, &(c1, c2, c3), scheme), Ok(plain_text));
        }
        let one = encrypt(&mut tpm, key, b"secret", KDF2).unwrap();
        assert_ne!(encrypt(&mut tpm, key, b"secret", KDF2).unwrap(), one);
    }
}

/// Part 1, C.8, done again: blocks `H(x2 || y2 || i)` from 1 on.
#[test]
fn the_parts_are_what_the_shared_point_makes_of_the_data() {
    let mut tpm = TestTpm::started();
    let key = load(&mut tpm, decrypting(ecc(Scheme::NULL)));
    let plain_text = [0x11; 70];
    let (c1, c2, c3) = encrypt(&mut tpm, key, &plain_text, KDF2).unwrap();
    let Sized2b(p2) = z_gen(&mut tpm, key, &c1).unwrap();
    let mut mask = Vec::new();
    for i in 1u32..=3 {
        mask.extend_from_slice(HashAlg::Sha256.digest(&[&p2.x, &p2.y, &i.to_be_bytes()]).as_slice());
    }
    let expected: Vec<u8> = mask.iter().zip(plain_text).map(|(a, b)| a ^ b).collect();
    assert_eq!(c2.as_slice(), expected);
    assert_eq!(c3.as_slice(), HashAlg::Sha256.digest(&[&p2.x, &plain_text, &p2.y]).as_slice());
}

#[test]
fn there_must_be_one_scheme_and_it_is_kdf2() {
    let mut tpm = TestTpm::started();
    let key = load(&mut tpm, decrypting(ecc(Scheme::NULL)));
    let none = Err(ResponseCode::SCHEME.parameter(2));
    assert_eq!(encrypt(&mut tpm, key, b"data", Scheme::NULL), none);
    for kdf in [TpmAlgId::MGF1, TpmAlgId::KDF1_SP800_56A, TpmAlgId::KDF1_SP800_108] {
        let scheme = Scheme::new(kdf, TpmAlgId::SHA256);
        assert_eq!(encrypt(&mut tpm, key, b"data", scheme), Err(ResponseCode::SCHEME));
    }
    let unknown = Scheme::new(TpmAlgId::ECDH, TpmAlgId::SHA256);
    assert_eq!(encrypt(&mut tpm, key, b"data", unknown), Err(ResponseCode::KDF.parameter(2)));

    // Keys of this TPM have no KDF, but if they had one it would count.
    let mut own = decrypting(ecc(Scheme::NULL));
    if let PublicParms::Ecc { kdf, .. } = &mut own.public.parms {
        *kdf = KDF2;
    }
    let own = load(&mut tpm, own);
    let encrypted = encrypt(&mut tpm, own, b"data", Scheme::NULL).unwrap();
    assert_eq!(decrypt(&mut tpm, own, &encrypted, Scheme::NULL), Ok(b"data".to_vec()));
    assert_eq!(decrypt(&mut tpm, own, &encrypted, KDF2), Ok(b"data".to_vec()));
    let sha1 = Scheme::new(TpmAlgId::KDF2, TpmAlgId::SHA1);
    assert_eq!(encrypt(&mut tpm, own, b"data", sha1), none);
}

#[test]
fn only_an_ecc_key_will_do() {
    let mut tpm = TestTpm::started();
    for key in [decrypting(rsa(Scheme::NULL)), keyed_hash(Scheme::NULL)] {
        let key = load(&mut tpm, key);
        assert_eq!(encrypt(&mut tpm, key, b"data", KDF2), Err(ResponseCode::KEY.handle(1)));
    }
    // Off its curve, which only an unchecked key can be.
    let mut off = decrypting(ecc(Scheme::NULL));
    if let PublicId::Ecc(q) = &mut off.public.unique {
        std::mem::swap(&mut q.x, &mut q.y);
    }
    let off = load(&mut tpm, off);
    assert_eq!(encrypt(&mut tpm, off, b"data", KDF2), Err(ResponseCode::NO_RESULT));
}

/// Only decryption depends on the attributes, as in libtpms.
#[test]
fn everyone_may_encrypt_to_any_ecc_key() {
    let mut tpm = TestTpm::started();
    for key in [ecc(Scheme::NULL), restricted(decrypting(ecc(Scheme::NULL))), public_only(ecc(Scheme::NULL))]
    {
        tpm.state().transient.clear();
        let key = load(&mut tpm, key);
        assert!(encrypt(&mut tpm, key, b"data", KDF2).is_ok());
    }
}
