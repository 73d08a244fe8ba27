//! Audit sessions.

use crate::client::{Auth, Bench, Cmd, ENDORSEMENT, Entity, RS_PW, attr, b2, cc, rc, take_2b};
use crate::crypto::{ALGS, SHA512, Symmetric};
use crate::setup::{Start, get_random, password, quote, sign, with};
use vtpm_engine::RecordKey;
use vtpm_engine::state::{Session, Volatile};
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

/// `TPM2_GetSessionAuditDigest` of a session, signed with a key and authorized with passwords and `more`.
fn report(bench: &Bench, key: &Entity, session: usize, more: Vec<Auth>) -> Cmd {
    let admin = Entity::permanent(ENDORSEMENT, b"");
    let session = Entity::permanent(bench.sessions[session].handle, b"");
    let auths = [vec![password(&admin), password(key)], more].concat();
    let params = [b2(b"nonce"), vec![0, 0x10]].concat();
    let handles = vec![admin, key.clone(), session];
    Cmd { code: cc::GET_SESSION_AUDIT_DIGEST, handles, authorized: 2, auths, params, ..Cmd::default() }
}

/// exclusiveSession and sessionDigest of the attestation in a response.
fn reported(params: &[u8]) -> (bool, Vec<u8>) {
    let attest = take_2b(&mut &params[..]);
    assert_eq!(attest[..6], [0xff, b'T', b'C', b'G', 0x80, 0x16]);
    let mut rest = &attest[6..];
    take_2b(&mut rest);
    assert_eq!(take_2b(&mut rest), b"nonce");
    // Clock, its counts and the version.
    let mut rest = &rest[8 + 4 + 4 + 1 + 8..];
    let exclusive = rest[0] != 0;
    rest = &rest[1..];
    let digest = take_2b(&mut rest).to_vec();
    assert!(rest.is_empty());
    (exclusive, digest)
}

#[test]
fn the_attested_digest_is_that_of_the_client() {
    for alg in ALGS {
        let mut bench = Bench::new();
        let key = bench.free_key();
        let audit = bench.start(&Start { alg, ..Start::default() });
        bench.ok(&get_random(vec![Auth::Session(audit, AUDIT)]));
        // A report inside of the session is of all before it, and leaves the session exclusive.
        for _ in 0..2 {
            let before = bench.sessions[audit].audit_digest.clone();
            let inside = report(&bench, &key, audit, vec![Auth::Session(audit, AUDIT | attr::EXCLUSIVE)]);
            assert_eq!(reported(&bench.ok(&inside).params), (true, before));
            assert_eq!(audit_digest(&bench, audit), bench.sessions[audit].audit_digest, "{alg:?}");
        }
        // One outside finds it exclusive, and ends that.
        let outside = report(&bench, &key, audit, vec![]);
        let digest = bench.sessions[audit].audit_digest.clone();
        assert_eq!(reported(&bench.ok(&outside).params), (true, digest.clone()));
        assert_eq!(reported(&bench.ok(&outside).params), (false, digest));
    }
}

#[test]
fn one_session_audits_and_encrypts_both_ways() {
    for (alg, symmetric) in
        ALGS.into_iter().zip([Symmetric::Aes(128), Symmetric::Aes(256)].into_iter().cycle())
    {
        let mut bench = Bench::new();
        let key = bench.protected_key();
        let all = bench.start(&Start { alg, symmetric, bind: Some(key.clone()), ..Start::default() });
        let uses = AUDIT | attr::DECRYPT | attr::ENCRYPT;
        // As the authorization, and beside one.
        bench.ok(&quote(&key, b"some data", vec![Auth::Session(all, uses)]));
        assert_eq!(audit_digest(&bench, all), bench.sessions[all].audit_digest, "{alg:?}");
        bench.ok(&quote(&key, b"some data", vec![password(&key), Auth::Session(all, uses)]));
        assert_eq!(audit_digest(&bench, all), bench.sessions[all].audit_digest, "{alg:?}");
        // The report of its digest travels encrypted in it.
        let before = bench.sessions[all].audit_digest.clone();
        let inside = report(&bench, &key, all, vec![Auth::Session(all, uses)]);
        assert_eq!(reported(&bench.ok(&inside).params), (true, before));
        assert_eq!(audit_digest(&bench, all), bench.sessions[all].audit_digest, "{alg:?}");
    }
}

#[test]
fn a_failed_command_is_not_audited_and_makes_no_audit_session() {
    let mut bench = Bench::new();
    let key = bench.free_key();
    let session = bench.start(&Start { bind: Some(key.clone()), ..Start::default() });
    let audited = |cmd: Cmd| Cmd { auths: vec![Auth::Session(session, AUDIT | attr::RESET)], ..cmd };
    let short = audited(Cmd { params: vec![0], ..get_random(vec![]) });
    assert_eq!(bench.fails(&short), 0x1da);
    assert_eq!(audit_digest(&bench, session), []);
    let other = bench.start(&Start::default());
    let unused = report(&bench, &key, session, vec![Auth::Session(other, AUDIT)]);
    assert_eq!(bench.fails(&unused), 0x38a, "the session audits nothing");
    // It is still bound, and its first use that succeeds begins the digest.
    bench.ok(&sign(&key, with(session)));
    bench.ok(&sign(&key, Auth::Session(session, AUDIT)));
    assert_eq!(audit_digest(&bench, session), bench.sessions[session].audit_digest);
    // Nor does a failure reset it.
    let before = audit_digest(&bench, session);
    assert_eq!(bench.fails(&short), 0x1da);
    assert_eq!(audit_digest(&bench, session), before);
}

#[test]
fn a_command_may_be_in_both_audits() {
    let mut bench = Bench::new();
    let audit = bench.start(&Start::default());
    let owner = bench.owner();
    // Of commands only the one that sets them is audited by default; the code of GetRandom is added.
    let params = [vec![0, 0x10, 0, 0, 0, 1], cc::GET_RANDOM.to_be_bytes().to_vec(), vec![0; 4]].concat();
    let set = Cmd {
        code: cc::SET_COMMAND_CODE_AUDIT_STATUS,
        handles: vec![owner.clone()],
        authorized: 1,
        auths: vec![password(&owner), Auth::Session(audit, AUDIT)],
        params,
        ..Cmd::default()
    };
    let mut expected = vec![0; 64];
    for cmd in [set, get_random(vec![Auth::Session(audit, AUDIT)])] {
        let sent = bench.build(&cmd);
        let response = bench.raw(&sent.bytes);
        let reply = bench.finish(&cmd, &sent, &response).unwrap();
        let rp_parts = [&[0; 4][..], &cmd.code.to_be_bytes(), &reply.params].concat();
        expected = SHA512.hash(&[&expected, &SHA512.hash(&[&sent.cp_parts]), &SHA512.hash(&[&rp_parts])]);
        assert_eq!(audit_digest(&bench, audit), bench.sessions[audit].audit_digest);
        let volatile: Volatile = decode_exact(&bench.world.saved[&RecordKey::Volatile][2..]).unwrap();
        assert_eq!(volatile.state_reset.command_audit_digest.to_vec(), expected);
    }
}
