//! PIN indices: what counts for them, and with which commands.

use super::testing::{INDEX, OPEN, boot, define, policy_for, public, read, write};
use crate::testing::TestTpm;
use crate::testing::objects::{flush, run_with_policy, start_policy};
use vtpm_protocol::codec::Encode;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Tpm2bMaxNvBuffer, TpmCc, TpmHandle, TpmNt, TpmSe, TpmSu, TpmaNv};

const OWNER: TpmHandle = TpmHandle::OWNER;
const OWNERS: TpmaNv = TpmaNv(TpmaNv::OWNER_WRITE.0 | TpmaNv::OWNER_READ.0);
const UNAVAILABLE: ResponseCode = ResponseCode::AUTH_UNAVAILABLE;

/// A PIN with the password "pin", no uses so far, and a limit.
fn pin(nt: TpmNt, attributes: TpmaNv, limit: u32) -> TestTpm {
    let mut tpm = TestTpm::started();
    define(&mut tpm, OWNER, b"pin", public(INDEX, attributes.with_nt(nt), 8)).unwrap();
    set(&mut tpm, 0, limit);
    tpm
}

fn set(tpm: &mut TestTpm, count: u32, limit: u32) {
    write(tpm, OWNER, b"", &(count, limit).to_bytes(), 0).unwrap();
}

fn count(tpm: &mut TestTpm) -> u32 {
    tpm.state().nv_index(INDEX).unwrap().pin().unwrap().0
}

/// `TPM2_PolicySecret` with the PIN, in a session of its own.
fn secret(tpm: &mut TestTpm, password: &[u8]) -> Result<(), ResponseCode> {
    let session = start_policy(tpm, TpmSe::POLICY);
    // nonceTPM, cpHashA and policyRef empty, no expiration.
    let input = (0u16, 0u16, 0u16, 0u32);
    let result = tpm.run_with(TpmCc::POLICY_SECRET, &[INDEX, session], &[password], &input).map(drop);
    flush(tpm, session);
    result
}

#[test]
fn a_pin_fail_in_a_policy_counts_wrong_tries_until_a_right_one() {
    let mut tpm = pin(TpmNt::PinFail, OWNERS | TpmaNv::NO_DA, 2);
    assert_eq!(secret(&mut tpm, b"no"), Err(ResponseCode::BAD_AUTH.session(1)));
    assert_eq!(count(&mut tpm), 1);
    assert_eq!((secret(&mut tpm, b"pin"), count(&mut tpm)), (Ok(()), 0));
    for _ in 0..2 {
        assert_eq!(secret(&mut tpm, b"no"), Err(ResponseCode::BAD_AUTH.session(1)));
    }
    assert_eq!(secret(&mut tpm, b"pin"), Err(UNAVAILABLE));
    // Wrong tries of a PIN never lock the TPM.
    assert_eq!(tpm.state().permanent.da.failed_tries, 0);
    set(&mut tpm, 0, 2);
    assert_eq!(secret(&mut tpm, b"pin"), Ok(()));
}

#[test]
fn a_pin_pass_in_a_policy_counts_right_tries_only() {
    let mut tpm = pin(TpmNt::PinPass, OWNERS | TpmaNv::NO_DA, 2);
    assert_eq!(secret(&mut tpm, b"no"), Err(ResponseCode::BAD_AUTH.session(1)));
    assert_eq!(count(&mut tpm), 0);
    assert_eq!((secret(&mut tpm, b"pin"), secret(&mut tpm, b"pin")), (Ok(()), Ok(())));
    assert_eq!(secret(&mut tpm, b"pin"), Err(UNAVAILABLE));
    assert_eq!(count(&mut tpm), 2);
}

#[test]
fn wrong_tries_of_a_pin_pass_are_an_attack_unless_it_is_exempt() {
    let mut tpm = pin(TpmNt::PinPass, OWNERS, 5);
    let max = tpm.state().permanent.da.max_tries;
    for _ in 0..max {
        assert_eq!(secret(&mut tpm, b"no"), Err(ResponseCode::AUTH_FAIL.session(1)));
    }
    assert_eq!(secret(&mut tpm, b"pin"), Err(ResponseCode::LOCKOUT));
    assert_eq!(count(&mut tpm), 0);
}

#[test]
fn a_use_counts_although_its_command_fails() {
    let mut tpm = pin(TpmNt::PinPass, OPEN.with(TpmaNv::AUTH_WRITE, false), 5);
    assert_eq!(read(&mut tpm, INDEX, b"pin", 9, 0), Err(ResponseCode::NV_RANGE));
    assert_eq!(count(&mut tpm), 1);
    let mut tpm = pin(TpmNt::PinFail, OWNERS | TpmaNv::NO_DA, 5);
    set(&mut tpm, 3, 5);
    assert_eq!(read(&mut tpm, INDEX, b"pin", 9, 0), Err(ResponseCode::NV_RANGE));
    assert_eq!(count(&mut tpm), 0);
}

#[test]
fn a_pin_needs_data_and_a_count_below_the_limit_and_no_authread() {
    let mut tpm = TestTpm::started();
    define(&mut tpm, OWNER, b"pin", public(INDEX, OWNERS.with_nt(TpmNt::PinPass), 8)).unwrap();
    assert_eq!(secret(&mut tpm, b"pin"), Err(UNAVAILABLE));
    for (count, limit, usable) in [(0, 0, false), (0, 1, true), (5, 5, false), (u32::MAX, u32::MAX, false)] {
        set(&mut tpm, count, limit);
        assert_eq!(read(&mut tpm, INDEX, b"pin", 8, 0).is_ok(), usable, "{count} of {limit}");
    }
    // It never authorizes a write of itself.
    set(&mut tpm, 0, 9);
    assert_eq!(write(&mut tpm, INDEX, b"pin", &[0; 8], 0), Err(UNAVAILABLE));
    assert_eq!(count(&mut tpm), 0);
}

#[test]
fn a_policy_without_the_pin_does_not_use_it() {
    let mut tpm = TestTpm::started();
    let mut public = public(INDEX, (OWNERS | TpmaNv::POLICY_READ | TpmaNv::NO_DA).with_nt(TpmNt::PinPass), 8);
    public.auth_policy = policy_for(TpmCc::NV_READ);
    define(&mut tpm, OWNER, b"pin", public).unwrap();
    set(&mut tpm, 4, 4);
    let session = start_policy(&mut tpm, TpmSe::POLICY);
    tpm.run(TpmCc::POLICY_COMMAND_CODE, &[session], &TpmCc::NV_READ).unwrap();
    let out = run_with_policy(&mut tpm, TpmCc::NV_READ, &[INDEX, INDEX], session, &(8u16, 0u16)).unwrap();
    assert_eq!(out, Tpm2bMaxNvBuffer::new((4u32, 4u32).to_bytes()).unwrap().to_bytes());
}

#[test]
fn counts_survive_a_loss_of_power_and_orderly_ones_do_not() {
    for (attributes, kept) in [(OWNERS, true), (OWNERS | TpmaNv::ORDERLY, false)] {
        let mut tpm = pin(TpmNt::PinPass, attributes, 3);
        secret(&mut tpm, b"pin").unwrap();
        boot(&mut tpm, Some(TpmSu::STATE), TpmSu::CLEAR);
        assert_eq!(count(&mut tpm), 1);
        boot(&mut tpm, None, TpmSu::CLEAR);
        assert_eq!(count(&mut tpm), u32::from(kept));
        assert_eq!(secret(&mut tpm, b"pin"), if kept { Ok(()) } else { Err(UNAVAILABLE) });
    }
}

#[test]
fn a_first_write_of_the_count_alone_gives_an_orderly_pin_no_limit_to_use() {
    let mut tpm = TestTpm::started();
    let attributes = (OWNERS | TpmaNv::ORDERLY).with_nt(TpmNt::PinPass);
    define(&mut tpm, OWNER, b"pin", public(INDEX, attributes, 8)).unwrap();
    write(&mut tpm, OWNER, b"", &0u32.to_be_bytes(), 0).unwrap();
    assert_eq!(secret(&mut tpm, b"pin"), Err(UNAVAILABLE));
    write(&mut tpm, OWNER, b"", &1u32.to_be_bytes(), 4).unwrap();
    assert_eq!(secret(&mut tpm, b"pin"), Ok(()));
}

#[test]
fn a_count_that_cannot_be_made_durable_gives_no_free_try() {
    let mut tpm = pin(TpmNt::PinFail, OWNERS | TpmaNv::NO_DA, 1);
    tpm.env.fail_commits = true;
    assert_eq!(read(&mut tpm, INDEX, b"no", 8, 0), Err(ResponseCode::NV_UNAVAILABLE));
    tpm.env.fail_commits = false;
    tpm.resave();
    assert_eq!(read(&mut tpm, INDEX, b"pin", 8, 0), Err(UNAVAILABLE));
}
