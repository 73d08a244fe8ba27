//! The daemon: the tree of one store, with a front door for every instance and the raw TPM socket of the root.
//!
//! Below the runtime directory every instance has a directory of its name: `root/tpm.sock` is the raw TPM socket of the root,
//! `<name>/vhost-user.sock` the vhost-user socket of any other instance, and `<name>/control.sock` its control channel. One client at a time
//! is connected to an instance, at one of the two.

mod args;
mod doors;
mod error;
mod init;
mod owner;
mod raw_socket;
mod single;

pub use args::{Arguments, Command, SingleArgs};
pub use error::DaemonError;
pub use init::init;
pub(crate) use init::init_with;
pub use owner::{OwnerAuth, OwnerAuthError};
pub(crate) use single::Single;
pub use single::{Endpoint, PRINTED_CAPABILITIES, serve_one};

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};

use crate::config::{Config, LinkConfig};
use crate::link::{Link, LinkError, LinkOptions};
use crate::metrics::{self, Connections, Sources};
use crate::service::{self, Sockets, Watchdog};
use crate::store::Store;
use crate::tree::{Sleep, Tree};
use doors::Doors;
use raw_socket::RawSocket;

/// File name of a vhost-user socket.
pub const VHOST_USER_SOCKET: &str = "vhost-user.sock";
/// File name of a socket with swtpm's control channel.
pub const CONTROL_SOCKET: &str = "control.sock";
/// File name of a raw TPM socket.
pub const TPM_SOCKET: &str = "tpm.sock";
/// Name of the root instance.
pub const ROOT_NAME: &str = "root";

/// As many descriptors are left for the root and its clients when the sockets of the instances take all there are.
const SPARE_DESCRIPTORS: usize = 32;

/// Where the raw TPM socket of the root is.
#[must_use]
pub fn root_socket(runtime_dir: &std::path::Path) -> PathBuf {
    runtime_dir.join(ROOT_NAME).join(TPM_SOCKET)
}

/// A running daemon.
pub struct Daemon {
    // In the order in which they end: no new commands, then the commands in flight, then the store.
    metrics: Option<metrics::Endpoint>,
    link: Option<Arc<Link>>,
    raw_socket: RawSocket,
    doors: Arc<Doors>,
    sleep: Sleep,
    tree: Arc<Tree>,
    store: Arc<Store>,
}

impl Daemon {
    /// Opens the store and all sockets, but for those that were handed in.
    ///
    /// # Errors
    /// [`DaemonError`], when the store cannot be opened or the raw socket of the root cannot be made. A
    /// socket that cannot be made is logged and costs its instance only.
    pub fn start(config: &Config, mut sockets: Sockets) -> Result<Self, DaemonError> {
        raise_descriptor_limit();
        let host_key = config.host_key_source().load()?;
        let store = Arc::new(Store::open(&config.database(), &host_key)?);
        let owner = OwnerAuth::load(&config.state_dir)?;
        let tree = Tree::open(store.clone(), owner.into_bytes())?;
        tree.permit_saves(config.saves.unwrap_or(false));
        tree.set_limit(usize::try_from(config.limits.instances).unwrap_or(usize::MAX));
        tree.set_instance_limits(config.limits.of_instances());
        let metrics = open_metrics(config, &mut sockets)?;
        let listen = config.link.as_ref().and_then(|link| link.listen);
        let listen = listen.map(|address| listen_for_peers(&mut sockets, address)).transpose()?;
        // From here on nothing goes wrong that another configuration would mend.
        let group = config.socket_gid()?;
        sockets.unpack();
        let doors = Arc::new(Doors::new(&config.runtime_dir, group, sockets)?);
        let link: Arc<OnceLock<Weak<Link>>> = Arc::default();
        tree.set_listener({
            let (doors, link) = (doors.clone(), link.clone());
            move |event| {
                doors.on_event(event);
                if let Some(link) = link.get().and_then(Weak::upgrade) {
                    link.on_event(event);
                }
            }
        });
        // Before anything can happen to the tree that it should be told of.
        let link = config
            .link
            .as_ref()
            .map(|options| open_link(options, listen, &tree, &doors, &link))
            .transpose()?;
        // The root is reached, and some clients with it, also when there are more sockets to be opened than descriptors.
        let spare = spare_descriptors();
        for instance in tree.instances().into_iter().filter(|i| i.parent().is_some()) {
            doors.open(&instance);
        }
        drop(spare);
        let raw_socket =
            RawSocket::open(&root_socket(&config.runtime_dir), &mut doors.sockets(), tree.root())?;
        doors.sockets().discard_rest();
        log::info!("{} instances, root at {}", tree.instances().len(), raw_socket.path().display());
        let sleep = tree.let_sleep(Duration::from_secs(config.limits.sleep_after.into()))?;
        let sources = sources_of_metrics(config, &tree, &store, &doors, &raw_socket);
        let metrics = metrics.map(|listening| listening.serve(sources)).transpose()?;
        Ok(Self { metrics, link, raw_socket, doors, sleep, tree, store })
    }

    /// The tree.
    #[must_use]
    pub fn tree(&self) -> &Arc<Tree> {
        &self.tree
    }

    /// Where the daemons of other hosts connect, if they can.
    #[must_use]
    pub fn link_address(&self) -> Option<SocketAddr> {
        self.link.as_ref()?.address()
    }

    /// Finds out whether it can go on: no lock is held for ever, and the store works. What this gives does not return where a lock is.
    /// It keeps the store open.
    fn pulse(&self) -> impl Fn() -> bool + Send + 'static {
        let (doors, tree, store) = (self.doors.clone(), self.tree.clone(), self.store.clone());
        move || {
            let _nobody = doors.is_attached(0);
            let _count = tree.instances().len();
            store.lives()
        }
    }

    /// Ends in good order: commands in flight are finished and committed. Under a service manager the sockets, and the clients that cannot
    /// connect again, wait for the next process.
    pub fn stop(self) {
        let Self { metrics, link, raw_socket, doors, sleep, tree, store } = self;
        drop(metrics);
        drop(sleep);
        let root = service::is_there().then(|| raw_socket.listener().to_be_kept()).flatten();
        if root.is_some() {
            raw_socket.listener().keep_file();
        }
        drop(raw_socket);
        drop(link);
        if service::is_there() {
            let mut contents = doors.hand_over();
            contents.listeners.extend(root);
            let count = (contents.listeners.len(), contents.clients.len());
            match service::keep(contents) {
                Ok(()) => log::info!("the service manager has {} sockets and {} clients", count.0, count.1),
                Err(error) => log::error!("the service manager cannot keep the sockets: {error}"),
            }
        } else {
            doors.close_all();
        }
        drop(tree);
        drop(doors);
        if let Ok(store) = Arc::try_unwrap(store).or_else(|s| Arc::into_inner(s).ok_or(())) {
            store.close();
        }
    }
}

fn listen_for_peers(sockets: &mut Sockets, address: SocketAddr) -> Result<TcpListener, DaemonError> {
    Ok(sockets.tcp(address).map_err(|source| LinkError::Listen { address, source })?)
}

/// Opens the link, and has it told what happens to the tree.
fn open_link(
    config: &LinkConfig,
    listen: Option<TcpListener>,
    tree: &Arc<Tree>,
    doors: &Arc<Doors>,
    place: &OnceLock<Weak<Link>>,
) -> Result<Arc<Link>, DaemonError> {
    let options =
        LinkOptions { listen, max_connections: usize::try_from(config.connections).unwrap_or(usize::MAX) };
    let doors = Arc::downgrade(doors);
    let attached = move |instance| doors.upgrade().is_some_and(|doors| doors.is_attached(instance));
    let link = Arc::new(Link::start(tree, options, attached)?);
    let _ = place.set(Arc::downgrade(&link));
    Ok(link)
}

/// Opens the socket of the endpoint for metrics, if there is to be one.
fn open_metrics(config: &Config, sockets: &mut Sockets) -> Result<Option<metrics::Listening>, DaemonError> {
    let Some(options) = &config.metrics else { return Ok(None) };
    Ok(Some(metrics::Listening::open(&options.listen, config.metrics_gid()?, sockets)?))
}

fn sources_of_metrics(
    config: &Config,
    tree: &Arc<Tree>,
    store: &Store,
    doors: &Arc<Doors>,
    raw_socket: &RawSocket,
) -> Sources {
    let (doors, raw) = (Arc::downgrade(doors), raw_socket.count());
    let connections = move || Connections {
        raw: u64::try_from(raw()).unwrap_or(u64::MAX),
        ..doors.upgrade().map(|doors| doors.connections()).unwrap_or_default()
    };
    Sources {
        metrics: tree.metrics().clone(),
        counters: store.counters(),
        tree: Arc::downgrade(tree),
        database: config.database(),
        connections: Box::new(connections),
    }
}

/// Each instance takes two descriptors, and some sixteen more while a QEMU is connected; the usual soft limit is 1024, and is what it is
/// for programs that use `select`, which this one does not.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard { setrlimit(Resource::RLIMIT_NOFILE, hard, hard) } else { Ok(()) }
    });
    if let Err(error) = raised {
        log::warn!("the limit on open files stays as it is: {error}");
    }
}

/// Descriptors to be given back when others have taken theirs.
fn spare_descriptors() -> Vec<File> {
    (0..SPARE_DESCRIPTORS).map_while(|_| File::open("/dev/null").ok()).collect()
}

/// Serves all instances until the process is asked to end, by SIGTERM or SIGINT. The service manager hears of it, if there is one.
///
/// # Errors
/// [`DaemonError`]; as [`Daemon::start`].
pub fn run(config: &Config, sockets: Sockets) -> Result<(), DaemonError> {
    block_signals()?;
    let daemon = Daemon::start(config, sockets)?;
    service::ready(&format!("{} instances", daemon.tree().instances().len()));
    let watchdog = Watchdog::start(daemon.pulse());
    wait_for_signal()?;
    service::stopping();
    drop(watchdog);
    daemon.stop();
    Ok(())
}

/// Keeps SIGTERM and SIGINT from ending the process by themselves, so that [`wait_for_signal`] gets them. To be called
/// before the first thread is made, which inherits this.
///
/// # Errors
/// [`DaemonError::Signals`].
pub fn block_signals() -> Result<(), DaemonError> {
    signals().thread_block().map_err(|e| DaemonError::Signals(e.into()))
}

/// Waits until the process is asked to end.
///
/// # Errors
/// [`DaemonError::Signals`].
pub fn wait_for_signal() -> Result<(), DaemonError> {
    let signal = signals().wait().map_err(|e| DaemonError::Signals(e.into()))?;
    log::info!("{signal}: ending");
    Ok(())
}

fn signals() -> SigSet {
    SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT])
}
