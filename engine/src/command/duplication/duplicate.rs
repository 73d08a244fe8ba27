//! `TPM2_Duplicate` (Part 3, 13.1).

use super::inner_cipher;
use crate::alg::SymCipher;
use crate::command::{Context, EnvRandom, Output, parameters};
use crate::object::protect::{self, Wrappers};
use crate::secret;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{
    Secret2b, Tpm2bEncryptedSecret, TpmAlgId, TpmHandle, TpmaObject, TpmtSymDef, TpmtSymDefObject,
};

/// Wraps the sensitive area of an object (handle 1, DUP, so by policy only) for another parent (handle 2, no authorization), on this TPM or
/// another: with a symmetric key that the caller gives or gets, with a secret encrypted to the new parent, both, or, unless
/// encryptedDuplication is set, with neither.
///
/// # Errors
/// `TPM_RC_ATTRIBUTES` (handle 1) for fixedParent; `TPM_RC_TYPE` (handle 1) for an object without a name algorithm, (handle 2) for a new
/// parent that is neither an asymmetric storage key nor null; `TPM_RC_SYMMETRIC` (parameter 2) and `TPM_RC_HIERARCHY` (handle 2) when
/// encryptedDuplication is set and the inner or the outer wrapper is missing; `TPM_RC_SIZE` (parameter 1) for an encryption key that is not as
/// long as the algorithm says; and, blaming nothing, those of [`secret::encrypt`] for a new parent that cannot receive a secret.
pub fn duplicate(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (key_in, symmetric): (Secret2b<66>, TpmtSymDefObject) = parameters(r)?;
    let object = cx.state.object(cx.handle(0)?)?.clone();
    if object.has(TpmaObject::FIXED_PARENT) {
        return Err(ResponseCode::ATTRIBUTES.handle(1));
    }
    if object.public.name_alg == TpmAlgId::NULL {
        return Err(ResponseCode::TYPE.handle(1));
    }
    let new_parent = match cx.handle(1)? {
        TpmHandle::NULL => None,
        handle => Some(cx.state.object(handle)?.clone()),
    };
    if new_parent.as_ref().is_some_and(|p| !p.is_storage_key() || !secret::is_asymmetric(&p.public)) {
        return Err(ResponseCode::TYPE.handle(2));
    }
    if object.has(TpmaObject::ENCRYPTED_DUPLICATION) {
        if symmetric.0 == TpmtSymDef::Null {
            return Err(ResponseCode::SYMMETRIC.parameter(2));
        }
        if new_parent.is_none() {
            return Err(ResponseCode::HIERARCHY.handle(2));
        }
    }
    let cipher = inner_cipher(symmetric);
    if !key_in.is_empty() && Some(key_in.len()) != cipher.map(SymCipher::key_size) {
        return Err(ResponseCode::SIZE.parameter(1));
    }
    let sensitive = object.sensitive.as_ref().ok_or(ResponseCode::TYPE.handle(1))?;

    let made = match cipher {
        Some(cipher) if key_in.is_empty() => {
            let key = cipher.alg.generate_key(cipher.key_size(), &mut EnvRandom(cx.env));
            Some(Secret2b::<66>::new(key.map_err(|_| ResponseCode::NO_RESULT)?.as_slice())?)
        }
        _ => None,
    };
    let outer = match &new_parent {
        Some(p) => {
            let (seed, encrypted) = secret::encrypt(&p.public, b"DUPLICATE", &mut EnvRandom(cx.env))?;
            Some((p, seed, encrypted))
        }
        None => None,
    };
    let wrappers = Wrappers {
        inner: cipher.map(|cipher| (cipher.alg, made.as_ref().unwrap_or(&key_in))),
        outer: outer.as_ref().map(|(p, seed, _)| (&***p, seed.as_slice())),
    };
    let duplicate = protect::to_duplicate(&object.public, &object.name, sensitive, &wrappers)?;
    let encrypted = outer.map_or_else(Tpm2bEncryptedSecret::empty, |(_, _, encrypted)| encrypted);
    // Of a key that the caller gave nothing comes back.
    Ok(Output::of(&(made.unwrap_or_default(), duplicate, encrypted)))
}
