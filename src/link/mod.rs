//! The peer link between daemons: a source finds the slot for a machine that begins to migrate, and learns afterwards which side has the
//! one live copy. `docs/protocol.md` has the bytes.
//!
//! Nothing here decides anything: every step is an ordinary instance command, checked as if an operator had sent it. A link that lies or
//! is cut can delay a migration or make it fail, and no more. Who has no link carries tickets and receipts as files.
//!
//! - [`tls`], [`trust`], [`wire`]: a connection on which both sides know each other, and messages over it;
//! - [`server`], [`listener`], [`slot`]: a host that answers;
//! - [`client`], [`courier`]: a host that asks;
//! - [`pipe`]: the same over a pipe of ssh;
//! - [`root`]: the keys and peers of both;
//! - [`Link`]: all of it, for the daemon.

pub mod bell;
pub mod client;
pub mod courier;
pub mod listener;
pub mod pipe;
pub mod root;
pub mod server;
pub mod slot;
pub mod tls;
pub mod trust;
pub mod wire;

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Weak};
use std::time::Duration;

use vtpm_protocol::instance::Uuid;

use crate::migration::client::ClientError;
use crate::tree::{LocalTransport, Tree, TreeEvent};
use bell::Bell;
use client::Dialer;
use courier::Courier;
use listener::{Hall, Listener};
use root::RootTrust;
use server::Host;
use tls::Tls;
use trust::{Trust, TrustError};

/// How long one side of a link waits for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// For the TLS handshake, and again for the hellos.
    pub handshake: Duration,
    /// For a whole message that is under way.
    pub message: Duration,
    /// For the next request of a peer.
    pub idle: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            handshake: Duration::from_secs(5),
            message: Duration::from_secs(20),
            idle: Duration::from_secs(60),
        }
    }
}

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The root lacks what it takes.
    #[error("the root cannot take part")]
    Root(#[from] TrustError),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
    /// Nobody can listen there.
    #[error("cannot listen at {address}")]
    Listen {
        /// The address of the configuration.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// No thread.
    #[error("no thread can be made")]
    Thread(#[source] std::io::Error),
}

/// What the daemon's link is to be like.
#[derive(Debug)]
pub struct LinkOptions {
    /// Where peers connect; without it this host asks and does not answer.
    pub listen: Option<TcpListener>,
    /// The most peers connected at once.
    pub max_connections: usize,
}

/// The link of a daemon, open until this is dropped.
pub struct Link {
    // In the order in which they end.
    listener: Option<Listener>,
    courier: Arc<Courier>,
    bell: Arc<Bell>,
}

/// This process as a host.
struct Daemon {
    tree: Weak<Tree>,
    attached: Box<dyn Fn(u32) -> bool + Send + Sync>,
    bell: Arc<Bell>,
}

impl Host for Daemon {
    fn find(&self, uuid: Uuid) -> Result<Option<u32>, ClientError> {
        let Some(tree) = self.tree.upgrade() else { return Ok(None) };
        let found = tree.instances().into_iter().find(|instance| instance.uuid() == uuid);
        // The root is nobody's descendant, and does not migrate.
        Ok(found.filter(|instance| instance.parent().is_some()).map(|instance| instance.handle()))
    }

    fn attached(&self, instance: u32) -> bool {
        (self.attached)(instance)
    }

    fn bell(&self) -> Option<&Bell> {
        Some(&self.bell)
    }
}

impl Link {
    /// Starts to answer and to ask. `attached` tells whether a front end is connected to an instance.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn start(
        tree: &Arc<Tree>,
        options: LinkOptions,
        attached: impl Fn(u32) -> bool + Send + Sync + 'static,
    ) -> Result<Self, LinkError> {
        let patience = Patience::default();
        let client = Arc::new(tree.local_client());
        let root: RootTrust<LocalTransport> = RootTrust::new(client.clone());
        let tls = Tls::new(&root.link_key()?).map_err(LinkError::Tls)?;
        let trust: Arc<dyn Trust> = Arc::new(root);
        let bell = Arc::new(Bell::default());
        let host = Daemon { tree: Arc::downgrade(tree), attached: Box::new(attached), bell: bell.clone() };
        let hall = Hall {
            tls: tls.clone(),
            trust: trust.clone(),
            client,
            host: Arc::new(host),
            bell: bell.clone(),
            patience,
            max_connections: options.max_connections,
        };
        let listener = options.listen.map(|socket| Listener::open(socket, hall)).transpose()?;
        let dialer = Dialer::new(tls, trust.clone(), patience);
        let courier = Arc::new(Courier::start(tree, dialer, trust).map_err(LinkError::Thread)?);
        tree.set_ticket_finder(courier.clone());
        Ok(Self { listener, courier, bell })
    }

    /// Where peers connect, if they do.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.listener.as_ref().map(Listener::address)
    }

    /// To be told of everything that happens to the tree. Takes no time.
    pub fn on_event(&self, event: &TreeEvent) {
        match event {
            TreeEvent::Moved(instance) | TreeEvent::Deleted(instance) => self.bell.ring(instance.uuid()),
            TreeEvent::Created(_) | TreeEvent::Resumed(_) | TreeEvent::Migrating(..) => {}
        }
        self.courier.on_event(event);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.listener = None;
        self.courier.stop();
    }
}
