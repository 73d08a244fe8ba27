//! `TPM2_HMAC` and `TPM2_MAC` (Part 3, 15.5 and 15.6): one command, of which the type of the key tells which it is.

use crate::alg::{SymCipher, digest_2b, hash_alg};
use crate::command::{Context, Output, parameters};
use crate::crypto::mac::Mac;
use crate::crypto::{Cmac, HmacHasher};
use crate::state::Object;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{PublicParms, Tpm2bMaxBuffer, TpmAlgId, TpmaObject, TpmiAlgMacSchemeOrNull};

/// The HMAC of data with a keyed hash key (handle 1, USER), or the CMAC with a symmetric key.
///
/// # Errors
/// Those of [`start`].
pub fn mac(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (data, scheme): (Tpm2bMaxBuffer, TpmiAlgMacSchemeOrNull) = parameters(r)?;
    let mut mac = start(&**cx.state.object(cx.handle(0)?)?, scheme)?;
    mac.update(&data);
    Ok(Output::of(&digest_2b(&mac.finish())))
}

/// Starts the code that `key` (handle 1) makes when the caller asked for `requested` (parameter 2).
///
/// # Errors
/// `TPM_RC_TYPE` (handle 1) for a key of another type; `TPM_RC_VALUE` (parameter 2) when neither key nor caller names a scheme, or when
/// they name two; `TPM_RC_SCHEME` (parameter 2) for a scheme that this type of key does not have; then, blaming handle 1,
/// `TPM_RC_ATTRIBUTES` for a restricted key, which only signs what the TPM hashed, and `TPM_RC_KEY` for one that does not sign.
pub fn start(key: &Object, requested: TpmiAlgMacSchemeOrNull) -> Result<Mac, ResponseCode> {
    let own = match &key.public.parms {
        PublicParms::KeyedHash { scheme } => scheme.hash,
        PublicParms::SymCipher { sym } => match sym.0.block_cipher() {
            Some((_, _, mode)) => mode,
            // A sequence.
            None => return Err(ResponseCode::TYPE.handle(1)),
        },
        PublicParms::Rsa { .. } | PublicParms::Ecc { .. } => return Err(ResponseCode::TYPE.handle(1)),
    };
    let scheme = match (own, requested.0) {
        (TpmAlgId::NULL, TpmAlgId::NULL) => return Err(ResponseCode::VALUE.parameter(2)),
        (own, TpmAlgId::NULL) => own,
        (TpmAlgId::NULL, requested) => requested,
        (own, requested) if own == requested => own,
        _ => return Err(ResponseCode::VALUE.parameter(2)),
    };
    let is_hash = matches!(key.public.parms, PublicParms::KeyedHash { .. });
    if (is_hash && hash_alg(scheme).is_none()) || (!is_hash && scheme != TpmAlgId::CMAC) {
        return Err(ResponseCode::SCHEME.parameter(2));
    }
    if key.has(TpmaObject::RESTRICTED) {
        return Err(ResponseCode::ATTRIBUTES.handle(1));
    }
    let sensitive = key.sensitive.as_ref().filter(|_| key.has(TpmaObject::SIGN_ENCRYPT));
    let secret = sensitive.ok_or(ResponseCode::KEY.handle(1))?.sensitive.expose();
    match &key.public.parms {
        PublicParms::SymCipher { sym } => {
            let cipher = SymCipher::of(sym.0).ok_or(ResponseCode::TYPE.handle(1))?;
            Ok(Mac::Cmac(Cmac::new(cipher.alg, secret).map_err(|_| ResponseCode::FAILURE)?))
        }
        _ => {
            let alg = hash_alg(scheme).ok_or(ResponseCode::SCHEME.parameter(2))?;
            Ok(Mac::Hmac(Box::new(HmacHasher::new(alg, secret))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{HashAlg, hmac};
    use crate::signing::test_keys::*;
    use crate::testing::TestTpm;
    use vtpm_protocol::codec::decode_exact;
    use vtpm_protocol::tpm::*;

    const HMAC_SHA256: Scheme = Scheme::new(TpmAlgId::HMAC, TpmAlgId::SHA256);

    fn mac(
        tpm: &mut TestTpm,
        key: TpmHandle,
        data: &[u8],
        scheme: TpmAlgId,
    ) -> Result<Tpm2bDigest, ResponseCode> {
        let input = (Tpm2bMaxBuffer::new(data).unwrap(), scheme);
        let (_, out) = tpm.run_with(TpmCc::MAC, &[key], &[AUTH], &input)?;
        Ok(decode_exact(&out).unwrap())
    }

    /// A symmetric key in a mode, with the key bytes of [`symmetric`].
    fn cipher(mode: TpmAlgId) -> Object {
        let mut key = symmetric();
        let sym = TpmtSymDef::Aes { key_bits: 128, mode };
        key.public.parms = PublicParms::SymCipher { sym: TpmtSymDefObject(sym) };
        with(key, TpmaObject::SIGN_ENCRYPT)
    }

    #[test]
    fn a_keyed_hash_key_makes_an_hmac_of_its_hash_or_the_caller_s() {
        let mut tpm = TestTpm::started();
        let fixed = load(&mut tpm, keyed_hash(HMAC_SHA256));
        let free = load(&mut tpm, keyed_hash(Scheme::NULL));
        let expected = |alg: HashAlg, data: &[u8]| hmac(alg, &[7; 32], &[data]).to_vec();
        for data in [&b""[..], b"data", &[1; 1024]] {
            for (key, scheme, alg) in [
                (fixed, TpmAlgId::NULL, HashAlg::Sha256),
                (fixed, TpmAlgId::SHA256, HashAlg::Sha256),
                (free, TpmAlgId::SHA1, HashAlg::Sha1),
                (free, TpmAlgId::SM3_256, HashAlg::Sm3),
                (free, TpmAlgId::SHA3_512, HashAlg::Sha3_512),
            ] {
                assert_eq!(mac(&mut tpm, key, data, scheme).unwrap().to_vec(), expected(alg, data));
            }
        }
    }

    #[test]
    fn a_symmetric_key_makes_a_cmac() {
        let mut tpm = TestTpm::started();
        let fixed = load(&mut tpm, cipher(TpmAlgId::CMAC));
        let free = load(&mut tpm, cipher(TpmAlgId::NULL));
        let mut expected = Cmac::new(crate::crypto::SymAlg::Aes, &[8; 16]).unwrap();
        expected.update(b"data");
        let expected = expected.finish().to_vec();
        for (key, scheme) in [(fixed, TpmAlgId::NULL), (fixed, TpmAlgId::CMAC), (free, TpmAlgId::CMAC)] {
            assert_eq!(mac(&mut tpm, key, b"data", scheme).unwrap().to_vec(), expected);
        }
    }

    #[test]
    fn a_scheme_that_fits_neither_key_nor_type_is_refused() {
        let mut tpm = TestTpm::started();
        let (value, scheme) = (ResponseCode::VALUE.parameter(2), ResponseCode::SCHEME.parameter(2));
        for (key, requested, rc) in [
            (keyed_hash(Scheme::NULL), TpmAlgId::NULL, value),
            (keyed_hash(HMAC_SHA256), TpmAlgId::SHA1, value),
            (keyed_hash(Scheme::NULL), TpmAlgId::CMAC, scheme),
            (cipher(TpmAlgId::NULL), TpmAlgId::NULL, value),
            (cipher(TpmAlgId::NULL), TpmAlgId::SHA256, scheme),
            (cipher(TpmAlgId::CFB), TpmAlgId::NULL, scheme),
            (cipher(TpmAlgId::CFB), TpmAlgId::CMAC, value),
        ] {
            let key = load(&mut tpm, key);
            assert_eq!(mac(&mut tpm, key, b"", requested), Err(rc));
            crate::testing::objects::flush(&mut tpm, key);
        }
        let key = load(&mut tpm, keyed_hash(Scheme::NULL));
        for other in [TpmAlgId::AES, TpmAlgId::HMAC, TpmAlgId::CFB, TpmAlgId(0x99)] {
            assert_eq!(mac(&mut tpm, key, b"", other), Err(ResponseCode::SYMMETRIC.parameter(2)));
        }
    }

    #[test]
    fn only_unrestricted_keys_that_sign_make_one() {
        let mut tpm = TestTpm::started();
        for (key, rc) in [
            (restricted(keyed_hash(HMAC_SHA256)), ResponseCode::ATTRIBUTES),
            (restricted(cipher(TpmAlgId::CMAC)), ResponseCode::ATTRIBUTES),
            (without(keyed_hash(HMAC_SHA256), TpmaObject::SIGN_ENCRYPT), ResponseCode::KEY),
            (without(cipher(TpmAlgId::CMAC), TpmaObject::SIGN_ENCRYPT), ResponseCode::KEY),
            (ecc(Scheme::NULL), ResponseCode::TYPE),
        ] {
            let key = load(&mut tpm, key);
            assert_eq!(mac(&mut tpm, key, b"", TpmAlgId::NULL), Err(rc.handle(1)));
            crate::testing::objects::flush(&mut tpm, key);
        }
        let key = load(&mut tpm, keyed_hash(HMAC_SHA256));
        let input = (Tpm2bMaxBuffer::empty(), TpmAlgId::NULL);
        assert_eq!(tpm.run(TpmCc::HMAC, &[key], &input), Err(ResponseCode::AUTH_MISSING));
        let wrong = tpm.run_with(TpmCc::HMAC, &[key], &[b"wrong"], &input).map(drop);
        assert_eq!(wrong, Err(ResponseCode::AUTH_FAIL.session(1)));
    }

    #[test]
    fn more_than_a_buffer_is_refused() {
        let mut tpm = TestTpm::started();
        let key = load(&mut tpm, keyed_hash(HMAC_SHA256));
        let result = tpm.run_with(TpmCc::HMAC, &[key], &[AUTH], &1025u16).map(drop);
        assert_eq!(result, Err(ResponseCode::SIZE.parameter(1)));
    }
}
