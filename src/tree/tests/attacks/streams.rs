//! The stream, changed on its way or given to whom it is not for.

use std::collections::BTreeSet;

use vtpm_protocol::instance::{GetInstanceDataIn, Long2b, PieceKind};
use vtpm_protocol::stream::{FRAME_PREFIX, Frame};

use super::super::migration::{bytes, frames, split};
use super::*;

/// The frames of a pair's stream, with each piece in a frame of its own.
fn in_pieces(pair: &Pair) -> Vec<Frame> {
    let mut out = Vec::new();
    for frame in frames(&pair.save()) {
        match frame {
            Frame::Pieces(data) => {
                out.extend(split(&data).into_iter().map(|piece| Frame::Pieces(Long2b::new(piece).unwrap())));
            }
            other => out.push(other),
        }
    }
    assert!(out.len() >= 8, "header, key, five pieces, end");
    out
}

/// Where the pieces begin among the frames.
const PIECES: usize = 2;

#[test]
fn a_stream_is_taken_by_the_destination_that_its_ticket_names_only() {
    let pair = Pair::new();
    let stream = pair.save();
    let third = Host::new(2);
    third.client().prepare("vm", UUID, ECC_STORAGE_KEY).unwrap();
    let mut elsewhere = Pair { source: pair.source.crash(), destination: third, ticket: pair.ticket.clone() };
    assert_refused(&elsewhere, &stream, "is for another migration of this instance");
    // Under the header of its own slot, the key was encrypted to another host.
    let slot = elsewhere.destination.client().info(elsewhere.destination.vm().handle()).unwrap();
    let own = slot.ticket.unwrap();
    let mut renamed = frames(&stream);
    let Frame::Header(header) = &mut renamed[0] else { panic!() };
    header.migration_id = own.migration_id;
    assert_refused(&elsewhere, &bytes(&renamed), "there is no storage key here with the Name");
    let Frame::Header(header) = &mut renamed[0] else { panic!() };
    header.storage_name = own.storage_name;
    assert_refused(&elsewhere, &bytes(&renamed), "encrypted to another storage key");
    // And the right one still takes it.
    elsewhere.destination = pair.destination.crash();
    assert_eq!(import(&elsewhere, &stream), None);
}

#[test]
fn a_replayed_stream_changes_nothing() {
    let mut pair = Pair::new();
    let older = pair.save();
    assert_eq!(import(&pair, &older), None);
    // Before the machine runs, the same bytes may be offered again; they change nothing, taken or not.
    let before = Sides::of(&pair);
    drop(import(&pair, &older));
    assert!(Sides::of(&pair) == before);
    // Given up: what is void stays void.
    let void = pair.destination.client().abort(pair.destination.vm().handle(), &[]).unwrap();
    assert_refused(&pair, &older, "the instance is void");
    pair.source.client().abort(pair.source.vm().handle(), &void).unwrap();
    assert_refused(&pair, &older, "the instance is void");
    assert!(pair.source.vm().executes());

    // An older stream after a newer ticket, and after the newer stream.
    renew(&mut pair);
    assert_refused(&pair, &older, "is for another migration of this instance");
    let newer = pair.save();
    assert_refused(&pair, &older, "is for another migration of this instance");
    assert_eq!(import(&pair, &newer), None);
    assert_refused(&pair, &older, "");
    // After the first command the instance lives there.
    assert_eq!(code(&pair.destination.vm().execute(0, &get_random(), None)), ResponseCode::SUCCESS);
    assert_refused(&pair, &newer, "the instance is live");
    assert_refused(&pair, &older, "the instance is live");
    let live = pair.destination.client().commit(pair.destination.vm().handle(), &[]).unwrap();
    pair.source.client().commit(pair.source.vm().handle(), &live).unwrap();
    assert_refused(&pair, &newer, "the instance is live");
    // Nor does it come to life once more where it came from.
    let ticketless = pair.source.client().prepare("vm", UUID, ECC_STORAGE_KEY).unwrap();
    let back = Pair { destination: pair.source.crash(), source: pair.destination, ticket: ticketless.ticket };
    assert_refused(&back, &newer, "is for another migration of this instance");
}

#[test]
fn pieces_in_another_order_twice_or_left_out_are_refused() {
    let pair = Pair::new();
    let whole = in_pieces(&pair);
    let next = "not the one that comes next";
    for i in PIECES..whole.len() - 2 {
        let mut bad = whole.clone();
        bad.swap(i, i + 1);
        assert_refused(&pair, &bytes(&bad), next);
        bad = whole.clone();
        bad.insert(i, whole[i].clone());
        assert_refused(&pair, &bytes(&bad), next);
        bad = whole.clone();
        bad.remove(i);
        assert_refused(&pair, &bytes(&bad), next);
    }
    // Without the manifest, which is the last piece.
    let mut bad = whole.clone();
    bad.remove(whole.len() - 2);
    assert_refused(&pair, &bytes(&bad), "the migration digest is not that of what came");
    // Frames that are no pieces.
    for (i, j) in [(0, 1), (1, 2), (whole.len() - 2, whole.len() - 1)] {
        let mut bad = whole.clone();
        bad.swap(i, j);
        assert_refused(&pair, &bytes(&bad), "the migration stream is damaged");
    }
    let doubled = [bytes(&whole), bytes(&whole)].concat();
    assert_refused(&pair, &doubled, "bytes after the end of the stream");
    assert_eq!(import(&pair, &bytes(&whole)), None);
}

#[test]
fn a_stream_cut_at_any_frame_or_within_one_is_refused() {
    let pair = Pair::new();
    let whole = in_pieces(&pair);
    let stream = bytes(&whole);
    let mut edges = BTreeSet::from([0, 1]);
    let mut at = 0;
    for frame in &whole {
        let mut one = Vec::new();
        frame.encode(&mut one);
        at += one.len();
        edges.extend([at - 1, at, at + 1, at + FRAME_PREFIX]);
    }
    assert_eq!(at, stream.len());
    edges.extend((0..stream.len()).step_by(stream.len() / 50));
    for n in edges.into_iter().filter(|&n| n < stream.len()) {
        assert_refused(&pair, &stream[..n], "the migration stream is damaged: the stream ended early");
    }
    assert_eq!(import(&pair, &stream), None);
}

#[test]
fn pieces_of_two_migrations_of_an_instance_do_not_mix() {
    let mut pair = Pair::new();
    let older = in_pieces(&pair);
    give_up(&pair);
    renew(&mut pair);
    let newer = in_pieces(&pair);
    let last = newer.len() - 1;
    let with = |i: usize, frame: &Frame| {
        let mut mixed = newer.clone();
        mixed[i] = frame.clone();
        bytes(&mixed)
    };
    assert_refused(&pair, &with(0, &older[0]), "is for another migration of this instance");
    assert_refused(&pair, &with(1, &older[1]), "its key belongs to another migration or instance");
    for (i, frame) in older.iter().enumerate().take(last).skip(PIECES) {
        assert_refused(&pair, &with(i, frame), "was changed on the way, or is of another migration");
    }
    assert_refused(
        &pair,
        &with(last, &older[older.len() - 1]),
        "the migration digest is not that of what came",
    );
    // Everything behind the header.
    let mut mixed = older.clone();
    mixed[0] = newer[0].clone();
    assert_refused(&pair, &bytes(&mixed), "its key belongs to another migration or instance");
    assert_eq!(import(&pair, &bytes(&newer)), None);
}

#[test]
fn pieces_of_two_instances_do_not_mix() {
    let pair = Pair::new();
    let other = frames(&another_instance(&pair));
    let own = frames(&pair.save());
    assert_eq!((own.len(), other.len()), (4, 4));
    assert_refused(&pair, &bytes(&other), "is for another instance");
    for (i, phrase) in [
        (0, "is for another instance"),
        (1, "its key belongs to another migration or instance"),
        (2, "was changed on the way, or is of another migration"),
        (3, "the migration digest is not that of what came"),
    ] {
        let mut mixed = own.clone();
        mixed[i] = other[i].clone();
        assert_refused(&pair, &bytes(&mixed), phrase);
    }
    assert_eq!(import(&pair, &bytes(&own)), None);
}

/// What an operator may read of a stream in which one byte is another.
const DAMAGE: [&str; 9] = [
    "the migration stream is damaged: ",
    "the migration stream is for ",
    "there is no storage key here with the Name",
    "its key was changed on the way, or encrypted to another storage key",
    "its key belongs to another migration",
    "a piece was changed on the way, or is of another migration",
    "a piece does not decode",
    "a piece is cut short, or not all of them came",
    "the migration digest is not that of what came",
];

#[test]
fn a_changed_byte_anywhere_in_the_stream_is_noticed() {
    let pair = Pair::new();
    let stream = pair.save();
    let before = Sides::of(&pair);
    let mut met = BTreeSet::new();
    for at in 0..stream.len() {
        let mut bad = stream.clone();
        // Another bit at each place: all eight of them come by in every field that is long enough.
        bad[at] ^= 1 << (at % 8);
        let Some(said) = import(&pair, &bad) else { panic!("byte {at} of {}", stream.len()) };
        let phrase = DAMAGE.iter().find(|phrase| said.contains(*phrase));
        met.insert(*phrase.unwrap_or_else(|| panic!("byte {at}: {said}")));
        assert!(Sides::of(&pair) == before, "byte {at}: {said}");
    }
    assert!(met.len() >= 7, "{met:?}");
    assert_eq!(import(&pair, &stream), None);
}

#[test]
fn a_source_gives_nothing_to_whom_its_lock_does_not_name() {
    let pair = Pair::new();
    let (client, vm) = (pair.source.client(), pair.source.vm().handle());
    client.lock(vm, &pair.ticket, LockFlags::default()).unwrap();
    let before = Sides::of(&pair);
    // Any other storage key of its own root, as an attacker with the owner's word would take it.
    let named = said(client.get_key(vm, crate::tree::RSA_STORAGE_KEY));
    assert!(named.contains("the storage key is not the one that the ticket names"), "{named}");
    let request = GetInstanceDataIn { sequence: 0, kind: PieceKind::Everything, handle: 0, max_size: 4096 };
    let early = said(client.get_data(vm, &request));
    assert!(early.contains("has no such step"), "{early}");
    let fresh = said(client.unlock(vm, &[0; 32]));
    assert!(fresh.contains("has no such step"), "{fresh}");
    let other = Host::new(2);
    pair.source.trust(&other);
    let before_lock = Sides::of(&pair);
    let ticket = other.client().prepare("vm", UUID, ECC_STORAGE_KEY).unwrap().ticket;
    let second = said(client.lock(vm, &ticket, LockFlags::default()));
    assert!(second.contains("has no such step"), "{second}");
    assert!(Sides::of(&pair) == before_lock && before_lock.state == before.state);
}
