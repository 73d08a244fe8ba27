use crate::env::Limits;
use crate::testing::TestTpm;
use crate::testing::objects::*;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::*;

const OWNERS: TpmHandle = TpmHandle(0x8100_0001);
const PLATFORMS: TpmHandle = TpmHandle(0x8180_0001);

fn evict(
    tpm: &mut TestTpm,
    auth: TpmHandle,
    object: TpmHandle,
    persistent: TpmHandle,
) -> Result<(), ResponseCode> {
    tpm.run_with(TpmCc::EVICT_CONTROL, &[auth, object], &[b""], &persistent).map(|_| ())
}

fn key(tpm: &mut TestTpm, hierarchy: TpmHandle) -> TpmHandle {
    create_primary(tpm, hierarchy, ecc_storage_key()).unwrap().handle
}

#[test]
fn a_persistent_object_survives_a_reset_until_it_is_removed() {
    let mut tpm = TestTpm::started();
    let transient = key(&mut tpm, TpmHandle::OWNER);
    assert_eq!(evict(&mut tpm, TpmHandle::OWNER, transient, OWNERS), Ok(()));
    let public = tpm.run(TpmCc::READ_PUBLIC, &[transient], &()).unwrap();
    tpm.init();
    tpm.run(TpmCc::STARTUP, &[], &TpmSu::CLEAR).unwrap();
    assert_eq!(tpm.run(TpmCc::READ_PUBLIC, &[transient], &()), Err(ResponseCode::REFERENCE_H0));
    assert_eq!(tpm.run(TpmCc::READ_PUBLIC, &[OWNERS], &()), Ok(public));
    let child = create(&mut tpm, OWNERS, sealed_data(), b"", b"data").unwrap();
    assert!(load(&mut tpm, OWNERS, &child).is_ok());
    assert_eq!(evict(&mut tpm, TpmHandle::OWNER, OWNERS, OWNERS), Ok(()));
    assert_eq!(tpm.run(TpmCc::READ_PUBLIC, &[OWNERS], &()), Err(ResponseCode::HANDLE.handle(1)));
}

#[test]
fn a_handle_is_taken_once() {
    let mut tpm = TestTpm::started();
    let transient = key(&mut tpm, TpmHandle::OWNER);
    assert_eq!(evict(&mut tpm, TpmHandle::OWNER, transient, OWNERS), Ok(()));
    assert_eq!(evict(&mut tpm, TpmHandle::OWNER, transient, OWNERS), Err(ResponseCode::NV_DEFINED));
    let other = TpmHandle(0x8100_0002);
    assert_eq!(evict(&mut tpm, TpmHandle::OWNER, OWNERS, other), Err(ResponseCode::HANDLE.handle(2)));
    assert_eq!(evict(&mut tpm, TpmHandle::OWNER, transient, other), Ok(()));
}

#[test]
fn owner_and_platform_have_their_own_objects_and_handles() {
    let mut tpm = TestTpm::started();
    let (owner, platform) = (TpmHandle::OWNER, TpmHandle::PLATFORM);
    let owners = key(&mut tpm, owner);
    let endorsement = key(&mut tpm, TpmHandle::ENDORSEMENT);
    let platforms = key(&mut tpm, platform);
    let foreign = Err(ResponseCode::HIERARCHY.handle(2));
    let range = Err(ResponseCode::RANGE.parameter(1));
    assert_eq!(evict(&mut tpm, owner, platforms, OWNERS), foreign);
    assert_eq!(evict(&mut tpm, platform, owners, PLATFORMS), foreign);
    assert_eq!(evict(&mut tpm, platform, endorsement, PLATFORMS), foreign);
    assert_eq!(evict(&mut tpm, owner, owners, PLATFORMS), range);
    assert_eq!(evict(&mut tpm, platform, platforms, OWNERS), range);
    assert_eq!(
        evict(&mut tpm, TpmHandle::ENDORSEMENT, endorsement, OWNERS),
        Err(ResponseCode::VALUE.handle(1))
    );
    assert_eq!(evict(&mut tpm, owner, endorsement, OWNERS), Ok(()));
    assert_eq!(evict(&mut tpm, platform, platforms, PLATFORMS), Ok(()));
    // The platform removes everything, the owner only what is not the platform's.
    assert_eq!(evict(&mut tpm, owner, PLATFORMS, PLATFORMS), foreign);
    assert_eq!(evict(&mut tpm, platform, OWNERS, OWNERS), Ok(()));
    assert_eq!(evict(&mut tpm, platform, PLATFORMS, PLATFORMS), Ok(()));
}

#[test]
fn what_ends_earlier_does_not_become_persistent() {
    let mut tpm = TestTpm::started();
    let wrong = Err(ResponseCode::ATTRIBUTES.handle(2));
    let temporary = key(&mut tpm, TpmHandle::NULL);
    assert_eq!(evict(&mut tpm, TpmHandle::OWNER, temporary, OWNERS), wrong);
    let template = with(ecc_storage_key(), TpmaObject::ST_CLEAR);
    let primary = create_primary(&mut tpm, TpmHandle::OWNER, template).unwrap();
    assert_eq!(evict(&mut tpm, TpmHandle::OWNER, primary.handle, OWNERS), wrong);
    let child = create(&mut tpm, primary.handle, ecc_signing_key(), b"", b"").unwrap();
    flush(&mut tpm, temporary);
    let child = load(&mut tpm, primary.handle, &child).unwrap();
    assert_eq!(evict(&mut tpm, TpmHandle::OWNER, child, OWNERS), wrong);
    let public = load_external(&mut tpm, None, &primary.public, TpmHandle::OWNER).unwrap();
    assert_eq!(evict(&mut tpm, TpmHandle::OWNER, public, OWNERS), wrong);
}

#[test]
fn parameter_and_authorization_are_checked() {
    let mut tpm = TestTpm::started();
    let transient = key(&mut tpm, TpmHandle::OWNER);
    let rc = evict(&mut tpm, TpmHandle::OWNER, transient, TpmHandle(0x8000_0000));
    assert_eq!(rc, Err(ResponseCode::VALUE.parameter(1)));
    let handles = [TpmHandle::OWNER, transient];
    assert_eq!(tpm.run(TpmCc::EVICT_CONTROL, &handles, &OWNERS), Err(ResponseCode::AUTH_MISSING));
    let rc = tpm.run_with(TpmCc::EVICT_CONTROL, &handles, &[b"guess"], &OWNERS);
    assert_eq!(rc, Err(ResponseCode::BAD_AUTH.session(1)));
}

#[test]
fn there_is_room_for_so_many() {
    let mut tpm = TestTpm::started();
    let transient = key(&mut tpm, TpmHandle::OWNER);
    let max = u32::try_from(crate::state::MAX_PERSISTENT_OBJECTS).unwrap();
    let mut n = 0;
    // A host may leave less room, and more later.
    for most in [2, max] {
        tpm.env.limits = Some(Limits { persistent_objects: usize::try_from(most).unwrap(), ..Limits::MOST });
        while n < most {
            assert_eq!(evict(&mut tpm, TpmHandle::OWNER, transient, TpmHandle(0x8100_0000 + n)), Ok(()));
            n += 1;
        }
        let one_more = TpmHandle(0x8100_0000 + n);
        assert_eq!(evict(&mut tpm, TpmHandle::OWNER, transient, one_more), Err(ResponseCode::NV_SPACE));
    }
}

#[test]
fn objects_of_a_disabled_hierarchy_are_not_seen_but_the_owner_removes_those_of_the_endorsement_hierarchy() {
    let mut tpm = TestTpm::started();
    let (owner, read) = (TpmHandle::OWNER, TpmCc::READ_PUBLIC);
    let other = TpmHandle(0x8100_0002);
    for (hierarchy, persistent) in [(owner, OWNERS), (TpmHandle::ENDORSEMENT, other)] {
        let object = key(&mut tpm, hierarchy);
        evict(&mut tpm, owner, object, persistent).unwrap();
    }
    let missing = ResponseCode::HANDLE;
    tpm.state().volatile_mut().state_clear.eh_enable = false;
    tpm.resave();
    assert!(tpm.run(read, &[OWNERS], &()).is_ok());
    assert_eq!(tpm.run(read, &[other], &()), Err(missing.handle(1)));
    // A handle of the owner's range goes with the owner's hierarchy, whatever the object's own is.
    let state = &mut tpm.state().volatile_mut().state_clear;
    (state.sh_enable, state.eh_enable) = (false, true);
    tpm.resave();
    for handle in [OWNERS, other] {
        assert_eq!(tpm.run(read, &[handle], &()), Err(missing.handle(1)));
        assert_eq!(evict(&mut tpm, TpmHandle::PLATFORM, handle, handle), Err(missing.handle(2)));
    }
    let state = &mut tpm.state().volatile_mut().state_clear;
    (state.sh_enable, state.eh_enable) = (true, false);
    tpm.resave();
    assert_eq!(evict(&mut tpm, owner, other, other), Ok(()));
}
