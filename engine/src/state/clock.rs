//! Time and Clock (Part 1, "Timing Components").
//!
//! Neither ticks by itself: both are kept as a value and the environment's time at which they had it, so that an idle TPM writes nothing.

use super::{CLOCK_NOMINAL, State};
use vtpm_protocol::tpm::{TpmsClockInfo, TpmsTimeInfo};

impl State {
    /// Milliseconds since `_TPM_Init`.
    #[must_use]
    pub fn time(&self, now: u64) -> u64 {
        self.volatile.time.saturating_add(self.elapsed(now))
    }

    /// Clock, in milliseconds.
    #[must_use]
    pub fn clock(&self, now: u64) -> u64 {
        self.permanent.clock.saturating_add(self.elapsed(now))
    }

    fn elapsed(&self, now: u64) -> u64 {
        let real = now.saturating_sub(self.volatile.clock_base);
        if self.volatile.clock_rate == CLOCK_NOMINAL {
            return real;
        }
        let scaled = u128::from(real).saturating_mul(u128::from(CLOCK_NOMINAL));
        let ticks = scaled.checked_div(u128::from(self.volatile.clock_rate)).unwrap_or(0);
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }

    /// Sets Clock. The timers of dictionary attack protection move along, so that no time has passed for them.
    pub fn set_clock(&mut self, now: u64, clock: u64) {
        self.rebase_clock(now);
        let permanent = self.permanent_mut();
        let (forward, back) = (clock.saturating_sub(permanent.clock), permanent.clock.saturating_sub(clock));
        for timer in [&mut permanent.da.self_heal_timer, &mut permanent.da.lockout_timer] {
            *timer = timer.saturating_add(forward).saturating_sub(back);
        }
        permanent.clock = clock;
    }

    /// `TPMS_CLOCK_INFO` as of now.
    #[must_use]
    pub fn clock_info(&self, now: u64) -> TpmsClockInfo {
        TpmsClockInfo {
            clock: self.clock(now),
            reset_count: self.permanent.reset_count,
            restart_count: self.volatile.state_reset.restart_count,
            safe: self.volatile.clock_safe,
        }
    }

    /// `TPMS_TIME_INFO` as of now.
    #[must_use]
    pub fn time_info(&self, now: u64) -> TpmsTimeInfo {
        TpmsTimeInfo { time: self.time(now), clock_info: self.clock_info(now) }
    }

    /// Sets the base of both clocks to `now` without changing what they show.
    pub fn rebase_clock(&mut self, now: u64) {
        let (time, clock) = (self.time(now), self.clock(now));
        self.permanent_mut().clock = clock;
        let volatile = self.volatile_mut();
        volatile.time = time;
        volatile.clock_base = now;
    }

    /// When the environment's time lies before the base, as after a step of the host's clock, both clocks stand where they stood at the
    /// base and go on from there. Clock may have shown more since that base, so that it is not safe until `TPM2_Clear`; and
    /// policies that expire cannot tell how long the step took.
    pub fn observe_time(&mut self, now: u64) {
        if now < self.volatile.clock_base {
            let volatile = self.volatile_mut();
            volatile.clock_base = now;
            volatile.clock_safe = false;
            volatile.act.rewind(volatile.time);
            volatile.time_epoch = volatile.time_epoch.wrapping_add(1);
        }
    }
}
