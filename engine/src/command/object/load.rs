//! `TPM2_Load` (Part 3, 12.2).

use crate::command::{Context, Output, parameters};
use crate::entity::object_name;
use crate::object::validate::check_object;
use crate::object::{self, Blame, check_slot, parent, protect};
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{NamedPublic, Sized2b, Tpm2bPrivate};

/// The numbers of inPublic and inPrivate.
const BLAME: Blame = Blame { public: 2, sensitive: 1 };

/// Loads a child of a storage key (handle 1, USER).
///
/// # Errors
/// `TPM_RC_OBJECT_MEMORY` without a free slot; `TPM_RC_SIZE` for an empty inPrivate; `TPM_RC_TYPE` for a handle that is no storage
/// key; `TPM_RC_HASH` for a null name algorithm; `TPM_RC_INTEGRITY`, `TPM_RC_SIZE`, `TPM_RC_INSUFFICIENT`, `TPM_RC_VALUE` (parameter 1) for
/// a private area that is not of this parent and public area, `TPM_RC_SENSITIVE`; and those of [`check_object`].
pub fn load(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (private, Sized2b(NamedPublic(public))): (Tpm2bPrivate, Sized2b<NamedPublic>) = parameters(r)?;
    check_slot(cx.state)?;
    if private.is_empty() {
        return Err(ResponseCode::SIZE.parameter(1));
    }
    let parent = parent(cx.state, cx.handle(0)?)?;
    let name = object_name(&public);
    let sensitive = protect::from_private(&parent, &name, &private).map_err(|e| e.parameter(1))?;
    check_object(Some(&parent), &public, Some(&sensitive), BLAME)?;
    let object = object::load::child(public, sensitive, &parent).map_err(|e| e.parameter(1))?;
    let handle = cx.state.insert_transient(object)?;
    Ok(Output::with_handle(handle, &name))
}

#[cfg(test)]
mod tests;
