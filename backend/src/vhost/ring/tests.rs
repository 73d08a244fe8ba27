#![expect(clippy::arithmetic_side_effects, reason = "a test stops where something is not as it should be")]

mod random;

use std::io::{Read, Write};

use nix::sys::eventfd::{EfdFlags, EventFd};
use virtio_queue::desc::RawDescriptor;
use virtio_queue::desc::split::{Descriptor, VirtqUsedElem};
use virtio_queue::mock::{AvailRing, DescriptorTable, UsedRing};
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::device::{DeviceError, MAX_COMMAND_SIZE};

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

const TABLE: u64 = 0x1000;
const AVAIL: u64 = 0x2000;
const USED: u64 = 0x3000;
const SIZE: u16 = 8;
const MEMORY: usize = 0x4_0000;
const OUTSIDE: u64 = 0x10_0000;
/// Where tests put a command, and where they want the response.
const IN: u64 = 0x1_0000;
const OUT: u64 = 0x2_0000;

/// Answers every command with `response`, or panics; remembers what it was told.
#[derive(Default)]
struct Parrot {
    state: Mutex<ParrotState>,
}

#[derive(Default)]
struct ParrotState {
    response: Vec<u8>,
    panics: bool,
    executed: Vec<(u16, Vec<u8>)>,
    completed: Vec<u16>,
    stops: usize,
}

impl TpmDevice for Parrot {
    fn execute(&self, _locality: u8, command: &[u8], slot: Option<u16>) -> Vec<u8> {
        let mut state = lock(&self.state);
        state.executed.push((slot.unwrap(), command.to_vec()));
        assert!(!state.panics, "as the test wants");
        state.response.clone()
    }

    fn completed(&self, slot: u16) {
        lock(&self.state).completed.push(slot);
    }

    fn queue_stopped(&self) {
        lock(&self.state).stops += 1;
    }

    fn machine_reset(&self) {}
    fn run_state(&self, _running: bool) {}
    fn migration_started(&self, _logging: bool) {}

    fn save(&self, _out: &mut dyn Write) -> Result<(), DeviceError> {
        Ok(())
    }

    fn load(&self, _input: &mut dyn Read) -> Result<(), DeviceError> {
        Ok(())
    }
}

/// A driver, its memory, and the queue under test.
struct Bench<'a> {
    memory: &'a GuestMap,
    table: DescriptorTable<'a, GuestMap>,
    avail: AvailRing<'a, GuestMap>,
    used: UsedRing<'a, GuestMap>,
    parrot: Arc<Parrot>,
    queue: RequestQueue,
    error: EventFd,
}

fn memory() -> GuestMap {
    GuestMap::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap()
}

fn good_response() -> Vec<u8> {
    [&[0x80, 1, 0, 0, 0, 16, 0, 0, 0, 0][..], b"answer"].concat()
}

fn good_command() -> Vec<u8> {
    vec![0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x7b, 0, 6]
}

impl<'a> Bench<'a> {
    fn new(memory: &'a GuestMap) -> Self {
        let parrot = Arc::new(Parrot::default());
        lock(&parrot.state).response = good_response();
        let device: Arc<dyn TpmDevice> = parrot.clone();
        let atomic = GuestMemoryAtomic::new(memory.clone());
        let queue = RequestQueue::new("test".into(), device, atomic).unwrap();
        let error = EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap();
        let theirs = std::os::fd::AsFd::as_fd(&error).try_clone_to_owned().unwrap();
        queue.set_error(Some(File::from(theirs)));
        let bench = Self {
            memory,
            table: DescriptorTable::new(memory, GuestAddress(TABLE), SIZE),
            avail: AvailRing::new(memory, GuestAddress(AVAIL), SIZE),
            used: UsedRing::new(memory, GuestAddress(USED), SIZE),
            parrot,
            queue,
            error,
        };
        bench.start(0);
        bench
    }

    fn start(&self, base: u16) {
        self.queue.set_size(SIZE).unwrap();
        self.queue.set_base(base);
        self.queue.vring().set_queue_info(TABLE, AVAIL, USED).unwrap();
        self.queue.start(None);
        self.queue.vring().set_enabled(true);
    }

    fn descriptor(&self, index: u16, address: u64, len: usize, flags: u16, next: u16) {
        let len = u32::try_from(len).unwrap();
        let descriptor = Descriptor::new(address, len, flags, next);
        self.table.store(index, RawDescriptor::from(descriptor)).unwrap();
    }

    fn put(&self, address: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(address)).unwrap();
    }

    fn make_available(&self, head: u16) {
        let idx = self.avail.idx().load();
        let entry = self.avail.ring().ref_at(usize::from(idx % SIZE)).unwrap();
        entry.store(head);
        self.avail.idx().store(idx.wrapping_add(1));
    }

    /// An ordinary chain in descriptors 0 and 1.
    fn offer(&self, command: &[u8], room: usize) {
        self.put(IN, command);
        self.descriptor(0, IN, command.len(), NEXT, 1);
        self.descriptor(1, OUT, room, WRITE, 0);
        self.make_available(0);
    }

    /// Serves, and returns the length of the only descriptor that was used, with what was written to [`OUT`].
    fn serve_one(&self) -> (u32, Vec<u8>) {
        let before = self.used.idx().load();
        self.queue.serve();
        assert_eq!(self.used.idx().load(), before.wrapping_add(1));
        let element: VirtqUsedElem = self.used.ring().ref_at(usize::from(before % SIZE)).unwrap().load();
        let mut out = vec![0; usize::try_from(element.len()).unwrap()];
        self.memory.read_slice(&mut out, GuestAddress(OUT)).unwrap();
        (element.len(), out)
    }

    fn executed(&self) -> usize {
        lock(&self.parrot.state).executed.len()
    }

    /// The ring works: an ordinary command gets its response.
    fn assert_works(&self) {
        let before = self.executed();
        self.offer(&good_command(), 4096);
        assert_eq!(self.serve_one(), (16, good_response()));
        assert_eq!(self.executed(), before + 1);
    }

    /// The chain at hand was refused with `TPM_RC_COMMAND_SIZE`, nothing was executed, and the ring works.
    fn assert_refused(&self) {
        let (_, response) = self.serve_one();
        assert_eq!(response, chain::error_response(ResponseCode::COMMAND_SIZE), "response");
        assert_eq!(self.executed(), 0);
        self.assert_works();
    }

    /// The chain at hand came back with nothing, nothing was executed, and the ring works.
    fn assert_returned_empty(&self) {
        assert_eq!(self.serve_one().0, 0);
        assert_eq!(self.executed(), 0);
        self.assert_works();
    }

    /// The ring is broken, QEMU was told once, and it works again once the driver sets it up anew.
    fn assert_broken(&self) {
        self.queue.serve();
        self.queue.serve();
        assert_eq!(self.error.read(), Ok(1));
        assert_eq!(self.executed(), 0);
        let base = self.queue.stop();
        assert_eq!(base, 0);
        self.avail.idx().store(0);
        self.used.idx().store(0);
        self.start(0);
        self.assert_works();
    }
}

#[test]
fn executes_a_command_and_returns_its_chain() {
    let memory = memory();
    let bench = Bench::new(&memory);
    bench.assert_works();
    let state = lock(&bench.parrot.state);
    assert_eq!(state.executed, [(0, good_command())]);
    assert_eq!(state.completed, [0]);
}

#[test]
fn reads_the_command_whole_when_the_response_goes_to_the_same_buffer() {
    let memory = memory();
    let bench = Bench::new(&memory);
    bench.put(OUT, &good_command());
    bench.descriptor(0, OUT, 12, NEXT, 1);
    bench.descriptor(1, OUT, 4096, WRITE, 0);
    bench.make_available(0);
    assert_eq!(bench.serve_one(), (16, good_response()));
    assert_eq!(lock(&bench.parrot.state).executed, [(0, good_command())]);
}

#[test]
fn gathers_the_command_and_scatters_the_response() {
    let memory = memory();
    let bench = Bench::new(&memory);
    let command = good_command();
    let (a, b) = command.split_at(5);
    bench.put(IN, a);
    bench.put(IN + 0x100, b);
    bench.descriptor(0, IN, 5, NEXT, 3);
    bench.descriptor(3, IN + 0x100, 7, NEXT, 1);
    bench.descriptor(1, OUT, 1, NEXT | WRITE, 4);
    bench.descriptor(4, OUT + 1, 0, NEXT | WRITE, 2);
    bench.descriptor(2, OUT + 1, 400, WRITE, 0);
    bench.make_available(0);
    assert_eq!(bench.serve_one(), (16, good_response()));
    assert_eq!(lock(&bench.parrot.state).executed, [(0, command)]);
}

#[test]
fn follows_an_indirect_table() {
    let memory = memory();
    let bench = Bench::new(&memory);
    bench.put(IN, &good_command());
    bench.descriptor(5, IN, 12, NEXT, 1);
    bench.descriptor(6, OUT, 64, WRITE, 0);
    bench.descriptor(0, TABLE + 5 * 16, 32, INDIRECT, 0);
    bench.make_available(0);
    assert_eq!(bench.serve_one(), (16, good_response()));
}

#[test]
fn refuses_a_chain_that_loops() {
    let memory = memory();
    let bench = Bench::new(&memory);
    bench.put(IN, &good_command());
    bench.descriptor(0, IN, 12, NEXT, 1);
    bench.descriptor(1, OUT, 64, NEXT | WRITE, 1);
    bench.make_available(0);
    assert_eq!(bench.serve_one().0, 10);
    assert_eq!(bench.executed(), 0);
    bench.assert_works();
}

#[test]
fn returns_a_loop_without_room_empty() {
    let memory = memory();
    let bench = Bench::new(&memory);
    bench.descriptor(0, IN, 1, NEXT, 0);
    bench.make_available(0);
    bench.assert_returned_empty();
}

#[test]
fn returns_a_chain_that_leaves_its_table_empty() {
    let memory = memory();
    let bench = Bench::new(&memory);
    bench.descriptor(0, IN, 12, NEXT, SIZE);
    bench.make_available(0);
    bench.assert_returned_empty();
}

#[test]
fn returns_an_indirect_table_of_garbage_empty() {
    for (address, len) in [(OUTSIDE, 32), (IN, 0), (IN, 17), (u64::MAX - 15, 32), (IN, 0x20_0000)] {
        let memory = memory();
        let bench = Bench::new(&memory);
        bench.put(IN, &[0xff; 64]);
        bench.descriptor(0, address, len, INDIRECT, 0);
        bench.make_available(0);
        bench.assert_returned_empty();
    }
}

#[test]
fn returns_an_indirect_table_inside_an_indirect_table_empty() {
    let memory = memory();
    let bench = Bench::new(&memory);
    bench.descriptor(0, TABLE + 16, 16, INDIRECT, 0);
    bench.descriptor(1, TABLE + 16, 16, INDIRECT, 0);
    bench.make_available(0);
    bench.assert_returned_empty();
}

#[test]
fn does_not_execute_a_command_without_room_for_a_response() {
    let memory = memory();
    let bench = Bench::new(&memory);
    bench.put(IN, &good_command());
    bench.descriptor(0, IN, 12, 0, 0);
    bench.make_available(0);
    bench.assert_returned_empty();
}

#[test]
fn does_not_execute_a_command_with_room_for_less_than_a_header() {
    let memory = memory();
    let bench = Bench::new(&memory);
    bench.offer(&good_command(), 9);
    bench.assert_returned_empty();
}

#[test]
fn does_not_execute_a_command_whose_room_is_outside_memory() {
    for (address, len) in [(OUTSIDE, 64), (u64::MAX - 8, 64), (OUT, MEMORY)] {
        let memory = memory();
        let bench = Bench::new(&memory);
        bench.put(IN, &good_command());
        bench.descriptor(0, IN, 12, NEXT, 1);
        bench.descriptor(1, address, len, WRITE, 0);
        bench.make_available(0);
        bench.assert_returned_empty();
    }
}

#[test]
fn refuses_a_command_outside_memory() {
    for (address, len) in [(OUTSIDE, 12), (MEMORY as u64 - 4, 12), (u64::MAX - 4, 12)] {
        let memory = memory();
        let bench = Bench::new(&memory);
        bench.descriptor(0, address, len, NEXT, 1);
        bench.descriptor(1, OUT, 64, WRITE, 0);
        bench.make_available(0);
        bench.assert_refused();
    }
}

#[test]
fn refuses_commands_shorter_than_a_header() {
    for len in [0, 1, 9] {
        let memory = memory();
        let bench = Bench::new(&memory);
        bench.offer(&vec![0x80; len], 64);
        bench.assert_refused();
    }
}

#[test]
fn refuses_a_chain_without_a_command() {
    let memory = memory();
    let bench = Bench::new(&memory);
    bench.descriptor(0, OUT, 64, WRITE, 0);
    bench.make_available(0);
    bench.assert_refused();
}

#[test]
fn executes_the_longest_command_and_refuses_one_byte_more() {
    let memory = memory();
    let bench = Bench::new(&memory);
    bench.offer(&vec![1; MAX_COMMAND_SIZE + 1], 64);
    bench.assert_refused();
    bench.offer(&vec![1; MAX_COMMAND_SIZE], 64);
    assert_eq!(bench.serve_one(), (16, good_response()));
}

#[test]
fn refuses_a_command_of_gigabytes_without_reading_it() {
    let memory = memory();
    let bench = Bench::new(&memory);
    bench.descriptor(0, 0, 0xffff_f000, NEXT, 1);
    bench.descriptor(1, OUT, 64, WRITE, 0);
    bench.make_available(0);
    bench.assert_refused();
}

#[test]
fn refuses_a_readable_descriptor_after_a_writable_one() {
    let memory = memory();
    let bench = Bench::new(&memory);
    bench.put(IN, &good_command());
    bench.descriptor(0, OUT, 64, WRITE | NEXT, 1);
    bench.descriptor(1, IN, 12, 0, 0);
    bench.make_available(0);
    bench.assert_refused();
}

#[test]
fn says_no_result_when_the_response_of_an_executed_command_does_not_fit() {
    let memory = memory();
    let bench = Bench::new(&memory);
    bench.offer(&good_command(), 15);
    let (_, response) = bench.serve_one();
    assert_eq!(response, chain::error_response(ResponseCode::NO_RESULT));
    assert_eq!(bench.executed(), 1);
    bench.assert_works();
}

#[test]
fn answers_for_a_device_that_panics_or_babbles() {
    let memory = memory();
    let bench = Bench::new(&memory);
    let failure = chain::error_response(ResponseCode::FAILURE);

    lock(&bench.parrot.state).panics = true;
    bench.offer(&good_command(), 64);
    assert_eq!(bench.serve_one().1, failure);
    lock(&bench.parrot.state).panics = false;

    for wrong in [Vec::new(), vec![0; 9], vec![0; MAX_RESPONSE_SIZE + 1]] {
        lock(&bench.parrot.state).response = wrong;
        bench.offer(&good_command(), 8192);
        assert_eq!(bench.serve_one().1, failure);
    }
    lock(&bench.parrot.state).response = good_response();
    bench.assert_works();
}

#[test]
fn an_avail_index_beyond_the_queue_breaks_the_ring() {
    let memory = memory();
    let bench = Bench::new(&memory);
    bench.avail.idx().store(SIZE + 1);
    bench.assert_broken();
}

#[test]
fn a_head_that_is_no_descriptor_breaks_the_ring() {
    let memory = memory();
    let bench = Bench::new(&memory);
    bench.make_available(SIZE);
    bench.queue.serve();
    assert_eq!(bench.error.read(), Ok(1));
    assert_eq!(bench.used.idx().load(), 0);
}

#[test]
fn rings_outside_memory_break_the_ring() {
    for (table, avail, used) in [
        (OUTSIDE, AVAIL, USED),
        (TABLE, OUTSIDE, USED),
        (TABLE, AVAIL, OUTSIDE),
        (TABLE, AVAIL, u64::MAX - 15),
        (MEMORY as u64 - 16, AVAIL, USED),
    ] {
        let memory = memory();
        let bench = Bench::new(&memory);
        bench.queue.vring().set_queue_info(table, avail, used).unwrap();
        bench.avail.idx().store(1);
        bench.assert_broken();
    }
}

#[test]
fn the_avail_index_may_wrap_round() {
    let memory = memory();
    let bench = Bench::new(&memory);
    bench.avail.idx().store(u16::MAX);
    bench.used.idx().store(u16::MAX);
    bench.start(u16::MAX);
    bench.assert_works();
    bench.assert_works();
    let state = lock(&bench.parrot.state);
    let slots: Vec<u16> = state.executed.iter().map(|e| e.0).collect();
    assert_eq!(slots, [u16::MAX, 0]);
}

#[test]
fn nothing_is_taken_before_the_queue_is_enabled() {
    let memory = memory();
    let bench = Bench::new(&memory);
    bench.queue.vring().set_enabled(false);
    bench.offer(&good_command(), 64);
    bench.queue.serve();
    assert_eq!(bench.executed(), 0);
    bench.queue.vring().set_enabled(true);
    assert_eq!(bench.serve_one(), (16, good_response()));
}

#[test]
fn stopping_executes_what_is_available_and_says_where_to_go_on() {
    let memory = memory();
    let bench = Bench::new(&memory);
    bench.queue.vring().set_enabled(false);
    for _ in 0..3 {
        bench.offer(&good_command(), 64);
    }
    assert_eq!(bench.queue.stop(), 3);
    assert_eq!(bench.executed(), 3);
    assert_eq!(bench.used.idx().load(), 3);
    assert_eq!(lock(&bench.parrot.state).stops, 1);

    // What comes after the stop waits for the next start.
    bench.offer(&good_command(), 64);
    bench.queue.serve();
    assert_eq!(bench.queue.stop(), 3);
    assert_eq!(bench.executed(), 3);
    assert_eq!(lock(&bench.parrot.state).stops, 1, "it was stopped before");
}

#[test]
fn a_ring_resumes_where_the_used_index_says() {
    let memory = memory();
    let bench = Bench::new(&memory);
    // Two commands were answered by another back end after QEMU read the base.
    bench.avail.idx().store(7);
    bench.used.idx().store(7);
    bench.start(5);
    bench.assert_works();
    let state = lock(&bench.parrot.state);
    assert_eq!(state.executed, [(7, good_command())]);
}

#[test]
fn a_base_ahead_of_the_used_index_is_believed() {
    let memory = memory();
    let bench = Bench::new(&memory);
    bench.avail.idx().store(6);
    bench.used.idx().store(5);
    bench.start(6);
    bench.offer(&good_command(), 64);
    bench.queue.serve();
    let state = lock(&bench.parrot.state);
    assert_eq!(state.executed, [(6, good_command())]);
}

#[test]
fn the_driver_is_interrupted_when_it_asked_to_be() {
    let memory = memory();
    let bench = Bench::new(&memory);
    let call = EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap();
    let theirs = std::os::fd::AsFd::as_fd(&call).try_clone_to_owned().unwrap();
    bench.queue.set_call(Some(File::from(theirs)));
    assert_eq!(call.read(), Ok(1), "one may have been lost before");
    bench.assert_works();
    assert_eq!(call.read(), Ok(1));

    // With VIRTIO_F_EVENT_IDX only when the used index passes used_event.
    bench.queue.vring().set_queue_event_idx(true);
    let used_event = AVAIL + 4 + u64::from(SIZE) * 2;
    bench.memory.write_obj(2u16, GuestAddress(used_event)).unwrap();
    bench.assert_works();
    assert!(call.read().is_err(), "used_event is 2, the index came to 2");
    bench.assert_works();
    assert_eq!(call.read(), Ok(1));
    let avail_event: u16 = bench.memory.read_obj(GuestAddress(USED + 4 + u64::from(SIZE) * 8)).unwrap();
    assert_eq!(avail_event, 3, "the next command is to be announced");
}
