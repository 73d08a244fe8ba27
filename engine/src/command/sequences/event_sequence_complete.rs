//! `TPM2_EventSequenceComplete` (Part 3, 17.7).

use super::sequence_update::add;
use crate::alg::hash_id;
use crate::command::{Context, Output, parameters};
use crate::pcr;
use crate::state::Running;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Tpm2bMaxBuffer, TpmHandle, Tpml, TpmlDigestValues, TpmtHa};

/// Adds the last data to an event sequence (handle 2, USER), ends it, extends a PCR (handle 1, USER; null for none) in every allocated bank,
/// and returns the digests.
///
/// # Errors
/// `TPM_RC_MODE` (handle 2) for another sequence and for a handle of something else; `TPM_RC_LOCALITY` when the locality of the command may
/// not extend the PCR.
pub fn event_sequence_complete(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (data,): (Tpm2bMaxBuffer,) = parameters(r)?;
    let (pcr, handle) = (cx.handle(0)?, cx.handle(1)?);
    let wrong_mode = ResponseCode::MODE.handle(2);
    let mut sequence = cx.state.sequence(handle).ok_or(wrong_mode)?.clone();
    add(&mut sequence, &data);
    let Running::Event(hashers) = sequence.running else { return Err(wrong_mode) };
    if pcr != TpmHandle::NULL {
        pcr::check_extend(pcr, cx.locality)?;
    }
    let digests: TpmlDigestValues = Tpml(
        hashers
            .into_iter()
            .map(|hasher| TpmtHa { hash_alg: hash_id(hasher.alg()), digest: hasher.finish().to_vec() })
            .collect(),
    );
    if pcr != TpmHandle::NULL {
        for entry in &digests.0 {
            cx.state.extend_pcr(pcr, entry.hash_alg, &entry.digest);
        }
    }
    cx.sessions.ends_sequence = Some(handle);
    Ok(Output::of(&digests))
}
