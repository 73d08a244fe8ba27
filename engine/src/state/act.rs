//! The authenticated countdown timer `TPM_RH_ACT_0` (Part 1, "Authenticated Countdown Timer"; Part 2, 8.12).
//!
//! As the clocks it does not tick: it is kept as what was set and the TPM's Time at which it was, so that an idle TPM writes nothing. It
//! goes at the rate of the clocks, and where the environment's time goes back it goes on from where it stood, as they do.

use super::{Policy, State};
use vtpm_protocol::structure;
use vtpm_protocol::tpm::{ACT_STOPPED, TpmHandle, TpmaAct, TpmsActData};

structure! {
    /// The timer. Time is in milliseconds since `_TPM_Init`.
    #[derive(Clone, Default)]
    pub struct Act {
        /// What was set, in seconds; 0 for none, [`ACT_STOPPED`] for one that does not count.
        timeout: u32,
        /// Time when it was set.
        since: u64,
        /// It has expired before, and somebody has noticed. See [`State::notice_act`].
        signaled: bool,
        /// It had expired in a boot before, since it was last set.
        preserve_signaled: bool,
        /// It was set since the last Startup.
        set: bool,
        /// What a Resume goes on with: the seconds that were left at `TPM2_Shutdown(STATE)`.
        saved_timeout: u32,
        /// Whether it signaled then.
        saved_signaled: bool,
        /// Its policy.
        pub policy: Policy,
    }
}

impl Act {
    /// Seconds left: a second that has begun counts whole, so that it is over exactly when this is 0.
    fn remaining(&self, time: u64) -> u32 {
        if self.timeout == ACT_STOPPED {
            return self.timeout;
        }
        let seconds = time.saturating_sub(self.since).checked_div(1000).unwrap_or(0);
        self.timeout.saturating_sub(u32::try_from(seconds).unwrap_or(u32::MAX))
    }

    fn is_signaled(&self, time: u64) -> bool {
        self.signaled || (self.timeout != 0 && self.remaining(time) == 0)
    }

    /// Time has gone back to `time`: at most the whole of what was set is left.
    pub fn rewind(&mut self, time: u64) {
        self.since = self.since.min(time);
    }

    /// Stops it, as `_TPM_Init` does; an expiry that nobody has noticed is forgotten.
    pub fn stop(&mut self) {
        self.timeout = 0;
    }
}

impl State {
    /// Whether the timer signals now.
    #[must_use]
    pub fn act_signaled(&self, now: u64) -> bool {
        self.volatile.act.is_signaled(self.time(now))
    }

    /// `TPMS_ACT_DATA` as of now.
    #[must_use]
    pub fn act_data(&self, now: u64) -> TpmsActData {
        let act = &self.volatile.act;
        let time = self.time(now);
        let attributes = TpmaAct::default()
            .with(TpmaAct::SIGNALED, act.is_signaled(time))
            .with(TpmaAct::PRESERVE_SIGNALED, act.preserve_signaled);
        TpmsActData { handle: TpmHandle::ACT_0, timeout: act.remaining(time), attributes }
    }

    /// Sets the timer: a timeout starts it and takes the signal back, [`ACT_STOPPED`] takes the signal back, 0 ends one that runs and lets it
    /// signal, and does nothing to one that does not run.
    pub fn set_act(&mut self, now: u64, timeout: u32) {
        let time = self.time(now);
        let act = &mut self.volatile_mut().act;
        act.signaled = timeout == 0 && (act.is_signaled(time) || act.remaining(time) != 0);
        act.timeout = timeout;
        act.since = time;
        act.preserve_signaled = false;
        act.set = true;
    }

    /// Remembers an expiry, once. From then on neither a step of the clock nor `_TPM_Init` makes it undone.
    pub fn notice_act(&mut self, now: u64) {
        if !self.volatile.act.signaled && self.act_signaled(now) {
            let act = &mut self.volatile_mut().act;
            act.signaled = true;
            act.timeout = 0;
        }
    }

    /// `TPM2_Shutdown(STATE)`: what is left is what a Resume goes on with, only half of it when the timer was not set since Startup. Otherwise
    /// it could be put off forever by a machine that suspends at once.
    pub fn save_act(&mut self, now: u64) {
        let time = self.time(now);
        let act = &mut self.volatile_mut().act;
        let left = act.remaining(time);
        let halved = !act.set && left > 1 && left != ACT_STOPPED;
        act.saved_timeout = if halved { left.checked_div(2).unwrap_or(left) } else { left };
        act.saved_signaled = act.is_signaled(time);
    }

    /// Startup: a Resume goes on with what was saved, any other start has no timer and no policy. In both the guest can see that there was a
    /// signal before.
    pub fn start_act(&mut self, now: u64, resume: bool) {
        let since = self.time(now);
        let act = &mut self.volatile_mut().act;
        let preserve_signaled = act.preserve_signaled || act.signaled;
        let kept = if resume { core::mem::take(act) } else { Act::default() };
        *act = Act {
            timeout: kept.saved_timeout,
            since,
            signaled: kept.saved_signaled,
            preserve_signaled,
            policy: kept.policy,
            ..Act::default()
        };
    }
}
