//! `TPM2_LoadExternal` (Part 3, 12.3).

use crate::command::{Context, Output, parameters};
use crate::object::validate::check_object;
use crate::object::{self, Blame, check_slot};
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Sized2b, Tpm2bPublic, Tpm2bSensitive, TpmHandle, TpmaObject, TpmiRhHierarchy};

/// The numbers of inPublic and inPrivate.
const BLAME: Blame = Blame { public: 2, sensitive: 1 };

/// Loads an object that is not protected by this TPM: a public area, or both areas in the clear. The name algorithm may be null; the object has no Name
/// then.
///
/// # Errors
/// `TPM_RC_OBJECT_MEMORY` without a free slot; `TPM_RC_HIERARCHY` (parameter 3) for a disabled hierarchy, or for another than null with a sensitive
/// area; `TPM_RC_ATTRIBUTES` (parameter 2) for a sensitive area with fixedTPM, fixedParent or restricted; and those of [`check_object`].
pub fn load_external(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (Tpm2bSensitive(sensitive), Sized2b(public), TpmiRhHierarchy(hierarchy)): (
        Tpm2bSensitive,
        Tpm2bPublic,
        TpmiRhHierarchy,
    ) = parameters(r)?;
    check_slot(cx.state)?;
    if !cx.state.hierarchy_enabled(hierarchy) {
        return Err(ResponseCode::HIERARCHY.parameter(3));
    }
    if sensitive.is_some() {
        if hierarchy != TpmHandle::NULL {
            return Err(ResponseCode::HIERARCHY.parameter(3));
        }
        // With these it could be taken for a key that never was outside.
        let fixed = TpmaObject::FIXED_TPM | TpmaObject::FIXED_PARENT | TpmaObject::RESTRICTED;
        if public.attributes.any(fixed) {
            return Err(ResponseCode::ATTRIBUTES.parameter(2));
        }
    }
    check_object(None, &public, sensitive.as_ref(), BLAME)?;
    let object = object::load::external(public, sensitive, hierarchy).map_err(|e| e.parameter(1))?;
    let name = object.name.clone();
    let handle = cx.state.insert_transient(object)?;
    Ok(Output::with_handle(handle, &name))
}

#[cfg(test)]
mod tests;
