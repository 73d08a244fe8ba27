//! A front end and a driver for tests: what QEMU and the guest are to a back end.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "shared by test binaries that each use a part; a test stops where something is not as it should be"
)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserHeaderFlag,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;
use vtpm_backend::device::{DeviceError, TpmDevice};
use vtpm_backend::vhost::{FrontDoor, Options};

pub const VERSION_1: u64 = 1 << 32;
pub const EVENT_IDX: u64 = 1 << 29;
pub const INDIRECT_DESC: u64 = 1 << 28;
pub const LOG_ALL: u64 = 1 << 26;
pub const PROTOCOL: u64 = 1 << 30;

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

/// Where the guest has its rings and buffers. Each in pages of its own, for the dirty log.
pub const DESCRIPTORS: u64 = 0x1000;
pub const AVAIL: u64 = 0x2000;
pub const USED: u64 = 0x3000;
pub const COMMAND: u64 = 0x10000;
pub const RESPONSE: u64 = 0x20000;
pub const MEMORY: usize = 0x80000;
pub const QUEUE_SIZE: u16 = 16;

/// A device for tests: a counter TPM that records what it is told.
#[derive(Default)]
pub struct Toy {
    pub inner: Mutex<ToyState>,
    pub released: Condvar,
}

#[derive(Default)]
pub struct ToyState {
    /// Every command executed, with its slot.
    pub executed: Vec<(Option<u16>, Vec<u8>)>,
    pub last: Option<(u16, Vec<u8>, Vec<u8>)>,
    pub replays: usize,
    pub completed: Vec<u16>,
    pub stops: usize,
    pub resets: usize,
    pub runs: Vec<bool>,
    pub migrations: Vec<bool>,
    pub state: Vec<u8>,
    pub refuse: bool,
    pub panic: bool,
    /// Commands wait here until it is lifted.
    pub held: bool,
    pub waiting: usize,
}

impl Toy {
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    pub fn with<T>(&self, f: impl FnOnce(&mut ToyState) -> T) -> T {
        f(&mut self.inner.lock().unwrap_or_else(|e| e.into_inner()))
    }

    pub fn release(&self) {
        self.with(|s| s.held = false);
        self.released.notify_all();
    }
}

/// The response of [`Toy`]: the command, turned round, behind a header.
pub fn toy_response(command: &[u8]) -> Vec<u8> {
    let size = u32::try_from(command.len() + 10).unwrap();
    let mut out = [&[0x80, 1][..], &size.to_be_bytes(), &[0; 4]].concat();
    out.extend(command.iter().rev());
    out
}

impl TpmDevice for Toy {
    fn execute(&self, locality: u8, command: &[u8], slot: Option<u16>) -> Vec<u8> {
        assert_eq!(locality, 0);
        let mut s = self.inner.lock().unwrap_or_else(|e| e.into_inner());
        assert!(!s.panic, "told to");
        if let (Some(slot), Some((old, bytes, response))) = (slot, &s.last)
            && (slot, command) == (*old, bytes)
        {
            let response = response.clone();
            s.replays += 1;
            return response;
        }
        s.executed.push((slot, command.to_vec()));
        let response = toy_response(command);
        s.last = slot.map(|slot| (slot, command.to_vec(), response.clone()));
        s.waiting += 1;
        while s.held {
            s = self.released.wait(s).unwrap();
        }
        s.waiting -= 1;
        response
    }

    fn completed(&self, slot: u16) {
        self.with(|s| {
            s.completed.push(slot);
            s.last = None;
        });
    }

    fn queue_stopped(&self) {
        self.with(|s| s.stops += 1);
    }

    fn machine_reset(&self) {
        let mut s = self.inner.lock().unwrap_or_else(|e| e.into_inner());
        assert!(!s.panic, "told to");
        s.resets += 1;
        while s.held {
            s = self.released.wait(s).unwrap();
        }
    }

    fn run_state(&self, running: bool) {
        self.with(|s| s.runs.push(running));
    }

    fn migration_started(&self, logging: bool) {
        self.with(|s| s.migrations.push(logging));
    }

    fn save(&self, out: &mut dyn Write) -> Result<(), DeviceError> {
        let (state, refuse) = self.with(|s| (s.state.clone(), s.refuse));
        if refuse {
            return Err(DeviceError::Refused("nothing was prepared".into()));
        }
        out.write_all(&state).map_err(DeviceError::Io)
    }

    fn load(&self, input: &mut dyn Read) -> Result<(), DeviceError> {
        let mut state = Vec::new();
        input.read_to_end(&mut state).map_err(DeviceError::Io)?;
        if state.first() != Some(&0x56) {
            return Err(DeviceError::BadStream("not a state".into()));
        }
        self.with(|s| s.state = state);
        Ok(())
    }
}

/// A guest's memory and the driver's side of its queue.
pub struct Guest {
    pub memory: GuestMemoryMmap,
}

impl Guest {
    pub fn new() -> Self {
        let file = tempfile::tempfile().unwrap();
        file.set_len(MEMORY as u64).unwrap();
        let memory = GuestMemoryMmap::from_ranges_with_files([(
            GuestAddress(0),
            MEMORY,
            Some(FileOffset::new(file, 0)),
        )])
        .unwrap();
        Self { memory }
    }

    pub fn regions(&self) -> Vec<VhostUserMemoryRegionInfo> {
        self.memory.iter().map(|r| VhostUserMemoryRegionInfo::from_guest_region(r).unwrap()).collect()
    }

    pub fn put<T: vm_memory::ByteValued>(&self, address: u64, value: T) {
        self.memory.write_obj(value, GuestAddress(address)).unwrap();
    }

    pub fn get<T: vm_memory::ByteValued>(&self, address: u64) -> T {
        self.memory.read_obj(GuestAddress(address)).unwrap()
    }

    pub fn bytes(&self, address: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        self.memory.read_slice(&mut out, GuestAddress(address)).unwrap();
        out
    }

    pub fn descriptor(&self, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        self.descriptor_in(DESCRIPTORS, index, address, len, flags, next);
    }

    pub fn descriptor_in(&self, table: u64, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        let at = table + u64::from(index) * 16;
        self.put(at, address);
        self.put(at + 8, len);
        self.put(at + 12, flags);
        self.put(at + 14, next);
    }

    /// Makes the chain at `head` available.
    pub fn avail(&self, head: u16) {
        let idx: u16 = self.get(AVAIL + 2);
        self.put(AVAIL + 4 + u64::from(idx % QUEUE_SIZE) * 2, head);
        self.put(AVAIL + 2, idx.wrapping_add(1));
    }

    /// Puts a command in descriptors `head` and `head + 1` and makes it available.
    pub fn command(&self, head: u16, command: &[u8], room: u32) {
        let (at, out) = (COMMAND + u64::from(head) * 0x1000, RESPONSE + u64::from(head) * 0x1000);
        self.memory.write_slice(command, GuestAddress(at)).unwrap();
        let len = u32::try_from(command.len()).unwrap();
        self.descriptor(head, at, len, NEXT, head + 1);
        self.descriptor(head + 1, out, room, WRITE, 0);
        self.avail(head);
    }

    pub fn used_idx(&self) -> u16 {
        self.get(USED + 2)
    }

    /// Head and length of the `n`th used descriptor.
    pub fn used(&self, n: u16) -> (u32, u32) {
        let at = USED + 4 + u64::from(n % QUEUE_SIZE) * 8;
        (self.get(at), self.get(at + 4))
    }

    /// Waits until the used index is `idx`.
    pub fn wait_used(&self, idx: u16) {
        wait_for(&format!("used index {idx}"), || self.used_idx() == idx);
    }

    pub fn response(&self, head: u16, len: usize) -> Vec<u8> {
        self.bytes(RESPONSE + u64::from(head) * 0x1000, len)
    }
}

pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < end, "no {what} within 10 s");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A well-formed command of `len` bytes with `tag` in its body.
pub fn command(len: usize, tag: u8) -> Vec<u8> {
    let mut out = vec![tag; len];
    out[..2].copy_from_slice(&[0x80, 1]);
    out[2..6].copy_from_slice(&u32::try_from(len).unwrap().to_be_bytes());
    out[6..10].copy_from_slice(&[0, 0, 1, 0x7b]);
    out
}

/// QEMU's side of one connection.
pub struct Qemu {
    pub frontend: Frontend,
    pub kick: EventFd,
    pub call: EventFd,
    pub err: EventFd,
    pub features: u64,
}

impl Qemu {
    pub fn connect(socket: &Path) -> Self {
        Self::over(UnixStream::connect(socket).unwrap())
    }

    /// Negotiates over `stream`.
    pub fn over(stream: UnixStream) -> Self {
        let mut frontend = Frontend::from_stream(stream, 1);
        frontend.set_owner().unwrap();
        let features = frontend.get_features().unwrap();
        let protocol = frontend.get_protocol_features().unwrap();
        frontend.set_protocol_features(protocol).unwrap();
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        let features = features & (VERSION_1 | INDIRECT_DESC | PROTOCOL);
        Self {
            frontend,
            kick: EventFd::new(0).unwrap(),
            call: EventFd::new(libc::EFD_NONBLOCK).unwrap(),
            err: EventFd::new(libc::EFD_NONBLOCK).unwrap(),
            features,
        }
    }

    /// Starts the queue in the order in which QEMU does.
    pub fn start(&mut self, guest: &Guest, base: u16) {
        self.frontend.set_features(self.features).unwrap();
        self.frontend.set_mem_table(&guest.regions()).unwrap();
        self.start_queue(guest, base);
    }

    pub fn start_queue(&mut self, guest: &Guest, base: u16) {
        self.frontend.set_vring_num(0, QUEUE_SIZE).unwrap();
        self.frontend.set_vring_base(0, base).unwrap();
        self.set_addresses(guest);
        self.frontend.set_vring_kick(0, &self.kick).unwrap();
        self.frontend.set_vring_call(0, &self.call).unwrap();
        self.frontend.set_vring_err(0, &self.err).unwrap();
        self.frontend.set_vring_enable(0, true).unwrap();
    }

    pub fn set_addresses(&self, guest: &Guest) {
        let host = |address| guest.memory.get_host_address(GuestAddress(address)).unwrap() as u64;
        let addresses = VringConfigData {
            queue_max_size: QUEUE_SIZE,
            queue_size: QUEUE_SIZE,
            flags: 0,
            desc_table_addr: host(DESCRIPTORS),
            used_ring_addr: host(USED),
            avail_ring_addr: host(AVAIL),
            log_addr: None,
        };
        self.frontend.set_vring_addr(0, &addresses).unwrap();
    }

    /// Stops the queue in the order in which QEMU does.
    pub fn stop(&mut self) -> u16 {
        self.frontend.set_vring_enable(0, false).unwrap();
        u16::try_from(self.frontend.get_vring_base(0).unwrap()).unwrap()
    }

    pub fn kick(&self) {
        self.kick.write(1).unwrap();
    }

    /// Has one command executed and returns the response.
    pub fn run(&self, guest: &Guest, command: &[u8]) -> Vec<u8> {
        let used = guest.used_idx();
        guest.command(0, command, 4096);
        self.kick();
        guest.wait_used(used.wrapping_add(1));
        let (head, len) = guest.used(used);
        assert_eq!(head, 0);
        guest.response(0, len as usize)
    }

    pub fn write_config(&mut self, offset: u32, value: u32) {
        self.frontend.set_config(offset, VhostUserConfigFlags::empty(), &value.to_le_bytes()).unwrap();
    }

    pub fn read_config(&mut self, offset: u32, size: u32) -> Option<Vec<u8>> {
        let flags = VhostUserConfigFlags::empty();
        let buf = vec![0; size as usize];
        let got = self.frontend.get_config(offset, size, flags, &buf).ok()?;
        Some(got.1)
    }

    /// Has the state saved; `Err` when `CHECK_DEVICE_STATE` says so.
    pub fn save(&self) -> Result<Vec<u8>, ()> {
        let (mut read, write) = std::io::pipe().unwrap();
        self.transfer(VhostTransferStateDirection::SAVE, write.into());
        let mut state = Vec::new();
        read.read_to_end(&mut state).unwrap();
        self.frontend.check_device_state().map(|()| state).map_err(drop)
    }

    /// Has `state` loaded.
    pub fn load(&self, state: &[u8]) -> Result<(), ()> {
        let (read, mut write) = std::io::pipe().unwrap();
        self.transfer(VhostTransferStateDirection::LOAD, read.into());
        write.write_all(state).unwrap();
        drop(write);
        self.frontend.check_device_state().map_err(drop)
    }

    pub fn transfer(&self, direction: VhostTransferStateDirection, fd: OwnedFd) {
        let phase = VhostTransferStatePhase::STOPPED;
        let returned = self.frontend.set_device_state_fd(direction, phase, fd);
        assert!(returned.unwrap().is_none());
    }

    /// Whether the other side still answers.
    pub fn alive(&self) -> bool {
        self.frontend.get_features().is_ok()
    }
}

/// A device behind a front door.
pub struct Fixture {
    pub dir: tempfile::TempDir,
    pub socket: PathBuf,
    pub toy: Arc<Toy>,
    pub door: FrontDoor,
}

impl Fixture {
    pub fn new() -> Self {
        Self::with(Options::new("test"))
    }

    pub fn with(options: Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("vtpm.sock");
        let toy = Toy::new();
        let door = FrontDoor::bind(&socket, toy.clone(), options).unwrap();
        Self { dir, socket, toy, door }
    }

    /// A guest with a started queue.
    pub fn guest(&self) -> (Guest, Qemu) {
        let (guest, mut qemu) = (Guest::new(), Qemu::connect(&self.socket));
        qemu.start(&guest, 0);
        (guest, qemu)
    }
}

/// A command gets its response.
pub fn works(guest: &Guest, qemu: &Qemu) {
    let command = command(20, 0x77);
    assert_eq!(qemu.run(guest, &command), toy_response(&command));
}

/// A dirty bitmap for [`MEMORY`] bytes.
pub struct Bitmap(pub File);

impl Bitmap {
    pub fn new() -> Self {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        Self(file)
    }

    pub fn share(&self, qemu: &Qemu) {
        let region = vhost::VhostUserDirtyLogRegion {
            mmap_size: 4096,
            mmap_offset: 0,
            mmap_handle: self.0.as_raw_fd(),
        };
        qemu.frontend.set_log_base(0, Some(region)).unwrap();
    }

    /// The pages that are marked, and unmarks them.
    pub fn take(&self) -> Vec<u64> {
        use std::os::unix::fs::FileExt;
        let mut bytes = vec![0; 4096];
        self.0.read_exact_at(&mut bytes, 0).unwrap();
        self.0.write_all_at(&vec![0; 4096], 0).unwrap();
        (0..4096 * 8)
            .filter(|page| bytes[page / 8] & (1 << (page % 8)) != 0)
            .map(|page| page as u64 * 4096)
            .collect()
    }
}
