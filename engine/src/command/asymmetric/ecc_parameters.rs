//! `TPM2_ECC_Parameters` (Part 3, 14.6).

use crate::command::{Context, Output, parameters};
use crate::crypto::Curve;
use crate::secret;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{
    Scheme, Tpm2bEccParameter, TpmAlgId, TpmiEccCurve, TpmsAlgorithmDetailEcc, TpmtEccScheme, TpmtKdfScheme,
};

/// Returns the constants of a curve.
///
/// # Errors
/// `TPM_RC_CURVE` for a curve that is not implemented.
pub fn ecc_parameters(_cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (TpmiEccCurve(id),): (TpmiEccCurve,) = parameters(r)?;
    let curve = secret::curve(id).ok_or(ResponseCode::CURVE.parameter(1))?;
    let parameters = curve.parameters();
    let number = |bytes: &[u8]| Tpm2bEccParameter::new(bytes);
    Ok(Output::of(&TpmsAlgorithmDetailEcc {
        curve: id,
        key_size: parameters.key_bits,
        kdf: TpmtKdfScheme(Scheme::new(TpmAlgId::KDF1_SP800_56A, hash_for(curve))),
        sign: TpmtEccScheme(Scheme::NULL),
        p: number(parameters.p)?,
        a: number(parameters.a)?,
        b: number(parameters.b)?,
        gx: number(parameters.gx)?,
        gy: number(parameters.gy)?,
        n: number(parameters.n)?,
        h: number(parameters.h)?,
    }))
}

/// The hash that fits the strength of a curve, as libtpms names it; for SM2 the one of the same family of standards.
const fn hash_for(curve: Curve) -> TpmAlgId {
    match curve {
        Curve::NistP192 | Curve::NistP224 | Curve::NistP256 => TpmAlgId::SHA256,
        Curve::NistP384 => TpmAlgId::SHA384,
        Curve::NistP521 => TpmAlgId::SHA512,
        Curve::Sm2P256 => TpmAlgId::SM3_256,
    }
}

#[cfg(test)]
mod tests {
    use crate::secret;
    use crate::testing::TestTpm;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::*;

    /// SHA-256 of what swtpm 0.7.1 (libtpms 0.9) answers for each curve.
    const OF_LIBTPMS: [(TpmEccCurve, &str); 6] = [
        (TpmEccCurve::NIST_P192, "15553f67b30126b8bebf2c10015cc63e9af0fa342727d8452a2a8d0e558a9936"),
        (TpmEccCurve::NIST_P224, "17b46e4b54b6b565112f4d9116c14802c347fe2b7f453c178e3b5ac84962df37"),
        (TpmEccCurve::NIST_P256, "78b665821936b615041b4f4663c6b83f3d6f5c1d893b301c9e0f9e39287064c6"),
        (TpmEccCurve::NIST_P384, "2714c26e36d389ce33d373add8ab45819d4178c0fe978298603e67728cb9c4b9"),
        (TpmEccCurve::NIST_P521, "bea3dc79ad4051ae9fe77e3ec1b7a8ec04abd3921526a0dd0efe108e87c43206"),
        (TpmEccCurve::SM2_P256, "b477eb67973c98467d81975da1bf6eba0ec65d788e1ab23a9b5a397f4e6184b4"),
    ];

    #[test]
    fn answers_what_libtpms_answers() {
        let mut tpm = TestTpm::started();
        for (curve, expected) in OF_LIBTPMS {
            let out = tpm.run(TpmCc::ECC_PARAMETERS, &[], &curve).unwrap();
            let digest = crate::crypto::HashAlg::Sha256.digest(&[&out]);
            assert_eq!(hex::encode(digest.as_slice()), expected, "{curve:?}");
        }
        assert!(OF_LIBTPMS.iter().map(|(curve, _)| *curve).eq(ECC_CURVES));
    }

    #[test]
    fn every_number_has_the_curve_s_size() {
        let mut tpm = TestTpm::started();
        for curve in ECC_CURVES {
            let out = tpm.run(TpmCc::ECC_PARAMETERS, &[], &curve).unwrap();
            let size = secret::curve(curve).unwrap().field_size();
            // Curve, key size, KDF with hash, scheme; six numbers; the cofactor.
            assert_eq!(out.len(), 10 + 6 * (2 + size) + 3);
            assert_eq!(out[..2], curve.0.to_be_bytes());
            assert_eq!(out[out.len() - 3..], [0, 1, 1]);
        }
    }

    #[test]
    fn an_unknown_curve_is_refused() {
        let mut tpm = TestTpm::started();
        for curve in [TpmEccCurve::NONE, TpmEccCurve::BN_P256, TpmEccCurve::BN_P638, TpmEccCurve(0x7fff)] {
            let result = tpm.run(TpmCc::ECC_PARAMETERS, &[], &curve);
            assert_eq!(result, Err(ResponseCode::CURVE.parameter(1)));
        }
    }
}
