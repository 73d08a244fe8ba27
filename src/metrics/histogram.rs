//! How often a number fell where.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds for durations, in nanoseconds: from 10 microseconds to 10 seconds.
pub const DURATIONS: [u64; 19] = [
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// Upper bounds for how many commits share a transaction.
pub const SHARED: [u64; 10] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512];

/// Counts numbers by upper bounds. A number that equals a bound is below it, as Prometheus has it.
pub struct Histogram<const N: usize> {
    bounds: &'static [u64; N],
    counts: [AtomicU64; N],
    beyond: AtomicU64,
    sum: AtomicU64,
}

/// What a histogram has counted, in the unit that is told.
pub(super) struct Counted {
    pub(super) sum: f64,
    pub(super) count: u64,
    /// Upper bounds, infinity the last, with how many are between them and the one before.
    pub(super) buckets: Vec<(f64, u64)>,
}

impl<const N: usize> Histogram<N> {
    /// Nothing counted yet.
    #[must_use]
    pub const fn new(bounds: &'static [u64; N]) -> Self {
        Self {
            bounds,
            counts: [const { AtomicU64::new(0) }; N],
            beyond: AtomicU64::new(0),
            sum: AtomicU64::new(0),
        }
    }

    /// Counts a number.
    pub fn observe(&self, value: u64) {
        let place = self.bounds.partition_point(|bound| *bound < value);
        self.counts.get(place).unwrap_or(&self.beyond).fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Counts a duration, in nanoseconds.
    pub fn observe_duration(&self, took: Duration) {
        self.observe(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// What was counted, where a unit of what is told is `unit` of what was counted.
    #[expect(clippy::cast_precision_loss, reason = "a sum that is off by one part in 2^53 is good enough")]
    pub(super) fn counted(&self, unit: f64) -> Counted {
        let bounds = self.bounds.iter().map(|bound| *bound as f64 / unit);
        let counts = self.counts.iter().chain([&self.beyond]).map(|count| count.load(Ordering::Relaxed));
        let buckets: Vec<_> = bounds.chain([f64::INFINITY]).zip(counts).collect();
        let count = buckets.iter().fold(0u64, |all, (_, count)| all.saturating_add(*count));
        Counted { sum: self.sum.load(Ordering::Relaxed) as f64 / unit, count, buckets }
    }
}

/// Nanoseconds in a second.
pub(super) const NANOSECONDS: f64 = 1e9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_falls_into_the_bucket_of_the_least_bound_that_is_not_below_it() {
        static BOUNDS: [u64; 3] = [10, 20, 40];
        let histogram = Histogram::new(&BOUNDS);
        for value in [0, 9, 10, 11, 20, 21, 40, 41, u64::from(u32::MAX)] {
            histogram.observe(value);
        }
        let counted = histogram.counted(1.0);
        assert_eq!(counted.buckets, [(10.0, 3), (20.0, 2), (40.0, 2), (f64::INFINITY, 2)]);
        assert_eq!((counted.count, counted.sum), (9, 152.0 + 4_294_967_295.0));
    }

    #[test]
    fn durations_are_told_in_seconds_from_ten_microseconds_to_ten_seconds() {
        let histogram = Histogram::new(&DURATIONS);
        histogram.observe_duration(Duration::from_micros(10));
        histogram.observe_duration(Duration::from_millis(3));
        histogram.observe_duration(Duration::from_secs(11));
        histogram.observe_duration(Duration::MAX.min(Duration::from_secs(60)));
        let counted = histogram.counted(NANOSECONDS);
        assert_eq!(counted.buckets.first(), Some(&(1e-5, 1)));
        assert_eq!(counted.buckets.get(8), Some(&(5e-3, 1)));
        assert_eq!(counted.buckets.get(18), Some(&(10.0, 0)));
        assert_eq!(counted.buckets.last(), Some(&(f64::INFINITY, 2)));
        assert!(DURATIONS.is_sorted() && SHARED.is_sorted());
    }
}
