//! A TPM of ours made of a foreign state.

use super::persistent::OrderlyData;
use super::{Foreign, ForeignError, Suspended};
use crate::env::Environment;
use crate::env::Limits;
use crate::state::{Apart, OrderlyState, PcrBanks, SavedContexts};
use crate::tpm::Tpm;
use std::sync::Arc;
use vtpm_protocol::tpm::Tpml;

/// How much Clock can be ahead of the value that libtpms has saved: `NV_CLOCK_UPDATE_INTERVAL` is 12 bits of milliseconds.
const CLOCK_STEP: u64 = 1 << 12;

impl Tpm {
    /// A TPM that goes on from a foreign state, before its next Startup. Nothing is committed; [`Self::records`] has all there is to save.
    ///
    /// What had no counterpart there (null hierarchy and commitments, unless the machine was suspended) is new.
    ///
    /// # Errors
    /// [`ForeignError::Unusable`] when the NV indices are more than there is room for.
    pub fn adopt(foreign: Foreign, env: &mut dyn Environment) -> Result<Self, ForeignError> {
        let mut tpm = Self::manufacture(env);
        let Foreign { persistent: p, orderly, suspended, indices, objects, max_counter, notes: _ } = foreign;
        let state = tpm.state_mut();
        let (clock, timers) = clocks(&orderly, p.end.orderly);
        let permanent = state.permanent_mut();
        permanent.owner = p.owner;
        permanent.endorsement = p.endorsement;
        permanent.platform = p.platform;
        permanent.lockout_auth = p.lockout_auth;
        permanent.lockout_policy = p.lockout_policy;
        permanent.disable_clear = p.disable_clear;
        permanent.da = p.da;
        (permanent.da.self_heal_timer, permanent.da.lockout_timer) = timers;
        permanent.orderly = p.end.orderly;
        permanent.reset_count = p.reset_count;
        permanent.total_reset_count = p.total_reset_count;
        permanent.clock = clock;
        permanent.max_counter = max_counter;
        permanent.pcr_allocation = p.pcr_allocation;
        permanent.pcr_policy = p.pcr_policy;
        permanent.algorithm_set = p.algorithm_set;
        permanent.pp_commands = Tpml(p.pp_commands);
        permanent.command_audit.alg = p.audit_alg;
        permanent.command_audit.counter = p.audit_counter;
        permanent.command_audit.commands = Tpml(p.audit_commands);
        let mut epoch = [0; 4];
        env.fill_random(&mut epoch);
        let volatile = state.volatile_mut();
        // As after any loss of power.
        volatile.time_epoch = u32::from_be_bytes(epoch);
        volatile.startup_locality = p.end.locality;
        volatile.hcrtm = p.end.hcrtm;
        for index in indices {
            state
                .add_nv_index(index, &Limits::MOST)
                .map_err(|_| ForeignError::Unusable("its NV indices take more room than there is here"))?;
        }
        state.persistent = objects.into_iter().map(|(handle, object)| (handle, Arc::new(object))).collect();
        if let Some(suspended) = suspended {
            resume(&mut tpm, suspended);
        }
        Ok(tpm)
    }
}

/// Clock, and when by Clock the two timers were set.
///
/// After a boot without a Shutdown, and shortly after one that followed such a boot, libtpms may have shown a Clock that it had not saved; it
/// goes on from the saved one then and says that Clock is not safe. Here Clock goes on above all that it may have shown, and never goes back.
fn clocks(orderly: &OrderlyData, end: OrderlyState) -> (u64, (u64, u64)) {
    let is_sure = end != OrderlyState::None && orderly.clock_safe;
    let ahead = if is_sure { 0 } else { CLOCK_STEP };
    let clock = orderly.clock.saturating_add(ahead);
    let since = |timer: u64, time: u64| {
        // Both count modulo 2^64 from the start of the process.
        let elapsed = time.wrapping_sub(timer);
        let elapsed = if elapsed > u64::from(u32::MAX).saturating_mul(1000) { 0 } else { elapsed };
        clock.saturating_sub(elapsed)
    };
    let timers = orderly
        .timers
        .as_ref()
        .map_or((clock, clock), |t| (since(t.self_heal, t.time), since(t.lockout, t.time)));
    (clock, timers)
}

/// What a TPM that was suspended goes on with, when its machine is: PCRs, platform authorization, null hierarchy, counters.
fn resume(tpm: &mut Tpm, suspended: Suspended) {
    let Suspended { reset, clear, pcrs } = suspended;
    let state = tpm.state_mut();
    let allocation = state.permanent.pcr_allocation.clone();
    let volatile = state.volatile_mut();
    let mut banks = PcrBanks::startup(&allocation, 0, None);
    for (hash, values) in pcrs {
        for (pcr, value) in (0u32..).zip(values) {
            if let Some(place) = banks.get_mut(hash, pcr) {
                *place = value;
            }
        }
    }
    volatile.pcrs = Apart::new(banks);
    volatile.state_clear = clear;
    let group = &mut volatile.state_reset;
    if !reset.null_seed.is_empty() && !reset.null_proof.is_empty() {
        group.null_seed = reset.null_seed;
        group.null_proof = reset.null_proof;
    }
    group.clear_count = reset.clear_count;
    group.object_context_id = reset.object_context_id;
    group.contexts = SavedContexts::default();
    group.restart_count = reset.restart_count;
    group.pcr_counter = reset.pcr_counter;
    group.command_audit_digest = reset.audit_digest;
}
