//! `TPM2_ObjectChangeAuth` (Part 3, 12.8).

use crate::command::{Context, Output, parameters};
use crate::entity::qualified_name;
use crate::object::generate::auth_value;
use crate::object::protect;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Tpm2bAuth, TpmtSensitive};

/// Returns the private area of an object (handle 1, ADMIN) with another authorization value, protected by its parent (handle 2, no
/// authorization). The loaded object keeps the old value, and the old private area can still be loaded.
///
/// # Errors
/// `TPM_RC_TYPE` (handle 1) for a sequence; `TPM_RC_SIZE` (parameter 1) for a value longer than the digest of the name algorithm; `TPM_RC_TYPE` (handle 2) for an object that is not the
/// parent of the first, or a derivation parent, whose children have no private area: it has no cipher to protect one with, and libtpms returns
/// the sensitive area of a derived object in the clear.
pub fn object_change_auth(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (new_auth,): (Tpm2bAuth,) = parameters(r)?;
    let handle = cx.handle(0)?;
    if cx.state.sequence(handle).is_some() {
        return Err(ResponseCode::TYPE.handle(1));
    }
    let object = cx.state.object(handle)?.clone();
    let parent = cx.state.object(cx.handle(1)?)?.clone();
    let auth_value = auth_value(&new_auth, object.public.name_alg).map_err(|e| e.parameter(1))?;
    let wrong_parent = ResponseCode::TYPE.handle(2);
    let expected = qualified_name(&object.public, &parent.qualified_name, &object.name);
    if !parent.is_parent() || object.name_alg().is_none() || object.qualified_name != expected {
        return Err(wrong_parent);
    }
    let sensitive = object.sensitive.as_ref().ok_or(wrong_parent)?;
    let sensitive = TpmtSensitive { auth_value, ..sensitive.clone() };
    let private = protect::to_private(cx, &parent, &object.public, &object.name, &sensitive)?;
    Ok(Output::of(&private))
}

#[cfg(test)]
mod tests {
    use crate::testing::TestTpm;
    use crate::testing::objects::*;
    use vtpm_protocol::codec::decode_exact;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::*;

    fn change(
        tpm: &mut TestTpm,
        object: TpmHandle,
        parent: TpmHandle,
        old: &[u8],
        new: &[u8],
    ) -> Result<Tpm2bPrivate, ResponseCode> {
        let handles = [object, parent];
        let out = tpm.run_with(TpmCc::OBJECT_CHANGE_AUTH, &handles, &[old], &Tpm2bAuth::new(new).unwrap())?.1;
        Ok(decode_exact(&out).unwrap())
    }

    fn unseal(tpm: &mut TestTpm, handle: TpmHandle, auth: &[u8]) -> Result<(), ResponseCode> {
        tpm.run_with(TpmCc::UNSEAL, &[handle], &[auth], &()).map(|_| ())
    }

    #[test]
    fn the_new_private_area_has_the_new_value_and_the_loaded_object_the_old() {
        let mut tpm = TestTpm::started();
        for storage_key in [ecc_storage_key(), symmetric_storage_key()] {
            let parent = create_primary(&mut tpm, TpmHandle::OWNER, storage_key).unwrap().handle;
            let sealed = create(&mut tpm, parent, sealed_data(), b"old", b"data").unwrap();
            let object = load(&mut tpm, parent, &sealed).unwrap();
            let private = change(&mut tpm, object, parent, b"old", b"new\0\0").unwrap();
            assert_eq!(private.len(), sealed.private.len());
            assert!(unseal(&mut tpm, object, b"old").is_ok());
            assert_eq!(unseal(&mut tpm, object, b"new"), Err(ResponseCode::AUTH_FAIL.session(1)));
            let changed = load_areas(&mut tpm, parent, &private, &sealed.public).unwrap();
            assert!(unseal(&mut tpm, changed, b"new").is_ok());
            assert_eq!(unseal(&mut tpm, changed, b"old"), Err(ResponseCode::AUTH_FAIL.session(1)));
            flush(&mut tpm, object);
            flush(&mut tpm, changed);
            flush(&mut tpm, parent);
        }
    }

    #[test]
    fn an_authorization_value_is_as_long_as_the_digest_at_most() {
        let mut tpm = TestTpm::started();
        let parent = create_primary(&mut tpm, TpmHandle::OWNER, ecc_storage_key()).unwrap().handle;
        let sealed = create(&mut tpm, parent, sealed_data(), b"", b"data").unwrap();
        let object = load(&mut tpm, parent, &sealed).unwrap();
        let mut auth = vec![7; 32];
        assert!(change(&mut tpm, object, parent, b"", &auth).is_ok());
        auth.extend([0, 0]);
        assert!(change(&mut tpm, object, parent, b"", &auth).is_ok());
        auth[32] = 7;
        let rc = change(&mut tpm, object, parent, b"", &auth);
        assert_eq!(rc, Err(ResponseCode::SIZE.parameter(1)));
    }

    #[test]
    fn the_second_handle_must_be_the_parent() {
        let mut tpm = TestTpm::started();
        let parent = create_primary(&mut tpm, TpmHandle::OWNER, ecc_storage_key()).unwrap();
        let sealed = create(&mut tpm, parent.handle, sealed_data(), b"", b"data").unwrap();
        let object = load(&mut tpm, parent.handle, &sealed).unwrap();
        let other =
            create_primary_with(&mut tpm, TpmHandle::OWNER, ecc_storage_key(), b"", b"2").unwrap().handle;
        let wrong = Err(ResponseCode::TYPE.handle(2));
        assert_eq!(change(&mut tpm, object, other, b"", b"new"), wrong);
        assert_eq!(change(&mut tpm, object, object, b"", b"new"), wrong);
        assert_eq!(change(&mut tpm, parent.handle, parent.handle, b"", b"new"), wrong);
        flush(&mut tpm, other);
        // The same key without its private part has another Qualified Name.
        let public = load_external(&mut tpm, None, &parent.public, TpmHandle::OWNER).unwrap();
        assert_eq!(change(&mut tpm, object, public, b"", b"new"), wrong);
    }

    /// Neither Name nor Qualified Name says anything of an object without a name algorithm.
    #[test]
    fn an_object_without_a_name_has_no_parent() {
        let mut tpm = TestTpm::started();
        let parent = create_primary(&mut tpm, TpmHandle::OWNER, ecc_storage_key()).unwrap().handle;
        let secret = TpmtSensitive {
            auth_value: Tpm2bAuth::empty(),
            seed_value: Tpm2bAuth::empty(),
            sensitive: SensitiveComposite::Bits(Secret2b::new(b"data".to_vec()).unwrap()),
        };
        let public = TpmtPublic { name_alg: TpmAlgId::NULL, ..duplicable(sealed_data()) };
        let object = load_external(&mut tpm, Some(secret), &public, TpmHandle::NULL).unwrap();
        assert_eq!(change(&mut tpm, object, parent, b"", b"new"), Err(ResponseCode::TYPE.handle(2)));
    }

    #[test]
    fn a_sequence_keeps_its_authorization_value() {
        let mut tpm = TestTpm::started();
        let parent = create_primary(&mut tpm, TpmHandle::OWNER, ecc_storage_key()).unwrap().handle;
        let started = tpm.run(TpmCc::HASH_SEQUENCE_START, &[], &(Tpm2bAuth::empty(), TpmAlgId::SHA256));
        let sequence: TpmHandle = decode_exact(&started.unwrap()).unwrap();
        assert_eq!(change(&mut tpm, sequence, parent, b"", b"new"), Err(ResponseCode::TYPE.handle(1)));
        assert_eq!(change(&mut tpm, parent, sequence, b"", b"new"), Err(ResponseCode::TYPE.handle(2)));
    }

    #[test]
    fn the_object_is_authorized_in_the_admin_role() {
        let mut tpm = TestTpm::started();
        let parent = create_primary(&mut tpm, TpmHandle::OWNER, ecc_storage_key()).unwrap().handle;
        let template = with(sealed_data(), TpmaObject::ADMIN_WITH_POLICY);
        let sealed = create(&mut tpm, parent, template, b"", b"data").unwrap();
        let object = load(&mut tpm, parent, &sealed).unwrap();
        assert_eq!(change(&mut tpm, object, parent, b"", b"new"), Err(ResponseCode::AUTH_TYPE));
        assert!(unseal(&mut tpm, object, b"").is_ok());
        flush(&mut tpm, object);
        let template = without(sealed_data(), TpmaObject::USER_WITH_AUTH);
        let sealed = create(&mut tpm, parent, template, b"", b"data").unwrap();
        let object = load(&mut tpm, parent, &sealed).unwrap();
        assert!(change(&mut tpm, object, parent, b"", b"new").is_ok());
        let rc = change(&mut tpm, object, parent, b"wrong", b"new");
        assert_eq!(rc, Err(ResponseCode::AUTH_FAIL.session(1)));
    }
}
