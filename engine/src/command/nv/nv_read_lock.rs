//! `TPM2_NV_ReadLock` (Part 3, 31.14).

use crate::command::{Context, Output, parameters};
use crate::nv;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::TpmaNv;

/// Locks an index against reads until the next TPM Reset or Restart. It need not be written, and one that is locked stays so.
///
/// # Errors
/// `TPM_RC_NV_AUTHORIZATION`, see [`nv::check_read`]; `TPM_RC_ATTRIBUTES` for an index without `TPMA_NV_READ_STCLEAR`.
pub fn nv_read_lock(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let () = parameters(r)?;
    let (auth, handle) = (cx.handle(0)?, cx.handle(1)?);
    cx.state.check_read_only(cx.state.nv_index(handle)?.public.attributes)?;
    match nv::check_read(cx.state, auth, handle) {
        Err(ResponseCode::NV_LOCKED) => return Ok(Output::none()),
        Err(ResponseCode::NV_UNINITIALIZED) => {}
        other => other?,
    }
    if !cx.state.nv_index(handle)?.public.attributes.has(TpmaNv::READ_ST_CLEAR) {
        return Err(ResponseCode::ATTRIBUTES.handle(2));
    }
    cx.state.nv_index_mut(handle)?.set(TpmaNv::READ_LOCKED);
    Ok(Output::none())
}

#[cfg(test)]
mod tests {
    use crate::command::nv::testing::{INDEX, OPEN, attributes, boot, define, public, read, write};
    use crate::testing::TestTpm;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{TpmCc, TpmHandle, TpmSu, TpmaNv};

    const OWNER: TpmHandle = TpmHandle::OWNER;

    fn lock(tpm: &mut TestTpm, auth: TpmHandle, password: &[u8]) -> Result<(), ResponseCode> {
        tpm.run_with(TpmCc::NV_READ_LOCK, &[auth, INDEX], &[password], &()).map(|_| ())
    }

    fn defined(attributes: TpmaNv) -> TestTpm {
        let mut tpm = TestTpm::started();
        define(&mut tpm, OWNER, b"pw", public(INDEX, attributes, 8)).unwrap();
        tpm
    }

    #[test]
    fn a_lock_ends_with_a_reset_or_restart_and_not_with_a_resume() {
        let mut tpm = defined(OPEN | TpmaNv::READ_ST_CLEAR);
        write(&mut tpm, OWNER, b"", &[1], 0).unwrap();
        for (shutdown, startup, ends) in [
            (Some(TpmSu::STATE), TpmSu::STATE, false),
            (Some(TpmSu::STATE), TpmSu::CLEAR, true),
            (Some(TpmSu::CLEAR), TpmSu::CLEAR, true),
            (None, TpmSu::CLEAR, true),
        ] {
            lock(&mut tpm, OWNER, b"").unwrap();
            assert!(attributes(&mut tpm).has(TpmaNv::READ_LOCKED));
            assert_eq!(read(&mut tpm, OWNER, b"", 1, 0), Err(ResponseCode::NV_LOCKED));
            // It may still be written.
            write(&mut tpm, OWNER, b"", &[1], 0).unwrap();
            boot(&mut tpm, shutdown, startup);
            assert_eq!(read(&mut tpm, OWNER, b"", 1, 0).is_ok(), ends, "{shutdown:?} {startup:?}");
        }
    }

    #[test]
    fn what_was_not_written_is_locked_and_what_is_locked_stays_so() {
        let mut tpm = defined(OPEN | TpmaNv::READ_ST_CLEAR);
        lock(&mut tpm, INDEX, b"pw").unwrap();
        let name = tpm.state().name(INDEX).unwrap();
        lock(&mut tpm, OWNER, b"").unwrap();
        lock(&mut tpm, TpmHandle::PLATFORM, b"").unwrap();
        assert_eq!(tpm.state().name(INDEX).unwrap(), name);
        assert_eq!(read(&mut tpm, OWNER, b"", 1, 0), Err(ResponseCode::NV_LOCKED));
    }

    #[test]
    fn who_may_not_read_may_not_lock() {
        let mut tpm = defined(TpmaNv::OWNER_WRITE | TpmaNv::AUTH_READ | TpmaNv::READ_ST_CLEAR);
        assert_eq!(lock(&mut tpm, OWNER, b""), Err(ResponseCode::NV_AUTHORIZATION));
        write(&mut tpm, OWNER, b"", &[1], 0).unwrap();
        assert_eq!(lock(&mut tpm, INDEX, b"no"), Err(ResponseCode::AUTH_FAIL.session(1)));
        assert_eq!(lock(&mut tpm, INDEX, b"pw"), Ok(()));
        let mut tpm = defined(TpmaNv::OWNER_WRITE | TpmaNv::OWNER_READ | TpmaNv::READ_ST_CLEAR);
        assert_eq!(lock(&mut tpm, INDEX, b"pw"), Err(ResponseCode::AUTH_UNAVAILABLE.session(1)));
    }

    #[test]
    fn an_index_without_a_read_lock_is_not_locked() {
        let mut tpm = defined(OPEN | TpmaNv::WRITE_ST_CLEAR);
        assert_eq!(lock(&mut tpm, OWNER, b""), Err(ResponseCode::ATTRIBUTES.handle(2)));
    }
}
