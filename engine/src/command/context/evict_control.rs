//! `TPM2_EvictControl` (Part 3, 28.5).

use crate::command::{Context, Output, parameters};
use crate::entity::PLATFORM_PERSISTENT;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{TpmHandle, TpmHt, TpmiDhPersistent};

/// Makes a transient object (handle 2, no authorization) persistent under the handle in the parameter, or removes a persistent
/// one, whose own handle the parameter must be. Owner or platform (handle 1, USER) authorizes it: the owner for its own and the endorsement
/// hierarchy; the platform makes only its own objects persistent, but removes all.
///
/// # Errors
/// `TPM_RC_ATTRIBUTES` (handle 2) for a temporary, stClear or public object; `TPM_RC_HANDLE` (handle 2) for a persistent object with
/// another handle than the parameter; `TPM_RC_HIERARCHY` (handle 2) for an object of a hierarchy that handle 1 has no say in; `TPM_RC_RANGE`
/// (parameter 1) for a persistent handle from the range of the other; `TPM_RC_NV_DEFINED` for one that is taken; `TPM_RC_NV_SPACE` when there
/// are as many persistent objects as can be.
pub fn evict_control(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (TpmiDhPersistent(persistent),) = parameters(r)?;
    let (auth, handle) = (cx.handle(0)?, cx.handle(1)?);
    let object = cx.state.object(handle)?.clone();
    if object.hierarchy == TpmHandle::NULL
        || object.flags.external
        || object.flags.st_clear
        || object.flags.public_only
    {
        return Err(ResponseCode::ATTRIBUTES.handle(2));
    }
    let evict = handle.handle_type() == TpmHt::PERSISTENT;
    if evict && handle != persistent {
        return Err(ResponseCode::HANDLE.handle(2));
    }
    let of_platform = object.hierarchy == TpmHandle::PLATFORM;
    let by_platform = auth == TpmHandle::PLATFORM;
    if of_platform != by_platform && !(by_platform && evict) {
        return Err(ResponseCode::HIERARCHY.handle(2));
    }
    if evict {
        cx.state.persistent.remove(&handle.0);
        return Ok(Output::none());
    }
    if (persistent.0 >= PLATFORM_PERSISTENT) != by_platform {
        return Err(ResponseCode::RANGE.parameter(1));
    }
    if cx.state.persistent.contains_key(&persistent.0) {
        return Err(ResponseCode::NV_DEFINED);
    }
    if cx.state.persistent.len() >= cx.env.limits().persistent_objects {
        return Err(ResponseCode::NV_SPACE);
    }
    cx.state.persistent.insert(persistent.0, object);
    Ok(Output::none())
}

#[cfg(test)]
mod tests;
