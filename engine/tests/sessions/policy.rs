//! Policy sessions.

use crate::client::{Auth, Bench, Cmd, Entity, NULL, attr, b2, cc, rc, take_2b};
use crate::crypto::{SHA256, SHA384, Symmetric};
use crate::setup::{NO_DA, Start, USER_WITH_AUTH, get_random, password, quote, sign, with};

const PCR: u8 = 10;
/// SHA-256, PCR 10.
const SELECTION: [u8; 10] = [0, 0, 0, 1, 0, 0x0b, 3, 0, 1 << (PCR - 8), 0];

fn auth_value_policy() -> Vec<u8> {
    SHA256.hash(&[&[0; 32], &cc::POLICY_AUTH_VALUE.to_be_bytes()])
}

fn pcr_policy(pcr: &[u8]) -> Vec<u8> {
    SHA256.hash(&[&[0; 32], &cc::POLICY_PCR.to_be_bytes(), &SELECTION, &SHA256.hash(&[pcr])])
}

/// A policy command: the session is its handle.
fn policy_cmd(bench: &Bench, session: usize, code: u32, params: &[u8]) -> Cmd {
    let handle = Entity::permanent(bench.sessions[session].handle, b"");
    Cmd { code, handles: vec![handle], params: params.to_vec(), ..Cmd::default() }
}

fn policy_auth_value(bench: &mut Bench, session: usize) {
    let cmd = policy_cmd(bench, session, cc::POLICY_AUTH_VALUE, &[]);
    bench.ok(&cmd);
    bench.sessions[session].auth_value_needed = true;
}

fn policy_pcr(bench: &mut Bench, session: usize) {
    let params = [&b2(&[])[..], &SELECTION].concat();
    let cmd = policy_cmd(bench, session, cc::POLICY_PCR, &params);
    bench.ok(&cmd);
}

fn extend(bench: &mut Bench, pcr: u8) {
    let pcr = Entity::permanent(pcr.into(), b"");
    let params = [&[0, 0, 0, 1, 0, 0x0b][..], &[0xab; 32]].concat();
    bench.ok(&Cmd {
        code: cc::PCR_EXTEND,
        handles: vec![pcr.clone()],
        authorized: 1,
        auths: vec![password(&pcr)],
        params,
        ..Cmd::default()
    });
}

#[test]
fn the_digest_is_that_of_the_formula_and_starts_anew_after_each_use() {
    let mut bench = Bench::new();
    let key = bench.hmac_key(b"key", 0, &pcr_policy(&[0; 32]));
    let session = bench.start(&Start::policy());
    let digest = |bench: &mut Bench| {
        let cmd = policy_cmd(bench, session, cc::POLICY_GET_DIGEST, &[]);
        take_2b(&mut &bench.ok(&cmd).params[..]).to_vec()
    };
    assert_eq!(digest(&mut bench), [0; 32]);
    policy_pcr(&mut bench, session);
    assert_eq!(digest(&mut bench), pcr_policy(&[0; 32]));
    bench.ok(&sign(&key, with(session)));
    assert_eq!(digest(&mut bench), [0; 32]);
    assert_eq!(bench.fails(&sign(&key, with(session))), rc::policy_fail(1));
    policy_pcr(&mut bench, session);
    bench.ok(&sign(&key, Auth::Session(session, 0)));
    assert_eq!(bench.fails(&sign(&key, with(session))), rc::reference_s(1));
}

#[test]
fn a_policy_for_the_authorization_value_wants_it_in_the_hmac() {
    let mut bench = Bench::new();
    let session = bench.start(&Start::policy());
    for (attributes, expected) in [(0, rc::auth_fail(1)), (NO_DA, rc::bad_auth(1))] {
        let key = bench.hmac_key(b"key", attributes, &auth_value_policy());
        assert_eq!(bench.fails(&sign(&key, password(&key))), rc::AUTH_UNAVAILABLE);
        policy_auth_value(&mut bench, session);
        bench.ok(&sign(&key, with(session)));
        policy_auth_value(&mut bench, session);
        let wrong = Entity { auth: b"wrong".to_vec(), ..key.clone() };
        assert_eq!(bench.fails(&sign(&wrong, with(session))), expected);
        // A failed use leaves the policy as it is.
        bench.ok(&sign(&key, with(session)));
    }
}

#[test]
fn a_policy_that_does_not_want_the_value_is_no_object_of_guesses() {
    let mut bench = Bench::new();
    let key = bench.hmac_key(b"key", 0, &pcr_policy(&[0; 32]));
    let protected = bench.protected_key();
    let wrong = Entity { auth: b"wrong".to_vec(), ..protected.clone() };
    for _ in 0..32 {
        assert_eq!(bench.fails(&sign(&wrong, password(&wrong))), rc::auth_fail(1));
    }
    assert_eq!(bench.fails(&sign(&protected, password(&protected))), rc::LOCKOUT);
    let session = bench.start(&Start::policy());
    policy_pcr(&mut bench, session);
    bench.ok(&sign(&key, with(session)));
}

#[test]
fn a_pcr_that_changes_voids_the_policy_until_it_is_run_again() {
    let mut bench = Bench::new();
    let key = bench.hmac_key(b"key", 0, &pcr_policy(&[0; 32]));
    let session = bench.start(&Start::policy());
    policy_pcr(&mut bench, session);
    // PCR 16 is for debugging and voids nothing.
    extend(&mut bench, 16);
    bench.ok(&sign(&key, with(session)));
    policy_pcr(&mut bench, session);
    extend(&mut bench, 5);
    assert_eq!(bench.fails(&sign(&key, with(session))), rc::PCR_CHANGED);
    let restart = policy_cmd(&bench, session, 0x180, &[]);
    bench.ok(&restart);
    policy_pcr(&mut bench, session);
    bench.ok(&sign(&key, with(session)));

    extend(&mut bench, PCR);
    policy_pcr(&mut bench, session);
    assert_eq!(bench.fails(&sign(&key, with(session))), rc::policy_fail(1));
    let now = SHA256.hash(&[&[0; 32], &[0xab; 32]]);
    let bound_to_now = bench.hmac_key(b"key", 0, &pcr_policy(&now));
    bench.ok(&sign(&bound_to_now, with(session)));
}

#[test]
fn a_policy_session_encrypts_and_is_authenticated_by_its_salt() {
    let mut bench = Bench::new();
    let salt = Some(bench.ecc_salt_key());
    let key = bench.hmac_key(b"key", 0, &pcr_policy(&[0; 32]));
    let start = Start { salt, symmetric: Symmetric::Aes(256), ..Start::policy() };
    let session = bench.start(&start);
    policy_pcr(&mut bench, session);
    let cmd =
        quote(&key, b"data", vec![Auth::Session(session, attr::CONTINUE | attr::DECRYPT | attr::ENCRYPT)]);
    let sent = bench.build(&cmd);
    let mut bytes = sent.bytes.clone();
    bytes[30] ^= 1;
    assert_eq!(bench.raw(&bytes)[6..], rc::bad_auth(1).to_be_bytes());
    let response = bench.raw(&sent.bytes);
    bench.finish(&cmd, &sent, &response).unwrap();
    // Without anything to authorize, it may encrypt all the same.
    bench.ok(&get_random(vec![Auth::Session(session, attr::CONTINUE | attr::ENCRYPT)]));
}

#[test]
fn a_bound_policy_session_has_a_key_and_counts_but_is_not_bound() {
    let mut bench = Bench::new();
    let protected = bench.protected_key();
    let key = bench.hmac_key(b"key", NO_DA, &auth_value_policy());
    let session = bench.start(&Start { bind: Some(protected), ..Start::policy() });
    policy_auth_value(&mut bench, session);
    bench.ok(&sign(&key, with(session)));
    policy_auth_value(&mut bench, session);
    let wrong = Entity { auth: b"wrong".to_vec(), ..key };
    assert_eq!(bench.fails(&sign(&wrong, with(session))), rc::auth_fail(1));
}

#[test]
fn sessions_that_do_not_fit_the_entity_are_refused() {
    let mut bench = Bench::new();
    let session = bench.start(&Start::policy());
    let trial = bench.start(&Start { kind: 3, ..Start::default() });
    let other_hash = bench.start(&Start { alg: SHA384, ..Start::policy() });
    let plain = bench.free_key();
    let with_policy = bench.hmac_key(b"key", USER_WITH_AUTH, &pcr_policy(&[0; 32]));
    assert_eq!(bench.fails(&sign(&plain, with(session))), rc::policy_fail(1));
    assert_eq!(bench.fails(&sign(&with_policy, with(session))), rc::policy_fail(1));
    policy_pcr(&mut bench, other_hash);
    assert_eq!(bench.fails(&sign(&with_policy, with(other_hash))), rc::policy_fail(1));
    policy_pcr(&mut bench, trial);
    assert_eq!(bench.fails(&sign(&with_policy, with(trial))), rc::attributes(1));
    let owner = bench.owner();
    let create = Cmd {
        code: cc::CREATE_PRIMARY,
        handles: vec![owner],
        authorized: 1,
        auths: vec![with(session)],
        ..Cmd::default()
    };
    assert_eq!(bench.fails(&create), rc::AUTH_UNAVAILABLE);
    // A policy is one way, userWithAuth the other.
    bench.ok(&sign(&with_policy, password(&with_policy)));
}

#[test]
fn duplication_takes_a_policy_for_this_command_and_nothing_else() {
    let mut bench = Bench::new();
    let key = bench.hmac_key(b"key", USER_WITH_AUTH, &pcr_policy(&[0; 32]));
    let session = bench.start(&Start::policy());
    let hmac = bench.start(&Start::default());
    let duplicate = |auth| Cmd {
        code: cc::DUPLICATE,
        handles: vec![key.clone(), Entity::permanent(NULL, b"")],
        authorized: 1,
        auths: vec![auth],
        params: vec![0, 0, 0, 0x10],
        ..Cmd::default()
    };
    assert_eq!(bench.fails(&duplicate(password(&key))), rc::AUTH_TYPE);
    assert_eq!(bench.fails(&duplicate(with(hmac))), rc::AUTH_TYPE);
    policy_pcr(&mut bench, session);
    assert_eq!(bench.fails(&duplicate(with(session))), rc::policy_fail(1));
    bench.ok(&sign(&key, with(session)));
}
