//! Failure mode (Part 3, 10.1): what the TPM still answers when its cryptography does not work.

use super::header;
use crate::command::capability::failure_properties;
use vtpm_protocol::codec::{Decode, Encode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{
    HEADER_SIZE, Tpm2bMaxBuffer, TpmCap, TpmCc, TpmPt, TpmSt, TpmsCapabilityData, TpmsTaggedProperty,
};

/// The response to `TPM2_GetTestResult`, and to `TPM2_GetCapability` where it asks who made the TPM; both without sessions. Nothing else is
/// answered, not even that a command is malformed.
///
/// # Errors
/// `TPM_RC_FAILURE` for everything else.
pub fn response(bytes: &[u8]) -> Result<Vec<u8>, ResponseCode> {
    let parameters = match header(bytes) {
        Ok((TpmSt::NO_SESSIONS, TpmCc::GET_TEST_RESULT, r)) if r.is_empty() => test_result(),
        Ok((TpmSt::NO_SESSIONS, TpmCc::GET_CAPABILITY, r)) => capability(r)?,
        _ => return Err(ResponseCode::FAILURE),
    };
    let size = u32::try_from(parameters.len().saturating_add(HEADER_SIZE)).unwrap_or(u32::MAX);
    let mut response = (TpmSt::NO_SESSIONS, size, ResponseCode::SUCCESS.value()).to_bytes();
    response.extend_from_slice(&parameters);
    Ok(response)
}

fn test_result() -> Vec<u8> {
    (Tpm2bMaxBuffer::empty(), ResponseCode::FAILURE.value()).to_bytes()
}

/// At most one property, from manufacturer to firmware version.
fn capability(mut r: Reader<'_>) -> Result<Vec<u8>, ResponseCode> {
    let (capability, first, count) =
        <(TpmCap, TpmPt, u32)>::decode(&mut r).map_err(|_| ResponseCode::FAILURE)?;
    if capability != TpmCap::TPM_PROPERTIES || !r.is_empty() {
        return Err(ResponseCode::FAILURE);
    }
    let mut rest = failure_properties().into_iter().filter(|p| p.0 >= first).peekable();
    let told: Vec<TpmsTaggedProperty> = rest
        .by_ref()
        .take(usize::from(count != 0))
        .map(|(property, value)| TpmsTaggedProperty { property, value })
        .collect();
    let more = rest.peek().is_some();
    Ok((more, TpmsCapabilityData::TpmProperties(told)).to_bytes())
}
