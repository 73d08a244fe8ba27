//! `TPM2_NV_WriteLock` (Part 3, 31.11).

use crate::command::{Context, Output, parameters};
use crate::nv;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::TpmaNv;

/// Locks an index against writes: until the next TPM Reset or Restart, or for good where it has `TPMA_NV_WRITEDEFINE` and was written. One
/// that is locked stays so, which is no error.
///
/// # Errors
/// `TPM_RC_NV_AUTHORIZATION`, see [`nv::check_write`]; `TPM_RC_ATTRIBUTES` for an index without one of the two attributes.
pub fn nv_write_lock(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let () = parameters(r)?;
    let (auth, handle) = (cx.handle(0)?, cx.handle(1)?);
    cx.state.check_read_only(cx.state.nv_index(handle)?.public.attributes)?;
    match nv::check_write(cx.state, auth, handle) {
        Err(ResponseCode::NV_LOCKED) => return Ok(Output::none()),
        other => other?,
    }
    let attributes = cx.state.nv_index(handle)?.public.attributes;
    if !attributes.any(TpmaNv::WRITE_DEFINE | TpmaNv::WRITE_ST_CLEAR) {
        return Err(ResponseCode::ATTRIBUTES.handle(2));
    }
    cx.state.nv_index_mut(handle)?.set(TpmaNv::WRITE_LOCKED);
    Ok(Output::none())
}

#[cfg(test)]
mod tests {
    use crate::command::nv::testing::{INDEX, OPEN, attributes, boot, define, public, read, write};
    use crate::testing::TestTpm;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{TpmCc, TpmHandle, TpmSu, TpmaNv};

    const OWNER: TpmHandle = TpmHandle::OWNER;
    const LOCKED: Result<(), ResponseCode> = Err(ResponseCode::NV_LOCKED);

    fn lock(tpm: &mut TestTpm, auth: TpmHandle, password: &[u8]) -> Result<(), ResponseCode> {
        tpm.run_with(TpmCc::NV_WRITE_LOCK, &[auth, INDEX], &[password], &()).map(|_| ())
    }

    fn defined(attributes: TpmaNv) -> TestTpm {
        let mut tpm = TestTpm::started();
        define(&mut tpm, OWNER, b"pw", public(INDEX, attributes, 8)).unwrap();
        tpm
    }

    #[test]
    fn a_lock_of_one_boot_ends_with_a_restart_and_not_with_a_resume() {
        let mut tpm = defined(OPEN | TpmaNv::WRITE_ST_CLEAR);
        write(&mut tpm, OWNER, b"", &[1], 0).unwrap();
        lock(&mut tpm, OWNER, b"").unwrap();
        assert!(attributes(&mut tpm).has(TpmaNv::WRITE_LOCKED));
        assert_eq!(write(&mut tpm, OWNER, b"", &[2], 0), LOCKED);
        boot(&mut tpm, Some(TpmSu::STATE), TpmSu::STATE);
        assert_eq!(write(&mut tpm, OWNER, b"", &[2], 0), LOCKED);
        boot(&mut tpm, Some(TpmSu::STATE), TpmSu::CLEAR);
        assert_eq!(write(&mut tpm, OWNER, b"", &[2], 0), Ok(()));
        lock(&mut tpm, OWNER, b"").unwrap();
        boot(&mut tpm, None, TpmSu::CLEAR);
        assert_eq!(write(&mut tpm, OWNER, b"", &[3], 0), Ok(()));
    }

    #[test]
    fn a_lock_for_good_needs_data_and_leaves_it_readable() {
        let mut tpm = defined(OPEN | TpmaNv::WRITE_DEFINE);
        lock(&mut tpm, OWNER, b"").unwrap();
        assert_eq!(write(&mut tpm, OWNER, b"", &[1], 0), LOCKED);
        boot(&mut tpm, Some(TpmSu::CLEAR), TpmSu::CLEAR);
        write(&mut tpm, OWNER, b"", &[1], 0).unwrap();
        lock(&mut tpm, OWNER, b"").unwrap();
        for shutdown in [Some(TpmSu::STATE), Some(TpmSu::CLEAR), None] {
            boot(&mut tpm, shutdown, TpmSu::CLEAR);
            assert_eq!(write(&mut tpm, OWNER, b"", &[2], 0), LOCKED);
        }
        assert_eq!(read(&mut tpm, OWNER, b"", 1, 0).unwrap(), [1]);
    }

    #[test]
    fn locking_changes_the_name_once() {
        let mut tpm = defined(OPEN | TpmaNv::WRITE_ST_CLEAR);
        let name = tpm.state().name(INDEX).unwrap();
        lock(&mut tpm, OWNER, b"").unwrap();
        let locked = tpm.state().name(INDEX).unwrap();
        assert_ne!(name, locked);
        // Again, and by an entity that may not even write: what is locked is locked.
        lock(&mut tpm, OWNER, b"").unwrap();
        lock(&mut tpm, TpmHandle::PLATFORM, b"").unwrap();
        assert_eq!(tpm.state().name(INDEX).unwrap(), locked);
    }

    #[test]
    fn who_may_not_write_may_not_lock() {
        let mut tpm = defined(TpmaNv::AUTH_WRITE | TpmaNv::AUTH_READ | TpmaNv::WRITE_ST_CLEAR);
        assert_eq!(lock(&mut tpm, OWNER, b""), Err(ResponseCode::NV_AUTHORIZATION));
        assert_eq!(lock(&mut tpm, INDEX, b"no"), Err(ResponseCode::AUTH_FAIL.session(1)));
        assert_eq!(lock(&mut tpm, INDEX, b"pw"), Ok(()));
        let mut tpm = defined(TpmaNv::OWNER_WRITE | TpmaNv::AUTH_READ | TpmaNv::WRITE_ST_CLEAR);
        assert_eq!(lock(&mut tpm, INDEX, b"pw"), Err(ResponseCode::AUTH_UNAVAILABLE.session(1)));
    }

    #[test]
    fn an_index_without_a_lock_is_not_locked() {
        let mut tpm = defined(OPEN | TpmaNv::READ_ST_CLEAR | TpmaNv::GLOBAL_LOCK);
        assert_eq!(lock(&mut tpm, OWNER, b""), Err(ResponseCode::ATTRIBUTES.handle(2)));
    }
}
