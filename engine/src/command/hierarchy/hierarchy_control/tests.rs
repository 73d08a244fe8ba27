//! Who may enable and disable what, and what becomes of what belongs to it.

use crate::command::nv::testing::{INDEX, OPEN, define, public};
use crate::testing::TestTpm;
use crate::testing::objects::{create_primary, ecc_storage_key};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{TpmCc, TpmHandle, TpmSu, TpmaNv};

const OWNER: TpmHandle = TpmHandle::OWNER;
const ENDORSEMENT: TpmHandle = TpmHandle::ENDORSEMENT;
const PLATFORM: TpmHandle = TpmHandle::PLATFORM;
const PLATFORM_NV: TpmHandle = TpmHandle::PLATFORM_NV;

fn control(tpm: &mut TestTpm, by: TpmHandle, which: TpmHandle, on: bool) -> Result<(), ResponseCode> {
    tpm.run_with(TpmCc::HIERARCHY_CONTROL, &[by], &[b""], &(which, on)).map(drop)
}

#[test]
fn a_hierarchy_disables_itself_and_the_platform_everything() {
    for by in [OWNER, ENDORSEMENT, PLATFORM] {
        for which in [OWNER, ENDORSEMENT, PLATFORM, PLATFORM_NV] {
            let allowed = by == PLATFORM || by == which;
            let mut tpm = TestTpm::started();
            let expected = if allowed { Ok(()) } else { Err(ResponseCode::AUTH_TYPE) };
            assert_eq!(control(&mut tpm, by, which, false), expected, "{by:?} {which:?}");
            // Also where it would change nothing.
            let mut tpm = TestTpm::started();
            assert_eq!(control(&mut tpm, by, which, true), expected, "{by:?} {which:?}");
        }
    }
}

#[test]
fn only_the_platform_enables_again_and_the_platform_only_a_boot() {
    let mut tpm = TestTpm::started();
    for which in [OWNER, ENDORSEMENT] {
        control(&mut tpm, which, which, false).unwrap();
        assert_eq!(control(&mut tpm, which, which, true), Err(ResponseCode::HIERARCHY.handle(1)));
        assert!(!tpm.state().hierarchy_enabled(which));
        control(&mut tpm, PLATFORM, which, true).unwrap();
        assert!(tpm.state().hierarchy_enabled(which));
    }
    control(&mut tpm, PLATFORM, PLATFORM, false).unwrap();
    assert_eq!(control(&mut tpm, PLATFORM, PLATFORM, true), Err(ResponseCode::HIERARCHY.handle(1)));
    // A Resume keeps what is disabled, but for the platform itself.
    control(&mut tpm, OWNER, OWNER, false).unwrap();
    tpm.run(TpmCc::SHUTDOWN, &[], &TpmSu::STATE).unwrap();
    tpm.init();
    tpm.run(TpmCc::STARTUP, &[], &TpmSu::STATE).unwrap();
    assert!(tpm.state().hierarchy_enabled(PLATFORM) && !tpm.state().hierarchy_enabled(OWNER));
    tpm.run(TpmCc::SHUTDOWN, &[], &TpmSu::STATE).unwrap();
    tpm.init();
    tpm.run(TpmCc::STARTUP, &[], &TpmSu::CLEAR).unwrap();
    assert!(tpm.state().hierarchy_enabled(OWNER));
}

#[test]
fn objects_in_memory_go_and_persistent_ones_come_back_with_the_hierarchy() {
    for (hierarchy, by, at) in
        [(OWNER, OWNER, 0x8100_0001), (ENDORSEMENT, OWNER, 0x8101_0001), (PLATFORM, PLATFORM, 0x8180_0001)]
    {
        let mut tpm = TestTpm::started();
        let key = create_primary(&mut tpm, hierarchy, ecc_storage_key()).unwrap().handle;
        let other = create_primary(&mut tpm, TpmHandle::NULL, ecc_storage_key()).unwrap().handle;
        tpm.run_with(TpmCc::EVICT_CONTROL, &[by, key], &[b""], &TpmHandle(at)).unwrap();
        control(&mut tpm, PLATFORM, hierarchy, false).unwrap();
        let read = |tpm: &mut TestTpm, handle| tpm.run(TpmCc::READ_PUBLIC, &[handle], &()).map(drop);
        assert_eq!(read(&mut tpm, key), Err(ResponseCode::REFERENCE_H0));
        assert_eq!(read(&mut tpm, other), Ok(()));
        assert_eq!(read(&mut tpm, TpmHandle(at)), Err(ResponseCode::HANDLE.handle(1)));
        let refused = create_primary(&mut tpm, hierarchy, ecc_storage_key()).map(drop);
        assert_eq!(refused, Err(ResponseCode::HIERARCHY.handle(1)));
        if hierarchy != PLATFORM {
            control(&mut tpm, PLATFORM, hierarchy, true).unwrap();
            assert_eq!(read(&mut tpm, TpmHandle(at)), Ok(()));
        }
    }
}

#[test]
fn indices_of_owner_and_platform_are_out_of_reach_each_for_its_own_switch() {
    let mut tpm = TestTpm::started();
    let platforms = TpmHandle(INDEX.0 + 1);
    define(&mut tpm, OWNER, b"", public(INDEX, OPEN, 8)).unwrap();
    define(&mut tpm, PLATFORM, b"", public(platforms, OPEN | TpmaNv::PLATFORM_CREATE, 8)).unwrap();
    let there = |tpm: &mut TestTpm, which, on| {
        control(tpm, PLATFORM, which, on).unwrap();
        [INDEX, platforms].map(|index| tpm.run(TpmCc::NV_READ_PUBLIC, &[index], &()).is_ok())
    };
    assert_eq!(there(&mut tpm, PLATFORM_NV, false), [true, false]);
    assert_eq!(there(&mut tpm, OWNER, false), [false, false]);
    assert_eq!(there(&mut tpm, PLATFORM_NV, true), [false, true]);
    assert_eq!(there(&mut tpm, OWNER, true), [true, true]);
    assert_eq!(there(&mut tpm, PLATFORM, false), [true, true]);
}

#[test]
fn a_change_voids_a_shutdown() {
    let mut tpm = TestTpm::started();
    for (on, voided) in [(true, false), (false, true)] {
        tpm.run(TpmCc::SHUTDOWN, &[], &TpmSu::STATE).unwrap();
        control(&mut tpm, PLATFORM, OWNER, on).unwrap();
        tpm.init();
        let resumed = tpm.run(TpmCc::STARTUP, &[], &TpmSu::STATE);
        assert_eq!(resumed.is_err(), voided);
    }
}

#[test]
fn what_is_no_switch_is_refused() {
    let mut tpm = TestTpm::started();
    for which in [TpmHandle::NULL, TpmHandle::LOCKOUT, TpmHandle(0x4000_0000)] {
        assert_eq!(control(&mut tpm, PLATFORM, which, false), Err(ResponseCode::VALUE.parameter(1)));
    }
    let rc = tpm.run_with(TpmCc::HIERARCHY_CONTROL, &[PLATFORM], &[b""], &(OWNER, 2u8)).unwrap_err();
    assert_eq!(rc, ResponseCode::VALUE.parameter(2));
    assert_eq!(control(&mut tpm, TpmHandle::LOCKOUT, OWNER, false), Err(ResponseCode::VALUE.handle(1)));
}
