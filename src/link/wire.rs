//! Messages over a byte stream, each within a time.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use vtpm_protocol::link::{LINK_PREFIX, LinkError, Message, MessageTag, Prefix};

/// A byte stream that can be told when to give up. What cannot (standard input of a process that ssh started, and ends) leaves this as it
/// is.
pub trait Timed {
    /// Reads and writes after this fail with [`io::ErrorKind::TimedOut`].
    fn set_deadline(&mut self, _deadline: Instant) {}
}

impl<S: Timed + ?Sized> Timed for &mut S {
    fn set_deadline(&mut self, deadline: Instant) {
        (**self).set_deadline(deadline);
    }
}

impl<S: Timed + ?Sized> Timed for Box<S> {
    fn set_deadline(&mut self, deadline: Instant) {
        (**self).set_deadline(deadline);
    }
}

/// A stream that both sides of a link can be spoken over.
pub trait Stream: Read + Write + Timed {}
impl<S: Read + Write + Timed> Stream for S {}

/// Why no message came or went.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The other side is through, between two messages.
    #[error("the other side has closed the link")]
    Closed,
    /// The stream broke, or took too long.
    #[error("the link broke off")]
    Io(#[source] io::Error),
    /// What came is no message.
    #[error("what came over the link is no message")]
    Message(#[source] LinkError),
    /// A message that has no place here.
    #[error("the message {0:?} came where it has no place")]
    Unexpected(MessageTag),
}

/// Sends and receives messages.
pub struct Wire<S> {
    stream: S,
}

impl<S: Stream> Wire<S> {
    /// Nothing has been said yet.
    pub fn new(stream: S) -> Self {
        Self { stream }
    }

    /// The stream.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// The stream, for which nothing of it has been read ahead.
    pub fn into_stream(self) -> S {
        self.stream
    }

    /// Sends one message, in at most that time.
    ///
    /// # Errors
    /// [`WireError::Message`], [`WireError::Io`].
    pub fn send(&mut self, message: &Message, within: Duration) -> Result<(), WireError> {
        let mut bytes = Vec::new();
        message.encode(&mut bytes).map_err(WireError::Message)?;
        self.stream.set_deadline(deadline(within));
        self.stream.write_all(&bytes).and_then(|()| self.stream.flush()).map_err(WireError::Io)
    }

    /// Receives one message, whole, in at most that time. What is not `expected` is refused with its first bytes.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn receive(
        &mut self,
        expected: impl FnOnce(MessageTag) -> bool,
        within: Duration,
    ) -> Result<Message, WireError> {
        self.stream.set_deadline(deadline(within));
        let mut prefix = [0; LINK_PREFIX];
        self.read_first(&mut prefix)?;
        let prefix = Prefix::decode(prefix).map_err(WireError::Message)?;
        if !expected(prefix.tag()) {
            return Err(WireError::Unexpected(prefix.tag()));
        }
        let mut body = vec![0; prefix.length()];
        self.stream.read_exact(&mut body).map_err(WireError::Io)?;
        Message::decode(prefix.tag(), &body).map_err(WireError::Message)
    }

    /// As `read_exact`, but an end before the first byte is not a broken stream.
    fn read_first(&mut self, out: &mut [u8]) -> Result<(), WireError> {
        let first = loop {
            match self.stream.read(out) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // TLS calls it so when the other side hung up without a word, as a process that is killed does.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(WireError::Closed),
                other => break other.map_err(WireError::Io)?,
            }
        };
        if first == 0 {
            return Err(WireError::Closed);
        }
        self.stream.read_exact(out.get_mut(first..).unwrap_or_default()).map_err(WireError::Io)
    }
}

/// That long from now. A time that cannot be counted is as good as a day.
fn deadline(within: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(within).or_else(|| now.checked_add(Duration::from_secs(86_400))).unwrap_or(now)
}

/// How much of the time until `deadline` is left; an error when none is.
pub(super) fn left(deadline: Instant) -> io::Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::ErrorKind::TimedOut.into()),
        left => Ok(left),
    }
}

/// What a socket with a timeout answers when it is over.
fn timed_out(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { error }
}

/// A socket of which every read and write ends at a deadline, however few bytes the other side sends at a time.
pub struct TimedSocket<S> {
    socket: S,
    deadline: Instant,
}

impl<S> TimedSocket<S> {
    /// The deadline is now, until another is set.
    pub fn new(socket: S) -> Self {
        Self { socket, deadline: Instant::now() }
    }

    /// The socket.
    pub fn socket(&self) -> &S {
        &self.socket
    }
}

impl<S> Timed for TimedSocket<S> {
    fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }
}

macro_rules! timed_socket {
    ($socket:ty) => {
        impl Read for TimedSocket<$socket> {
            fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
                self.socket.set_read_timeout(Some(left(self.deadline)?))?;
                self.socket.read(out).map_err(timed_out)
            }
        }

        impl Write for TimedSocket<$socket> {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.socket.set_write_timeout(Some(left(self.deadline)?))?;
                self.socket.write(bytes).map_err(timed_out)
            }

            fn flush(&mut self) -> io::Result<()> {
                self.socket.flush()
            }
        }
    };
}
timed_socket!(TcpStream);
timed_socket!(UnixStream);

#[cfg(test)]
mod tests {
    use super::*;
    use vtpm_protocol::codec::Encode;
    use vtpm_protocol::instance::Uuid;

    const SOON: Duration = Duration::from_secs(5);

    fn pair() -> (Wire<TimedSocket<UnixStream>>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Wire::new(TimedSocket::new(ours)), theirs)
    }

    #[test]
    fn messages_go_through() {
        let (mut a, b) = pair();
        let mut b = Wire::new(TimedSocket::new(b));
        for message in [Message::FindSlot(Uuid([7; 16])), Message::Chunk(vec![1; 60_000]), Message::Done] {
            a.send(&message, SOON).unwrap();
            assert_eq!(b.receive(|_| true, SOON).unwrap(), message);
        }
        drop(a);
        assert!(matches!(b.receive(|_| true, SOON), Err(WireError::Closed)));
    }

    #[test]
    fn a_message_that_is_not_expected_is_refused_before_its_body_came() {
        let (mut wire, mut other) = pair();
        other.write_all(&(MessageTag::Chunk as u16, 60_000u32).to_bytes()).unwrap();
        let received = wire.receive(|tag| tag == MessageTag::Hello, SOON);
        assert!(matches!(received, Err(WireError::Unexpected(MessageTag::Chunk))));
    }

    #[test]
    fn one_that_sends_a_byte_now_and_then_is_not_waited_for() {
        let (mut wire, mut other) = pair();
        let bytes = {
            let mut bytes = Vec::new();
            Message::FindSlot(Uuid([7; 16])).encode(&mut bytes).unwrap();
            bytes
        };
        let sender = std::thread::spawn(move || {
            for byte in bytes {
                std::thread::sleep(Duration::from_millis(30));
                if other.write_all(&[byte]).is_err() {
                    return;
                }
            }
        });
        let start = Instant::now();
        let received = wire.receive(|_| true, Duration::from_millis(200));
        assert!(matches!(received, Err(WireError::Io(e)) if e.kind() == io::ErrorKind::TimedOut));
        assert!(start.elapsed() < Duration::from_millis(600), "{:?}", start.elapsed());
        drop(wire);
        sender.join().unwrap();
    }

    #[test]
    fn one_that_takes_nothing_is_not_waited_for() {
        let (mut wire, _other) = pair();
        let error = (0..1000)
            .map(|_| wire.send(&Message::Chunk(vec![0; 65_000]), Duration::from_millis(100)))
            .find_map(Result::err);
        assert!(matches!(error, Some(WireError::Io(e)) if e.kind() == io::ErrorKind::TimedOut));
    }

    #[test]
    fn a_stream_that_ends_within_a_message_is_broken() {
        let (mut wire, mut other) = pair();
        other.write_all(&[0, 0x10, 0, 0, 0, 16, 1, 2]).unwrap();
        drop(other);
        assert!(matches!(wire.receive(|_| true, SOON), Err(WireError::Io(_))));
    }
}
