//! `TPM2_ClockSet` (Part 3, 29.2).

use crate::command::{Context, Output, parameters};
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;

/// The last value that Clock can be set to, so that it cannot be made to overflow.
const MAX_CLOCK: u64 = 0xffff_0000_0000_0000;
/// By how many bits Clock must change for what is set to count as newer than all that it may have shown: those of the interval in which other
/// TPMs save it.
const UPDATE_INTERVAL_BITS: u32 = 12;

/// Sets Clock forward. Time, and what counts on it, goes on as before.
///
/// # Errors
/// `TPM_RC_VALUE` for a value that lies back or too far ahead.
pub fn clock_set(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (new,): (u64,) = parameters(r)?;
    let old = cx.state.clock(cx.now);
    if new > MAX_CLOCK || new < old {
        return Err(ResponseCode::VALUE.parameter(1));
    }
    cx.state.set_clock(cx.now, new);
    if new >> UPDATE_INTERVAL_BITS > old >> UPDATE_INTERVAL_BITS {
        cx.state.volatile_mut().clock_safe = true;
    }
    Ok(Output::none())
}

#[cfg(test)]
mod tests {
    use super::MAX_CLOCK;
    use crate::testing::TestTpm;
    use vtpm_protocol::codec::decode_exact;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{TpmCc, TpmHandle, TpmsTimeInfo};

    fn set(tpm: &mut TestTpm, by: TpmHandle, to: u64) -> Result<(), ResponseCode> {
        tpm.run_with(TpmCc::CLOCK_SET, &[by], &[b""], &to).map(drop)
    }

    fn read(tpm: &mut TestTpm) -> TpmsTimeInfo {
        decode_exact(&tpm.run(TpmCc::READ_CLOCK, &[], &()).unwrap()).unwrap()
    }

    #[test]
    fn clock_goes_forward_and_time_stays() {
        let mut tpm = TestTpm::started();
        tpm.env.now += 100;
        for by in [TpmHandle::OWNER, TpmHandle::PLATFORM] {
            let now = read(&mut tpm).clock_info.clock;
            set(&mut tpm, by, now).unwrap();
            set(&mut tpm, by, now + 5000).unwrap();
            tpm.env.now += 10;
            assert_eq!(read(&mut tpm).clock_info.clock, now + 5010);
        }
        assert_eq!(read(&mut tpm).time, 120);
    }

    #[test]
    fn it_goes_neither_back_nor_too_far() {
        let mut tpm = TestTpm::started();
        tpm.env.now += 100;
        for to in [0, 99, MAX_CLOCK + 1, u64::MAX] {
            assert_eq!(set(&mut tpm, TpmHandle::OWNER, to), Err(ResponseCode::VALUE.parameter(1)));
        }
        set(&mut tpm, TpmHandle::OWNER, MAX_CLOCK).unwrap();
        tpm.env.now += 1;
        assert_eq!(read(&mut tpm).clock_info.clock, MAX_CLOCK + 1);
        assert_eq!(set(&mut tpm, TpmHandle::OWNER, MAX_CLOCK + 1), Err(ResponseCode::VALUE.parameter(1)));
    }

    #[test]
    fn a_clock_that_was_set_far_enough_is_safe_again() {
        let mut tpm = TestTpm::started();
        tpm.state().volatile_mut().clock_safe = false;
        tpm.resave();
        set(&mut tpm, TpmHandle::OWNER, 0xfff).unwrap();
        assert!(!read(&mut tpm).clock_info.safe);
        set(&mut tpm, TpmHandle::OWNER, 0x1000).unwrap();
        assert!(read(&mut tpm).clock_info.safe);
    }

    #[test]
    fn it_is_for_owner_and_platform() {
        let mut tpm = TestTpm::started();
        for by in [TpmHandle::ENDORSEMENT, TpmHandle::LOCKOUT, TpmHandle::NULL] {
            assert_eq!(set(&mut tpm, by, 5000), Err(ResponseCode::VALUE.handle(1)));
        }
        assert_eq!(tpm.run(TpmCc::CLOCK_SET, &[TpmHandle::OWNER], &5000u64), Err(ResponseCode::AUTH_MISSING));
    }
}
