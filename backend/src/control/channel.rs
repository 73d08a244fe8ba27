//! One connection: bytes within a time, and requests from them.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use vtpm_protocol::control::{Parsed, Request, RequestError};

use crate::acceptor::Bell;

/// As much is read at once: a request with the beginning of its content.
const AT_ONCE: usize = 4096;

/// As many descriptors as Linux passes at once.
const MAX_PASSED: usize = 253;

/// A connected stream socket of any family, for `UnixStream` does nothing with it that only UNIX sockets can.
pub(super) struct Channel {
    stream: UnixStream,
}

/// A request with what came with it.
pub(super) struct Message {
    pub(super) request: Request,
    /// The beginning of its content, or all.
    pub(super) content: Vec<u8>,
    /// The descriptor that was passed.
    pub(super) passed: Option<OwnedFd>,
}

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// What came is no request.
    #[error("{0}")]
    Request(#[from] RequestError),
    /// The rest of a message did not come, or nobody reads the response.
    #[error("it took too long over a message")]
    TooSlow,
    /// In the middle of a message.
    #[error("it ended in the middle of a message")]
    Short,
    /// It asked for something that cannot be, and was told.
    #[error("{0}")]
    Refused(&'static str),
    /// More descriptors than one were passed.
    #[error("{0} descriptors came where one can be")]
    Descriptors(usize),
    /// Any other trouble.
    #[error("it failed: {0}")]
    Io(io::Error),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::TimedOut => Self::TooSlow,
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Self::Short,
            _ => Self::Io(error),
        }
    }
}

/// A descriptor that was just received.
#[expect(unsafe_code, reason = "nix gives received descriptors by their numbers")]
fn own(descriptor: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just opened it for this process, and nobody else has been told its number.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// The time that is up after `patience`.
pub(super) fn deadline(patience: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(patience).unwrap_or(now)
}

impl Channel {
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        let stream = UnixStream::from(socket);
        stream.set_nonblocking(true)?;
        Ok(Self { stream })
    }

    /// Another handle of the same connection.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { stream: self.stream.try_clone()? })
    }

    /// Ends the connection for all its handles.
    pub(super) fn hang_up(&self) {
        let _gone = self.stream.shutdown(std::net::Shutdown::Both);
    }

    /// Waits until it can be read or written; for ever, or until the deadline. `Interrupted` when the bell rings.
    pub(super) fn wait(
        &self,
        events: PollFlags,
        until: Option<Instant>,
        bell: Option<&Bell>,
    ) -> io::Result<()> {
        loop {
            let timeout = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                None => PollTimeout::NONE,
                Some(left) if left.is_zero() => return Err(ErrorKind::TimedOut.into()),
                // Rounded up, so that the last millisecond is not spent in a circle.
                Some(left) => PollTimeout::try_from(left.saturating_add(Duration::from_millis(1)))
                    .unwrap_or(PollTimeout::MAX),
            };
            let stream = PollFd::new(self.stream.as_fd(), events);
            let ready = match bell {
                None => poll(&mut [stream], timeout).map(|ready| (ready > 0, false)),
                Some(bell) => {
                    let mut fds = [stream, PollFd::new(bell.as_fd(), PollFlags::POLLIN)];
                    poll(&mut fds, timeout).map(|_| {
                        let [stream, bell] = fds;
                        (stream.any() == Some(true), bell.any() == Some(true))
                    })
                }
            };
            match ready {
                Ok((_, true)) => return Err(ErrorKind::Interrupted.into()),
                Ok((true, _)) => return Ok(()),
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// What there is, at least one byte; 0 at the end.
    pub(super) fn read(&self, buffer: &mut [u8], until: Option<Instant>) -> io::Result<usize> {
        self.retry(PollFlags::POLLIN, until, None, |mut stream| stream.read(buffer))
    }

    /// As [`Self::read`]; `Interrupted` when there is nothing yet and the bell rings.
    pub(super) fn read_or_hear(
        &self,
        buffer: &mut [u8],
        until: Option<Instant>,
        bell: &Bell,
    ) -> io::Result<usize> {
        self.retry(PollFlags::POLLIN, until, Some(bell), |mut stream| stream.read(buffer))
    }

    /// As [`Self::read`], with the descriptors that were passed.
    fn read_with_descriptors(&self, buffer: &mut [u8], until: Instant) -> io::Result<(usize, Vec<OwnedFd>)> {
        self.retry(PollFlags::POLLIN, Some(until), None, |stream| {
            // Room for as many as can be passed at once: of those that are cut off, one would not know which are open now.
            let mut room = nix::cmsg_space!([RawFd; MAX_PASSED]);
            let mut parts = [io::IoSliceMut::new(buffer)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            let message = recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut room), flags)?;
            let mut passed = Vec::new();
            for control in message.cmsgs()? {
                if let ControlMessageOwned::ScmRights(descriptors) = control {
                    passed.extend(descriptors.into_iter().map(own));
                }
            }
            Ok((message.bytes, passed))
        })
    }

    /// All of `bytes`, before the deadline.
    pub(super) fn write(&self, mut bytes: &[u8], until: Instant) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = self.retry(PollFlags::POLLOUT, Some(until), None, |mut stream| {
                match stream.write(bytes)? {
                    0 => Err(ErrorKind::BrokenPipe.into()),
                    written => Ok(written),
                }
            })?;
            bytes = bytes.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    /// Mostly there is something to be read, or room: that is tried first.
    fn retry<T>(
        &self,
        events: PollFlags,
        until: Option<Instant>,
        bell: Option<&Bell>,
        mut io: impl FnMut(&UnixStream) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            match io(&self.stream) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                other => return other,
            }
            self.wait(events, until, bell)?;
        }
    }

    /// The next request, of which at least the beginning is there; `None` at the end of the connection.
    ///
    /// # Errors
    /// [`Broken`]; the connection is of no use any more.
    pub(super) fn receive(&self, patience: Duration) -> Result<Option<Message>, Broken> {
        let until = deadline(patience);
        let mut buffer = vec![0; AT_ONCE];
        let (mut come, mut passed) = (0usize, Vec::new());
        loop {
            let room = buffer.get_mut(come..).unwrap_or_default();
            let (got, mut descriptors) = self.read_with_descriptors(room, until)?;
            passed.append(&mut descriptors);
            if passed.len() > 1 {
                return Err(Broken::Descriptors(passed.len()));
            }
            if got == 0 {
                return if come == 0 { Ok(None) } else { Err(Broken::Short) };
            }
            come = come.saturating_add(got);
            match Request::parse(buffer.get(..come).unwrap_or_default())? {
                Parsed::Incomplete(_) => {}
                Parsed::Whole(request, content) => {
                    let content = content.to_vec();
                    return Ok(Some(Message { request, content, passed: passed.pop() }));
                }
            }
        }
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> Self {
        channel.stream.into()
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// The content of a request: what came with it, and then the rest from the connection.
pub(super) struct Content<'a> {
    come: &'a [u8],
    /// Bytes that have yet to come.
    missing: usize,
    channel: &'a Channel,
    until: Instant,
    /// Why the rest does not come.
    pub(super) broken: Option<Broken>,
}

impl<'a> Content<'a> {
    /// Of `length` bytes, all of them before the deadline.
    pub(super) fn new(come: &'a [u8], length: u32, channel: &'a Channel, until: Instant) -> Self {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        Self { come, missing: length.saturating_sub(come.len()), channel, until, broken: None }
    }

    /// Reads what nobody wanted, so that the client, which writes all of it first, comes to read the response.
    pub(super) fn drain(&mut self) -> Result<(), Broken> {
        let mut rest = [0; AT_ONCE];
        while matches!(self.read(&mut rest), Ok(1..)) {}
        self.broken.take().map_or(Ok(()), Err)
    }
}

impl Read for Content<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if !self.come.is_empty() {
            return self.come.read(out);
        }
        let wanted = out.len().min(self.missing);
        let Some(out) = out.get_mut(..wanted).filter(|out| !out.is_empty()) else { return Ok(0) };
        let got = match self.channel.read(out, Some(self.until)) {
            Ok(0) => Err(io::Error::from(ErrorKind::UnexpectedEof)),
            other => other,
        };
        match got {
            Ok(got) => {
                self.missing = self.missing.saturating_sub(got);
                Ok(got)
            }
            Err(error) => {
                let kind = error.kind();
                self.broken = Some(error.into());
                // What comes after this is lost, too.
                self.missing = 0;
                Err(kind.into())
            }
        }
    }
}
