//! The control channel and the data channel, as clients see them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    unreachable_pub,
    reason = "a test stops where something is not as it should be"
)]

mod bad_clients;
mod channels;
mod cloud_hypervisor;
mod hand_over;
mod requests;
mod state;
mod tcp_clients;
mod world;
