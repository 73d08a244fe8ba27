//! `TPM2_PolicyGetDigest` (Part 3, 23.17).

use crate::command::{Context, Output, parameters};
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;

/// Returns the policy digest of a session.
///
/// # Errors
/// Those of the parameters.
pub fn policy_get_digest(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let () = parameters(r)?;
    Ok(Output::of(&cx.state.session(cx.handle(0)?)?.policy_digest))
}
