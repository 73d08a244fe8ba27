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
//!
//! # Whose is what
//!
//! Indices, addresses, kick and call live in the [`VringMutex`] of `vhost-user-backend`, as does the access to the
//! rings. It knows neither that a ring is broken nor how to tell QEMU, so that stands here.

use std::fs::File;
use std::io::Write;
use std::num::Wrapping;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vhost_user_backend::{VringMutex, VringState, VringT};
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic};
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

/// The memory of one connection's guest; its clones see the same table.
pub(crate) type Memory = GuestMemoryAtomic<GuestMap>;
/// The queue's place in memory and its descriptors, as QEMU set them.
pub(crate) type Vring = VringMutex<Memory>;

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
    memory: Memory,
    vring: Vring,
    /// Started, but nothing was taken yet: the used index is still to be read. Used under the lock of the vring alone, as
    /// is `broken`.
    fresh: AtomicBool,
    broken: AtomicBool,
    /// Where QEMU hears of a broken ring. A vring of the crate takes this descriptor but does not give it back.
    error: Mutex<Option<File>>,
    /// Held while chains are taken and executed. Whoever stops the ring waits for it.
    serving: Mutex<()>,
    /// The worker is to stop after the command at hand.
    pause: AtomicBool,
    /// How often this guest gave cause for complaint.
    complaints: AtomicU32,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RequestQueue {
    pub(crate) fn new(
        name: String,
        device: Arc<dyn TpmDevice>,
        memory: Memory,
    ) -> Result<Self, virtio_queue::Error> {
        Ok(Self {
            name,
            device,
            vring: Vring::new(memory.clone(), MAX_QUEUE_SIZE)?,
            memory,
            fresh: AtomicBool::new(true),
            broken: AtomicBool::new(false),
            error: Mutex::new(None),
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
        let rounds = self.vring.get_ref().get_queue().size();
        for _ in 0..rounds {
            if !self.step(true) {
                break;
            }
        }
        let was_started = self.vring.get_ref().get_queue().ready();
        self.vring.set_queue_ready(false);
        self.vring.set_kick(None);
        self.vring.set_call(None);
        let base = self.vring.queue_next_avail();
        if was_started {
            self.guard("queue_stopped", || self.device.queue_stopped());
        }
        base
    }

    /// Takes one chain, executes it, returns it. `false` when there was none.
    fn step(&self, draining: bool) -> bool {
        let taken = {
            let mut vring = self.vring.get_mut();
            if self.broken.load(Ordering::Relaxed)
                || !vring.get_queue().ready()
                || !(vring.is_enabled() || draining)
            {
                return false;
            }
            match self.take(&mut vring) {
                Ok(Some(taken)) => taken,
                Ok(None) => return false,
                Err(error) => {
                    self.break_ring(&error);
                    return false;
                }
            }
        };

        let response = self.answer(&taken);

        // The memory table may have changed meanwhile.
        let memory = self.memory.memory();
        let length = taken.request.room.write(&*memory, &response);
        if length == 0 {
            log::warn!(instance:% = self.name; "{}: slot {}: no response could be given to the guest", self.name, taken.slot);
        }
        let mut vring = self.vring.get_mut();
        match vring.add_used(taken.head, length).and_then(|()| vring.needs_notification()) {
            Ok(true) => interrupt(&vring),
            Ok(false) => {}
            Err(error) => {
                self.break_ring(&error.into());
                return false;
            }
        }
        drop(vring);
        self.guard("completed", || self.device.completed(taken.slot));
        true
    }

    /// The next chain, if there is one; else the driver is asked for a notification.
    fn take(&self, vring: &mut VringState<Memory>) -> Result<Option<Taken>, RingError> {
        let memory = self.memory.memory();
        if !vring.get_queue().is_valid(&*memory) {
            return Err(RingError::Unreachable);
        }
        if self.fresh.load(Ordering::Relaxed) {
            self.resume(vring.get_queue_mut(), &memory)?;
            self.fresh.store(false, Ordering::Relaxed);
        }
        loop {
            let slot = vring.get_queue().next_avail();
            if let Some(chain) = vring.get_queue_mut().iter(&*memory)?.next() {
                let head = chain.head_index();
                if head >= vring.get_queue().size() {
                    return Err(virtio_queue::Error::InvalidDescriptorIndex.into());
                }
                return Ok(Some(Taken { slot, head, request: chain::read(chain) }));
            }
            if !vring.enable_notification()? {
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
            log::info!(instance:% = self.name; "{}: {done} commands from slot {base} on were answered before", self.name);
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
                    log::error!(instance:% = self.name; "{}: the device gave a response of {} bytes", self.name, response.len());
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
            log::warn!(instance:% = self.name; "{}: complaint {count} about the guest: {what}", self.name);
        }
    }

    /// Calls the device so that its panic is this instance's alone.
    fn guard<T>(&self, what: &str, call: impl FnOnce() -> T) -> Option<T> {
        let result = catch_unwind(AssertUnwindSafe(call)).ok();
        if result.is_none() {
            log::error!(instance:% = self.name; "{}: the device panicked in {what}", self.name);
        }
        result
    }

    /// Called with the vring locked.
    fn break_ring(&self, error: &RingError) {
        self.broken.store(true, Ordering::Relaxed);
        let cause = std::error::Error::source(error).map_or(String::new(), |e| format!(": {e}"));
        log::error!(instance:% = self.name; "{}: {error}{cause}; the queue stands still until the guest sets it up anew", self.name);
        if let Some(mut error) = lock(&self.error).as_ref() {
            // Only a full counter could refuse, and then QEMU has been told.
            let _full = error.write_all(&1u64.to_ne_bytes());
        }
    }

    /// The vring, for what needs no more than it: its kick, enabling it, event indices.
    pub(crate) fn vring(&self) -> &Vring {
        &self.vring
    }

    /// The queue is started: QEMU gave a kick descriptor, or none if it means to be polled.
    pub(crate) fn start(&self, kick: Option<File>) {
        self.vring.set_kick(kick);
        let mut vring = self.vring.get_mut();
        if !vring.get_queue().ready() {
            self.fresh.store(true, Ordering::Relaxed);
            self.broken.store(false, Ordering::Relaxed);
            vring.get_queue_mut().set_ready(true);
        }
    }

    /// Sets where the driver is interrupted, and does so once: the interrupt for what an earlier back end returned may
    /// have died with it.
    pub(crate) fn set_call(&self, call: Option<File>) {
        self.vring.set_call(call);
        interrupt(&self.vring.get_ref());
    }

    /// Sets where QEMU hears of a broken ring.
    pub(crate) fn set_error(&self, error: Option<File>) {
        *lock(&self.error) = error;
    }

    /// Sets the number of descriptors.
    ///
    /// # Errors
    /// It is no power of two, or more than [`MAX_QUEUE_SIZE`]. The setter of the vring would only log that.
    pub(crate) fn set_size(&self, size: u16) -> Result<(), virtio_queue::Error> {
        self.vring.get_mut().get_queue_mut().try_set_size(size)
    }

    pub(crate) fn set_base(&self, base: u16) {
        let mut vring = self.vring.get_mut();
        vring.get_queue_mut().set_next_avail(base);
        self.fresh.store(true, Ordering::Relaxed);
    }
}

/// Interrupts the driver. Only a full counter could refuse, and then the driver has been told.
fn interrupt(vring: &VringState<Memory>) {
    let _full = vring.signal_used_queue();
}

#[cfg(test)]
mod tests;
