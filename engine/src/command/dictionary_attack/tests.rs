//! Counting, forgetting, and what clocks and boots have to do with it.

use crate::testing::TestTpm;
use crate::testing::objects::{create_primary, create_primary_with, ecc_storage_key, hmac_key};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{
    Tpm2bDigest, TpmAlgId, TpmCap, TpmCc, TpmHandle, TpmPt, TpmSt, TpmSu, TpmaPermanent, TpmtTk,
};

const LOCKOUT: TpmHandle = TpmHandle::LOCKOUT;
const OWNER: TpmHandle = TpmHandle::OWNER;
const AUTH_FAIL: Result<(), ResponseCode> = Err(ResponseCode::AUTH_FAIL.session(1));
const LOCKED: Result<(), ResponseCode> = Err(ResponseCode::LOCKOUT);

/// A key that is protected, with the password `pw`.
fn key(tpm: &mut TestTpm) -> TpmHandle {
    create_primary_with(tpm, OWNER, hmac_key(), b"pw", b"").unwrap().handle
}

fn sign(tpm: &mut TestTpm, key: TpmHandle, password: &[u8]) -> Result<(), ResponseCode> {
    let digest = Tpm2bDigest::new([1; 32]).unwrap();
    let input = (digest, TpmAlgId::NULL, TpmtTk::null(TpmSt::HASHCHECK));
    tpm.run_with(TpmCc::SIGN, &[key], &[password], &input).map(drop)
}

fn parameters(
    tpm: &mut TestTpm,
    by: TpmHandle,
    max: u32,
    recovery: u32,
    lockout: u32,
) -> Result<(), ResponseCode> {
    let input = (max, recovery, lockout);
    tpm.run_with(TpmCc::DICTIONARY_ATTACK_PARAMETERS, &[by], &[b""], &input).map(drop)
}

fn reset(tpm: &mut TestTpm, password: &[u8]) -> Result<(), ResponseCode> {
    tpm.run_with(TpmCc::DICTIONARY_ATTACK_LOCK_RESET, &[LOCKOUT], &[password], &()).map(drop)
}

fn property(tpm: &mut TestTpm, which: TpmPt) -> u32 {
    let out = tpm.run(TpmCc::GET_CAPABILITY, &[], &(TpmCap::TPM_PROPERTIES, which, 1u32)).unwrap();
    u32::from_be_bytes(out[out.len() - 4..].try_into().unwrap())
}

fn failures(tpm: &mut TestTpm) -> u32 {
    property(tpm, TpmPt::LOCKOUT_COUNTER)
}

fn is_locked_out(tpm: &mut TestTpm) -> bool {
    TpmaPermanent(property(tpm, TpmPt::PERMANENT)).has(TpmaPermanent::IN_LOCKOUT)
}

fn boot(tpm: &mut TestTpm, shutdown: Option<TpmSu>) {
    if let Some(kind) = shutdown {
        tpm.run(TpmCc::SHUTDOWN, &[], &kind).unwrap();
    }
    tpm.init();
    tpm.run(TpmCc::STARTUP, &[], &TpmSu::CLEAR).unwrap();
}

#[test]
fn the_parameters_are_told_last_and_rule() {
    let mut tpm = TestTpm::started();
    parameters(&mut tpm, LOCKOUT, 2, 10, 20).unwrap();
    boot(&mut tpm, Some(TpmSu::CLEAR));
    let told = [TpmPt::MAX_AUTH_FAIL, TpmPt::LOCKOUT_INTERVAL, TpmPt::LOCKOUT_RECOVERY];
    assert_eq!(told.map(|p| property(&mut tpm, p)), [2, 10, 20]);
    let key = key(&mut tpm);
    assert_eq!(sign(&mut tpm, key, b"x"), AUTH_FAIL);
    assert!(!is_locked_out(&mut tpm));
    assert_eq!(sign(&mut tpm, key, b"x"), AUTH_FAIL);
    assert!(is_locked_out(&mut tpm));
    assert_eq!(sign(&mut tpm, key, b"pw"), LOCKED);
    // The failures stay when the limit moves, and forgetting follows it.
    parameters(&mut tpm, LOCKOUT, 3, 10, 20).unwrap();
    assert_eq!((failures(&mut tpm), sign(&mut tpm, key, b"pw")), (2, Ok(())));
    parameters(&mut tpm, LOCKOUT, 1, 10, 20).unwrap();
    assert_eq!((failures(&mut tpm), sign(&mut tpm, key, b"pw")), (2, LOCKED));
    tpm.env.now += 20_000;
    assert_eq!((failures(&mut tpm), sign(&mut tpm, key, b"pw")), (0, Ok(())));
}

#[test]
fn a_reset_forgets_all_failures() {
    let mut tpm = TestTpm::started();
    parameters(&mut tpm, LOCKOUT, 1, 1000, 1000).unwrap();
    let key = key(&mut tpm);
    assert_eq!(sign(&mut tpm, key, b"x"), AUTH_FAIL);
    reset(&mut tpm, b"").unwrap();
    assert_eq!((failures(&mut tpm), sign(&mut tpm, key, b"pw")), (0, Ok(())));
}

#[test]
fn no_tries_are_a_lockout_and_no_recovery_time_is_no_counting() {
    let mut tpm = TestTpm::started();
    let key = key(&mut tpm);
    parameters(&mut tpm, LOCKOUT, 0, 1000, 1000).unwrap();
    assert!(is_locked_out(&mut tpm));
    assert_eq!(sign(&mut tpm, key, b"pw"), LOCKED);
    // What is not protected, and lockoutAuth itself, go on.
    create_primary(&mut tpm, OWNER, ecc_storage_key()).unwrap();
    parameters(&mut tpm, LOCKOUT, 1, 1000, 1000).unwrap();
    assert_eq!(sign(&mut tpm, key, b"x"), AUTH_FAIL);
    parameters(&mut tpm, LOCKOUT, 1, 0, 1000).unwrap();
    assert_eq!(failures(&mut tpm), 0);
    for _ in 0..3 {
        assert_eq!(sign(&mut tpm, key, b"x"), AUTH_FAIL);
    }
    assert_eq!((failures(&mut tpm), sign(&mut tpm, key, b"pw")), (0, Ok(())));
}

#[test]
fn a_wrong_lockout_auth_ends_its_use_for_the_recovery_time() {
    let mut tpm = TestTpm::started();
    parameters(&mut tpm, LOCKOUT, 3, 1000, 10).unwrap();
    assert_eq!(reset(&mut tpm, b"x"), AUTH_FAIL);
    assert_eq!(reset(&mut tpm, b""), LOCKED);
    assert_eq!(failures(&mut tpm), 0);
    tpm.env.now += 9_999;
    assert_eq!(parameters(&mut tpm, LOCKOUT, 3, 1000, 10), LOCKED);
    tpm.env.now += 1;
    reset(&mut tpm, b"").unwrap();
    // Without a recovery time it takes a boot.
    parameters(&mut tpm, LOCKOUT, 3, 1000, 0).unwrap();
    assert_eq!(reset(&mut tpm, b"x"), AUTH_FAIL);
    tpm.env.now += 1_000_000_000;
    assert_eq!(reset(&mut tpm, b""), LOCKED);
    boot(&mut tpm, Some(TpmSu::CLEAR));
    reset(&mut tpm, b"").unwrap();
}

#[test]
fn setting_clock_passes_no_time() {
    let mut tpm = TestTpm::started();
    parameters(&mut tpm, LOCKOUT, 1, 10, 10).unwrap();
    let key = key(&mut tpm);
    assert_eq!(sign(&mut tpm, key, b"x"), AUTH_FAIL);
    assert_eq!(reset(&mut tpm, b"x"), AUTH_FAIL);
    tpm.env.now += 9_000;
    tpm.run_with(TpmCc::CLOCK_SET, &[OWNER], &[b""], &1_000_000_000u64).unwrap();
    assert_eq!((sign(&mut tpm, key, b"pw"), reset(&mut tpm, b"")), (LOCKED, LOCKED));
    tpm.env.now += 1_000;
    assert_eq!((sign(&mut tpm, key, b"pw"), reset(&mut tpm, b"")), (Ok(()), Ok(())));
}

#[test]
fn a_boot_that_used_something_protected_and_was_not_shut_down_counts() {
    for (used, shutdown, expected) in [
        (true, None, 1),
        (true, Some(TpmSu::CLEAR), 0),
        (true, Some(TpmSu::STATE), 0),
        (false, None, 0),
        (false, Some(TpmSu::CLEAR), 0),
    ] {
        let mut tpm = TestTpm::started();
        let key = key(&mut tpm);
        if used {
            sign(&mut tpm, key, b"pw").unwrap();
        }
        boot(&mut tpm, shutdown);
        assert_eq!(failures(&mut tpm), expected, "{used} {shutdown:?}");
        // Once.
        boot(&mut tpm, None);
        assert_eq!(failures(&mut tpm), expected);
    }
    // Clear forgets failures, but not that there was a use.
    let mut tpm = TestTpm::started();
    let key = key(&mut tpm);
    sign(&mut tpm, key, b"pw").unwrap();
    tpm.run_with(TpmCc::CLEAR, &[LOCKOUT], &[b""], &()).unwrap();
    boot(&mut tpm, None);
    assert_eq!(failures(&mut tpm), 1);
    // A use after the Shutdown makes it void.
    let mut tpm = TestTpm::started();
    let key = self::key(&mut tpm);
    tpm.run(TpmCc::SHUTDOWN, &[], &TpmSu::STATE).unwrap();
    sign(&mut tpm, key, b"pw").unwrap();
    boot(&mut tpm, None);
    assert_eq!(failures(&mut tpm), 1);
}

#[test]
fn such_a_boot_does_not_count_beyond_the_limit_nor_without_counting() {
    for (max, recovery, expected) in [(1, 1000, 1), (3, 1000, 2), (3, 0, 0)] {
        let mut tpm = TestTpm::started();
        parameters(&mut tpm, LOCKOUT, max, recovery, 1000).unwrap();
        let key = key(&mut tpm);
        assert_eq!(sign(&mut tpm, key, b"x"), AUTH_FAIL);
        boot(&mut tpm, None);
        assert_eq!(failures(&mut tpm), expected, "{max} {recovery}");
    }
}

#[test]
fn time_to_forget_goes_on_over_a_shutdown_and_begins_anew_without() {
    for (shutdown, expected) in [(Some(TpmSu::CLEAR), 0), (None, 2)] {
        let mut tpm = TestTpm::started();
        parameters(&mut tpm, LOCKOUT, 5, 10, 10).unwrap();
        let key = key(&mut tpm);
        assert_eq!(sign(&mut tpm, key, b"x"), AUTH_FAIL);
        assert_eq!(reset(&mut tpm, b"x"), AUTH_FAIL);
        tpm.env.now += 6_000;
        boot(&mut tpm, shutdown);
        tpm.env.now += 6_000;
        assert_eq!(failures(&mut tpm), expected);
        assert_eq!(reset(&mut tpm, b""), if shutdown.is_some() { Ok(()) } else { LOCKED });
    }
}

#[test]
fn they_are_for_the_lockout() {
    let mut tpm = TestTpm::started();
    for by in [OWNER, TpmHandle::PLATFORM, TpmHandle::NULL] {
        assert_eq!(parameters(&mut tpm, by, 1, 1, 1), Err(ResponseCode::VALUE.handle(1)));
        let rc = tpm.run_with(TpmCc::DICTIONARY_ATTACK_LOCK_RESET, &[by], &[b""], &()).unwrap_err();
        assert_eq!(rc, ResponseCode::VALUE.handle(1));
    }
    let unauthorized = tpm.run(TpmCc::DICTIONARY_ATTACK_LOCK_RESET, &[LOCKOUT], &());
    assert_eq!(unauthorized, Err(ResponseCode::AUTH_MISSING));
}
