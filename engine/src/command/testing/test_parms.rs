//! `TPM2_TestParms` (Part 3, 30.3).

use crate::command::{Context, Output, parameters};
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::TpmtPublicParms;

/// Tells whether objects of these parameters are supported. There is one place that decides it: the decoding of the parameters, which every
/// command with a public area uses, so that what this command promises is what the others take.
///
/// # Errors
/// All blame parameter 1: `TPM_RC_TYPE` for an unknown type of object; `TPM_RC_SYMMETRIC`, `TPM_RC_MODE`, `TPM_RC_VALUE` for a cipher, mode or key
/// size, `TPM_RC_SCHEME` or `TPM_RC_VALUE` for a scheme, `TPM_RC_HASH`, `TPM_RC_KDF`, `TPM_RC_CURVE`, and `TPM_RC_VALUE` for an RSA key
/// size, that is not supported; `TPM_RC_INSUFFICIENT` for parameters that are cut short.
pub fn test_parms(_: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (TpmtPublicParms(_),) = parameters(r)?;
    Ok(Output::none())
}

#[cfg(test)]
mod tests {
    use crate::testing::TestTpm;
    use crate::testing::objects::*;
    use vtpm_protocol::codec::Encode;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::*;

    fn test(tpm: &mut TestTpm, parms: &dyn Encode) -> Result<Vec<u8>, ResponseCode> {
        tpm.run(TpmCc::TEST_PARMS, &[], parms)
    }

    #[test]
    fn what_templates_use_is_supported() {
        let mut tpm = TestTpm::started();
        for template in [
            ecc_storage_key(),
            rsa_storage_key(),
            ecc_signing_key(),
            rsa_signing_key(),
            sealed_data(),
            hmac_key(),
            derivation_parent(),
            symmetric_key(),
        ] {
            assert_eq!(test(&mut tpm, &TpmtPublicParms(template.parms)), Ok(Vec::new()));
        }
    }

    /// What is advertised is supported, and can be made: the lists are those of `TPM2_GetCapability`.
    #[test]
    fn every_advertised_size_and_curve_is_supported_and_no_other() {
        let mut tpm = TestTpm::started();
        for key_bits in (0..=u16::MAX).step_by(64) {
            let rc = test(&mut tpm, &(TpmAlgId::RSA, TpmAlgId::NULL, TpmAlgId::NULL, key_bits, 0u32));
            let expected = if RSA_KEY_BITS.contains(&key_bits) { Ok(Vec::new()) } else { Err(VALUE) };
            assert_eq!(rc, expected, "RSA {key_bits}");
        }
        for key_bits in 0..=512 {
            let parms = (TpmAlgId::SYMCIPHER, TpmAlgId::AES, key_bits, TpmAlgId::CFB);
            let expected = if AES_KEY_BITS.contains(&key_bits) { Ok(Vec::new()) } else { Err(VALUE) };
            assert_eq!(test(&mut tpm, &parms), expected, "AES {key_bits}");
        }
        for id in 0..=64 {
            let curve = TpmEccCurve(id);
            let advertised = ECC_CURVES.contains(&curve);
            let none = TpmAlgId::NULL;
            let rc = test(&mut tpm, &(TpmAlgId::ECC, none, none, curve, none));
            let expected = if advertised { Ok(Vec::new()) } else { Err(ResponseCode::CURVE.parameter(1)) };
            assert_eq!(rc, expected, "curve {id}");
            assert_eq!(crate::secret::curve(curve).is_some(), advertised, "curve {id}");
        }
    }

    const VALUE: ResponseCode = ResponseCode::VALUE.parameter(1);

    #[test]
    fn what_is_not_supported_is_named_by_its_code() {
        let mut tpm = TestTpm::started();
        let (rsa, ecc) = (TpmAlgId::RSA, TpmAlgId::ECC);
        let (keyed_hash, cipher) = (TpmAlgId::KEYEDHASH, TpmAlgId::SYMCIPHER);
        let (none, bad) = (TpmAlgId::NULL, TpmAlgId(0x7fff));
        let p256 = TpmEccCurve::NIST_P256;
        let cases: [(&dyn Encode, ResponseCode); 18] = [
            (&bad, ResponseCode::TYPE),
            (&none, ResponseCode::TYPE),
            (&TpmAlgId::SHA256, ResponseCode::TYPE),
            (&(rsa, bad), ResponseCode::SYMMETRIC),
            (&(rsa, TpmAlgId::XOR, TpmAlgId::SHA256), ResponseCode::SYMMETRIC),
            (&(rsa, TpmAlgId::AES, 127u16), ResponseCode::VALUE),
            (&(rsa, TpmAlgId::AES, 128u16, bad), ResponseCode::MODE),
            (&(rsa, none, bad), ResponseCode::VALUE),
            (&(rsa, none, TpmAlgId::ECDSA), ResponseCode::VALUE),
            (&(rsa, none, TpmAlgId::RSASSA, bad), ResponseCode::HASH),
            (&(rsa, none, TpmAlgId::RSASSA, none), ResponseCode::HASH),
            (&(ecc, none, TpmAlgId::RSASSA), ResponseCode::SCHEME),
            (&(ecc, none, none, p256, bad), ResponseCode::KDF),
            (&(ecc, none, none, p256, TpmAlgId::MGF1, bad), ResponseCode::HASH),
            (&(keyed_hash, TpmAlgId::RSASSA), ResponseCode::VALUE),
            (&(keyed_hash, TpmAlgId::XOR, TpmAlgId::SHA256, bad), ResponseCode::KDF),
            (&(cipher, none), ResponseCode::SYMMETRIC),
            (&cipher, ResponseCode::INSUFFICIENT),
        ];
        for (parms, expected) in cases {
            let bytes = parms.to_bytes();
            assert_eq!(test(&mut tpm, parms), Err(expected.parameter(1)), "{bytes:02x?}");
        }
        // Behind the parameters there is nothing.
        assert_eq!(test(&mut tpm, &(keyed_hash, none, 0u8)), Err(ResponseCode::SIZE));
    }
}
