//! HMAC sessions and passwords as authorizations.

use crate::client::{Auth, Bench, Entity, LOCKOUT, OWNER, attr, rc};
use crate::crypto::{ALGS, SHA512};
use crate::setup::{Start, change_auth, get_random, password, sign, with};

#[test]
fn unbound_bound_and_salted_sessions_authorize_again_and_again() {
    for alg in ALGS {
        let mut bench = Bench::new();
        let key = bench.protected_key();
        let other = bench.free_key();
        let salts = [None, Some(bench.rsa_salt_key())];
        for salt in salts {
            for bind in [None, Some(key.clone()), Some(other.clone()), Some(bench.owner())] {
                let session = bench.start(&Start { alg, bind, salt: salt.clone(), ..Start::default() });
                for _ in 0..3 {
                    bench.ok(&sign(&key, with(session)));
                    bench.ok(&sign(&other, with(session)));
                }
                bench.flush(session);
            }
        }
    }
}

#[test]
fn a_salt_may_come_over_an_elliptic_curve() {
    for alg in ALGS {
        let mut bench = Bench::new();
        let key = bench.protected_key();
        let salt = Some(bench.ecc_salt_key());
        for bind in [None, Some(key.clone())] {
            let session = bench.start(&Start { alg, bind, salt: salt.clone(), ..Start::default() });
            bench.ok(&sign(&key, with(session)));
            bench.ok(&sign(&key, with(session)));
        }
    }
}

#[test]
fn a_command_counts_once() {
    let mut bench = Bench::new();
    let key = bench.free_key();
    let session = bench.start(&Start::default());
    let cmd = sign(&key, with(session));
    let sent = bench.build(&cmd);
    let response = bench.raw(&sent.bytes);
    bench.finish(&cmd, &sent, &response).unwrap();
    assert_eq!(bench.raw(&sent.bytes)[6..], rc::bad_auth(1).to_be_bytes());
    bench.ok(&cmd);
}

#[test]
fn a_wrong_authorization_counts_where_the_key_is_protected() {
    let mut bench = Bench::new();
    for (key, expected) in [(bench.protected_key(), rc::auth_fail(1)), (bench.free_key(), rc::bad_auth(1))] {
        let wrong = Entity { auth: b"wrong".to_vec(), ..key.clone() };
        let session = bench.start(&Start::default());
        assert_eq!(bench.fails(&sign(&wrong, with(session))), expected);
        assert_eq!(bench.fails(&sign(&wrong, password(&wrong))), expected);
        // The session lives on, with the nonce that it had.
        bench.ok(&sign(&key, with(session)));
        bench.ok(&sign(&key, password(&key)));
    }
}

#[test]
fn any_changed_bit_of_an_authorized_command_is_noticed() {
    let mut bench = Bench::new();
    let key = bench.free_key();
    let session = bench.start(&Start { bind: Some(key.clone()), ..Start::default() });
    let cmd = sign(&key, with(session));
    let sent = bench.build(&cmd);
    for i in 0..sent.bytes.len() {
        for bit in 0..8 {
            let mut bytes = sent.bytes.clone();
            bytes[i] ^= 1 << bit;
            assert_ne!(bench.raw(&bytes)[6..10], [0; 4], "byte {i} bit {bit}");
        }
    }
    let response = bench.raw(&sent.bytes);
    bench.finish(&cmd, &sent, &response).unwrap();
}

#[test]
fn a_session_ends_with_the_use_that_does_not_continue_it() {
    let mut bench = Bench::new();
    let key = bench.free_key();
    let session = bench.start(&Start::default());
    let wrong = Entity { auth: b"wrong".to_vec(), ..key.clone() };
    assert_eq!(bench.fails(&sign(&wrong, Auth::Session(session, 0))), rc::bad_auth(1));
    bench.ok(&sign(&key, with(session)));
    bench.ok(&sign(&key, Auth::Session(session, 0)));
    assert_eq!(bench.fails(&sign(&key, with(session))), rc::reference_s(1));
}

#[test]
fn a_binding_ends_when_the_authorization_value_changes() {
    let mut bench = Bench::new();
    let owner = Entity::permanent(OWNER, b"");
    bench.ok(&change_auth(&owner, b"first", password(&owner)));
    let first = Entity::permanent(OWNER, b"first");
    let bound = bench.start(&Start { bind: Some(first.clone()), ..Start::default() });
    let unbound = bench.start(&Start { alg: SHA512, ..Start::default() });
    bench.ok(&change_auth(&first, b"first", with(bound)));
    bench.ok(&change_auth(&first, b"second", with(bound)));
    // The client's session includes the new value now, as the one that it is bound to is another.
    let second = Entity::permanent(OWNER, b"second");
    bench.ok(&change_auth(&second, b"third", with(bound)));
    let third = Entity::permanent(OWNER, b"third");
    bench.ok(&change_auth(&third, b"", with(unbound)));
    bench.ok(&change_auth(&owner, b"", with(unbound)));
    assert_eq!(bench.fails(&change_auth(&third, b"", with(unbound))), rc::bad_auth(1));
}

#[test]
fn trailing_zeros_of_a_password_and_of_a_new_value_do_not_count() {
    let mut bench = Bench::new();
    let owner = bench.owner();
    bench.ok(&change_auth(&owner, b"a\0b\0\0", Auth::Password(vec![0; 5])));
    let owner = Entity::permanent(OWNER, b"a\0b");
    for good in [b"a\0b".as_slice(), b"a\0b\0", b"a\0b\0\0\0\0"] {
        bench.ok(&change_auth(&owner, b"a\0b", Auth::Password(good.to_vec())));
    }
    for bad in [b"a".as_slice(), b"a\0", b"a\0b\0c", b"", b"\0a\0b"] {
        let cmd = change_auth(&owner, b"a\0b", Auth::Password(bad.to_vec()));
        assert_eq!(bench.fails(&cmd), rc::bad_auth(1));
    }
    let session = bench.start(&Start { bind: Some(owner.clone()), ..Start::default() });
    bench.ok(&change_auth(&owner, b"a\0b", with(session)));
}

#[test]
fn an_entity_without_a_value_takes_an_empty_hmac_or_one_with_an_empty_key() {
    let mut bench = Bench::new();
    let owner = bench.owner();
    let session = bench.start(&Start::default());
    let cmd = change_auth(&owner, b"", with(session));
    let sent = bench.build(&cmd);
    assert_eq!(sent.bytes[10 + 4 + 4 + 4 + 2 + 32 + 1..][..2], [0, 0], "the client sends none");
    let response = bench.raw(&sent.bytes);
    bench.finish(&cmd, &sent, &response).unwrap();

    let s = &bench.sessions[session];
    let nonce = [7; 32];
    let params = [0, 0];
    let cp_hash = s.alg.hash(&[&cmd.code.to_be_bytes(), &owner.name, &params]);
    let mac = s.alg.hmac(b"", &[&cp_hash, &nonce, &s.nonce_tpm, &[1]]);
    let area = [&s.handle.to_be_bytes()[..], &[0, 32], &nonce, &[1], &[0, 32], &mac].concat();
    let body = [&OWNER.to_be_bytes()[..], &(area.len() as u32).to_be_bytes(), &area, &params].concat();
    let size = (body.len() as u32 + 10).to_be_bytes();
    let bytes = [&[0x80, 2][..], &size, &cmd.code.to_be_bytes(), &body].concat();
    let response = bench.raw(&bytes);
    assert_eq!(response[6..10], [0; 4]);
    // And is answered with one.
    assert_eq!(response[14 + 2 + 32 + 1..][..2], [0, 32]);
}

#[test]
fn a_session_serves_once_in_a_command() {
    let mut bench = Bench::new();
    let key = bench.free_key();
    let session = bench.start(&Start::default());
    let mut cmd = sign(&key, with(session));
    cmd.auths.push(Auth::Session(session, attr::CONTINUE | attr::AUDIT));
    assert_eq!(bench.fails(&cmd), rc::handle(2));
}

#[test]
fn an_authorization_that_is_missing_or_has_no_use_is_refused() {
    let mut bench = Bench::new();
    let key = bench.free_key();
    let session = bench.start(&Start::default());
    let mut missing = sign(&key, with(session));
    missing.auths.clear();
    assert_eq!(bench.fails(&missing), rc::AUTH_MISSING);

    let mut idle = sign(&key, password(&key));
    idle.auths.push(with(session));
    assert_eq!(bench.fails(&idle), rc::attributes(2));
    let mut twice = sign(&key, password(&key));
    twice.auths.push(password(&key));
    assert_eq!(bench.fails(&twice), rc::handle(2));
    assert_eq!(bench.fails(&get_random(vec![with(session)])), rc::attributes(1));
    assert_eq!(bench.fails(&get_random(vec![Auth::Password(vec![])])), rc::handle(1));
}

#[test]
fn a_session_bound_to_a_protected_key_counts_whatever_it_is_used_for() {
    let mut bench = Bench::new();
    let (protected, free) = (bench.protected_key(), bench.free_key());
    let session = bench.start(&Start { bind: Some(protected), ..Start::default() });
    bench.ok(&sign(&free, with(session)));
    let wrong = Entity { auth: b"wrong".to_vec(), ..free.clone() };
    assert_eq!(bench.fails(&sign(&wrong, with(session))), rc::auth_fail(1));

    let lockout = Entity::permanent(LOCKOUT, b"");
    let session = bench.start(&Start { bind: Some(lockout), ..Start::default() });
    bench.ok(&sign(&free, with(session)));
    assert_eq!(bench.fails(&sign(&wrong, with(session))), rc::auth_fail(1));
    assert_eq!(bench.fails(&sign(&free, with(session))), rc::LOCKOUT);
}
