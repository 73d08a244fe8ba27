//! `TPM2_FlushContext` (Part 3, 28.4).

use crate::command::{Context, Output, parameters};
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{TpmHt, TpmiDhContext};

/// Removes a transient object, or a session, loaded or saved, whichever of the two types its handle tells. The handle is a parameter
/// here, so that no authorization and no session goes with the command.
///
/// # Errors
/// `TPM_RC_HANDLE` when nothing of that handle is there.
pub fn flush_context(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (TpmiDhContext(handle),) = parameters(r)?;
    let missing = ResponseCode::HANDLE.parameter(1);
    if handle.handle_type() == TpmHt::TRANSIENT {
        cx.state.transient.remove(&handle.0).ok_or(missing)?;
        return Ok(Output::none());
    }
    if cx.state.session(handle).is_err() && cx.state.saved_session(handle.index()).is_none() {
        return Err(missing);
    }
    cx.state.flush_session(handle);
    Ok(Output::none())
}

#[cfg(test)]
mod tests {
    use crate::testing::TestTpm;
    use crate::testing::objects::start_policy;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{TpmCc, TpmHandle, TpmSe};

    #[test]
    fn the_type_of_a_session_handle_is_ignored() {
        let mut tpm = TestTpm::started();
        for saved in [false, true] {
            let session = start_policy(&mut tpm, TpmSe::POLICY);
            if saved {
                tpm.run(TpmCc::CONTEXT_SAVE, &[session], &()).unwrap();
            }
            let alias = TpmHandle(0x0200_0000 + session.index());
            tpm.run(TpmCc::FLUSH_CONTEXT, &[], &alias).unwrap();
            let again = tpm.run(TpmCc::FLUSH_CONTEXT, &[], &session);
            assert_eq!(again, Err(ResponseCode::HANDLE.parameter(1)));
        }
    }

    #[test]
    fn what_is_not_there_is_not_flushed() {
        let mut tpm = TestTpm::started();
        for handle in [0x8000_0000, 0x0200_0000, 0x0300_0000, 0x0200_0fff] {
            assert_eq!(
                tpm.run(TpmCc::FLUSH_CONTEXT, &[], &TpmHandle(handle)),
                Err(ResponseCode::HANDLE.parameter(1))
            );
        }
        assert_eq!(
            tpm.run(TpmCc::FLUSH_CONTEXT, &[], &TpmHandle::OWNER),
            Err(ResponseCode::VALUE.parameter(1))
        );
    }
}
