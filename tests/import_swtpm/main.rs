//! `vtpmctl import-swtpm` with Debian's swtpm as the source: what it kept goes on here, and is used here.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that panics has failed"
)]

mod carried;
mod chip;
#[allow(dead_code, reason = "each program of tests uses a part")]
#[path = "../common/mod.rs"]
mod common;
mod damage;
mod primaries;
mod program;
mod source;
