//! `TPM2_FlushContext` (Part 3, 28.4).

use crate::command::{Context, Output, parameters};
use crate::execute::{is_session_handle, is_transient_handle};
use vtpm_protocol::codec::{Decode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{TpmHandle, TpmHt};

/// Removes a transient object or sequence, or a session, loaded or saved, whichever of the two types its handle tells. The handle is a parameter
/// here, so that no authorization and no session goes with the command.
///
/// # Errors
/// `TPM_RC_VALUE` for a handle of another kind, or beyond the last slot; `TPM_RC_HANDLE` when nothing of that handle is there.
pub fn flush_context(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (Flushable(handle),) = parameters(r)?;
    let missing = ResponseCode::HANDLE.parameter(1);
    if handle.handle_type() == TpmHt::TRANSIENT {
        let flushed =
            cx.state.transient.remove(&handle.0).is_some() || cx.state.sequences.remove(&handle.0).is_some();
        return if flushed { Ok(Output::none()) } else { Err(missing) };
    }
    if cx.state.session(handle).is_err() && cx.state.saved_session(handle.index()).is_none() {
        return Err(missing);
    }
    cx.state.flush_session(handle);
    Ok(Output::none())
}

/// `TPMI_DH_CONTEXT` as a parameter, with the numbers of slots that there are.
struct Flushable(TpmHandle);

impl Decode for Flushable {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        let handle = TpmHandle::decode(r)?;
        if is_transient_handle(handle) || is_session_handle(handle) {
            Ok(Self(handle))
        } else {
            Err(ResponseCode::VALUE)
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::TestTpm;
    use crate::testing::objects::{create_primary, ecc_storage_key, start_policy};
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
        let mut rc = |handle| tpm.run(TpmCc::FLUSH_CONTEXT, &[], &TpmHandle(handle));
        for handle in [0x8000_0000, 0x8000_0002, 0x0200_0000, 0x0300_0000, 0x0200_003f, 0x0300_003f] {
            assert_eq!(rc(handle), Err(ResponseCode::HANDLE.parameter(1)), "{handle:x}");
        }
        // Beyond the last slot, and of other kinds.
        let beyond = [0x8000_0003, 0x80ff_ffff, 0x0200_0040, 0x0300_0040, 0x02ff_ffff];
        let others = [0, 0x0100_0000, 0x4000_0001, 0x8100_0000, 0x9000_0000, u32::MAX];
        for handle in beyond.into_iter().chain(others) {
            assert_eq!(rc(handle), Err(ResponseCode::VALUE.parameter(1)), "{handle:x}");
        }
    }

    #[test]
    fn a_transient_object_is_gone_and_a_persistent_one_is_not_flushed() {
        let mut tpm = TestTpm::started();
        let object = create_primary(&mut tpm, TpmHandle::OWNER, ecc_storage_key()).unwrap().handle;
        let persistent = TpmHandle(0x8100_0000);
        tpm.run_with(TpmCc::EVICT_CONTROL, &[TpmHandle::OWNER, object], &[b""], &persistent).unwrap();
        tpm.run(TpmCc::FLUSH_CONTEXT, &[], &object).unwrap();
        assert_eq!(tpm.run(TpmCc::READ_PUBLIC, &[object], &()), Err(ResponseCode::REFERENCE_H0));
        let again = tpm.run(TpmCc::FLUSH_CONTEXT, &[], &object);
        assert_eq!(again, Err(ResponseCode::HANDLE.parameter(1)));
        let rc = tpm.run(TpmCc::FLUSH_CONTEXT, &[], &persistent);
        assert_eq!(rc, Err(ResponseCode::VALUE.parameter(1)));
        assert!(tpm.run(TpmCc::READ_PUBLIC, &[persistent], &()).is_ok());
    }

    #[test]
    fn the_handle_is_a_parameter_so_that_no_session_goes_with_it() {
        let mut tpm = TestTpm::started();
        let session = start_policy(&mut tpm, TpmSe::POLICY);
        let flushed = tpm.run_with(TpmCc::FLUSH_CONTEXT, &[], &[b""], &session).map(|_| ());
        assert_eq!(flushed, Err(ResponseCode::AUTH_CONTEXT));
        assert!(tpm.run(TpmCc::FLUSH_CONTEXT, &[], &session).is_ok());
    }
}
