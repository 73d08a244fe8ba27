//! `vtpmctl migrate run` with the programs: two hosts on 127.0.0.1, a TPM that holds something, and everything that may come in between.
#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that panics has failed"
)]

mod file;
mod limits;
mod link;
mod proxy;
mod site;
mod ssh;
mod tpm;
