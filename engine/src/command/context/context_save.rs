//! `TPM2_ContextSave` (Part 3, 28.2).

use crate::command::{Context, Output, parameters};
use crate::context::{self, SAVED_OBJECT, SAVED_SEQUENCE, SAVED_ST_CLEAR_OBJECT};
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{TpmHandle, TpmHt};

/// Returns a protected copy of a transient object or sequence, which stays loaded, or takes a session out of memory into one.
///
/// # Errors
/// `TPM_RC_CONTEXT_GAP`, `TPM_RC_TOO_MANY_CONTEXTS` when the numbers of contexts are used up.
pub fn context_save(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let () = parameters(r)?;
    let handle = cx.handle(0)?;
    if handle.handle_type() != TpmHt::TRANSIENT {
        let session = cx.state.session(handle)?.clone();
        let sequence = cx.state.save_session(handle.index())?;
        return Ok(Output::of(&context::seal(cx.state, sequence, handle, TpmHandle::NULL, &*session)?));
    }
    let object = cx.state.object(handle)?.clone();
    let group = &mut cx.state.volatile_mut().state_reset;
    group.object_context_id =
        group.object_context_id.checked_add(1).ok_or(ResponseCode::TOO_MANY_CONTEXTS)?;
    let sequence = group.object_context_id;
    if let Some(running) = cx.state.sequence(handle) {
        return Ok(Output::of(&context::seal(cx.state, sequence, SAVED_SEQUENCE, TpmHandle::NULL, running)?));
    }
    let saved_handle = if object.flags.st_clear { SAVED_ST_CLEAR_OBJECT } else { SAVED_OBJECT };
    Ok(Output::of(&context::seal(cx.state, sequence, saved_handle, object.hierarchy, &*object)?))
}
