//! `TPM2_ECDH_ZGen` (Part 3, 14.5).

use super::{check_exchange_key, curve_of, point_2b, private_value, scheme_of};
use crate::command::{Context, Output, parameters};
use crate::crypto::{CryptoError, ecc};
use crate::secret::point;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Sized2b, Tpm2bEccPoint, TpmAlgId};

/// Multiplies a point by the private value of a key (handle 1, USER).
///
/// # Errors
/// For the handle: `TPM_RC_KEY` for a key that is not ECC, `TPM_RC_ATTRIBUTES` for one that does not decrypt or is restricted, `TPM_RC_SCHEME` for
/// one with another scheme than ECDH. For the parameter: `TPM_RC_ECC_POINT` for a point that is not on the curve.
pub fn ecdh_z_gen(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (Sized2b(in_point),): (Tpm2bEccPoint,) = parameters(r)?;
    let key = cx.state.object(cx.handle(0)?)?;
    let curve = curve_of(key)?;
    check_exchange_key(key)?;
    if ![TpmAlgId::ECDH, TpmAlgId::NULL].contains(&scheme_of(key)) {
        return Err(ResponseCode::SCHEME.handle(1));
    }
    let shared = ecc::multiply(curve, private_value(key)?, &point(&in_point)).map_err(|e| match e {
        CryptoError::Point => ResponseCode::ECC_POINT.parameter(1),
        _ => ResponseCode::KEY.handle(1),
    })?;
    Ok(Output::of(&point_2b(&shared)?))
}

#[cfg(test)]
mod tests {
    use crate::command::asymmetric::testing::{decrypting, generator, not_for_exchange, point, z_gen};
    use crate::signing::test_keys::*;
    use crate::testing::TestTpm;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::*;

    #[test]
    fn the_product_with_the_generator_is_the_public_point() {
        let mut tpm = TestTpm::started();
        for curve in ECC_CURVES {
            for scheme in [Scheme::NULL, Scheme::new(TpmAlgId::ECDH, TpmAlgId::SHA256)] {
                tpm.state().transient.clear();
                let object = decrypting(ecc_on(curve, scheme));
                let PublicId::Ecc(public) = object.public.unique.clone() else { panic!("no point") };
                let key = load(&mut tpm, object);
                assert_eq!(z_gen(&mut tpm, key, &generator(curve)), Ok(Sized2b(public)));
            }
        }
    }

    #[test]
    fn a_point_off_the_curve_is_refused() {
        let mut tpm = TestTpm::started();
        for curve in ECC_CURVES {
            tpm.state().transient.clear();
            let key = load(&mut tpm, decrypting(ecc_on(curve, Scheme::NULL)));
            let Sized2b(g) = generator(curve);
            for bad in
                [point(&g.y, &g.x), point(&[], &[]), point(&g.x, &[]), point(&vec![0xff; g.x.len()], &g.y)]
            {
                assert_eq!(z_gen(&mut tpm, key, &bad), Err(ResponseCode::ECC_POINT.parameter(1)));
            }
        }
    }

    #[test]
    fn the_key_must_be_for_this() {
        let mut tpm = TestTpm::started();
        let g = generator(TpmEccCurve::NIST_P256);
        let of_another_scheme = [TpmAlgId::ECMQV, TpmAlgId::SM2]
            .map(|alg| (decrypting(ecc(Scheme::new(alg, TpmAlgId::SHA256))), ResponseCode::SCHEME));
        for (key, rc) in not_for_exchange().into_iter().chain(of_another_scheme) {
            tpm.state().transient.clear();
            let key = load(&mut tpm, key);
            assert_eq!(z_gen(&mut tpm, key, &g), Err(rc.handle(1)));
        }
        let both = load(&mut tpm, with(ecc(Scheme::NULL), TpmaObject::DECRYPT));
        assert!(z_gen(&mut tpm, both, &g).is_ok());
        assert_eq!(tpm.run(TpmCc::ECDH_ZGEN, &[both], &g), Err(ResponseCode::AUTH_MISSING));
        let empty = tpm.run_with(TpmCc::ECDH_ZGEN, &[both], &[AUTH], &0u16);
        assert_eq!(empty.unwrap_err(), ResponseCode::SIZE.parameter(1));
    }
}
