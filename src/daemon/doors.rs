//! The vhost-user sockets and control channels of all instances.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vtpm_backend::attachment::{Attachment, Door};
use vtpm_backend::control::{self, ControlDoor};
use vtpm_backend::socket::{Access, Listener};
use vtpm_backend::vhost::{FrontDoor, FrontDoorError, Options};

use super::{CONTROL_SOCKET, DaemonError, VHOST_USER_SOCKET};
use crate::metrics::Connections;
use crate::service::{Client, Contents, Sockets};
use crate::tree::{Instance, TreeEvent};

/// The doors of one instance. One that could not be opened is missing.
struct InstanceDoors {
    /// The name of the instance.
    name: String,
    /// Who is connected, at whichever of them.
    attachment: Arc<Attachment>,
    vhost_user: Option<FrontDoor>,
    control: Option<ControlDoor>,
}

/// The open doors.
#[derive(Default)]
struct Open {
    /// By instance handle.
    doors: BTreeMap<u32, InstanceDoors>,
    /// The handles, by name.
    handles: HashMap<String, u32>,
}

impl Open {
    fn insert(&mut self, handle: u32, doors: InstanceDoors) {
        self.handles.insert(doors.name.clone(), handle);
        self.doors.insert(handle, doors);
    }

    fn remove(&mut self, handle: u32) -> Option<InstanceDoors> {
        let doors = self.doors.remove(&handle)?;
        // Another instance may have the name by now.
        if self.handles.get(&doors.name) == Some(&handle) {
            self.handles.remove(&doors.name);
        }
        Some(doors)
    }

    fn remove_name(&mut self, name: &str) -> Option<InstanceDoors> {
        let handle = *self.handles.get(name)?;
        self.remove(handle)
    }
}

/// All open doors, by instance handle.
pub(super) struct Doors {
    runtime_dir: PathBuf,
    /// Who may connect besides the user of this process.
    group: Option<u32>,
    /// What was handed in for doors that are not open yet.
    sockets: Mutex<Sockets>,
    open: Mutex<Open>,
}

impl Doors {
    /// No door yet; makes the runtime directory.
    pub(super) fn new(runtime_dir: &Path, group: Option<u32>, sockets: Sockets) -> Result<Self, DaemonError> {
        make_dir_for(runtime_dir, group)?;
        let (sockets, open) = (Mutex::new(sockets), Mutex::default());
        Ok(Self { runtime_dir: runtime_dir.to_owned(), group, sockets, open })
    }

    /// What was handed in, as far as no door has taken it.
    pub(super) fn sockets(&self) -> MutexGuard<'_, Sockets> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_doors(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens or closes doors as instances come and go.
    pub(super) fn on_event(&self, event: &TreeEvent) {
        match event {
            TreeEvent::Created(instance) => self.open(instance),
            TreeEvent::Deleted(instance) => self.close(instance),
            TreeEvent::Moved(_) | TreeEvent::Resumed(_) | TreeEvent::Migrating(..) => {}
        }
    }

    /// Opens the doors of one instance. When that fails, the log says why, and the others are not concerned.
    pub(super) fn open(&self, instance: &Arc<Instance>) {
        let name = instance.name().as_str();
        let dir = self.runtime_dir.join(name);
        // Names are unique among instances: an earlier one of this name is deleted, and the news of that is on its way.
        let earlier = self.open_doors().remove_name(name);
        drop(earlier);
        if let Err(error) = make_dir_for(&dir, self.group) {
            log::error!(instance = name; "{name} has no sockets: {}", crate::sentence(&error));
            return;
        }
        let attachment: Arc<Attachment> = Arc::default();
        let access = Access { group: self.group, ..Access::default() };
        let (vhost_user, control, client) = {
            let mut sockets = self.sockets();
            let vhost_user = sockets.unix(&dir.join(VHOST_USER_SOCKET), access);
            let control = sockets.unix(&dir.join(CONTROL_SOCKET), access);
            (vhost_user, control, sockets.client(name))
        };
        let options = control::Options { attachment: attachment.clone(), ..control::Options::new(name) };
        // Who was connected before comes first: whoever waits at the other door is sent away, as ever.
        let control = control.and_then(|listener| match client {
            Some(client) => ControlDoor::resume(listener, client, instance.clone(), options),
            None => ControlDoor::open(Some(listener.into()), None, instance.clone(), options),
        });
        let options = Options { attachment: attachment.clone(), ..Options::new(name) };
        let vhost_user = vhost_user.and_then(|listener| FrontDoor::open(listener, instance.clone(), options));
        let doors = InstanceDoors {
            name: name.to_owned(),
            attachment,
            vhost_user: opened(name, "vhost-user socket", vhost_user),
            control: opened(name, "control channel", control),
        };
        self.open_doors().insert(instance.handle(), doors);
        // Two clients may make and delete it at once, and this may hear of the deletion first.
        if instance.is_deleted() {
            self.close(instance);
        }
    }

    fn close(&self, instance: &Instance) {
        // Outside the lock: closing waits for the command in flight.
        let doors = self.open_doors().remove(instance.handle());
        if let Some(doors) = doors {
            let dir = self.runtime_dir.join(&doors.name);
            drop(doors);
            remove_dir(&dir);
        }
    }

    /// Whether a QEMU is connected to this instance.
    pub(super) fn is_attached(&self, instance: u32) -> bool {
        self.open_doors().doors.get(&instance).is_some_and(|doors| doors.attachment.client().is_some())
    }

    /// How many are connected, at which kind of door.
    pub(super) fn connections(&self) -> Connections {
        let mut found = Connections::default();
        let open = self.open_doors();
        for client in open.doors.values().filter_map(|doors| doors.attachment.client()) {
            let count = match client.door {
                Door::VhostUser => &mut found.vhost_user,
                Door::Control => &mut found.control,
            };
            *count = count.saturating_add(1);
        }
        found
    }

    /// Closes all doors.
    pub(super) fn close_all(&self) {
        let doors = std::mem::take(&mut *self.open_doors());
        drop(doors);
    }

    /// Closes all doors, with what is to go on: the sockets, and the clients that cannot connect again.
    pub(super) fn hand_over(&self) -> Contents {
        let mut contents = Contents::default();
        let doors = std::mem::take(&mut *self.open_doors()).doors;
        for doors in doors.values() {
            let listeners = [
                doors.vhost_user.as_ref().and_then(FrontDoor::listener),
                doors.control.as_ref().and_then(ControlDoor::listener),
            ];
            contents.listeners.extend(listeners.into_iter().flatten().filter_map(Listener::to_be_kept));
            doors.vhost_user.iter().for_each(FrontDoor::begin_hand_over);
            doors.control.iter().for_each(ControlDoor::begin_hand_over);
        }
        for (_, InstanceDoors { name, attachment: _, vhost_user, control }) in doors {
            drop(vhost_user);
            if let Some(kept) = control.and_then(ControlDoor::hand_over) {
                contents.clients.push(Client { instance: name, kept });
            }
        }
        contents
    }
}

/// A door that opened; else the log says why not.
fn opened<D>(name: &str, what: &str, door: Result<D, FrontDoorError>) -> Option<D> {
    door.inspect_err(|error| log::error!(instance = name; "{name} has no {what}: {}", crate::sentence(error)))
        .ok()
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
