//! The thread that executes the commands of one connection.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::ring::RequestQueue;

/// The worker of one connection; it ends when this is dropped, after the command at hand.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    queue: Arc<RequestQueue>,
    epoll: Epoll,
    wake: EventFd,
    exit: AtomicBool,
}

/// What the threads of an instance are called; Linux shows the first 15 bytes.
pub(crate) fn thread_name(name: &str) -> String {
    format!("vtpm-{}", name.replace('\0', ""))
}

impl Worker {
    pub(crate) fn spawn(name: &str, queue: Arc<RequestQueue>) -> io::Result<Self> {
        let wake = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        watch(&epoll, &wake)?;
        let shared = Arc::new(Shared { queue, epoll, wake, exit: AtomicBool::new(false) });
        let thread = std::thread::Builder::new().name(thread_name(name)).spawn({
            let shared = Arc::clone(&shared);
            move || shared.run()
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Watches `kick` instead of `old`.
    pub(crate) fn set_kick(&self, old: Option<&File>, kick: Option<&File>) -> io::Result<()> {
        if let Some(old) = old {
            // It may never have been watched.
            let _absent = self.shared.epoll.delete(old);
        }
        if let Some(kick) = kick {
            watch(&self.shared.epoll, kick)?;
        }
        Ok(())
    }

    /// Has the queue looked at, whether it was kicked or not.
    pub(crate) fn wake(&self) {
        // The counter is full only when the worker has yet to hear of an earlier call.
        let _full = self.shared.wake.write(1);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.exit.store(true, Ordering::Release);
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// Adds `fd` edge-triggered: every write to an eventfd reports it anew, so it is never read. A read could block, for the
/// descriptor that QEMU passes may be a blocking one, and may be replaced while its event is on the way.
fn watch(epoll: &Epoll, fd: impl AsFd) -> io::Result<()> {
    let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0);
    Ok(epoll.add(fd, event)?)
}

impl Shared {
    fn run(&self) {
        let mut events = [EpollEvent::empty(); 2];
        while !self.exit.load(Ordering::Acquire) {
            match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(e) => {
                    log::error!("the queue cannot be waited for: {e}");
                    return;
                }
            }
            if self.exit.load(Ordering::Acquire) {
                return;
            }
            if catch_unwind(AssertUnwindSafe(|| self.queue.serve())).is_err() {
                log::error!("the queue's worker panicked; it goes on with the next kick");
            }
        }
    }
}
