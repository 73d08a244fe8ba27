//! `TPM2_GetTestResult` (Part 3, 10.4).

use crate::command::{Context, Output, parameters};
use crate::state::SelfTest;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::Tpm2bMaxBuffer;

/// Tells whether the cryptography was tested since `_TPM_Init`: success, `TPM_RC_NEEDS_TEST`, or `TPM_RC_FAILURE`. There is no further data.
///
/// # Errors
/// Those of the parameters.
pub fn get_test_result(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let () = parameters(r)?;
    let result = match cx.state.volatile.self_test {
        SelfTest::Passed => ResponseCode::SUCCESS,
        SelfTest::NotRun => ResponseCode::NEEDS_TEST,
        SelfTest::Failed => ResponseCode::FAILURE,
    };
    Ok(Output::of(&(Tpm2bMaxBuffer::empty(), result.value())))
}

#[cfg(test)]
mod tests {
    use crate::testing::TestTpm;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::TpmCc;

    #[test]
    fn the_result_is_that_of_the_last_test() {
        let mut tpm = TestTpm::started();
        let mut result = || {
            let out = tpm.run(TpmCc::GET_TEST_RESULT, &[], &()).unwrap();
            tpm.run(TpmCc::SELF_TEST, &[], &true).unwrap();
            assert_eq!(out[..2], [0, 0]);
            ResponseCode::from_value(u32::from_be_bytes(out[2..].try_into().unwrap()))
        };
        assert_eq!(result(), ResponseCode::NEEDS_TEST);
        assert_eq!(result(), ResponseCode::SUCCESS);
    }
}
