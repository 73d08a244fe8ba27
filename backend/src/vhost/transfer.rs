//! The state of an instance on its way from or to QEMU.
//!
//! QEMU hands over one end of a pipe under its big lock, moves the bytes, and asks in `CHECK_DEVICE_STATE` how it went.
//! The pipe is served in a thread, every read and write of it ends by one deadline, and the answer to the question is
//! what the device said. A save that failed, or that nobody waited for any more, is never reported as done.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::device::{DeviceError, TpmDevice};

/// How long the device itself may take once the last byte moved: its own commit, or its lock.
const GRACE: Duration = Duration::from_secs(5);

/// The way that the state goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Save,
    Load,
}

/// Why a transfer did not hold.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransferError {
    #[error("no state was transferred")]
    None,
    #[error("another transfer is still under way")]
    Busy,
    #[error("the transfer did not end within its time")]
    TimedOut,
    #[error("the device panicked")]
    Panicked,
    #[error("the pipe or the thread for the transfer could not be set up")]
    Setup(#[source] io::Error),
    #[error("the transfer failed")]
    Device(#[source] DeviceError),
}

type Outcome = Result<(), TransferError>;

/// The transfer of one connection; there is at most one at a time.
#[derive(Debug, Default)]
pub(crate) struct Transfer {
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    outcome: Receiver<Outcome>,
    deadline: Instant,
    thread: JoinHandle<()>,
}

impl Transfer {
    /// Starts moving the state of `device` through `pipe`, with `timeout` for all of it.
    pub(crate) fn start(
        &mut self,
        device: &Arc<dyn TpmDevice>,
        direction: Direction,
        pipe: File,
        timeout: Duration,
    ) -> Outcome {
        if let Some(old) = &self.running
            && !old.thread.is_finished()
        {
            return Err(TransferError::Busy);
        }
        set_nonblocking(&pipe).map_err(TransferError::Setup)?;
        let now = Instant::now();
        let deadline = now.checked_add(timeout).unwrap_or(now);
        let (sender, outcome) = sync_channel(1);
        let device = Arc::clone(device);
        let thread = std::thread::Builder::new()
            .name("vtpm-transfer".into())
            .spawn(move || {
                let mut pipe = TimedPipe { pipe, deadline };
                let moved = catch_unwind(AssertUnwindSafe(|| match direction {
                    Direction::Save => device.save(&mut pipe),
                    Direction::Load => device.load(&mut pipe),
                }));
                // QEMU reads a saved state up to the end of the pipe.
                drop(pipe);
                let outcome = match moved {
                    Ok(outcome) => outcome.map_err(TransferError::Device),
                    Err(_) => Err(TransferError::Panicked),
                };
                // Nobody may be waiting any more; then the outcome is for the device alone.
                let _unheard = sender.send(outcome);
            })
            .map_err(TransferError::Setup)?;
        self.running = Some(Running { outcome, deadline, thread });
        Ok(())
    }

    /// Waits for the transfer and says whether it held. Each transfer is answered once.
    pub(crate) fn check(&mut self) -> Outcome {
        let running = self.running.as_ref().ok_or(TransferError::None)?;
        let patience = running.deadline.saturating_duration_since(Instant::now()).saturating_add(GRACE);
        let outcome = running.outcome.recv_timeout(patience).unwrap_or(Err(TransferError::TimedOut));
        // A thread that is late stays known, so that no second transfer runs beside it.
        if !matches!(outcome, Err(TransferError::TimedOut))
            && let Some(done) = self.running.take()
        {
            let _panicked = done.thread.join();
        }
        outcome
    }
}

impl Drop for Transfer {
    /// Waits for the transfer: its pipe broke with the connection, or its deadline is near.
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            let _panicked = running.thread.join();
        }
    }
}

fn set_nonblocking(pipe: &File) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(pipe, FcntlArg::F_GETFL)?);
    fcntl(pipe, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// A pipe whose every byte moves before the deadline.
struct TimedPipe {
    pipe: File,
    deadline: Instant,
}

impl TimedPipe {
    fn retry<T>(
        &mut self,
        ready: PollFlags,
        mut io: impl FnMut(&mut File) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match io(&mut self.pipe) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
            let mut fds = [PollFd::new(self.pipe.as_fd(), ready)];
            let wait = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut fds, wait) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl Read for TimedPipe {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.retry(PollFlags::POLLIN, |pipe| pipe.read(buf))
    }
}

impl Write for TimedPipe {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.retry(PollFlags::POLLOUT, |pipe| pipe.write(buf))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
