//! vtpmd.

pub mod host_key;
pub mod store;
