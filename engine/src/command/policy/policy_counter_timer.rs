//! `TPM2_PolicyCounterTimer` (Part 3, 23.10).

use super::is_trial;
use super::operation::{Comparison, Operation};
use crate::command::{Context, Output, parameters};
use vtpm_protocol::codec::{Encode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Tpm2bDigest, TpmCc};

/// The policy needs that Time, Clock, the counts of resets and restarts, or whether Clock is safe compare so with an operand, now.
///
/// # Errors
/// `TPM_RC_VALUE` for an offset beyond `TPMS_TIME_INFO`, `TPM_RC_RANGE` for an operand that reaches beyond it, also in a trial;
/// `TPM_RC_POLICY` when the comparison does not hold.
pub fn policy_counter_timer(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (operand, offset, operation): (Tpm2bDigest, u16, Operation) = parameters(r)?;
    let handle = cx.handle(0)?;
    let info = cx.state.time_info(cx.now).to_bytes();
    if usize::from(offset) > info.len() {
        return Err(ResponseCode::VALUE.parameter(2));
    }
    let comparison = Comparison { operand, offset, operation };
    let a = comparison.of(&info).ok_or(ResponseCode::RANGE)?;
    let session = cx.state.session_mut(handle)?;
    if !is_trial(session) {
        comparison.check(a)?;
    }
    comparison.extend(session, TpmCc::POLICY_COUNTER_TIMER, &[], &[]);
    Ok(Output::none())
}

#[cfg(test)]
mod tests {
    use crate::command::policy::testing::{START, b2, both, digest, hash, policy};
    use crate::testing::TestTpm;
    use vtpm_protocol::codec::Encode;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::*;

    const CODE: TpmCc = TpmCc::POLICY_COUNTER_TIMER;
    const SIZE: u16 = 25;

    #[test]
    fn every_field_can_be_compared_and_the_digest_is_that_of_the_formula() {
        let mut tpm = TestTpm::started();
        tpm.env.now += 77;
        let (session, trial) = both(&mut tpm);
        let now = tpm.env.now;
        let info = tpm.state().time_info(now);
        let clock = info.clock_info;
        for (offset, field) in [
            (0u16, info.time.to_bytes()),
            (8, clock.clock.to_bytes()),
            (16, clock.reset_count.to_bytes()),
            (20, clock.restart_count.to_bytes()),
            (24, clock.safe.to_bytes()),
            (SIZE, vec![]),
        ] {
            let arguments = hash(&[&field, &offset.to_bytes(), &[0, 0]]);
            for session in [session, trial] {
                policy(&mut tpm, TpmCc::POLICY_RESTART, session, &()).unwrap();
                policy(&mut tpm, CODE, session, &(b2(&field), offset, TpmEo::EQ)).unwrap();
                assert_eq!(digest(&mut tpm, session), hash(&[&START, &CODE.to_bytes(), &arguments]));
            }
            let input = (b2(&field), offset, TpmEo::NEQ);
            assert_eq!(policy(&mut tpm, CODE, session, &input), Err(ResponseCode::POLICY));
            assert_eq!(policy(&mut tpm, CODE, trial, &input), Ok(()));
        }
    }

    #[test]
    fn time_goes_on() {
        let mut tpm = TestTpm::started();
        let (session, _) = both(&mut tpm);
        let later = {
            let now = tpm.env.now;
            tpm.state().time_info(now).time + 50
        };
        let input = (b2(&later.to_bytes()), 0u16, TpmEo::UNSIGNED_GE);
        assert_eq!(policy(&mut tpm, CODE, session, &input), Err(ResponseCode::POLICY));
        tpm.env.now += 50;
        assert_eq!(policy(&mut tpm, CODE, session, &input), Ok(()));
    }

    #[test]
    fn what_reaches_beyond_the_structure_is_refused_also_in_a_trial() {
        let mut tpm = TestTpm::started();
        let (session, trial) = both(&mut tpm);
        for session in [session, trial] {
            let mut rc = |size: usize, offset: u16, operation: u16| {
                policy(&mut tpm, CODE, session, &(b2(&vec![0; size]), offset, operation))
            };
            assert_eq!(rc(0, SIZE + 1, 0), Err(ResponseCode::VALUE.parameter(2)));
            assert_eq!(rc(1, SIZE, 0), Err(ResponseCode::RANGE));
            assert_eq!(rc(26, 0, 0), Err(ResponseCode::RANGE));
            assert_eq!(rc(64, u16::MAX, 0), Err(ResponseCode::VALUE.parameter(2)));
            assert_eq!(rc(1, 0, 12), Err(ResponseCode::VALUE.parameter(3)));
        }
    }
}
