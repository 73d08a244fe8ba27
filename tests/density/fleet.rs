//! Many instances of one daemon, and what the daemon costs.

use std::collections::VecDeque;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vtpm_protocol::codec::{Encode, encode_sized, encode_sized_with};
use vtpm_protocol::tpm::{HEADER_SIZE, TpmAlgId, TpmCc, TpmHandle, TpmSu};
use vtpmd::migration::client::{Client, Transport, TransportError};
use zeroize::Zeroizing;

use crate::common::command::{authorized, plain};
use crate::common::{Host, Raw};
use crate::front_end::{Guest, Qemu};

/// How long after its client left an instance certainly sleeps, with [`CONFIG`].
pub const ASLEEP: Duration = Duration::from_secs(4);
const CONFIG: &str = "[limits]\ninstances = 20000\nsleep_after = 1\n";
/// NV indices of an instance.
const INDICES: u32 = 6;
const FIRST_INDEX: u32 = 0x0100_0010;
const RSA_KEY: u32 = 0x8101_0001;
const ECC_KEY: u32 = 0x8100_0001;

/// A new state below `dir`, and a daemon on it that puts instances to sleep soon.
pub fn host(dir: &Path, name: &str) -> Host {
    let mut host = Host::at(dir.join(name));
    assert!(host.vtpmd("init").output().unwrap().status.success());
    std::fs::write(host.state().join("vtpmd.toml"), CONFIG).unwrap();
    run(&mut host);
    host
}

/// A daemon on the state that is there.
pub fn run(host: &mut Host) {
    let config = host.state().join("vtpmd.toml");
    host.run_with(&["--config", config.to_str().unwrap()]);
}

/// As many descriptors as there may be: a client takes some for each connection, and the daemon inherits the limit. How many.
pub fn raise_descriptor_limit() -> usize {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    // Only an administrator can raise the hard limit.
    let raised = [hard.max(100_000), hard]
        .into_iter()
        .find(|&limit| setrlimit(Resource::RLIMIT_NOFILE, limit, limit).is_ok());
    usize::try_from(raised.unwrap()).unwrap()
}

/// A process, as the system sees it.
#[derive(Clone, Copy)]
pub struct Process(pub u32);

/// What it has of the memory, in KiB.
#[derive(Clone, Copy, Debug)]
pub struct Resident {
    pub resident: u64,
    /// Where pages are shared, its part of them.
    pub proportional: u64,
    pub private: u64,
}

impl Process {
    fn read(self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.0)).unwrap()
    }

    fn count(self, dir: &str) -> usize {
        std::fs::read_dir(format!("/proc/{}/{dir}", self.0)).unwrap().count()
    }

    pub fn memory(self) -> Resident {
        let text = self.read("smaps_rollup");
        let of = |name: &str| -> u64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        };
        let private = of("Private_Clean:") + of("Private_Dirty:");
        Resident { resident: of("Rss:"), proportional: of("Pss:"), private }
    }

    pub fn threads(self) -> usize {
        self.count("task")
    }

    /// Those that serve clients of instances.
    pub fn door_threads(self) -> usize {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.0)).unwrap();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.filter(|name| name.starts_with("vtpm-")).count()
    }

    pub fn descriptors(self) -> usize {
        self.count("fd")
    }

    /// The time of the processors that it has had, in hundredths of a second.
    pub fn processor_ticks(self) -> u64 {
        let stat = self.read("stat");
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    /// How often its threads were put on a processor.
    pub fn switches(self) -> u64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.0)).unwrap();
        let of = |task: std::io::Result<std::fs::DirEntry>| -> Option<u64> {
            let status = std::fs::read_to_string(task.ok()?.path().join("status")).ok()?;
            let lines = status.lines().filter_map(|l| l.split_once("ctxt_switches:"));
            Some(lines.filter_map(|(_, n)| n.trim().parse::<u64>().ok()).sum())
        };
        tasks.filter_map(of).sum()
    }
}

struct Socket(Mutex<Raw>);

impl Transport for Socket {
    fn transmit(&self, command: &[u8]) -> Result<Vec<u8>, TransportError> {
        Ok(self.0.lock().unwrap().transmit(command)?)
    }
}

/// The operator, at the root.
pub struct Root(Client<Socket>);

impl Root {
    pub fn of(host: &Host) -> Self {
        Self(Client::new(Socket(Mutex::new(host.raw())), Zeroizing::new(host.owner_auth())))
    }

    /// A new TPM; its handle.
    pub fn create(&self, name: &str) -> u32 {
        self.0.create_fresh(name, None).unwrap().instance
    }

    pub fn delete(&self, instance: u32) {
        self.0.delete(instance).unwrap();
    }
}

fn startup_command() -> Vec<u8> {
    plain(TpmCc::STARTUP, &TpmSu::CLEAR.to_bytes())
}

/// `TPM2_Startup` at a TPM behind a stream socket.
pub fn startup(raw: &mut Raw) {
    assert_eq!(raw.transmit(&startup_command()).unwrap()[6..10], [0; 4]);
}

/// The keys that an instance keeps.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// An RSA key of 2048 bits for endorsement, an ECC key for storage.
    RsaAndEcc,
    /// Two ECC keys, which are made in no time.
    Ecc,
}

/// A storage key of one of the two kinds.
fn template(alg: TpmAlgId) -> Vec<u8> {
    let mut out = (alg, TpmAlgId::SHA256, 0x0003_0072u32, 0u16).to_bytes();
    (TpmAlgId::AES, 128u16, TpmAlgId::CFB, TpmAlgId::NULL).encode(&mut out);
    if alg == TpmAlgId::RSA {
        (2048u16, 0u32, 0u16).encode(&mut out);
    } else {
        (3u16, TpmAlgId::NULL, 0u16, 0u16).encode(&mut out);
    }
    out
}

/// A machine with its queue at a vhost-user socket, as QEMU has it.
pub struct Machine {
    guest: Guest,
    qemu: Qemu,
    called: Epoll,
}

impl Machine {
    pub fn connect(socket: &Path) -> Self {
        let (guest, mut qemu) = (Guest::new(), Qemu::connect(socket));
        qemu.start(&guest, 0);
        let called = Epoll::new().unwrap();
        let event = EpollEvent::new(EventSet::IN, 0);
        called.ctl(ControlOperation::Add, qemu.call.as_raw_fd(), event).unwrap();
        Self { guest, qemu, called }
    }

    pub fn run(&mut self, command: &[u8]) -> Vec<u8> {
        let used = self.guest.used_idx();
        self.guest.command(0, command, 4096);
        self.qemu.kick();
        while self.guest.used_idx() == used {
            let found = self.called.wait(60_000, &mut [EpollEvent::default()]).unwrap();
            assert_eq!(found, 1, "no answer to {command:02x?}");
            let _heard = self.qemu.call.read();
        }
        let (_, length) = self.guest.used(used);
        self.guest.response(0, usize::try_from(length).unwrap())
    }

    /// What follows the header of the response; the command must succeed.
    pub fn succeed(&mut self, command: &[u8]) -> Vec<u8> {
        let response = self.run(command);
        assert_eq!(response[6..10], [0; 4], "{response:02x?} to {command:02x?}");
        response[HEADER_SIZE..].to_vec()
    }

    pub fn startup(&mut self) {
        self.succeed(&startup_command());
    }

    pub fn random(&mut self) {
        self.succeed(&plain(TpmCc::GET_RANDOM, &8u16.to_bytes()));
    }

    /// Extends a PCR in all banks.
    pub fn measure(&mut self, pcr: u32, event: &[u8]) {
        let mut data = Vec::new();
        encode_sized(event, &mut data);
        self.succeed(&authorized(TpmCc::PCR_EVENT, &[pcr], &data));
    }

    pub fn make_keys(&mut self, keys: Keys) {
        let first = if keys == Keys::RsaAndEcc { TpmAlgId::RSA } else { TpmAlgId::ECC };
        let of = [(TpmHandle::ENDORSEMENT, first, RSA_KEY), (TpmHandle::OWNER, TpmAlgId::ECC, ECC_KEY)];
        for (hierarchy, alg, handle) in of {
            let mut parameters = Vec::new();
            encode_sized_with(&mut parameters, |o| (0u16, 0u16).encode(o));
            encode_sized(&template(alg), &mut parameters);
            (0u16, 0u32).encode(&mut parameters);
            let made = self.succeed(&authorized(TpmCc::CREATE_PRIMARY, &[hierarchy.0], &parameters));
            let transient = u32::from_be_bytes(made[..4].try_into().unwrap());
            let handles = [TpmHandle::OWNER.0, transient];
            self.succeed(&authorized(TpmCc::EVICT_CONTROL, &handles, &handle.to_bytes()));
            self.succeed(&plain(TpmCc::FLUSH_CONTEXT, &transient.to_bytes()));
        }
    }

    fn make_indices(&mut self) {
        for index in FIRST_INDEX..FIRST_INDEX + INDICES {
            let public = (index, TpmAlgId::SHA256, 0x0002_0002u32, 0u16, 64u16).to_bytes();
            let mut parameters = 0u16.to_bytes();
            encode_sized(&public, &mut parameters);
            self.succeed(&authorized(TpmCc::NV_DEFINE_SPACE, &[TpmHandle::OWNER.0], &parameters));
            let mut parameters = Vec::new();
            encode_sized(&[7; 64], &mut parameters);
            0u16.encode(&mut parameters);
            self.succeed(&authorized(TpmCc::NV_WRITE, &[TpmHandle::OWNER.0, index], &parameters));
        }
    }

    /// What a machine has done with its TPM when it is up.
    pub fn boot(&mut self, keys: Keys) {
        self.startup();
        for pcr in 0..8 {
            self.measure(pcr, b"what booted");
        }
        self.make_indices();
        self.make_keys(keys);
    }

    /// A session that is loaded, a saved one, and an object that is loaded: what a guest may leave lying about.
    pub fn leave_things(&mut self) {
        let nonce = [3u8; 16];
        let mut parameters = Vec::new();
        encode_sized(&nonce, &mut parameters);
        (0u16, 1u8, TpmAlgId::NULL, TpmAlgId::SHA256).encode(&mut parameters);
        let handles = (TpmHandle::NULL, TpmHandle::NULL).to_bytes();
        let start = plain(TpmCc::START_AUTH_SESSION, &[handles, parameters].concat());
        self.succeed(&start);
        let session = u32::from_be_bytes(self.succeed(&start)[..4].try_into().unwrap());
        self.succeed(&plain(TpmCc::CONTEXT_SAVE, &session.to_bytes()));
        let mut parameters = Vec::new();
        encode_sized_with(&mut parameters, |o| (0u16, 0u16).encode(o));
        encode_sized(&template(TpmAlgId::ECC), &mut parameters);
        (0u16, 0u32).encode(&mut parameters);
        self.succeed(&authorized(TpmCc::CREATE_PRIMARY, &[TpmHandle::NULL.0], &parameters));
    }

    /// All that a guest can ask its TPM about itself, but for what changes by asking.
    pub fn look(&mut self) -> Vec<Vec<u8>> {
        let mut seen = Vec::new();
        let handles = |first: u32| plain(TpmCc::GET_CAPABILITY, &(1u32, first, 64u32).to_bytes());
        for first in [0x0000_0000, 0x0100_0000, 0x0200_0000, 0x0300_0000, 0x8000_0000, 0x8100_0000] {
            seen.push(self.succeed(&handles(first)));
        }
        for properties in [0x100u32, 0x200] {
            seen.push(self.succeed(&plain(TpmCc::GET_CAPABILITY, &(6u32, properties, 64u32).to_bytes())));
        }
        for bank in [TpmAlgId::SHA1, TpmAlgId::SHA256, TpmAlgId::SHA384, TpmAlgId::SHA512] {
            let selection = (1u32, bank, 3u8, [0xffu8, 0, 0]).to_bytes();
            seen.push(self.succeed(&plain(TpmCc::PCR_READ, &selection)));
        }
        for object in [RSA_KEY, ECC_KEY, 0x8000_0000] {
            seen.push(self.succeed(&plain(TpmCc::READ_PUBLIC, &object.to_bytes())));
        }
        for index in FIRST_INDEX..FIRST_INDEX + INDICES {
            seen.push(self.succeed(&plain(TpmCc::NV_READ_PUBLIC, &index.to_bytes())));
            let read = (64u16, 0u16).to_bytes();
            seen.push(self.succeed(&authorized(TpmCc::NV_READ, &[TpmHandle::OWNER.0, index], &read)));
        }
        seen
    }
}

/// Makes and boots these instances. Every second one keeps its client.
pub fn populate(host: &Host, root: &Root, names: &[String], keys: Keys) -> Vec<Machine> {
    for name in names {
        root.create(name);
    }
    let (work, kept) = (Mutex::new(names.iter().enumerate().collect::<VecDeque<_>>()), Mutex::default());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some((i, name)) = work.lock().unwrap().pop_front() else { return };
                    let mut machine = Machine::connect(&host.runtime().join(name).join("vhost-user.sock"));
                    machine.boot(keys);
                    if i % 2 == 0 {
                        Vec::push(&mut kept.lock().unwrap(), machine);
                    }
                }
            });
        }
    });
    kept.into_inner().unwrap()
}
