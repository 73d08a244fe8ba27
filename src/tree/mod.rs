//! The instance tree: all TPM instances of this daemon, and the instance commands that manage them.
//!
//! # For the daemon
//!
//! - [`Tree::init`] makes the root in an empty store, with its owner authorization and its storage keys; [`Tree::open`] opens the
//!   tree of a store and starts the root. Both are given the store as [`Persistence`].
//! - [`Tree::root`], [`Tree::instances`], [`Tree::by_name`] find instances. An [`Instance`] is a
//!   [`TpmDevice`](vtpm_backend::device::TpmDevice) for the front doors.
//! - [`Tree::set_listener`] tells of instances made and deleted, with no lock held, before the response to the command leaves: the
//!   place to open and close sockets; and of what the [peer link](crate::link) wants to know, which must not take time.
//! - [`Instance::execute_long`] is for the raw socket of the root: it takes instance commands up to
//!   [`MAX_INSTANCE_COMMAND`](vtpm_protocol::instance::MAX_INSTANCE_COMMAND), and any other command within its own limits.
//! - [`Client`] sends the instance commands, in the process (over [`Tree::local_client`]) or over
//!   the raw socket (over a `Transport` of the caller's): `vtpmctl` and the device migration are both made of it.
//!
//! # Locks
//!
//! Each instance has one lock, held while a command executes. A command that manages a descendant takes that one's lock
//! as well; always the ancestor's first, and no more than one descendant's. The topology is a shared, immutable map that is exchanged when
//! an instance comes or goes; its lock is held for the exchange only. A thread that panics inside an instance leaves it
//! to be read anew from the store at its next use, and no other instance notices.
//!
//! # Memory
//!
//! What the store has need not be in memory: an instance is read at its first use, and forgotten again when nobody uses it
//! ([`Tree::let_sleep`]).
//!
//! # Durability
//!
//! An instance command collects the operations on its target and commits them in one batch with what the command changed in the
//! processing instance. The states in memory change after the batch is durable, or not at all. When the store
//! cannot say what came of a batch, the instances of that batch are read anew at their next use.
//!
//! What belongs to one boot of a machine outlives vtpmd, but not a loss of power ([`Durability`](crate::store::Durability)); the
//! next boot of the host (`boot.rs`) resets every TPM before it answers.

mod arrival;
mod boot;
mod control;
mod device;
mod environment;
mod fallback;
mod info;
mod instance;
mod left_out;
mod limits;
mod log;
mod manager;
mod persistence;
mod priority;
mod provision;
mod receipts;
mod replay;
mod shown;
mod sleep;
#[cfg(test)]
pub(crate) mod tests;
mod topology;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use vtpm_protocol::instance::{
    INSTANCE_LAST, INSTANCE_SELF, InstanceAttributes, InstanceName, SavePermission, Uuid,
};
use vtpm_protocol::rc::ResponseCode;
use zeroize::Zeroizing;

pub use environment::Clock;
pub use info::{PROFILE, describe_tpm};
pub use instance::Instance;
pub use limits::{CommandRate, InstanceLimits};
pub use persistence::Persistence;
pub use provision::RootOptions;
pub use shown::Census;
pub use sleep::Sleep;

use self::topology::Topology;
use crate::metrics::Metrics;
use crate::migration::client::{Client, Transport, TransportError};
use crate::sentence;
use crate::store::{InstanceRow, StoreError};

/// Persistent handle of the root's RSA-2048 storage key.
pub const RSA_STORAGE_KEY: u32 = 0x8100_0001;
/// Persistent handle of the root's ECC P-256 storage key, which `CreateInstance` puts into tickets unless another is named.
pub const ECC_STORAGE_KEY: u32 = 0x8100_0002;
/// Persistent handle of the root's attestation key, which signs tickets and certifies the other keys.
pub const ATTESTATION_KEY: u32 = 0x8100_0003;
/// Persistent handle of the root's key of the peer link.
pub const LINK_KEY: u32 = 0x8100_0004;
/// Persistent handle of the storage key that the root shares with others, if it does.
pub const FLEET_KEY: u32 = 0x8100_0005;

/// Why the tree could not be made or opened; for the operator.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// The store has no root, or more than one.
    #[error("the store has {0} root instances where one belongs")]
    Roots(usize),
    /// The store is not empty.
    #[error("the store has instances already")]
    NotEmpty,
    /// What the store has on an instance cannot be understood.
    #[error("instance {name}: {what}")]
    Instance {
        /// Its name.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// A command to the root failed.
    #[error("the root answered {command} with {code}")]
    Root {
        /// The command.
        command: &'static str,
        /// The response code.
        code: ResponseCode,
    },
    /// A handle that is meant for a key of the root is in use.
    #[error("the persistent handle 0x{0:08x} of the root holds another object than it should")]
    ForeignKey(u32),
    /// A secret that was given does not fit.
    #[error("the owner authorization must have between 1 and 64 bytes")]
    OwnerAuth,
    /// There is no thread to be had.
    #[error("a thread of the tree cannot be started")]
    Thread(#[source] std::io::Error),
}

/// Something that happened to the tree.
pub enum TreeEvent {
    /// There is a new instance.
    Created(Arc<Instance>),
    /// An instance is gone. It answers no command any more.
    Deleted(Arc<Instance>),
    /// An instance stands elsewhere in a migration than before.
    Moved(Arc<Instance>),
    /// The machine of a source-locked instance runs: it says so, or wants its TPM. Told again with each sign of it.
    Resumed(Arc<Instance>),
    /// A live migration of the machine has begun (`true`), or is over or was called off.
    Migrating(Arc<Instance>, bool),
}

/// Who may know of a ticket for an instance that is about to leave.
pub trait TicketFinder: Send + Sync {
    /// Waits, no longer than `patience`, until the instance is armed, or it is clear that it will not be. The machine stands still
    /// meanwhile.
    fn await_ticket(&self, instance: &Instance, patience: Duration);
}

type Listener = Box<dyn Fn(&TreeEvent) + Send + Sync>;

/// The tree.
pub struct Tree {
    persistence: Arc<dyn Persistence>,
    clock: Clock,
    /// The owner authorization of the root, with which the daemon drives device migrations.
    owner_auth: Zeroizing<Vec<u8>>,
    root: u32,
    topology: RwLock<Arc<Topology>>,
    /// Held from the choice of a name, UUID and handle until they are in the topology or given up.
    births: Mutex<()>,
    /// The most instances, the root included.
    max_instances: AtomicUsize,
    instance_limits: OnceLock<InstanceLimits>,
    /// Whether machines may be saved, where nothing is said of their instance.
    saves: AtomicBool,
    listener: OnceLock<Listener>,
    ticket_finder: OnceLock<Arc<dyn TicketFinder>>,
    /// The store does not know what came of a commit that made or destroyed an instance.
    in_doubt: AtomicBool,
    log: log::MigrationLog,
    rounds: Arc<sleep::Rounds>,
    metrics: Arc<Metrics>,
}

impl Tree {
    /// Opens the tree of a store: reads the topology and starts the root (`_TPM_Init`, `TPM2_Startup`). Other instances are read when
    /// they are first used. `owner_auth` is the root's owner authorization; the daemon needs it for device migrations.
    ///
    /// # Errors
    /// [`TreeError`]. An instance that the store finds damaged is left out, and said so in the log.
    pub fn open(
        persistence: Arc<dyn Persistence>,
        owner_auth: Zeroizing<Vec<u8>>,
    ) -> Result<Arc<Self>, TreeError> {
        Self::open_in(persistence, owner_auth, boot::of_this_host().as_deref())
    }

    /// As [`Self::open`], in a boot of the host that is named, where it is known.
    fn open_in(
        persistence: Arc<dyn Persistence>,
        owner_auth: Zeroizing<Vec<u8>>,
        boot: Option<&[u8]>,
    ) -> Result<Arc<Self>, TreeError> {
        for damaged in persistence.damaged()? {
            ::log::error!("{} is left out: {}", damaged.id, damaged.error);
        }
        let rows = persistence.instances()?;
        let roots: Vec<u32> = rows.iter().filter(|r| r.parent.is_none()).map(|r| r.handle).collect();
        let &[root] = roots.as_slice() else { return Err(TreeError::Roots(roots.len())) };
        let tree = Arc::new(Self {
            persistence,
            clock: Clock::start(),
            owner_auth,
            root,
            topology: RwLock::default(),
            births: Mutex::new(()),
            max_instances: AtomicUsize::new(usize::MAX),
            instance_limits: OnceLock::new(),
            saves: AtomicBool::new(false),
            listener: OnceLock::new(),
            ticket_finder: OnceLock::new(),
            in_doubt: AtomicBool::new(false),
            log: log::MigrationLog::default(),
            rounds: Arc::default(),
            metrics: Arc::default(),
        });
        let topology = tree.arrange(rows, &Topology::default())?;
        tree.exchange_topology(|t| *t = topology);
        boot::observe(&tree, boot)?;
        tree.root().start_root()?;
        // Without these keys no instance arrives here, but those that are here are served.
        if let Err(error) = tree.complete_root() {
            ::log::error!("the root lacks keys for migrations: {}", sentence(&error));
        }
        Ok(tree)
    }

    /// The topology of the rows, with the instances that `known` has already.
    fn arrange(self: &Arc<Self>, rows: Vec<InstanceRow>, known: &Topology) -> Result<Topology, TreeError> {
        let handles: BTreeMap<_, _> = rows.iter().map(|r| (r.id, r.handle)).collect();
        let mut topology = Topology::default();
        for row in rows {
            let parent = match row.parent {
                None => None,
                Some(id) => match handles.get(&id) {
                    Some(&handle) => Some(handle),
                    None => {
                        ::log::error!(instance = row.name.as_str(); "instance {} is left out: its parent is damaged", row.name);
                        continue;
                    }
                },
            };
            let handle = row.handle;
            let instance = match known.get(&handle) {
                Some(instance) => instance.clone(),
                None => Arc::new(Instance::new(Arc::downgrade(self), row, parent)?),
            };
            topology.insert(handle, instance);
        }
        Ok(topology)
    }

    /// After a commit of unknown outcome that made or destroyed an instance: the store says which instances there are, as soon as it can.
    fn settle_doubt(self: &Arc<Self>) -> Result<Vec<TreeEvent>, TreeError> {
        if !self.in_doubt.load(Ordering::Acquire) {
            return Ok(Vec::new());
        }
        let _births = self.births();
        let known = self.topology();
        let now = self.arrange(self.persistence.instances()?, &known)?;
        let gone = known.iter().filter(|(handle, _)| !now.contains_key(handle));
        let mut events: Vec<TreeEvent> = gone.map(|(_, i)| TreeEvent::Deleted(i.clone())).collect();
        let come = now.iter().filter(|(handle, _)| !known.contains_key(handle));
        events.extend(come.map(|(_, i)| TreeEvent::Created(i.clone())));
        self.exchange_topology(|t| *t = now);
        self.in_doubt.store(false, Ordering::Release);
        Ok(events)
    }

    /// The root.
    ///
    /// # Panics
    /// Never: `open` made sure that there is one, and it cannot be deleted.
    #[must_use]
    #[expect(clippy::expect_used, reason = "an invariant of this type, out of reach of any input")]
    pub fn root(&self) -> Arc<Instance> {
        self.topology().get(&self.root).cloned().expect("the root is in the topology")
    }

    /// All instances, the root among them, in the order of their handles.
    #[must_use]
    pub fn instances(&self) -> Vec<Arc<Instance>> {
        self.topology().values().cloned().collect()
    }

    /// The instance of that name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<Arc<Instance>> {
        self.topology().values().find(|i| i.name().as_str() == name).cloned()
    }

    /// Who is told of instances that come and go. The first call counts.
    pub fn set_listener(&self, listener: impl Fn(&TreeEvent) + Send + Sync + 'static) {
        let _ = self.listener.set(Box::new(listener));
    }

    /// Who is asked before a device migration begins. The first call counts; without one, only what is armed by then leaves.
    pub fn set_ticket_finder(&self, finder: Arc<dyn TicketFinder>) {
        let _ = self.ticket_finder.set(finder);
    }

    /// What each instance but the root may take of this host. The first call counts; without one, what the engine has room for.
    pub fn set_instance_limits(&self, limits: InstanceLimits) {
        let _ = self.instance_limits.set(limits);
    }

    /// How many instances there may be, the root included; those that are there stay. Without a call, as many as handles.
    pub fn set_limit(&self, max_instances: usize) {
        self.max_instances.store(max_instances, Ordering::Relaxed);
    }

    /// Whether a machine may be saved to a file or snapshot on this host, where its instance has no permission of its own. Without a call, not.
    pub fn permit_saves(&self, permitted: bool) {
        self.saves.store(permitted, Ordering::Relaxed);
    }

    fn may_be_saved(&self, permission: SavePermission) -> bool {
        match permission {
            SavePermission::Configured => self.saves.load(Ordering::Relaxed),
            SavePermission::Allowed => true,
            SavePermission::Refused => false,
        }
    }

    /// A client that sends instance commands to the root within the process.
    #[must_use]
    pub fn local_client(&self) -> Client<LocalTransport> {
        Client::new(LocalTransport(self.root()), self.owner_auth.clone())
    }

    /// What was counted since it was opened.
    #[must_use]
    pub const fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    fn topology(&self) -> Arc<Topology> {
        self.topology.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn exchange_topology(&self, change: impl FnOnce(&mut Topology)) {
        let mut place = self.topology.write().unwrap_or_else(PoisonError::into_inner);
        let mut next = Topology::clone(&place);
        change(&mut next);
        *place = Arc::new(next);
    }

    fn births(&self) -> MutexGuard<'_, ()> {
        self.births.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, event: &TreeEvent) {
        if let Some(listener) = self.listener.get() {
            listener(event);
        }
    }

    /// As [`Self::tell`], of an instance that is in the tree.
    fn tell_of(&self, handle: u32, event: impl FnOnce(Arc<Instance>) -> TreeEvent) {
        if let Some(instance) = self.topology().get(&handle) {
            self.tell(&event(instance.clone()));
        }
    }
}

/// Commands straight to an instance of this process.
pub struct LocalTransport(Arc<Instance>);

impl Transport for LocalTransport {
    fn transmit(&self, command: &[u8]) -> Result<Vec<u8>, TransportError> {
        Ok(self.0.execute_long(command))
    }
}

/// The handle for an instance of this number in the store. Numbers are never given out twice, so neither are handles.
fn handle_of(id: u64) -> Option<u32> {
    let offset = u32::try_from(id).ok()?;
    INSTANCE_SELF.checked_add(offset).filter(|&h| offset > 0 && h <= INSTANCE_LAST)
}

/// What of a row does not change while the instance exists.
struct Identity {
    row: InstanceRow,
    name: InstanceName,
    uuid: Uuid,
    attributes: InstanceAttributes,
}

impl Identity {
    fn read(row: InstanceRow) -> Result<Self, TreeError> {
        let wrong = |what: String| TreeError::Instance { name: row.name.clone(), what };
        let name = InstanceName::new(&row.name).map_err(|rc| wrong(format!("its name is none: {rc}")))?;
        let attributes = InstanceAttributes::from_bits(row.attributes)
            .map_err(|rc| wrong(format!("its attributes are unknown: {rc}")))?;
        let uuid = Uuid(row.uuid);
        Ok(Self { name, uuid, attributes, row })
    }
}
