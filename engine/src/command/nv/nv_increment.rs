//! `TPM2_NV_Increment` (Part 3, 31.8).

use crate::command::{Context, Output, parameters};
use crate::nv;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::TpmNt;

/// Adds one to a counter. A new counter begins above the highest value that any other has or, if it was deleted, had (Part 3, 31.2).
///
/// # Errors
/// `TPM_RC_NV_LOCKED` and `TPM_RC_NV_AUTHORIZATION`, see [`nv::check_write`]; `TPM_RC_ATTRIBUTES` for an index that is no counter; `TPM_RC_NV_RANGE`
/// for one at its end, which 64 bits do not reach.
pub fn nv_increment(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let () = parameters(r)?;
    let (auth, handle) = (cx.handle(0)?, cx.handle(1)?);
    nv::check_write(cx.state, auth, handle)?;
    let index = cx.state.nv_index(handle)?;
    if index.public.attributes.nt()? != TpmNt::Counter {
        return Err(ResponseCode::ATTRIBUTES.handle(2));
    }
    let old = index.value().unwrap_or_else(|| cx.state.highest_counter());
    let new = old.checked_add(1).ok_or(ResponseCode::NV_RANGE)?;
    cx.state.nv_index_mut(handle)?.write(0, &new.to_be_bytes())?;
    Ok(Output::none())
}

#[cfg(test)]
mod tests {
    use crate::command::nv::testing::{INDEX, OPEN, boot, define, public, read, set_attribute};
    use crate::testing::TestTpm;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{TpmCc, TpmHandle, TpmNt, TpmSu, TpmaNv};

    const OWNER: TpmHandle = TpmHandle::OWNER;

    fn increment(tpm: &mut TestTpm) -> Result<(), ResponseCode> {
        tpm.run_with(TpmCc::NV_INCREMENT, &[OWNER, INDEX], &[b""], &()).map(|_| ())
    }

    fn value(tpm: &mut TestTpm) -> u64 {
        u64::from_be_bytes(read(tpm, OWNER, b"", 8, 0).unwrap().try_into().unwrap())
    }

    fn counter(attributes: TpmaNv) -> TestTpm {
        let mut tpm = TestTpm::started();
        define(&mut tpm, OWNER, b"", public(INDEX, attributes.with_nt(TpmNt::Counter), 8)).unwrap();
        tpm
    }

    #[test]
    fn a_counter_counts() {
        let mut tpm = counter(OPEN);
        assert_eq!(read(&mut tpm, OWNER, b"", 8, 0), Err(ResponseCode::NV_UNINITIALIZED));
        for expected in 1..4 {
            increment(&mut tpm).unwrap();
            assert_eq!(value(&mut tpm), expected);
        }
    }

    #[test]
    fn a_new_counter_begins_above_every_deleted_one() {
        let mut tpm = counter(OPEN);
        for _ in 0..5 {
            increment(&mut tpm).unwrap();
        }
        let undefine = |tpm: &mut TestTpm| {
            tpm.run_with(TpmCc::NV_UNDEFINE_SPACE, &[OWNER, INDEX], &[b""], &()).map(|_| ()).unwrap();
            define(tpm, OWNER, b"", public(INDEX, OPEN.with_nt(TpmNt::Counter), 8)).unwrap();
        };
        undefine(&mut tpm);
        increment(&mut tpm).unwrap();
        assert_eq!(value(&mut tpm), 6);
        // One that was never incremented leaves no trace.
        undefine(&mut tpm);
        undefine(&mut tpm);
        increment(&mut tpm).unwrap();
        assert_eq!(value(&mut tpm), 7);
    }

    #[test]
    fn a_new_counter_begins_above_every_other() {
        let mut tpm = counter(OPEN);
        for _ in 0..3 {
            increment(&mut tpm).unwrap();
        }
        let other = TpmHandle(INDEX.0 + 1);
        define(&mut tpm, OWNER, b"", public(other, OPEN.with_nt(TpmNt::Counter), 8)).unwrap();
        tpm.run_with(TpmCc::NV_INCREMENT, &[OWNER, other], &[b""], &()).map(|_| ()).unwrap();
        assert_eq!(tpm.state().nv_index(other).unwrap().value(), Some(4));
        increment(&mut tpm).unwrap();
        assert_eq!(value(&mut tpm), 4);
    }

    #[test]
    fn a_counter_survives_a_loss_of_power() {
        let mut tpm = counter(OPEN);
        increment(&mut tpm).unwrap();
        increment(&mut tpm).unwrap();
        for shutdown in [None, Some(TpmSu::CLEAR), Some(TpmSu::STATE)] {
            boot(&mut tpm, shutdown, TpmSu::CLEAR);
            assert_eq!(value(&mut tpm), 2);
        }
    }

    #[test]
    fn an_orderly_counter_goes_on_after_a_shutdown_and_jumps_without() {
        let mut tpm = counter(OPEN | TpmaNv::ORDERLY);
        increment(&mut tpm).unwrap();
        increment(&mut tpm).unwrap();
        for shutdown in [TpmSu::CLEAR, TpmSu::STATE] {
            boot(&mut tpm, Some(shutdown), TpmSu::CLEAR);
            assert_eq!(value(&mut tpm), 2);
        }
        boot(&mut tpm, None, TpmSu::CLEAR);
        assert_eq!(value(&mut tpm), 0xff);
        increment(&mut tpm).unwrap();
        assert_eq!(value(&mut tpm), 0x100);
        // A shutdown is void after an increment.
        tpm.run(TpmCc::SHUTDOWN, &[], &TpmSu::STATE).unwrap();
        increment(&mut tpm).unwrap();
        boot(&mut tpm, None, TpmSu::CLEAR);
        assert_eq!(value(&mut tpm), 0x1ff);
    }

    #[test]
    fn an_orderly_counter_that_was_never_incremented_does_not_jump() {
        let mut tpm = counter(OPEN | TpmaNv::ORDERLY);
        boot(&mut tpm, None, TpmSu::CLEAR);
        increment(&mut tpm).unwrap();
        assert_eq!(value(&mut tpm), 1);
    }

    #[test]
    fn a_counter_ends_with_its_last_value() {
        let mut tpm = counter(OPEN | TpmaNv::ORDERLY);
        increment(&mut tpm).unwrap();
        tpm.state().nv_index_mut(INDEX).unwrap().set_value(u64::MAX - 1);
        tpm.resave();
        increment(&mut tpm).unwrap();
        assert_eq!(increment(&mut tpm), Err(ResponseCode::NV_RANGE));
        boot(&mut tpm, None, TpmSu::CLEAR);
        assert_eq!(value(&mut tpm), u64::MAX);
    }

    #[test]
    fn only_an_unlocked_counter_is_incremented() {
        let mut tpm = counter(OPEN);
        set_attribute(&mut tpm, TpmaNv::WRITE_LOCKED, true);
        assert_eq!(increment(&mut tpm), Err(ResponseCode::NV_LOCKED));
        let mut tpm = TestTpm::started();
        define(&mut tpm, OWNER, b"", public(INDEX, OPEN, 8)).unwrap();
        assert_eq!(increment(&mut tpm), Err(ResponseCode::ATTRIBUTES.handle(2)));
        let mut tpm = counter(TpmaNv::AUTH_WRITE | TpmaNv::OWNER_READ);
        assert_eq!(increment(&mut tpm), Err(ResponseCode::NV_AUTHORIZATION));
    }
}
