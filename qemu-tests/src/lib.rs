//! Boots real guests.

pub mod frame;
pub mod tpm;
