//! Whose tickets a host takes; its peers; the keys of its root.

use std::sync::atomic::Ordering;

use super::*;
use crate::migration::client::{ClientError, Departure};
use crate::store::InstanceId;
use crate::tree::{ATTESTATION_KEY, ECC_STORAGE_KEY, FLEET_KEY, LINK_KEY, RSA_STORAGE_KEY};
use crate::trust::tests::{Authority, Subject, peer};
use crate::trust::{self, identity};
use vtpm_engine::RecordKey;
use vtpm_protocol::instance::{
    FleetKey, Identity, InstanceState, KeyRole, LockFlags, MAX_PEERS, MigrationTicket, PeerKind, cc,
};
use vtpm_protocol::rc::ResponseCode;

/// The identity of a root of the tests, with a certificate where there is one.
pub(crate) fn identity_of(number: usize) -> Identity {
    Host::new(number).client().identity().unwrap()
}

fn refused<T>(result: Result<T, ClientError>) -> ResponseCode {
    match result {
        Err(ClientError::Refused { code, .. }) => code,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("the command succeeded"),
    }
}

const SIGNATURE: ResponseCode = ResponseCode::SIGNATURE.parameter(1);

/// A ticket of the destination is refused, and nothing has changed.
fn assert_refused(source: &Host, ticket: &MigrationTicket) {
    let (vm, client) = (source.vm(), source.client());
    let before = source.content();
    assert_eq!(refused(client.lock(vm.handle(), ticket, LockFlags::default())), SIGNATURE);
    assert_eq!(refused(client.arm(vm.handle(), Some(ticket.clone()), LockFlags::default())), SIGNATURE);
    let departure = Departure { ticket: ticket.clone(), lock: Some(LockFlags::default()) };
    assert_eq!(refused(client.export(vm.handle(), &departure, &mut Vec::new())), SIGNATURE);
    assert!(source.content() == before);
    assert_eq!(vm.state(), Some(InstanceState::Live));
    assert_eq!(code(&vm.execute(0, &get_random(), None)), ResponseCode::SUCCESS);
}

fn ticket_of(destination: &Host) -> MigrationTicket {
    destination.client().prepare("vm", UUID, ECC_STORAGE_KEY).unwrap().ticket
}

#[test]
fn a_destination_that_is_no_peer_is_refused_before_anything_is_locked() {
    let (source, destination) = (Host::with_vm(0), Host::new(1));
    let ticket = ticket_of(&destination);
    assert_refused(&source, &ticket);
    source.trust(&Host::new(2));
    assert_refused(&source, &ticket);
    source.trust(&destination);
    source.client().lock(source.vm().handle(), &ticket, LockFlags::default()).unwrap();
    assert_eq!(source.vm().state(), Some(InstanceState::SourceLocked));
}

#[test]
fn an_unsigned_ticket_is_refused_even_of_a_peer() {
    let (source, destination) = (Host::with_vm(0), Host::new(1));
    source.trust(&destination);
    let client = destination.client();
    let (storage_public, _) = client.read_public(ECC_STORAGE_KEY).unwrap();
    let input = vtpm_protocol::instance::CreateInstanceIn {
        uuid: UUID,
        name: InstanceName::new("vm").unwrap(),
        attributes: Default::default(),
        storage_public,
        certificate: Tpm2b::empty(),
    };
    let made = client.create(vtpm_protocol::instance::INSTANCE_SELF, &input).unwrap();
    assert!(made.ticket.signature.is_empty());
    assert_refused(&source, &made.ticket);
}

#[test]
fn a_peer_that_was_removed_receives_nothing_although_the_instance_is_armed() {
    let (source, destination) = (Host::with_vm(0), Host::new(1));
    source.trust(&destination);
    let ticket = ticket_of(&destination);
    let client = source.client();
    client.arm(source.vm().handle(), Some(ticket), LockFlags::default()).unwrap();
    let label = client.peers().unwrap()[0].label.clone();
    client.remove_peer(&label).unwrap();
    assert!(source.vm().save(&mut Vec::new()).is_err());
    assert_eq!(source.vm().state(), Some(InstanceState::Live));
    source.trust(&destination);
    source.vm().save(&mut Vec::new()).unwrap();
}

#[test]
fn an_authority_s_certificate_makes_a_destination_trusted_and_no_other() {
    let (source, destination) = (Host::with_vm(0), Host::new(1));
    let fleet = Authority::new("fleet");
    let attestation = destination.client().identity().unwrap().attestation;
    let subject = Subject::of(&attestation);
    let ticket_with = |certificate: Vec<u8>| {
        let client = destination.client();
        client.set_certificate(&Tpm2b::new(certificate).unwrap()).unwrap();
        if let Some(slot) = destination.tree.by_name("vm") {
            client.delete(slot.handle()).unwrap();
        }
        ticket_of(&destination)
    };
    let good = ticket_with(fleet.certify(&subject, 2040, &[]));
    assert!(!good.certificate.is_empty());
    assert_refused(&source, &good);
    source.client().add_peer(&peer("fleet", PeerKind::Authority, &fleet.certificate)).unwrap();
    let client = source.client();
    let lock = |ticket| client.arm(source.vm().handle(), Some(ticket), LockFlags::default());
    lock(good.clone()).unwrap();

    assert_refused(&source, &MigrationTicket { certificate: Tpm2b::empty(), ..good.clone() });
    assert_refused(&source, &ticket_with(fleet.certify(&subject, 2021, &[])));
    assert_refused(&source, &ticket_with(Authority::new("fleet").certify(&subject, 2040, &[])));
    // A good certificate of another host does not help.
    let other = Subject::of(&identity_of(2).attestation);
    let borrowed = Tpm2b::new(fleet.certify(&other, 2040, &[])).unwrap();
    assert_refused(&source, &MigrationTicket { certificate: borrowed, ..good });
    // Longer than one NV_Write takes, and taken away again.
    let long = vec![7; 1500];
    destination.client().set_certificate(&Tpm2b::new(long.clone()).unwrap()).unwrap();
    assert_eq!(destination.client().certificate().unwrap().to_vec(), long);
    assert_eq!(destination.client().identity().unwrap().certificate.to_vec(), long);
    destination.client().set_certificate(&Tpm2b::empty()).unwrap();
    assert!(destination.client().certificate().unwrap().is_empty());
}

#[test]
fn peers_are_kept_listed_in_order_and_removed() {
    let host = Host::new(0);
    let client = host.client();
    let fleet = Authority::new("fleet").certificate;
    let key = identity_of(1).attestation.to_vec();
    for (label, kind, credential) in
        [("m", PeerKind::Pinned, &key), ("z", PeerKind::Authority, &fleet), ("a", PeerKind::Pinned, &key)]
    {
        client.add_peer(&peer(label, kind, credential)).unwrap();
    }
    assert_eq!(refused(client.add_peer(&peer("z", PeerKind::Pinned, &key))), ResponseCode::NV_DEFINED);
    let no_certificate = peer("x", PeerKind::Authority, b"certificate");
    assert_eq!(refused(client.add_peer(&no_certificate)), ResponseCode::VALUE.parameter(1));
    let absent = InstanceName::new("x").unwrap();
    assert_eq!(refused(client.remove_peer(&absent)), ResponseCode::VALUE.parameter(1));
    let labels = |host: &Host| -> Vec<String> {
        host.client().peers().unwrap().iter().map(|peer| peer.label.to_string()).collect()
    };
    assert_eq!(labels(&host), ["a", "m", "z"]);
    let host = host.crash();
    assert_eq!(labels(&host), ["a", "m", "z"]);
    host.client().remove_peer(&InstanceName::new("m").unwrap()).unwrap();
    assert_eq!(labels(&host), ["a", "z"]);
    // A write that fails changes nothing.
    host.memory.fail.store(true, Ordering::SeqCst);
    assert!(host.client().add_peer(&peer("q", PeerKind::Pinned, &key)).is_err());
    assert!(host.client().remove_peer(&InstanceName::new("a").unwrap()).is_err());
    host.memory.fail.store(false, Ordering::SeqCst);
    assert_eq!(labels(&host.crash()), ["a", "z"]);
}

#[test]
fn there_are_at_most_so_many_peers_and_they_come_in_pages() {
    let host = Host::new(0);
    let client = host.client();
    let key = identity_of(1).attestation.to_vec();
    for n in 0..MAX_PEERS {
        client.add_peer(&peer(&format!("host-{n:03}"), PeerKind::Pinned, &key)).unwrap();
    }
    let one_more = peer("one-more", PeerKind::Pinned, &key);
    assert_eq!(refused(client.add_peer(&one_more)), ResponseCode::NV_SPACE);
    let all = client.peers().unwrap();
    assert_eq!(all.len(), MAX_PEERS);
    assert!(all.is_sorted_by(|a, b| a.label < b.label));
}

/// A root as release 0.2.0 left it: with storage keys only.
fn aged(host: &Host) -> Host {
    let root = InstanceId(1);
    let memory = host.memory.after_crash();
    let mut list = Vec::new();
    for key in [ATTESTATION_KEY, LINK_KEY] {
        let key = name::live(RecordKey::Persistent(key)).unwrap();
        list.push(crate::store::Op::Delete { instance: root, key });
    }
    list.push(crate::store::Op::Delete { instance: root, key: name::IDENTITY });
    let content = memory.content();
    assert!(list.iter().all(|op| match op {
        crate::store::Op::Delete { instance, key } => content.records.contains_key(&(*instance, *key)),
        _ => false,
    }));
    crate::tree::Persistence::commit(&*memory, crate::store::Batch::new(list)).unwrap();
    Host::over(memory)
}

#[test]
fn a_root_of_an_earlier_release_gets_the_keys_that_it_lacks_once() {
    let host = Host::new(0);
    let (rsa, ecc) = (RSA_STORAGE_KEY, ECC_STORAGE_KEY);
    let names = |host: &Host| [rsa, ecc].map(|key| host.client().read_public(key).unwrap().1);
    let before = names(&host);
    let old = aged(&host);
    let made = identity::verify(old.client().identity().unwrap()).unwrap();
    assert_eq!(made.keys().count(), 3);
    assert_eq!(names(&old), before, "storage keys stay");
    let commits = old.memory.commits.load(Ordering::SeqCst);
    let again = old.crash();
    let kept = identity::verify(again.client().identity().unwrap()).unwrap();
    assert_eq!(kept.document(), made.document());
    assert!(commits > 0);
    // It signs tickets that others take.
    let source = Host::with_vm(1);
    source.trust(&again);
    source.client().arm(source.vm().handle(), Some(ticket_of(&again)), LockFlags::default()).unwrap();
}

#[test]
fn a_root_without_its_keys_serves_what_it_has() {
    let host = Host::with_vm(0);
    let memory = aged(&host).memory.after_crash();
    // With another owner authorization than the daemon's no key can be made.
    let root = InstanceId(1);
    let key = name::live(RecordKey::Persistent(ATTESTATION_KEY)).unwrap();
    let list = vec![crate::store::Op::Delete { instance: root, key }];
    crate::tree::Persistence::commit(&*memory, crate::store::Batch::new(list)).unwrap();
    let tree = Tree::open(memory.clone(), Zeroizing::new(b"another".to_vec())).unwrap();
    let host = Host { memory, tree };
    assert_eq!(code(&host.vm().execute(0, &get_random(), None)), ResponseCode::SUCCESS);
}

#[test]
fn a_certified_storage_key_is_the_one_that_tickets_name() {
    let host = Host::new(1);
    let identity = identity::verify(host.client().identity().unwrap()).unwrap();
    let ticket = ticket_of(&host);
    let key = identity.key(KeyRole::EccStorage).unwrap();
    assert_eq!(key.to_bytes(), *ticket.storage_public);
    assert_eq!(*ticket.signer, *identity.document().attestation);
    assert_eq!(trust::spki::of_public(key).unwrap().len(), 91);
}

#[test]
fn a_guest_has_neither_peers_nor_an_identity() {
    let host = Host::with_vm(0);
    for code_ in [cc::ADD_PEER, cc::REMOVE_PEER, cc::LIST_PEERS, cc::GET_IDENTITY] {
        let mut body = (TpmHandle::OWNER, 9u32, TpmHandle::RS_PW).to_bytes();
        (0u16, 0u8, 0u16).encode(&mut body);
        let response = host.vm().execute(0, &command(TpmSt::SESSIONS, code_, &body), None);
        assert_eq!(code(&response), ResponseCode::COMMAND_CODE);
    }
}

#[test]
fn a_storage_key_that_two_roots_share_vouches_for_tickets_without_a_peer() {
    let (source, destination, third) = (Host::with_vm(0), Host::new(1), Host::new(2));
    source.client().create_fleet_key().unwrap();
    assert_eq!(refused(source.client().create_fleet_key()), ResponseCode::NV_DEFINED);
    let document = identity::verify(source.client().identity().unwrap()).unwrap();
    assert!(document.key(KeyRole::Fleet).is_some());
    let to = identity::verify(destination.client().identity().unwrap()).unwrap();
    let key = source.client().duplicate_fleet_key(&to).unwrap();

    // Nobody else can use it, and nothing of it can be changed.
    assert!(matches!(third.client().import_fleet_key(&key), Err(ClientError::NoStorageKey)));
    let parent = third.client().read_public(ECC_STORAGE_KEY).unwrap().1;
    assert!(third.client().import_fleet_key(&FleetKey { parent, ..key.clone() }).is_err());
    let changed = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        bytes
    };
    let duplicate = Tpm2b::new(changed(&key.duplicate)).unwrap();
    let inner_key = Tpm2b::new(changed(&key.inner_key)).unwrap();
    let encrypted_secret = Tpm2b::new(changed(&key.encrypted_secret)).unwrap();
    for bad in [
        FleetKey { duplicate, ..key.clone() },
        FleetKey { inner_key, ..key.clone() },
        FleetKey { encrypted_secret, ..key.clone() },
    ] {
        assert!(destination.client().import_fleet_key(&bad).is_err());
        assert_eq!(destination.client().fleet_key().unwrap(), None);
    }
    destination.client().import_fleet_key(&key).unwrap();
    assert_eq!(destination.client().fleet_key().unwrap(), source.client().fleet_key().unwrap());

    let ticket = destination.client().prepare("vm", UUID, FLEET_KEY).unwrap().ticket;
    assert!(ticket.signer.is_empty() && ticket.certificate.is_empty());
    let mut forged = ticket.clone();
    forged.void[0] ^= 1;
    assert_refused(&source, &forged);
    let before = pcr16(&source.vm());
    source.client().arm(source.vm().handle(), Some(ticket.clone()), LockFlags::default()).unwrap();
    // Without the key it is nobody's word.
    let private = source.client();
    private.remove_fleet_key().unwrap();
    assert!(source.vm().save(&mut Vec::new()).is_err());
    assert_eq!(source.vm().state(), Some(InstanceState::Live));
    let back = identity::verify(source.client().identity().unwrap()).unwrap();
    let key = destination.client().duplicate_fleet_key(&back).unwrap();
    private.import_fleet_key(&key).unwrap();
    let mut stream = Vec::new();
    source.vm().save(&mut stream).unwrap();
    destination.vm().load(&mut &*stream).unwrap();
    assert_eq!(pcr16(&destination.vm()), before);
}

#[test]
fn a_fleet_key_leaves_with_the_owners_word_and_both_wrappers_only() {
    let host = Host::new(0);
    host.client().create_fleet_key().unwrap();
    let root = host.tree.root();
    let duplicate = |session: u32, parent: u32, symmetric: &[u16]| {
        let mut body = (FLEET_KEY, parent, 9u32, session, 0u16, 0u8).to_bytes();
        (0u16, 0u16).encode(&mut body);
        symmetric.iter().for_each(|half| half.encode(&mut body));
        let answer = code(&root.execute_long(&command(TpmSt::SESSIONS, TpmCc::DUPLICATE, &body)));
        // A session outlives the command that it did not authorize.
        let flush = command(TpmSt::NO_SESSIONS, TpmCc::FLUSH_CONTEXT, &session.to_bytes());
        drop(root.execute_long(&flush));
        answer
    };
    let aes = &[0x0006, 128, 0x0043];
    let (password, storage) = (TpmHandle::RS_PW.0, ECC_STORAGE_KEY);
    assert_eq!(duplicate(password, storage, aes), ResponseCode::AUTH_TYPE.session(1));
    // A policy session that was told nothing.
    let start = || {
        let mut body = (TpmHandle::NULL, TpmHandle::NULL, 16u16, [0u8; 16], 0u16).to_bytes();
        (1u8, 0x0010u16, 0x000bu16).encode(&mut body);
        let response = root.execute_long(&command(TpmSt::NO_SESSIONS, TpmCc::START_AUTH_SESSION, &body));
        assert_eq!(code(&response), ResponseCode::SUCCESS);
        u32::from_be_bytes(*response[10..].first_chunk().unwrap())
    };
    assert_eq!(duplicate(start(), storage, aes), ResponseCode::POLICY_FAIL.session(1));
    // The command's code alone.
    let session = start();
    let body = (session, TpmCc::DUPLICATE).to_bytes();
    let policy = root.execute_long(&command(TpmSt::NO_SESSIONS, TpmCc::POLICY_COMMAND_CODE, &body));
    assert_eq!(code(&policy), ResponseCode::SUCCESS);
    assert_eq!(duplicate(session, storage, aes), ResponseCode::POLICY_FAIL.session(1));
    // With the owner's word, but without a wrapper.
    let fulfilled = || host.client().duplication_session().unwrap();
    let unwrapped = duplicate(fulfilled(), TpmHandle::NULL.0, aes);
    assert_eq!(unwrapped, ResponseCode::HIERARCHY.handle(2));
    assert_eq!(duplicate(fulfilled(), storage, &[0x0010]), ResponseCode::SYMMETRIC.parameter(2));
    assert_eq!(duplicate(fulfilled(), storage, aes), ResponseCode::SUCCESS);
}
