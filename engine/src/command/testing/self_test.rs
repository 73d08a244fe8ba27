//! `TPM2_SelfTest` (Part 3, 10.2).

use super::incremental_self_test::to_do;
use super::known_answers;
use crate::command::{Context, EnvRandom, Output, parameters};
use crate::state::{SelfTest, State};
use std::collections::BTreeSet;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{MAX_ALG_LIST_SIZE, TpmAlgId, Tpml};

/// Tests the cryptography with known answers, all of it when `fullTest` is YES, else what was not tested since `_TPM_Init`.
///
/// # Errors
/// `TPM_RC_FAILURE` when a test fails, and the TPM is in Failure mode until the next `_TPM_Init`; those of the parameters.
pub fn self_test(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (full,): (bool,) = parameters(r)?;
    if full || cx.state.volatile.self_test != SelfTest::Passed {
        if let Err(name) = known_answers::run(known_answers::ALL, &mut EnvRandom(cx.env)) {
            return Err(fail(cx, name));
        }
        let rest = to_do(cx.state).0;
        finish(cx.state, rest);
    }
    Ok(Output::none())
}

/// A test failed: the code to answer with.
pub(super) fn fail(cx: &mut Context<'_>, name: &str) -> ResponseCode {
    log::error!("self-test of {name} failed");
    cx.test_failed = true;
    ResponseCode::FAILURE
}

/// Remembers what was tested.
pub(super) fn finish(state: &mut State, tested: Vec<TpmAlgId>) {
    let mut all: BTreeSet<TpmAlgId> = state.volatile.tested.0.iter().copied().collect();
    all.extend(tested);
    if all.len() != state.volatile.tested.0.len() {
        state.volatile_mut().tested = Tpml(all.into_iter().take(MAX_ALG_LIST_SIZE).collect());
    }
    if state.volatile.self_test == SelfTest::NotRun && to_do(state).0.is_empty() {
        state.volatile_mut().self_test = SelfTest::Passed;
    }
}

#[cfg(test)]
mod tests {
    use crate::command::testing::known_answers;
    use crate::state::SelfTest;
    use crate::testing::{TestTpm, code, command_bytes};
    use vtpm_protocol::codec::Encode;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{TpmCap, TpmCc, TpmPt, TpmSu};

    #[test]
    fn a_test_passes_and_is_remembered_until_the_next_boot() {
        let mut tpm = TestTpm::started();
        tpm.run(TpmCc::SELF_TEST, &[], &false).unwrap();
        let commits = tpm.env.commits;
        tpm.run(TpmCc::SELF_TEST, &[], &false).unwrap();
        tpm.run(TpmCc::SELF_TEST, &[], &true).unwrap();
        assert_eq!(tpm.env.commits, commits);
        assert_eq!(tpm.state().volatile.self_test, SelfTest::Passed);
        tpm.init();
        assert_eq!(tpm.state().volatile.self_test, SelfTest::NotRun);
    }

    #[test]
    fn after_a_failed_test_nothing_works_but_to_ask_until_the_next_boot() {
        let mut tpm = TestTpm::started();
        known_answers::BROKEN.set(true);
        let command = command_bytes(TpmCc::SELF_TEST, &[], &[], &[1]);
        let response = tpm.tpm.execute(&mut tpm.env, 0, &command);
        known_answers::BROKEN.set(false);
        assert_eq!(code(&response), ResponseCode::FAILURE);

        let capability = (TpmCap::TPM_PROPERTIES, TpmPt::MANUFACTURER, 1u32);
        for _ in 0..2 {
            for parameter in [true, false] {
                assert_eq!(tpm.run(TpmCc::SELF_TEST, &[], &parameter), Err(ResponseCode::FAILURE));
            }
            assert_eq!(tpm.run(TpmCc::GET_RANDOM, &[], &1u16), Err(ResponseCode::FAILURE));
            assert_eq!(tpm.run(TpmCc::STARTUP, &[], &TpmSu::CLEAR), Err(ResponseCode::FAILURE));
            let result = tpm.run(TpmCc::GET_TEST_RESULT, &[], &()).unwrap();
            assert_eq!(result[2..], ResponseCode::FAILURE.value().to_bytes());
            assert!(tpm.run(TpmCc::GET_CAPABILITY, &[], &capability).is_ok());
            let with_session = tpm.run_with(TpmCc::GET_TEST_RESULT, &[], &[b""], &());
            assert_eq!(with_session, Err(ResponseCode::FAILURE));
            // A restart of the process is no boot.
            tpm.tpm = crate::tpm::Tpm::from_records(&tpm.tpm.records()).unwrap();
        }
        tpm.init();
        assert_eq!(tpm.run(TpmCc::GET_TEST_RESULT, &[], &()), Err(ResponseCode::INITIALIZE));
        tpm.run(TpmCc::STARTUP, &[], &TpmSu::CLEAR).unwrap();
        tpm.run(TpmCc::SELF_TEST, &[], &false).unwrap();
    }

    #[test]
    fn takes_yes_and_no() {
        let mut tpm = TestTpm::started();
        assert_eq!(tpm.run(TpmCc::SELF_TEST, &[], &2u8).unwrap_err(), ResponseCode::VALUE.parameter(1));
    }
}
