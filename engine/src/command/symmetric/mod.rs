//! Symmetric primitives (Part 3, chapter 15).

mod encrypt_decrypt;
mod hash;
mod mac;

pub use encrypt_decrypt::{encrypt_decrypt, encrypt_decrypt2};
pub use hash::hash;
pub use mac::{mac, start as start_mac};
