//! `TPM2_PolicyLocality` (Part 3, 23.8).

use super::extend;
use crate::command::{Context, Output, parameters};
use vtpm_protocol::codec::{Encode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{TpmCc, TpmaLocality};

/// The first value that is an extended locality and no set of localities.
const EXTENDED: u8 = 32;

/// The policy is for commands from some of the localities 0 to 4, or from one extended locality. Of several sets what they have in common
/// counts.
///
/// # Errors
/// `TPM_RC_RANGE` for no locality, for two extended ones, for one of each kind, and when nothing would be left.
pub fn policy_locality(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (locality,): (TpmaLocality,) = parameters(r)?;
    let handle = cx.handle(0)?;
    let session = cx.state.session_mut(handle)?;
    let left = match session.command_locality.0 {
        0 => locality.0,
        old if old < EXTENDED && locality.0 < EXTENDED => old & locality.0,
        old if old == locality.0 => old,
        _ => 0,
    };
    if left == 0 {
        return Err(ResponseCode::RANGE.parameter(1));
    }
    extend(session, &[&TpmCc::POLICY_LOCALITY.to_bytes(), &locality.to_bytes()]);
    session.command_locality = TpmaLocality(left);
    Ok(Output::none())
}

#[cfg(test)]
mod tests {
    use crate::command::policy::testing::{START, both, digest, hash, policy};
    use crate::testing::TestTpm;
    use vtpm_protocol::codec::Encode;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::TpmCc;

    const CODE: TpmCc = TpmCc::POLICY_LOCALITY;

    #[test]
    fn the_digest_is_that_of_the_formula_and_sets_are_intersected() {
        let mut tpm = TestTpm::started();
        let (session, trial) = both(&mut tpm);
        for session in [session, trial] {
            policy(&mut tpm, CODE, session, &0b1_1110u8).unwrap();
            let once = hash(&[&START, &CODE.to_bytes(), &[0b1_1110]]);
            assert_eq!(digest(&mut tpm, session), once);
            policy(&mut tpm, CODE, session, &0b0_0011u8).unwrap();
            assert_eq!(digest(&mut tpm, session), hash(&[&once, &CODE.to_bytes(), &[0b0_0011]]));
            assert_eq!(tpm.state().session(session).unwrap().command_locality.0, 0b0_0010);
        }
    }

    #[test]
    fn no_locality_and_localities_that_exclude_each_other_are_refused() {
        let mut tpm = TestTpm::started();
        let refused = Err(ResponseCode::RANGE.parameter(1));
        for (first, second) in [(1u8, 2u8), (1, 32), (31, 255), (32, 1), (32, 33), (255, 31)] {
            let (session, trial) = both(&mut tpm);
            for session in [session, trial] {
                assert_eq!(policy(&mut tpm, CODE, session, &0u8), refused);
                assert_eq!(policy(&mut tpm, CODE, session, &first), Ok(()));
                assert_eq!(policy(&mut tpm, CODE, session, &second), refused, "{first} {second}");
                assert_eq!(policy(&mut tpm, CODE, session, &first), Ok(()));
                tpm.run(TpmCc::FLUSH_CONTEXT, &[], &session).unwrap();
            }
        }
    }
}
