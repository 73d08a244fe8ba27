//! What the store counts, for whoever asks ([`crate::metrics`]).

use std::sync::atomic::{AtomicU64, Ordering};

use super::StoreError;
use crate::metrics::{Counter, DURATIONS, Histogram, SHARED};

/// Since the store was opened.
pub struct Counters {
    /// Batches that were made durable.
    pub commits: Counter,
    /// Transactions that were synchronised before they were acknowledged.
    pub synchronised: Counter,
    /// Transactions that were left to the memory of the system.
    pub left: Counter,
    /// How many batches shared a transaction.
    pub shared: Histogram<{ SHARED.len() }>,
    /// How long the `COMMIT` of a transaction took that was synchronised.
    pub sync_took: Histogram<{ DURATIONS.len() }>,
    /// How often the log was synchronised while nobody waited.
    pub early_syncs: Counter,
    /// Batches that were not made durable since the medium was full.
    pub disk_full: Counter,
    /// Batches of which nobody knows whether they were made durable.
    pub unknown: Counter,
    /// Batches that the medium did not take for another reason.
    pub failed: Counter,
    /// Instances of which what the database has does not hold together, at present.
    pub damaged: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            commits: Counter::default(),
            synchronised: Counter::default(),
            left: Counter::default(),
            shared: Histogram::new(&SHARED),
            sync_took: Histogram::new(&DURATIONS),
            early_syncs: Counter::default(),
            disk_full: Counter::default(),
            unknown: Counter::default(),
            failed: Counter::default(),
            damaged: AtomicU64::default(),
        }
    }
}

impl Counters {
    /// How many transactions there were.
    #[must_use]
    pub fn transactions(&self) -> u64 {
        self.synchronised.get().saturating_add(self.left.get())
    }

    /// So many instances are damaged now.
    pub(super) fn found_damaged(&self, instances: usize) {
        self.damaged.store(u64::try_from(instances).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Counts a batch that failed, unless that was its own fault.
    pub(super) fn failure(&self, error: &StoreError) {
        match error {
            StoreError::DiskFull { .. } => self.disk_full.count(),
            error if error.outcome_is_unknown() => self.unknown.count(),
            error if error.is_about_the_batch() => {}
            _ => self.failed.count(),
        }
    }
}
