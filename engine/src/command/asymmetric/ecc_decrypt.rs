//! `TPM2_ECC_Decrypt` (Part 3, 14.9; Part 1, C.8).

use super::{check_exchange_key, check_value, curve_of, mask, private_value, select_kdf};
use crate::command::{Context, Output, parameters};
use crate::crypto::{CryptoError, ct_eq, ecc};
use crate::secret::point;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Sized2b, Tpm2bDigest, Tpm2bEccPoint, Tpm2bMaxBuffer, TpmtKdfScheme};
use zeroize::Zeroizing;

/// Decrypts what `TPM2_ECC_Encrypt` encrypted to a key (handle 1, USER).
///
/// # Errors
/// `TPM_RC_KEY` (handle 1) for a key that is not ECC; `TPM_RC_ATTRIBUTES` (handle 1) for one that does not decrypt or is restricted;
/// `TPM_RC_SCHEME` (parameter 4) for another scheme than the key's, or for none, and without a number for one that is not KDF2;
/// `TPM_RC_ECC_POINT` (parameter 1) for a point that is not on the curve; `TPM_RC_VALUE` when `C3` does not fit.
pub fn ecc_decrypt(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    type Parameters = (Tpm2bEccPoint, Tpm2bMaxBuffer, Tpm2bDigest, TpmtKdfScheme);
    let (Sized2b(c1), c2, c3, TpmtKdfScheme(requested)): Parameters = parameters(r)?;
    let key = cx.state.object(cx.handle(0)?)?;
    let curve = curve_of(key)?;
    check_exchange_key(key)?;
    let alg = select_kdf(key, requested).map_err(|e| e.parameter(4))??;
    let shared = ecc::multiply(curve, private_value(key)?, &point(&c1)).map_err(|e| match e {
        CryptoError::Point => ResponseCode::ECC_POINT.parameter(1),
        _ => ResponseCode::KEY.handle(1),
    })?;
    let plain_text = Zeroizing::new(mask(alg, &shared, &c2));
    if !ct_eq(&c3, &check_value(alg, &shared, &plain_text)) {
        return Err(ResponseCode::VALUE);
    }
    Ok(Output::of(&Tpm2bMaxBuffer::new(plain_text.as_slice())?))
}

#[cfg(test)]
mod tests {
    //! Successes are in the tests of `TPM2_ECC_Encrypt`.

    use crate::command::asymmetric::testing::{
        KDF2, decrypt, decrypting, encrypt, generator, not_for_exchange, point,
    };
    use crate::signing::test_keys::*;
    use crate::testing::TestTpm;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::*;

    #[test]
    fn what_was_changed_on_the_way_does_not_decrypt() {
        let mut tpm = TestTpm::started();
        let key = load(&mut tpm, decrypting(ecc(Scheme::NULL)));
        let (c1, c2, c3) = encrypt(&mut tpm, key, b"secret", KDF2).unwrap();
        assert_eq!(decrypt(&mut tpm, key, &(&c1, &c2, &c3), KDF2), Ok(b"secret".to_vec()));
        let flipped = |bytes: &[u8], i: usize| {
            let mut bytes = bytes.to_vec();
            bytes[i] ^= 1;
            bytes
        };
        for i in 0..c2.len() {
            let bad = Tpm2bMaxBuffer::new(flipped(&c2, i)).unwrap();
            assert_eq!(decrypt(&mut tpm, key, &(&c1, &bad, &c3), KDF2), Err(ResponseCode::VALUE));
        }
        for bad in [flipped(&c3, 0), flipped(&c3, 31), c3[1..].to_vec(), vec![]] {
            let bad = Tpm2bDigest::new(bad).unwrap();
            assert_eq!(decrypt(&mut tpm, key, &(&c1, &c2, &bad), KDF2), Err(ResponseCode::VALUE));
        }
        let shorter = Tpm2bMaxBuffer::new(&c2[1..]).unwrap();
        assert_eq!(decrypt(&mut tpm, key, &(&c1, &shorter, &c3), KDF2), Err(ResponseCode::VALUE));
        let other = generator(TpmEccCurve::NIST_P256);
        assert_eq!(decrypt(&mut tpm, key, &(&other, &c2, &c3), KDF2), Err(ResponseCode::VALUE));
        let off = point(&c1.0.y, &c1.0.x);
        let rc = ResponseCode::ECC_POINT.parameter(1);
        assert_eq!(decrypt(&mut tpm, key, &(&off, &c2, &c3), KDF2), Err(rc));
        let sha1 = Scheme::new(TpmAlgId::KDF2, TpmAlgId::SHA1);
        assert_eq!(decrypt(&mut tpm, key, &(&c1, &c2, &c3), sha1), Err(ResponseCode::VALUE));
    }

    #[test]
    fn the_key_and_the_scheme_must_be_for_this() {
        let mut tpm = TestTpm::started();
        let key = load(&mut tpm, decrypting(ecc(Scheme::NULL)));
        let (c1, c2, c3) = encrypt(&mut tpm, key, b"secret", KDF2).unwrap();
        let mgf = Scheme::new(TpmAlgId::MGF1, TpmAlgId::SHA256);
        let none = decrypt(&mut tpm, key, &(&c1, &c2, &c3), Scheme::NULL);
        assert_eq!(none, Err(ResponseCode::SCHEME.parameter(4)));
        assert_eq!(decrypt(&mut tpm, key, &(&c1, &c2, &c3), mgf), Err(ResponseCode::SCHEME));
        let unknown = Scheme::new(TpmAlgId::HMAC, TpmAlgId::SHA256);
        let unknown = decrypt(&mut tpm, key, &(&c1, &c2, &c3), unknown);
        assert_eq!(unknown, Err(ResponseCode::KDF.parameter(4)));
        for (key, rc) in not_for_exchange() {
            tpm.state().transient.clear();
            let key = load(&mut tpm, key);
            assert_eq!(decrypt(&mut tpm, key, &(&c1, &c2, &c3), KDF2), Err(rc.handle(1)));
        }
    }
}
