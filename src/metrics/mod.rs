//! What is counted, and the door for those who collect it.
//!
//! On the way of a command there are additions to atomic numbers, in a place that the code of the command names: no lock, no text, nothing
//! that is allocated ([`commands`]). What can be looked up is looked up when somebody asks ([`exposition`]): where the instances stand, who is connected,
//! how large the database is. That waits for nobody's lock either, so that a store which hangs or an instance that searches a key for ten
//! seconds does not hold up the answer which would tell of it.
//!
//! The text is that of OpenMetrics 1.0, by `prometheus-client`, the library of the Prometheus project. Its own counters and families are not used: a
//! family finds its counter under a lock, by its labels, and a histogram has a lock itself.
//!
//! No label has the name of an instance. A host may have ten thousand, and whoever may see how the host does need not know whose machines
//! are on it.

mod commands;
mod endpoint;
mod exposition;
mod histogram;
mod migrations;
mod process;
mod results;

use std::sync::atomic::{AtomicU64, Ordering};

pub use commands::{Commands, label as command_label};
pub use endpoint::{Endpoint, EndpointError, Listening};
pub use exposition::{Connections, Sources};
pub use histogram::{DURATIONS, Histogram, SHARED};
pub use migrations::Migrations;

/// A number that grows.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn count(&self) {
        self.add(1);
    }

    /// `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// How many so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a tree counts.
#[derive(Default)]
pub struct Metrics {
    /// Commands by code and result, and how long they took.
    pub commands: Commands,
    /// Commands of machines that sent more than they may.
    pub rate_limited: Counter,
    /// Commands in flight that were answered from their record.
    pub replayed: Counter,
    /// What came of migrations.
    pub migrations: Migrations,
}
