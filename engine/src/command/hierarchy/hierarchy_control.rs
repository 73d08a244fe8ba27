//! `TPM2_HierarchyControl` (Part 3, 24.2).

use crate::command::{Context, Output, parameters};
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{TpmHandle, TpmiRhEnables};

/// Enables or disables a hierarchy, or the platform's NV indices. The objects in memory of a hierarchy that is disabled are flushed; its
/// persistent objects and NV indices are out of reach until it is enabled again.
///
/// # Errors
/// `TPM_RC_AUTH_TYPE` when the hierarchy that authorizes may not do that: the platform may do everything, the others only disable themselves.
pub fn hierarchy_control(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (TpmiRhEnables(hierarchy), on): (TpmiRhEnables, bool) = parameters(r)?;
    let by = cx.handle(0)?;
    let volatile = &cx.state.volatile;
    let (is_on, by_itself) = match hierarchy {
        TpmHandle::OWNER => (volatile.state_clear.sh_enable, true),
        TpmHandle::ENDORSEMENT => (volatile.state_clear.eh_enable, true),
        TpmHandle::PLATFORM => (volatile.ph_enable, false),
        _ => (volatile.state_clear.ph_enable_nv, false),
    };
    // One that is disabled cannot authorize, so that `on` is no news here.
    let allowed = by == TpmHandle::PLATFORM || (by_itself && by == hierarchy && (is_on || !on));
    if !allowed {
        return Err(ResponseCode::AUTH_TYPE);
    }
    if is_on == on {
        return Ok(Output::none());
    }
    let volatile = cx.state.volatile_mut();
    match hierarchy {
        TpmHandle::OWNER => volatile.state_clear.sh_enable = on,
        TpmHandle::ENDORSEMENT => volatile.state_clear.eh_enable = on,
        TpmHandle::PLATFORM => volatile.ph_enable = on,
        _ => volatile.state_clear.ph_enable_nv = on,
    }
    if !on && hierarchy != TpmHandle::PLATFORM_NV {
        cx.state.transient.retain(|_, object| object.hierarchy != hierarchy);
    }
    Ok(Output::none())
}

#[cfg(test)]
mod tests;
