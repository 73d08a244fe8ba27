//! `TPM2_PolicyPCR` (Part 3, 23.7).

use super::extend;
use crate::alg::hash_of;
use crate::command::{Context, Output, parameters};
use crate::crypto::ct_eq;
use crate::pcr::selection_digest;
use vtpm_protocol::codec::{Encode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Tpm2bDigest, TpmCc, TpmSe, TpmlPcrSelection};

/// The policy needs certain values in PCRs: those of now, or in a trial session those whose digest is given.
///
/// # Errors
/// `TPM_RC_VALUE` when the digest given is not that of the PCRs, `TPM_RC_PCR_CHANGED` when they have changed since an earlier
/// `TPM2_PolicyPCR` in the session.
pub fn policy_pcr(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (given, selection): (Tpm2bDigest, TpmlPcrSelection) = parameters(r)?;
    let handle = cx.handle(0)?;
    let session = cx.state.session(handle)?;
    let (normalised, current) = selection_digest(cx.state, hash_of(session.auth_hash), &selection);
    let counter = cx.state.volatile.state_reset.pcr_counter;
    let trial = session.kind == TpmSe::TRIAL;
    if !trial {
        if session.pcr_counter != 0 && session.pcr_counter != counter {
            return Err(ResponseCode::PCR_CHANGED);
        }
        if !given.is_empty() && !ct_eq(&given, &current) {
            return Err(ResponseCode::VALUE.parameter(1));
        }
    }
    let digest = if trial && !given.is_empty() { given.as_slice() } else { current.as_slice() };
    let session = cx.state.session_mut(handle)?;
    extend(session, &[&TpmCc::POLICY_PCR.to_bytes(), &normalised.to_bytes(), digest]);
    if !trial {
        session.pcr_counter = counter;
    }
    Ok(Output::none())
}
