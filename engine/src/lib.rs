#![forbid(unsafe_code)]
//! One TPM 2.0.
