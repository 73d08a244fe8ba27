//! `TPM2_Shutdown` (Part 3, 9.4).

use super::StartupType;
use crate::command::{Context, Output, parameters};
use crate::state::OrderlyState;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::TpmSu;

/// Prepares for a loss of power; what has to survive is durable anyway, so that only the kind of shutdown is noted, and what is left of the
/// countdown timer, which goes on.
///
/// # Errors
/// `TPM_RC_VALUE` for another type than CLEAR or STATE; `TPM_RC_TYPE` for STATE after `TPM2_PCR_Allocate`, which needs a Reset.
pub fn shutdown(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (StartupType(kind),) = parameters(r)?;
    let orderly = if kind == TpmSu::STATE { OrderlyState::State } else { OrderlyState::Clear };
    if cx.state.volatile.pcr_reconfigured && kind == TpmSu::STATE {
        return Err(ResponseCode::TYPE.parameter(1));
    }
    cx.state.rebase_clock(cx.now);
    if kind == TpmSu::STATE {
        cx.state.save_act(cx.now);
    }
    let permanent = cx.state.permanent_mut();
    permanent.orderly = orderly;
    permanent.da.used = false;
    Ok(Output::none())
}

#[cfg(test)]
mod tests {
    //! What a shutdown saves is in the tests of `TPM2_Startup`.

    use crate::testing::TestTpm;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{TpmCc, TpmSu};

    #[test]
    fn takes_clear_and_state_of_a_started_tpm_and_nothing_else() {
        let mut tpm = TestTpm::manufactured();
        assert_eq!(tpm.run(TpmCc::SHUTDOWN, &[], &TpmSu::CLEAR), Err(ResponseCode::INITIALIZE));
        tpm.run(TpmCc::STARTUP, &[], &TpmSu::CLEAR).unwrap();
        for kind in [TpmSu::CLEAR, TpmSu::STATE] {
            assert_eq!(tpm.run(TpmCc::SHUTDOWN, &[], &kind), Ok(vec![]));
        }
        for kind in [TpmSu(2), TpmSu(0xffff)] {
            assert_eq!(tpm.run(TpmCc::SHUTDOWN, &[], &kind), Err(ResponseCode::VALUE.parameter(1)));
        }
        assert_eq!(tpm.run(TpmCc::SHUTDOWN, &[], &0u8), Err(ResponseCode::INSUFFICIENT.parameter(1)));
        assert_eq!(tpm.run(TpmCc::SHUTDOWN, &[], &0u32), Err(ResponseCode::SIZE));
    }

    #[test]
    fn after_a_change_of_the_pcr_banks_only_clear_will_do() {
        let mut tpm = TestTpm::started();
        tpm.state().volatile_mut().pcr_reconfigured = true;
        tpm.resave();
        assert_eq!(tpm.run(TpmCc::SHUTDOWN, &[], &TpmSu::STATE), Err(ResponseCode::TYPE.parameter(1)));
        assert_eq!(tpm.run(TpmCc::SHUTDOWN, &[], &TpmSu::CLEAR), Ok(vec![]));
    }
}
