//! Dictionary attack protection (Part 1, "Dictionary Attack Protection").

use crate::state::State;
use vtpm_protocol::rc::ResponseCode;

/// Forgets failures whose recovery time has passed. Before Startup nothing is forgotten: how the last boot ended comes first.
pub fn self_heal(state: &mut State, now: u64) {
    if !state.volatile.started {
        return;
    }
    let clock = state.clock(now);
    let da = &state.permanent.da;
    if da.recovery_time == 0 && da.failed_tries != 0 {
        state.permanent_mut().da.failed_tries = 0;
    } else if da.failed_tries != 0 {
        let interval = u64::from(da.recovery_time).saturating_mul(1000);
        let healed = clock.saturating_sub(da.self_heal_timer).checked_div(interval).unwrap_or(0);
        if healed > 0 {
            let da = &mut state.permanent_mut().da;
            let tries = u64::from(da.failed_tries).saturating_sub(healed);
            da.failed_tries = u32::try_from(tries).unwrap_or(u32::MAX);
            da.self_heal_timer = da.self_heal_timer.saturating_add(healed.saturating_mul(interval));
        }
    }
    let da = &state.permanent.da;
    if !da.lockout_auth_enabled
        && da.lockout_recovery != 0
        && clock.saturating_sub(da.lockout_timer) >= u64::from(da.lockout_recovery).saturating_mul(1000)
    {
        state.permanent_mut().da.lockout_auth_enabled = true;
    }
}

/// Refuses an authorization while the TPM is locked out, and remembers that there was one.
///
/// # Errors
/// `TPM_RC_LOCKOUT`.
pub fn check_locked_out(state: &mut State, lockout_auth: bool) -> Result<(), ResponseCode> {
    let da = &state.permanent.da;
    let locked = if lockout_auth { !da.lockout_auth_enabled } else { da.failed_tries >= da.max_tries };
    if locked {
        return Err(ResponseCode::LOCKOUT);
    }
    if !lockout_auth && !da.used {
        state.permanent_mut().da.used = true;
    }
    Ok(())
}

/// What a Startup does (Part 1, "Dictionary Attack Protection"): a boot that used something protected and ended without a Shutdown counts
/// as a failure, as one may have gone uncounted with it; of such a boot it is not known either how long the TPM ran, so that
/// the recovery times begin anew.
pub fn start(state: &mut State, now: u64, orderly: bool) {
    let init = state.clock(now).saturating_sub(state.time(now));
    let da = &mut state.permanent_mut().da;
    if !orderly {
        (da.self_heal_timer, da.lockout_timer) = (init, init);
        if da.used && da.recovery_time != 0 && da.failed_tries < da.max_tries {
            da.failed_tries = da.failed_tries.saturating_add(1);
        }
    }
    da.used = false;
    // Part 3, 25.3: without a recovery time it takes a reboot to make lockoutAuth usable again.
    if da.lockout_recovery == 0 {
        da.lockout_auth_enabled = true;
    }
    self_heal(state, now);
}

/// Counts a failure of lockoutAuth.
pub fn count_lockout(state: &mut State, now: u64) {
    let clock = state.clock(now);
    let da = &mut state.permanent_mut().da;
    da.lockout_auth_enabled = false;
    da.lockout_timer = clock;
}

/// Counts any other failure that is protected. The time to the next recovery starts anew.
pub fn count_failure(state: &mut State, now: u64) {
    let clock = state.clock(now);
    let da = &mut state.permanent_mut().da;
    da.used = true;
    if da.recovery_time == 0 {
        return;
    }
    da.self_heal_timer = clock;
    da.failed_tries = da.failed_tries.saturating_add(1);
}
