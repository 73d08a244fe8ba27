//! `TPM2_DictionaryAttackLockReset` (Part 3, 25.2).

use crate::command::{Context, Output, parameters};
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;

/// Forgets all failures that were counted.
///
/// # Errors
/// Those of the parameters.
pub fn dictionary_attack_lock_reset(
    cx: &mut Context<'_>,
    r: &mut Reader<'_>,
) -> Result<Output, ResponseCode> {
    let () = parameters(r)?;
    cx.state.permanent_mut().da.failed_tries = 0;
    Ok(Output::none())
}
