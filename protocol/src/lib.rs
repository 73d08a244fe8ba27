#![forbid(unsafe_code)]
//! Bytes to types and back, nothing else: the structures of TPM 2.0 (Part 2), the instance commands, the migration
//! stream, the peer link, the control channel. No I/O and no cryptography happen here.

pub mod codec;
pub mod control;
pub mod instance;
pub mod link;
pub mod rc;
pub mod stream;
pub mod tpm;
