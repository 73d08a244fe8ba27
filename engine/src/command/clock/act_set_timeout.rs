//! `TPM2_ACT_SetTimeout` (Part 3, 32.2).

use crate::command::{Context, Output, parameters};
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;

/// Sets an authenticated countdown timer. This TPM has none, as libtpms has none: nothing in a virtual machine would notice one that
/// expires. So no handle is a `TPMI_RH_ACT`, and the command is refused before this.
///
/// # Errors
/// `TPM_RC_VALUE` for the handle.
pub fn act_set_timeout(_cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (_start_timeout,): (u32,) = parameters(r)?;
    Err(ResponseCode::VALUE.handle(1))
}

#[cfg(test)]
mod tests {
    use crate::testing::TestTpm;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{TpmCc, TpmHandle};

    #[test]
    fn there_is_no_timer() {
        let mut tpm = TestTpm::started();
        for handle in [TpmHandle::ACT_0, TpmHandle::ACT_F, TpmHandle::PLATFORM] {
            let rc = tpm.run_with(TpmCc::ACT_SET_TIMEOUT, &[handle], &[b""], &0u32).unwrap_err();
            assert_eq!(rc, ResponseCode::VALUE.handle(1));
        }
    }
}
