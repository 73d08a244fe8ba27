//! Why the daemon cannot do what it is asked to.

use std::io;
use std::path::PathBuf;

use vtpm_backend::vhost::FrontDoorError;

use super::owner::OwnerAuthError;
use crate::config::ConfigError;
use crate::host_key::HostKeyError;
use crate::link::LinkError;
use crate::metrics::EndpointError;
use crate::service::ServiceError;
use crate::store::StoreError;
use crate::tree::TreeError;

/// For the operator; each source says more.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration.
    #[error("the configuration cannot be used")]
    Config(#[from] ConfigError),
    /// The host key.
    #[error("there is no host key")]
    HostKey(#[from] HostKeyError),
    /// The database.
    #[error("the database cannot be used")]
    Store(#[from] StoreError),
    /// The owner authorization of the root.
    #[error("the owner authorization of the root cannot be used")]
    OwnerAuth(#[from] OwnerAuthError),
    /// The instance tree.
    #[error("the instance tree cannot be used")]
    Tree(#[from] TreeError),
    /// The link to other hosts.
    #[error("the peer link cannot be opened")]
    Link(#[from] LinkError),
    /// The endpoint for metrics.
    #[error("the endpoint for metrics cannot be opened")]
    Metrics(#[from] EndpointError),
    /// What the service manager handed in.
    #[error("what the service manager handed in cannot be used")]
    Service(#[from] ServiceError),
    /// The root's socket.
    #[error("the raw TPM socket of the root cannot be opened")]
    RawSocket(#[source] FrontDoorError),
    /// A front door.
    #[error("the vhost-user socket cannot be opened")]
    FrontDoor(#[from] FrontDoorError),
    /// A directory or socket.
    #[error("cannot make {}", .path.display())]
    Make {
        /// What.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A directory of sockets cannot be given to the group of the configuration.
    #[error("cannot open {} to group {group}; the daemon's user must be a member", .path.display())]
    Group {
        /// The directory.
        path: PathBuf,
        /// The number of the group.
        group: u32,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Another process has the socket.
    #[error("{} is in use by a running process", .0.display())]
    InUse(PathBuf),
    /// `init` on a state that is there.
    #[error("{} exists already: this state is initialised", .0.display())]
    Initialised(PathBuf),
    /// The one instance of a single-device process could not be made.
    #[error("the instance cannot be made: {0}")]
    Instance(String),
    /// Signals cannot be waited for.
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
}
