//! Commands, byte by byte.

use vtpm_protocol::codec::Encode;
use vtpm_protocol::tpm::{HEADER_SIZE, TpmCc, TpmHandle, TpmSt};

/// A command without sessions.
pub fn plain(code: TpmCc, parameters: &[u8]) -> Vec<u8> {
    let size = u32::try_from(HEADER_SIZE + parameters.len()).unwrap();
    [(TpmSt::NO_SESSIONS, size, code).to_bytes(), parameters.to_vec()].concat()
}

/// A command with the empty password for the first of its handles.
pub fn authorized(code: TpmCc, handles: &[u32], parameters: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    handles.iter().for_each(|h| h.encode(&mut body));
    (9u32, TpmHandle::RS_PW, 0u16, 0u8, 0u16).encode(&mut body);
    body.extend_from_slice(parameters);
    let size = u32::try_from(HEADER_SIZE + body.len()).unwrap();
    [(TpmSt::SESSIONS, size, code).to_bytes(), body].concat()
}
