//! `TPM2_ClockRateAdjust` (Part 3, 29.3).

use crate::command::{Context, Output, parameters};
use crate::state::CLOCK_NOMINAL;
use vtpm_protocol::codec::{Decode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::TpmClockAdjust;

/// How far the rate can be adjusted either way: a sixth.
const LIMIT: u32 = CLOCK_NOMINAL / 6;
/// A coarse, a medium and a fine step: 1 %, 0.1 % and 0.003 %.
const STEPS: [u32; 3] = [CLOCK_NOMINAL / 100, CLOCK_NOMINAL / 1000, 1];

/// Lets both clocks go slower or faster by a step, until the next `_TPM_Init`. At the limit nothing more happens.
///
/// # Errors
/// `TPM_RC_VALUE` for what is no step.
pub fn clock_rate_adjust(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (Step(adjust),) = parameters(r)?;
    let [coarse, medium, fine] = STEPS;
    // More real time for a tick is a slower clock.
    let (slower, step) = match adjust {
        TpmClockAdjust::NO_CHANGE => return Ok(Output::none()),
        TpmClockAdjust::COARSE_SLOWER => (true, coarse),
        TpmClockAdjust::MEDIUM_SLOWER => (true, medium),
        TpmClockAdjust::FINE_SLOWER => (true, fine),
        TpmClockAdjust::FINE_FASTER => (false, fine),
        TpmClockAdjust::MEDIUM_FASTER => (false, medium),
        _ => (false, coarse),
    };
    // What has passed has passed at the old rate.
    cx.state.rebase_clock(cx.now);
    let rate = cx.state.volatile.clock_rate;
    let new = if slower { rate.saturating_add(step) } else { rate.saturating_sub(step) };
    let (least, most) = (CLOCK_NOMINAL.saturating_sub(LIMIT), CLOCK_NOMINAL.saturating_add(LIMIT));
    cx.state.volatile_mut().clock_rate = new.clamp(least, most);
    Ok(Output::none())
}

/// `TPM_CLOCK_ADJUST` as a parameter: one of the seven that there are.
struct Step(TpmClockAdjust);

impl Decode for Step {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        let adjust = TpmClockAdjust::decode(r)?;
        adjust.name().map(|_| Self(adjust)).ok_or(ResponseCode::VALUE)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::TestTpm;
    use vtpm_protocol::codec::decode_exact;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{TpmCc, TpmClockAdjust, TpmHandle, TpmSu, TpmsTimeInfo};

    fn adjust(tpm: &mut TestTpm, by: TpmHandle, step: u8) -> Result<(), ResponseCode> {
        tpm.run_with(TpmCc::CLOCK_RATE_ADJUST, &[by], &[b""], &step).map(drop)
    }

    /// How far both clocks come in 30,000 milliseconds.
    fn rate(tpm: &mut TestTpm) -> u64 {
        let read = |tpm: &mut TestTpm| -> TpmsTimeInfo {
            decode_exact(&tpm.run(TpmCc::READ_CLOCK, &[], &()).unwrap()).unwrap()
        };
        let before = read(tpm);
        tpm.env.now += 30_000;
        let after = read(tpm);
        assert_eq!(after.time - before.time, after.clock_info.clock - before.clock_info.clock);
        after.time - before.time
    }

    #[test]
    fn steps_change_the_rate_of_both_clocks() {
        for (step, expected) in [
            (TpmClockAdjust::COARSE_SLOWER, 29_702),
            (TpmClockAdjust::MEDIUM_SLOWER, 29_970),
            (TpmClockAdjust::FINE_SLOWER, 29_999),
            (TpmClockAdjust::NO_CHANGE, 30_000),
            (TpmClockAdjust::FINE_FASTER, 30_001),
            (TpmClockAdjust::MEDIUM_FASTER, 30_030),
            (TpmClockAdjust::COARSE_FASTER, 30_303),
        ] {
            let mut tpm = TestTpm::started();
            adjust(&mut tpm, TpmHandle::OWNER, step.0).unwrap();
            assert!(rate(&mut tpm).abs_diff(expected) <= 1, "{step:?}: {}", rate(&mut tpm));
        }
    }

    #[test]
    fn the_limit_is_a_sixth_and_a_boot_forgets() {
        let mut tpm = TestTpm::started();
        for (step, expected) in
            [(TpmClockAdjust::COARSE_FASTER, 36_000), (TpmClockAdjust::COARSE_SLOWER, 25_714)]
        {
            for _ in 0..40 {
                adjust(&mut tpm, TpmHandle::PLATFORM, step.0).unwrap();
            }
            assert!(rate(&mut tpm).abs_diff(expected) <= 1, "{}", rate(&mut tpm));
        }
        tpm.init();
        tpm.run(TpmCc::STARTUP, &[], &TpmSu::CLEAR).unwrap();
        assert_eq!(rate(&mut tpm), 30_000);
    }

    #[test]
    fn what_is_no_step_and_who_is_neither_owner_nor_platform_is_refused() {
        let mut tpm = TestTpm::started();
        for step in [4, 0x7f, 0x80, 0xfc] {
            assert_eq!(adjust(&mut tpm, TpmHandle::OWNER, step), Err(ResponseCode::VALUE.parameter(1)));
        }
        assert_eq!(adjust(&mut tpm, TpmHandle::LOCKOUT, 0), Err(ResponseCode::VALUE.handle(1)));
    }
}
