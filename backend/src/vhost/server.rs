//! The socket of one instance: who may come in, and when it closes.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{SockType, UnixAddr, getsockname, getsockopt, sockopt};
use vhost::vhost_user::{BackendReqHandler, Error as VhostError};

use super::session::Session;
use super::tpm::Lasting;
use crate::acceptor::{Bell, Host, Reception};
use crate::attachment::{Attachment, Client, Door, PARTING, Presence};
use crate::device::TpmDevice;
use crate::socket::{Access, EXHAUSTED, FrontDoorError, Listener, hung_up, is_passing};

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
}

/// What the door's thread and its owner share.
struct Shared {
    options: Options,
    device: Arc<dyn TpmDevice>,
    lasting: Arc<Lasting>,
    listener: Option<Listener>,
    reception: Arc<Reception>,
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
        Self::open(Listener::bind(path, access)?, device, options)
    }

    /// Serves the clients of a socket that listens.
    ///
    /// # Errors
    /// [`FrontDoorError::Setup`].
    pub fn open(
        listener: Listener,
        device: Arc<dyn TpmDevice>,
        options: Options,
    ) -> Result<Self, FrontDoorError> {
        Self::start(Some(listener), None, device, options)
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
            Self::open(Listener::adopt(UnixListener::from(fd), None)?, device, options)
        } else {
            Self::start(None, Some(fd.into()), device, options)
        }
    }

    fn start(
        listener: Option<Listener>,
        first: Option<UnixStream>,
        device: Arc<dyn TpmDevice>,
        options: Options,
    ) -> Result<Self, FrontDoorError> {
        let shared = Arc::new(Shared {
            options,
            device,
            lasting: Arc::default(),
            listener,
            reception: Arc::default(),
            current: Mutex::new(None),
        });
        shared.reception.open(&shared, first.map(Some)).map_err(FrontDoorError::Setup)?;
        Ok(Self { shared })
    }

    /// The socket that clients connect to; none when the door was opened on a connected descriptor.
    #[must_use]
    pub fn listener(&self) -> Option<&Listener> {
        self.shared.listener.as_ref()
    }

    /// Whether a front end is connected now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.shared.current().is_some()
    }

    /// Waits until the door closes by itself: when it was opened on a connected descriptor and that connection ended.
    pub fn wait(&mut self) {
        self.shared.reception.wait();
    }

    /// Closes the door: the command in flight is finished, the connection is dropped, the socket removed.
    pub fn close(self) {}

    /// Begins to close, so that many doors finish what is in flight at the same time. The socket file stays: somebody goes on listening, and
    /// QEMU connects there again.
    pub fn begin_hand_over(&self) {
        if let Some(listener) = &self.shared.listener {
            listener.keep_file();
        }
        self.shared.begin_close();
    }
}

impl Drop for FrontDoor {
    fn drop(&mut self) {
        if let Some(listener) = &self.shared.listener {
            listener.remove_file();
        }
        self.shared.begin_close();
        self.shared.reception.wait();
    }
}

/// The connection that is being served.
struct Connection {
    stream: UnixStream,
    handler: BackendReqHandler<Mutex<Session>>,
    // The last to go.
    _presence: Presence,
}

impl Host for Shared {
    type Guests = Option<UnixStream>;

    fn name(&self) -> &str {
        &self.options.name
    }

    fn listeners(&self) -> impl Iterator<Item = &Listener> {
        self.listener.iter()
    }

    fn serve(self: &Arc<Self>, bell: &Bell, first: Option<UnixStream>) {
        let name = &self.options.name;
        let mut connection = first.and_then(|stream| self.welcome(stream));
        while !self.reception.is_closing() {
            let (knocked, spoken) = match self.wait(bell, connection.as_ref()) {
                Ok(ready) => ready,
                Err(e) => {
                    log::error!(instance:% = name; "{name}: the socket cannot be waited for: {e}");
                    std::thread::sleep(EXHAUSTED);
                    break;
                }
            };
            if self.reception.is_closing() {
                break;
            }
            if spoken && connection.as_mut().is_some_and(|c| !self.answer(c)) {
                connection = None;
                *self.current() = None;
            }
            if let Some(listener) = self.listener.as_ref().filter(|_| knocked) {
                self.accept(listener, &mut connection);
            }
            if connection.is_none() {
                break;
            }
        }
        drop(connection);
        *self.current() = None;
    }
}

impl Shared {
    fn begin_close(&self) {
        self.reception.close();
        if let Some(current) = self.current().as_ref() {
            let _gone = current.shutdown(std::net::Shutdown::Both);
        }
    }

    fn current(&self) -> std::sync::MutexGuard<'_, Option<UnixStream>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a client at the door, or a message of the one inside; with nobody inside, looks whether there is one.
    fn wait(&self, bell: &Bell, connection: Option<&Connection>) -> io::Result<(bool, bool)> {
        let mut fds = vec![PollFd::new(bell.as_fd(), PollFlags::POLLIN)];
        let sources = [self.listener.as_ref().map(AsFd::as_fd), connection.map(|c| c.stream.as_fd())];
        fds.extend(sources.iter().flatten().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)));
        let timeout = if connection.is_some() { PollTimeout::NONE } else { PollTimeout::ZERO };
        match poll(&mut fds, timeout) {
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => return Ok((false, false)),
            Err(e) => return Err(e.into()),
        }
        let mut ready = fds.iter().skip(1).map(|fd| fd.any().unwrap_or(true));
        let knocked = self.listener.is_some() && ready.next().unwrap_or(false);
        let spoken = connection.is_some() && ready.next().unwrap_or(false);
        Ok((knocked, spoken))
    }

    fn accept(&self, listener: &Listener, connection: &mut Option<Connection>) {
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
            Ok(stream) if connection.is_none() => *connection = self.welcome(stream.into()),
            Ok(stream) => {
                if let Some(holder) = self.options.attachment.client() {
                    self.send_away(Client::of(Door::VhostUser, &stream), holder);
                }
            }
            Err(e) if is_passing(&e) => {}
            Err(e) => {
                log::error!(instance:% = name; "{name}: no connection can be accepted: {e}");
                std::thread::sleep(EXHAUSTED);
            }
        }
    }

    fn send_away(&self, client: Client, holder: Client) {
        let name = &self.options.name;
        log::warn!(instance:% = name; "{name}: a second front end, {client}, was sent away: {holder} has the instance");
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
        match self.connect(stream, Presence::new(attached, self.device.clone())) {
            Ok(connection) => {
                log::info!(instance:% = name; "{name}: a front end connected: {client}");
                Some(connection)
            }
            Err(e) => {
                log::error!(instance:% = name; "{name}: a connection could not be served: {e}");
                None
            }
        }
    }

    fn connect(&self, stream: UnixStream, presence: Presence) -> io::Result<Connection> {
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
            _presence: presence,
        })
    }

    /// Answers one message. `false` when the connection is over.
    fn answer(&self, connection: &mut Connection) -> bool {
        let name = &self.options.name;
        let handled = catch_unwind(AssertUnwindSafe(|| connection.handler.handle_request()));
        match handled {
            Ok(Ok(())) | Ok(Err(VhostError::SocketRetry(_))) => return true,
            Ok(Err(VhostError::Disconnected | VhostError::SocketBroken(_))) => {
                log::info!(instance:% = name; "{name}: the front end left");
            }
            Ok(Err(e)) => log::error!(instance:% = name; "{name}: the connection is closed: {e}"),
            Err(_) => {
                log::error!(instance:% = name; "{name}: the connection is closed: its message caused a panic")
            }
        }
        false
    }
}
