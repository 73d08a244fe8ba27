//! What a policy session defers to its use, PIN indices, and the roles, with state that the commands of later chapters make. Whatever can be
//! done from outside is in `tests/sessions`.

use crate::crypto::HashAlg;
use crate::entity::{nv_name, object_name};
use crate::signing::test_keys::{AUTH, keyed_hash, load};
use crate::state::{NvIndex, Object, Policy, Session};
use crate::testing::{TestTpm, command_bytes};
use std::sync::Arc;
use vtpm_protocol::codec::{Decode, Encode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::*;

const HMAC: Scheme = Scheme::new(TpmAlgId::HMAC, TpmAlgId::SHA256);
const SHA256: HashAlg = HashAlg::Sha256;

/// A policy that a session fulfils without any policy command.
fn empty_policy() -> Tpm2bDigest {
    Tpm2bDigest::new(vec![0; 32]).unwrap()
}

fn policy_key() -> Object {
    let mut key = keyed_hash(HMAC);
    key.public.auth_policy = empty_policy();
    key.public.attributes = TpmaObject::SIGN_ENCRYPT;
    key.name = object_name(&key.public);
    key
}

fn session(tpm: &mut TestTpm, kind: TpmSe) -> TpmHandle {
    let nonce = Tpm2bNonce::new(vec![7; 16]).unwrap();
    let input = (nonce, 0u16, kind, TpmAlgId::NULL, TpmAlgId::SHA256);
    let out = tpm.run(TpmCc::START_AUTH_SESSION, &[TpmHandle::NULL; 2], &input).unwrap();
    TpmHandle::decode(&mut Reader::new(&out)).unwrap()
}

fn change(tpm: &mut TestTpm, session: TpmHandle, change: impl FnOnce(&mut Session)) {
    change(tpm.state().session_mut(session).unwrap());
    tpm.resave();
}

/// A session that continues, with `input` as its HMAC or password.
fn area(session: TpmHandle, input: &[u8]) -> Vec<u8> {
    (session, 0u16, 1u8, Tpm2bDigest::new(input).unwrap()).to_bytes()
}

fn sign_parameters() -> Vec<u8> {
    let digest = Tpm2bDigest::new(vec![0x5a; 32]).unwrap();
    (digest, TpmtSigScheme(Scheme::NULL), TpmtTk::null(TpmSt::HASHCHECK)).to_bytes()
}

fn sign(tpm: &mut TestTpm, key: TpmHandle, session: TpmHandle, input: &[u8]) -> ResponseCode {
    tpm.rc(&command_bytes(TpmCc::SIGN, &[key], &area(session, input), &sign_parameters()))
}

/// A key, a policy session that authorizes it, and what the session is changed to before.
fn sign_after(at_locality: u8, prepare: impl Fn(&mut TestTpm, &mut Session)) -> ResponseCode {
    let mut tpm = TestTpm::started();
    tpm.locality = at_locality;
    let key = load(&mut tpm, policy_key());
    let handle = session(&mut tpm, TpmSe::POLICY);
    let mut changed = (**tpm.state().session(handle).unwrap()).clone();
    prepare(&mut tpm, &mut changed);
    change(&mut tpm, handle, |s| *s = changed);
    sign(&mut tpm, key, handle, b"")
}

#[test]
fn of_a_session_entry_with_several_faults_the_handle_is_told() {
    let mut tpm = TestTpm::started();
    let key = load(&mut tpm, keyed_hash(HMAC));
    let mut rc = |area: &[u8]| tpm.rc(&command_bytes(TpmCc::SIGN, &[key], area, &sign_parameters()));
    let reserved_attributes = (0u16, 0x18u8, 0u16);
    let cut_off = (0x7f00u16, 0u8, 0u16);
    for no_session in [TpmHandle::OWNER, TpmHandle::NULL, TpmHandle(0x0200_ffff)] {
        assert_eq!(rc(&(no_session, reserved_attributes).to_bytes()), ResponseCode::VALUE.session(1));
        assert_eq!(rc(&(no_session, cut_off).to_bytes()), ResponseCode::VALUE.session(1));
    }
    assert_eq!(
        rc(&(TpmHandle::RS_PW, reserved_attributes).to_bytes()),
        ResponseCode::RESERVED_BITS.session(1)
    );
    let first = (TpmHandle::RS_PW, 0u16, 0u8, Tpm2bAuth::new(AUTH).unwrap());
    assert_eq!(rc(&(first, TpmHandle::OWNER, cut_off).to_bytes()), ResponseCode::VALUE.session(2));
}

#[test]
fn a_fresh_policy_session_fulfils_the_empty_policy() {
    assert_eq!(sign_after(0, |_, _| {}), ResponseCode::SUCCESS);
}

#[test]
fn a_policy_for_a_command_serves_this_command() {
    assert_eq!(sign_after(0, |_, s| s.command_code = TpmCc::SIGN), ResponseCode::SUCCESS);
    let other = sign_after(0, |_, s| s.command_code = TpmCc::QUOTE);
    assert_eq!(other, ResponseCode::POLICY_CC.session(1));
}

#[test]
fn a_policy_for_localities_serves_these() {
    for (bits, locality, allowed) in [
        (0x01, 0, true),
        (0x01, 1, false),
        (0x1e, 0, false),
        (0x1e, 4, true),
        (0x20, 0, false),
        (0x23, 1, false),
    ] {
        let rc = sign_after(locality, |_, s| s.command_locality = TpmaLocality(bits));
        let expected = if allowed { ResponseCode::SUCCESS } else { ResponseCode::LOCALITY };
        assert_eq!(rc, expected, "{bits:x} at {locality}");
    }
}

#[test]
fn nobody_is_physically_present() {
    assert_eq!(sign_after(0, |_, s| s.flags.is_pp_required = true), ResponseCode::PP.session(1));
    // Unless the environment says that somebody is.
    let present = sign_after(0, |tpm, s| {
        tpm.env.present = true;
        s.flags.is_pp_required = true;
    });
    assert_eq!(present, ResponseCode::SUCCESS);
}

#[test]
fn a_policy_expires_with_its_time_and_with_the_time_s_epoch() {
    let expiring = |later: u64, epoch: u32| {
        sign_after(0, move |tpm, s| {
            let now = tpm.env.now;
            s.timeout = tpm.state().time(now) + 1000;
            s.epoch = s.epoch.wrapping_add(epoch);
            tpm.env.now += later;
        })
    };
    assert_eq!(expiring(1000, 0), ResponseCode::SUCCESS);
    assert_eq!(expiring(1001, 0), ResponseCode::EXPIRED.session(1));
    assert_eq!(expiring(0, 1), ResponseCode::EXPIRED.session(1));
}

#[test]
fn an_authorization_counts_from_the_newest_nonce_of_the_session_that_it_names() {
    let mut tpm = TestTpm::started();
    let key = load(&mut tpm, policy_key());
    let handle = session(&mut tpm, TpmSe::POLICY);
    tpm.env.now += 60_000;
    assert_eq!(sign(&mut tpm, key, handle, b""), ResponseCode::SUCCESS);
    // The nonce that came with that use is new.
    tpm.env.now += 5_000;
    let nonce = tpm.state().session(handle).unwrap().nonce_tpm.clone();
    let input = (&nonce, 0u16, 0u16, 10i32);
    let secret = [TpmHandle::OWNER, handle];
    tpm.run_with(TpmCc::POLICY_SECRET, &secret, &[b""], &input).unwrap();
    let (now, session) = (tpm.env.now, tpm.state().session(handle).unwrap().clone());
    assert_eq!(session.timeout, tpm.state().time(now) + 5_000);
    // A session that lived on through a Resume counts from there, too.
    assert_eq!(session.epoch, tpm.state().volatile.time_epoch);
    tpm.env.now += 6_000;
    let late = tpm.run_with(TpmCc::POLICY_SECRET, &secret, &[b""], &input).map(drop);
    assert_eq!(late, Err(ResponseCode::EXPIRED.parameter(4)));
}

#[test]
fn a_policy_for_a_cp_hash_or_a_name_hash_serves_this_command_on_these_entities() {
    let name = policy_key().name.to_vec();
    let cp_hash = SHA256.digest(&[&TpmCc::SIGN.to_bytes(), &name, &sign_parameters()]);
    let name_hash = SHA256.digest(&[&name]);
    let with = |hash: &[u8], set: fn(&mut Session)| {
        sign_after(0, |_, s| {
            s.cp_hash = Tpm2bDigest::new(hash).unwrap();
            set(s);
        })
    };
    let refused = ResponseCode::POLICY_FAIL.session(1);
    assert_eq!(with(&cp_hash, |s| s.flags.is_cp_hash_defined = true), ResponseCode::SUCCESS);
    assert_eq!(with(&name_hash, |s| s.flags.is_name_hash_defined = true), ResponseCode::SUCCESS);
    assert_eq!(with(&name_hash, |s| s.flags.is_cp_hash_defined = true), refused);
    assert_eq!(with(&cp_hash, |s| s.flags.is_name_hash_defined = true), refused);
}

#[test]
fn what_only_looks_like_a_template_is_none() {
    let mut tpm = TestTpm::started();
    let key = load(&mut tpm, policy_key());
    let handle = session(&mut tpm, TpmSe::POLICY);
    // The null scheme of a quote is 16, the size of what follows.
    let selection: TpmlPcrSelection = Tpml(vec![TpmsPcrSelection::of(TpmAlgId::SHA256, [0]); 2]);
    let input = (Tpm2bData::empty(), TpmtSigScheme(Scheme::NULL), &selection).to_bytes();
    assert_eq!((input[2..4].to_vec(), input.len()), (vec![0, 16], 4 + 16));
    change(&mut tpm, handle, |s| {
        s.cp_hash = Tpm2bDigest::new(SHA256.digest(&[&input[4..]]).to_vec()).unwrap();
        s.flags.is_template_hash_defined = true;
    });
    let command = command_bytes(TpmCc::QUOTE, &[key], &area(handle, b""), &input);
    assert_eq!(tpm.rc(&command), ResponseCode::POLICY_FAIL.session(1));
}

#[test]
fn a_policy_for_a_template_serves_its_creation() {
    let template = keyed_hash(HMAC).public;
    let template = TpmtPublic {
        attributes: template.attributes | TpmaObject::FIXED_PARENT | TpmaObject::SENSITIVE_DATA_ORIGIN,
        unique: PublicId::Digest(Tpm2bDigest::empty()),
        ..template
    };
    let input = (
        Tpm2bSensitiveCreate::default(),
        Sized2b(template.clone()),
        Tpm2bData::empty(),
        TpmlPcrSelection::default(),
    );
    for (hashed, expected) in [
        (template.to_bytes(), ResponseCode::SUCCESS),
        (keyed_hash(HMAC).public.to_bytes(), ResponseCode::POLICY_FAIL.session(1)),
    ] {
        let mut tpm = TestTpm::started();
        let policy = Policy { alg: TpmAlgId::SHA256, digest: empty_policy() };
        tpm.state().permanent_mut().owner.policy = policy;
        tpm.resave();
        let handle = session(&mut tpm, TpmSe::POLICY);
        change(&mut tpm, handle, |s| {
            s.cp_hash = Tpm2bDigest::new(SHA256.digest(&[&hashed]).to_vec()).unwrap();
            s.flags.is_template_hash_defined = true;
        });
        let command =
            command_bytes(TpmCc::CREATE_PRIMARY, &[TpmHandle::OWNER], &area(handle, b""), &input.to_bytes());
        assert_eq!(tpm.rc(&command), expected);
    }
}

#[test]
fn a_policy_for_a_password_takes_it_and_answers_without_an_hmac() {
    let mut tpm = TestTpm::started();
    let key = load(&mut tpm, policy_key());
    let handle = session(&mut tpm, TpmSe::POLICY);
    change(&mut tpm, handle, |s| s.flags.is_password_needed = true);
    assert_eq!(sign(&mut tpm, key, handle, b"wrong"), ResponseCode::AUTH_FAIL.session(1));
    let with_zeros = [AUTH, &[0, 0]].concat();
    let command = command_bytes(TpmCc::SIGN, &[key], &area(handle, &with_zeros), &sign_parameters());
    let response = tpm.ok(&command);
    assert_eq!(response[response.len() - 3..], [1, 0, 0]);
    // The next use needs the policy anew, and takes no password then.
    assert_eq!(sign(&mut tpm, key, handle, AUTH), ResponseCode::BAD_AUTH.session(1));
    assert_eq!(sign(&mut tpm, key, handle, b""), ResponseCode::SUCCESS);
}

#[test]
fn a_wrong_password_counts_when_the_session_is_bound_to_what_is_protected() {
    let mut tpm = TestTpm::started();
    let mut free = policy_key();
    free.public.attributes = free.public.attributes | TpmaObject::NO_DA;
    free.name = object_name(&free.public);
    let free = load(&mut tpm, free);
    let handle = session(&mut tpm, TpmSe::POLICY);
    for (da_bound, expected) in [(false, ResponseCode::BAD_AUTH), (true, ResponseCode::AUTH_FAIL)] {
        change(&mut tpm, handle, |s| {
            s.flags.is_password_needed = true;
            s.flags.is_da_bound = da_bound;
        });
        assert_eq!(sign(&mut tpm, free, handle, b"wrong"), expected.session(1));
        assert_eq!(tpm.state().permanent.da.failed_tries, u32::from(da_bound));
    }
}

#[test]
fn a_policy_for_an_index_that_is_written_is_for_nv_alone() {
    assert_eq!(sign_after(0, |_, s| s.flags.check_nv_written = true), ResponseCode::POLICY_FAIL.session(1));
    for (wanted, written, allowed) in
        [(true, true, true), (false, true, false), (true, false, false), (false, false, true)]
    {
        let mut tpm = TestTpm::started();
        define(&mut tpm, TpmaNv::POLICY_READ.with(TpmaNv::WRITTEN, written), TpmNt::Ordinary, &[1; 8]);
        let handle = session(&mut tpm, TpmSe::POLICY);
        change(&mut tpm, handle, |s| {
            s.flags.check_nv_written = true;
            s.flags.nv_written_state = wanted;
        });
        let rc = tpm.rc(&command_bytes(TpmCc::NV_READ, &[INDEX; 2], &area(handle, b""), &[0, 8, 0, 0]));
        // An index that is not written is refused by the command itself.
        let expected = match (allowed, written) {
            (true, true) => ResponseCode::SUCCESS,
            (true, false) => ResponseCode::NV_UNINITIALIZED,
            (false, _) => ResponseCode::POLICY_FAIL.session(1),
        };
        assert_eq!(rc, expected);
    }
}

const INDEX: TpmHandle = TpmHandle(0x0100_0001);

fn define(tpm: &mut TestTpm, attributes: TpmaNv, nt: TpmNt, data: &[u8]) {
    let public = TpmsNvPublic {
        nv_index: INDEX,
        name_alg: TpmiAlgHash(TpmAlgId::SHA256),
        attributes: attributes.with_nt(nt) | TpmaNv::NO_DA,
        auth_policy: empty_policy(),
        data_size: u16::try_from(data.len()).unwrap(),
    };
    let auth = Tpm2bAuth::new(AUTH.to_vec()).unwrap();
    assert_eq!(nv_name(&public).len(), 34);
    let index = NvIndex { public, auth, data: Tpm2b::new(data).unwrap() };
    tpm.state().nv.insert(INDEX.0, Arc::new(index));
    tpm.resave();
}

fn read(tpm: &mut TestTpm, password: &[u8]) -> Result<(), ResponseCode> {
    tpm.run_with(TpmCc::NV_READ, &[INDEX; 2], &[password], &(8u16, 0u16)).map(drop)
}

fn pin(tpm: &mut TestTpm) -> (u32, u32) {
    tpm.state().nv_index(INDEX).unwrap().pin().unwrap()
}

const PIN: TpmaNv = TpmaNv(TpmaNv::WRITTEN.0 | TpmaNv::AUTH_READ.0);

#[test]
fn a_pin_that_counts_failures_ends_at_its_limit_and_a_success_before_forgets_them() {
    let mut tpm = TestTpm::started();
    define(&mut tpm, PIN, TpmNt::PinFail, &(0u32, 3u32).to_bytes());
    let wrong = Err(ResponseCode::BAD_AUTH.session(1));
    assert_eq!((read(&mut tpm, b"wrong"), pin(&mut tpm)), (wrong, (1, 3)));
    assert_eq!((read(&mut tpm, b"wrong"), pin(&mut tpm)), (wrong, (2, 3)));
    assert_eq!((read(&mut tpm, AUTH), pin(&mut tpm)), (Ok(()), (0, 3)));
    for n in 1..=3 {
        assert_eq!((read(&mut tpm, b"wrong"), pin(&mut tpm)), (wrong, (n, 3)));
    }
    for password in [AUTH, b"wrong"] {
        assert_eq!(read(&mut tpm, password), Err(ResponseCode::AUTH_UNAVAILABLE));
        assert_eq!(pin(&mut tpm), (3, 3));
    }
}

#[test]
fn a_pin_that_counts_uses_ends_at_its_limit_and_counts_no_failures() {
    let mut tpm = TestTpm::started();
    define(&mut tpm, PIN, TpmNt::PinPass, &(0u32, 2u32).to_bytes());
    assert_eq!(read(&mut tpm, b"wrong"), Err(ResponseCode::BAD_AUTH.session(1)));
    assert_eq!(pin(&mut tpm), (0, 2));
    assert_eq!((read(&mut tpm, AUTH), pin(&mut tpm)), (Ok(()), (1, 2)));
    assert_eq!((read(&mut tpm, AUTH), pin(&mut tpm)), (Ok(()), (2, 2)));
    assert_eq!(read(&mut tpm, AUTH), Err(ResponseCode::AUTH_UNAVAILABLE));
}

#[test]
fn a_pin_that_was_right_counts_even_when_the_command_fails_then() {
    let mut tpm = TestTpm::started();
    define(&mut tpm, PIN, TpmNt::PinPass, &(0u32, 2u32).to_bytes());
    // Beyond the end of the index: authorized, but refused.
    let command = command_bytes(TpmCc::NV_READ, &[INDEX; 2], &area(TpmHandle::RS_PW, AUTH), &[0, 9, 0, 0]);
    for used in 1..=2 {
        let response = tpm.tpm.execute(&mut tpm.env, 0, &command);
        assert_eq!(crate::testing::code(&response), ResponseCode::NV_RANGE);
        assert_eq!(pin(&mut tpm), (used, 2));
    }
    // What was counted is durable: `rc` compares the store with the state.
    assert_eq!(tpm.rc(&command), ResponseCode::AUTH_UNAVAILABLE);
}

#[test]
fn an_index_is_authorized_as_its_attributes_say() {
    let mut tpm = TestTpm::started();
    define(&mut tpm, TpmaNv::WRITTEN | TpmaNv::POLICY_READ, TpmNt::Ordinary, &[1; 8]);
    assert_eq!(read(&mut tpm, AUTH), Err(ResponseCode::AUTH_UNAVAILABLE));
    let handle = session(&mut tpm, TpmSe::POLICY);
    let by_policy = command_bytes(TpmCc::NV_READ, &[INDEX; 2], &area(handle, b""), &[0, 8, 0, 0]);
    assert_eq!(tpm.rc(&by_policy), ResponseCode::SUCCESS);
    define(&mut tpm, TpmaNv::WRITTEN | TpmaNv::AUTH_READ, TpmNt::Ordinary, &[1; 8]);
    assert_eq!(read(&mut tpm, AUTH), Ok(()));
    assert_eq!(tpm.rc(&by_policy), ResponseCode::AUTH_UNAVAILABLE);
    let write = command_bytes(TpmCc::NV_WRITE, &[INDEX; 2], &area(TpmHandle::RS_PW, AUTH), &[0, 1, 7, 0, 0]);
    assert_eq!(tpm.rc(&write), ResponseCode::AUTH_UNAVAILABLE);
}

#[test]
fn duplication_takes_a_policy_session_for_it() {
    let mut tpm = TestTpm::started();
    let mut key = policy_key();
    key.public.attributes = TpmaObject::SIGN_ENCRYPT | TpmaObject::USER_WITH_AUTH;
    key.name = object_name(&key.public);
    let key = load(&mut tpm, key);
    let handle = session(&mut tpm, TpmSe::POLICY);
    let handles = [key, TpmHandle::NULL];
    let duplicate = |area: &[u8]| command_bytes(TpmCc::DUPLICATE, &handles, area, &[0, 0, 0, 0x10]);
    assert_eq!(tpm.rc(&duplicate(&area(TpmHandle::RS_PW, AUTH))), ResponseCode::AUTH_TYPE);
    assert_eq!(tpm.rc(&duplicate(&area(handle, b""))), ResponseCode::POLICY_FAIL.session(1));
    change(&mut tpm, handle, |s| s.command_code = TpmCc::DUPLICATE);
    assert_eq!(tpm.rc(&duplicate(&area(handle, b""))), ResponseCode::SUCCESS);
}

#[test]
fn the_admin_role_takes_a_policy_but_for_objects_that_say_otherwise() {
    use super::auth::policy_required;
    use crate::command::Role;
    let mut tpm = TestTpm::started();
    let plain = load(&mut tpm, keyed_hash(HMAC));
    let mut strict = keyed_hash(HMAC);
    strict.public.attributes = strict.public.attributes | TpmaObject::ADMIN_WITH_POLICY;
    let strict = load(&mut tpm, strict);
    define(&mut tpm, PIN, TpmNt::Ordinary, &[1; 8]);
    for (entity, role, expected) in [
        (plain, Role::Admin, false),
        (strict, Role::Admin, true),
        (INDEX, Role::Admin, true),
        (TpmHandle::PLATFORM, Role::Admin, true),
        (plain, Role::Dup, true),
        (strict, Role::User, false),
        (INDEX, Role::User, false),
    ] {
        assert_eq!(policy_required(tpm.state(), role, entity), Ok(expected), "{role:?} of {entity:?}");
    }
}

#[test]
fn every_command_wants_an_authorization_for_every_handle_that_has_a_role() {
    use crate::command::{HandleKind, Role, table};
    let mut tpm = TestTpm::started();
    let key = load(&mut tpm, keyed_hash(HMAC));
    let (policy, hmac) = (session(&mut tpm, TpmSe::POLICY), session(&mut tpm, TpmSe::HMAC));
    let nv = crate::command::nv::testing::INDEX;
    let open = crate::command::nv::testing::OPEN;
    crate::command::nv::testing::define(
        &mut tpm,
        TpmHandle::OWNER,
        b"",
        crate::command::nv::testing::public(nv, open, 8),
    )
    .unwrap();
    let mut tried = 0;
    for command in table::COMMANDS.iter().filter(|c| !table::is_vendor(c.code)) {
        let roles = command.handles.iter().filter(|h| h.role != Role::None).count();
        let handles: Vec<TpmHandle> = command
            .handles
            .iter()
            .map(|h| match h.kind {
                HandleKind::Object | HandleKind::ObjectOrNull => key,
                HandleKind::Pcr | HandleKind::PcrOrNull => TpmHandle(16),
                HandleKind::PolicySession | HandleKind::Context => policy,
                HandleKind::HmacSession => hmac,
                HandleKind::NvIndex => nv,
                HandleKind::Lockout | HandleKind::Clear => TpmHandle::LOCKOUT,
                HandleKind::Platform => TpmHandle::PLATFORM,
                HandleKind::Act => TpmHandle::ACT_0,
                HandleKind::Endorsement => TpmHandle::ENDORSEMENT,
                _ => TpmHandle::OWNER,
            })
            .collect();
        // With none, and with one too few: none of those that are there is used for another handle.
        for n in 0..roles {
            let sessions: Vec<u8> = (0..n).flat_map(|_| area(TpmHandle::RS_PW, b"").into_iter()).collect();
            let rc = tpm.rc(&command_bytes(command.code, &handles, &sessions, &[]));
            assert_eq!(rc, ResponseCode::AUTH_MISSING, "{:?} with {n}", command.code);
            tried += 1;
        }
    }
    assert!(tried > 40, "{tried}");
}
