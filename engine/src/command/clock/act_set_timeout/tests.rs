use crate::state::CLOCK_NOMINAL;
use crate::testing::TestTpm;
use crate::testing::objects::{run_with_policy, start_policy};
use vtpm_protocol::codec::{Encode, decode_exact};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{
    ACT_STOPPED, Tpm2bAuth, Tpm2bDigest, TpmAlgId, TpmCap, TpmCc, TpmHandle, TpmSe, TpmSu, TpmaAct, Tpml,
    TpmsActData,
};

const ACT: TpmHandle = TpmHandle::ACT_0;
const QUIET: TpmaAct = TpmaAct(0);
const SIGNALED: TpmaAct = TpmaAct::SIGNALED;
const PRESERVED: TpmaAct = TpmaAct::PRESERVE_SIGNALED;
const BOTH: TpmaAct = TpmaAct(SIGNALED.0 | PRESERVED.0);

fn set(tpm: &mut TestTpm, timeout: u32) -> Result<(), ResponseCode> {
    tpm.run_with(TpmCc::ACT_SET_TIMEOUT, &[ACT], &[b""], &timeout).map(drop)
}

/// What `TPM2_GetCapability` tells.
fn read(tpm: &mut TestTpm) -> (u32, TpmaAct) {
    let out = tpm.run(TpmCc::GET_CAPABILITY, &[], &(TpmCap::ACT, ACT, 1u32)).unwrap();
    // After moreData and the capability.
    let list: Tpml<TpmsActData, 1> = decode_exact(&out[5..]).unwrap();
    assert_eq!((out[0], list.0[0].handle), (0, ACT));
    (list.0[0].timeout, list.0[0].attributes)
}

/// A timer of so many seconds has expired, and nobody has noticed yet.
fn expired(seconds: u32) -> TestTpm {
    let mut tpm = TestTpm::started();
    set(&mut tpm, seconds).unwrap();
    tpm.env.now += u64::from(seconds) * 1000;
    tpm
}

fn boot(tpm: &mut TestTpm, shutdown: Option<TpmSu>, startup: TpmSu) {
    if let Some(shutdown) = shutdown {
        tpm.run(TpmCc::SHUTDOWN, &[], &shutdown).unwrap();
    }
    tpm.init();
    tpm.run(TpmCc::STARTUP, &[], &startup).unwrap();
}

fn resume(tpm: &mut TestTpm) {
    boot(tpm, Some(TpmSu::STATE), TpmSu::STATE);
}

fn host_sees(tpm: &mut TestTpm) -> bool {
    tpm.tpm.act_signaled(tpm.env.now)
}

#[test]
fn it_counts_seconds_down_and_signals_when_they_are_over() {
    let mut tpm = TestTpm::started();
    assert_eq!(read(&mut tpm), (0, QUIET));
    tpm.env.now += 100_000;
    assert_eq!(read(&mut tpm), (0, QUIET));
    set(&mut tpm, 3).unwrap();
    for (after, left) in [(0, 3), (999, 3), (1, 2), (999, 2), (1, 1), (999, 1)] {
        tpm.env.now += after;
        assert_eq!((read(&mut tpm), host_sees(&mut tpm)), ((left, QUIET), false));
    }
    tpm.env.now += 1;
    assert_eq!((host_sees(&mut tpm), read(&mut tpm)), (true, (0, SIGNALED)));
    tpm.env.now += 1 << 40;
    assert_eq!((host_sees(&mut tpm), read(&mut tpm)), (true, (0, SIGNALED)));
}

#[test]
fn nothing_is_written_while_it_counts_and_its_end_once() {
    let mut tpm = TestTpm::started();
    set(&mut tpm, 10).unwrap();
    let commits = tpm.env.commits;
    for _ in 0..9 {
        tpm.env.now += 1000;
        read(&mut tpm);
        assert!(!host_sees(&mut tpm));
    }
    assert_eq!(tpm.env.commits, commits);
    tpm.env.now += 1000;
    assert!(host_sees(&mut tpm));
    for _ in 0..3 {
        read(&mut tpm);
        assert_eq!(tpm.env.commits, commits + 1);
    }
}

/// Part 3, 33.2: what was left, what is set, and the signal before and after.
#[test]
fn a_new_timeout_takes_the_signal_back_and_none_brings_it() {
    // Zero, zero: as it was.
    let mut tpm = TestTpm::started();
    set(&mut tpm, 0).unwrap();
    assert_eq!(read(&mut tpm), (0, QUIET));
    // Zero, other.
    set(&mut tpm, 10).unwrap();
    assert_eq!(read(&mut tpm), (10, QUIET));
    // Other, other: from there on.
    tpm.env.now += 4500;
    set(&mut tpm, 7).unwrap();
    assert_eq!(read(&mut tpm), (7, QUIET));
    tpm.env.now += 6999;
    assert_eq!(read(&mut tpm), (1, QUIET));
    // Other, zero: at once.
    set(&mut tpm, 0).unwrap();
    assert_eq!((host_sees(&mut tpm), read(&mut tpm)), (true, (0, SIGNALED)));
    // Zero, zero with a signal.
    set(&mut tpm, 0).unwrap();
    assert_eq!(read(&mut tpm), (0, SIGNALED));
    set(&mut tpm, 1).unwrap();
    assert_eq!((host_sees(&mut tpm), read(&mut tpm)), (false, (1, QUIET)));
    // Expired is zero.
    tpm.env.now += 1000;
    set(&mut tpm, 0).unwrap();
    assert_eq!(read(&mut tpm), (0, SIGNALED));
    // What is set in one go one after the other is never too early.
    for timeout in (1..100).rev() {
        set(&mut tpm, timeout).unwrap();
    }
    assert_eq!(read(&mut tpm), (1, QUIET));
}

#[test]
fn the_longest_timeout_takes_the_signal_back_and_needs_one() {
    let mut tpm = TestTpm::started();
    let refused = Err(ResponseCode::VALUE.parameter(1));
    assert_eq!(set(&mut tpm, ACT_STOPPED), refused);
    set(&mut tpm, ACT_STOPPED - 1).unwrap();
    assert_eq!(set(&mut tpm, ACT_STOPPED), refused);
    assert_eq!(read(&mut tpm), (ACT_STOPPED - 1, QUIET));
    tpm.env.now += u64::from(ACT_STOPPED - 1) * 1000;
    set(&mut tpm, ACT_STOPPED).unwrap();
    assert_eq!((host_sees(&mut tpm), read(&mut tpm)), (false, (ACT_STOPPED, QUIET)));
    // It stands.
    tpm.env.now += 1 << 50;
    assert_eq!((host_sees(&mut tpm), read(&mut tpm)), (false, (ACT_STOPPED, QUIET)));
    assert_eq!(set(&mut tpm, ACT_STOPPED), refused);
    set(&mut tpm, 0).unwrap();
    assert_eq!(read(&mut tpm), (0, SIGNALED));
}

#[test]
fn a_reset_and_a_restart_end_it_without_a_signal() {
    for shutdown in [None, Some(TpmSu::CLEAR), Some(TpmSu::STATE)] {
        let mut tpm = TestTpm::started();
        set(&mut tpm, 10).unwrap();
        let policy = (Tpm2bDigest::new([7; 32]).unwrap(), TpmAlgId::SHA256);
        tpm.run_with(TpmCc::SET_PRIMARY_POLICY, &[ACT], &[b""], &policy).unwrap();
        boot(&mut tpm, shutdown, TpmSu::CLEAR);
        assert_eq!(read(&mut tpm), (0, QUIET), "{shutdown:?}");
        assert_eq!(tpm.state().policy(ACT).unwrap().alg, TpmAlgId::NULL);
        tpm.env.now += 100_000;
        assert_eq!((read(&mut tpm), host_sees(&mut tpm)), ((0, QUIET), false));
    }
}

#[test]
fn a_signal_shows_after_the_boots_that_follow_until_it_is_set_again() {
    for shutdown in [None, Some(TpmSu::CLEAR), Some(TpmSu::STATE)] {
        let mut tpm = expired(10);
        assert_eq!(read(&mut tpm), (0, SIGNALED));
        for _ in 0..2 {
            boot(&mut tpm, shutdown, TpmSu::CLEAR);
            assert_eq!((read(&mut tpm), host_sees(&mut tpm)), ((0, PRESERVED), false));
        }
        set(&mut tpm, 5).unwrap();
        assert_eq!(read(&mut tpm), (5, QUIET));
        boot(&mut tpm, shutdown, TpmSu::CLEAR);
        assert_eq!(read(&mut tpm), (0, QUIET));
    }
    let mut tpm = expired(10);
    for _ in 0..2 {
        resume(&mut tpm);
        assert_eq!((read(&mut tpm), host_sees(&mut tpm)), ((0, BOTH), true));
    }
    // Zero, zero: the signal is as it was, and is one of this boot.
    set(&mut tpm, 0).unwrap();
    assert_eq!(read(&mut tpm), (0, SIGNALED));
    set(&mut tpm, ACT_STOPPED).unwrap();
    resume(&mut tpm);
    assert_eq!(read(&mut tpm), (ACT_STOPPED, QUIET));
}

#[test]
fn a_resume_goes_on_with_all_that_was_left_or_with_half() {
    let mut tpm = TestTpm::started();
    let policy = (Tpm2bDigest::new([7; 32]).unwrap(), TpmAlgId::SHA256);
    tpm.run_with(TpmCc::SET_PRIMARY_POLICY, &[ACT], &[b""], &policy).unwrap();
    set(&mut tpm, 110).unwrap();
    tpm.env.now += 9_500;
    tpm.run(TpmCc::SHUTDOWN, &[], &TpmSu::STATE).unwrap();
    // Neither what passes before the machine is off nor what passes while it is counts.
    tpm.env.now += 50_000;
    tpm.init();
    tpm.env.now += 50_000;
    assert!(!host_sees(&mut tpm));
    tpm.run(TpmCc::STARTUP, &[], &TpmSu::STATE).unwrap();
    assert_eq!(read(&mut tpm), (101, QUIET));
    assert_eq!(tpm.state().policy(ACT).unwrap().alg, TpmAlgId::SHA256);
    // Not set since.
    tpm.env.now += 1_000;
    for left in [50, 25, 12, 6, 3, 1, 1] {
        resume(&mut tpm);
        assert_eq!(read(&mut tpm), (left, QUIET));
    }
    tpm.env.now += 1_000;
    assert_eq!(read(&mut tpm), (0, SIGNALED));
    set(&mut tpm, 100).unwrap();
    resume(&mut tpm);
    assert_eq!(read(&mut tpm), (100, QUIET));
    // A Shutdown of which nothing came halves nothing.
    for _ in 0..2 {
        tpm.run(TpmCc::SHUTDOWN, &[], &TpmSu::STATE).unwrap();
        assert_eq!(read(&mut tpm), (100, QUIET));
    }
    boot(&mut tpm, None, TpmSu::STATE);
    assert_eq!(read(&mut tpm), (50, QUIET));
}

#[test]
fn one_that_expires_after_the_shutdown_is_remembered_and_goes_on() {
    let mut tpm = TestTpm::started();
    set(&mut tpm, 10).unwrap();
    tpm.run(TpmCc::SHUTDOWN, &[], &TpmSu::STATE).unwrap();
    tpm.env.now += 10_000;
    // That it has expired does not void the Shutdown.
    assert_eq!(read(&mut tpm), (0, SIGNALED));
    boot(&mut tpm, None, TpmSu::STATE);
    assert_eq!(read(&mut tpm), (10, PRESERVED));
}

#[test]
fn to_set_it_or_its_policy_voids_a_shutdown() {
    for command in [TpmCc::ACT_SET_TIMEOUT, TpmCc::SET_PRIMARY_POLICY] {
        let mut tpm = TestTpm::started();
        tpm.run(TpmCc::SHUTDOWN, &[], &TpmSu::STATE).unwrap();
        let policy = (Tpm2bDigest::new([7; 32]).unwrap(), TpmAlgId::SHA256);
        let input: &dyn Encode = if command == TpmCc::ACT_SET_TIMEOUT { &60u32 } else { &policy };
        tpm.run_with(command, &[ACT], &[b""], input).unwrap();
        tpm.init();
        assert_eq!(tpm.run(TpmCc::STARTUP, &[], &TpmSu::STATE), Err(ResponseCode::VALUE.parameter(1)));
    }
}

#[test]
fn an_expiry_that_nobody_noticed_is_not_one() {
    // The machine was off meanwhile, for all that is known.
    let mut tpm = expired(10);
    boot(&mut tpm, None, TpmSu::CLEAR);
    assert_eq!(read(&mut tpm), (0, QUIET));
    // The host was told, and has reset the machine for that.
    let mut tpm = expired(10);
    assert!(host_sees(&mut tpm));
    tpm.init();
    assert!(!host_sees(&mut tpm));
    tpm.init();
    tpm.run(TpmCc::STARTUP, &[], &TpmSu::CLEAR).unwrap();
    assert_eq!((read(&mut tpm), host_sees(&mut tpm)), ((0, PRESERVED), false));
    // What it was told of one timer says nothing of the next.
    let mut tpm = expired(10);
    assert!(host_sees(&mut tpm));
    set(&mut tpm, 10).unwrap();
    tpm.env.now += 10_000;
    boot(&mut tpm, None, TpmSu::CLEAR);
    assert_eq!(read(&mut tpm), (0, QUIET));
    // An init that could not be made durable has not been.
    let mut tpm = expired(10);
    assert!(host_sees(&mut tpm));
    tpm.env.fail_commits = true;
    assert!(tpm.tpm.init(&mut tpm.env).is_err());
    tpm.env.fail_commits = false;
    assert!(host_sees(&mut tpm));
    boot(&mut tpm, None, TpmSu::CLEAR);
    assert_eq!(read(&mut tpm), (0, PRESERVED));
}

#[test]
fn it_goes_with_time_and_not_with_clock() {
    let mut tpm = TestTpm::started();
    set(&mut tpm, 100).unwrap();
    tpm.run_with(TpmCc::CLOCK_SET, &[TpmHandle::OWNER], &[b""], &1_000_000u64).unwrap();
    assert_eq!(read(&mut tpm), (100, QUIET));
    // Two real milliseconds make one.
    let now = tpm.env.now;
    tpm.state().rebase_clock(now);
    tpm.state().volatile_mut().clock_rate = 2 * CLOCK_NOMINAL;
    tpm.resave();
    tpm.env.now += 60_000;
    assert_eq!(read(&mut tpm), (70, QUIET));
    // An export: between the two nothing passes.
    tpm.tpm.freeze_clock(tpm.env.now);
    tpm.env.now += 1_000_000;
    tpm.tpm.thaw_clock(tpm.env.now);
    tpm.resave();
    assert_eq!(read(&mut tpm), (70, QUIET));
    tpm.env.now += 139_999;
    assert_eq!(read(&mut tpm), (1, QUIET));
    tpm.env.now += 1;
    assert_eq!(read(&mut tpm), (0, SIGNALED));
}

#[test]
fn it_goes_on_when_the_clock_of_the_host_goes_back_and_a_signal_stays() {
    let mut tpm = TestTpm::started();
    tpm.env.now += 5_000;
    set(&mut tpm, 10).unwrap();
    tpm.env.now += 4_000;
    assert_eq!(read(&mut tpm), (6, QUIET));
    tpm.env.now -= 500_000;
    // As Time does, from what was last saved of it; never with more than was set.
    assert_eq!(read(&mut tpm), (10, QUIET));
    tpm.env.now += 9_999;
    assert_eq!(read(&mut tpm), (1, QUIET));
    tpm.env.now += 1;
    assert_eq!(read(&mut tpm), (0, SIGNALED));
    tpm.env.now -= 100_000;
    assert_eq!((read(&mut tpm), host_sees(&mut tpm)), ((0, SIGNALED), true));
}

#[test]
fn platform_authorization_sets_it_while_the_platform_is_enabled() {
    let mut tpm = TestTpm::started();
    let platform = TpmHandle::PLATFORM;
    let auth = Tpm2bAuth::new(*b"pw").unwrap();
    tpm.run_with(TpmCc::HIERARCHY_CHANGE_AUTH, &[platform], &[b""], &auth).unwrap();
    assert_eq!(set(&mut tpm, 5), Err(ResponseCode::BAD_AUTH.session(1)));
    tpm.run_with(TpmCc::ACT_SET_TIMEOUT, &[ACT], &[b"pw"], &5u32).unwrap();
    assert_eq!(tpm.run(TpmCc::ACT_SET_TIMEOUT, &[ACT], &5u32), Err(ResponseCode::AUTH_MISSING));

    // PolicyCommandCode(ACT_SetTimeout), extended by hand.
    let (cc, what) = (TpmCc::POLICY_COMMAND_CODE.to_bytes(), TpmCc::ACT_SET_TIMEOUT.to_bytes());
    let digest = crate::crypto::HashAlg::Sha256.digest(&[&[0; 32], &cc, &what]);
    let session = start_policy(&mut tpm, TpmSe::POLICY);
    let by_policy = |tpm: &mut TestTpm, timeout: u32| {
        tpm.run(TpmCc::POLICY_RESTART, &[session], &()).unwrap();
        tpm.run(TpmCc::POLICY_COMMAND_CODE, &[session], &TpmCc::ACT_SET_TIMEOUT).unwrap();
        run_with_policy(tpm, TpmCc::ACT_SET_TIMEOUT, &[ACT], session, &timeout).map(drop)
    };
    assert_eq!(by_policy(&mut tpm, 6), Err(ResponseCode::AUTH_UNAVAILABLE.session(1)));
    let input = (Tpm2bDigest::new(digest.as_slice()).unwrap(), TpmAlgId::SHA256);
    tpm.run_with(TpmCc::SET_PRIMARY_POLICY, &[ACT], &[b"pw"], &input).unwrap();
    by_policy(&mut tpm, 6).unwrap();
    assert_eq!(read(&mut tpm).0, 6);

    tpm.run_with(TpmCc::HIERARCHY_CONTROL, &[platform], &[b"pw"], &(platform, false)).unwrap();
    for password in [&b""[..], b"pw"] {
        let refused = tpm.run_with(TpmCc::ACT_SET_TIMEOUT, &[ACT], &[password], &7u32).unwrap_err();
        assert_eq!(refused, ResponseCode::AUTH_UNAVAILABLE.session(1));
    }
    by_policy(&mut tpm, 8).unwrap();
    assert_eq!(read(&mut tpm).0, 8);
}

#[test]
fn there_is_one_and_it_is_no_hierarchy() {
    let mut tpm = TestTpm::started();
    for handle in [TpmHandle(ACT.0 - 1), TpmHandle(ACT.0 + 1), TpmHandle::ACT_F, TpmHandle::PLATFORM] {
        let refused = tpm.run_with(TpmCc::ACT_SET_TIMEOUT, &[handle], &[b""], &5u32);
        assert_eq!(refused, Err(ResponseCode::VALUE.handle(1)), "{handle:?}");
    }
    let auth = Tpm2bAuth::new(*b"pw").unwrap();
    let refused = tpm.run_with(TpmCc::HIERARCHY_CHANGE_AUTH, &[ACT], &[b""], &auth);
    assert_eq!(refused, Err(ResponseCode::VALUE.handle(1)));
    for short in 0..4u8 {
        let bytes = vec![0u8; usize::from(short)];
        let rc = tpm.rc(&crate::testing::command_bytes(
            TpmCc::ACT_SET_TIMEOUT,
            &[ACT],
            &(TpmHandle::RS_PW, 0u16, 0u8, 0u16).to_bytes(),
            &bytes,
        ));
        assert_eq!(rc, ResponseCode::INSUFFICIENT.parameter(1));
    }
}

#[test]
fn what_could_not_be_saved_was_not_set() {
    let mut tpm = TestTpm::started();
    set(&mut tpm, 60).unwrap();
    tpm.env.fail_commits = true;
    assert_eq!(set(&mut tpm, 5), Err(ResponseCode::NV_UNAVAILABLE));
    tpm.env.fail_commits = false;
    assert_eq!(read(&mut tpm), (60, QUIET));
}
