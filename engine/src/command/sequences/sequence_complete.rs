//! `TPM2_SequenceComplete` (Part 3, 17.6).

use super::sequence_update::add;
use crate::alg::{digest_2b, hash_id};
use crate::command::{Context, Output, parameters};
use crate::state::Running;
use crate::ticket;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Tpm2bMaxBuffer, TpmHandle, TpmSt, TpmiRhHierarchy, TpmtTk};

/// Adds the last data to a hash, HMAC or CMAC sequence (handle 1, USER), ends it, and returns what it computed. For a hash a ticket proves
/// that it can be signed by a restricted key; it is a NULL ticket for the null hierarchy and for data that could pass for a structure of the
/// TPM.
///
/// # Errors
/// `TPM_RC_MODE` (handle 1) for an event sequence and for a handle of something else.
pub fn sequence_complete(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (data, TpmiRhHierarchy(hierarchy)): (Tpm2bMaxBuffer, _) = parameters(r)?;
    let handle = cx.handle(0)?;
    let mut sequence = cx.state.sequence(handle).ok_or(ResponseCode::MODE.handle(1))?.clone();
    add(&mut sequence, &data);
    let (result, validation) = match sequence.running {
        Running::Hash { hasher, safe } => {
            let alg = hash_id(hasher.alg());
            let digest = hasher.finish();
            let validation = if hierarchy == TpmHandle::NULL || safe != Some(true) {
                TpmtTk::null(TpmSt::HASHCHECK)
            } else {
                ticket::hash_check(cx.state, hierarchy, alg, &digest)
            };
            (digest, validation)
        }
        Running::Mac(mac) => (mac.finish(), TpmtTk::null(TpmSt::HASHCHECK)),
        Running::Event(_) => return Err(ResponseCode::MODE.handle(1)),
    };
    cx.sessions.ends_sequence = Some(handle);
    Ok(Output::of(&(digest_2b(&result), validation)))
}
