//! Attacks on a migration, by somebody who holds the stream, tickets or receipts in his hands, or sends commands of his own: each ends in an
//! error that has a name for the operator, and leaves both sides as they were.

mod streams;
mod tickets;

use vtpm_protocol::instance::{InstanceState, LockFlags, Uuid};

use super::migration::Pair;
use super::*;
use crate::migration::client::ClientError;
use crate::sentence;
use crate::tree::ECC_STORAGE_KEY;

/// All records of both sides, and where the instance stands on them.
#[derive(PartialEq)]
struct Sides {
    content: [Content; 2],
    state: [Option<InstanceState>; 2],
}

impl Sides {
    fn of(pair: &Pair) -> Self {
        let hosts = [&pair.source, &pair.destination];
        let state = |host: &Host| host.tree.by_name("vm").and_then(|vm| vm.state());
        Self { content: hosts.map(Host::content), state: hosts.map(state) }
    }
}

/// What the operator reads when the destination is given these bytes; `None` when it takes them.
fn import(pair: &Pair, stream: &[u8]) -> Option<String> {
    let vm = pair.destination.vm().handle();
    pair.destination.client().import(vm, &mut &*stream).err().map(|error| sentence(&error))
}

/// The stream is refused in a sentence with `phrase` in it, and nothing has changed on either side.
#[track_caller]
fn assert_refused(pair: &Pair, stream: &[u8], phrase: &str) {
    let before = Sides::of(pair);
    let said = import(pair, stream).expect("the stream is taken");
    assert!(said.contains(phrase), "{said:?} has no {phrase:?}");
    assert!(Sides::of(pair) == before, "after {said:?}");
    pair.assert_one_copy();
}

/// The sentence of a command that must fail.
#[track_caller]
fn said<T>(result: Result<T, ClientError>) -> String {
    match result {
        Ok(_) => panic!("the command succeeded"),
        Err(error) => sentence(&error),
    }
}

/// The destination gives up, and the source lives again.
fn give_up(pair: &Pair) {
    let void = pair.destination.client().abort(pair.destination.vm().handle(), &[]).unwrap();
    pair.source.client().abort(pair.source.vm().handle(), &void).unwrap();
}

/// After [`give_up`] the instance is to leave again: a new slot at the destination, the source armed for it.
fn renew(pair: &mut Pair) {
    let (source, destination) = (pair.source.client(), pair.destination.client());
    destination.delete(pair.destination.vm().handle()).unwrap();
    pair.ticket = destination.prepare("vm", UUID, ECC_STORAGE_KEY).unwrap().ticket;
    source.arm(pair.source.vm().handle(), Some(pair.ticket.clone()), LockFlags::default()).unwrap();
}

/// Another instance that leaves the same source for the same destination: its stream.
fn another_instance(pair: &Pair) -> Vec<u8> {
    const OTHER: Uuid = Uuid([0x22; 16]);
    pair.source.client().create_fresh("other", Some(OTHER)).unwrap();
    let ticket = pair.destination.client().prepare("other", OTHER, ECC_STORAGE_KEY).unwrap().ticket;
    let other = pair.source.tree.by_name("other").unwrap();
    pair.source.client().arm(other.handle(), Some(ticket), LockFlags::default()).unwrap();
    let mut stream = Vec::new();
    other.save(&mut stream).unwrap();
    stream
}
