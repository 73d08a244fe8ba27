//! `TPM2_SequenceUpdate` (Part 3, 17.5).

use crate::command::{Context, Output, parameters};
use crate::state::{Running, Sequence};
use crate::ticket;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::Tpm2bMaxBuffer;

/// Adds data to a sequence (handle 1, USER).
///
/// # Errors
/// `TPM_RC_MODE` (handle 1) for a handle of something else.
pub fn sequence_update(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (data,): (Tpm2bMaxBuffer,) = parameters(r)?;
    let handle = cx.handle(0)?;
    add(cx.state.sequence_mut(handle).ok_or(ResponseCode::MODE.handle(1))?, &data);
    Ok(Output::none())
}

/// Adds data. Whether a ticket may be made for a hash is seen from the first block: one with less than four bytes could be the beginning of
/// anything.
pub fn add(sequence: &mut Sequence, data: &[u8]) {
    match &mut sequence.running {
        Running::Hash { hasher, safe } => {
            safe.get_or_insert_with(|| ticket::is_safe_to_sign(data));
            hasher.update(data);
        }
        Running::Mac(mac) => mac.update(data),
        Running::Event(hashers) => hashers.iter_mut().for_each(|hasher| hasher.update(data)),
    }
}
