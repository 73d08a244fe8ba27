//! `TPM2_ActivateCredential` (Part 3, 12.5).

use super::check_identity_key;
use crate::command::{Context, Output, parameters};
use crate::object::protect;
use crate::secret;
use vtpm_protocol::codec::{Reader, decode_exact};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Tpm2bAuth, Tpm2bEncryptedSecret, Tpm2bIdObject};

/// Returns the credential that was made for an object (handle 1, ADMIN) and encrypted to a storage key (handle 2, USER), mostly an endorsement
/// key: it proves to who made it that both are in one TPM.
///
/// # Errors
/// `TPM_RC_TYPE` (handle 2) for another key than an asymmetric storage key; `TPM_RC_VALUE`, `TPM_RC_SIZE`, `TPM_RC_INSUFFICIENT`,
/// `TPM_RC_ECC_POINT` (parameter 2) for a secret that is not encrypted to it; `TPM_RC_INTEGRITY`, `TPM_RC_SIZE`, `TPM_RC_INSUFFICIENT`
/// (parameter 1) for a credential with another secret or for another object, changed, or of another shape.
pub fn activate_credential(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (blob, encrypted): (Tpm2bIdObject, Tpm2bEncryptedSecret) = parameters(r)?;
    let name = cx.state.object(cx.handle(0)?)?.name.clone();
    let key = cx.state.object(cx.handle(1)?)?.clone();
    check_identity_key(&key, 2)?;
    let seed = secret::decrypt(&key, b"IDENTITY", &encrypted).map_err(|e| e.parameter(2))?;
    let data =
        protect::wrapper(&key, &seed, &name).and_then(|w| w.open(&blob)).map_err(|e| e.parameter(1))?;
    let credential: Tpm2bAuth = decode_exact(&data).map_err(|e| e.parameter(1))?;
    Ok(Output::of(&credential))
}

#[cfg(test)]
mod tests {
    use crate::testing::TestTpm;
    use crate::testing::objects::*;
    use crate::wrap::Wrapper;
    use vtpm_protocol::codec::{Encode, decode_exact};
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::*;

    struct Credential {
        blob: Tpm2bIdObject,
        secret: Tpm2bEncryptedSecret,
    }

    fn make(tpm: &mut TestTpm, key: TpmHandle, name: &Tpm2bName, credential: &[u8]) -> Credential {
        let out = tpm.run(TpmCc::MAKE_CREDENTIAL, &[key], &(Tpm2bAuth::new(credential).unwrap(), name));
        let (blob, secret) = decode_exact(&out.unwrap()).unwrap();
        Credential { blob, secret }
    }

    fn activate(
        tpm: &mut TestTpm,
        object: TpmHandle,
        key: TpmHandle,
        c: &Credential,
    ) -> Result<Vec<u8>, ResponseCode> {
        let parameters = (&c.blob, &c.secret);
        tpm.run_with(TpmCc::ACTIVATE_CREDENTIAL, &[object, key], &[b"", b""], &parameters).map(|(_, out)| out)
    }

    /// An endorsement key and an object to be certified.
    fn pair(ek: TpmtPublic) -> (TestTpm, Primary, Primary) {
        let mut tpm = TestTpm::started();
        let ek = create_primary(&mut tpm, TpmHandle::ENDORSEMENT, ek).unwrap();
        let ak = create_primary(&mut tpm, TpmHandle::OWNER, ecc_signing_key()).unwrap();
        (tpm, ek, ak)
    }

    #[test]
    fn the_credential_comes_back_where_both_keys_are() {
        for ek in [ecc_storage_key(), rsa_storage_key()] {
            let (mut tpm, ek, ak) = pair(ek);
            for credential in [&b""[..], b"credential", &[7; 32]] {
                let made = make(&mut tpm, ek.handle, &ak.name, credential);
                let expected = Tpm2bAuth::new(credential).unwrap().to_bytes();
                assert_eq!(activate(&mut tpm, ak.handle, ek.handle, &made), Ok(expected));
            }
        }
    }

    #[test]
    fn another_object_name_or_key_is_refused() {
        let (mut tpm, ek, ak) = pair(ecc_storage_key());
        let made = make(&mut tpm, ek.handle, &ak.name, b"credential");
        let integrity = Err(ResponseCode::INTEGRITY.parameter(1));
        assert_eq!(activate(&mut tpm, ek.handle, ek.handle, &made), integrity);
        let stranger =
            create_primary_with(&mut tpm, TpmHandle::OWNER, ecc_storage_key(), b"", b"2").unwrap().handle;
        assert_eq!(activate(&mut tpm, ak.handle, stranger, &made), integrity);
        flush(&mut tpm, stranger);
        let rsa = create_primary(&mut tpm, TpmHandle::OWNER, rsa_storage_key()).unwrap().handle;
        let size = Err(ResponseCode::SIZE.parameter(2));
        assert_eq!(activate(&mut tpm, ak.handle, rsa, &made), size);
    }

    #[test]
    fn the_second_key_must_be_an_asymmetric_storage_key() {
        let (mut tpm, ek, ak) = pair(ecc_storage_key());
        let made = make(&mut tpm, ek.handle, &ak.name, b"credential");
        for template in [ecc_signing_key(), symmetric_storage_key(), derivation_parent()] {
            let key = create_primary(&mut tpm, TpmHandle::OWNER, template).unwrap().handle;
            let rc = activate(&mut tpm, ak.handle, key, &made);
            assert_eq!(rc, Err(ResponseCode::TYPE.handle(2)));
            flush(&mut tpm, key);
        }
    }

    #[test]
    fn a_credential_with_any_changed_or_missing_byte_is_refused() {
        let (mut tpm, ek, ak) = pair(ecc_storage_key());
        let made = make(&mut tpm, ek.handle, &ak.name, b"credential");
        for i in 0..made.blob.len() {
            let mut blob = made.blob.to_vec();
            blob[i] ^= 1;
            let bad = Credential { blob: Tpm2bIdObject::new(blob).unwrap(), secret: made.secret.clone() };
            // The first byte makes the HMAC too long for a digest, the second one its size wrong.
            let expected = if i == 0 { ResponseCode::SIZE } else { ResponseCode::INTEGRITY };
            assert_eq!(
                activate(&mut tpm, ak.handle, ek.handle, &bad),
                Err(expected.parameter(1)),
                "byte {i}"
            );
            let cut = Tpm2bIdObject::new(&made.blob[..i]).unwrap();
            let bad = Credential { blob: cut, secret: made.secret.clone() };
            let expected = if i < 34 { ResponseCode::INSUFFICIENT } else { ResponseCode::INTEGRITY };
            assert_eq!(
                activate(&mut tpm, ak.handle, ek.handle, &bad),
                Err(expected.parameter(1)),
                "{i} bytes"
            );
        }
        for i in 0..made.secret.len() {
            let mut secret = made.secret.to_vec();
            secret[i] ^= 1;
            let secret = Tpm2bEncryptedSecret::new(secret).unwrap();
            let bad = Credential { blob: made.blob.clone(), secret };
            let rc = activate(&mut tpm, ak.handle, ek.handle, &bad).unwrap_err();
            assert!(rc != ResponseCode::INTEGRITY.parameter(1) || i % 34 >= 2, "byte {i}: {rc}");
        }
    }

    /// A blob whose HMAC is right, as who knows the seed can make it, around something else than one credential.
    #[test]
    fn an_authentic_blob_of_another_shape_is_refused() {
        let (mut tpm, ek, ak) = pair(ecc_storage_key());
        let made = make(&mut tpm, ek.handle, &ak.name, b"credential");
        let key = tpm.state().object(ek.handle).unwrap().clone();
        let seed = crate::secret::decrypt(&key, b"IDENTITY", &made.secret).unwrap();
        for (data, expected) in [
            (&[0, 1, 7, 7][..], ResponseCode::SIZE),
            (&[0, 65, 7, 7], ResponseCode::SIZE),
            (&[0, 3, 7, 7], ResponseCode::INSUFFICIENT),
            (&[0], ResponseCode::INSUFFICIENT),
            (&[], ResponseCode::INSUFFICIENT),
        ] {
            let wrapper =
                Wrapper { alg: key.name_alg().unwrap(), seed: &seed, name: &ak.name, cipher: AES_128_CIPHER };
            let blob = Tpm2bIdObject::new(wrapper.seal(data).unwrap()).unwrap();
            let bad = Credential { blob, secret: made.secret.clone() };
            assert_eq!(activate(&mut tpm, ak.handle, ek.handle, &bad), Err(expected.parameter(1)));
        }
    }

    #[test]
    fn the_object_is_authorized_in_the_admin_role() {
        let (mut tpm, ek, _) = pair(ecc_storage_key());
        // The policy alone administers it, although its password uses it.
        let template = with(hmac_key(), TpmaObject::ADMIN_WITH_POLICY);
        let object = create_primary(&mut tpm, TpmHandle::OWNER, template).unwrap();
        let made = make(&mut tpm, ek.handle, &object.name, b"credential");
        let rc = activate(&mut tpm, object.handle, ek.handle, &made);
        assert_eq!(rc, Err(ResponseCode::AUTH_TYPE));
        flush(&mut tpm, object.handle);
        // And without that attribute the password administers what it does not use.
        let template = without(hmac_key(), TpmaObject::USER_WITH_AUTH);
        let object = create_primary(&mut tpm, TpmHandle::OWNER, template).unwrap();
        let made = make(&mut tpm, ek.handle, &object.name, b"credential");
        assert!(activate(&mut tpm, object.handle, ek.handle, &made).is_ok());
        let parameters = (&made.blob, &made.secret);
        let none = tpm.run(TpmCc::ACTIVATE_CREDENTIAL, &[object.handle, ek.handle], &parameters);
        assert_eq!(none, Err(ResponseCode::AUTH_MISSING));
    }

    #[test]
    fn a_secret_that_is_not_encrypted_to_the_key_is_refused() {
        let (mut tpm, ek, ak) = pair(ecc_storage_key());
        let made = make(&mut tpm, ek.handle, &ak.name, b"credential");
        let (mut off, mut long) = (made.secret.to_vec(), made.secret.to_vec());
        *off.last_mut().unwrap() ^= 1;
        long.push(0);
        for (secret, expected) in [
            (&made.secret[..made.secret.len() - 1], ResponseCode::INSUFFICIENT),
            (&[0], ResponseCode::INSUFFICIENT),
            (&[&[0, 81][..], &[1; 81]].concat(), ResponseCode::SIZE),
            (&long, ResponseCode::SIZE),
            (&off, ResponseCode::ECC_POINT),
            (&[0; 4], ResponseCode::ECC_POINT),
        ] {
            let bad =
                Credential { blob: made.blob.clone(), secret: Tpm2bEncryptedSecret::new(secret).unwrap() };
            let rc = activate(&mut tpm, ak.handle, ek.handle, &bad);
            assert_eq!(rc, Err(expected.parameter(2)), "{secret:x?}");
        }

        let (mut tpm, ek, ak) = pair(rsa_storage_key());
        let made = make(&mut tpm, ek.handle, &ak.name, b"credential");
        let public = crate::secret::rsa_public(&ek.public).unwrap();
        let alg = crate::crypto::HashAlg::Sha256;
        let mut rng = crate::crypto::KdfaStream::new(alg, b"seed", b"test", b"");
        let mut changed = made.secret.to_vec();
        changed[255] ^= 1;
        for (secret, expected) in [
            (made.secret[1..].to_vec(), ResponseCode::SIZE),
            (changed, ResponseCode::VALUE),
            (vec![0xff; 256], ResponseCode::VALUE),
            // A label of another use, and longer than a digest.
            (public.encrypt_oaep(alg, b"SECRET\0", &[7; 32], &mut rng).unwrap(), ResponseCode::VALUE),
            (public.encrypt_oaep(alg, b"IDENTITY\0", &[7; 33], &mut rng).unwrap(), ResponseCode::VALUE),
        ] {
            let secret = Tpm2bEncryptedSecret::new(secret).unwrap();
            let bad = Credential { blob: made.blob.clone(), secret };
            let rc = activate(&mut tpm, ak.handle, ek.handle, &bad);
            assert_eq!(rc, Err(expected.parameter(2)));
        }
    }
}
