//! The vhost-user sockets of all instances.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vtpm_backend::vhost::{FrontDoor, Options};

use super::{DaemonError, VHOST_USER_SOCKET};
use crate::tree::{Instance, TreeEvent};

/// A door with the name of its instance.
type NamedDoor = (String, FrontDoor);

/// All open doors, by instance handle.
pub(super) struct Doors {
    runtime_dir: PathBuf,
    /// Who may connect besides the user of this process.
    group: Option<u32>,
    open: Mutex<BTreeMap<u32, NamedDoor>>,
}

impl Doors {
    /// No door yet; makes the runtime directory.
    pub(super) fn new(runtime_dir: &Path, group: Option<u32>) -> Result<Self, DaemonError> {
        make_dir_for(runtime_dir, group)?;
        Ok(Self { runtime_dir: runtime_dir.to_owned(), group, open: Mutex::default() })
    }

    fn open_doors(&self) -> MutexGuard<'_, BTreeMap<u32, NamedDoor>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens or closes a door as instances come and go.
    pub(super) fn on_event(&self, event: &TreeEvent) {
        match event {
            TreeEvent::Created(instance) => self.open(instance),
            TreeEvent::Deleted(instance) => self.close(instance),
            TreeEvent::Moved(_) | TreeEvent::Resumed(_) | TreeEvent::Migrating(..) => {}
        }
    }

    /// Opens the door of one instance. When that fails, the log says why, and the others are not concerned.
    pub(super) fn open(&self, instance: &Arc<Instance>) {
        let name = instance.name().as_str();
        let dir = self.runtime_dir.join(name);
        // Names are unique among instances: an earlier one of this name is deleted, and the news of that is on its way.
        let earlier: Vec<NamedDoor> =
            self.open_doors().extract_if(.., |_, (of, _)| of == name).map(|(_, door)| door).collect();
        drop(earlier);
        let options = Options { group: self.group, ..Options::new(name) };
        let opened = make_dir_for(&dir, self.group).and_then(|()| {
            FrontDoor::bind(&dir.join(VHOST_USER_SOCKET), instance.clone(), options)
                .map_err(DaemonError::from)
        });
        match opened {
            Ok(door) => {
                self.open_doors().insert(instance.handle(), (name.to_owned(), door));
                // Two clients may make and delete it at once, and this may hear of the deletion first.
                if instance.is_deleted() {
                    self.close(instance);
                }
            }
            Err(error) => log::error!("{name} has no vhost-user socket: {}", crate::sentence(&error)),
        }
    }

    fn close(&self, instance: &Instance) {
        // Outside the lock: closing waits for the command in flight.
        let door = self.open_doors().remove(&instance.handle());
        if let Some((name, door)) = door {
            drop(door);
            remove_dir(&self.runtime_dir.join(name));
        }
    }

    /// Whether a QEMU is connected to this instance.
    pub(super) fn is_attached(&self, instance: u32) -> bool {
        self.open_doors().get(&instance).is_some_and(|(_, door)| door.is_connected())
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

/// As [`make_private_dir`]; with a group, whose members can then pass through it but not list it. A directory that everybody can pass
/// through, such as a common one that was named as the runtime directory, stays as it is.
fn make_dir_for(path: &Path, group: Option<u32>) -> Result<(), DaemonError> {
    make_private_dir(path)?;
    let Some(group) = group else { return Ok(()) };
    let open = || -> io::Result<()> {
        let found = fs::metadata(path)?;
        if found.mode() & 0o001 != 0 || (found.gid() == group && found.mode() & 0o010 != 0) {
            return Ok(());
        }
        lchown(path, None, Some(group))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o710))
    };
    open().map_err(|source| DaemonError::Group { path: path.to_owned(), group, source })
}

fn remove_dir(path: &Path) {
    match fs::remove_dir(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            log::warn!("{} stays: {e}", path.display());
        }
        _ => {}
    }
}
