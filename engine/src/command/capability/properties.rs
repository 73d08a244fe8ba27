//! `TPM_CAP_TPM_PROPERTIES` (Part 2, 6.13).

use super::page;
use crate::alg::hash_id;
use crate::command::attestation::FIRMWARE_VERSION;
use crate::command::table;
use crate::context;
use crate::env::Limits;
use crate::nv;
use crate::state::{CONTEXT_GAP_MAX, MAX_LOADED_OBJECTS, MAX_LOADED_SESSIONS, State};
use vtpm_protocol::tpm::{
    ECC_CURVES, MAX_CAP_BUFFER, MAX_COMMAND_SIZE, MAX_DIGEST_BUFFER, MAX_DIGEST_SIZE, MAX_NV_BUFFER_SIZE,
    MAX_NV_INDEX_SIZE, MAX_RESPONSE_SIZE, PCR_COUNT, PCR_SELECT_SIZE, PT_GROUP, SPLIT_MAX, TpmAlgId, TpmCc,
    TpmNt, TpmPt, TpmaPermanent, TpmaStartupClear, TpmsTaggedProperty,
};

/// Four characters of the properties that are text.
const fn text(four: [u8; 4]) -> u32 {
    u32::from_be_bytes(four)
}

/// `TPM_SPEC_FAMILY`.
const FAMILY: u32 = text(*b"2.0\0");
/// `TPM_SPEC_VERSION`: revision 1.84 of the library, with its day and year.
const REVISION: (u32, u32, u32) = (184, 79, 2025);
/// The TCG's registry of vendors has no entry for this project.
const MANUFACTURER: u32 = text(*b"VTPM");
/// The name in the vendor strings.
const VENDOR_STRING: [u32; 4] = [text(*b"vtpm"), text(*b"d\0\0\0"), 0, 0];
/// `TPM_PS_PC`, and the revision of the PC Client profile that the PCRs follow: 1.05 of 4 September 2020, with its day and year.
const PLATFORM: (u32, u32, u32, u32) = (1, 0x105, 248, 2020);
/// The key size of saved contexts.
const CONTEXT_KEY_BITS: u32 = 256;
/// An index that is a counter, with neither authorization value nor policy: see [`nv::size`].
const COUNTER_SIZE: usize = 4 + 2 + 4 + 2 + 2 + 2 + 2 + 8;

/// The properties of the group of `first`, from `first` on.
#[must_use]
pub fn properties(
    state: &State,
    limits: &Limits,
    has_instances: bool,
    first: TpmPt,
    count: usize,
) -> (Vec<TpmsTaggedProperty>, bool) {
    let first = first.max(TpmPt::FAMILY_INDICATOR);
    let group = if first < TpmPt::PERMANENT {
        fixed(limits, has_instances)
    } else if first.0.saturating_sub(TpmPt::PERMANENT.0) < PT_GROUP {
        variable(state, limits)
    } else {
        return (Vec::new(), false);
    };
    let tagged = group.into_iter().map(|(property, value)| TpmsTaggedProperty { property, value });
    page(tagged, |p| p.property, first, count)
}

/// A count or size as the value of a property.
fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// `PT_FIXED`: what only another release changes, in ascending order.
fn fixed(limits: &Limits, has_instances: bool) -> Vec<(TpmPt, u32)> {
    let [a, b, c, d, e, f, g, h] = FIRMWARE_VERSION.to_be_bytes();
    let library = number(table::COMMANDS.iter().filter(|c| !table::is_vendor(c.code)).count());
    let all = number(table::COMMANDS.len());
    let vendor = if has_instances { all.saturating_sub(library) } else { 0 };
    let [vendor_1, vendor_2, vendor_3, vendor_4] = VENDOR_STRING;
    vec![
        (TpmPt::FAMILY_INDICATOR, FAMILY),
        (TpmPt::LEVEL, 0),
        (TpmPt::REVISION, REVISION.0),
        (TpmPt::DAY_OF_YEAR, REVISION.1),
        (TpmPt::YEAR, REVISION.2),
        (TpmPt::MANUFACTURER, MANUFACTURER),
        (TpmPt::VENDOR_STRING_1, vendor_1),
        (TpmPt::VENDOR_STRING_2, vendor_2),
        (TpmPt::VENDOR_STRING_3, vendor_3),
        (TpmPt::VENDOR_STRING_4, vendor_4),
        (TpmPt::VENDOR_TPM_TYPE, 1),
        (TpmPt::FIRMWARE_VERSION_1, u32::from_be_bytes([a, b, c, d])),
        (TpmPt::FIRMWARE_VERSION_2, u32::from_be_bytes([e, f, g, h])),
        (TpmPt::INPUT_BUFFER, number(MAX_DIGEST_BUFFER)),
        (TpmPt::HR_TRANSIENT_MIN, MAX_LOADED_OBJECTS),
        (TpmPt::HR_PERSISTENT_MIN, number(limits.persistent_objects)),
        (TpmPt::HR_LOADED_MIN, number(MAX_LOADED_SESSIONS)),
        (TpmPt::ACTIVE_SESSIONS_MAX, number(limits.active_sessions)),
        (TpmPt::PCR_COUNT, PCR_COUNT),
        (TpmPt::PCR_SELECT_MIN, number(PCR_SELECT_SIZE)),
        (TpmPt::CONTEXT_GAP_MAX, u32::try_from(CONTEXT_GAP_MAX).unwrap_or(u32::MAX)),
        // No limit but that of all indices.
        (TpmPt::NV_COUNTERS_MAX, 0),
        (TpmPt::NV_INDEX_MAX, number(MAX_NV_INDEX_SIZE)),
        // Objects, sessions and indices have each their own room, and a persistent object is used where it is.
        (TpmPt::MEMORY, 0),
        // Clock is exact at all times.
        (TpmPt::CLOCK_UPDATE, 1),
        (TpmPt::CONTEXT_HASH, u32::from(hash_id(context::HASH).0)),
        (TpmPt::CONTEXT_SYM, u32::from(TpmAlgId::AES.0)),
        (TpmPt::CONTEXT_SYM_SIZE, CONTEXT_KEY_BITS),
        (TpmPt::ORDERLY_COUNT, u32::try_from(nv::MAX_ORDERLY_COUNT).unwrap_or(u32::MAX)),
        (TpmPt::MAX_COMMAND_SIZE, number(MAX_COMMAND_SIZE)),
        (TpmPt::MAX_RESPONSE_SIZE, number(MAX_RESPONSE_SIZE)),
        (TpmPt::MAX_DIGEST, number(MAX_DIGEST_SIZE)),
        (TpmPt::MAX_OBJECT_CONTEXT, number(context::MAX_CONTEXT)),
        (TpmPt::MAX_SESSION_CONTEXT, number(context::MAX_CONTEXT)),
        (TpmPt::PS_FAMILY_INDICATOR, PLATFORM.0),
        (TpmPt::PS_LEVEL, 0),
        (TpmPt::PS_REVISION, PLATFORM.1),
        (TpmPt::PS_DAY_OF_YEAR, PLATFORM.2),
        (TpmPt::PS_YEAR, PLATFORM.3),
        // No TPM2_Commit.
        (TpmPt::SPLIT_MAX, u32::from(SPLIT_MAX)),
        (TpmPt::TOTAL_COMMANDS, library.saturating_add(vendor)),
        (TpmPt::LIBRARY_COMMANDS, library),
        (TpmPt::VENDOR_COMMANDS, vendor),
        (TpmPt::NV_BUFFER_MAX, number(MAX_NV_BUFFER_SIZE)),
        (TpmPt::MODES, 0),
        (TpmPt::MAX_CAP_BUFFER, number(MAX_CAP_BUFFER)),
        // No object is limited to a firmware.
        (TpmPt::FIRMWARE_SVN, 0),
        (TpmPt::FIRMWARE_MAX_SVN, 0),
    ]
}

/// What a TPM of this engine is, for those who ask its host and not the TPM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// `TPM_PT_LEVEL`.
    pub level: u32,
    /// `TPM_PT_REVISION`, the revision of the library times 100.
    pub revision: u32,
    /// `TPM_PT_MANUFACTURER`.
    pub manufacturer: u32,
    /// `TPM_PT_FIRMWARE_VERSION_1`.
    pub firmware_version: u32,
    /// The implemented commands of the library, in ascending order.
    pub commands: Vec<TpmCc>,
}

/// Describes every TPM of this engine; the algorithms are [`implemented_algorithms`](super::implemented_algorithms).
#[must_use]
pub fn describe() -> Description {
    let [a, b, c, d, ..] = FIRMWARE_VERSION.to_be_bytes();
    let mut commands: Vec<TpmCc> =
        table::COMMANDS.iter().map(|c| c.code).filter(|&code| !table::is_vendor(code)).collect();
    commands.sort_unstable_by_key(|code| code.0);
    Description {
        level: 0,
        revision: REVISION.0,
        manufacturer: MANUFACTURER,
        firmware_version: u32::from_be_bytes([a, b, c, d]),
        commands,
    }
}

/// Those of the fixed properties that are told in Failure mode: from manufacturer to firmware version (Part 3, 10.1).
#[must_use]
pub fn in_failure_mode() -> Vec<(TpmPt, u32)> {
    let told = TpmPt::MANUFACTURER..=TpmPt::FIRMWARE_VERSION_2;
    fixed(&Limits::MOST, false).into_iter().filter(|p| told.contains(&p.0)).collect()
}

/// `PT_VAR`: what changes while the TPM runs, in ascending order.
fn variable(state: &State, limits: &Limits) -> Vec<(TpmPt, u32)> {
    let da = &state.permanent.da;
    let [a, b, c, d, e, f, g, h] = state.permanent.command_audit.counter.to_be_bytes();
    let loaded = state.sessions.len();
    let slots = &state.volatile.state_reset.contexts.slots;
    let active = slots.iter().filter(|slot| **slot != 0).count();
    let counters = state.nv.values().filter(|i| i.public.attributes.nt() == Ok(TpmNt::Counter)).count();
    let counters_available = limits
        .nv_indices
        .saturating_sub(state.nv.len())
        .min(state.nv_bytes_free(limits).checked_div(COUNTER_SIZE).unwrap_or(0));
    let transient = MAX_LOADED_OBJECTS.saturating_sub(number(state.transient_handles().len()));
    vec![
        (TpmPt::PERMANENT, permanent_attributes(state).0),
        (TpmPt::STARTUP_CLEAR, startup_clear(state).0),
        (TpmPt::HR_NV_INDEX, number(state.nv.len())),
        (TpmPt::HR_LOADED, number(loaded)),
        (TpmPt::HR_LOADED_AVAIL, number(MAX_LOADED_SESSIONS.saturating_sub(loaded))),
        (TpmPt::HR_ACTIVE, number(active)),
        (TpmPt::HR_ACTIVE_AVAIL, number(limits.active_sessions.saturating_sub(active))),
        (TpmPt::HR_TRANSIENT_AVAIL, transient),
        (TpmPt::HR_PERSISTENT, number(state.persistent.len())),
        (
            TpmPt::HR_PERSISTENT_AVAIL,
            number(limits.persistent_objects.saturating_sub(state.persistent.len())),
        ),
        (TpmPt::NV_COUNTERS, number(counters)),
        (TpmPt::NV_COUNTERS_AVAIL, number(counters_available)),
        (TpmPt::ALGORITHM_SET, state.permanent.algorithm_set),
        (TpmPt::LOADED_CURVES, number(ECC_CURVES.len())),
        (TpmPt::LOCKOUT_COUNTER, da.failed_tries),
        (TpmPt::MAX_AUTH_FAIL, da.max_tries),
        (TpmPt::LOCKOUT_INTERVAL, da.recovery_time),
        (TpmPt::LOCKOUT_RECOVERY, da.lockout_recovery),
        (TpmPt::NV_WRITE_RECOVERY, 0),
        (TpmPt::AUDIT_COUNTER_0, u32::from_be_bytes([a, b, c, d])),
        (TpmPt::AUDIT_COUNTER_1, u32::from_be_bytes([e, f, g, h])),
    ]
}

fn permanent_attributes(state: &State) -> TpmaPermanent {
    let permanent = &state.permanent;
    TpmaPermanent::TPM_GENERATED_EPS
        .with(TpmaPermanent::OWNER_AUTH_SET, !permanent.owner.auth.is_empty())
        .with(TpmaPermanent::ENDORSEMENT_AUTH_SET, !permanent.endorsement.auth.is_empty())
        .with(TpmaPermanent::LOCKOUT_AUTH_SET, !permanent.lockout_auth.is_empty())
        .with(TpmaPermanent::DISABLE_CLEAR, permanent.disable_clear)
        .with(TpmaPermanent::IN_LOCKOUT, permanent.da.failed_tries >= permanent.da.max_tries)
}

fn startup_clear(state: &State) -> TpmaStartupClear {
    let volatile = &state.volatile;
    TpmaStartupClear::default()
        .with(TpmaStartupClear::PH_ENABLE, volatile.ph_enable)
        .with(TpmaStartupClear::SH_ENABLE, volatile.state_clear.sh_enable)
        .with(TpmaStartupClear::EH_ENABLE, volatile.state_clear.eh_enable)
        .with(TpmaStartupClear::PH_ENABLE_NV, volatile.state_clear.ph_enable_nv)
        .with(TpmaStartupClear::READ_ONLY, volatile.state_clear.read_only)
        .with(TpmaStartupClear::ORDERLY, volatile.orderly)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::nv::testing::{INDEX, OPEN, define, public};
    use crate::testing::TestTpm;
    use vtpm_protocol::tpm::TpmHandle;

    #[test]
    fn properties_ascend_in_both_groups() {
        let mut tpm = TestTpm::started();
        assert!(fixed(&Limits::MOST, true).is_sorted_by(|a, b| a.0 < b.0));
        assert!(variable(tpm.state(), &Limits::MOST).is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn instance_commands_count_only_where_they_exist() {
        let value = |has, property| fixed(&Limits::MOST, has).iter().find(|p| p.0 == property).unwrap().1;
        assert_eq!(value(false, TpmPt::VENDOR_COMMANDS), 0);
        assert_eq!(value(false, TpmPt::TOTAL_COMMANDS), value(true, TpmPt::LIBRARY_COMMANDS));
        assert_eq!(number(table::COMMANDS.len()), value(true, TpmPt::TOTAL_COMMANDS));
    }

    #[test]
    fn what_the_host_limits_is_told_as_it_is() {
        let mut tpm = TestTpm::started();
        define(&mut tpm, TpmHandle::OWNER, b"", public(INDEX, OPEN, 8)).unwrap();
        let limits = Limits { nv_indices: 1, persistent_objects: 7, active_sessions: 9, ..Limits::MOST };
        let all = [fixed(&limits, false), variable(tpm.state(), &limits)].concat();
        let value = |property| all.iter().find(|p| p.0 == property).unwrap().1;
        assert_eq!((value(TpmPt::ACTIVE_SESSIONS_MAX), value(TpmPt::HR_ACTIVE_AVAIL)), (9, 9));
        assert_eq!((value(TpmPt::HR_PERSISTENT_MIN), value(TpmPt::HR_PERSISTENT_AVAIL)), (7, 7));
        assert_eq!(value(TpmPt::NV_COUNTERS_AVAIL), 0);
    }

    #[test]
    fn the_counter_estimate_is_the_size_of_a_counter() {
        let mut tpm = TestTpm::started();
        define(&mut tpm, TpmHandle::OWNER, b"", public(INDEX, OPEN.with_nt(TpmNt::Counter), 8)).unwrap();
        assert_eq!(nv::size(tpm.state().nv_index(INDEX).unwrap()), COUNTER_SIZE);
        let values = variable(tpm.state(), &Limits::MOST);
        let value = |property| values.iter().find(|p| p.0 == property).unwrap().1;
        assert_eq!((value(TpmPt::NV_COUNTERS), value(TpmPt::HR_NV_INDEX)), (1, 1));
        assert_eq!(value(TpmPt::NV_COUNTERS_AVAIL), 1023);
    }
}
