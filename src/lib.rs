//! vtpmd.

pub mod config;
pub mod host_key;
pub mod migration;
pub mod store;
