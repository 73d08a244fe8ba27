//! The control channel of a running vtpmd: beside swtpm's, and through migrations as QEMU drives them.
#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "a test that panics has failed"
)]

mod client;
#[path = "../common/mod.rs"]
#[allow(dead_code, reason = "shared with the other tests of the programs")]
mod common;
mod migration;
mod neighbours;
mod swtpm;
