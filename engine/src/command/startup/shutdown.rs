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
