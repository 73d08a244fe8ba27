//! Duplication commands (Part 3, chapter 13).

mod duplicate;
mod import;
mod rewrap;

pub use duplicate::duplicate;
pub use import::import;
pub use rewrap::rewrap;

use crate::alg::SymCipher;
use vtpm_protocol::tpm::TpmtSymDefObject;

/// The cipher of the inner wrapper; `None` for no inner wrapper.
fn inner_cipher(symmetric: TpmtSymDefObject) -> Option<SymCipher> {
    SymCipher::of(symmetric.0)
}

#[cfg(test)]
mod tests;
