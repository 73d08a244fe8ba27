//! The socket of one instance: who may come in, and when it closes.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{SockType, UnixAddr, getsockname, getsockopt, sockopt};
use vhost::vhost_user::{BackendReqHandler, Error as VhostError};

use super::session::Session;
use super::tpm::Lasting;
use crate::attachment::{Attached, Attachment, Client, Door, PARTING};
use crate::device::TpmDevice;
use crate::socket::{
    Access, EXHAUSTED, FrontDoorError, SocketFile, bind_unix, hung_up, is_passing, thread_name,
};

/// What can be chosen about a front door.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the log calls the instance.
    pub name: String,
    /// How long saving or loading the state may take. QEMU stands still meanwhile.
    pub transfer_timeout: Duration,
    /// The group that may connect to a socket that the door makes; without one its owner alone may.
    pub group: Option<u32>,
    /// The place at the instance, which its other doors share.
    pub attachment: Arc<Attachment>,
}

impl Options {
    /// The usual choices for an instance called `name`.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            transfer_timeout: Duration::from_secs(10),
            group: None,
            attachment: Arc::default(),
        }
    }
}

/// The vhost-user socket of one device, open until this is dropped.
///
/// One QEMU is served at a time. A second one is accepted and sent away at once, for one that is left waiting hangs with
/// its monitor dead. When QEMU goes, the next one is welcome, or the same one again.
pub struct FrontDoor {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    socket: Option<SocketFile>,
}

/// What the door's thread and its owner share.
struct Shared {
    options: Options,
    device: Arc<dyn TpmDevice>,
    lasting: Arc<Lasting>,
    exit: AtomicBool,
    wake: EventFd,
    /// The connection being served; to be shut down when the door closes in the middle of a message.
    current: Mutex<Option<UnixStream>>,
}

impl FrontDoor {
    /// Listens on a new socket at `path`, which only its owner and the group of the options may connect to. A socket that a dead process left is
    /// replaced.
    ///
    /// # Errors
    /// [`FrontDoorError`]; `InUse` when another process listens there.
    pub fn bind(path: &Path, device: Arc<dyn TpmDevice>, options: Options) -> Result<Self, FrontDoorError> {
        let access = Access { group: options.group, ..Access::default() };
        let (listener, file) = bind_unix(path, access)?;
        let mut door = Self::open(Some(listener), None, device, options)?;
        door.socket = Some(file);
        Ok(door)
    }

    /// Serves a descriptor that a manager handed in: a listening socket for as many connections as come, or a
    /// connected one for just that connection.
    ///
    /// # Errors
    /// [`FrontDoorError::Descriptor`] when it is no UNIX stream socket.
    pub fn from_fd(
        fd: OwnedFd,
        device: Arc<dyn TpmDevice>,
        options: Options,
    ) -> Result<Self, FrontDoorError> {
        let wrong = |e: nix::errno::Errno| FrontDoorError::Descriptor(e.into());
        let kind = getsockopt(&fd, sockopt::SockType).map_err(wrong)?;
        getsockname::<UnixAddr>(fd.as_raw_fd()).map_err(wrong)?;
        if kind != SockType::Stream {
            return Err(FrontDoorError::Descriptor(ErrorKind::InvalidInput.into()));
        }
        if getsockopt(&fd, sockopt::AcceptConn).map_err(wrong)? {
            Self::open(Some(fd.into()), None, device, options)
        } else {
            Self::open(None, Some(fd.into()), device, options)
        }
    }

    fn open(
        listener: Option<UnixListener>,
        first: Option<UnixStream>,
        device: Arc<dyn TpmDevice>,
        options: Options,
    ) -> Result<Self, FrontDoorError> {
        if let Some(listener) = &listener {
            // A client may be gone between the poll and the accept.
            listener.set_nonblocking(true).map_err(FrontDoorError::Setup)?;
        }
        let shared = Arc::new(Shared {
            options,
            device,
            lasting: Arc::default(),
            exit: AtomicBool::new(false),
            wake: EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)
                .map_err(|e| FrontDoorError::Setup(e.into()))?,
            current: Mutex::new(None),
        });
        let thread = std::thread::Builder::new()
            .name(thread_name(&shared.options.name))
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.run(listener.as_ref(), first)
            })
            .map_err(FrontDoorError::Setup)?;
        Ok(Self { shared, thread: Some(thread), socket: None })
    }

    /// Whether a front end is connected now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.shared.current().is_some()
    }

    /// Waits until the door closes by itself: when it was opened on a connected descriptor and that connection ended.
    pub fn wait(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }

    /// Closes the door: the command in flight is finished, the connection is dropped, the socket removed.
    pub fn close(self) {}
}

impl Drop for FrontDoor {
    fn drop(&mut self) {
        self.socket = None;
        self.shared.exit.store(true, Ordering::Release);
        // A counter that is full has woken the thread already.
        let _full = self.shared.wake.write(1);
        if let Some(current) = self.shared.current().as_ref() {
            let _gone = current.shutdown(std::net::Shutdown::Both);
        }
        self.wait();
    }
}

/// The connection that is being served.
struct Connection {
    stream: UnixStream,
    handler: BackendReqHandler<Mutex<Session>>,
    _attached: Attached,
}

impl Shared {
    fn current(&self) -> std::sync::MutexGuard<'_, Option<UnixStream>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The door's thread.
    fn run(&self, listener: Option<&UnixListener>, first: Option<UnixStream>) {
        let name = &self.options.name;
        let mut connection = first.and_then(|stream| self.welcome(stream));
        while !self.exit.load(Ordering::Acquire) {
            let (knocked, spoken) = match self.wait(listener, connection.as_ref()) {
                Ok(ready) => ready,
                Err(e) => {
                    log::error!("{name}: the socket cannot be waited for: {e}");
                    break;
                }
            };
            if self.exit.load(Ordering::Acquire) {
                break;
            }
            if spoken && connection.as_mut().is_some_and(|c| !self.answer(c)) {
                connection = None;
                *self.current() = None;
            }
            if knocked && let Some(listener) = listener {
                self.accept(listener, &mut connection);
            }
            if connection.is_none() && listener.is_none() {
                break;
            }
        }
        drop(connection);
        *self.current() = None;
    }

    /// Waits for a client at the door, or a message of the one inside.
    fn wait(
        &self,
        listener: Option<&UnixListener>,
        connection: Option<&Connection>,
    ) -> io::Result<(bool, bool)> {
        let mut fds = vec![PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)];
        if let Some(listener) = listener {
            fds.push(PollFd::new(listener.as_fd(), PollFlags::POLLIN));
        }
        if let Some(connection) = connection {
            fds.push(PollFd::new(connection.stream.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => return Ok((false, false)),
            Err(e) => return Err(e.into()),
        }
        let mut ready = fds.iter().skip(1).map(|fd| fd.any().unwrap_or(true));
        let knocked = listener.is_some() && ready.next().unwrap_or(false);
        let spoken = connection.is_some() && ready.next().unwrap_or(false);
        Ok((knocked, spoken))
    }

    fn accept(&self, listener: &UnixListener, connection: &mut Option<Connection>) {
        let name = &self.options.name;
        if let Some(c) = connection
            && hung_up(&c.stream)
        {
            // Whoever comes after it must not find the place taken by what it left unread.
            while self.answer(c) {}
            *connection = None;
            *self.current() = None;
        }
        match listener.accept() {
            Ok((stream, _)) if connection.is_none() => *connection = self.welcome(stream),
            Ok((stream, _)) => {
                if let Some(holder) = self.options.attachment.client() {
                    self.send_away(Client::of(Door::VhostUser, &stream), holder);
                }
            }
            Err(e) if is_passing(&e) => {}
            Err(e) => {
                log::error!("{name}: no connection can be accepted: {e}");
                std::thread::sleep(EXHAUSTED);
            }
        }
    }

    fn send_away(&self, client: Client, holder: Client) {
        let name = &self.options.name;
        log::warn!("{name}: a second front end, {client}, was sent away: {holder} has the instance");
    }

    fn welcome(&self, stream: UnixStream) -> Option<Connection> {
        let name = &self.options.name;
        let client = Client::of(Door::VhostUser, &stream);
        let attached = match self.options.attachment.attach(client, PARTING) {
            Ok(attached) => attached,
            Err(holder) => {
                self.send_away(client, holder);
                return None;
            }
        };
        match self.connect(stream, attached) {
            Ok(connection) => {
                log::info!("{name}: a front end connected: {client}");
                Some(connection)
            }
            Err(e) => {
                log::error!("{name}: a connection could not be served: {e}");
                None
            }
        }
    }

    fn connect(&self, stream: UnixStream, attached: Attached) -> io::Result<Connection> {
        // Accepted sockets inherit nothing, handed-in ones may not block either.
        stream.set_nonblocking(false)?;
        let session = Session::new(
            self.options.name.clone(),
            Arc::clone(&self.device),
            Arc::clone(&self.lasting),
            self.options.transfer_timeout,
        )?;
        *self.current() = Some(stream.try_clone()?);
        Ok(Connection {
            stream: stream.try_clone()?,
            handler: BackendReqHandler::from_stream(stream, Arc::new(Mutex::new(session))),
            _attached: attached,
        })
    }

    /// Answers one message. `false` when the connection is over.
    fn answer(&self, connection: &mut Connection) -> bool {
        let name = &self.options.name;
        let handled = catch_unwind(AssertUnwindSafe(|| connection.handler.handle_request()));
        match handled {
            Ok(Ok(())) | Ok(Err(VhostError::SocketRetry(_))) => return true,
            Ok(Err(VhostError::Disconnected | VhostError::SocketBroken(_))) => {
                log::info!("{name}: the front end left");
            }
            Ok(Err(e)) => log::error!("{name}: the connection is closed: {e}"),
            Err(_) => log::error!("{name}: the connection is closed: its message caused a panic"),
        }
        false
    }
}
