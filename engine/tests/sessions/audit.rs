//! Audit sessions.

use crate::client::{Auth, Bench, Cmd, RS_PW, attr, cc, rc};
use crate::crypto::{ALGS, Symmetric};
use crate::setup::{Start, get_random, password, quote, sign, with};
use vtpm_engine::RecordKey;
use vtpm_engine::state::Session;
use vtpm_protocol::codec::decode_exact;

const AUDIT: u8 = attr::CONTINUE | attr::AUDIT;

/// The audit digest that the TPM keeps, from its saved state: a version, then the session.
fn audit_digest(bench: &Bench, session: usize) -> Vec<u8> {
    let slot = bench.sessions[session].handle & 0x00ff_ffff;
    let record = &bench.world.saved[&RecordKey::Session(slot)];
    decode_exact::<Session>(&record[2..]).unwrap().audit_digest.to_vec()
}

#[test]
fn the_digest_holds_every_command_and_response_as_they_travelled() {
    for alg in ALGS {
        let mut bench = Bench::new();
        let key = bench.protected_key();
        let audit = bench.start(&Start { alg, bind: Some(key.clone()), ..Start::default() });
        let cipher = bench.start(&Start { symmetric: Symmetric::Aes(128), ..Start::default() });
        let encrypts = Auth::Session(cipher, attr::CONTINUE | attr::DECRYPT | attr::ENCRYPT);
        for cmd in [
            sign(&key, Auth::Session(audit, AUDIT)),
            get_random(vec![Auth::Session(audit, AUDIT)]),
            quote(&key, b"data", vec![password(&key), Auth::Session(audit, AUDIT), encrypts]),
        ] {
            bench.ok(&cmd);
            assert_eq!(audit_digest(&bench, audit), bench.sessions[audit].audit_digest, "{alg:?}");
        }
        bench.ok(&get_random(vec![Auth::Session(audit, AUDIT | attr::RESET)]));
        assert_eq!(audit_digest(&bench, audit), bench.sessions[audit].audit_digest);
        let before = audit_digest(&bench, audit);
        bench.ok(&sign(&key, with(audit)));
        assert_eq!(audit_digest(&bench, audit), before, "a use that does not audit");
    }
}

#[test]
fn a_bound_session_that_audits_is_bound_no_longer() {
    let mut bench = Bench::new();
    let key = bench.protected_key();
    let session = bench.start(&Start { bind: Some(key.clone()), ..Start::default() });
    bench.ok(&sign(&key, Auth::Session(session, AUDIT)));
    assert_eq!(bench.sessions[session].bound, None);
    bench.ok(&sign(&key, with(session)));
    bench.sessions[session].bound = Some((key.name.clone(), key.auth.clone()));
    assert_eq!(bench.fails(&sign(&key, with(session))), rc::auth_fail(1));
}

#[test]
fn exclusiveness_ends_with_any_command_outside_of_the_session() {
    let mut bench = Bench::new();
    let (one, two) = (bench.start(&Start::default()), bench.start(&Start::default()));
    let audited = |session, more| get_random(vec![Auth::Session(session, AUDIT | more)]);
    let exclusive = |attributes: &[u8]| attributes[0] & attr::EXCLUSIVE != 0;

    assert!(exclusive(&bench.ok(&audited(one, 0)).attributes), "the first use");
    assert!(exclusive(&bench.ok(&audited(one, attr::EXCLUSIVE)).attributes));
    bench.ok(&get_random(vec![]));
    assert!(!exclusive(&bench.ok(&audited(one, 0)).attributes));
    assert_eq!(bench.fails(&audited(one, attr::EXCLUSIVE)), rc::EXCLUSIVE);
    assert!(exclusive(&bench.ok(&audited(one, attr::EXCLUSIVE | attr::RESET)).attributes));

    assert!(exclusive(&bench.ok(&audited(two, 0)).attributes));
    assert_eq!(bench.fails(&audited(one, attr::EXCLUSIVE)), rc::EXCLUSIVE);
    assert!(exclusive(&bench.ok(&audited(two, attr::EXCLUSIVE)).attributes));
    // Failures and commands that take no sessions do not end it.
    assert_eq!(bench.fails(&Cmd { params: vec![], ..get_random(vec![]) }), 0x1da);
    let spare = bench.sessions[one].handle.to_be_bytes().to_vec();
    bench.ok(&Cmd { code: cc::FLUSH_CONTEXT, params: spare, ..Cmd::default() });
    assert!(exclusive(&bench.ok(&audited(two, attr::EXCLUSIVE)).attributes));
    // Ending the session does.
    bench.ok(&get_random(vec![Auth::Session(two, attr::AUDIT)]));
    let three = bench.start(&Start::default());
    assert_eq!(bench.sessions[three].handle, bench.sessions[one].handle);
    assert!(exclusive(&bench.ok(&audited(three, 0)).attributes));
}

#[test]
fn one_session_audits_and_it_is_no_policy_and_no_password() {
    let mut bench = Bench::new();
    let key = bench.free_key();
    let (one, two) = (bench.start(&Start::default()), bench.start(&Start::default()));
    let policy = bench.start(&Start::policy());
    let auths = vec![Auth::Session(one, AUDIT), Auth::Session(two, AUDIT)];
    assert_eq!(bench.fails(&quote(&key, b"", auths)), rc::attributes(2));
    assert_eq!(bench.fails(&get_random(vec![Auth::Session(policy, AUDIT)])), rc::attributes(1));
    for lonely in [attr::EXCLUSIVE, attr::RESET] {
        let cmd = sign(&key, Auth::Session(one, attr::CONTINUE | lonely));
        assert_eq!(bench.fails(&cmd), rc::attributes(1));
    }
    let sent = bench.build(&sign(&key, password(&key)));
    let at = 10 + 4 + 4 + 4 + 2;
    assert_eq!(sent.bytes[18..22], RS_PW.to_be_bytes());
    for attribute in [attr::AUDIT, attr::EXCLUSIVE, attr::RESET, attr::DECRYPT, attr::ENCRYPT] {
        let mut bytes = sent.bytes.clone();
        bytes[at] = attribute;
        assert_eq!(bench.raw(&bytes)[6..], rc::attributes(1).to_be_bytes());
    }
}
