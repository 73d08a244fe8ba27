//! Sequences with HMAC sessions.

use crate::client::{Auth, Bench, Cmd, Entity, OWNER, attr, b2, cc, take_2b};
use crate::crypto::{ALGS, SHA256, Symmetric};
use crate::setup::{Start, with};

fn start(bench: &mut Bench, auth: &[u8]) -> Entity {
    let params = [b2(auth), vec![0, 0x0b]].concat();
    let reply =
        bench.ok(&Cmd { code: cc::HASH_SEQUENCE_START, params, returns_handle: true, ..Cmd::default() });
    // A sequence has no Name.
    Entity { handle: reply.handle.unwrap(), name: vec![], auth: auth.to_vec() }
}

fn update(sequence: &Entity, data: &[u8], auths: Vec<Auth>) -> Cmd {
    Cmd {
        code: cc::SEQUENCE_UPDATE,
        handles: vec![sequence.clone()],
        authorized: 1,
        auths,
        params: b2(data),
        ..Cmd::default()
    }
}

fn complete(sequence: &Entity, data: &[u8], auths: Vec<Auth>) -> Cmd {
    let params = [b2(data), OWNER.to_be_bytes().to_vec()].concat();
    Cmd { code: cc::SEQUENCE_COMPLETE, params, ..update(sequence, &[], auths) }
}

/// The client checks that the response, too, is authorized with the value of the sequence, which is gone by then.
#[test]
fn the_value_of_a_sequence_authorizes_its_end_and_the_response() {
    let mut bench = Bench::new();
    for alg in ALGS {
        for symmetric in [Symmetric::Aes(128), Symmetric::Tdes(192), Symmetric::Xor(SHA256)] {
            let session = bench.start(&Start { alg, symmetric, ..Start::default() });
            let sequence = start(&mut bench, b"value of the sequence");
            let encrypted = Auth::Session(session, attr::CONTINUE | attr::DECRYPT);
            bench.ok(&update(&sequence, b"some data, ", vec![encrypted]));
            bench.ok(&update(&sequence, b"more, ", vec![with(session)]));
            let both = Auth::Session(session, attr::DECRYPT | attr::ENCRYPT);
            let reply = bench.ok(&complete(&sequence, b"and the rest", vec![both]));
            let digest = SHA256.hash(&[b"some data, more, and the rest"]);
            assert_eq!(take_2b(&mut &reply.params[..]), digest);
        }
    }
}

#[test]
fn a_wrong_value_does_not_end_a_sequence() {
    let mut bench = Bench::new();
    let session = bench.start(&Start::default());
    let sequence = start(&mut bench, b"value");
    let wrong = Entity { auth: b"other".to_vec(), ..sequence.clone() };
    let rc = bench.fails(&complete(&wrong, b"", vec![with(session)]));
    assert_eq!(rc, crate::client::rc::bad_auth(1));
    bench.ok(&complete(&sequence, b"", vec![with(session)]));
}

/// A session that was bound to a sequence is bound to an entity without a Name.
#[test]
fn a_session_can_be_bound_to_a_sequence() {
    let mut bench = Bench::new();
    let sequence = start(&mut bench, b"value");
    let session = bench.start(&Start { bind: Some(sequence.clone()), ..Start::default() });
    bench.ok(&update(&sequence, b"data", vec![with(session)]));
    bench.ok(&complete(&sequence, b"", vec![with(session)]));
}
