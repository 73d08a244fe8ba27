//! One thread that watches the listening sockets of all doors, and the threads of the doors, which exist only while somebody is inside.
//!
//! A listener is watched for one event: whoever knocks has a thread of the door started, which waits for all of the door from then on, its
//! listeners included, and leaves when nobody is inside. Then the listeners are watched again. So an instance without a client
//! costs descriptors and some bytes, and neither a thread nor time.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use nix::sys::eventfd::{EfdFlags, EventFd};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use crate::socket::{EXHAUSTED, Listener, thread_name};

/// A door that clients knock at.
pub(crate) trait Host: Send + Sync + 'static {
    /// What is inside from the start: connections that were handed in.
    type Guests: Send + Default + 'static;

    /// What the log and the thread are called.
    fn name(&self) -> &str;

    /// Where clients come from.
    fn listeners(&self) -> impl Iterator<Item = &Listener>;

    /// Serves `guests` and whoever comes, until nobody is inside or the door closes. Looks about when `bell` rings.
    fn serve(self: &Arc<Self>, bell: &Bell, guests: Self::Guests);
}

/// Has a thread look about that waits in `poll`.
pub(crate) struct Bell(EventFd);

impl Bell {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?))
    }

    pub(crate) fn ring(&self) {
        // A counter that is full has woken the thread already.
        let _full = self.0.write(1);
    }

    /// It was heard. What it counts is of no interest.
    pub(crate) fn hear(&self) {
        let _empty = self.0.read();
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What is known of a door's thread, by the door, the thread and the acceptor.
#[derive(Default)]
pub(crate) struct Reception {
    acceptor: OnceLock<Arc<Acceptor>>,
    exit: AtomicBool,
    phase: Mutex<Phase>,
    changed: Condvar,
}

#[derive(Default)]
struct Phase {
    /// The thread's, while there is one.
    serving: Option<Arc<Bell>>,
    /// The listeners, each with its number at the acceptor. Their descriptors are open until the door closes.
    watched: Vec<(u64, RawFd)>,
    /// The door closes, or nobody can come any more.
    closed: bool,
}

impl Reception {
    /// Has `host` serve `guests`, if there are any, and then whoever knocks at its listeners.
    ///
    /// # Errors
    /// The system's, when there are no threads or descriptors to be had.
    pub(crate) fn open<H: Host>(
        self: &Arc<Self>,
        host: &Arc<H>,
        guests: Option<H::Guests>,
    ) -> io::Result<()> {
        let opened = self.try_open(host, guests);
        if opened.is_err() {
            self.close();
        }
        opened
    }

    fn try_open<H: Host>(self: &Arc<Self>, host: &Arc<H>, guests: Option<H::Guests>) -> io::Result<()> {
        let desk = Arc::new(Desk { host: Arc::downgrade(host), reception: self.clone() });
        for listener in host.listeners() {
            let fd = listener.as_fd().as_raw_fd();
            let acceptor = match self.acceptor.get() {
                Some(acceptor) => acceptor,
                None => {
                    let shared = Acceptor::shared()?;
                    self.acceptor.get_or_init(|| shared)
                }
            };
            // With guests inside, their thread has the listeners watched when it ends. With the lock held: a client that knocks at once, and
            // has left before the listener is among those that are watched again, would have been the last one.
            let mut phase = self.lock();
            let number = acceptor.watch(fd, desk.clone(), guests.is_none())?;
            phase.watched.push((number, fd));
        }
        guests.map_or(Ok(()), |guests| desk.begin(guests))
    }

    fn lock(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the thread is to leave, whoever is inside.
    pub(crate) fn is_closing(&self) -> bool {
        self.exit.load(Ordering::Acquire)
    }

    /// Has the thread look about, if there is one.
    pub(crate) fn ring(&self) {
        if let Some(bell) = &self.lock().serving {
            bell.ring();
        }
    }

    /// Nobody comes in any more, and the thread is told to leave; see [`Self::wait`].
    pub(crate) fn close(&self) {
        self.exit.store(true, Ordering::Release);
        let mut phase = self.lock();
        phase.closed = true;
        for (number, fd) in phase.watched.drain(..) {
            if let Some(acceptor) = self.acceptor.get() {
                acceptor.unwatch(number, fd);
            }
        }
        if let Some(bell) = &phase.serving {
            bell.ring();
        }
        self.changed.notify_all();
    }

    /// Until the door is closed and its thread is through.
    pub(crate) fn wait(&self) {
        let open = |phase: &mut Phase| phase.serving.is_some() || !phase.closed;
        let _closed = self.changed.wait_while(self.lock(), open).unwrap_or_else(PoisonError::into_inner);
    }

    /// The thread is through.
    fn leave(&self) {
        let mut phase = self.lock();
        phase.serving = None;
        phase.closed |= phase.watched.is_empty();
        self.watch_again(&phase);
        self.changed.notify_all();
    }

    /// With the lock held, under which alone descriptors leave `watched`: none of them is closed and another socket's by now.
    fn watch_again(&self, phase: &Phase) {
        for &(number, fd) in &phase.watched {
            if let Some(acceptor) = self.acceptor.get() {
                acceptor.watch_again(number, fd);
            }
        }
    }
}

/// Where the acceptor tells of a knock.
trait Knock: Send + Sync {
    fn knock(&self);
}

struct Desk<H: Host> {
    host: Weak<H>,
    reception: Arc<Reception>,
}

impl<H: Host> Desk<H> {
    /// Starts the thread, unless there is one: it sees the knock as well.
    fn begin(&self, guests: H::Guests) -> io::Result<()> {
        let Some(host) = self.host.upgrade() else { return Ok(()) };
        let mut phase = self.reception.lock();
        if phase.serving.is_some() || self.reception.is_closing() {
            return Ok(());
        }
        let bell = Arc::new(Bell::new()?);
        let name = thread_name(host.name());
        let reception = self.reception.clone();
        phase.serving = Some(bell.clone());
        let spawned = std::thread::Builder::new().name(name).spawn(move || {
            // Last of all, also when the door's work panics, and when what the thread had of the door is gone.
            let _leaving = Leaving(reception);
            let host = host;
            host.serve(&bell, guests);
        });
        spawned.map(drop).inspect_err(|_| phase.serving = None)
    }
}

impl<H: Host> Knock for Desk<H> {
    fn knock(&self) {
        if let Err(error) = self.begin(H::Guests::default()) {
            if let Some(host) = self.host.upgrade() {
                log::error!(instance:% = host.name(); "{}: nobody can be let in: {error}", host.name());
            }
            // No other door has threads or descriptors either.
            std::thread::sleep(EXHAUSTED);
            let phase = self.reception.lock();
            self.reception.watch_again(&phase);
        }
    }
}

struct Leaving(Arc<Reception>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// The acceptor of this process, as long as a door has a listener.
pub(crate) struct Acceptor(Arc<Watch>);

/// What the acceptor and its thread share.
struct Watch {
    epoll: Epoll,
    bell: Bell,
    exit: AtomicBool,
    next: AtomicU64,
    doors: Mutex<HashMap<u64, Arc<dyn Knock>>>,
}

/// The number of the acceptor's own bell.
const BELL: u64 = 0;

static SHARED: Mutex<Weak<Acceptor>> = Mutex::new(Weak::new());

fn once(number: u64) -> EpollEvent {
    EpollEvent::new(EventSet::IN | EventSet::ONE_SHOT, number)
}

fn never(number: u64) -> EpollEvent {
    EpollEvent::new(EventSet::ONE_SHOT, number)
}

impl Acceptor {
    fn shared() -> io::Result<Arc<Self>> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(acceptor) = shared.upgrade() {
            return Ok(acceptor);
        }
        let watch = Arc::new(Watch {
            epoll: Epoll::new()?,
            bell: Bell::new()?,
            exit: AtomicBool::new(false),
            next: AtomicU64::new(BELL.saturating_add(1)),
            doors: Mutex::default(),
        });
        let bell = EpollEvent::new(EventSet::IN, BELL);
        watch.epoll.ctl(ControlOperation::Add, watch.bell.as_fd().as_raw_fd(), bell)?;
        let thread = std::thread::Builder::new().name("acceptor".into());
        thread.spawn({
            let watch = watch.clone();
            move || watch.run()
        })?;
        let acceptor = Arc::new(Self(watch));
        *shared = Arc::downgrade(&acceptor);
        Ok(acceptor)
    }

    fn watch(&self, fd: RawFd, door: Arc<dyn Knock>, at_once: bool) -> io::Result<u64> {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        self.0.doors().insert(number, door);
        let event = if at_once { once(number) } else { never(number) };
        self.0.epoll.ctl(ControlOperation::Add, fd, event).inspect_err(|_| {
            self.0.doors().remove(&number);
        })?;
        Ok(number)
    }

    fn watch_again(&self, number: u64, fd: RawFd) {
        if let Err(error) = self.0.epoll.ctl(ControlOperation::Modify, fd, once(number)) {
            log::error!("a listening socket cannot be waited for any more: {error}");
        }
    }

    fn unwatch(&self, number: u64, fd: RawFd) {
        self.0.doors().remove(&number);
        // A listener that could not be watched is not there.
        let _absent = self.0.epoll.ctl(ControlOperation::Delete, fd, EpollEvent::default());
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        // Not waited for: this may be that thread.
        self.0.exit.store(true, Ordering::Release);
        self.0.bell.ring();
    }
}

impl Watch {
    fn doors(&self) -> MutexGuard<'_, HashMap<u64, Arc<dyn Knock>>> {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut events = [EpollEvent::default(); 64];
        while !self.exit.load(Ordering::Acquire) {
            let found = match self.epoll.wait(-1, &mut events) {
                Ok(found) => found,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => {
                    log::error!("the listening sockets cannot be waited for: {e}");
                    std::thread::sleep(EXHAUSTED);
                    continue;
                }
            };
            for event in events.iter().take(found) {
                // Outside the lock, for a knock may take time.
                let door = self.doors().get(&event.data()).cloned();
                if let Some(door) = door {
                    door.knock();
                }
            }
        }
    }
}
