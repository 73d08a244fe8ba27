//! `TPM2_ECDH_KeyGen` (Part 3, 14.4).

use super::{curve_of, point_2b, public_point};
use crate::command::{Context, EnvRandom, Output, parameters};
use crate::crypto::{CryptoError, ecc};
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;

/// Makes an ephemeral key pair and returns its public point and, in front of it, the point that it shares with a public key (handle 1, no
/// authorization). The private value is forgotten.
///
/// # Errors
/// `TPM_RC_KEY` (handle 1) for a key that is not ECC, or whose point is not on its curve, as only one without a Name can be.
pub fn ecdh_key_gen(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let () = parameters(r)?;
    let key = cx.state.object(cx.handle(0)?)?;
    let curve = curve_of(key)?;
    let public = public_point(key)?;
    let (d, ephemeral) = ecc::generate(curve, &mut EnvRandom(cx.env));
    let shared = ecc::multiply(curve, &d, &public).map_err(|e| match e {
        CryptoError::Point => ResponseCode::KEY.handle(1),
        _ => ResponseCode::NO_RESULT,
    })?;
    Ok(Output::of(&(point_2b(&shared)?, point_2b(&ephemeral)?)))
}

#[cfg(test)]
mod tests {
    use crate::command::asymmetric::testing::{decrypting, point, z_gen};
    use crate::crypto::ecc;
    use crate::secret;
    use crate::signing::test_keys::*;
    use crate::testing::TestTpm;
    use vtpm_protocol::codec::decode_exact;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::*;

    #[test]
    fn the_private_key_finds_the_shared_point_again() {
        let mut tpm = TestTpm::started();
        for curve in ECC_CURVES {
            tpm.state().transient.clear();
            let key = load(&mut tpm, decrypting(ecc_on(curve, Scheme::NULL)));
            let public = load(&mut tpm, public_only(decrypting(ecc_on(curve, Scheme::NULL))));
            let out = tpm.run(TpmCc::ECDH_KEY_GEN, &[public], &()).unwrap();
            let (z, ephemeral): (Tpm2bEccPoint, Tpm2bEccPoint) = decode_exact(&out).unwrap();
            assert_eq!(z_gen(&mut tpm, key, &ephemeral), Ok(z.clone()));
            let size = secret::curve(curve).unwrap().field_size();
            assert_eq!([z.0.x.len(), z.0.y.len(), ephemeral.0.x.len()], [size; 3]);
            let again = tpm.run(TpmCc::ECDH_KEY_GEN, &[public], &()).unwrap();
            assert_ne!(again, out);
        }
    }

    #[test]
    fn only_an_ecc_key_with_a_point_on_its_curve_will_do() {
        let mut tpm = TestTpm::started();
        let rc = |tpm: &mut TestTpm, key| tpm.run(TpmCc::ECDH_KEY_GEN, &[key], &());
        let hmac = load(&mut tpm, keyed_hash(Scheme::NULL));
        assert_eq!(rc(&mut tpm, hmac), Err(ResponseCode::KEY.handle(1)));
        // A signing key has a point as well.
        let signing = load(&mut tpm, ecc(Scheme::NULL));
        assert!(rc(&mut tpm, signing).is_ok());
        let mut off = ecc(Scheme::NULL);
        let generator = ecc::Curve::NistP256.parameters();
        off.public.unique = PublicId::Ecc(point(generator.gy, generator.gx).0);
        let off = load(&mut tpm, off);
        assert_eq!(rc(&mut tpm, off), Err(ResponseCode::KEY.handle(1)));
        assert_eq!(tpm.run(TpmCc::ECDH_KEY_GEN, &[signing], &1u8), Err(ResponseCode::SIZE));
    }
}
