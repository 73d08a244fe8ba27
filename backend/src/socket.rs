//! The sockets that doors listen on: made, replaced and removed; and where clients come from.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, getsockopt, listen, socket, sockopt,
};
use nix::sys::stat::{Mode, fchmod};
use serde::{Deserialize, Serialize};

/// How long to wait when no connection can be accepted for want of descriptors or memory.
pub(crate) const EXHAUSTED: Duration = Duration::from_millis(200);

/// Why a front door could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum FrontDoorError {
    /// Something listens on the socket already.
    #[error("{} is in use by a running process", .0.display())]
    InUse(PathBuf),
    /// There is something at the path that is not a socket.
    #[error("{} exists and is no socket", .0.display())]
    NoSocket(PathBuf),
    /// A socket that was kept is not where it was.
    #[error("{} is not the socket that was kept", .0.display())]
    Moved(PathBuf),
    /// The socket could not be made.
    #[error("{} cannot be listened on", .path.display())]
    Bind {
        /// Where it was to be.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Nobody can listen at a TCP address.
    #[error("{address} cannot be listened on")]
    Address {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A descriptor that was handed in is no stream socket of a kind that the door takes.
    #[error("the descriptor is no stream socket that can be served here")]
    Descriptor(#[source] io::Error),
    /// The thread or a descriptor of the door could not be made.
    #[error("the front door cannot be set up")]
    Setup(#[source] io::Error),
}

/// Who may connect to a socket that a door makes, besides the user of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// The user that the socket is given to.
    pub user: Option<u32>,
    /// The group that the socket is given to.
    pub group: Option<u32>,
    /// The permissions. Without them 0660 where a group is named, and 0600 elsewhere.
    pub mode: Option<u32>,
}

/// What the threads of an instance are called; Linux shows the first 15 bytes.
pub(crate) fn thread_name(name: &str) -> String {
    format!("vtpm-{}", name.replace('\0', ""))
}

/// Which file a listening socket has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Where it is.
    pub path: PathBuf,
    device: u64,
    inode: u64,
}

impl Place {
    fn of(path: &Path) -> io::Result<Self> {
        let found = std::fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), device: found.dev(), inode: found.ino() })
    }
}

/// A socket file that is ours to remove.
#[derive(Debug)]
pub(crate) struct SocketFile(Place);

impl SocketFile {
    fn at(path: &Path) -> Result<Self, FrontDoorError> {
        let failed = |source: io::Error| FrontDoorError::Bind { path: path.to_owned(), source };
        Place::of(path).map(Self).map_err(failed)
    }
}

impl Drop for SocketFile {
    /// Removes the socket unless another one took its place.
    fn drop(&mut self) {
        let Place { path, .. } = &self.0;
        let ours = Place::of(path).is_ok_and(|found| found == self.0);
        if ours && let Err(e) = std::fs::remove_file(path) {
            log::warn!("{} stays behind: {e}", path.display());
        }
    }
}

/// Listens on a new socket at `path`; one that a dead process left is replaced.
///
/// # Errors
/// [`FrontDoorError`]; `InUse` when another process listens there.
fn bind_unix(path: &Path, access: Access) -> Result<(UnixListener, SocketFile), FrontDoorError> {
    clear_the_way(path)?;
    let failed = |source: io::Error| FrontDoorError::Bind { path: path.to_owned(), source };
    let listener = listen_privately(path).map_err(failed)?;
    let file = SocketFile::at(path)?;
    admit(path, access).map_err(failed)?;
    Ok((listener, file))
}

/// Lets those connect whom `access` names.
fn admit(path: &Path, access: Access) -> io::Result<()> {
    if access.user.is_some() || access.group.is_some() {
        lchown(path, access.user, access.group)?;
    }
    // The mode comes last, so that no other group could ever connect.
    if let Some(mode) = access.mode.or(access.group.map(|_| 0o660)) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Makes way for a socket at `path`: nothing is there, or what a dead process left.
fn clear_the_way(path: &Path) -> Result<(), FrontDoorError> {
    let failed = |source: io::Error| FrontDoorError::Bind { path: path.to_owned(), source };
    match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed(e)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(FrontDoorError::NoSocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(FrontDoorError::InUse(path.to_owned())),
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => std::fs::remove_file(path).map_err(failed),
        Err(e) => Err(failed(e)),
    }
}

/// A listening socket at `path` with mode 0600 from its first moment: on Linux the file that `bind` makes takes the mode
/// of the socket.
fn listen_privately(path: &Path) -> io::Result<UnixListener> {
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    fchmod(&fd, Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    // The root is asked by many at once.
    listen(&fd, Backlog::new(128)?)?;
    Ok(UnixListener::from(fd))
}

/// Whether the other side closed the connection.
pub(crate) fn hung_up(stream: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
        && fds.iter().filter_map(PollFd::revents).any(|events| events.contains(PollFlags::POLLHUP))
}

/// Where clients of a channel come from: a socket that is listened on, or one that is connected already.
#[derive(Debug)]
pub struct Entrance(pub(crate) Way);

#[derive(Debug)]
pub(crate) enum Way {
    Listener(Listener),
    Connected(OwnedFd),
}

/// A listening socket, made here or taken over.
#[derive(Debug)]
pub struct Listener {
    socket: ListenerSocket,
    /// What goes when the door closes.
    file: Mutex<Option<SocketFile>>,
}

#[derive(Debug)]
enum ListenerSocket {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Entrance {
    /// A new UNIX socket at `path`; one that a dead process left is replaced, and the file goes with the door.
    ///
    /// # Errors
    /// [`FrontDoorError`]; `InUse` when another process listens there.
    pub fn bind_unix(path: &Path, access: Access) -> Result<Self, FrontDoorError> {
        Listener::bind(path, access).map(Self::from)
    }

    /// A TCP address.
    ///
    /// # Errors
    /// [`FrontDoorError::Address`].
    pub fn bind_tcp(address: SocketAddr) -> Result<Self, FrontDoorError> {
        let failed = |source| FrontDoorError::Address { address, source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        Listener::new(ListenerSocket::Tcp(listener), None).map(Self::from)
    }

    /// A stream socket that a manager handed in: a listening one, or one connected to the one client that there will be.
    ///
    /// # Errors
    /// [`FrontDoorError::Descriptor`] for anything else.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, FrontDoorError> {
        let wrong = |e: nix::errno::Errno| FrontDoorError::Descriptor(e.into());
        if getsockopt(&fd, sockopt::SockType).map_err(wrong)? != SockType::Stream {
            return Err(FrontDoorError::Descriptor(ErrorKind::InvalidInput.into()));
        }
        if !getsockopt(&fd, sockopt::AcceptConn).map_err(wrong)? {
            return Ok(Self(Way::Connected(fd)));
        }
        let listener = UnixListener::from(fd);
        let socket = match listener.local_addr() {
            Ok(_) => ListenerSocket::Unix(listener),
            Err(_) => ListenerSocket::Tcp(TcpListener::from(OwnedFd::from(listener))),
        };
        Listener::new(socket, None).map(Self::from)
    }

    /// Whether clients can connect here, one after the other; else it is one of them.
    #[must_use]
    pub const fn listens(&self) -> bool {
        matches!(self.0, Way::Listener(_))
    }

    /// The TCP address that is listened on, with the port that the system chose if 0 was asked for.
    #[must_use]
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match &self.0 {
            Way::Listener(Listener { socket: ListenerSocket::Tcp(listener), .. }) => {
                listener.local_addr().ok()
            }
            _ => None,
        }
    }
}

impl From<Listener> for Entrance {
    fn from(listener: Listener) -> Self {
        Self(Way::Listener(listener))
    }
}

impl Listener {
    fn new(socket: ListenerSocket, file: Option<SocketFile>) -> Result<Self, FrontDoorError> {
        // A client may be gone between the poll and the accept.
        match &socket {
            ListenerSocket::Unix(listener) => listener.set_nonblocking(true),
            ListenerSocket::Tcp(listener) => listener.set_nonblocking(true),
        }
        .map_err(FrontDoorError::Setup)?;
        Ok(Self { socket, file: Mutex::new(file) })
    }

    /// A new UNIX socket at `path`; one that a dead process left is replaced, and the file goes with the door.
    ///
    /// # Errors
    /// [`FrontDoorError`]; `InUse` when another process listens there.
    pub fn bind(path: &Path, access: Access) -> Result<Self, FrontDoorError> {
        let (listener, file) = bind_unix(path, access)?;
        Self::new(ListenerSocket::Unix(listener), Some(file))
    }

    /// A socket that listens already: made by another process, or by an earlier one of this program and kept meanwhile. Clients that
    /// connected in between wait in it. With `path`, where its file is, that goes with the door; without, it stays.
    ///
    /// # Errors
    /// [`FrontDoorError::Bind`] when there is nothing at `path`, `Setup` when the descriptor is of no use.
    pub fn adopt(listener: UnixListener, path: Option<&Path>) -> Result<Self, FrontDoorError> {
        let file = path.map(SocketFile::at).transpose()?;
        Self::new(ListenerSocket::Unix(listener), file)
    }

    /// A socket that an earlier process of this program kept, with its file, if that is there still: nobody removed or replaced it.
    /// Whom it admits is said anew.
    ///
    /// # Errors
    /// [`FrontDoorError::Moved`] when there is another file or none, `Bind` when it cannot be given to whom `access` names, `Setup` when the
    /// descriptor is of no use.
    pub fn adopt_at(listener: UnixListener, place: Place, access: Access) -> Result<Self, FrontDoorError> {
        let Place { path, .. } = &place;
        if !Place::of(path).is_ok_and(|found| found == place) {
            return Err(FrontDoorError::Moved(place.path));
        }
        admit(path, access).map_err(|source| FrontDoorError::Bind { path: path.clone(), source })?;
        Self::new(ListenerSocket::Unix(listener), Some(SocketFile(place)))
    }

    /// For whoever keeps it beyond this process: which file it has, and the socket. `None` for one without a file that is ours.
    #[must_use]
    pub fn to_be_kept(&self) -> Option<(Place, UnixListener)> {
        let ListenerSocket::Unix(listener) = &self.socket else { return None };
        Some((self.place()?, listener.try_clone().ok()?))
    }

    fn place(&self) -> Option<Place> {
        self.file().as_ref().map(|file| file.0.clone())
    }

    /// Leaves the file where it is when the door closes: the socket goes on elsewhere.
    pub fn keep_file(&self) {
        if let Some(file) = self.file().take() {
            std::mem::forget(file);
        }
    }

    /// Nobody finds the way to it any more.
    pub(crate) fn remove_file(&self) {
        drop(self.file().take());
    }

    fn file(&self) -> MutexGuard<'_, Option<SocketFile>> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next client.
    ///
    /// # Errors
    /// The system's; `WouldBlock` when there is none.
    pub fn accept(&self) -> io::Result<OwnedFd> {
        match &self.socket {
            ListenerSocket::Unix(listener) => listener.accept().map(|(stream, _)| stream.into()),
            ListenerSocket::Tcp(listener) => listener.accept().map(|(stream, _)| {
                // A response is written at once; without this, one would wait for the acknowledgement of the one before.
                let _slower = stream.set_nodelay(true);
                TcpStream::into(stream)
            }),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            ListenerSocket::Unix(listener) => listener.as_fd(),
            ListenerSocket::Tcp(listener) => listener.as_fd(),
        }
    }
}

/// Whether an error of `accept` is about one client that changed its mind, or about none.
#[must_use]
pub fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::ConnectionAborted)
}
