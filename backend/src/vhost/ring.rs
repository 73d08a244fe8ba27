//! The request queue: takes chains in their order, one at a time, and returns each of them.
//!
//! # Slots
//!
//! The position of a chain in the avail ring, the free-running index, is its *slot*. Chains are executed one after the
//! other and returned in the same order, so the used index always equals the slot of the first command that the guest
//! has no response to. QEMU relies on the same fact: when a back end vanishes without answering `GET_VRING_BASE`, the
//! base that it gives the next one is the used index, read from guest memory. A command that was executed when the back
//! end died is therefore offered again **with the slot it had**, and [`TpmDevice::execute`] answers it from memory.
//!
//! One case is left. When only the connection breaks, QEMU may read the used index while the old worker still finishes
//! a command; the base is then behind the used index. So a starting ring believes the used index, not the base, where the
//! base is behind. After `GET_VRING_BASE` in good order nothing is in flight, the base is the used index on both
//! sides of a migration, and slots mean nothing any more: [`TpmDevice::queue_stopped`].
//!
//! # Broken rings
//!
//! An avail index further ahead than the queue is long, a ring that is not in memory, or a head that is no descriptor
//! cannot be answered by a used descriptor. The ring is then broken: it is logged once, QEMU is told through the vring's
//! error descriptor, and nothing more is taken from it until the driver sets it up anew. The device stays connected.

use std::fs::File;
use std::io::Write;
use std::num::Wrapping;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{GuestAddress, GuestAddressSpace, GuestMemoryAtomic};
use vtpm_protocol::rc::ResponseCode;

use super::chain::{self, Garbage, Request};
use super::dirty::GuestMap;
use crate::device::{MAX_RESPONSE_SIZE, TpmDevice};

/// How many complaints about a guest are all logged; of those after them, every one that is a power of two.
const COMPLAINTS: u32 = 16;

/// The longest queue that a front end may set up.
pub(crate) const MAX_QUEUE_SIZE: u16 = 1024;

/// Why a ring is broken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RingError {
    #[error("the rings are not in guest memory")]
    Unreachable,
    #[error("the driver broke the ring")]
    Queue(#[from] virtio_queue::Error),
}

/// The queue's place in memory and its descriptors, as QEMU set them.
struct Ring {
    queue: Queue,
    kick: Option<Arc<File>>,
    call: Option<File>,
    error: Option<File>,
    enabled: bool,
    /// Started, but nothing was taken yet: the used index is still to be read.
    fresh: bool,
    broken: bool,
}

/// A chain on its way: taken from the avail ring, not yet in the used ring.
struct Taken {
    slot: u16,
    head: u16,
    request: Request,
}

/// The request queue of one connection. Shared by its worker and the thread that answers QEMU.
pub(crate) struct RequestQueue {
    name: String,
    device: Arc<dyn TpmDevice>,
    memory: GuestMemoryAtomic<GuestMap>,
    ring: Mutex<Ring>,
    /// Held while chains are taken and executed. Whoever stops the ring waits for it.
    serving: Mutex<()>,
    /// The worker is to stop after the command at hand.
    pause: AtomicBool,
    /// How often this guest gave cause for complaint.
    complaints: AtomicU32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RequestQueue {
    pub(crate) fn new(
        name: String,
        device: Arc<dyn TpmDevice>,
        memory: GuestMemoryAtomic<GuestMap>,
    ) -> Result<Self, virtio_queue::Error> {
        Ok(Self {
            name,
            device,
            memory,
            ring: Mutex::new(Ring {
                queue: Queue::new(MAX_QUEUE_SIZE)?,
                kick: None,
                call: None,
                error: None,
                enabled: false,
                fresh: true,
                broken: false,
            }),
            serving: Mutex::new(()),
            pause: AtomicBool::new(false),
            complaints: AtomicU32::new(0),
        })
    }

    /// Executes everything that the driver made available. What cannot be executed is returned to the driver, or
    /// breaks the ring; nothing comes back as an error.
    pub(crate) fn serve(&self) {
        let _serving = lock(&self.serving);
        loop {
            if self.pause.load(Ordering::Acquire) || !self.step(false) {
                return;
            }
        }
    }

    /// Stops the queue: waits for the command in flight, executes what is still available, and returns the avail index at
    /// which another back end goes on.
    pub(crate) fn stop(&self) -> u16 {
        self.pause.store(true, Ordering::Release);
        let _serving = lock(&self.serving);
        self.pause.store(false, Ordering::Release);
        // A guest that still runs could go on for ever; one round of the ring is what it may have left.
        let rounds = lock(&self.ring).queue.size();
        for _ in 0..rounds {
            if !self.step(true) {
                break;
            }
        }
        let mut ring = lock(&self.ring);
        let was_started = ring.queue.ready();
        ring.queue.set_ready(false);
        ring.kick = None;
        ring.call = None;
        let base = ring.queue.next_avail();
        drop(ring);
        if was_started {
            self.guard("queue_stopped", || self.device.queue_stopped());
        }
        base
    }

    /// Takes one chain, executes it, returns it. `false` when there was none.
    fn step(&self, draining: bool) -> bool {
        let taken = {
            let mut ring = lock(&self.ring);
            if ring.broken || !ring.queue.ready() || !(ring.enabled || draining) {
                return false;
            }
            match self.take(&mut ring) {
                Ok(Some(taken)) => taken,
                Ok(None) => return false,
                Err(error) => {
                    self.break_ring(&mut ring, &error);
                    return false;
                }
            }
        };

        let response = self.answer(&taken);

        // The memory table may have changed meanwhile.
        let memory = self.memory.memory();
        let length = taken.request.room.write(&*memory, &response);
        if length == 0 {
            log::warn!("{}: slot {}: no response could be given to the guest", self.name, taken.slot);
        }
        let mut ring = lock(&self.ring);
        let returned = ring
            .queue
            .add_used(&*memory, taken.head, length)
            .and_then(|()| ring.queue.needs_notification(&*memory));
        match returned {
            Ok(true) => signal(ring.call.as_ref()),
            Ok(false) => {}
            Err(error) => {
                self.break_ring(&mut ring, &error.into());
                return false;
            }
        }
        drop(ring);
        self.guard("completed", || self.device.completed(taken.slot));
        true
    }

    /// The next chain, if there is one; else the driver is asked for a notification.
    fn take(&self, ring: &mut Ring) -> Result<Option<Taken>, RingError> {
        let memory = self.memory.memory();
        if !ring.queue.is_valid(&*memory) {
            return Err(RingError::Unreachable);
        }
        if ring.fresh {
            self.resume(&mut ring.queue, &memory)?;
            ring.fresh = false;
        }
        loop {
            let slot = ring.queue.next_avail();
            if let Some(chain) = ring.queue.iter(&*memory)?.next() {
                let head = chain.head_index();
                if head >= ring.queue.size() {
                    return Err(virtio_queue::Error::InvalidDescriptorIndex.into());
                }
                return Ok(Some(Taken { slot, head, request: chain::read(chain) }));
            }
            if !ring.queue.enable_notification(&*memory)? {
                return Ok(None);
            }
        }
    }

    /// Starts where the used ring says that everything before is done.
    fn resume(&self, queue: &mut Queue, memory: &GuestMap) -> Result<(), RingError> {
        let used = queue.used_idx(memory, Ordering::Acquire)?;
        queue.set_next_used(used.0);
        let base = Wrapping(queue.next_avail());
        let done = (used - base).0;
        if (1..=queue.size()).contains(&done) {
            log::info!("{}: {done} commands from slot {base} on were answered before", self.name);
            queue.set_next_avail(used.0);
        }
        Ok(())
    }

    /// The response to a chain; one is always there, however bad the chain is.
    fn answer(&self, taken: &Taken) -> Vec<u8> {
        let command = match &taken.request.command {
            Ok(command) => command,
            Err(garbage) => {
                self.complain(format_args!("slot {}: {garbage}", taken.slot));
                return match garbage {
                    Garbage::NoRoom(_) | Garbage::RoomOutsideMemory => Vec::new(),
                    _ => chain::error_response(ResponseCode::COMMAND_SIZE),
                };
            }
        };
        let response = self
            .guard("execute", || self.device.execute(0, command, Some(taken.slot)))
            .filter(|response| {
                let fits = (chain::HEADER_SIZE..=MAX_RESPONSE_SIZE).contains(&response.len());
                if !fits {
                    log::error!("{}: the device gave a response of {} bytes", self.name, response.len());
                }
                fits
            })
            .unwrap_or_else(|| chain::error_response(ResponseCode::FAILURE));
        if u64::try_from(response.len()).is_ok_and(|len| len <= taken.request.room.size()) {
            return response;
        }
        self.complain(format_args!(
            "slot {}: a response of {} bytes does not fit the {} that the guest offers; \
             the command was executed",
            taken.slot,
            response.len(),
            taken.request.room.size()
        ));
        chain::error_response(ResponseCode::NO_RESULT)
    }

    /// Logs what a guest did wrong, but does not let it fill the log.
    fn complain(&self, what: std::fmt::Arguments<'_>) {
        let count = self.complaints.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        if count <= COMPLAINTS || count.is_power_of_two() {
            log::warn!("{}: complaint {count} about the guest: {what}", self.name);
        }
    }

    /// Calls the device so that its panic is this instance's alone.
    fn guard<T>(&self, what: &str, call: impl FnOnce() -> T) -> Option<T> {
        let result = catch_unwind(AssertUnwindSafe(call)).ok();
        if result.is_none() {
            log::error!("{}: the device panicked in {what}", self.name);
        }
        result
    }

    fn break_ring(&self, ring: &mut Ring, error: &RingError) {
        ring.broken = true;
        let cause = std::error::Error::source(error).map_or(String::new(), |e| format!(": {e}"));
        log::error!("{}: {error}{cause}; the queue stands still until the guest sets it up anew", self.name);
        signal(ring.error.as_ref());
    }

    /// The queue is started: QEMU gave a kick descriptor. Returns the one it replaces.
    pub(crate) fn start(&self, kick: Option<Arc<File>>) -> Option<Arc<File>> {
        let mut ring = lock(&self.ring);
        if !ring.queue.ready() {
            ring.fresh = true;
            ring.broken = false;
            ring.queue.set_ready(true);
        }
        std::mem::replace(&mut ring.kick, kick)
    }

    /// The kick descriptor of a ring that is started.
    pub(crate) fn kick(&self) -> Option<Arc<File>> {
        lock(&self.ring).kick.clone()
    }

    /// Sets where the driver is interrupted, and does so once: the interrupt for what an earlier back end returned may
    /// have died with it.
    pub(crate) fn set_call(&self, call: Option<File>) {
        let mut ring = lock(&self.ring);
        signal(call.as_ref());
        ring.call = call;
    }

    /// Sets where QEMU hears of a broken ring.
    pub(crate) fn set_error(&self, error: Option<File>) {
        lock(&self.ring).error = error;
    }

    pub(crate) fn set_enabled(&self, enabled: bool) {
        lock(&self.ring).enabled = enabled;
    }

    pub(crate) fn set_event_idx(&self, enabled: bool) {
        lock(&self.ring).queue.set_event_idx(enabled);
    }

    pub(crate) fn set_size(&self, size: u16) -> Result<(), virtio_queue::Error> {
        lock(&self.ring).queue.try_set_size(size)
    }

    pub(crate) fn set_base(&self, base: u16) {
        let mut ring = lock(&self.ring);
        ring.queue.set_next_avail(base);
        ring.fresh = true;
    }

    pub(crate) fn set_addresses(
        &self,
        descriptors: u64,
        avail: u64,
        used: u64,
    ) -> Result<(), virtio_queue::Error> {
        let queue = &mut lock(&self.ring).queue;
        queue.try_set_desc_table_address(GuestAddress(descriptors))?;
        queue.try_set_avail_ring_address(GuestAddress(avail))?;
        queue.try_set_used_ring_address(GuestAddress(used))
    }
}

/// Adds one to an eventfd. Only a full counter could refuse, and then the other side has been told.
fn signal(event: Option<&File>) {
    if let Some(mut event) = event {
        let _full = event.write_all(&1u64.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests;
