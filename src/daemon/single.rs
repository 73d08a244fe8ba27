//! One instance in a process of its own, for a manager that starts a back-end per device: QEMU's conventions for vhost-user
//! back-end programs (`--socket-path`, `--fd`, `--print-capabilities`).
//!
//! The state directory holds what the daemon's does: a root, and below it the one instance, which is made with a fresh TPM when
//! it is not there. The raw TPM socket of the root is in the runtime directory, so that `vtpmctl` serves here too; unless one is
//! named it is `run` in the state directory, for many such processes run on one host.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vtpm_backend::vhost::{FrontDoor, Options};
use vtpm_protocol::instance::InstanceState;
use zeroize::Zeroizing;

use super::raw_socket::RawSocket;
use super::{DaemonError, OwnerAuth, block_signals, init, root_socket, wait_for_signal};
use crate::config::Config;
use crate::host_key::HostKey;
use crate::migration::client::ClientError;
use crate::migration::session::MigrationDigest;
use crate::service::Sockets;
use crate::store::{Container, Store};
use crate::tree::{Instance, RootOptions, Tree};

/// What `--print-capabilities` prints: the type of QEMU's vhost-user.json, and no optional features.
pub const PRINTED_CAPABILITIES: &str = r#"{"type": "tpm"}"#;

/// Name of the one instance.
const NAME: &str = "tpm";

/// Where the front end is met.
pub enum Endpoint {
    /// A socket to be made.
    Path(PathBuf),
    /// A socket that was handed down, connected or listening.
    Fd(OwnedFd),
}

/// The store and the one instance of a process.
pub(crate) struct Single {
    tree: Arc<Tree>,
    store: Arc<Store>,
    instance: Arc<Instance>,
}

impl Single {
    /// Opens the state, which must be there, and makes the instance if it is not.
    ///
    /// # Errors
    /// [`DaemonError`].
    pub(crate) fn open(config: &Config, host_key: &HostKey) -> Result<Self, DaemonError> {
        let store = Arc::new(Store::open(&config.database(), host_key)?);
        let owner = OwnerAuth::load(&config.state_dir)?;
        Self::serve_from(store, owner.into_bytes(), config.saves)
    }

    /// Makes a state in a container.
    ///
    /// # Errors
    /// [`DaemonError`].
    pub(crate) fn make_in(container: &Arc<Container>, host_key: &HostKey) -> Result<(), DaemonError> {
        let store = Arc::new(Store::create_in(container, host_key)?);
        Tree::init(store.clone(), RootOptions::new(owner_in_container(host_key)))?;
        store.consolidate()?;
        if let Some(store) = Arc::into_inner(store) {
            store.close();
        }
        Ok(container.finish()?)
    }

    /// As [`Self::open`], for the state in a container.
    ///
    /// # Errors
    /// [`DaemonError`].
    pub(crate) fn open_in(container: &Arc<Container>, host_key: &HostKey) -> Result<Self, DaemonError> {
        let store = Arc::new(Store::open_in(container, host_key)?);
        Self::serve_from(store, owner_in_container(host_key), None)
    }

    fn serve_from(
        store: Arc<Store>,
        owner: Zeroizing<Vec<u8>>,
        saves: Option<bool>,
    ) -> Result<Self, DaemonError> {
        let tree = Tree::open(store.clone(), owner)?;
        // Who starts one TPM with its state in a directory saves its machine as with any other device, and there is nobody to ask.
        tree.permit_saves(saves.unwrap_or(true));
        let instance = match tree.by_name(NAME) {
            Some(instance) => {
                finish_making(&tree, &instance).map_err(|e| DaemonError::Instance(crate::sentence(&e)))?;
                instance
            }
            None => {
                tree.local_client()
                    .create_fresh(NAME, None)
                    .map_err(|e| DaemonError::Instance(crate::sentence(&e)))?;
                tree.by_name(NAME).ok_or_else(|| DaemonError::Instance("it is gone again".into()))?
            }
        };
        Ok(Self { tree, store, instance })
    }

    /// The instance.
    pub(crate) fn instance(&self) -> Arc<Instance> {
        self.instance.clone()
    }

    /// The raw TPM socket of the root, open until what is returned is dropped.
    ///
    /// # Errors
    /// [`DaemonError`].
    pub(crate) fn listen_raw(&self, runtime_dir: &Path) -> Result<RawSocket, DaemonError> {
        RawSocket::open(&root_socket(runtime_dir), &mut Sockets::default(), self.tree.root())
    }

    /// Ends in good order: what was committed is on the medium. Nothing else may hold the instance any more.
    pub(crate) fn close(self) {
        let Self { tree, store, instance } = self;
        drop(instance);
        drop(tree);
        if let Some(store) = Arc::into_inner(store) {
            store.close();
        }
    }
}

/// Serves the one instance until SIGTERM, or until the connection that was handed down ends.
///
/// # Errors
/// [`DaemonError`].
pub fn serve_one(config: &Config, endpoint: Endpoint) -> Result<(), DaemonError> {
    block_signals()?;
    if !config.database().exists() {
        init(config)?;
    }
    let single = Single::open(config, &config.host_key_source().load()?)?;
    let raw_socket = single.listen_raw(&config.runtime_dir)?;
    match endpoint {
        Endpoint::Path(path) => {
            let options = Options { group: config.socket_gid()?, ..Options::new(NAME) };
            let door = FrontDoor::bind(&path, single.instance(), options)?;
            wait_for_signal()?;
            door.close();
        }
        Endpoint::Fd(fd) => serve_fd(fd, single.instance())?,
    }
    drop(raw_socket);
    single.close();
    Ok(())
}

/// The root's owner authorization where there is no file for it. Nobody is told: such a state has no socket of the root.
fn owner_in_container(host_key: &HostKey) -> Zeroizing<Vec<u8>> {
    let mut owner = Zeroizing::new(host_key.derive("owner of the root in a container", &[]).to_vec());
    // Trailing zeros are no part of an authorization value.
    if let Some(last) = owner.last_mut() {
        *last |= 1;
    }
    owner
}

/// A process that was killed between making the instance and making it a TPM left a slot that nothing is to migrate to.
fn finish_making(tree: &Arc<Tree>, instance: &Instance) -> Result<(), ClientError> {
    if instance.state() != Some(InstanceState::DestinationLocked) {
        return Ok(());
    }
    let client = tree.local_client();
    match client.info(instance.handle())?.ticket {
        Some(ticket) if ticket.storage_name.is_empty() => {
            let digest = MigrationDigest::initial(&ticket.migration_id, ticket.uuid);
            client.unlock(instance.handle(), digest.as_bytes())
        }
        _ => Ok(()),
    }
}

fn serve_fd(fd: OwnedFd, instance: Arc<Instance>) -> Result<(), DaemonError> {
    let mut door = FrontDoor::from_fd(fd, instance, Options::new(NAME))?;
    // The connection ends by itself or the process is asked to: whichever comes first.
    let (done, ended) = std::sync::mpsc::channel();
    let by_signal = done.clone();
    std::thread::spawn(move || {
        let _ = wait_for_signal();
        let _gone = by_signal.send(None);
    });
    std::thread::spawn(move || {
        door.wait();
        let _gone = done.send(Some(door));
    });
    let _ = ended.recv();
    Ok(())
}
