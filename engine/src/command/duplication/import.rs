//! `TPM2_Import` (Part 3, 13.3).

use super::inner_cipher;
use crate::alg::SymCipher;
use crate::command::{Context, Output, parameters};
use crate::entity::object_name;
use crate::object::protect::{self, Wrappers};
use crate::object::validate::check_object;
use crate::object::{Blame, parent};
use crate::secret;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{
    NamedPublic, Secret2b, Sized2b, Tpm2bEncryptedSecret, Tpm2bPrivate, TpmaObject, TpmtSymDefObject,
};

/// The numbers of objectPublic and duplicate.
const BLAME: Blame = Blame { public: 2, sensitive: 3 };

/// Takes a duplicate for a storage key (handle 1, USER), and returns its sensitive area as that of a child, for `TPM2_Load`.
///
/// # Errors
/// `TPM_RC_ATTRIBUTES` (parameter 2) for fixedTPM or fixedParent, (parameter 1 or 4) when encryptedDuplication is set and the inner or the
/// outer wrapper is missing; `TPM_RC_TYPE` (handle 1) for a handle that is no storage key, or one of type symmetric cipher with an outer
/// wrapper; `TPM_RC_SIZE` (parameter 1) for an encryption key that is not as long as the algorithm says; `TPM_RC_VALUE`, `TPM_RC_SIZE`,
/// `TPM_RC_INSUFFICIENT`, `TPM_RC_ECC_POINT` (parameter 4) for a seed that is not encrypted to this parent; `TPM_RC_HASH` (parameter 2)
/// for a null name algorithm; `TPM_RC_INTEGRITY`, `TPM_RC_SIZE`, `TPM_RC_INSUFFICIENT` (parameter 3) for a duplicate of another key, public
/// area or shape; and, when the parent is fixedTPM, those of [`check_object`].
pub fn import(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (key, Sized2b(NamedPublic(public)), duplicate, in_sym_seed, symmetric): (
        Secret2b<66>,
        Sized2b<NamedPublic>,
        Tpm2bPrivate,
        Tpm2bEncryptedSecret,
        TpmtSymDefObject,
    ) = parameters(r)?;
    if public.attributes.any(TpmaObject::FIXED_TPM | TpmaObject::FIXED_PARENT) {
        return Err(ResponseCode::ATTRIBUTES.parameter(2));
    }
    let parent = parent(cx.state, cx.handle(0)?)?;
    let cipher = inner_cipher(symmetric);
    if key.len() != cipher.map_or(0, SymCipher::key_size) {
        return Err(ResponseCode::SIZE.parameter(1));
    }
    let encrypted_duplication = public.attributes.has(TpmaObject::ENCRYPTED_DUPLICATION);
    if cipher.is_none() && encrypted_duplication {
        return Err(ResponseCode::ATTRIBUTES.parameter(1));
    }
    let seed = if in_sym_seed.is_empty() {
        if encrypted_duplication {
            return Err(ResponseCode::ATTRIBUTES.parameter(4));
        }
        None
    } else {
        if !secret::is_asymmetric(&parent.public) {
            return Err(ResponseCode::TYPE.handle(1));
        }
        let seed = secret::decrypt(&parent, b"DUPLICATE", &in_sym_seed).map_err(|e| e.parameter(4))?;
        // An empty seed would make an outer wrapper that everyone can make.
        if seed.is_empty() {
            return Err(ResponseCode::VALUE.parameter(4));
        }
        Some(seed)
    };
    let name = object_name(&public);
    let wrappers = Wrappers {
        inner: cipher.map(|cipher| (cipher.alg, &key)),
        outer: seed.as_ref().map(|seed| (&*parent, seed.as_slice())),
    };
    let sensitive =
        protect::from_duplicate(&public, &name, &duplicate, &wrappers).map_err(|e| e.parameter(3))?;
    // Below a parent that is not fixedTPM it is checked when it is loaded, as all its siblings are.
    if parent.has(TpmaObject::FIXED_TPM) {
        check_object(None, &public, Some(&sensitive), BLAME)?;
    }
    let private = protect::to_private(cx, &parent, &public, &name, &sensitive)?;
    Ok(Output::of(&private))
}
