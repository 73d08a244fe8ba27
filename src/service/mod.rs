//! The service manager that started the daemon: systemd, or whatever speaks its protocol (`sd_notify(3)`, `sd_listen_fds(3)`).
//!
//! It is told when the daemon is ready and when it ends, and that it lives ([`watchdog`]). It may hand in sockets that it listens on
//! itself, and keeps those of the daemon while one process ends and the next one starts, with the clients inside ([`sockets`]): `systemctl
//! restart` is not noticed by machines. Without a service manager nothing of this takes place.

mod parcel;
mod sockets;
mod watchdog;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sd_notify::NotifyState;

pub use parcel::{Client, Contents};
pub use sockets::{ServiceError, Sockets};
pub use watchdog::Watchdog;

/// What the descriptor is called in which the service manager keeps the sockets of an earlier process.
const PARCEL: &str = "vtpmd-parcel";
/// The other end of the parcel; it is kept along, for the manager throws away what nobody is at the other end of.
const PARCEL_END: &str = "vtpmd-parcel-end";

/// How long the service manager may take over what it is told.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether there is anybody to be told.
#[must_use]
pub fn is_there() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

fn tell(what: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(what) {
        log::warn!("the service manager cannot be told {what:?}: {error}");
    }
}

/// The daemon answers on all sockets.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The daemon has been asked to end, and ends.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("ending")]);
}

/// Has the service manager keep `contents` for the next process. Returns when it has them.
///
/// # Errors
/// The system's: nothing is kept then.
pub fn keep(contents: Contents) -> io::Result<()> {
    let (parcel, end) = parcel::pack(contents)?;
    let store = |name, fd: BorrowedFd<'_>| {
        sd_notify::notify_with_fds(&[NotifyState::FdStore, NotifyState::FdName(name)], &[fd])
    };
    store(PARCEL_END, end.as_fd())?;
    store(PARCEL, parcel.as_fd())?;
    drop((parcel, end));
    barrier()
}

/// The parcel was unpacked.
fn forget() {
    for name in [PARCEL, PARCEL_END] {
        tell(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]);
    }
}

/// Waits until the service manager has dealt with what it was told: it must not find the process gone that told it.
fn barrier() -> io::Result<()> {
    let (here, there) = UnixStream::pair()?;
    sd_notify::notify_with_fds(&[NotifyState::Custom("BARRIER=1")], &[there.as_fd()])?;
    drop(there);
    let mut fds = [PollFd::new(here.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX))? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}
