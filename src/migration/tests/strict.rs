//! Strict locks: what the source keeps, who can read it, and how it comes back.

use vtpm_protocol::codec::Encode;

use super::*;
use crate::migration::destination::Void;
use crate::migration::exported::Custody;
use crate::migration::session::Secret32;

/// A strict migration of which all is out: what left, and the slot that it goes to.
fn exported(max_size: usize) -> (Stream, DestinationLocked, Zeroizing<Vec<u8>>) {
    let (source, destination) = locked(LockFlags::STRICT);
    let (next, structure) = source.get_key(&name(), &mut fill(&mut 9)).unwrap();
    let Some(State::SourceKeyed(source)) = next else { panic!("keys were made") };
    (export_all(source.begin(), max_size), destination, structure.unwrap())
}

/// The states that only a strict migration has.
pub(super) fn every_state() -> Vec<State> {
    let (stream, destination, structure) = exported(1000);
    let keyed = destination.clone().set_key(&structure).unwrap();
    let (whole, _) = import_all(keyed.clone().begin(), &stream.data).unwrap();
    vec![
        stream.source,
        State::DestinationKeyed(keyed.clone()),
        State::Imported(whole.unlock(&stream.digest).unwrap()),
        State::Void(keyed.give_up()),
    ]
}

fn revealed(state: State) -> Secret32 {
    match state.abort(&[], &mut Held::default()) {
        Ok(Settled::Revealed(_, secret)) => secret,
        _ => panic!("there is a receipt"),
    }
}

fn comes_back(stream: &Stream, receipt: &Secret32) -> Result<Records, StepError> {
    let (source, mut held) = (stream.source.clone(), stream.held.clone());
    let Settled::Revived(live) = source.abort(receipt.expose(), &mut held)? else { panic!("revived") };
    assert!(live.executes() && held.escrow.is_empty() && held.sent.is_empty() && held.sent_key.is_empty());
    Ok(held.live)
}

#[test]
fn what_was_sent_comes_again_bit_for_bit_and_arrives() {
    for (cut, max_size) in [(1000, 2500), (1000, 1000), (MAX_INSTANCE_DATA, MAX_INSTANCE_DATA)] {
        let (stream, destination, structure) = exported(cut);
        let State::Exported(source) = &stream.source else { panic!("exported") };
        let (mut again, mut sequence, mut digest) = (Vec::new(), 0, Vec::new());
        while sequence < source.next_sequence() {
            let out = source.repeat(&everything(sequence, max_size), &stream.held).unwrap();
            again.push(out.data.to_vec());
            (sequence, digest) = (out.next, out.digest.to_vec());
        }
        assert_eq!((again.concat(), &digest), (stream.data.concat(), &stream.digest));
        let ahead = source.repeat(&everything(sequence + 1, 2500), &stream.held);
        assert_eq!(ahead.err(), Some(StepError::Order));
        let slot = destination.set_key(&structure).unwrap();
        assert!(import(slot.begin(), &again, &digest).unwrap() == records());
    }
}

#[test]
fn the_source_has_nothing_that_it_could_read() {
    let (stream, _, structure) = exported(1000);
    assert!(stream.held.live.is_empty() && stream.held.escrow.is_empty());
    let record = stream.source.to_record();
    let keys = KeyStructure::from_secret_bytes(&structure).ok().unwrap();
    for secret in [&keys.key, &keys.hmac_key] {
        assert!(!record.windows(32).any(|w| w == &secret[..]));
    }
    // The keys leave again as they are kept, and never in plain.
    let again = stream.source.get_key(&name(), &mut fill(&mut 50)).unwrap();
    assert!(again.0.is_none() && again.1.is_none());
}

#[test]
fn a_destination_that_has_the_keys_brings_the_source_back_wherever_it_gives_up() {
    let (stream, destination, structure) = exported(1000);
    let keyed = destination.set_key(&structure).unwrap();
    let half = keyed.clone().begin().accept(&stream.data[0], Zeroizing::default()).unwrap().next;
    let (whole, _) = import_all(keyed.clone().begin(), &stream.data).unwrap();
    let imported = whole.clone().unlock(&stream.digest).unwrap();
    for slot in [
        State::DestinationKeyed(keyed),
        State::Importing(half),
        State::Importing(whole),
        State::Imported(imported),
    ] {
        let slot = State::from_record(&slot.to_record()).unwrap();
        let Ok(Settled::Revealed(Some(void), receipt)) = slot.abort(&[], &mut Held::default()) else {
            panic!("given up")
        };
        let void = State::from_record(&void.to_record()).unwrap();
        assert_eq!(revealed(void).expose(), receipt.expose());
        assert!(comes_back(&stream, &receipt).unwrap() == records());
    }
}

#[test]
fn a_destination_that_gave_up_before_it_had_the_keys_takes_them_afterwards() {
    let (stream, destination, structure) = exported(1000);
    let initial = MigrationDigest::initial(&destination.slot.ticket.migration_id, UUID);
    let fresh = State::Live(destination.clone().unlock_fresh(initial.as_bytes()).unwrap());
    for slot in [State::Void(destination.give_up()), fresh] {
        let early = revealed(slot.clone());
        assert_eq!(comes_back(&stream, &early).err(), Some(StepError::Sealed));
        let slot = slot.set_key(&structure).unwrap();
        let receipt = revealed(State::from_record(&slot.to_record()).unwrap());
        assert!(comes_back(&stream, &receipt).unwrap() == records());
    }
}

#[test]
fn keys_of_somebody_else_do_not_keep_the_right_ones_out() {
    let (stream, destination, structure) = exported(1000);
    let keys = KeyStructure::from_secret_bytes(&structure).ok().unwrap();
    let other = KeyStructure { hmac_key: Zeroizing::new([0x77; 32]), ..keys };
    let void = State::Void(destination.clone().give_up());
    let fooled = void.clone().set_key(&other.to_secret_bytes()).unwrap();
    assert_eq!(comes_back(&stream, &revealed(fooled.clone())).err(), Some(StepError::Receipt));
    let righted = fooled.clone().set_key(&structure).unwrap();
    assert!(comes_back(&stream, &revealed(righted)).is_ok());
    // And where the source is not strict, its keys bring the plain receipt back.
    let plain = KeyStructure { strict: false, ..other };
    let plain = fooled.set_key(&plain.to_secret_bytes()).unwrap();
    assert_eq!(revealed(plain).expose(), destination.slot.void.expose());
    // Those of another migration are not taken at all.
    let foreign = KeyStructure {
        migration_id: [1; 32],
        strict: true,
        ..KeyStructure::from_secret_bytes(&structure).ok().unwrap()
    };
    assert_eq!(void.set_key(&foreign.to_secret_bytes()).err(), Some(StepError::Foreign));
}

#[test]
fn until_all_is_out_either_receipt_brings_it_back() {
    let (source, destination) = locked(LockFlags::STRICT);
    let void = destination.slot.void.clone();
    let (next, structure) = source.clone().get_key(&name(), &mut fill(&mut 9)).unwrap();
    let share = revealed(State::DestinationKeyed(destination.set_key(&structure.unwrap()).unwrap()));
    assert_ne!(share.expose(), void.expose());
    let keyed = next.unwrap();
    let mut held = Held { live: records(), sent_key: vec![1], ..Held::default() };
    let (exporting, _) = keyed.clone().export(&everything(0, 1000), &mut held).unwrap();
    for (state, receipts) in
        [(source, vec![&void]), (keyed, vec![&void, &share]), (exporting.unwrap(), vec![&void, &share])]
    {
        for receipt in receipts {
            let mut held = held.clone();
            assert!(matches!(state.clone().abort(receipt.expose(), &mut held), Ok(Settled::Revived(_))));
            assert!(held.live == records() && held.sent_key.is_empty());
        }
        let wrong = state.abort(&[5; 32], &mut held.clone());
        assert_eq!(wrong.err(), Some(StepError::Receipt));
    }
}

#[test]
fn a_live_receipt_ends_it_and_the_share_is_gone_with_the_first_command() {
    let (stream, destination, structure) = exported(1000);
    let keyed = destination.set_key(&structure).unwrap();
    let share = revealed(State::DestinationKeyed(keyed.clone()));
    let (whole, _) = import_all(keyed.begin(), &stream.data).unwrap();
    let live = State::Imported(whole.unlock(&stream.digest).unwrap()).first_command().unwrap();
    assert!(!live.to_record().windows(32).any(|w| w == share.expose()));
    let Ok(Settled::Revealed(None, receipt)) = live.commit(&[]) else { panic!("live") };
    let source = State::from_record(&stream.source.to_record()).unwrap();
    assert_eq!(source.clone().commit(share.expose()).err(), Some(StepError::Receipt));
    assert!(matches!(source.commit(receipt.expose()), Ok(Settled::Gone)));
}

#[test]
fn nothing_leaves_for_good_before_its_keys_do() {
    let (source, _) = locked(LockFlags::STRICT);
    let (next, _) = source.get_key(&name(), &mut fill(&mut 9)).unwrap();
    let mut held = Held { live: records(), ..Held::default() };
    assert!(next.as_ref().unwrap().keeps_key(&held));
    let refused = next.unwrap().export(&everything(0, MAX_INSTANCE_DATA), &mut held);
    assert_eq!(refused.err(), Some(StepError::StorageKey));
}

/// The record of version 2 of a state that was locked strictly by a release which kept nothing.
fn of_version_2(state: &State) -> Vec<u8> {
    let (State::Exporting(Exporting { session, keys, digest, log })
    | State::Exported(Exported { session, custody: Custody::Open(keys), digest, log })) = state
    else {
        panic!("not such a state")
    };
    let mut out = Vec::new();
    (2u16, state.kind(), &session.ticket, session.flags, Outcome::Open, 0u32).encode(&mut out);
    (session.policy, session.bound, *keys.key.expose(), *keys.hmac.expose(), *digest.as_bytes())
        .encode(&mut out);
    u32::try_from(log.len()).unwrap().encode(&mut out);
    for part in log {
        (part.id.kind, part.id.handle, part.offset, part.total, part.length).encode(&mut out);
    }
    out
}

#[test]
fn what_a_release_before_locked_strictly_says_that_it_is_gone() {
    let (source, destination) = keyed(LockFlags::STRICT);
    let void = *destination.slot.void.expose();
    let Stream { source: State::Exported(source), data, digest, .. } = export_all(source, 1000) else {
        panic!("exported")
    };
    let (importing, _) = import_all(destination, &data).unwrap();
    let live = *importing.unlock(&digest).unwrap().slot.live.expose();
    // As it was made then: the keys are there, and nothing else.
    let (exporting, _) = keyed(LockFlags::STRICT);
    let open = State::Exported(Exported { custody: Custody::Open(exporting.keys), ..source });
    let open = State::from_record(&of_version_2(&open)).unwrap();
    let mut nothing = Held::default();
    assert_eq!(open.clone().abort(&void, &mut nothing).err(), Some(StepError::NoEscrow));
    let again = open.clone().export(&everything(0, MAX_INSTANCE_DATA), &mut nothing);
    assert_eq!(again.err(), Some(StepError::NoEscrow));
    assert!(matches!(open.commit(&live), Ok(Settled::Gone)));
}

#[test]
fn what_a_release_before_gave_up_shows_the_same_receipt() {
    let (_, destination) = locked(LockFlags::default());
    let void: Void = destination.give_up();
    let mut out = Vec::new();
    (2u16, InstanceState::Void, &void.ticket, *void.void.expose()).encode(&mut out);
    assert_eq!(revealed(State::from_record(&out).unwrap()).expose(), void.void.expose());
}
