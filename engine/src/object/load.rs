//! Objects as they are loaded (Part 1, "Object Loading"; Part 3, 12.2).

use super::generate::auth_value;
use crate::entity::{handle_name, object_name, qualified_name};
use crate::state::{Computed, Object, ObjectFlags};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{TpmAlgId, TpmHandle, TpmaObject, TpmtPublic, TpmtSensitive};

/// A primary object, or in the null hierarchy a temporary one.
#[must_use]
pub fn primary(public: TpmtPublic, sensitive: TpmtSensitive, hierarchy: TpmHandle) -> Object {
    let name = object_name(&public);
    let qualified_name = qualified_name(&public, &handle_name(hierarchy), &name);
    let flags = ObjectFlags {
        primary: hierarchy != TpmHandle::NULL,
        st_clear: public.attributes.has(TpmaObject::ST_CLEAR),
        ..ObjectFlags::default()
    };
    let computed = Computed::default();
    Object { public, sensitive: Some(sensitive), name, qualified_name, hierarchy, flags, computed }
}

/// A child of `parent`: of its hierarchy, and gone with a TPM Restart when it or an ancestor has stClear.
///
/// # Errors
/// `TPM_RC_SIZE` for an authorization value that is too long.
pub fn child(public: TpmtPublic, sensitive: TpmtSensitive, parent: &Object) -> Result<Object, ResponseCode> {
    let name = object_name(&public);
    let qualified_name = qualified_name(&public, &parent.qualified_name, &name);
    let flags = ObjectFlags {
        st_clear: public.attributes.has(TpmaObject::ST_CLEAR) || parent.flags.st_clear,
        ..ObjectFlags::default()
    };
    let sensitive = Some(stripped(sensitive, public.name_alg)?);
    let computed = Computed::default();
    Ok(Object { public, sensitive, name, qualified_name, hierarchy: parent.hierarchy, flags, computed })
}

/// An object from outside: its Qualified Name is its Name.
///
/// # Errors
/// `TPM_RC_SIZE` for an authorization value that is too long.
pub fn external(
    public: TpmtPublic,
    sensitive: Option<TpmtSensitive>,
    hierarchy: TpmHandle,
) -> Result<Object, ResponseCode> {
    let name = object_name(&public);
    let flags = ObjectFlags {
        public_only: sensitive.is_none(),
        external: true,
        st_clear: public.attributes.has(TpmaObject::ST_CLEAR),
        ..ObjectFlags::default()
    };
    let sensitive = sensitive.map(|s| stripped(s, public.name_alg)).transpose()?;
    let computed = Computed::default();
    Ok(Object { public, sensitive, qualified_name: name.clone(), name, hierarchy, flags, computed })
}

/// With the authorization value as it is compared: without the zeros that filled it up outside.
fn stripped(sensitive: TpmtSensitive, name_alg: TpmAlgId) -> Result<TpmtSensitive, ResponseCode> {
    Ok(TpmtSensitive { auth_value: auth_value(&sensitive.auth_value, name_alg)?, ..sensitive })
}
