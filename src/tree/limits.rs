//! What one instance may take of its host: room, which its engine enforces, and commands, which are counted here.

use vtpm_engine::env::Limits;

/// The limits of every instance of a tree but the root's, which belongs to the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstanceLimits {
    /// How much its TPM may keep.
    pub engine: Limits,
    /// How many commands its machine may send; without it, as many as it can.
    pub rate: Option<CommandRate>,
}

impl Default for InstanceLimits {
    fn default() -> Self {
        Self { engine: Limits::MOST, rate: None }
    }
}

/// A rate of commands, on average, and how many may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandRate {
    /// Commands in a second.
    pub per_second: u32,
    /// The commands that somebody may send at once who has sent none for long.
    pub burst: u32,
}

/// The commands that a machine may still send: a token bucket, which is full at first.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    /// Thousandths of a command that are missing from a full bucket.
    missing: u64,
    /// Milliseconds, when that was so.
    at: u64,
    /// Milliseconds, when the operator was last told of a refusal.
    told: Option<u64>,
}

/// What becomes of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is executed.
    Granted,
    /// It is refused.
    Refused {
        /// The operator has not been told of one for long.
        is_news: bool,
    },
}

/// The operator is told of refusals no more often than this, in milliseconds: a machine that sends too much goes on doing so.
const NEWS_EVERY: u64 = 60_000;

/// What one command takes of the bucket; a rate of N commands a second is N of these in a millisecond.
const COMMAND: u64 = 1000;

impl Allowance {
    /// Takes one command at `now`, in milliseconds of a clock that does not go back.
    pub(super) fn take(&mut self, rate: CommandRate, now: u64) -> Admission {
        let regained = now.saturating_sub(self.at).saturating_mul(u64::from(rate.per_second));
        self.missing = self.missing.saturating_sub(regained);
        self.at = now;
        let missing = self.missing.saturating_add(COMMAND);
        if missing <= u64::from(rate.burst).saturating_mul(COMMAND) {
            self.missing = missing;
            return Admission::Granted;
        }
        let is_news = self.told.is_none_or(|told| now.saturating_sub(told) >= NEWS_EVERY);
        if is_news {
            self.told = Some(now);
        }
        Admission::Refused { is_news }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: CommandRate = CommandRate { per_second: 100, burst: 3 };

    #[test]
    fn a_burst_is_granted_and_then_the_rate() {
        let mut allowance = Allowance::default();
        let mut take = |now| allowance.take(RATE, now);
        assert_eq!([take(5), take(5), take(5)], [Admission::Granted; 3]);
        let refused = |is_news| Admission::Refused { is_news };
        assert_eq!([take(5), take(14)], [refused(true), refused(false)]);
        // Ten milliseconds are one command, and what was refused cost nothing.
        assert_eq!([take(15), take(15), take(24)], [Admission::Granted, refused(false), refused(false)]);
        let granted = (25..1025).filter(|now| take(*now) == Admission::Granted).count();
        assert_eq!(granted, 100);
        // After a pause however long, no more than the burst.
        let later = [0; 5].map(|_| take(1_000_000_000));
        assert_eq!(later[..3], [Admission::Granted; 3]);
        assert_eq!(later[3..], [refused(true), refused(false)]);
    }

    #[test]
    fn a_clock_that_stands_still_or_is_far_away_costs_nothing_but_commands() {
        let mut allowance = Allowance::default();
        let rate = CommandRate { per_second: u32::MAX, burst: u32::MAX };
        assert_eq!(allowance.take(rate, u64::MAX), Admission::Granted);
        assert_eq!(allowance.take(rate, 0), Admission::Granted);
        assert_eq!(allowance.missing, 2 * COMMAND);
    }
}
