//! `TPM2_SetAlgorithmSet` (Part 3, 26.3).

use crate::command::{Context, Output, parameters};
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;

/// Sets the algorithm set, a number of the vendor's that `TPM_PT_ALGORITHM_SET` tells. All algorithms are there in every one.
///
/// # Errors
/// Those of the parameters.
pub fn set_algorithm_set(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (algorithm_set,): (u32,) = parameters(r)?;
    cx.state.permanent_mut().algorithm_set = algorithm_set;
    Ok(Output::none())
}

#[cfg(test)]
mod tests {
    use crate::testing::TestTpm;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{TpmCap, TpmCc, TpmHandle, TpmPt, TpmSu};

    #[test]
    fn the_number_is_told_and_lasts() {
        let mut tpm = TestTpm::started();
        let told = |tpm: &mut TestTpm| {
            let input = (TpmCap::TPM_PROPERTIES, TpmPt::ALGORITHM_SET, 1u32);
            let out = tpm.run(TpmCc::GET_CAPABILITY, &[], &input).unwrap();
            u32::from_be_bytes(out[out.len() - 4..].try_into().unwrap())
        };
        assert_eq!(told(&mut tpm), 0);
        tpm.run_with(TpmCc::SET_ALGORITHM_SET, &[TpmHandle::PLATFORM], &[b""], &7u32).unwrap();
        tpm.init();
        tpm.run(TpmCc::STARTUP, &[], &TpmSu::CLEAR).unwrap();
        assert_eq!(told(&mut tpm), 7);
    }

    #[test]
    fn only_the_platform_may() {
        let mut tpm = TestTpm::started();
        let rc = tpm.run_with(TpmCc::SET_ALGORITHM_SET, &[TpmHandle::OWNER], &[b""], &7u32).unwrap_err();
        assert_eq!(rc, ResponseCode::VALUE.handle(1));
    }
}
