//! Machines that use their TPM all the time and notice everything: a command without an answer, one that was executed twice, one that was not
//! executed, and how long an answer took.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vtpm_protocol::codec::{Encode, encode_sized};
use vtpm_protocol::tpm::{HEADER_SIZE, TpmAlgId, TpmCc, TpmHandle, TpmSu};

use crate::client;
use crate::common::command::{authorized, plain};
use crate::front_end::{Guest, Qemu};

/// How often each uses its TPM.
const PACE: Duration = Duration::from_millis(20);
/// After that QEMU connects again, with `reconnect-ms=100`.
const RECONNECT: Duration = Duration::from_millis(100);
const PCR: u32 = 16;
const COUNTER: u32 = 0x0100_0001;

/// How a machine reaches its TPM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Virtio,
    Control,
}

/// What a machine says of its life.
pub struct Record {
    pub kind: Kind,
    pub commands: u32,
    /// The longest time that a command took.
    pub longest: Duration,
    pub reconnects: usize,
}

enum Wire {
    Virtio(Box<Virtio>),
    Control(client::Machine),
}

struct Virtio {
    socket: std::path::PathBuf,
    guest: Guest,
    qemu: Qemu,
    reconnects: usize,
}

impl Virtio {
    fn connect(socket: &Path) -> Self {
        let (guest, mut qemu) = (Guest::new(), Qemu::connect(socket));
        qemu.start(&guest, 0);
        Self { socket: socket.to_owned(), guest, qemu, reconnects: 0 }
    }

    /// Waits for the call, or for the end of the connection, which takes a new one. `false` for the latter.
    fn wait(&mut self) {
        let epoll = Epoll::new().unwrap();
        let add = |fd, number| {
            epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(EventSet::IN, number)).unwrap();
        };
        use std::os::fd::AsRawFd;
        add(self.qemu.call.as_raw_fd(), 0);
        add(self.qemu.frontend.as_raw_fd(), 1);
        let mut events = [EpollEvent::default(); 2];
        let found = epoll.wait(60_000, &mut events).unwrap();
        assert!(found > 0, "no answer");
        if events[..found].iter().all(|event| event.data() == 0) {
            let _heard = self.qemu.call.read();
            return;
        }
        std::thread::sleep(RECONNECT);
        self.qemu = Qemu::connect(&self.socket);
        self.qemu.start(&self.guest, self.guest.used_idx());
        self.qemu.kick();
        self.reconnects += 1;
    }

    fn run(&mut self, command: &[u8]) -> Vec<u8> {
        let used = self.guest.used_idx();
        self.guest.command(0, command, 4096);
        self.qemu.kick();
        while self.guest.used_idx() == used {
            self.wait();
        }
        assert_eq!(self.guest.used_idx(), used.wrapping_add(1));
        let (_, length) = self.guest.used(used);
        self.guest.response(0, usize::try_from(length).unwrap())
    }
}

pub struct Machine(Wire);

impl Machine {
    /// A machine with its TPM started, at the sockets in `dir`.
    pub fn boot(kind: Kind, dir: &Path) -> Self {
        let mut machine = Self(match kind {
            Kind::Virtio => Wire::Virtio(Box::new(Virtio::connect(&dir.join("vhost-user.sock")))),
            Kind::Control => {
                let mut machine = client::Machine::connect(&dir.join("control.sock"));
                machine.result(vtpm_protocol::control::Request::Init(vtpm_protocol::control::InitFlags(0)));
                Wire::Control(machine)
            }
        });
        machine.succeed(&plain(TpmCc::STARTUP, &TpmSu::CLEAR.to_bytes()));
        // TPMA_NV: a counter that its password reads and increments.
        let public = (COUNTER, TpmAlgId::SHA256, 0x0004_0014u32, 0u16, 8u16).to_bytes();
        let mut parameters = 0u16.to_bytes();
        encode_sized(&public, &mut parameters);
        machine.succeed(&authorized(TpmCc::NV_DEFINE_SPACE, &[TpmHandle::OWNER.0], &parameters));
        machine
    }

    fn succeed(&mut self, command: &[u8]) -> Vec<u8> {
        let response = match &mut self.0 {
            Wire::Virtio(machine) => machine.run(command),
            Wire::Control(machine) => machine.data.transmit(command).unwrap(),
        };
        assert_eq!(response[6..10], [0; 4], "{response:02x?} to {command:02x?}");
        response[HEADER_SIZE..].to_vec()
    }

    fn increment(&mut self) {
        self.succeed(&authorized(TpmCc::NV_INCREMENT, &[COUNTER, COUNTER], &[]));
    }

    fn counter(&mut self) -> u64 {
        let read = authorized(TpmCc::NV_READ, &[COUNTER, COUNTER], &(8u16, 0u16).to_bytes());
        let response = self.succeed(&read);
        // The size of the parameters, and of the data.
        u64::from_be_bytes(response[6..14].try_into().unwrap())
    }

    fn pcr(&mut self) -> Vec<u8> {
        let selection = (1u32, TpmAlgId::SHA256, 3u8, 0u8, 0u8, 1u8).to_bytes();
        let response = self.succeed(&plain(TpmCc::PCR_READ, &selection));
        response[response.len() - 32..].to_vec()
    }

    /// Counts and extends until it is `done`, and looks then whether each happened once, in order.
    pub fn work(mut self, done: &AtomicBool) -> Record {
        let (mut longest, mut commands) = (Duration::ZERO, 0u32);
        let mut expected = vec![0; 32];
        self.increment();
        let first = self.counter();
        while !done.load(Ordering::Acquire) {
            let digest = Sha256::digest(commands.to_be_bytes());
            let extend = [(1u32, TpmAlgId::SHA256).to_bytes(), digest.to_vec()].concat();
            let begin = Instant::now();
            self.succeed(&authorized(TpmCc::PCR_EXTEND, &[PCR], &extend));
            let extended = begin.elapsed();
            self.increment();
            longest = longest.max(extended).max(begin.elapsed() - extended);
            expected = Sha256::digest([expected, digest.to_vec()].concat()).to_vec();
            commands += 1;
            std::thread::sleep(PACE);
        }
        assert_eq!(self.counter() - first, u64::from(commands));
        assert_eq!(self.pcr(), expected);
        let (kind, reconnects) = match &self.0 {
            Wire::Virtio(machine) => (Kind::Virtio, machine.reconnects),
            Wire::Control(_) => (Kind::Control, 0),
        };
        Record { kind, commands, longest, reconnects }
    }
}
