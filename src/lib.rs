//! vtpmd: the instance tree, the migration, the store and the daemon, of which the programs `vtpmd` and `vtpmctl` are made.

pub mod config;
pub mod ctl;
pub mod daemon;
pub mod fault;
pub mod foreign;
mod gate;
pub mod host_key;
pub mod link;
pub mod logging;
pub mod memory;
pub mod metrics;
pub mod migration;
pub mod service;
pub mod store;
pub mod swtpm;
pub mod tree;
pub mod trust;

/// An error with its causes, as one sentence for the operator.
pub fn sentence(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
