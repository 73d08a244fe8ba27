//! Tickets, receipts and identities that are not what they say, and slots without end.

use std::time::SystemTime;

use vtpm_protocol::codec::decode_exact;
use vtpm_protocol::instance::{CreateInstanceIn, INSTANCE_SELF, MigrationTicket};
use vtpm_protocol::tpm::TpmtHa;
use vtpm_protocol::tpm::TpmtSignature;

use super::*;
use crate::tree::FLEET_KEY;
use crate::trust::{self, Untrusted, identity};

/// A source that trusts the destination, and the destination's ticket, which the source has not seen yet.
fn unarmed() -> Pair {
    let (source, destination) = (Host::with_vm(0), Host::new(1));
    source.trust(&destination);
    let ticket = destination.client().prepare("vm", UUID, ECC_STORAGE_KEY).unwrap().ticket;
    Pair { source, destination, ticket }
}

const FORGED: &str = "its signature is not genuine, or it is of a destination that is not trusted here";

/// Neither LockInstance nor ArmInstance takes the ticket, and nothing has changed.
#[track_caller]
fn assert_no_lock(pair: &Pair, ticket: &MigrationTicket, phrase: &str) {
    let before = Sides::of(pair);
    let (client, vm) = (pair.source.client(), pair.source.vm().handle());
    let flags = LockFlags::default();
    let both = [client.lock(vm, ticket, flags), client.arm(vm, Some(ticket.clone()), flags)];
    for said in both.map(said) {
        assert!(said.contains(phrase), "{said:?} has no {phrase:?}");
    }
    assert!(Sides::of(pair) == before);
    assert!(pair.source.vm().executes());
}

#[test]
fn a_changed_byte_anywhere_in_a_ticket_is_noticed() {
    let pair = unarmed();
    let bytes = pair.ticket.to_bytes();
    let mut decoded = 0;
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 1 << (at % 8);
        // What does not decode, vtpmctl calls no ticket before it asks anybody.
        if let Ok(ticket) = decode_exact::<MigrationTicket>(&bad) {
            decoded += 1;
            assert_no_lock(&pair, &ticket, FORGED);
        }
        for n in [at, at + 1] {
            assert!(n == bytes.len() || decode_exact::<MigrationTicket>(&bytes[..n]).is_err(), "{n} bytes");
        }
    }
    assert!(decoded > bytes.len() * 3 / 4, "{decoded} of {}", bytes.len());
    pair.source.client().lock(pair.source.vm().handle(), &pair.ticket, LockFlags::default()).unwrap();
}

#[test]
fn a_ticket_of_a_stranger_or_with_a_borrowed_signature_is_refused() {
    let pair = unarmed();
    let genuine = pair.ticket.clone();
    let stranger = Host::new(2);
    let strange = stranger.client().prepare("vm", UUID, ECC_STORAGE_KEY).unwrap().ticket;
    assert_no_lock(&pair, &strange, FORGED);
    // In the name of the peer: its key, its certificate, its signature of another ticket.
    let signer = genuine.signer.clone();
    assert_no_lock(&pair, &MigrationTicket { signer: signer.clone(), ..strange.clone() }, FORGED);
    let signature = genuine.signature.clone();
    assert_no_lock(&pair, &MigrationTicket { signature: signature.clone(), ..strange.clone() }, FORGED);
    let borrowed = MigrationTicket { signer, signature, ..strange.clone() };
    assert_no_lock(&pair, &borrowed, FORGED);
    // The stranger's storage key or receipts in the peer's ticket.
    let storage = MigrationTicket {
        storage_name: strange.storage_name.clone(),
        storage_public: strange.storage_public.clone(),
        ..genuine.clone()
    };
    assert_no_lock(&pair, &storage, FORGED);
    assert_no_lock(&pair, &MigrationTicket { void: strange.void, ..genuine.clone() }, FORGED);
    assert_no_lock(&pair, &MigrationTicket { live: strange.live, ..genuine.clone() }, FORGED);
    // The signature of another ticket of the same peer, for another instance.
    let other = Uuid([5; 16]);
    let second = pair.destination.client().prepare("other", other, ECC_STORAGE_KEY).unwrap().ticket;
    assert_no_lock(&pair, &MigrationTicket { uuid: UUID, ..second.clone() }, FORGED);
    let signature = second.signature.clone();
    assert_no_lock(&pair, &MigrationTicket { signature, ..genuine.clone() }, FORGED);
    assert_no_lock(&pair, &second, "the ticket is not for this instance");
    // Without one, also as the version that had none.
    let unsigned = MigrationTicket { signature: Tpm2b::empty(), ..genuine.clone() };
    assert_no_lock(&pair, &unsigned, "the ticket is not signed");
    let version_1 = as_version_1(&genuine, &[]);
    assert_no_lock(&pair, &decode_exact(&version_1).unwrap(), "the ticket is not signed");
    assert!(decode_exact::<MigrationTicket>(&as_version_1(&genuine, &genuine.signature)).is_err());
    pair.source.client().lock(pair.source.vm().handle(), &genuine, LockFlags::default()).unwrap();
}

/// The ticket as releases up to 0.2.0 wrote it.
fn as_version_1(ticket: &MigrationTicket, signature: &[u8]) -> Vec<u8> {
    let mut out = (0x7654_504bu32, 1u16, ticket.migration_id, ticket.uuid).to_bytes();
    (&ticket.storage_name, &ticket.storage_public, ticket.void, ticket.live).encode(&mut out);
    encode_sized(signature, &mut out);
    out
}

#[test]
fn a_ticket_under_another_shared_storage_key_is_refused() {
    let pair = unarmed();
    let (source, destination) = (pair.source.client(), pair.destination.client());
    destination.create_fleet_key().unwrap();
    destination.delete(pair.destination.vm().handle()).unwrap();
    let theirs = destination.prepare("vm", UUID, FLEET_KEY).unwrap().ticket;
    assert_no_lock(&pair, &theirs, FORGED);
    // The source has a key of its own: what the other's key authenticated is no word about that one.
    source.create_fleet_key().unwrap();
    assert_no_lock(&pair, &theirs, FORGED);
    let (storage_public, storage_name) = source.read_public(FLEET_KEY).unwrap();
    let renamed = MigrationTicket { storage_public, storage_name, ..theirs };
    assert_no_lock(&pair, &renamed, FORGED);
    let Ok(TpmtSignature::Hmac(mac)) = decode_exact(&renamed.signature) else { panic!("an HMAC") };
    let short = TpmtSignature::Hmac(TpmtHa { digest: Vec::new(), ..mac }).to_bytes();
    assert_no_lock(
        &pair,
        &MigrationTicket { signature: Tpm2b::new(short).unwrap_or_default(), ..renamed },
        "the ticket",
    );
}

/// Both receipts of a pair whose stream was saved: `live` from a copy of the destination that imported it.
fn receipts(pair: &Pair, stream: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let copy = || Host::over(pair.destination.memory.after_crash());
    let (gives_up, runs) = (copy(), copy());
    let void = gives_up.client().abort(gives_up.vm().handle(), &[]).unwrap();
    runs.vm().load(&mut &*stream).unwrap();
    assert_eq!(code(&runs.vm().execute(0, &get_random(), None)), ResponseCode::SUCCESS);
    (void, runs.client().commit(runs.vm().handle(), &[]).unwrap())
}

#[test]
fn a_receipt_of_the_other_kind_of_another_migration_or_changed_anywhere_settles_nothing() {
    const WRONG: &str = "the receipt is not one of this migration, or of its other outcome";
    let mut pair = Pair::new();
    let (old_void, old_live) = receipts(&pair, &pair.save());
    give_up(&pair);
    renew(&mut pair);
    let (void, live) = receipts(&pair, &pair.save());
    let before = Sides::of(&pair);
    let client = pair.source.client();
    let vm = pair.source.vm().handle();
    let abort = |receipt: &[u8]| said(client.abort(vm, receipt));
    let commit = |receipt: &[u8]| said(client.commit(vm, receipt));
    for text in [
        abort(&live),
        abort(&old_void),
        abort(&old_live),
        commit(&void),
        commit(&old_live),
        commit(&old_void),
    ] {
        assert!(text.contains(WRONG), "{text}");
    }
    for bit in 0..256 {
        let flipped = |receipt: &[u8]| {
            let mut bad = receipt.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            bad
        };
        for text in [abort(&flipped(&void)), commit(&flipped(&live))] {
            assert!(text.contains(WRONG), "bit {bit}: {text}");
        }
    }
    for n in 1..32 {
        for text in [abort(&void[..n]), commit(&live[..n])] {
            assert!(text.contains(WRONG), "{n} bytes: {text}");
        }
    }
    let long = [&void[..], &[0]].concat();
    for text in [abort(&long), commit(&long)] {
        assert!(text.contains("a receipt has 32 bytes"), "{text}");
    }
    for text in [abort(&[]), commit(&[])] {
        assert!(text.contains("has no such step"), "a source reveals nothing: {text}");
    }
    assert!(Sides::of(&pair) == before);
    client.abort(vm, &void).unwrap();
}

#[test]
fn a_changed_byte_anywhere_in_an_identity_makes_it_none_or_a_strangers() {
    let (host, other) = (Host::new(0), Host::new(1));
    host.trust(&other);
    let peers = host.client().peers().unwrap();
    let before = host.content();
    let document = other.client().identity().unwrap();
    let text = identity::to_text(&document).into_bytes();
    let genuine = identity::verify(identity::from_text(&text).unwrap()).unwrap();
    assert!(genuine.recognize(&peers, SystemTime::now()).is_ok());
    let binary = document.to_bytes();
    let judge = |document: trust::Identity| -> String {
        if document == *genuine.document() {
            return "the same".into();
        }
        match identity::verify(document) {
            Err(error) => error.to_string(),
            Ok(verified) => {
                // Attributes of the attestation key are part of its Name, which people compare and hosts pin.
                assert_ne!(verified.fingerprint(), genuine.fingerprint());
                let untrusted = verified.recognize(&peers, SystemTime::now()).unwrap_err();
                assert!(matches!(untrusted, Untrusted::Unknown | Untrusted::NoAttestationKey), "{untrusted}");
                untrusted.to_string()
            }
        }
    };
    for at in 0..text.len() {
        let mut bad = text.clone();
        bad[at] ^= 1 << (at % 7);
        let verdict = identity::from_text(&bad).map_or_else(|error| error.to_string(), &judge);
        assert!(!verdict.is_empty());
        // White space at the ends of lines is not part of the document.
        assert!(verdict != "the same" || text[at].is_ascii_whitespace(), "byte {at}");
    }
    for at in 0..binary.len() {
        let mut bad = binary.clone();
        bad[at] ^= 1 << (at % 8);
        if let Ok(document) = decode_exact(&bad) {
            assert_ne!(judge(document), "the same", "byte {at}");
        }
    }
    assert!(host.content() == before);
}

#[test]
fn slots_beyond_the_limit_are_refused_and_those_that_are_there_work() {
    const LIMIT: usize = 40;
    let pair = Pair::new();
    pair.destination.tree.set_limit(LIMIT);
    let client = pair.destination.client();
    let there = pair.destination.tree.instances().len();
    let slot = |n: usize| {
        let uuid = Uuid([n as u8; 16]);
        client.prepare(&format!("flood-{n}"), uuid, ECC_STORAGE_KEY)
    };
    for n in 100..100 + LIMIT - there {
        slot(n).unwrap();
    }
    let before = Sides::of(&pair);
    for n in 200..232 {
        let said = said(slot(n));
        assert!(said.contains("there are as many instances as there may be"), "{said}");
    }
    // With other people's names and UUIDs.
    let taken = said(client.prepare("vm", Uuid([9; 16]), ECC_STORAGE_KEY));
    assert!(taken.contains("there is an instance with this name or UUID"), "{taken}");
    let input = CreateInstanceIn {
        uuid: UUID,
        name: InstanceName::new("flood-x").unwrap(),
        attributes: Default::default(),
        storage_public: Tpm2b::empty(),
        certificate: Tpm2b::empty(),
    };
    assert!(
        said(client.create(INSTANCE_SELF, &input)).contains("there is an instance with this name or UUID")
    );
    assert!(Sides::of(&pair) == before);
    assert_eq!(import(&pair, &pair.save()), None);
    // A slot that is deleted makes room.
    client.delete(pair.destination.tree.by_name("flood-100").unwrap().handle()).unwrap();
    slot(250).unwrap();
}
