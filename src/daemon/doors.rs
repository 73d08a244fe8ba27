//! The vhost-user sockets of all instances.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vtpm_backend::vhost::{FrontDoor, Options};

use super::{DaemonError, VHOST_USER_SOCKET};
use crate::tree::{Instance, TreeEvent};

/// All open doors, by instance handle.
pub(super) struct Doors {
    runtime_dir: PathBuf,
    open: Mutex<BTreeMap<u32, FrontDoor>>,
}

impl Doors {
    /// No door yet; makes the runtime directory.
    pub(super) fn new(runtime_dir: &Path) -> Result<Self, DaemonError> {
        make_private_dir(runtime_dir)?;
        Ok(Self { runtime_dir: runtime_dir.to_owned(), open: Mutex::default() })
    }

    fn open_doors(&self) -> MutexGuard<'_, BTreeMap<u32, FrontDoor>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens or closes a door as instances come and go.
    pub(super) fn on_event(&self, event: &TreeEvent) {
        match event {
            TreeEvent::Created(instance) => self.open(instance),
            TreeEvent::Deleted(instance) => self.close(instance),
        }
    }

    /// Opens the door of one instance. When that fails, the log says why, and the others are not concerned.
    pub(super) fn open(&self, instance: &Arc<Instance>) {
        let name = instance.name().as_str();
        let dir = self.runtime_dir.join(name);
        let opened = make_private_dir(&dir).and_then(|()| {
            FrontDoor::bind(&dir.join(VHOST_USER_SOCKET), instance.clone(), Options::new(name))
                .map_err(DaemonError::from)
        });
        match opened {
            Ok(door) => {
                self.open_doors().insert(instance.handle(), door);
            }
            Err(error) => log::error!("{name} has no vhost-user socket: {}", crate::sentence(&error)),
        }
    }

    fn close(&self, instance: &Instance) {
        // Outside the lock: closing waits for the command in flight.
        let door = self.open_doors().remove(&instance.handle());
        drop(door);
        remove_dir(&self.runtime_dir.join(instance.name().as_str()));
    }

    /// Closes all doors.
    pub(super) fn close_all(&self) {
        let doors = std::mem::take(&mut *self.open_doors());
        drop(doors);
    }
}

/// Makes a directory that only the user of this process can enter, if it is not there.
pub(super) fn make_private_dir(path: &Path) -> Result<(), DaemonError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| DaemonError::Make { path: path.to_owned(), source })
}

fn remove_dir(path: &Path) {
    match fs::remove_dir(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            log::warn!("{} stays: {e}", path.display());
        }
        _ => {}
    }
}
