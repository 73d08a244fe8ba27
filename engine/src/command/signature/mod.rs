//! Signing and signature verification (Part 3, chapter 20).

mod sign;
mod verify_signature;

pub use sign::sign;
pub use verify_signature::verify_signature;
