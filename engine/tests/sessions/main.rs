#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    reason = "a test that panics fails"
)]
//! The session code against a client that was written apart from it: it speaks bytes, keeps its own nonces and keys, and has its own
//! KDFs, HMAC, CFB and OAEP on top of the bare hash and cipher crates. What both sides agree on is what Part 1 says.

mod audit;
mod authorization;
mod client;
mod combinations;
mod crypto;
mod deferred;
mod dictionary_attack;
mod encryption;
mod known_faults;
mod malformed;
mod policy;
mod power;
mod properties;
mod sequences;
mod setup;
