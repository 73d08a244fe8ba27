//! `TPM2_NV_GlobalWriteLock` (Part 3, 31.12).

use crate::command::{Context, Output, parameters};
use std::sync::Arc;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::TpmaNv;

/// Locks every index that has `TPMA_NV_GLOBALLOCK` against writes, also those of a hierarchy that is disabled.
///
/// # Errors
/// Those of the handle.
pub fn nv_global_write_lock(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let () = parameters(r)?;
    for index in cx.state.nv.values_mut() {
        let attributes = index.public.attributes;
        if attributes.has(TpmaNv::GLOBAL_LOCK) && !attributes.has(TpmaNv::WRITE_LOCKED) {
            Arc::make_mut(index).set(TpmaNv::WRITE_LOCKED);
        }
    }
    Ok(Output::none())
}

#[cfg(test)]
mod tests {
    use crate::command::nv::testing::{INDEX, OPEN, attributes, boot, define, public, write};
    use crate::testing::TestTpm;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{TpmCc, TpmHandle, TpmSu, TpmaNv};

    const OWNER: TpmHandle = TpmHandle::OWNER;

    fn lock(tpm: &mut TestTpm, auth: TpmHandle) -> Result<(), ResponseCode> {
        tpm.run_with(TpmCc::NV_GLOBAL_WRITE_LOCK, &[auth], &[b""], &()).map(|_| ())
    }

    #[test]
    fn it_locks_those_that_want_it_and_no_other() {
        for auth in [OWNER, TpmHandle::PLATFORM] {
            let mut tpm = TestTpm::started();
            let platform = TpmaNv::PP_READ | TpmaNv::PP_WRITE | TpmaNv::PLATFORM_CREATE;
            for (n, creator, attributes) in [
                (0, OWNER, OPEN | TpmaNv::GLOBAL_LOCK),
                (1, OWNER, OPEN | TpmaNv::WRITE_ST_CLEAR),
                (2, TpmHandle::PLATFORM, platform | TpmaNv::GLOBAL_LOCK),
                (3, OWNER, OPEN | TpmaNv::GLOBAL_LOCK | TpmaNv::ORDERLY),
            ] {
                define(&mut tpm, creator, b"", public(TpmHandle(INDEX.0 + n), attributes, 8)).unwrap();
            }
            lock(&mut tpm, auth).unwrap();
            let locked = [0, 1, 2, 3].map(|n| {
                let index = tpm.state().nv_index(TpmHandle(INDEX.0 + n)).unwrap();
                index.public.attributes.has(TpmaNv::WRITE_LOCKED)
            });
            assert_eq!(locked, [true, false, true, true]);
        }
    }

    #[test]
    fn it_ends_with_the_boot_unless_the_index_is_defined_by_its_first_write() {
        let mut tpm = TestTpm::started();
        let define_once = TpmHandle(INDEX.0 + 1);
        define(&mut tpm, OWNER, b"", public(INDEX, OPEN | TpmaNv::GLOBAL_LOCK, 8)).unwrap();
        let attributes = OPEN | TpmaNv::GLOBAL_LOCK | TpmaNv::WRITE_DEFINE;
        define(&mut tpm, OWNER, b"", public(define_once, attributes, 8)).unwrap();
        tpm.run_with(TpmCc::NV_WRITE, &[OWNER, define_once], &[b""], &(1u16, 7u8, 0u16)).map(|_| ()).unwrap();
        lock(&mut tpm, OWNER).unwrap();
        assert_eq!(write(&mut tpm, OWNER, b"", &[1], 0), Err(ResponseCode::NV_LOCKED));
        boot(&mut tpm, Some(TpmSu::CLEAR), TpmSu::CLEAR);
        assert_eq!(write(&mut tpm, OWNER, b"", &[1], 0), Ok(()));
        let kept = tpm.state().nv_index(define_once).unwrap().public.attributes;
        assert!(kept.has(TpmaNv::WRITE_LOCKED));
    }

    #[test]
    fn an_index_that_is_defined_later_is_not_locked() {
        let mut tpm = TestTpm::started();
        lock(&mut tpm, OWNER).unwrap();
        define(&mut tpm, OWNER, b"", public(INDEX, OPEN | TpmaNv::GLOBAL_LOCK, 8)).unwrap();
        assert!(!attributes(&mut tpm).has(TpmaNv::WRITE_LOCKED));
    }

    #[test]
    fn owner_and_platform_lock_and_nobody_else() {
        let mut tpm = TestTpm::started();
        for handle in [TpmHandle::ENDORSEMENT, TpmHandle::LOCKOUT, TpmHandle::NULL, INDEX] {
            assert_eq!(lock(&mut tpm, handle), Err(ResponseCode::VALUE.handle(1)));
        }
        assert_eq!(
            tpm.run(TpmCc::NV_GLOBAL_WRITE_LOCK, &[OWNER], &()).unwrap_err(),
            ResponseCode::AUTH_MISSING
        );
    }
}
