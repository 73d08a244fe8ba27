//! Instances that move from one host to another, and everything that can go wrong on the way.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::sync::atomic::Ordering;

use vtpm_backend::device::{DeviceError, TpmDevice};
use vtpm_protocol::instance::{
    GetInstanceDataIn, InstanceCapability, InstanceCapabilityData, InstanceState, LockFlags, MigrationPolicy,
    MigrationTicket, Outcome, PieceKind, Uuid,
};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::stream::{FRAME_PREFIX, Frame, StreamDecoder};

use super::{
    Host, NV, PERSISTENT, UUID, code, define_nv, extend, get_random, make_persistent, pcr16, possessions,
    startup,
};
use crate::migration::client::{ClientError, Departure};
use crate::tree::{ECC_STORAGE_KEY, RSA_STORAGE_KEY};

/// Two hosts: one with a running instance that is armed for the slot on the other.
pub(super) struct Pair {
    pub(super) source: Host,
    pub(super) destination: Host,
    pub(super) ticket: MigrationTicket,
}

impl Pair {
    pub(super) fn new() -> Self {
        Self::with(ECC_STORAGE_KEY, LockFlags::default())
    }

    pub(super) fn with(storage: u32, flags: LockFlags) -> Self {
        let (source, destination) = (Host::with_vm(0), Host::new(1));
        source.trust(&destination);
        source.vm().execute(0, &extend(0x42), None);
        define_nv(&source.vm());
        make_persistent(&source.vm());
        let ticket = destination.client().prepare("vm", UUID, storage).unwrap().ticket;
        source.client().arm(source.vm().handle(), Some(ticket.clone()), flags).unwrap();
        Self { source, destination, ticket }
    }

    pub(super) fn save(&self) -> Vec<u8> {
        let mut stream = Vec::new();
        self.source.vm().save(&mut stream).unwrap();
        stream
    }

    fn load(&self, stream: &[u8]) -> Result<(), DeviceError> {
        self.destination.vm().load(&mut &*stream)
    }

    pub(super) fn source_state(&self) -> InstanceState {
        self.source.vm().state().unwrap()
    }

    pub(super) fn destination_state(&self) -> InstanceState {
        self.destination.vm().state().unwrap()
    }

    /// Never two sides that execute guest commands.
    pub(super) fn assert_one_copy(&self) {
        let runs =
            [&self.source, &self.destination].map(|h| h.tree.by_name("vm").is_some_and(|i| i.executes()));
        assert_ne!(runs, [true, true]);
    }
}

pub(super) fn frames(stream: &[u8]) -> Vec<Frame> {
    let mut decoder = StreamDecoder::new();
    decoder.feed(&stream[..decoder.wanted()]).unwrap();
    let mut rest = &stream[FRAME_PREFIX..];
    let mut out = Vec::new();
    while !decoder.is_complete() {
        match decoder.next_frame().unwrap() {
            Some(frame) => out.push(frame),
            None => {
                let (head, tail) = rest.split_at(decoder.wanted());
                decoder.feed(head).unwrap();
                rest = tail;
            }
        }
    }
    out
}

pub(super) fn bytes(frames: &[Frame]) -> Vec<u8> {
    let mut out = Vec::new();
    frames.iter().for_each(|f| f.encode(&mut out));
    out
}

#[test]
fn the_instance_goes_on_at_the_destination_and_the_source_is_gone_with_the_receipt() {
    for storage in [ECC_STORAGE_KEY, RSA_STORAGE_KEY] {
        let pair = Pair::with(storage, LockFlags::default());
        let before = pcr16(&pair.source.vm());
        let possessions_before = possessions(&pair.source.vm());
        let stream = pair.save();
        assert_eq!(pair.source_state(), InstanceState::Exported);
        assert_eq!(code(&pair.source.vm().execute(0, &get_random(), None)), ResponseCode::RETRY);
        pair.load(&stream).unwrap();
        assert_eq!(pair.destination_state(), InstanceState::Imported);
        pair.assert_one_copy();
        assert_eq!(pcr16(&pair.destination.vm()), before);
        assert_eq!(pair.destination_state(), InstanceState::Live);
        assert_eq!(possessions(&pair.destination.vm()), possessions_before);

        let (vm, there) = (pair.source.vm(), pair.destination.vm());
        let live = pair.destination.client().commit(there.handle(), &[]).unwrap();
        assert!(pair.destination.client().abort(there.handle(), &[]).is_err());
        pair.source.client().commit(vm.handle(), &live).unwrap();
        assert!(pair.source.tree.by_name("vm").is_none());
        assert!(pair.source.crash().tree.by_name("vm").is_none());
        assert_eq!(pcr16(&pair.destination.crash().vm()), before);
    }
}

#[test]
fn the_stream_holds_nothing_in_plain() {
    let pair = Pair::new();
    let id = pair.source.vm().id();
    let content = pair.source.content();
    // The engine's own records: kinds 1 to 6.
    let records = content.records.iter().filter(|((i, name), _)| *i == id && name.as_bytes()[0] <= 6);
    let secrets: Vec<&[u8]> = records.flat_map(|(_, value)| value.chunks_exact(16)).collect();
    assert!(secrets.len() > 50);
    let stream = pair.save();
    for secret in secrets {
        let uniform = secret.iter().filter(|&&b| b == secret[0]).count() > 8;
        assert!(uniform || !stream.windows(16).any(|w| w == secret), "{secret:02x?}");
    }
}

#[test]
fn a_destination_that_gives_up_lets_the_source_live_again() {
    let pair = Pair::new();
    let before = pcr16(&pair.source.vm());
    let stream = pair.save();
    pair.load(&stream).unwrap();
    // It came, but was never run there.
    let there = pair.destination.vm().handle();
    let void = pair.destination.client().abort(there, &[]).unwrap();
    assert_eq!(pair.destination_state(), InstanceState::Void);
    assert!(pair.destination.client().commit(there, &[]).is_err());
    assert_eq!(code(&pair.destination.vm().execute(0, &get_random(), None)), ResponseCode::RETRY);
    assert!(matches!(pair.load(&stream), Err(DeviceError::Refused(_))));

    let here = pair.source.vm().handle();
    assert!(pair.source.client().commit(here, &void).is_err());
    let mut wrong = void.clone();
    wrong[0] ^= 1;
    assert!(pair.source.client().abort(here, &wrong).is_err());
    pair.source.client().abort(here, &void).unwrap();
    assert_eq!(pcr16(&pair.source.vm()), before);
    assert_eq!(pcr16(&pair.source.crash().vm()), before);
}

#[test]
fn a_machine_that_was_reset_while_its_tpm_was_locked_does_not_find_the_pcrs_of_the_boot_before() {
    for (crash, strict) in [(false, false), (true, false), (true, true)] {
        let flags = if strict { LockFlags::STRICT } else { LockFlags::default() };
        let mut pair = Pair::with(ECC_STORAGE_KEY, flags);
        let before = pcr16(&pair.source.vm());
        if strict {
            // Nothing has left yet, so that even a strict source can come back.
            pair.source.client().lock(pair.source.vm().handle(), &pair.ticket, flags).unwrap();
        } else {
            pair.save();
        }
        pair.source.vm().machine_reset();
        pair.source.vm().machine_reset();
        if crash {
            pair.source = pair.source.crash();
        }
        let void = pair.destination.client().abort(pair.destination.vm().handle(), &[]).unwrap();
        pair.source.client().abort(pair.source.vm().handle(), &void).unwrap();
        for _ in 0..2 {
            let vm = pair.source.vm();
            assert_eq!(code(&vm.execute(0, &get_random(), None)), ResponseCode::INITIALIZE);
            pair.source = pair.source.crash();
        }
        let vm = pair.source.vm();
        assert_eq!(code(&vm.execute(0, &startup(), None)), ResponseCode::SUCCESS);
        assert_ne!(pcr16(&vm), before);
        assert_eq!(pcr16(&vm), [0; 32]);
    }
}

#[test]
fn nothing_but_a_receipt_brings_a_source_back() {
    let pair = Pair::new();
    pair.save();
    let vm = pair.source.vm();
    vm.migration_started(false);
    vm.run_state(true);
    vm.machine_reset();
    assert_eq!(code(&vm.execute(0, &get_random(), None)), ResponseCode::RETRY);
    let client = pair.source.client();
    assert!(client.unlock(vm.handle(), &[0; 32]).is_err());
    assert!(client.reset(vm.handle()).is_err());
    assert!(client.lock(vm.handle(), &pair.ticket, LockFlags::default()).is_err());
    assert!(client.arm(vm.handle(), None, LockFlags::default()).is_err());
    let source = pair.source.crash();
    assert_eq!(source.vm().state(), Some(InstanceState::Exported));
    assert_eq!(code(&source.vm().execute(0, &get_random(), None)), ResponseCode::RETRY);
}

#[test]
fn under_availability_the_tpm_runs_again_when_its_machine_does() {
    let pair = Pair::new();
    let client = pair.source.client();
    let vm = pair.source.vm();
    client.set_policy(vm.handle(), MigrationPolicy::Availability).unwrap();
    let before = pcr16(&vm);
    // Before the lock, as when the migration is under way, nothing happens.
    vm.run_state(true);
    assert_eq!(client.info(vm.handle()).unwrap().policy, MigrationPolicy::Availability);
    let stream = pair.save();
    vm.run_state(false);
    assert_eq!(pair.source_state(), InstanceState::Exported);
    let source = pair.source.crash();
    assert_eq!(source.vm().state(), Some(InstanceState::Exported));
    source.vm().run_state(true);
    assert_eq!(source.vm().state(), Some(InstanceState::Live));
    assert_eq!(pcr16(&source.vm()), before);
    let source = source.crash();
    assert_eq!(pcr16(&source.vm()), before);
    // What the policy gives up: the other copy is no worse. And it brought the policy along.
    pair.destination.vm().load(&mut &*stream).unwrap();
    assert_eq!(pcr16(&pair.destination.vm()), before);
    let info = pair.destination.client().info(pair.destination.vm().handle()).unwrap();
    assert_eq!(info.policy, MigrationPolicy::Availability);
    assert_eq!(info.arrival, pair.ticket.migration_id);
}

#[test]
fn a_queue_that_starts_again_tells_of_its_machine_too_and_a_strict_lock_heeds_neither() {
    let pair = Pair::with(ECC_STORAGE_KEY, LockFlags::STRICT);
    let vm = pair.source.vm();
    pair.source.client().set_policy(vm.handle(), MigrationPolicy::Availability).unwrap();
    pair.save();
    vm.queue_started();
    vm.run_state(true);
    assert_eq!(pair.source_state(), InstanceState::Exported);
    let pair = Pair::new();
    let vm = pair.source.vm();
    pair.source.client().set_policy(vm.handle(), MigrationPolicy::Availability).unwrap();
    pair.save();
    vm.machine_reset();
    vm.queue_started();
    assert_eq!(pair.source_state(), InstanceState::Live);
    // The machine was reset meanwhile: its TPM waits for Startup.
    assert_eq!(code(&vm.execute(0, &get_random(), None)), ResponseCode::INITIALIZE);
}

#[test]
fn the_policy_strict_is_kept_without_being_asked_at_the_lock() {
    let pair = Pair::new();
    let vm = pair.source.vm();
    pair.source.client().set_policy(vm.handle(), MigrationPolicy::Strict).unwrap();
    pair.save();
    let id = vm.id();
    assert!(pair.source.content().records.keys().all(|(i, key)| *i != id || key.as_bytes()[0] > 0x7f));
    // It was exported before a machine got it all: the same comes again.
    let mut again = Vec::new();
    vm.save(&mut again).unwrap();
    pair.load(&again).unwrap();
    let locked = pair.source.client().set_policy(vm.handle(), MigrationPolicy::Availability);
    assert!(matches!(locked, Err(ClientError::Refused { code, .. }) if code.is(ResponseCode::SEQUENCE)));
}

#[test]
fn the_void_receipt_takes_a_dead_ticket_away_before_anything_is_locked() {
    let pair = Pair::new();
    let void = pair.destination.client().abort(pair.destination.vm().handle(), &[]).unwrap();
    let (client, vm) = (pair.source.client(), pair.source.vm());
    assert!(client.abort(vm.handle(), &void).unwrap().is_empty());
    assert!(matches!(vm.save(&mut Vec::new()), Err(DeviceError::Refused(_))));
    assert_eq!(pair.source_state(), InstanceState::Live);
    // Nor is it taken again.
    let again = client.arm(vm.handle(), Some(pair.ticket.clone()), LockFlags::default());
    assert!(matches!(again, Err(ClientError::Refused { code, .. }) if code.is(ResponseCode::TICKET)));
}

#[test]
fn a_second_import_of_a_stream_is_refused_everywhere() {
    let pair = Pair::new();
    let stream = pair.save();
    pair.load(&stream).unwrap();
    // Where it arrived: before it runs, when it changes nothing, and after.
    pair.load(&stream).unwrap();
    assert_eq!(pair.destination_state(), InstanceState::Imported);
    let now = pcr16(&pair.destination.vm());
    let before = pair.destination.content();
    assert!(matches!(pair.load(&stream), Err(DeviceError::Refused(_))));
    assert!(pair.destination.content() == before);
    assert_eq!(pcr16(&pair.destination.vm()), now);
    // On a third host, in a slot for the same instance.
    let third = Host::new(2);
    third.client().prepare("vm", UUID, ECC_STORAGE_KEY).unwrap();
    assert!(matches!(third.vm().load(&mut &*stream), Err(DeviceError::BadStream(_))));
    assert_eq!(third.vm().state(), Some(InstanceState::DestinationLocked));
    // At the same host, in a new slot of the same name.
    let client = pair.destination.client();
    client.delete(pair.destination.vm().handle()).unwrap();
    client.prepare("vm", UUID, ECC_STORAGE_KEY).unwrap();
    assert!(matches!(pair.load(&stream), Err(DeviceError::BadStream(_))));
    assert_eq!(pair.destination_state(), InstanceState::DestinationLocked);
}

#[test]
fn a_damaged_stream_changes_nothing_and_the_right_one_is_taken_afterwards() {
    let pair = Pair::new();
    let stream = pair.save();
    let empty = pair.destination.content();
    let step = stream.len() / 60 + 1;
    for at in (0..stream.len()).step_by(step).chain(0..FRAME_PREFIX).chain(stream.len() - 34..stream.len()) {
        let mut bad = stream.clone();
        bad[at] ^= 0x20;
        assert!(pair.load(&bad).is_err(), "byte {at}");
        assert!(pair.destination.content() == empty, "byte {at}");
    }
    for n in (0..stream.len()).step_by(step).chain(stream.len() - 3..stream.len()) {
        assert!(pair.load(&stream[..n]).is_err(), "{n} bytes");
        assert!(pair.destination.content() == empty, "{n} bytes");
    }
    let longer = [&stream[..], &[0]].concat();
    assert!(matches!(pair.load(&longer), Err(DeviceError::BadStream(_))));
    assert!(pair.destination.content() == empty);
    pair.load(&stream).unwrap();
    pair.assert_one_copy();
}

#[test]
fn reordered_repeated_and_missing_pieces_are_refused() {
    let pair = Pair::new();
    // Cut small, so that there are pieces to reorder.
    let client = pair.source.client();
    let vm = pair.source.vm().handle();
    client.lock(vm, &pair.ticket, LockFlags::default()).unwrap();
    let whole = frames(&pair.save());
    let mut cut = whole[..2].to_vec();
    let mut sequence = 0;
    let digest = loop {
        let request =
            GetInstanceDataIn { sequence, kind: PieceKind::Everything, handle: 0, max_size: 1 << 16 };
        let out = client.get_data(vm, &request).unwrap();
        sequence = out.next;
        for piece in split(&out.data) {
            cut.push(Frame::Pieces(vtpm_protocol::instance::Long2b::new(piece).unwrap()));
        }
        if !out.digest.is_empty() {
            break out.digest;
        }
    };
    assert!(cut.len() >= 7, "header, key, and five pieces at least");
    cut.push(Frame::End(digest));
    let empty = pair.destination.content();
    for i in 2..cut.len() - 2 {
        let mut bad = cut.clone();
        bad.swap(i, i + 1);
        assert!(pair.load(&bytes(&bad)).is_err());
        bad = cut.clone();
        bad.remove(i);
        assert!(pair.load(&bytes(&bad)).is_err());
        bad = cut.clone();
        bad.insert(i, cut[i].clone());
        assert!(pair.load(&bytes(&bad)).is_err());
        assert!(pair.destination.content() == empty);
    }
    pair.load(&bytes(&cut)).unwrap();
}

pub(super) fn split(data: &[u8]) -> Vec<Vec<u8>> {
    let mut r = vtpm_protocol::codec::Reader::new(data);
    let mut out = Vec::new();
    while !r.is_empty() {
        out.push(vtpm_protocol::instance::migration::SealedPiece::take(&mut r).unwrap().bytes.to_vec());
    }
    out
}

#[test]
fn the_stream_of_another_instance_is_refused() {
    let pair = Pair::new();
    let other = Pair::new();
    let stream = other.save();
    let empty = pair.destination.content();
    assert!(matches!(pair.load(&stream), Err(DeviceError::BadStream(_))));
    // With the right header in front, the key names its own migration.
    let mut mixed = frames(&stream);
    mixed[0] = frames(&pair.save())[0].clone();
    assert!(matches!(pair.load(&bytes(&mixed)), Err(DeviceError::BadStream(_))));
    assert!(pair.destination.content() == empty);
}

#[test]
fn a_ticket_for_another_uuid_arms_nothing() {
    let source = Host::with_vm(0);
    let destination = Host::new(1);
    source.trust(&destination);
    let ticket = destination.client().prepare("vm", Uuid([5; 16]), ECC_STORAGE_KEY).unwrap().ticket;
    let armed = source.client().arm(source.vm().handle(), Some(ticket), LockFlags::default());
    assert!(
        matches!(armed, Err(ClientError::Refused { code, .. }) if code == ResponseCode::TICKET.parameter(1))
    );
    assert!(source.vm().save(&mut Vec::new()).is_err());
    assert!(source.vm().executes());
}

/// A pipe that breaks after so many bytes.
struct Breaking(usize);

impl Write for Breaking {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = buf.len().min(self.0);
        self.0 = self.0.saturating_sub(n);
        if n == 0 { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(n) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Breaking {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ConnectionReset.into())
    }
}

#[test]
fn a_pipe_that_nobody_reads_locks_nothing() {
    let pair = Pair::new();
    assert!(matches!(pair.source.vm().save(&mut Breaking(0)), Err(DeviceError::Io(_))));
    assert_eq!(pair.source_state(), InstanceState::Live);
    assert_eq!(code(&pair.source.vm().execute(0, &get_random(), None)), ResponseCode::SUCCESS);
}

#[test]
fn a_broken_migration_is_repeated_to_the_same_destination() {
    let pair = Pair::new();
    for room in [200, 400, 1000, 3000] {
        assert!(matches!(pair.source.vm().save(&mut Breaking(room)), Err(DeviceError::Io(_))));
        assert!(!pair.source.vm().executes());
    }
    let first = pair.save();
    // Also by a daemon that was restarted in between. Only the encryption of the keys to S is fresh each time.
    let Pair { source, destination, ticket } = pair;
    let pair = Pair { source: source.crash(), destination: destination.crash(), ticket };
    let second = pair.save();
    let (a, b) = (frames(&first), frames(&second));
    assert_eq!((&a[0], &a[2..]), (&b[0], &b[2..]));
    assert!(matches!(pair.destination.vm().load(&mut Breaking(0)), Err(DeviceError::Io(_))));
    pair.load(&second).unwrap();
    // The first one holds the same pieces, and changes nothing any more.
    pair.load(&first).unwrap();
    assert_eq!(pair.destination_state(), InstanceState::Imported);
}

#[test]
fn a_strict_source_keeps_what_it_sent_and_nothing_that_it_could_read() {
    let mut pair = Pair::with(ECC_STORAGE_KEY, LockFlags::STRICT);
    let id = pair.source.vm().id();
    let stream = pair.save();
    let content = pair.source.content();
    let left: BTreeSet<u8> =
        content.records.keys().filter(|(i, _)| *i == id).map(|(_, key)| key.as_bytes()[0]).collect();
    // The state, and parts and keys as they were sent.
    assert_eq!(left, BTreeSet::from([0x80, 0x91, 0x92]));
    pair.source = pair.source.crash();
    let mut again = Vec::new();
    pair.source.vm().save(&mut again).unwrap();
    assert_eq!(again, stream);
    pair.load(&again).unwrap();
    // The destination gives up, and what it says opens what is sealed.
    let before = pcr16(&pair.destination.vm());
    let pair = Pair::with(ECC_STORAGE_KEY, LockFlags::STRICT);
    let stream = pair.save();
    pair.load(&stream).unwrap();
    let receipt = pair.destination.client().abort(pair.destination.vm().handle(), &[]).unwrap();
    pair.source.client().abort(pair.source.vm().handle(), &receipt).unwrap();
    assert_eq!(pcr16(&pair.source.vm()), before);
    let source = pair.source.crash();
    assert_eq!(pcr16(&source.vm()), before);
}

#[test]
fn a_destination_that_gave_up_without_the_keys_of_a_strict_source_takes_them_from_its_stream() {
    let pair = Pair::with(ECC_STORAGE_KEY, LockFlags::STRICT);
    let before = pcr16(&pair.source.vm());
    let stream = pair.save();
    let (there, here) = (pair.destination.vm(), pair.source.vm());
    let early = pair.destination.client().abort(there.handle(), &[]).unwrap();
    let refused = pair.source.client().abort(here.handle(), &early);
    assert!(
        matches!(refused, Err(ClientError::Refused { code, .. }) if code.is(ResponseCode::AUTH_UNAVAILABLE))
    );
    assert!(matches!(pair.load(&stream), Err(DeviceError::Refused(_))));
    assert_eq!(there.state(), Some(InstanceState::Void));
    let receipt = pair.destination.client().abort(there.handle(), &[]).unwrap();
    pair.source.client().abort(here.handle(), &receipt).unwrap();
    assert_eq!(pcr16(&here), before);
}

#[test]
fn a_destination_that_became_a_new_tpm_voids_the_migration() {
    let pair = Pair::new();
    let stream = pair.save();
    let there = pair.destination.vm();
    let digest = crate::migration::session::MigrationDigest::initial(&pair.ticket.migration_id, UUID);
    pair.destination.client().unlock(there.handle(), digest.as_bytes()).unwrap();
    assert!(matches!(pair.load(&stream), Err(DeviceError::Refused(_))));
    let info = pair.destination.client().info(there.handle()).unwrap();
    assert_eq!(info.outcome, Outcome::Void);
    let void = pair.destination.client().abort(there.handle(), &[]).unwrap();
    pair.source.client().abort(pair.source.vm().handle(), &void).unwrap();
    assert!(pair.source.vm().executes());
}

#[test]
fn capabilities_of_a_locked_instance_name_its_pieces() {
    let pair = Pair::new();
    let (client, vm) = (pair.source.client(), pair.source.vm().handle());
    let early = client.capability(vm, InstanceCapability::Pieces, 0);
    assert!(matches!(early, Err(ClientError::Refused { code: ResponseCode::SEQUENCE, .. })));
    client.lock(vm, &pair.ticket, LockFlags::default()).unwrap();
    let pieces = client.capability(vm, InstanceCapability::Pieces, 0).unwrap();
    let InstanceCapabilityData::Pieces(pieces) = pieces.data else { panic!("pieces") };
    let kinds: Vec<PieceKind> = pieces.iter().map(|p| p.kind).collect();
    use PieceKind as K;
    assert_eq!(kinds, [K::NvIndex, K::Persistent, K::Permanent, K::Volatile, K::Manifest]);
    let nv = client.capability(vm, InstanceCapability::NvIndices, 0).unwrap().data;
    assert_eq!(nv, InstanceCapabilityData::NvIndices(vec![NV]));
    let persistent = client.capability(vm, InstanceCapability::Persistent, 0).unwrap().data;
    assert_eq!(persistent, InstanceCapabilityData::Persistent(vec![PERSISTENT]));
    // Without a key nothing leaves.
    let request = GetInstanceDataIn { sequence: 0, kind: PieceKind::Permanent, handle: 0, max_size: 4096 };
    let early = client.get_data(vm, &request);
    assert!(matches!(early, Err(ClientError::Refused { code: ResponseCode::SEQUENCE, .. })));
    let departure = Departure { ticket: pair.ticket.clone(), lock: None };
    client.export(vm, &departure, &mut Vec::new()).unwrap();
    let rest = client.capability(vm, InstanceCapability::Pieces, 0).unwrap().data;
    assert_eq!(rest, InstanceCapabilityData::Pieces(vec![]));
}

#[test]
fn the_first_command_decides_durably_or_is_not_executed() {
    let pair = Pair::new();
    pair.load(&pair.save()).unwrap();
    pair.destination.memory.fail.store(true, Ordering::SeqCst);
    let refused = code(&pair.destination.vm().execute(0, &get_random(), None));
    assert_eq!(refused, ResponseCode::NV_UNAVAILABLE);
    pair.destination.memory.fail.store(false, Ordering::SeqCst);
    let there = Host::over(pair.destination.memory.after_crash());
    assert_eq!(there.vm().state(), Some(InstanceState::Imported));
    there.vm().execute(0, &get_random(), None);
    let there = there.crash();
    assert_eq!(there.vm().state(), Some(InstanceState::Live));
    assert!(there.client().abort(there.vm().handle(), &[]).is_err());
}

#[test]
fn the_receipt_that_is_not_revealed_is_not_kept() {
    let pair = Pair::new();
    pair.load(&pair.save()).unwrap();
    let there = pair.destination.vm();
    let undecided = Host::over(pair.destination.memory.after_crash());
    let void = undecided.client().abort(undecided.vm().handle(), &[]).unwrap();
    assert!(pair.destination.content().contains(&void));
    there.execute(0, &get_random(), None);
    assert!(!pair.destination.content().contains(&void));
    let live = pair.destination.client().commit(there.handle(), &[]).unwrap();
    assert!(!undecided.content().contains(&live));
}

#[test]
fn an_instance_moves_on_from_host_to_host() {
    let pair = Pair::new();
    let before = pcr16(&pair.source.vm());
    pair.load(&pair.save()).unwrap();
    let third = Host::new(2);
    pair.destination.trust(&third);
    let ticket = third.client().prepare("vm", UUID, ECC_STORAGE_KEY).unwrap().ticket;
    let there = pair.destination.vm();
    pair.destination.client().arm(there.handle(), Some(ticket), LockFlags::default()).unwrap();
    let mut stream = Vec::new();
    there.save(&mut stream).unwrap();
    third.vm().load(&mut &*stream).unwrap();
    assert_eq!(pcr16(&third.vm()), before);
    // Each hop settles by itself.
    let live = pair.destination.client().commit(there.handle(), &[]).unwrap();
    pair.source.client().commit(pair.source.vm().handle(), &live).unwrap();
    let live = third.client().commit(third.vm().handle(), &[]).unwrap();
    pair.destination.client().commit(there.handle(), &live).unwrap();
    assert_eq!(pair.destination.tree.instances().len(), 1);
}

/// What an operator's tool does, over and over, until the migration is settled: save, load, run, fetch the receipt, hand it in.
/// Errors are what a crash in between looks like.
fn go_on(pair: &Pair) {
    let mut stream = Vec::new();
    if let Some(vm) = pair.source.tree.by_name("vm")
        && vm.save(&mut stream).is_ok()
    {
        let _ = pair.load(&stream);
    }
    let there = pair.destination.vm();
    there.execute(0, &get_random(), None);
    pair.assert_one_copy();
    if let Ok(live) = pair.destination.client().commit(there.handle(), &[])
        && let Some(vm) = pair.source.tree.by_name("vm")
    {
        let _ = pair.source.client().commit(vm.handle(), &live);
    }
    pair.assert_one_copy();
}

#[test]
fn a_crash_of_either_side_at_any_commit_loses_nothing_and_makes_no_second_copy() {
    let whole = Pair::new();
    let value = pcr16(&whole.source.vm());
    let base = [&whole.source, &whole.destination].map(|h| h.memory.after_crash());
    let used = |h: &Host| h.memory.commits.load(Ordering::SeqCst);
    let before = [used(&whole.source), used(&whole.destination)];
    go_on(&whole);
    let steps = [used(&whole.source) - before[0], used(&whole.destination) - before[1]];
    assert!(whole.source.tree.by_name("vm").is_none() && steps[0] >= 4 && steps[1] >= 4, "{steps:?}");

    for (side, &count) in steps.iter().enumerate() {
        for n in 0..count {
            let [source, destination] = [&base[0], &base[1]].map(|m| Host::over(m.after_crash()));
            let ticket = whole.ticket.clone();
            let mut pair = Pair { source, destination, ticket };
            let dying = if side == 0 { &pair.source } else { &pair.destination };
            dying.memory.last_commit.store(used(dying) + n, Ordering::SeqCst);
            go_on(&pair);
            // Restarted, it goes on from what was durable.
            if side == 0 {
                pair.source = pair.source.crash();
            } else {
                pair.destination = pair.destination.crash();
            }
            pair.assert_one_copy();
            go_on(&pair);
            assert!(pair.source.tree.by_name("vm").is_none(), "side {side}, commit {n}");
            assert_eq!(pcr16(&pair.destination.vm()), value, "side {side}, commit {n}");
        }
    }
}
