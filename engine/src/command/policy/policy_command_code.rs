//! `TPM2_PolicyCommandCode` (Part 3, 23.11).

use super::extend;
use crate::command::{Context, Output, parameters, table};
use vtpm_protocol::codec::{Encode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::TpmCc;

/// The policy is for one command. Without it no policy serves the roles ADMIN and DUP.
///
/// # Errors
/// `TPM_RC_VALUE` when the policy is for another command already, `TPM_RC_POLICY_CC` for a command that there is not, both blaming
/// parameter 1.
pub fn policy_command_code(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (code,): (TpmCc,) = parameters(r)?;
    let handle = cx.handle(0)?;
    let session = cx.state.session_mut(handle)?;
    if session.command_code.0 != 0 && session.command_code != code {
        return Err(ResponseCode::VALUE.parameter(1));
    }
    if table::find(code).is_none() {
        return Err(ResponseCode::POLICY_CC.parameter(1));
    }
    extend(session, &[&TpmCc::POLICY_COMMAND_CODE.to_bytes(), &code.to_bytes()]);
    session.command_code = code;
    Ok(Output::none())
}

#[cfg(test)]
mod tests {
    use crate::crypto::HashAlg;
    use crate::testing::TestTpm;
    use crate::testing::objects::start_policy;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::*;

    #[test]
    fn binds_a_policy_to_one_command_that_there_is() {
        let mut tpm = TestTpm::started();
        let session = start_policy(&mut tpm, TpmSe::TRIAL);
        let mut rc = |code| tpm.run(TpmCc::POLICY_COMMAND_CODE, &[session], &code);
        assert_eq!(rc(TpmCc(0x0fff)), Err(ResponseCode::POLICY_CC.parameter(1)));
        assert_eq!(rc(TpmCc::DUPLICATE), Ok(vec![]));
        assert_eq!(rc(TpmCc::UNSEAL), Err(ResponseCode::VALUE.parameter(1)));
        let digest = tpm.run(TpmCc::POLICY_GET_DIGEST, &[session], &()).unwrap();
        let expected = HashAlg::Sha256.digest(&[&[0; 32], &[0, 0, 1, 0x6c], &[0, 0, 1, 0x4b]]);
        assert_eq!(digest[2..], *expected);
    }
}
