//! Duplication commands (Part 3, chapter 13).

mod duplicate;
mod import;
mod rewrap;

pub use duplicate::duplicate;
pub use import::import;
pub use rewrap::rewrap;

use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{TpmtSymDef, TpmtSymDefObject};

/// The size of the key of the inner wrapper, in bytes; `None` for no inner wrapper.
fn inner_key_size(symmetric: TpmtSymDefObject) -> Result<Option<usize>, ResponseCode> {
    match symmetric.0 {
        TpmtSymDef::Null => Ok(None),
        TpmtSymDef::Aes { key_bits, .. } => Ok(Some(usize::from(key_bits / 8))),
        TpmtSymDef::Xor { .. } => Err(ResponseCode::SYMMETRIC),
    }
}

#[cfg(test)]
mod tests;
