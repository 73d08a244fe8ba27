//! `TPM2_PolicyNvWritten` (Part 3, 23.20).

use super::extend;
use crate::command::{Context, Output, parameters};
use vtpm_protocol::codec::{Encode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::TpmCc;

/// The policy is for an NV index that was written, or for one that was not.
///
/// # Errors
/// `TPM_RC_VALUE` when the policy asks for the contrary already.
pub fn policy_nv_written(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (written,): (bool,) = parameters(r)?;
    let handle = cx.handle(0)?;
    let session = cx.state.session_mut(handle)?;
    if session.flags.check_nv_written && session.flags.nv_written_state != written {
        return Err(ResponseCode::VALUE.parameter(1));
    }
    extend(session, &[&TpmCc::POLICY_NV_WRITTEN.to_bytes(), &written.to_bytes()]);
    session.flags.check_nv_written = true;
    session.flags.nv_written_state = written;
    Ok(Output::none())
}

#[cfg(test)]
mod tests {
    use crate::command::policy::testing::{START, both, digest, hash, policy};
    use crate::testing::TestTpm;
    use vtpm_protocol::codec::Encode;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::TpmCc;

    const CODE: TpmCc = TpmCc::POLICY_NV_WRITTEN;

    #[test]
    fn the_digest_is_that_of_the_formula_and_the_contrary_is_refused() {
        let mut tpm = TestTpm::started();
        for written in [false, true] {
            let (session, trial) = both(&mut tpm);
            for session in [session, trial] {
                policy(&mut tpm, CODE, session, &written).unwrap();
                let expected = hash(&[&START, &CODE.to_bytes(), &[u8::from(written)]]);
                assert_eq!(digest(&mut tpm, session), expected);
                let refused = Err(ResponseCode::VALUE.parameter(1));
                assert_eq!(policy(&mut tpm, CODE, session, &!written), refused);
                assert_eq!(policy(&mut tpm, CODE, session, &2u8), refused);
                assert_eq!(policy(&mut tpm, CODE, session, &written), Ok(()));
            }
        }
    }
}
