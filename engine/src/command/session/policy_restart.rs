//! `TPM2_PolicyRestart` (Part 3, 11.2).

use crate::command::{Context, Output, parameters};
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;

/// Sets a policy session to its initial state, keeping its keys.
///
/// # Errors
/// Those of the parameters.
pub fn policy_restart(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let () = parameters(r)?;
    let (time, epoch) = (cx.state.time(cx.now), cx.state.volatile.time_epoch);
    let handle = cx.handle(0)?;
    cx.state.session_mut(handle)?.reset_policy(time, epoch);
    Ok(Output::none())
}
