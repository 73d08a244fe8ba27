#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails"))]
//! One TPM 2.0: command bytes in, response bytes out. Randomness, time and the durable commit are handed in as an
//! [`Environment`]; nothing here knows of virtio, sockets, files or threads.

pub mod alg;
pub mod command;
pub mod context;
pub mod crypto;
pub mod entity;
pub mod env;
pub mod execute;
pub mod foreign;
pub mod instances;
pub mod nv;
pub mod object;
pub mod pcr;
pub mod secret;
pub mod signing;
pub mod state;
#[cfg(test)]
mod testing;
pub mod ticket;
mod tpm;
pub mod wrap;

pub use env::{Change, CommitFailed, Environment, RecordKey};
pub use state::RestoreError;
pub use tpm::Tpm;
