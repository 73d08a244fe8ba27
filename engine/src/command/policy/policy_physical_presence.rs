//! `TPM2_PolicyPhysicalPresence` (Part 3, 23.13).

use super::extend;
use crate::command::{Context, Output, parameters};
use vtpm_protocol::codec::{Encode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::TpmCc;

/// The policy needs physical presence, which a virtual machine cannot show: its check fails with `TPM_RC_PP`.
///
/// # Errors
/// Those of the parameters.
pub fn policy_physical_presence(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let () = parameters(r)?;
    let handle = cx.handle(0)?;
    let session = cx.state.session_mut(handle)?;
    extend(session, &[&TpmCc::POLICY_PHYSICAL_PRESENCE.to_bytes()]);
    session.flags.is_pp_required = true;
    Ok(Output::none())
}

#[cfg(test)]
mod tests {
    use crate::command::policy::testing::{START, both, digest, hash, policy};
    use crate::testing::TestTpm;
    use vtpm_protocol::codec::Encode;
    use vtpm_protocol::tpm::TpmCc;

    const CODE: TpmCc = TpmCc::POLICY_PHYSICAL_PRESENCE;

    #[test]
    fn the_digest_is_that_of_the_formula() {
        let mut tpm = TestTpm::started();
        let (session, trial) = both(&mut tpm);
        for session in [session, trial] {
            policy(&mut tpm, CODE, session, &()).unwrap();
            assert_eq!(digest(&mut tpm, session), hash(&[&START, &CODE.to_bytes()]));
            assert!(tpm.state().session(session).unwrap().flags.is_pp_required);
        }
    }
}
