//! The thread that executes the commands of one connection.
//!
//! The crate's own `VringEpollHandler` cannot be made outside of it, ends for good at the first descriptor that does not
//! behave like an eventfd, and never closes the one that ends it.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use vhost_user_backend::{VhostUserBackend, VringT};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::socket::thread_name;

/// The worker of one connection; it ends when this is dropped, after the command at hand.
pub(crate) struct Worker<B: VhostUserBackend + 'static> {
    shared: Arc<Shared<B>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared<B: VhostUserBackend> {
    backend: Arc<B>,
    vrings: [B::Vring; 1],
    epoll: Epoll,
    wake: EventFd,
    exit: AtomicBool,
}

impl<B> Worker<B>
where
    B: VhostUserBackend + 'static,
    B::Vring: Send + Sync,
{
    /// Starts a thread that has `backend` handle what becomes available in `vring`.
    pub(crate) fn spawn(name: &str, backend: Arc<B>, vring: B::Vring) -> io::Result<Self> {
        let wake = EventFd::new(EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        let epoll = Epoll::new()?;
        epoll.ctl(ControlOperation::Add, wake.as_raw_fd(), edge())?;
        let exit = AtomicBool::new(false);
        let shared = Arc::new(Shared { backend, vrings: [vring], epoll, wake, exit });
        let thread = std::thread::Builder::new().name(thread_name(name)).spawn({
            let shared = Arc::clone(&shared);
            move || shared.run()
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }
}

impl<B: VhostUserBackend> Worker<B> {
    /// Watches the kick that the vring has now.
    pub(crate) fn watch(&self) -> io::Result<()> {
        self.kick(|epoll, kick| epoll.ctl(ControlOperation::Add, kick, edge()))
    }

    /// Watches the vring's kick no longer. To be called before it is replaced: QEMU holds another descriptor of the same
    /// event, so that closing ours would leave it watched.
    pub(crate) fn unwatch(&self) {
        // It may never have been watched.
        let _absent = self.kick(|epoll, kick| epoll.ctl(ControlOperation::Delete, kick, edge()));
    }

    fn kick(&self, change: impl FnOnce(&Epoll, RawFd) -> io::Result<()>) -> io::Result<()> {
        let [vring] = &self.shared.vrings;
        match vring.get_ref().get_kick() {
            Some(kick) => change(&self.shared.epoll, kick.as_raw_fd()),
            None => Ok(()),
        }
    }

    /// Has the queue looked at, whether it was kicked or not.
    pub(crate) fn wake(&self) {
        // The counter is full only when the worker has yet to hear of an earlier call.
        let _full = self.shared.wake.write(1);
    }
}

impl<B: VhostUserBackend> Drop for Worker<B> {
    fn drop(&mut self) {
        self.shared.exit.store(true, Ordering::Release);
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// Edge-triggered: every write to an eventfd reports it anew, so it is never read. A read could block, for the
/// descriptor that QEMU passes may be a blocking one, and may be replaced while its event is on the way.
fn edge() -> EpollEvent {
    EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, 0)
}

impl<B: VhostUserBackend> Shared<B> {
    fn run(&self) {
        let mut events = [EpollEvent::default(); 2];
        while !self.exit.load(Ordering::Acquire) {
            match self.epoll.wait(-1, &mut events) {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => {
                    log::error!("the queue cannot be waited for: {e}");
                    return;
                }
            }
            if self.exit.load(Ordering::Acquire) {
                return;
            }
            match catch_unwind(AssertUnwindSafe(|| {
                self.backend.handle_event(0, EventSet::IN, &self.vrings, 0)
            })) {
                Ok(Ok(())) => {}
                Ok(Err(e)) => log::error!("the queue's worker goes on with the next kick: {e}"),
                Err(_) => log::error!("the queue's worker panicked; it goes on with the next kick"),
            }
        }
    }
}
