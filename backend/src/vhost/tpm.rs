//! The device of one connection, as `vhost-user-backend` has devices: what virtio-tpm offers, its configuration space,
//! its queue, and its state on the way from or to QEMU.

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserProtocolFeatures, VhostUserVirtioFeatures,
};
use vhost_user_backend::{VhostUserBackend, VringT};
use vmm_sys_util::epoll::EventSet;

use super::config::{self, Doorbell};
use super::dirty::RegionLog;
use super::ring::{MAX_QUEUE_SIZE, Memory, RequestQueue, Vring, lock};
use super::transfer::{Direction, Transfer};
use crate::device::TpmDevice;

const VIRTIO_F_VERSION_1: u64 = 1 << 32;
const VIRTIO_F_INDIRECT_DESC: u64 = 1 << 28;
/// The driver says by index when it wants to be interrupted.
pub(crate) const VIRTIO_F_EVENT_IDX: u64 = 1 << 29;
/// QEMU asks for a dirty log.
pub(crate) const LOG_ALL: u64 = VhostUserVirtioFeatures::LOG_ALL.bits();
/// QEMU knows vhost-user's own features.
pub(crate) const PROTOCOL_FEATURES: u64 = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();

/// What outlives a connection.
#[derive(Debug, Default)]
pub(crate) struct Lasting {
    /// Dirty logging was on when QEMU last said.
    logging: AtomicBool,
    /// The machine ran when QEMU last said.
    running: AtomicBool,
}

/// A virtio-tpm device while one QEMU is connected to it.
pub(crate) struct VirtioTpm {
    name: String,
    device: Arc<dyn TpmDevice>,
    lasting: Arc<Lasting>,
    queue: RequestQueue,
    transfer: Mutex<Transfer>,
    transfer_timeout: Duration,
}

impl VirtioTpm {
    pub(crate) fn new(
        name: String,
        device: Arc<dyn TpmDevice>,
        lasting: Arc<Lasting>,
        transfer_timeout: Duration,
        memory: Memory,
    ) -> Result<Self, virtio_queue::Error> {
        Ok(Self {
            queue: RequestQueue::new(name.clone(), Arc::clone(&device), memory)?,
            name,
            device,
            lasting,
            transfer: Mutex::default(),
            transfer_timeout,
        })
    }

    pub(crate) fn queue(&self) -> &RequestQueue {
        &self.queue
    }

    /// Tells the device that its queue is about to be started.
    pub(crate) fn queue_starts(&self) -> io::Result<()> {
        self.tell("queue_started", |d| d.queue_started())
    }

    /// Calls the device so that its panic does not end the process. It ends the connection: QEMU then rings the doorbell
    /// again on the next one, and no machine runs on with a TPM that missed its reset.
    fn tell(&self, what: &str, call: impl FnOnce(&dyn TpmDevice)) -> io::Result<()> {
        catch_unwind(AssertUnwindSafe(|| call(&*self.device))).map_err(|_| {
            log::error!(instance:% = self.name; "{}: the device panicked in {what}", self.name);
            io::Error::other(format!("the device panicked in {what}"))
        })
    }
}

impl VhostUserBackend for VirtioTpm {
    type Bitmap = RegionLog;
    type Vring = Vring;

    fn num_queues(&self) -> usize {
        1
    }

    fn max_queue_size(&self) -> usize {
        MAX_QUEUE_SIZE.into()
    }

    /// What the device offers, and nothing else.
    fn features(&self) -> u64 {
        VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | LOG_ALL | PROTOCOL_FEATURES
    }

    fn acked_features(&self, features: u64) {
        let logging = features & LOG_ALL != 0;
        if self.lasting.logging.load(Ordering::Acquire) != logging {
            // No error can be returned here: a panic ends the connection, and the next one tells it again.
            self.device.migration_started(logging);
            self.lasting.logging.store(logging, Ordering::Release);
        }
    }

    /// The vhost-user features. `STATUS` is not among them, for QEMU would then ask what the `vhost` crate refuses; nor
    /// is `RESET_DEVICE`, which fires at every reset by the guest, and a guest must not reset its own PCRs.
    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::LOG_SHMFD
            | VhostUserProtocolFeatures::DEVICE_STATE
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
    }

    fn set_event_idx(&self, enabled: bool) {
        self.queue.vring().set_queue_event_idx(enabled);
    }

    /// Empty when the range is not in the configuration space, which QEMU takes for an error.
    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let running = self.lasting.running.load(Ordering::Acquire);
        config::read(running, offset, size).unwrap_or_default()
    }

    fn set_config(&self, offset: u32, buf: &[u8]) -> io::Result<()> {
        match config::doorbell(offset, buf) {
            Doorbell::MachineReset => self.tell("machine_reset", |d| d.machine_reset())?,
            Doorbell::RunState(running) => {
                self.lasting.running.store(running, Ordering::Release);
                self.tell("run_state", |d| d.run_state(running))?;
            }
            Doorbell::Nothing => {
                log::warn!(instance:% = self.name; "{}: {} bytes written at {offset} of the configuration space mean nothing",
                self.name,
                buf.len())
            }
        }
        Ok(())
    }

    /// The queue has the same memory object, so it sees the new table already.
    fn update_memory(&self, _memory: Memory) -> io::Result<()> {
        Ok(())
    }

    /// Waits for the command in flight and executes what is still available, so that nothing is in flight on a
    /// migration.
    fn stop_vring(&self, _index: u32) -> io::Result<()> {
        let base = self.queue.stop();
        log::debug!(instance:% = self.name; "{}: stopped at {base}", self.name);
        Ok(())
    }

    fn handle_event(&self, _: u16, _: EventSet, _vrings: &[Vring], _: usize) -> io::Result<()> {
        self.queue.serve();
        Ok(())
    }

    fn set_device_state_fd(
        &self,
        direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        file: File,
    ) -> io::Result<Option<File>> {
        let direction = match direction {
            VhostTransferStateDirection::SAVE => Direction::Save,
            VhostTransferStateDirection::LOAD => Direction::Load,
        };
        lock(&self.transfer)
            .start(&self.device, direction, file, self.transfer_timeout)
            .inspect_err(|e| log::error!(instance:% = self.name; "{}: {direction:?}: {e}", self.name))
            .map_err(io::Error::other)?;
        Ok(None)
    }

    fn check_device_state(&self) -> io::Result<()> {
        lock(&self.transfer)
            .check()
            .inspect_err(|e| {
                let cause = std::error::Error::source(e).map_or(String::new(), |s| format!(": {s}"));
                log::error!(instance:% = self.name; "{}: {e}{cause}", self.name);
            })
            .map_err(io::Error::other)
    }
}
