//! Where metrics are collected: `GET /metrics` of HTTP/1.1, on a UNIX socket or an address.
//!
//! Nobody who connects here can hold anything up. So many are served at once and no more, each by a thread of its own; a request has a size, and it
//! and its response have a time, however slowly the bytes come. One response at a time is put together, which takes no lock of an instance
//! and none of the store.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vtpm_backend::socket::{Access, FrontDoorError, Listener, is_passing};

use super::exposition::{Exposition, Sources};
use crate::config::MetricsAddress;
use crate::gate::Gate;
use crate::service::Sockets;
use crate::tree::Tree;

/// Clients at a time; more are sent away.
const MAX_CLIENTS: usize = 8;
/// Of those, so many have the time to read that they are.
const MAX_LEAVING: usize = 32;
/// The longest head of a request.
const MAX_REQUEST: usize = 8 << 10;
/// The most lines in it.
const MAX_HEADERS: usize = 64;
/// From the connection to the end of the request.
const REQUEST_PATIENCE: Duration = Duration::from_secs(5);
/// For the whole of a response.
const RESPONSE_PATIENCE: Duration = Duration::from_secs(10);
/// For the client to close the connection, once it has its response.
const PARTING_PATIENCE: Duration = Duration::from_millis(500);
/// Between two instances that nobody has used since the start, when they are looked at.
const LOOK_PAUSE: Duration = Duration::from_millis(2);

/// What the text is.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Why there is no endpoint; for the operator.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The file of the socket.
    #[error("metrics.listen: there is no socket to be had")]
    Socket(#[source] FrontDoorError),
    /// The address, or the threads.
    #[error("metrics.listen: cannot listen at {address}")]
    Listen {
        /// Where.
        address: MetricsAddress,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// The socket of an endpoint that is to come. It goes when this is dropped, unless somebody else made it.
pub struct Listening {
    address: MetricsAddress,
    socket: Socket,
}

/// The endpoint, open until this is dropped.
pub struct Endpoint {
    listening: Arc<Listening>,
    hall: Arc<Hall>,
    threads: Vec<JoinHandle<()>>,
}

/// What the clients share.
struct Hall {
    exposition: Mutex<Exposition>,
    clients: AtomicUsize,
    exit: AtomicBool,
    gate: Gate,
}

/// One whose accept does not block.
enum Socket {
    Unix(Listener),
    Tcp(TcpListener),
}

impl Socket {
    fn accept(&self) -> io::Result<Client> {
        match self {
            Self::Unix(listener) => listener.accept().map(UnixStream::from).map(Client::Unix)?.unblocked(),
            Self::Tcp(listener) => listener.accept().map(|(stream, _)| Client::Tcp(stream))?.unblocked(),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(listener) => listener.as_fd(),
            Self::Tcp(listener) => listener.as_fd(),
        }
    }
}

impl Listening {
    /// Listens at `address`, where `sockets` has none that was handed in; at a UNIX socket, for this user and the members of `group`. Nobody
    /// is answered yet.
    ///
    /// # Errors
    /// [`EndpointError`].
    pub fn open(
        address: &MetricsAddress,
        group: Option<u32>,
        sockets: &mut Sockets,
    ) -> Result<Self, EndpointError> {
        let failed = |source| EndpointError::Listen { address: address.clone(), source };
        let socket = match address {
            MetricsAddress::Unix(path) => {
                let access = Access { group, ..Access::default() };
                Socket::Unix(sockets.unix(path, access).map_err(EndpointError::Socket)?)
            }
            MetricsAddress::Tcp(address) => {
                let listener = sockets.tcp(*address).map_err(failed)?;
                listener.set_nonblocking(true).map_err(failed)?;
                Socket::Tcp(listener)
            }
        };
        Ok(Self { address: address.clone(), socket })
    }

    /// Answers with what `sources` have.
    ///
    /// # Errors
    /// [`EndpointError::Listen`], when there is no thread or no descriptor to be had.
    pub fn serve(self, sources: Sources) -> Result<Endpoint, EndpointError> {
        let address = self.address.clone();
        let failed = |source| EndpointError::Listen { address: address.clone(), source };
        let tree = sources.tree.clone();
        let hall = Arc::new(Hall {
            exposition: Mutex::new(Exposition::new(sources)),
            clients: AtomicUsize::new(0),
            exit: AtomicBool::new(false),
            gate: Gate::new().map_err(failed)?,
        });
        let mut endpoint = Endpoint { listening: Arc::new(self), hall, threads: Vec::new() };
        let (listening, hall) = (endpoint.listening.clone(), endpoint.hall.clone());
        let accepting = Builder::new().name("metrics".into()).spawn(move || accept(&listening.socket, &hall));
        endpoint.threads.push(accepting.map_err(failed)?);
        let hall = endpoint.hall.clone();
        let looking = Builder::new().name("metrics look".into()).spawn(move || look(&tree, &hall));
        endpoint.threads.push(looking.map_err(failed)?);
        log::info!("metrics are at {address}");
        Ok(endpoint)
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.hall.exit.store(true, Ordering::Release);
        self.hall.gate.close();
        for thread in self.threads.drain(..) {
            let _panicked = thread.join();
        }
        // Whoever is looking at the tree has done so.
        drop(self.hall.exposition.lock());
    }
}

/// Reads where the instances stand that nobody has used since the start: one that waits for a receipt would not show otherwise.
fn look(tree: &Weak<Tree>, hall: &Hall) {
    let Some(tree) = tree.upgrade() else { return };
    tree.look_at_unread(|| {
        std::thread::sleep(LOOK_PAUSE);
        !hall.exit.load(Ordering::Acquire)
    });
}

fn accept(socket: &Socket, hall: &Arc<Hall>) {
    let mut leaving: VecDeque<(Client, Instant)> = VecDeque::new();
    loop {
        let accepted = match hall.gate.wait(socket) {
            Ok(true) => socket.accept(),
            Ok(false) => return,
            Err(e) => Err(e),
        };
        while leaving.len() > MAX_LEAVING
            || leaving.back().is_some_and(|(_, since)| since.elapsed() > PARTING_PATIENCE)
        {
            leaving.pop_back().into_iter().for_each(|(client, _)| client.let_go());
        }
        let mut client = match accepted {
            Ok(client) => client,
            Err(e) if is_passing(&e) => continue,
            Err(e) => {
                log::warn!("metrics: {e}");
                std::thread::sleep(Duration::from_millis(200));
                continue;
            }
        };
        let place = Place::take(hall);
        if place.is_none() {
            log::debug!("metrics: more than {MAX_CLIENTS} clients; one is sent away");
            // The socket's own memory has room for the answer. What the client sent is not read, and closing the connection now would take
            // the answer from it.
            let answered = client.answer(&Response::of(Status::Busy), Duration::from_millis(50));
            if answered.and_then(|()| client.finish()).is_ok() {
                leaving.push_front((client, Instant::now()));
            }
            continue;
        }
        let spawned = Builder::new().name("metrics client".into()).spawn(move || {
            if let Some(place) = &place
                && let Err(e) = serve(&mut client, &place.0)
            {
                log::debug!("metrics: a client went: {e}");
            }
        });
        if let Err(e) = spawned {
            log::warn!("metrics: {e}");
        }
    }
}

/// One of the places for clients, until this is dropped.
struct Place(Arc<Hall>);

impl Place {
    fn take(hall: &Arc<Hall>) -> Option<Self> {
        let place = Self(hall.clone());
        // Given back with it where there was none.
        let before = hall.clients.fetch_add(1, Ordering::AcqRel);
        (before < MAX_CLIENTS).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::AcqRel);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Ok,
    BadRequest,
    NotFound,
    NotAllowed,
    TooLarge,
    Failed,
    Busy,
}

impl Status {
    const fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::BadRequest => "400 Bad Request",
            Self::NotFound => "404 Not Found",
            Self::NotAllowed => "405 Method Not Allowed\r\nAllow: GET",
            Self::TooLarge => "431 Request Header Fields Too Large",
            Self::Failed => "500 Internal Server Error",
            Self::Busy => "503 Service Unavailable",
        }
    }
}

struct Response {
    status: Status,
    content_type: &'static str,
    body: String,
}

impl Response {
    fn of(status: Status) -> Self {
        let body = status.line().lines().next().map(|line| format!("{line}\n")).unwrap_or_default();
        Self { status, content_type: "text/plain; charset=utf-8", body }
    }

    fn metrics(text: String) -> Self {
        Self { status: Status::Ok, content_type: CONTENT_TYPE, body: text }
    }
}

/// What a request asks for; `None` while there is more of it to come.
fn judge(head: &[u8]) -> Option<Status> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Partial) if head.len() < MAX_REQUEST => None,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => Some(Status::TooLarge),
        Err(_) => Some(Status::BadRequest),
        Ok(httparse::Status::Complete(_)) => {
            let path = request.path.unwrap_or_default().split('?').next();
            Some(match (path, request.method) {
                (Some("/metrics"), Some("GET")) => Status::Ok,
                (Some("/metrics"), _) => Status::NotAllowed,
                _ => Status::NotFound,
            })
        }
    }
}

fn serve(client: &mut Client, hall: &Hall) -> io::Result<()> {
    let response = match client.request()? {
        Status::Ok => {
            // A panic of another client's has changed nothing here.
            let exposition = hall.exposition.lock().unwrap_or_else(PoisonError::into_inner);
            if hall.exit.load(Ordering::Acquire) {
                return Ok(());
            }
            let text = exposition.text();
            drop(exposition);
            text.map_or_else(|_| Response::of(Status::Failed), Response::metrics)
        }
        status => Response::of(status),
    };
    client.answer(&response, RESPONSE_PATIENCE)?;
    client.part()
}

enum Client {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// To be tried again.
fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock)
}

impl Client {
    /// Every wait is one for `ready`: a system call that blocks may wait for each piece of a long response anew, while they are read one by one.
    fn unblocked(self) -> io::Result<Self> {
        match &self {
            Self::Unix(stream) => stream.set_nonblocking(true)?,
            Self::Tcp(stream) => stream.set_nonblocking(true)?,
        }
        Ok(self)
    }

    fn ready(&self, for_what: PollFlags, until: Instant) -> io::Result<()> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        let descriptor = match self {
            Self::Unix(stream) => stream.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
        };
        // Rounded up, or the last millisecond would be spent in asking.
        let timeout =
            PollTimeout::try_from(left.saturating_add(Duration::from_millis(1))).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(descriptor, for_what)], timeout) {
            Ok(0) => Err(ErrorKind::TimedOut.into()),
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    fn read(&mut self, out: &mut [u8], until: Instant) -> io::Result<usize> {
        loop {
            self.ready(PollFlags::POLLIN, until)?;
            let read = match self {
                Self::Unix(stream) => stream.read(out),
                Self::Tcp(stream) => stream.read(out),
            };
            match read {
                Err(e) if is_transient(&e) => {}
                read => return read,
            }
        }
    }

    fn write(&mut self, bytes: &[u8], until: Instant) -> io::Result<usize> {
        loop {
            self.ready(PollFlags::POLLOUT, until)?;
            let written = match self {
                Self::Unix(stream) => stream.write(bytes),
                Self::Tcp(stream) => stream.write(bytes),
            };
            match written {
                Err(e) if is_transient(&e) => {}
                written => return written,
            }
        }
    }

    /// Reads a request, and what it asks for.
    fn request(&mut self) -> io::Result<Status> {
        let until = Instant::now().checked_add(REQUEST_PATIENCE).ok_or(ErrorKind::TimedOut)?;
        let mut head = vec![0; MAX_REQUEST];
        let mut come = 0usize;
        loop {
            let Some(room) = head.get_mut(come..).filter(|room| !room.is_empty()) else {
                return Ok(Status::TooLarge);
            };
            match self.read(room, until)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                more => come = come.saturating_add(more),
            }
            if let Some(status) = judge(head.get(..come).unwrap_or_default()) {
                return Ok(status);
            }
        }
    }

    /// Writes a response, the last one of its connection.
    fn answer(&mut self, response: &Response, patience: Duration) -> io::Result<()> {
        let until = Instant::now().checked_add(patience).ok_or(ErrorKind::TimedOut)?;
        let Response { status, content_type, body } = response;
        let mut text = format!(
            "HTTP/1.1 {}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            status.line(),
            body.len()
        );
        text.push_str(body);
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            match self.write(rest, until)? {
                0 => return Err(ErrorKind::WriteZero.into()),
                written => rest = rest.get(written..).unwrap_or_default(),
            }
        }
        Ok(())
    }

    /// There is nothing more for the client.
    fn finish(&self) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.shutdown(std::net::Shutdown::Write),
            Self::Tcp(stream) => stream.shutdown(std::net::Shutdown::Write),
        }
    }

    /// Closes the connection, after reading what is there.
    fn let_go(mut self) {
        let mut dropped = [0; 1024];
        let here = |client: &mut Self, out: &mut [u8]| match client {
            Self::Unix(stream) => stream.read(out),
            Self::Tcp(stream) => stream.read(out),
        };
        let mut rest = MAX_REQUEST;
        while rest > 0 && here(&mut self, &mut dropped).is_ok_and(|n| n > 0) {
            rest = rest.saturating_sub(dropped.len());
        }
    }

    /// Waits until the client has closed the connection: what it sent that nobody has read would take the response from it.
    fn part(&mut self) -> io::Result<()> {
        let until = Instant::now().checked_add(PARTING_PATIENCE).ok_or(ErrorKind::TimedOut)?;
        self.finish()?;
        let mut dropped = [0; 1024];
        while self.read(&mut dropped, until)? > 0 {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_get_of_metrics_is_answered_with_them() {
        for (request, expected) in [
            ("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", Some(Status::Ok)),
            ("GET /metrics?name=vtpmd_commands HTTP/1.0\r\n\r\n", Some(Status::Ok)),
            ("GET /metrics HTTP/1.1\r\nHost: x\r\n", None),
            ("GET /met", None),
            ("", None),
            ("GET / HTTP/1.1\r\n\r\n", Some(Status::NotFound)),
            ("POST / HTTP/1.1\r\n\r\n", Some(Status::NotFound)),
            ("GET /metrics/ HTTP/1.1\r\n\r\n", Some(Status::NotFound)),
            ("GET /../metrics HTTP/1.1\r\n\r\n", Some(Status::NotFound)),
            ("POST /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", Some(Status::NotAllowed)),
            ("HEAD /metrics HTTP/1.1\r\n\r\n", Some(Status::NotAllowed)),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some(Status::BadRequest)),
            ("\x16\x03\x01\x02\x00\x01\x00", Some(Status::BadRequest)),
            ("GET /metrics HTTP/1.1\r\nbroken\x00: x\r\n\r\n", Some(Status::BadRequest)),
        ] {
            assert_eq!(judge(request.as_bytes()), expected, "{request:?}");
        }
    }

    #[test]
    fn a_request_has_a_size_and_so_many_lines() {
        let mut long = b"GET /metrics HTTP/1.1\r\nX: ".to_vec();
        long.resize(MAX_REQUEST, b'x');
        assert_eq!(judge(&long), Some(Status::TooLarge));
        let lines = "X: y\r\n".repeat(MAX_HEADERS + 1);
        assert_eq!(judge(format!("GET /metrics HTTP/1.1\r\n{lines}\r\n").as_bytes()), Some(Status::TooLarge));
        let lines = "X: y\r\n".repeat(MAX_HEADERS);
        assert_eq!(judge(format!("GET /metrics HTTP/1.1\r\n{lines}\r\n").as_bytes()), Some(Status::Ok));
    }

    #[test]
    fn a_response_has_its_time_however_slowly_it_is_read() {
        const PATIENCE: Duration = Duration::from_millis(300);
        // More than the memory of a socket holds.
        let response = Response::metrics("x".repeat(32 << 20));
        for dribbles in [false, true] {
            let (here, mut there) = UnixStream::pair().unwrap();
            let over = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let mut bytes = [0; 4096];
                    while dribbles && !over.load(Ordering::Acquire) {
                        let _ = there.read(&mut bytes);
                        std::thread::sleep(Duration::from_millis(20));
                    }
                });
                let begin = Instant::now();
                let mut client = Client::Unix(here).unblocked().unwrap();
                let answered = client.answer(&response, PATIENCE);
                let took = begin.elapsed();
                over.store(true, Ordering::Release);
                drop(client);
                assert_eq!(answered.unwrap_err().kind(), ErrorKind::TimedOut);
                assert!((PATIENCE..PATIENCE * 10).contains(&took), "{took:?}");
            });
        }
    }
}
