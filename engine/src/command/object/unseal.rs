//! `TPM2_Unseal` (Part 3, 12.7).

use crate::command::{Context, Output, parameters};
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{SensitiveComposite, TpmAlgId, TpmaObject};

/// Returns the data of a sealed data object (handle 1, USER).
///
/// # Errors
/// `TPM_RC_TYPE` for another type than keyed hash, `TPM_RC_ATTRIBUTES` for a keyed hash that is a key, both blaming the handle.
pub fn unseal(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let () = parameters(r)?;
    let object = cx.state.object(cx.handle(0)?)?;
    if object.public.parms.alg() != TpmAlgId::KEYEDHASH {
        return Err(ResponseCode::TYPE.handle(1));
    }
    let key = TpmaObject::DECRYPT | TpmaObject::SIGN_ENCRYPT | TpmaObject::RESTRICTED;
    if object.public.attributes.any(key) {
        return Err(ResponseCode::ATTRIBUTES.handle(1));
    }
    match object.sensitive.as_ref().map(|s| &s.sensitive) {
        Some(SensitiveComposite::Bits(data)) => Ok(Output::of(data)),
        _ => Err(ResponseCode::TYPE.handle(1)),
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::TestTpm;
    use crate::testing::objects::*;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::*;

    fn unseal(tpm: &mut TestTpm, handle: TpmHandle, auth: &[u8]) -> Result<Vec<u8>, ResponseCode> {
        tpm.run_with(TpmCc::UNSEAL, &[handle], &[auth], &()).map(|(_, out)| out)
    }

    #[test]
    fn sealed_data_comes_back_for_its_authorization_only() {
        let mut tpm = TestTpm::started();
        let parent = create_primary(&mut tpm, TpmHandle::OWNER, ecc_storage_key()).unwrap().handle;
        let sealed = create(&mut tpm, parent, sealed_data(), b"pw\0\0", b"the secret").unwrap();
        let handle = load(&mut tpm, parent, &sealed).unwrap();
        assert_eq!(unseal(&mut tpm, handle, b"pw"), Ok(b"\0\x0athe secret".to_vec()));
        assert_eq!(unseal(&mut tpm, handle, b"pw\0"), Ok(b"\0\x0athe secret".to_vec()));
        assert_eq!(unseal(&mut tpm, handle, b"pW"), Err(ResponseCode::AUTH_FAIL.session(1)));
        assert_eq!(tpm.run(TpmCc::UNSEAL, &[handle], &()), Err(ResponseCode::AUTH_MISSING));
    }

    #[test]
    fn keys_are_not_sealed_data() {
        let mut tpm = TestTpm::started();
        let parent = create_primary(&mut tpm, TpmHandle::OWNER, ecc_storage_key()).unwrap().handle;
        assert_eq!(unseal(&mut tpm, parent, b""), Err(ResponseCode::TYPE.handle(1)));
        let key = create(&mut tpm, parent, hmac_key(), b"", b"").unwrap();
        let key = load(&mut tpm, parent, &key).unwrap();
        assert_eq!(unseal(&mut tpm, key, b""), Err(ResponseCode::ATTRIBUTES.handle(1)));
    }

    #[test]
    fn without_user_with_auth_the_password_does_not_unseal() {
        let mut tpm = TestTpm::started();
        let parent = create_primary(&mut tpm, TpmHandle::OWNER, ecc_storage_key()).unwrap().handle;
        let mut template = sealed_data();
        template.attributes = template.attributes.with(TpmaObject::USER_WITH_AUTH, false);
        let sealed = create(&mut tpm, parent, template, b"", b"secret").unwrap();
        let handle = load(&mut tpm, parent, &sealed).unwrap();
        assert_eq!(unseal(&mut tpm, handle, b""), Err(ResponseCode::AUTH_UNAVAILABLE));
    }

    #[test]
    fn a_keyed_hash_with_any_use_is_a_key() {
        let mut tpm = TestTpm::started();
        let parent = create_primary(&mut tpm, TpmHandle::OWNER, ecc_storage_key()).unwrap().handle;
        let both = with(hmac_key(), TpmaObject::DECRYPT);
        let both = TpmtPublic { parms: sealed_data().parms, ..both };
        for (key, rc) in [
            (with(hmac_key(), TpmaObject::RESTRICTED), ResponseCode::ATTRIBUTES),
            (without(derivation_parent(), TpmaObject::RESTRICTED), ResponseCode::ATTRIBUTES),
            (derivation_parent(), ResponseCode::ATTRIBUTES),
            (both, ResponseCode::ATTRIBUTES),
            (symmetric_key(), ResponseCode::TYPE),
            (rsa_signing_key(), ResponseCode::TYPE),
        ] {
            let key = create(&mut tpm, parent, key, b"", b"").unwrap();
            let key = load(&mut tpm, parent, &key).unwrap();
            assert_eq!(unseal(&mut tpm, key, b""), Err(rc.handle(1)));
            flush(&mut tpm, key);
        }
    }
}
