//! `TPM2_ContextLoad` (Part 3, 28.3).

use crate::command::{Context, Output, parameters};
use crate::context::{self, MAX_CONTEXT, SAVED_OBJECT, SAVED_SEQUENCE, SAVED_ST_CLEAR_OBJECT};
use crate::execute::is_session_handle;
use crate::state::{Object, Sequence, Session};
use std::sync::Arc;
use vtpm_protocol::codec::{Decode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{TpmHandle, TpmiRhHierarchy, TpmsContext};

/// Loads a saved object, sequence or session.
///
/// Windows fills the context up to `TPM_PT_MAX_OBJECT_CONTEXT` with bytes that mean nothing. Of parameters of exactly that size what
/// follows the context is therefore not looked at, as in libtpms.
///
/// # Errors
/// Those of [`context::open`] for a damaged or outdated context. Blaming it: `TPM_RC_VALUE` for a handle of another kind and for another
/// hierarchy than the four, `TPM_RC_HIERARCHY` for a disabled one, `TPM_RC_HANDLE` for a session that was loaded or flushed since.
/// `TPM_RC_OBJECT_MEMORY`, `TPM_RC_SESSION_MEMORY` when there is no room; `TPM_RC_CONTEXT_GAP` when the room that is left is for the oldest session.
pub fn context_load(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let padded = r.remaining() == MAX_CONTEXT;
    let context = decode(r).map_err(|e| e.parameter(1))?;
    if padded {
        r.take_rest();
    }
    let () = parameters(r)?;
    let handle = if is_session_handle(context.saved_handle) {
        load_session(cx, &context)?
    } else {
        load_object(cx, &context)?
    };
    Ok(Output::with_handle(handle, &()))
}

/// A `TPMS_CONTEXT` whose handles are of the types that they have to be of.
fn decode(r: &mut Reader<'_>) -> Result<TpmsContext, ResponseCode> {
    let (sequence, saved_handle): (u64, TpmHandle) = Decode::decode(r)?;
    let is_object = matches!(saved_handle, SAVED_OBJECT | SAVED_SEQUENCE | SAVED_ST_CLEAR_OBJECT);
    if !is_object && !is_session_handle(saved_handle) {
        return Err(ResponseCode::VALUE);
    }
    let TpmiRhHierarchy(hierarchy) = Decode::decode(r)?;
    Ok(TpmsContext { sequence, saved_handle, hierarchy, context_blob: Decode::decode(r)? })
}

fn load_object(cx: &mut Context<'_>, context: &TpmsContext) -> Result<TpmHandle, ResponseCode> {
    if context.saved_handle == SAVED_SEQUENCE {
        let sequence: Sequence = context::open(cx.state, context)?;
        return cx.state.insert_sequence(sequence);
    }
    let object: Object = context::open(cx.state, context)?;
    if !cx.state.hierarchy_enabled(context.hierarchy) {
        return Err(ResponseCode::HIERARCHY.parameter(1));
    }
    cx.state.insert_transient(object)
}

fn load_session(cx: &mut Context<'_>, context: &TpmsContext) -> Result<TpmHandle, ResponseCode> {
    let handle = context.saved_handle;
    let session: Session = context::open(cx.state, context)?;
    if cx.state.saved_session(handle.index()) != Some(context.sequence) {
        return Err(ResponseCode::HANDLE.parameter(1));
    }
    cx.state.check_session_memory(Some(context.sequence))?;
    cx.state.mark_session_loaded(handle.index());
    cx.state.sessions.insert(handle.index(), Arc::new(session));
    Ok(handle)
}

#[cfg(test)]
mod tests;
