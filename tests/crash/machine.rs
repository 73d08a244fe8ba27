//! The virtual machine: a driver's queue in memory of its own, and QEMU's part, both of which outlive the daemon.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserHeaderFlag,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

use crate::site::Site;
use crate::tpm;

const VERSION_1: u64 = 1 << 32;
const PROTOCOL: u64 = 1 << 30;
const LOG_ALL: u64 = 1 << 26;
const NEXT: u16 = 1;
const WRITE: u16 = 2;

// Where the driver has its queue and buffers.
const DESCRIPTORS: u64 = 0x1000;
const AVAIL: u64 = 0x2000;
const USED: u64 = 0x3000;
const COMMAND: u64 = 0x10000;
const RESPONSE: u64 = 0x20000;
const MEMORY: usize = 0x40000;
const QUEUE_SIZE: u16 = 16;

/// The doorbell of a machine reset in the configuration space.
const MACHINE_RESET: u32 = 8;

/// How long a daemon may take for anything.
const PATIENCE: Duration = Duration::from_secs(60);

type Attempt<T> = Result<T, vhost::Error>;

/// QEMU's side of one connection.
struct Connection {
    frontend: Frontend,
    /// How often the daemon had died: another one than now serves nobody.
    deaths: u32,
    kick: EventFd,
    _call: EventFd,
}

/// A machine with a TPM.
pub struct Machine {
    memory: GuestMemoryMmap,
    connection: Option<Connection>,
}

impl Machine {
    pub fn new() -> Self {
        let file = tempfile::tempfile().unwrap();
        file.set_len(MEMORY as u64).unwrap();
        let range = (GuestAddress(0), MEMORY, Some(FileOffset::new(file, 0)));
        Self { memory: GuestMemoryMmap::from_ranges_with_files([range]).unwrap(), connection: None }
    }

    fn put<T: vm_memory::ByteValued>(&self, address: u64, value: T) {
        self.memory.write_obj(value, GuestAddress(address)).unwrap();
    }

    fn get<T: vm_memory::ByteValued>(&self, address: u64) -> T {
        self.memory.read_obj(GuestAddress(address)).unwrap()
    }

    /// Connects, with the queue where the used ring says that it is, as QEMU does when a back end has vanished.
    fn connect(&self, site: &Site) -> Attempt<Connection> {
        let stream = UnixStream::connect(site.socket()).map_err(vhost::Error::IOError)?;
        let mut frontend = Frontend::from_stream(stream, 1);
        frontend.set_owner()?;
        let features = frontend.get_features()? & (VERSION_1 | PROTOCOL);
        let protocol = frontend.get_protocol_features()?;
        frontend.set_protocol_features(protocol)?;
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        frontend.set_features(features)?;
        let regions = self.memory.iter().map(VhostUserMemoryRegionInfo::from_guest_region);
        frontend.set_mem_table(&regions.collect::<Result<Vec<_>, _>>()?)?;
        frontend.set_vring_num(0, QUEUE_SIZE)?;
        frontend.set_vring_base(0, self.get(USED + 2))?;
        let host = |address| self.memory.get_host_address(GuestAddress(address)).unwrap() as u64;
        let addresses = VringConfigData {
            queue_max_size: QUEUE_SIZE,
            queue_size: QUEUE_SIZE,
            flags: 0,
            desc_table_addr: host(DESCRIPTORS),
            used_ring_addr: host(USED),
            avail_ring_addr: host(AVAIL),
            log_addr: None,
        };
        frontend.set_vring_addr(0, &addresses)?;
        let (kick, call) = (EventFd::new(0).unwrap(), EventFd::new(libc::EFD_NONBLOCK).unwrap());
        frontend.set_vring_kick(0, &kick)?;
        frontend.set_vring_call(0, &call)?;
        frontend.set_vring_enable(0, true)?;
        Ok(Connection { frontend, deaths: site.deaths, kick, _call: call })
    }

    /// Connects to the instance, to a restarted daemon if need be.
    fn connected(&mut self, site: &mut Site) -> &mut Connection {
        let until = Instant::now() + PATIENCE;
        // Somebody else may have restarted it.
        self.connection.take_if(|connection| connection.deaths != site.deaths);
        while self.connection.is_none() {
            match self.connect(site) {
                Ok(connection) => self.connection = Some(connection),
                Err(error) => {
                    assert!(Instant::now() < until, "no connection to {}: {error}", site.name());
                    if !site.mend() {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                }
            }
        }
        self.connection.as_mut().unwrap()
    }

    /// The machine is reset.
    pub fn reset(&mut self, site: &mut Site) {
        let flags = VhostUserConfigFlags::empty();
        let frontend = &mut self.connected(site).frontend;
        frontend.set_config(MACHINE_RESET, flags, &1u32.to_le_bytes()).unwrap();
    }

    fn used(&self) -> u16 {
        self.get(USED + 2)
    }

    /// Makes a command available, and returns the used index that tells that it was answered.
    fn offer(&self, command: &[u8]) -> u16 {
        self.memory.write_slice(command, GuestAddress(COMMAND)).unwrap();
        let length = u32::try_from(command.len()).unwrap();
        for (index, address, length, flags, next) in
            [(0, COMMAND, length, NEXT, 1u16), (1, RESPONSE, 4096, WRITE, 0)]
        {
            let at = DESCRIPTORS + index * 16;
            self.put(at, address);
            self.put(at + 8, length);
            self.put(at + 12, flags);
            self.put(at + 14, next);
        }
        let next: u16 = self.get(AVAIL + 2);
        self.put(AVAIL + 4 + u64::from(next % QUEUE_SIZE) * 2, 0u16);
        self.put(AVAIL + 2, next.wrapping_add(1));
        next.wrapping_add(1)
    }

    fn response(&self, used: u16) -> Vec<u8> {
        let at = USED + 4 + u64::from(used.wrapping_sub(1) % QUEUE_SIZE) * 8;
        let length: u32 = self.get(at + 4);
        let mut response = vec![0; usize::try_from(length).unwrap()];
        self.memory.read_slice(&mut response, GuestAddress(RESPONSE)).unwrap();
        response
    }

    /// The response to a command. When the daemon dies it is restarted, and finds the command where it was.
    pub fn run(&mut self, site: &mut Site, command: &[u8]) -> Vec<u8> {
        self.try_run(site, command, true).unwrap()
    }

    /// As [`Self::run`], but a death of the daemon also ends the machine, and the command with it: `None`.
    pub fn run_once(&mut self, site: &mut Site, command: &[u8]) -> Option<Vec<u8>> {
        self.try_run(site, command, false)
    }

    fn try_run(&mut self, site: &mut Site, command: &[u8], again: bool) -> Option<Vec<u8>> {
        self.connected(site);
        let used = self.offer(command);
        let until = Instant::now() + PATIENCE;
        loop {
            // A write of the counter fails only when it is full, and then the daemon was told.
            let _told = self.connection.as_ref().map(|c| c.kick.write(1));
            while self.used() != used && !site.is_dead() {
                assert!(Instant::now() < until, "{} does not answer a command", site.name());
                std::thread::sleep(Duration::from_micros(200));
            }
            if self.used() == used {
                return Some(self.response(used));
            }
            self.connection = None;
            site.mend();
            if !again {
                *self = Self::new();
                return None;
            }
            self.connected(site);
        }
    }

    /// QEMU begins to send the machine's memory, and says so. Also to a daemon that was restarted.
    pub fn migrate(&mut self, site: &mut Site) {
        let frontend = &mut self.connected(site).frontend;
        let told = frontend
            .get_features()
            .and_then(|all| frontend.set_features(all & (VERSION_1 | PROTOCOL | LOG_ALL)));
        if told.is_err() {
            self.connection = None;
        }
    }

    /// The machine is stopped, and its device's state taken; `None` when that fails, after which the machine is there as before.
    pub fn save(&mut self, site: &mut Site) -> Option<Vec<u8>> {
        let (mut read, write) = std::io::pipe().unwrap();
        let mut state = Vec::new();
        let frontend = &mut self.connected(site).frontend;
        let stopped = frontend.set_vring_enable(0, false).and_then(|()| frontend.get_vring_base(0));
        let direction = VhostTransferStateDirection::SAVE;
        let saved = stopped
            .and_then(|_| {
                frontend.set_device_state_fd(direction, VhostTransferStatePhase::STOPPED, write.into())
            })
            .map(|_| read.read_to_end(&mut state).unwrap())
            .and_then(|_| frontend.check_device_state());
        // QEMU goes on with a connection on which the queue runs.
        self.connection = None;
        saved.is_ok().then_some(state)
    }

    /// Whether the machine has left the device.
    pub fn is_away(&self) -> bool {
        self.connection.is_none()
    }

    /// The state of a device that was saved is loaded. Whether that held.
    pub fn load(&mut self, site: &mut Site, state: &[u8]) -> bool {
        let (read, mut write) = std::io::pipe().unwrap();
        let frontend = &mut self.connected(site).frontend;
        let direction = VhostTransferStateDirection::LOAD;
        let loading = frontend.set_device_state_fd(direction, VhostTransferStatePhase::STOPPED, read.into());
        let written = loading.is_ok() && write.write_all(state).is_ok();
        drop(write);
        let held = written && frontend.check_device_state().is_ok();
        if !held {
            self.connection = None;
        }
        held
    }

    /// The machine is stopped here, to go on elsewhere: the queue stops with nothing in flight. A daemon that dies meanwhile has answered all.
    pub fn leave(&mut self, site: &mut Site) {
        if let Some(connection) = &mut self.connection {
            let stopped = connection.frontend.set_vring_enable(0, false);
            let _base = stopped.map(|()| connection.frontend.get_vring_base(0));
        }
        self.connection = None;
        site.mend();
    }
}

/// The code with which the instance answers a machine of its own that asks for random bytes; `None` when nobody answers.
pub fn probe(site: &mut Site) -> Option<u32> {
    site.mend();
    // A daemon that was killed when the instance was gone, and its socket was not, has left a file behind.
    if UnixStream::connect(site.socket()).is_err() {
        return None;
    }
    let mut machine = Machine::new();
    let response = machine.run(site, &tpm::get_random());
    Some(tpm::code(&response))
}
