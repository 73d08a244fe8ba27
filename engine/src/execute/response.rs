//! Responses (Part 1, "Response Header", "Response authorization area").

use super::audit;
use super::auth;
use super::parameter_encryption;
use crate::command::{Context, Output};
use vtpm_protocol::codec::Encode;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{HEADER_SIZE, TpmSt};

/// The ten bytes of a failure. Part 3, 5.2 has `TPM_ST_RSP_COMMAND` on a `TPM_RC_BAD_TAG`, as TPM 1.2 would answer: OVMF asks with a command of TPM 1.2
/// first and takes that tag for one, so that it never finds the TPM 2.0 behind a tpm-tis. It is used to libtpms, where the tag is this one.
#[must_use]
pub fn error(rc: ResponseCode) -> Vec<u8> {
    (TpmSt::NO_SESSIONS, 10u32, rc.value()).to_bytes()
}

/// The response of a command that succeeded; rolls the nonces of its sessions.
///
/// # Errors
/// `TPM_RC_FAILURE` for what cannot happen, such as a response over four gigabytes.
pub fn success(cx: &mut Context<'_>, tag: TpmSt, output: &mut Output) -> Result<Vec<u8>, ResponseCode> {
    let mut body = Vec::with_capacity(output.parameters.len().saturating_add(128));
    if let Some(handle) = output.handle {
        handle.encode(&mut body);
    }
    if tag == TpmSt::SESSIONS {
        auth::roll_nonces(cx)?;
        parameter_encryption::encrypt_response(cx, &mut output.parameters)?;
        u32::try_from(output.parameters.len()).map_err(|_| ResponseCode::FAILURE)?.encode(&mut body);
        body.extend_from_slice(&output.parameters);
        audit::extend_session(cx, &output.parameters)?;
        audit::extend_command(cx, &output.parameters);
        auth::encode_responses(cx, &output.parameters, &mut body)?;
    } else {
        body.extend_from_slice(&output.parameters);
        audit::extend_session(cx, &output.parameters)?;
        audit::extend_command(cx, &output.parameters);
    }
    if let Some(handle) = cx.sessions.ends_sequence {
        cx.state.sequences.remove(&handle.0);
    }
    let size = u32::try_from(body.len().saturating_add(HEADER_SIZE)).map_err(|_| ResponseCode::FAILURE)?;
    let mut response = (tag, size, ResponseCode::SUCCESS.value()).to_bytes();
    response.append(&mut body);
    Ok(response)
}
