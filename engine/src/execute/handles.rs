//! The handle area: interface types of Part 2, chapter 9, then presence.

use crate::command::{Command, HandleKind};
use crate::state::{MAX_ACTIVE_SESSIONS, MAX_LOADED_OBJECTS, State};
use vtpm_protocol::codec::{Decode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{PCR_COUNT, TpmHandle, TpmHt};

/// Decodes the handles of a command and checks that what they name is there.
///
/// # Errors
/// `TPM_RC_INSUFFICIENT` or `TPM_RC_VALUE` with the number of the handle, and what [`State::check_present`] says.
pub fn decode(state: &State, command: &Command, r: &mut Reader<'_>) -> Result<Vec<TpmHandle>, ResponseCode> {
    let mut handles = Vec::with_capacity(command.handles.len());
    for (spec, n) in command.handles.iter().zip(1u32..) {
        let handle = TpmHandle::decode(r).map_err(|e| e.handle(n))?;
        if !fits(spec.kind, handle) {
            return Err(ResponseCode::VALUE.handle(n));
        }
        handles.push(handle);
    }
    for (&handle, n) in handles.iter().zip(1u32..) {
        state.check_present(command.code, handle, n)?;
    }
    Ok(handles)
}

fn fits(kind: HandleKind, handle: TpmHandle) -> bool {
    let ht = handle.handle_type();
    let is_transient = is_transient_handle(handle);
    let is_object = is_transient || ht == TpmHt::PERSISTENT;
    let is_pcr = ht == TpmHt::PCR && handle.index() < PCR_COUNT;
    let is_hierarchy = matches!(handle, TpmHandle::OWNER | TpmHandle::ENDORSEMENT | TpmHandle::PLATFORM);
    let is_null = handle == TpmHandle::NULL;
    let is_session = is_session_handle(handle);
    let is_act = is_act_handle(handle);
    match kind {
        HandleKind::Object => is_object,
        HandleKind::ObjectOrNull => is_object || is_null,
        HandleKind::ParentOrNull => is_object || is_hierarchy || is_null,
        HandleKind::Entity | HandleKind::EntityOrNull => {
            is_object
                || is_pcr
                || is_hierarchy
                || (is_null && kind == HandleKind::EntityOrNull)
                || handle == TpmHandle::LOCKOUT
                || ht == TpmHt::NV_INDEX
        }
        HandleKind::Pcr => is_pcr,
        HandleKind::PcrOrNull => is_pcr || is_null,
        HandleKind::HmacSession => is_session && ht == TpmHt::HMAC_SESSION,
        HandleKind::PolicySession => is_session && ht == TpmHt::POLICY_SESSION,
        HandleKind::Context => is_transient || is_session,
        HandleKind::HierarchyOrNull => is_hierarchy || is_null,
        HandleKind::BaseHierarchy => is_hierarchy,
        HandleKind::Act => is_act,
        HandleKind::HierarchyAuth => is_hierarchy || handle == TpmHandle::LOCKOUT,
        HandleKind::HierarchyPolicy => is_hierarchy || handle == TpmHandle::LOCKOUT || is_act,
        HandleKind::Provision => matches!(handle, TpmHandle::OWNER | TpmHandle::PLATFORM),
        HandleKind::Clear => matches!(handle, TpmHandle::LOCKOUT | TpmHandle::PLATFORM),
        HandleKind::Owner => handle == TpmHandle::OWNER,
        HandleKind::Platform => handle == TpmHandle::PLATFORM,
        HandleKind::Endorsement => handle == TpmHandle::ENDORSEMENT,
        HandleKind::Lockout => handle == TpmHandle::LOCKOUT,
        HandleKind::NvAuth => {
            matches!(handle, TpmHandle::OWNER | TpmHandle::PLATFORM) || ht == TpmHt::NV_INDEX
        }
        HandleKind::NvIndex => ht == TpmHt::NV_INDEX,
        HandleKind::Instance => ht == TpmHt::INSTANCE,
    }
}

/// Whether a handle is that of an object in memory, present or not: there are as many as there are slots.
#[must_use]
pub fn is_transient_handle(handle: TpmHandle) -> bool {
    // TRANSIENT_LAST follows from the number of slots.
    handle.handle_type() == TpmHt::TRANSIENT && handle.index() < MAX_LOADED_OBJECTS
}

/// Whether a handle is that of an authenticated countdown timer, present or not: there is only [`TpmHandle::ACT_0`].
#[must_use]
pub fn is_act_handle(handle: TpmHandle) -> bool {
    (TpmHandle::ACT_0..=TpmHandle::ACT_F).contains(&handle)
}

/// Whether a handle is that of a session of either type, present or not.
#[must_use]
pub fn is_session_handle(handle: TpmHandle) -> bool {
    matches!(handle.handle_type(), TpmHt::HMAC_SESSION | TpmHt::POLICY_SESSION)
        && usize::try_from(handle.index()).is_ok_and(|i| i < MAX_ACTIVE_SESSIONS)
}

#[cfg(test)]
mod tests;
