//! `TPM2_RSA_Decrypt` (Part 3, 14.3).

use super::{check_label, select_rsa_scheme};
use crate::alg::hash_alg;
use crate::command::{Context, Output, parameters};
use crate::crypto::CryptoError;
use crate::secret::rsa_private;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{
    MAX_RSA_KEY_BYTES, PublicParms, Secret2b, Tpm2bData, Tpm2bPublicKeyRsa, TpmAlgId, TpmaObject,
    TpmtRsaDecrypt,
};

/// Decrypts with a private key and removes the padding. What [`crate::crypto`] does after the private-key operation takes the same steps
/// whatever comes out of it, and one code stands for all that can be wrong with the padding.
///
/// # Errors
/// `TPM_RC_KEY` for a key that is not RSA, `TPM_RC_ATTRIBUTES` for one that is restricted or does not decrypt, `TPM_RC_VALUE` for a label without
/// its terminating zero, `TPM_RC_SCHEME` for another scheme than the key's; blaming nothing, as in libtpms, `TPM_RC_SIZE` for a
/// ciphertext that is not as long as the modulus or not below it, `TPM_RC_VALUE` for any fault in the padding, and `TPM_RC_BINDING` for a
/// private part that is not that of the public one.
pub fn rsa_decrypt(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (cipher_text, TpmtRsaDecrypt(requested), label): (Tpm2bPublicKeyRsa, _, Tpm2bData) = parameters(r)?;
    let key = cx.state.object(cx.handle(0)?)?;
    if !matches!(key.public.parms, PublicParms::Rsa { .. }) {
        return Err(ResponseCode::KEY.handle(1));
    }
    if key.has(TpmaObject::RESTRICTED) || !key.has(TpmaObject::DECRYPT) {
        return Err(ResponseCode::ATTRIBUTES.handle(1));
    }
    check_label(&label)?;
    let scheme = select_rsa_scheme(key, requested)?;
    let private = rsa_private(key)?;
    let message = match scheme.scheme {
        TpmAlgId::NULL => private.decrypt_raw(&cipher_text),
        TpmAlgId::RSAES => private.decrypt_rsaes(&cipher_text),
        TpmAlgId::OAEP => {
            let alg = hash_alg(scheme.hash).ok_or(ResponseCode::SCHEME)?;
            private.decrypt_oaep(alg, &label, &cipher_text)
        }
        _ => return Err(ResponseCode::SCHEME),
    };
    let message = message.map_err(|e| match e {
        CryptoError::Length | CryptoError::Range => ResponseCode::SIZE,
        CryptoError::Padding | CryptoError::HashTooLarge => ResponseCode::VALUE,
        CryptoError::Fault | CryptoError::Binding => ResponseCode::BINDING,
        _ => ResponseCode::FAILURE,
    })?;
    Ok(Output::of(&Secret2b::<MAX_RSA_KEY_BYTES>::new(message.as_slice())?))
}

#[cfg(test)]
mod tests {
    use crate::crypto::HashAlg;
    use crate::secret::rsa_public;
    use crate::signing::test_keys::*;
    use crate::state::Object;
    use crate::testing::TestTpm;
    use vtpm_protocol::codec::decode_exact;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::*;

    const OAEP: Scheme = Scheme::new(TpmAlgId::OAEP, TpmAlgId::SHA256);
    const RSAES: Scheme = Scheme::new(TpmAlgId::RSAES, TpmAlgId::NULL);

    fn decrypting(scheme: Scheme) -> Object {
        with(without(rsa(scheme), TpmaObject::SIGN_ENCRYPT), TpmaObject::DECRYPT)
    }

    fn decrypt(
        tpm: &mut TestTpm,
        key: TpmHandle,
        cipher: &[u8],
        scheme: Scheme,
        label: &[u8],
    ) -> Result<Vec<u8>, ResponseCode> {
        let cipher = Tpm2bPublicKeyRsa::new(cipher).unwrap();
        let input = (cipher, TpmtRsaDecrypt(scheme), Tpm2bData::new(label).unwrap());
        let (_, out) = tpm.run_with(TpmCc::RSA_DECRYPT, &[key], &[AUTH], &input)?;
        Ok(decode_exact::<Tpm2bPublicKeyRsa>(&out).unwrap().to_vec())
    }

    fn encrypt(tpm: &mut TestTpm, key: TpmHandle, message: &[u8], scheme: Scheme, label: &[u8]) -> Vec<u8> {
        let message = Tpm2bPublicKeyRsa::new(message).unwrap();
        let input = (message, TpmtRsaDecrypt(scheme), Tpm2bData::new(label).unwrap());
        tpm.run(TpmCc::RSA_ENCRYPT, &[key], &input).unwrap()[2..].to_vec()
    }

    #[test]
    fn what_was_encrypted_is_decrypted_with_keys_of_every_size() {
        for bits in RSA_KEY_BITS {
            let mut tpm = TestTpm::started();
            let object =
                with(without(sized_rsa(bits, Scheme::NULL), TpmaObject::SIGN_ENCRYPT), TpmaObject::DECRYPT);
            let key = load(&mut tpm, object);
            for (scheme, label) in [(OAEP, b"label\0".as_slice()), (OAEP, b""), (RSAES, b"")] {
                let cipher = encrypt(&mut tpm, key, b"message", scheme, label);
                assert_eq!(cipher.len(), usize::from(bits / 8));
                assert_eq!(decrypt(&mut tpm, key, &cipher, scheme, label).unwrap(), b"message");
            }
            let cipher = encrypt(&mut tpm, key, b"message", Scheme::NULL, b"");
            let raw = decrypt(&mut tpm, key, &cipher, Scheme::NULL, b"").unwrap();
            assert_eq!(raw.len(), usize::from(bits / 8));
            assert_eq!(raw[raw.len() - 8..], *b"\0message");
        }
    }

    /// MGF1 by itself, so that the test does not build its blocks with what it tests.
    fn mask(data: &mut [u8], seed: &[u8]) {
        for (counter, chunk) in (0u32..).zip(data.chunks_mut(32)) {
            let block = HashAlg::Sha256.digest(&[seed, &counter.to_be_bytes()]);
            chunk.iter_mut().zip(block.iter()).for_each(|(byte, mask)| *byte ^= mask);
        }
    }

    /// CVE-2026-6727: the time of an OAEP decryption told what was wrong with the padding. Here each kind of fault is one code, and the code after
    /// the private-key operation (`crypto/padding.rs`) has no branch on what came out but for the verdict.
    #[test]
    fn cve_2026_6727_every_bad_padding_is_the_same_response() {
        let mut tpm = TestTpm::started();
        let object = decrypting(Scheme::NULL);
        let public = rsa_public(&object.public).unwrap();
        let key = load(&mut tpm, object);
        let oaep = |first: u8, label: &[u8], padded: &[u8]| {
            let mut seed = vec![3; 32];
            let mut data = [HashAlg::Sha256.digest(&[label]).as_slice(), padded].concat();
            data.resize(256 - 33, 0);
            mask(&mut data, &seed);
            mask(&mut seed, &data);
            [&[first], seed.as_slice(), &data].concat()
        };
        let rsaes = |head: [u8; 2], padding: &[u8], rest: &[u8]| {
            let mut block = [&head, padding, rest].concat();
            block.resize(256, 0x55);
            block
        };
        let mut run = |block: &[u8], scheme| {
            let cipher = public.encrypt_raw(block).unwrap();
            decrypt(&mut tpm, key, &cipher, scheme, if scheme == OAEP { b"label\0" } else { b"" })
        };
        assert!(run(&oaep(0, b"label\0", b"\0\0\x01message"), OAEP).unwrap().starts_with(b"message"));
        for (fault, block) in [
            ("first byte", oaep(1, b"label\0", b"\0\0\x01message")),
            ("label", oaep(0, b"label", b"\0\0\x01message")),
            ("separator", oaep(0, b"label\0", b"\0\0\x02message")),
            ("separator at once", oaep(0, b"label\0", b"\x02\x01message")),
            ("no separator", oaep(0, b"label\0", b"")),
            ("first byte and label", oaep(1, b"other", b"")),
            ("all of it", vec![0x11; 256]),
        ] {
            assert_eq!(run(&block, OAEP), Err(ResponseCode::VALUE), "OAEP: {fault}");
        }
        assert_eq!(run(&rsaes([0, 2], &[9; 8], &[0]), RSAES).unwrap().len(), 256 - 11);
        for (fault, block) in [
            ("first byte", rsaes([1, 2], &[9; 8], &[0])),
            ("block type", rsaes([0, 1], &[9; 8], &[0])),
            ("short padding", rsaes([0, 2], &[9; 7], &[0])),
            ("no padding", rsaes([0, 2], &[], &[0])),
            ("no separator", rsaes([0, 2], &[9; 8], &[])),
        ] {
            assert_eq!(run(&block, RSAES), Err(ResponseCode::VALUE), "RSAES: {fault}");
        }
    }

    #[test]
    fn a_ciphertext_is_as_long_as_the_modulus_and_below_it() {
        let mut tpm = TestTpm::started();
        let object = decrypting(Scheme::NULL);
        let PublicId::Rsa(n) = object.public.unique.clone() else { panic!() };
        let key = load(&mut tpm, object);
        for scheme in [Scheme::NULL, OAEP, RSAES] {
            for cipher in [&[1; 255][..], &[0; 257], &[], &n] {
                assert_eq!(decrypt(&mut tpm, key, cipher, scheme, b""), Err(ResponseCode::SIZE));
            }
        }
    }

    #[test]
    fn only_an_unrestricted_decryption_key_decrypts() {
        let mut tpm = TestTpm::started();
        let attributes = Err(ResponseCode::ATTRIBUTES.handle(1));
        for key in [rsa(Scheme::NULL), restricted(decrypting(Scheme::NULL))] {
            let key = load(&mut tpm, key);
            assert_eq!(decrypt(&mut tpm, key, &[1; 256], RSAES, b""), attributes);
        }
        tpm.state().transient.clear();
        let curve = load(&mut tpm, with(ecc(Scheme::NULL), TpmaObject::DECRYPT));
        assert_eq!(decrypt(&mut tpm, curve, &[1; 256], RSAES, b""), Err(ResponseCode::KEY.handle(1)));
        let key = load(&mut tpm, decrypting(OAEP));
        let other = Err(ResponseCode::SCHEME.parameter(2));
        assert_eq!(decrypt(&mut tpm, key, &[1; 256], RSAES, b""), other);
        let label = Err(ResponseCode::VALUE.parameter(3));
        assert_eq!(decrypt(&mut tpm, key, &[1; 256], OAEP, b"label"), label);
        let public = load(&mut tpm, public_only(decrypting(OAEP)));
        let unavailable = Err(ResponseCode::AUTH_UNAVAILABLE);
        assert_eq!(decrypt(&mut tpm, public, &[1; 256], OAEP, b"").map_err(|e| e.base()), unavailable);
        let input = (0u16, TpmtRsaDecrypt(OAEP), 0u16);
        let wrong = tpm.run_with(TpmCc::RSA_DECRYPT, &[key], &[b"no"], &input).map(drop);
        assert_eq!(wrong, Err(ResponseCode::AUTH_FAIL.session(1)));
    }

    #[test]
    fn a_prime_of_another_key_decrypts_nothing() {
        let mut tpm = TestTpm::started();
        let mut key = decrypting(Scheme::NULL);
        key.sensitive.as_mut().unwrap().sensitive =
            SensitiveComposite::Rsa(Secret2b::new(vec![0xff; 128]).unwrap());
        let key = load(&mut tpm, key);
        assert_eq!(decrypt(&mut tpm, key, &[1; 256], RSAES, b""), Err(ResponseCode::BINDING));
    }

    #[test]
    fn a_key_that_signs_as_well_decrypts() {
        let mut tpm = TestTpm::started();
        let key = load(&mut tpm, with(rsa(Scheme::NULL), TpmaObject::DECRYPT));
        let cipher = encrypt(&mut tpm, key, b"message", OAEP, b"");
        assert_eq!(decrypt(&mut tpm, key, &cipher, OAEP, b"").unwrap(), b"message");
    }
}
