//! `TPM2_Rewrap` (Part 3, 13.2).

use crate::command::{Context, EnvRandom, Output, parameters};
use crate::object::protect;
use crate::secret;
use crate::state::Object;
use std::sync::Arc;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Tpm2bEncryptedSecret, Tpm2bName, Tpm2bPrivate, TpmHandle};

/// Takes the outer wrapper of a duplicate off, with the private key of its parent (handle 1, USER), and puts on one for another parent
/// (handle 2, no authorization), so that this TPM can pass duplicates on. Either may be null: there is no outer wrapper then, before or after.
/// What is inside stays as it is, inner wrapper included, and is not looked at.
///
/// # Errors
/// `TPM_RC_HANDLE` (handle 1) for a seed without an old parent or an old parent without a seed; `TPM_RC_TYPE` (handle 1 or 2) for a parent that
/// is no asymmetric storage key; `TPM_RC_VALUE` (parameter 3) for a seed that is not encrypted to the old parent; `TPM_RC_INTEGRITY`,
/// `TPM_RC_SIZE`, `TPM_RC_INSUFFICIENT` (parameter 1) for a duplicate with another seed or Name, changed, or of another shape;
/// those of [`secret::encrypt`] for a new parent to which nothing can be encrypted; `TPM_RC_VALUE` (parameter 1) when a wrapper makes the duplicate too long.
pub fn rewrap(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (duplicate, name, in_sym_seed): (Tpm2bPrivate, Tpm2bName, Tpm2bEncryptedSecret) = parameters(r)?;
    let old_parent = cx.handle(0)?;
    if in_sym_seed.is_empty() != (old_parent == TpmHandle::NULL) {
        return Err(ResponseCode::HANDLE.handle(1));
    }
    let content = match parent(cx, 0)? {
        Some(parent) => {
            let bad_seed = ResponseCode::VALUE.parameter(3);
            let seed = secret::decrypt(&parent, b"DUPLICATE", &in_sym_seed).map_err(|_| bad_seed)?;
            // An empty seed would make an outer wrapper that everyone can make.
            if seed.is_empty() {
                return Err(bad_seed);
            }
            let wrapper = protect::wrapper(&parent, &seed, &name).map_err(|e| e.handle(1))?;
            wrapper.open(&duplicate).map_err(|e| e.parameter(1))?
        }
        None => zeroize::Zeroizing::new(duplicate.to_vec()),
    };
    let Some(parent) = parent(cx, 1)? else {
        let duplicate = Tpm2bPrivate::new(content.as_slice())?;
        return Ok(Output::of(&(duplicate, Tpm2bEncryptedSecret::empty())));
    };
    let (seed, encrypted) = secret::encrypt(&parent.public, b"DUPLICATE", &mut EnvRandom(cx.env))?;
    let wrapped = protect::wrapper(&parent, &seed, &name).map_err(|e| e.handle(2))?.seal(&content)?;
    let duplicate = Tpm2bPrivate::new(wrapped).map_err(|_| ResponseCode::VALUE.parameter(1))?;
    Ok(Output::of(&(duplicate, encrypted)))
}

/// The asymmetric storage key in handle `i`, counted from 0; `None` for the null handle.
fn parent(cx: &Context<'_>, i: usize) -> Result<Option<Arc<Object>>, ResponseCode> {
    let handle = cx.handle(i)?;
    if handle == TpmHandle::NULL {
        return Ok(None);
    }
    let parent = cx.state.object(handle)?;
    if parent.is_storage_key() && secret::is_asymmetric(&parent.public) {
        Ok(Some(parent.clone()))
    } else {
        Err(ResponseCode::TYPE.handle(u32::try_from(i).unwrap_or_default().saturating_add(1)))
    }
}
