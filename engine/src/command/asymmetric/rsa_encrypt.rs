//! `TPM2_RSA_Encrypt` (Part 3, 14.2).

use super::{check_label, select_rsa_scheme};
use crate::alg::hash_alg;
use crate::command::{Context, EnvRandom, Output, parameters};
use crate::crypto::CryptoError;
use crate::secret::rsa_public_of;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{PublicParms, Tpm2bData, Tpm2bPublicKeyRsa, TpmAlgId, TpmaObject, TpmtRsaDecrypt};

/// Encrypts to a public key: padded as RSAES or OAEP, or without padding, where the caller's bytes are a number.
///
/// # Errors
/// `TPM_RC_KEY` for a key that is not RSA, `TPM_RC_ATTRIBUTES` for one that does not decrypt, `TPM_RC_VALUE` for a label without its terminating
/// zero, `TPM_RC_SCHEME` for another scheme than the key's; blaming nothing, as in libtpms, `TPM_RC_VALUE` for a message that is too
/// long or a number that is not below the modulus, and `TPM_RC_HASH` for an OAEP hash that is too long for the key.
pub fn rsa_encrypt(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (message, TpmtRsaDecrypt(requested), label): (Tpm2bPublicKeyRsa, _, Tpm2bData) = parameters(r)?;
    let key = cx.state.object(cx.handle(0)?)?;
    if !matches!(key.public.parms, PublicParms::Rsa { .. }) {
        return Err(ResponseCode::KEY.handle(1));
    }
    if !key.has(TpmaObject::DECRYPT) {
        return Err(ResponseCode::ATTRIBUTES.handle(1));
    }
    check_label(&label)?;
    let scheme = select_rsa_scheme(key, requested)?;
    let public = rsa_public_of(key)?;
    let rng = &mut EnvRandom(cx.env);
    let encrypted = match scheme.scheme {
        TpmAlgId::NULL => public.encrypt_raw(&message),
        TpmAlgId::RSAES => public.encrypt_rsaes(&message, rng),
        TpmAlgId::OAEP => {
            let alg = hash_alg(scheme.hash).ok_or(ResponseCode::SCHEME)?;
            public.encrypt_oaep(alg, &label, &message, rng)
        }
        _ => return Err(ResponseCode::SCHEME),
    };
    let encrypted = encrypted.map_err(|e| match e {
        CryptoError::MessageTooLong | CryptoError::Range => ResponseCode::VALUE,
        CryptoError::HashTooLarge => ResponseCode::HASH,
        _ => ResponseCode::FAILURE,
    })?;
    Ok(Output::of(&Tpm2bPublicKeyRsa::new(encrypted)?))
}

#[cfg(test)]
mod tests {
    use crate::secret::{rsa_private, rsa_public};
    use crate::signing::test_keys::*;
    use crate::testing::TestTpm;
    use vtpm_protocol::codec::decode_exact;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::*;

    const OAEP: Scheme = Scheme::new(TpmAlgId::OAEP, TpmAlgId::SHA256);
    const RSAES: Scheme = Scheme::new(TpmAlgId::RSAES, TpmAlgId::NULL);

    fn decrypting(scheme: Scheme) -> crate::state::Object {
        with(without(rsa(scheme), TpmaObject::SIGN_ENCRYPT), TpmaObject::DECRYPT)
    }

    fn encrypt(
        tpm: &mut TestTpm,
        key: TpmHandle,
        message: &[u8],
        scheme: Scheme,
        label: &[u8],
    ) -> Result<Vec<u8>, ResponseCode> {
        let message = Tpm2bPublicKeyRsa::new(message).unwrap();
        let input = (message, TpmtRsaDecrypt(scheme), Tpm2bData::new(label).unwrap());
        let out = tpm.run(TpmCc::RSA_ENCRYPT, &[key], &input)?;
        Ok(decode_exact::<Tpm2bPublicKeyRsa>(&out).unwrap().to_vec())
    }

    #[test]
    fn the_private_key_decrypts_each_padding() {
        let mut tpm = TestTpm::started();
        let object = decrypting(Scheme::NULL);
        let key = load(&mut tpm, public_only(object.clone()));
        let private = rsa_private(&object).unwrap();
        let rsaes = encrypt(&mut tpm, key, b"message", RSAES, b"").unwrap();
        assert_eq!(*private.decrypt_rsaes(&rsaes).unwrap(), b"message");
        for (hash, label) in [(TpmAlgId::SHA1, b"".as_slice()), (TpmAlgId::SHA384, b"label\0")] {
            let scheme = Scheme::new(TpmAlgId::OAEP, hash);
            let oaep = encrypt(&mut tpm, key, b"message", scheme, label).unwrap();
            let alg = crate::alg::hash_alg(hash).unwrap();
            assert_eq!(*private.decrypt_oaep(alg, label, &oaep).unwrap(), b"message");
        }
        let raw = encrypt(&mut tpm, key, &[1, 2, 3], Scheme::NULL, b"").unwrap();
        assert_eq!(raw, encrypt(&mut tpm, key, &[0, 0, 1, 2, 3], Scheme::NULL, b"").unwrap());
        assert_eq!(private.decrypt_raw(&raw).unwrap()[253..], [1, 2, 3]);
        // Leading zeros do not count, not even in front of a number of full length.
        assert!(
            encrypt(&mut tpm, key, &[&[0; 256], [1; 256].as_slice()].concat(), Scheme::NULL, b"").is_ok()
        );
    }

    #[test]
    fn messages_that_do_not_fit_are_refused() {
        let mut tpm = TestTpm::started();
        let object = decrypting(Scheme::NULL);
        let key = load(&mut tpm, object.clone());
        let mut len = |scheme, len: usize| encrypt(&mut tpm, key, &vec![1; len], scheme, b"").map(drop);
        assert_eq!(len(RSAES, 245), Ok(()));
        assert_eq!(len(RSAES, 246), Err(ResponseCode::VALUE));
        assert_eq!(len(OAEP, 190), Ok(()));
        assert_eq!(len(OAEP, 191), Err(ResponseCode::VALUE));
        assert_eq!(len(Scheme::NULL, 256), Ok(()));
        assert_eq!(len(Scheme::NULL, 257), Err(ResponseCode::VALUE));
        let PublicId::Rsa(n) = &object.public.unique else { panic!() };
        assert_eq!(encrypt(&mut tpm, key, n, Scheme::NULL, b""), Err(ResponseCode::VALUE));
        assert_eq!(rsa_public(&object.public).unwrap().size(), 256);
    }

    #[test]
    fn an_oaep_hash_may_be_too_long_for_a_small_key() {
        let mut tpm = TestTpm::started();
        let key = load(&mut tpm, with(sized_rsa(1024, Scheme::NULL), TpmaObject::DECRYPT));
        let sha512 = Scheme::new(TpmAlgId::OAEP, TpmAlgId::SHA512);
        assert_eq!(encrypt(&mut tpm, key, b"", sha512, b""), Err(ResponseCode::HASH));
        assert!(encrypt(&mut tpm, key, b"", OAEP, b"").is_ok());
    }

    #[test]
    fn the_key_s_scheme_may_be_repeated_or_left_out_but_not_changed() {
        let mut tpm = TestTpm::started();
        let key = load(&mut tpm, decrypting(OAEP));
        for scheme in [Scheme::NULL, OAEP] {
            assert!(encrypt(&mut tpm, key, b"m", scheme, b"").is_ok());
        }
        for scheme in [RSAES, Scheme::new(TpmAlgId::OAEP, TpmAlgId::SHA1)] {
            let refused = Err(ResponseCode::SCHEME.parameter(2));
            assert_eq!(encrypt(&mut tpm, key, b"m", scheme, b""), refused);
        }
        let key = load(&mut tpm, decrypting(RSAES));
        assert!(encrypt(&mut tpm, key, b"m", RSAES, b"").is_ok());
        let signing = Scheme::new(TpmAlgId::RSASSA, TpmAlgId::SHA256);
        assert_eq!(encrypt(&mut tpm, key, b"m", signing, b""), Err(ResponseCode::VALUE.parameter(2)));
    }

    #[test]
    fn label_key_and_attributes_are_checked() {
        let mut tpm = TestTpm::started();
        let key = load(&mut tpm, decrypting(Scheme::NULL));
        let refused = Err(ResponseCode::VALUE.parameter(3));
        for scheme in [OAEP, RSAES, Scheme::NULL] {
            assert_eq!(encrypt(&mut tpm, key, b"m", scheme, b"label"), refused);
        }
        let signs = load(&mut tpm, rsa(Scheme::NULL));
        assert_eq!(encrypt(&mut tpm, signs, b"m", OAEP, b""), Err(ResponseCode::ATTRIBUTES.handle(1)));
        let curve = load(&mut tpm, with(ecc(Scheme::NULL), TpmaObject::DECRYPT));
        assert_eq!(encrypt(&mut tpm, curve, b"m", OAEP, b""), Err(ResponseCode::KEY.handle(1)));
    }
}
