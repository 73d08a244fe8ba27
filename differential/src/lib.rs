//! Generated command sequences on our TPM and on swtpm, compared answer by answer.
//!
//! Debian's swtpm is the oracle. An episode is a fresh pair of TPMs and a few hundred commands that a generator makes
//! up from what is there: hierarchies, objects, sessions, policies, NV indices, PCRs. Both must give the same response
//! codes, and equal responses wherever the specification leaves no choice; what they make up at random is compared by
//! its shape. [`accepted::TABLE`] has the differences that are accepted, each with its reason.
//!
//! A run is a seed: `cargo run -p vtpm-differential -- --seed 7 --commands 100000`. A difference is printed with the
//! seed of its episode and the few steps that lead to it.
#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test program: one that panics fails"
)]

pub mod accepted;
pub mod bytes;
pub mod client;
pub mod compare;
pub mod coverage;
pub mod device;
mod effects;
mod generate;
mod known_keys;
mod model;
pub mod rng;
pub mod run;
mod shrink;
pub mod world;
