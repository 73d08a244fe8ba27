//! `TPM2_ContextLoad` (Part 3, 28.3).

use crate::command::{Context, Output, parameters};
use crate::context::{self, SAVED_OBJECT, SAVED_ST_CLEAR_OBJECT};
use crate::state::{Object, Session};
use std::sync::Arc;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{TpmHandle, TpmHt, TpmsContext};

/// Loads a saved object or session.
///
/// # Errors
/// `TPM_RC_SIZE`, `TPM_RC_INTEGRITY` for a damaged or outdated context; `TPM_RC_HANDLE` for a session that was loaded or flushed since;
/// `TPM_RC_VALUE` for an unknown handle; `TPM_RC_HIERARCHY` for a disabled hierarchy; `TPM_RC_OBJECT_MEMORY`,
/// `TPM_RC_SESSION_MEMORY` when there is no room; `TPM_RC_CONTEXT_GAP` when the room that is left is for the oldest session.
pub fn context_load(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (context,): (TpmsContext,) = parameters(r)?;
    let handle = match context.saved_handle {
        SAVED_OBJECT | SAVED_ST_CLEAR_OBJECT => load_object(cx, &context),
        h if matches!(h.handle_type(), TpmHt::HMAC_SESSION | TpmHt::POLICY_SESSION) => {
            load_session(cx, &context)
        }
        _ => Err(ResponseCode::VALUE),
    }
    .map_err(|e| e.parameter(1))?;
    Ok(Output::with_handle(handle, &()))
}

fn load_object(cx: &mut Context<'_>, context: &TpmsContext) -> Result<TpmHandle, ResponseCode> {
    if !matches!(
        context.hierarchy,
        TpmHandle::OWNER | TpmHandle::ENDORSEMENT | TpmHandle::PLATFORM | TpmHandle::NULL
    ) {
        return Err(ResponseCode::VALUE);
    }
    let object: Object = context::open(cx.state, context)?;
    if !cx.state.hierarchy_enabled(context.hierarchy) {
        return Err(ResponseCode::HIERARCHY);
    }
    cx.state.insert_transient(object)
}

fn load_session(cx: &mut Context<'_>, context: &TpmsContext) -> Result<TpmHandle, ResponseCode> {
    let handle = context.saved_handle;
    if context.hierarchy != TpmHandle::NULL {
        return Err(ResponseCode::VALUE);
    }
    let session: Session = context::open(cx.state, context)?;
    if cx.state.saved_session(handle.index()) != Some(context.sequence) {
        return Err(ResponseCode::HANDLE);
    }
    cx.state.check_session_memory(Some(context.sequence))?;
    cx.state.mark_session_loaded(handle.index());
    cx.state.sessions.insert(handle.index(), Arc::new(session));
    Ok(handle)
}

#[cfg(test)]
mod tests {
    use crate::testing::TestTpm;
    use vtpm_protocol::codec::{Decode, Encode, Reader, decode_exact};
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::*;

    fn start(tpm: &mut TestTpm) -> TpmHandle {
        let input =
            (Tpm2bNonce::new(vec![7; 16]).unwrap(), 0u16, TpmSe::POLICY, TpmAlgId::NULL, TpmAlgId::SHA256);
        let out = tpm.run(TpmCc::START_AUTH_SESSION, &[TpmHandle::NULL; 2], &input).unwrap();
        TpmHandle::decode(&mut Reader::new(&out)).unwrap()
    }

    fn save(tpm: &mut TestTpm, handle: TpmHandle) -> TpmsContext {
        decode_exact(&tpm.run(TpmCc::CONTEXT_SAVE, &[handle], &()).unwrap()).unwrap()
    }

    fn load(tpm: &mut TestTpm, context: &TpmsContext) -> Result<TpmHandle, ResponseCode> {
        let out = tpm.run(TpmCc::CONTEXT_LOAD, &[], context)?;
        Ok(decode_exact(&out).unwrap())
    }

    #[test]
    fn a_session_is_in_memory_or_in_its_context_but_not_in_both() {
        let mut tpm = TestTpm::started();
        let session = start(&mut tpm);
        let context = save(&mut tpm, session);
        assert_eq!(tpm.run(TpmCc::POLICY_RESTART, &[session], &()), Err(ResponseCode::REFERENCE_H0));
        assert_eq!(load(&mut tpm, &context), Ok(session));
        assert_eq!(load(&mut tpm, &context), Err(ResponseCode::HANDLE.parameter(1)));
        let newer = save(&mut tpm, session);
        assert_eq!(load(&mut tpm, &context), Err(ResponseCode::HANDLE.parameter(1)));
        assert!(tpm.run(TpmCc::FLUSH_CONTEXT, &[], &session).is_ok());
        assert_eq!(load(&mut tpm, &newer), Err(ResponseCode::HANDLE.parameter(1)));
    }

    #[test]
    fn a_context_with_any_changed_byte_is_refused() {
        let mut tpm = TestTpm::started();
        let session = start(&mut tpm);
        let bytes = save(&mut tpm, session).to_bytes();
        for i in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[i] ^= 1;
            let command = crate::testing::command_bytes(TpmCc::CONTEXT_LOAD, &[], &[], &bad);
            assert_ne!(tpm.rc(&command), ResponseCode::SUCCESS, "byte {i}");
        }
        let command = crate::testing::command_bytes(TpmCc::CONTEXT_LOAD, &[], &[], &bytes);
        assert_eq!(tpm.rc(&command), ResponseCode::SUCCESS);
    }

    #[test]
    fn contexts_end_with_a_tpm_reset() {
        let mut tpm = TestTpm::started();
        let session = start(&mut tpm);
        let context = save(&mut tpm, session);
        tpm.init();
        tpm.run(TpmCc::STARTUP, &[], &TpmSu::CLEAR).unwrap();
        assert_eq!(load(&mut tpm, &context), Err(ResponseCode::INTEGRITY.parameter(1)));
    }

    #[test]
    fn a_shutdown_is_void_when_a_session_is_saved_after_it_but_not_when_one_is_started() {
        let mut tpm = TestTpm::started();
        tpm.run(TpmCc::SHUTDOWN, &[], &TpmSu::STATE).unwrap();
        let _ = start(&mut tpm);
        tpm.init();
        tpm.run(TpmCc::STARTUP, &[], &TpmSu::STATE).unwrap();
        tpm.run(TpmCc::SHUTDOWN, &[], &TpmSu::STATE).unwrap();
        let session = start(&mut tpm);
        let _ = save(&mut tpm, session);
        tpm.init();
        assert_eq!(tpm.run(TpmCc::STARTUP, &[], &TpmSu::STATE), Err(ResponseCode::VALUE.parameter(1)));
    }

    #[test]
    fn a_session_that_was_saved_too_long_ago_is_loaded_before_others_are_saved() {
        let mut tpm = TestTpm::started();
        let (first, second) = (start(&mut tpm), start(&mut tpm));
        let (oldest, newer) = (save(&mut tpm, first), save(&mut tpm, second));
        tpm.state().volatile_mut().state_reset.contexts.counter =
            oldest.sequence + crate::state::CONTEXT_GAP_MAX - 1;
        tpm.resave();
        let third = start(&mut tpm);
        let _ = save(&mut tpm, third);
        let fourth = start(&mut tpm);
        let gap = Err(ResponseCode::CONTEXT_GAP);
        assert_eq!(tpm.run(TpmCc::CONTEXT_SAVE, &[fourth], &()), gap);
        let _ = start(&mut tpm);
        let input =
            (Tpm2bNonce::new(vec![7; 16]).unwrap(), 0u16, TpmSe::POLICY, TpmAlgId::NULL, TpmAlgId::SHA256);
        assert_eq!(tpm.run(TpmCc::START_AUTH_SESSION, &[TpmHandle::NULL; 2], &input), gap);
        assert_eq!(load(&mut tpm, &newer), Err(ResponseCode::CONTEXT_GAP));
        assert_eq!(load(&mut tpm, &oldest), Ok(first));
        let _ = save(&mut tpm, first);
        assert_eq!(load(&mut tpm, &newer), Ok(second));
    }

    #[test]
    fn saved_sessions_live_on_after_a_resume() {
        let mut tpm = TestTpm::started();
        let session = start(&mut tpm);
        let context = save(&mut tpm, session);
        tpm.run(TpmCc::SHUTDOWN, &[], &TpmSu::STATE).unwrap();
        tpm.init();
        tpm.run(TpmCc::STARTUP, &[], &TpmSu::STATE).unwrap();
        assert_eq!(load(&mut tpm, &context), Ok(session));
    }

    #[test]
    fn the_oldest_context_must_not_fall_behind_too_far() {
        let mut tpm = TestTpm::started();
        let (old, other) = (start(&mut tpm), start(&mut tpm));
        let oldest = save(&mut tpm, old);
        tpm.state().volatile_mut().state_reset.contexts.counter += crate::state::CONTEXT_GAP_MAX;
        tpm.resave();
        assert_eq!(tpm.run(TpmCc::CONTEXT_SAVE, &[other], &()), Err(ResponseCode::CONTEXT_GAP));
        assert_eq!(load(&mut tpm, &oldest), Ok(old));
        assert!(tpm.run(TpmCc::CONTEXT_SAVE, &[other], &()).is_ok());
    }
}
