//! `TPM2_MakeCredential` (Part 3, 12.6).

use super::check_identity_key;
use crate::command::{Context, EnvRandom, Output, parameters};
use crate::object::protect;
use crate::secret;
use vtpm_protocol::codec::{Encode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Tpm2bAuth, Tpm2bIdObject, Tpm2bName};

/// Protects a credential so that only a TPM that holds both the key in handle 1 (no authorization; its public area is enough) and an object
/// of the given Name can read it: the work of a certificate authority, for which any TPM, or none, will do.
///
/// # Errors
/// `TPM_RC_TYPE` (handle 1) for another key than an asymmetric storage key; `TPM_RC_SIZE` (parameter 1) for a credential longer than the digest
/// of that key's name algorithm; those of [`secret::encrypt`] for a public key that nothing can be encrypted to.
pub fn make_credential(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (credential, object_name): (Tpm2bAuth, Tpm2bName) = parameters(r)?;
    let key = cx.state.object(cx.handle(0)?)?.clone();
    check_identity_key(&key, 1)?;
    if credential.len() > key.name_alg().map_or(0, |alg| alg.digest_size()) {
        return Err(ResponseCode::SIZE.parameter(1));
    }
    let (seed, encrypted) = secret::encrypt(&key.public, b"IDENTITY", &mut EnvRandom(cx.env))?;
    let data = zeroize::Zeroizing::new(credential.to_bytes());
    let blob = protect::wrapper(&key, &seed, &object_name)?.seal(&data)?;
    Ok(Output::of(&(Tpm2bIdObject::new(blob)?, encrypted)))
}

#[cfg(test)]
mod tests {
    use crate::testing::TestTpm;
    use crate::testing::objects::*;
    use vtpm_protocol::codec::decode_exact;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::*;

    fn make(tpm: &mut TestTpm, key: TpmHandle, credential: &[u8]) -> Result<Vec<u8>, ResponseCode> {
        let name = Tpm2bName::new(vec![0, 0x0b, 7]).unwrap();
        tpm.run(TpmCc::MAKE_CREDENTIAL, &[key], &(Tpm2bAuth::new(credential).unwrap(), name))
    }

    #[test]
    fn a_public_storage_key_is_enough() {
        let mut tpm = TestTpm::started();
        for template in [ecc_storage_key(), rsa_storage_key()] {
            let key = create_primary(&mut tpm, TpmHandle::OWNER, template).unwrap();
            let public = load_external(&mut tpm, None, &key.public, TpmHandle::OWNER).unwrap();
            let out = make(&mut tpm, public, b"credential").unwrap();
            let (blob, secret): (Tpm2bIdObject, Tpm2bEncryptedSecret) = decode_exact(&out).unwrap();
            // HMAC, then the credential with its size.
            assert_eq!(blob.len(), 2 + 32 + 2 + 10);
            assert!(!secret.is_empty());
            assert!(!blob.windows(10).any(|w| w == b"credential"));
            // Each time with another seed.
            assert_ne!(make(&mut tpm, public, b"credential"), Ok(out));
            flush(&mut tpm, key.handle);
            flush(&mut tpm, public);
        }
    }

    #[test]
    fn the_key_must_be_an_asymmetric_storage_key() {
        let mut tpm = TestTpm::started();
        for template in
            [ecc_signing_key(), rsa_signing_key(), symmetric_storage_key(), derivation_parent(), hmac_key()]
        {
            let key = create_primary(&mut tpm, TpmHandle::OWNER, template).unwrap().handle;
            assert_eq!(make(&mut tpm, key, b"c"), Err(ResponseCode::TYPE.handle(1)));
            flush(&mut tpm, key);
        }
    }

    #[test]
    fn a_credential_is_as_long_as_the_digest_of_the_key_at_most() {
        let mut tpm = TestTpm::started();
        let key = create_primary(&mut tpm, TpmHandle::OWNER, ecc_storage_key()).unwrap().handle;
        assert!(make(&mut tpm, key, &[1; 32]).is_ok());
        assert!(make(&mut tpm, key, b"").is_ok());
        assert_eq!(make(&mut tpm, key, &[1; 33]), Err(ResponseCode::SIZE.parameter(1)));
        let wide = TpmtPublic { name_alg: TpmAlgId::SHA512, ..ecc_storage_key() };
        let wide = create_primary(&mut tpm, TpmHandle::OWNER, wide).unwrap().handle;
        assert!(make(&mut tpm, wide, &[1; 64]).is_ok());
    }

    /// RSA with 1024 bits has room for OAEP with SHA-384, but not for a digest of it inside, and with SHA-512 for nothing at all.
    #[test]
    fn a_key_that_no_secret_fits_into_is_refused() {
        let mut tpm = TestTpm::started();
        for (name_alg, expected) in [
            (TpmAlgId::SHA256, None),
            (TpmAlgId::SHA384, Some(ResponseCode::VALUE)),
            (TpmAlgId::SHA512, Some(ResponseCode::HASH)),
        ] {
            let mut template = TpmtPublic { name_alg, ..rsa_storage_key() };
            if let PublicParms::Rsa { key_bits, .. } = &mut template.parms {
                *key_bits = 1024;
            }
            let key = create_primary(&mut tpm, TpmHandle::OWNER, template).unwrap().handle;
            assert_eq!(make(&mut tpm, key, b"c").err(), expected, "{name_alg:?}");
            flush(&mut tpm, key);
        }
        let key = create_primary(&mut tpm, TpmHandle::OWNER, ecc_storage_key()).unwrap();
        let nameless = TpmtPublic { name_alg: TpmAlgId::NULL, ..key.public };
        let nameless = load_external(&mut tpm, None, &nameless, TpmHandle::OWNER).unwrap();
        assert_eq!(make(&mut tpm, nameless, b"c"), Err(ResponseCode::SIZE.parameter(1)));
        assert_eq!(make(&mut tpm, nameless, b""), Err(ResponseCode::KEY));
    }
}
