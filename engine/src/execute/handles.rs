//! The handle area: interface types of Part 2, chapter 9, then presence.

use crate::command::{Command, HandleKind};
use crate::state::{MAX_LOADED_OBJECTS, State};
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
    // TRANSIENT_LAST follows from the number of slots.
    let is_transient = ht == TpmHt::TRANSIENT && handle.index() < MAX_LOADED_OBJECTS;
    let is_object = is_transient || ht == TpmHt::PERSISTENT;
    let is_pcr = ht == TpmHt::PCR && handle.index() < PCR_COUNT;
    let is_hierarchy = matches!(handle, TpmHandle::OWNER | TpmHandle::ENDORSEMENT | TpmHandle::PLATFORM);
    let is_null = handle == TpmHandle::NULL;
    match kind {
        HandleKind::Object => is_object,
        HandleKind::ObjectOrNull => is_object || is_null,
        HandleKind::ParentOrNull => is_object || is_hierarchy || is_null,
        HandleKind::EntityOrNull => {
            is_object
                || is_pcr
                || is_hierarchy
                || is_null
                || handle == TpmHandle::LOCKOUT
                || ht == TpmHt::NV_INDEX
        }
        HandleKind::Pcr => is_pcr,
        HandleKind::PcrOrNull => is_pcr || is_null,
        HandleKind::HmacSession => ht == TpmHt::HMAC_SESSION,
        HandleKind::PolicySession => ht == TpmHt::POLICY_SESSION,
        HandleKind::Context => is_transient || matches!(ht, TpmHt::HMAC_SESSION | TpmHt::POLICY_SESSION),
        HandleKind::HierarchyOrNull => is_hierarchy || is_null,
        HandleKind::HierarchyAuth => is_hierarchy || handle == TpmHandle::LOCKOUT,
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
