//! A link over standard input and output of a program that ssh started on the other host.
//!
//! ssh has made sure who is at the other end, and who may run `vtpmctl` on a host can do all that its root's owner can: the host that is
//! called asks for nothing more. The host that calls still wants a peer: a ticket of anybody else it would refuse.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vtpm_protocol::link::{Message, MessageTag, Reason};

use super::root::RootTrust;
use super::trust::{Admitted, HelloError, Trust};
use super::wire::{Stream, Timed, Wire, WireError, left};
use crate::migration::client::Transport;

/// What a pipe takes without waiting once it takes anything: `PIPE_BUF`.
const AT_ONCE: usize = 4096;

/// Two descriptors, read and written until a deadline.
pub struct Pipe {
    input: File,
    output: File,
    deadline: Instant,
}

impl Pipe {
    /// Standard input and output. Nothing else may use them any more.
    ///
    /// # Errors
    /// When they are closed.
    pub fn stdio() -> io::Result<Self> {
        Ok(Self {
            input: File::from(io::stdin().as_fd().try_clone_to_owned()?),
            output: File::from(io::stdout().as_fd().try_clone_to_owned()?),
            deadline: Instant::now(),
        })
    }
}

fn wait(file: &File, flags: PollFlags, deadline: Instant) -> io::Result<()> {
    loop {
        // Rounded up, or the last millisecond is spent turning round.
        let ms = left(deadline)?.as_millis().saturating_add(1);
        let timeout = i32::try_from(ms).unwrap_or(i32::MAX);
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(file.as_fd(), flags)], timeout) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

impl Timed for Pipe {
    fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }
}

impl Read for Pipe {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        wait(&self.input, PollFlags::POLLIN, self.deadline)?;
        self.input.read(out)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        wait(&self.output, PollFlags::POLLOUT, self.deadline)?;
        self.output.write(bytes.get(..AT_ONCE).unwrap_or(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

/// The hello of the side that called. The other side must be a peer.
///
/// # Errors
/// [`HelloError`].
pub fn greet<S: Stream, T: Transport + Send + Sync + 'static>(
    wire: &mut Wire<S>,
    root: &RootTrust<T>,
    within: Duration,
) -> Result<Admitted, HelloError> {
    wire.send(&Message::Hello(root.identity()?), within)?;
    let expected = |tag| matches!(tag, MessageTag::Hello | MessageTag::Refused);
    match wire.receive(expected, within)? {
        Message::Hello(identity) => Ok(root.recognize(&identity)?),
        Message::Refused(reason) => Err(HelloError::Refused(reason)),
        other => Err(WireError::Unexpected(other.tag()).into()),
    }
}

/// The hello of the side that was called.
///
/// # Errors
/// [`HelloError`]; the other side is told why.
pub fn answer<S: Stream, T: Transport + Send + Sync + 'static>(
    wire: &mut Wire<S>,
    root: &RootTrust<T>,
    within: Duration,
) -> Result<Admitted, HelloError> {
    let Message::Hello(identity) = wire.receive(|tag| tag == MessageTag::Hello, within)? else {
        return Err(WireError::Unexpected(MessageTag::Hello).into());
    };
    let answered = root.welcome(&identity).and_then(|peer| Ok((peer, root.identity()?)));
    match answered {
        Ok((peer, own)) => {
            wire.send(&Message::Hello(own), within)?;
            Ok(peer)
        }
        Err(error) => {
            let _gone = wire.send(&Message::Refused(Reason::new(&error.to_string())), within);
            Err(error.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    fn pipe() -> (Pipe, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let file = |stream: &UnixStream| File::from(std::os::fd::OwnedFd::from(stream.try_clone().unwrap()));
        let pipe = Pipe { input: file(&ours), output: file(&ours), deadline: Instant::now() };
        (pipe, theirs)
    }

    #[test]
    fn a_pipe_is_waited_for_until_its_deadline_and_no_longer() {
        let (mut pipe, mut other) = pipe();
        let start = Instant::now();
        pipe.set_deadline(start + Duration::from_millis(100));
        assert_eq!(pipe.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!((100..2000).contains(&start.elapsed().as_millis()));
        pipe.set_deadline(Instant::now() + Duration::from_secs(10));
        other.write_all(b"x").unwrap();
        assert_eq!(pipe.read(&mut [0]).unwrap(), 1);
        drop(other);
        assert_eq!(pipe.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn one_that_takes_nothing_is_not_waited_for() {
        let (mut pipe, _other) = pipe();
        pipe.set_deadline(Instant::now() + Duration::from_millis(200));
        let error = (0..10_000).find_map(|_| pipe.write(&[0; 60_000]).err()).unwrap();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
