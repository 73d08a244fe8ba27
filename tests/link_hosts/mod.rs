//! Daemons in this process, each with a state of its own, that know one another.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use p256::ecdsa::SigningKey;
use p256::ecdsa::signature::hazmat::PrehashSigner;
use tempfile::TempDir;
use vtpm_backend::device::{DeviceError, TpmDevice};
use vtpm_protocol::codec::Encode;
use vtpm_protocol::instance::{
    InstanceName, InstanceState, LockFlags, MigrationId, MigrationTicket, PeerAddress, PeerEntry, PeerKind,
    PeerRights, Uuid,
};
use vtpm_protocol::tpm::{Tpm2b, TpmCc, TpmSt};
use vtpmd::config::{Config, LinkConfig};
use vtpmd::daemon::{self, Daemon};
use vtpmd::link::Patience;
use vtpmd::link::client::Dialer;
use vtpmd::link::root::RootTrust;
use vtpmd::link::tls::{LinkKey, LinkPublic, Tls, TlsStream};
use vtpmd::link::trust::{Trust, greet};
use vtpmd::link::wire::{Timed, Wire};
use vtpmd::migration::client::Client;
use vtpmd::service::Sockets;
use vtpmd::tree::{ECC_STORAGE_KEY, Instance, LocalTransport};

pub const NAME: &str = "guest";
pub const GUEST: Uuid = Uuid([0x6c; 16]);
const SOON: Duration = Duration::from_secs(20);

/// Waits for it, up to a minute on a busy machine; the tests measure how long it took where that matters.
pub fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !reached() {
        assert!(Instant::now() < end, "it is never {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn get_random() -> Vec<u8> {
    (TpmSt::NO_SESSIONS, 12u32, TpmCc::GET_RANDOM, 8u16).to_bytes()
}

/// Whether the machine of this instance is served. A TPM that was just made wants TPM2_Startup first, and that is service, too.
pub fn executes(instance: &Instance) -> bool {
    let startup = (TpmSt::NO_SESSIONS, 12u32, TpmCc::STARTUP, 0u16).to_bytes();
    [startup, get_random()].iter().any(|command| instance.execute(0, command, None)[6..10] == [0; 4])
}

/// A link key that is in no TPM.
pub fn software_key(seed: u8) -> LinkKey {
    let secret = SigningKey::from_slice(&[seed; 32]).unwrap();
    let point = secret.verifying_key().to_sec1_point(false);
    let public = LinkPublic(point.as_bytes()[1..].try_into().unwrap());
    LinkKey::new(public, move |digest| {
        let signature: p256::ecdsa::Signature = secret.sign_prehash(digest).unwrap();
        Ok(signature.to_bytes().into())
    })
}

pub struct Host {
    name: &'static str,
    _dir: TempDir,
    config: Config,
    daemon: Option<Daemon>,
}

impl Host {
    pub fn start(name: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let link = LinkConfig { listen: "127.0.0.1:0".parse().ok(), ..LinkConfig::default() };
        let config = Config {
            state_dir: dir.path().join("state"),
            runtime_dir: dir.path().join("run"),
            link: Some(link),
            ..Config::default()
        };
        daemon::init(&config).unwrap();
        let mut host = Self { name, _dir: dir, config, daemon: None };
        host.run();
        host
    }

    /// Two that trust each other.
    pub fn pair() -> (Self, Self) {
        let (a, b) = (Self::start("a"), Self::start("b"));
        a.trust(&b);
        b.trust(&a);
        (a, b)
    }

    /// Starts the daemon, at the same address if it ran before.
    pub fn run(&mut self) {
        let daemon = Daemon::start(&self.config, Sockets::default()).unwrap();
        self.config.link.as_mut().unwrap().listen = daemon.link_address();
        self.daemon = Some(daemon);
    }

    pub fn stop(&mut self) {
        self.daemon.take().unwrap().stop();
    }

    pub fn restart(&mut self) {
        self.stop();
        self.run();
    }

    /// At most so many peers, from the next start on.
    pub fn allow(&mut self, connections: u32) {
        self.config.link.as_mut().unwrap().connections = connections;
    }

    fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().unwrap()
    }

    pub fn client(&self) -> Client<LocalTransport> {
        self.daemon().tree().local_client()
    }

    pub fn address(&self) -> String {
        let address: SocketAddr = self.config.link.as_ref().unwrap().listen.unwrap();
        address.to_string()
    }

    pub fn trust(&self, other: &Self) {
        self.add_peer(other, &other.address());
    }

    pub fn add_peer(&self, other: &Self, address: &str) {
        self.add_peer_with(other, address, PeerKind::Pinned, PeerRights::default());
    }

    pub fn add_peer_with(&self, other: &Self, address: &str, kind: PeerKind, rights: PeerRights) {
        let entry = PeerEntry {
            label: InstanceName::new(other.name).unwrap(),
            kind,
            rights,
            credential: Tpm2b::new(other.client().identity().unwrap().attestation.to_vec()).unwrap(),
            address: PeerAddress::new(address).unwrap(),
        };
        self.client().add_peer(&entry).unwrap();
    }

    pub fn forget(&self, other: &Self) {
        self.client().remove_peer(&InstanceName::new(other.name).unwrap()).unwrap();
    }

    pub fn fingerprint(&self) -> String {
        vtpmd::trust::identity::verify(self.client().identity().unwrap()).unwrap().fingerprint()
    }

    pub fn trust_of_root(&self) -> Arc<RootTrust<LocalTransport>> {
        Arc::new(RootTrust::new(Arc::new(self.client())))
    }

    pub fn link_key(&self) -> LinkKey {
        self.trust_of_root().link_key().unwrap()
    }

    pub fn dialer(&self) -> Dialer {
        self.dialer_with(self.link_key())
    }

    pub fn dialer_with(&self, key: LinkKey) -> Dialer {
        Dialer::new(Tls::new(&key).unwrap(), self.trust_of_root(), Patience::default())
    }

    /// A connection after the hellos, to say anything on.
    pub fn hello(&self, to: &Self) -> TlsStream {
        let socket = TcpStream::connect(to.address()).unwrap();
        let mut stream = Tls::new(&self.link_key()).unwrap().connect(socket, SOON).unwrap();
        let key = stream.peer();
        let mut wire = Wire::new(&mut stream);
        greet(&mut wire, &*self.trust_of_root() as &dyn Trust, key, SOON).unwrap();
        stream.set_deadline(Instant::now() + SOON);
        stream
    }

    /// A machine's TPM.
    pub fn create(&self) {
        self.client().create_fresh(NAME, Some(GUEST)).unwrap();
        assert!(executes(&self.guest()));
    }

    pub fn create_other(&self, name: &str) {
        self.client().create_fresh(name, None).unwrap();
        assert!(executes(&self.instance(name)));
    }

    /// A slot for it.
    pub fn prepare(&self) -> MigrationTicket {
        self.client().prepare(NAME, GUEST, ECC_STORAGE_KEY).unwrap().ticket
    }

    pub fn delete(&self) {
        self.client().delete(self.guest().handle()).unwrap();
    }

    pub fn arm(&self, ticket: &MigrationTicket) {
        self.client().arm(self.guest().handle(), Some(ticket.clone()), LockFlags::default()).unwrap();
    }

    pub fn instance(&self, name: &str) -> Arc<Instance> {
        self.daemon().tree().by_name(name).unwrap()
    }

    pub fn guest(&self) -> Arc<Instance> {
        self.instance(NAME)
    }

    pub fn state(&self) -> Option<InstanceState> {
        self.daemon().tree().by_name(NAME)?.state()
    }

    pub fn armed_with(&self) -> Option<MigrationId> {
        self.guest().armed()?;
        self.client().info(self.guest().handle()).unwrap().ticket.map(|ticket| ticket.migration_id)
    }

    pub fn save(&self) -> Result<Vec<u8>, DeviceError> {
        let mut stream = Vec::new();
        self.guest().save(&mut stream).map(|()| stream)
    }

    pub fn load(&self, stream: &[u8]) -> Result<(), DeviceError> {
        self.guest().load(&mut &stream[..])
    }

    pub fn device_socket(&self) -> PathBuf {
        self.config.runtime_dir.join(NAME).join(daemon::VHOST_USER_SOCKET)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.stop();
        }
    }
}
