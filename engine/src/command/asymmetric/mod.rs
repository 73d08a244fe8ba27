//! Asymmetric primitives (Part 3, chapter 14).

mod rsa_decrypt;
mod rsa_encrypt;

pub use rsa_decrypt::rsa_decrypt;
pub use rsa_encrypt::rsa_encrypt;

use crate::state::Object;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{PublicParms, Scheme};

/// The padding of an RSA encryption key: its own, if it has one, which the caller may repeat but not change; else the caller's, which may
/// be none.
///
/// # Errors
/// `TPM_RC_KEY`, blaming handle 1, for a key that is not RSA; `TPM_RC_SCHEME`, blaming parameter 2, for another scheme than the key's.
fn select_rsa_scheme(key: &Object, requested: Scheme) -> Result<Scheme, ResponseCode> {
    let PublicParms::Rsa { scheme: own, .. } = key.public.parms else {
        return Err(ResponseCode::KEY.handle(1));
    };
    match (own.is_null(), requested.is_null()) {
        (true, _) => Ok(requested),
        (false, true) => Ok(own),
        (false, false) if own == requested => Ok(own),
        (false, false) => Err(ResponseCode::SCHEME.parameter(2)),
    }
}

/// Whether a label is one for OAEP: nothing, or a string with its terminating zero, which belongs to what is hashed (Part 1, B.4).
///
/// # Errors
/// `TPM_RC_VALUE`, blaming parameter 3.
fn check_label(label: &[u8]) -> Result<(), ResponseCode> {
    if matches!(label.last(), None | Some(0)) { Ok(()) } else { Err(ResponseCode::VALUE.parameter(3)) }
}
