//! Waits for clients at a listening socket, until told not to any more. The socket itself is left alone: it may be somebody else's as well,
//! and go on.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// Open until [`Self::close`].
pub struct Gate {
    closed: AtomicBool,
    bell: EventFd,
}

impl Gate {
    /// Open.
    ///
    /// # Errors
    /// The system's, when there is no descriptor to be had.
    pub fn new() -> io::Result<Self> {
        let bell = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        Ok(Self { closed: AtomicBool::new(false), bell })
    }

    /// Ends [`Self::wait`], now and whenever it is called.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        // A counter that is full has ended it already.
        let _full = self.bell.write(1);
    }

    /// Waits until there may be a client at `listener`, whose accept must not block: it may be gone again. `false` when this is closed.
    ///
    /// # Errors
    /// The system's.
    pub fn wait(&self, listener: &impl AsFd) -> io::Result<bool> {
        let mut fds = [listener.as_fd(), self.bell.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        loop {
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) => return Ok(!self.closed.load(Ordering::Acquire)),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
