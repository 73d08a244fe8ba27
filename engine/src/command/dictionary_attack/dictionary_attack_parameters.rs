//! `TPM2_DictionaryAttackParameters` (Part 3, 25.3).

use crate::command::{Context, Output, parameters};
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;

/// Changes the limit of failures and the recovery times, in seconds. The failures that were counted stay.
///
/// # Errors
/// Those of the parameters.
pub fn dictionary_attack_parameters(
    cx: &mut Context<'_>,
    r: &mut Reader<'_>,
) -> Result<Output, ResponseCode> {
    let (max_tries, recovery_time, lockout_recovery): (u32, u32, u32) = parameters(r)?;
    let da = &mut cx.state.permanent_mut().da;
    da.max_tries = max_tries;
    da.recovery_time = recovery_time;
    da.lockout_recovery = lockout_recovery;
    Ok(Output::none())
}
