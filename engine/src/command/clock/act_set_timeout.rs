//! `TPM2_ACT_SetTimeout` (Part 3, 33.2).

use crate::command::{Context, Output, parameters};
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::ACT_STOPPED;

/// Sets the seconds until the countdown timer expires, see [`State::set_act`](crate::state::State::set_act). What is set holds at once, so
/// that no update is ever pending and `TPM_RC_RETRY`, for one that comes too early, is never the answer.
///
/// # Errors
/// `TPM_RC_VALUE` for [`ACT_STOPPED`] while there is no signal to take back.
pub fn act_set_timeout(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (timeout,): (u32,) = parameters(r)?;
    if timeout == ACT_STOPPED && !cx.state.act_signaled(cx.now) {
        return Err(ResponseCode::VALUE.parameter(1));
    }
    cx.state.set_act(cx.now, timeout);
    Ok(Output::none())
}

#[cfg(test)]
mod tests;
