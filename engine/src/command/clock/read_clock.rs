//! `TPM2_ReadClock` (Part 3, 29.1).

use crate::command::{Context, Output, parameters};
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;

/// Returns Time and Clock, the counts of resets and restarts, and whether Clock is safe.
///
/// # Errors
/// Those of the parameters.
pub fn read_clock(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let () = parameters(r)?;
    Ok(Output::of(&cx.state.time_info(cx.now)))
}

#[cfg(test)]
mod tests {
    use crate::testing::TestTpm;
    use vtpm_protocol::codec::decode_exact;
    use vtpm_protocol::tpm::{TpmCc, TpmHandle, TpmSu, TpmsTimeInfo};

    fn read(tpm: &mut TestTpm) -> TpmsTimeInfo {
        decode_exact(&tpm.run(TpmCc::READ_CLOCK, &[], &()).unwrap()).unwrap()
    }

    #[test]
    fn time_begins_with_each_boot_and_clock_does_not() {
        let mut tpm = TestTpm::started();
        tpm.env.now += 1500;
        let first = read(&mut tpm);
        assert_eq!((first.time, first.clock_info.clock, first.clock_info.reset_count), (1500, 1500, 1));
        tpm.init();
        tpm.env.now += 10;
        tpm.run(TpmCc::STARTUP, &[], &TpmSu::CLEAR).unwrap();
        let second = read(&mut tpm);
        assert_eq!((second.time, second.clock_info.clock, second.clock_info.reset_count), (10, 1510, 2));
    }

    #[test]
    fn neither_goes_back_with_the_host() {
        let mut tpm = TestTpm::started();
        tpm.run(TpmCc::SHUTDOWN, &[], &TpmSu::CLEAR).unwrap();
        tpm.env.now += 2000;
        tpm.run(TpmCc::SHUTDOWN, &[], &TpmSu::CLEAR).unwrap();
        assert!(read(&mut tpm).clock_info.safe);
        let epoch = tpm.state().volatile.time_epoch;
        tpm.env.now -= 1900;
        let info = read(&mut tpm).clock_info;
        assert_eq!((info.clock, info.safe), (2000, false));
        assert_ne!(tpm.state().volatile.time_epoch, epoch);
        tpm.env.now += 5;
        assert_eq!(read(&mut tpm).clock_info.clock, 2005);
        tpm.run_with(TpmCc::CLEAR, &[TpmHandle::LOCKOUT], &[b""], &()).unwrap();
        assert!(read(&mut tpm).clock_info.safe);
    }
}
