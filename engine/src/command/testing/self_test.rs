//! `TPM2_SelfTest` (Part 3, 10.2).

use super::known_answers;
use crate::command::{Context, EnvRandom, Output, parameters};
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;

/// Tests the cryptography with known answers, all of it when `fullTest` is YES, else what was not tested since `_TPM_Init`.
///
/// # Errors
/// `TPM_RC_FAILURE` when a test fails; those of the parameters.
pub fn self_test(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (full,): (bool,) = parameters(r)?;
    if full || !cx.state.volatile.self_tested {
        if let Err(name) = known_answers::run(known_answers::ALL, &mut EnvRandom(cx.env)) {
            log::error!("self-test of {name} failed");
            return Err(ResponseCode::FAILURE);
        }
        cx.state.volatile_mut().self_tested = true;
    }
    Ok(Output::none())
}

#[cfg(test)]
mod tests {
    use crate::testing::TestTpm;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::TpmCc;

    #[test]
    fn a_test_passes_and_is_remembered_until_the_next_boot() {
        let mut tpm = TestTpm::started();
        tpm.run(TpmCc::SELF_TEST, &[], &false).unwrap();
        let commits = tpm.env.commits;
        tpm.run(TpmCc::SELF_TEST, &[], &false).unwrap();
        tpm.run(TpmCc::SELF_TEST, &[], &true).unwrap();
        assert_eq!(tpm.env.commits, commits);
        assert!(tpm.state().volatile.self_tested);
        tpm.init();
        assert!(!tpm.state().volatile.self_tested);
    }

    #[test]
    fn takes_yes_and_no() {
        let mut tpm = TestTpm::started();
        assert_eq!(tpm.run(TpmCc::SELF_TEST, &[], &2u8).unwrap_err(), ResponseCode::VALUE.parameter(1));
    }
}
