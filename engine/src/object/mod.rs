//! What the object commands share (Part 1, "Object Structure", "Protected Storage"): checks of templates, generation,
//! creation data, protection of sensitive areas outside the TPM, and the check of what comes back.

pub mod creation;
pub mod generate;
pub mod load;
pub mod protect;
pub mod template;
pub mod validate;

use crate::state::{Object, State};
use std::sync::Arc;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::TpmHandle;

/// Which parameter of a command an error is to blame: the number of the public and of the sensitive (or private) area.
#[derive(Clone, Copy, Debug)]
pub struct Blame {
    /// The parameter with the public area.
    pub public: u32,
    /// The parameter with the sensitive area.
    pub sensitive: u32,
}

/// Whether there is a free transient slot, so that a command does no work for nothing.
///
/// # Errors
/// `TPM_RC_OBJECT_MEMORY`.
pub fn check_slot(state: &State) -> Result<(), ResponseCode> {
    state.free_transient().map(|_| ())
}

/// The object in handle 1, which must be able to have children: a storage key whose areas are both loaded. A derivation parent (a
/// restricted decryption key of type keyed hash) is none; its children come from `TPM2_CreateLoaded` alone.
///
/// # Errors
/// `TPM_RC_TYPE`, blaming handle 1.
pub fn parent(state: &State, handle: TpmHandle) -> Result<Arc<Object>, ResponseCode> {
    let object = state.object(handle)?;
    if object.is_parent() && object.name_alg().is_some() {
        Ok(object.clone())
    } else {
        Err(ResponseCode::TYPE.handle(1))
    }
}
