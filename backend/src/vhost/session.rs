//! One connection: QEMU's vhost-user messages, answered.
//!
//! The `vhost` crate reads and checks the messages; this is its request handler. `vhost-user-backend`, which would sit
//! between the two, takes its connections only from a listening socket of its own, has no way to say that one ended other
//! than blocking a thread on it, and lets a memory table that changes during a migration drop the dirty log.

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig, VhostUserSharedMsg,
    VhostUserSingleMemoryRegion, VhostUserVirtioFeatures, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{Error, GpuBackend, Result, VhostUserBackendReqHandlerMut};
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{FileOffset, GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestRegionMmap};

use super::config::{self, Doorbell};
use super::dirty::{self, DirtyLog, GuestMap, RegionLog};
use super::ring::{MAX_QUEUE_SIZE, RequestQueue};
use super::transfer::{Direction, Transfer};
use super::worker::Worker;
use crate::device::TpmDevice;

const VIRTIO_F_VERSION_1: u64 = 1 << 32;
const VIRTIO_F_INDIRECT_DESC: u64 = 1 << 28;
const VIRTIO_F_EVENT_IDX: u64 = 1 << 29;
const LOG_ALL: u64 = VhostUserVirtioFeatures::LOG_ALL.bits();
const PROTOCOL_FEATURES: u64 = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();

/// What the device offers, and nothing else.
pub(crate) const FEATURES: u64 =
    VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | LOG_ALL | PROTOCOL_FEATURES;

/// The vhost-user features. `STATUS` is not among them, for QEMU would then ask what the `vhost` crate refuses; nor is
/// `RESET_DEVICE`, which fires at every reset by the guest, and a guest must not reset its own PCRs.
pub(crate) fn protocol_features() -> VhostUserProtocolFeatures {
    VhostUserProtocolFeatures::CONFIG
        | VhostUserProtocolFeatures::REPLY_ACK
        | VhostUserProtocolFeatures::LOG_SHMFD
        | VhostUserProtocolFeatures::DEVICE_STATE
        | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
}

/// As many as Linux's vhost has.
const MEMORY_SLOTS: u64 = 509;

/// What outlives a connection.
#[derive(Debug, Default)]
pub(crate) struct Lasting {
    /// Dirty logging was on when QEMU last said.
    logging: AtomicBool,
    /// The machine ran when QEMU last said.
    running: AtomicBool,
}

/// Where QEMU has a region of guest memory, and where the guest has it.
#[derive(Clone, Copy, Debug)]
struct Mapping {
    user: u64,
    guest: u64,
    size: u64,
}

/// One connection's state.
pub(crate) struct Session {
    name: String,
    device: Arc<dyn TpmDevice>,
    lasting: Arc<Lasting>,
    transfer_timeout: Duration,
    memory: GuestMemoryAtomic<GuestMap>,
    mappings: Vec<Mapping>,
    dirty: DirtyLog,
    transfer: Transfer,
    queue: Arc<RequestQueue>,
    worker: Worker,
}

impl Session {
    pub(crate) fn new(
        name: String,
        device: Arc<dyn TpmDevice>,
        lasting: Arc<Lasting>,
        transfer_timeout: Duration,
    ) -> io::Result<Self> {
        let memory = GuestMemoryAtomic::new(GuestMap::new());
        let queue =
            RequestQueue::new(name.clone(), Arc::clone(&device), memory.clone()).map_err(io::Error::other)?;
        let queue = Arc::new(queue);
        Ok(Self {
            worker: Worker::spawn(&name, Arc::clone(&queue))?,
            name,
            device,
            lasting,
            transfer_timeout,
            memory,
            mappings: Vec::new(),
            dirty: DirtyLog::default(),
            transfer: Transfer::default(),
            queue,
        })
    }

    fn replace_memory(&self, map: GuestMap) {
        self.memory.lock().unwrap_or_else(std::sync::PoisonError::into_inner).replace(map);
    }

    fn map(&self, region: &VhostUserMemoryRegion, file: File) -> Result<GuestRegionMmap<RegionLog>> {
        let (guest, size, offset) = (region.guest_phys_addr, region.memory_size, region.mmap_offset);
        let size = usize::try_from(size).map_err(|_| Error::InvalidParam)?;
        dirty::reaches(&file, offset, size).map_err(Error::ReqHandlerError)?;
        let mapping = MmapRegionBuilder::new_with_bitmap(size, self.dirty.region(guest))
            .with_file_offset(FileOffset::new(file, offset))
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_SHARED | libc::MAP_NORESERVE)
            .build()
            .map_err(failed)?;
        GuestRegionMmap::new(mapping, GuestAddress(guest)).ok_or(Error::InvalidParam)
    }

    /// The guest-physical address of one of QEMU's.
    fn guest_address(&self, user: u64) -> Result<u64> {
        self.mappings
            .iter()
            .find_map(|m| {
                let offset = user.checked_sub(m.user).filter(|o| *o < m.size)?;
                m.guest.checked_add(offset)
            })
            .ok_or(Error::InvalidParam)
    }

    /// Calls the device so that its panic does not end the process. It ends the connection: QEMU then rings the doorbell
    /// again on the next one, and no machine runs on with a TPM that missed its reset.
    fn tell(&self, what: &str, call: impl FnOnce(&dyn TpmDevice)) -> Result<()> {
        catch_unwind(AssertUnwindSafe(|| call(&*self.device))).map_err(|_| {
            log::error!("{}: the device panicked in {what}", self.name);
            Error::BackendInternalError
        })
    }
}

impl Mapping {
    fn of(region: &VhostUserMemoryRegion) -> Self {
        Self { user: region.user_addr, guest: region.guest_phys_addr, size: region.memory_size }
    }
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::ReqHandlerError(io::Error::other(error))
}

/// There is one queue.
fn only(index: u32) -> Result<()> {
    if index == 0 { Ok(()) } else { Err(Error::InvalidParam) }
}

const UNSUPPORTED: Error = Error::InvalidOperation("not offered");

impl VhostUserBackendReqHandlerMut for Session {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.queue.set_enabled(false);
        Ok(())
    }

    fn reset_device(&mut self) -> Result<()> {
        Err(UNSUPPORTED)
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(FEATURES)
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        if features & !FEATURES != 0 {
            return Err(Error::InvalidParam);
        }
        self.queue.set_event_idx(features & VIRTIO_F_EVENT_IDX != 0);
        if features & PROTOCOL_FEATURES == 0 {
            // Without SET_VRING_ENABLE the rings are enabled from here on.
            self.queue.set_enabled(true);
            self.worker.wake();
        }
        let logging = features & LOG_ALL != 0;
        if !logging {
            self.dirty.clear();
        }
        if self.lasting.logging.swap(logging, Ordering::AcqRel) != logging {
            return self.tell("migration_started", |d| d.migration_started(logging));
        }
        Ok(())
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy: Option<bool>,
    ) -> Result<Option<Vec<u64>>> {
        let mapped = regions
            .iter()
            .zip(files)
            .map(|(region, file)| self.map(region, file))
            .collect::<Result<Vec<_>>>()?;
        self.replace_memory(GuestMap::from_regions(mapped).map_err(failed)?);
        self.mappings = regions.iter().map(Mapping::of).collect();
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        only(index)?;
        let size =
            u16::try_from(num).ok().filter(|size| *size <= MAX_QUEUE_SIZE).ok_or(Error::InvalidParam)?;
        self.queue.set_size(size).map_err(failed)
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        only(index)?;
        let descriptor = self.guest_address(descriptor)?;
        let available = self.guest_address(available)?;
        let used = self.guest_address(used)?;
        self.queue.set_addresses(descriptor, available, used).map_err(failed)
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        only(index)?;
        self.queue.set_base(u16::try_from(base).map_err(|_| Error::InvalidParam)?);
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        only(index)?;
        let kick = self.queue.kick();
        self.worker.set_kick(kick.as_deref(), None).map_err(Error::ReqHandlerError)?;
        let base = self.queue.stop();
        log::debug!("{}: stopped at {base}", self.name);
        Ok(VhostUserVringState::new(0, u32::from(base)))
    }

    fn set_vring_kick(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        only(index.into())?;
        let kick = fd.map(Arc::new);
        let old = self.queue.start(kick.clone());
        self.worker.set_kick(old.as_deref(), kick.as_deref()).map_err(Error::ReqHandlerError)?;
        self.worker.wake();
        Ok(())
    }

    fn set_vring_call(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        only(index.into())?;
        self.queue.set_call(fd);
        Ok(())
    }

    fn set_vring_err(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        only(index.into())?;
        self.queue.set_error(fd);
        Ok(())
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(protocol_features())
    }

    fn set_protocol_features(&mut self, _features: u64) -> Result<()> {
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(1)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        only(index)?;
        self.queue.set_enabled(enable);
        if enable {
            self.worker.wake();
        }
        Ok(())
    }

    fn get_config(&mut self, offset: u32, size: u32, _: VhostUserConfigFlags) -> Result<Vec<u8>> {
        let running = self.lasting.running.load(Ordering::Acquire);
        config::read(running, offset, size).ok_or(Error::InvalidParam)
    }

    fn set_config(&mut self, offset: u32, buf: &[u8], _: VhostUserConfigFlags) -> Result<()> {
        match config::doorbell(offset, buf) {
            Doorbell::MachineReset => self.tell("machine_reset", |d| d.machine_reset())?,
            Doorbell::RunState(running) => {
                self.lasting.running.store(running, Ordering::Release);
                self.tell("run_state", |d| d.run_state(running))?;
            }
            Doorbell::Nothing => log::warn!(
                "{}: {} bytes written at {offset} of the configuration space mean nothing",
                self.name,
                buf.len()
            ),
        }
        Ok(())
    }

    fn set_gpu_socket(&mut self, _: GpuBackend) -> Result<()> {
        Err(UNSUPPORTED)
    }

    fn get_shared_object(&mut self, _: VhostUserSharedMsg) -> Result<File> {
        Err(UNSUPPORTED)
    }

    fn get_inflight_fd(&mut self, _: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        Err(UNSUPPORTED)
    }

    fn set_inflight_fd(&mut self, _: &VhostUserInflight, _: File) -> Result<()> {
        Err(UNSUPPORTED)
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Ok(MEMORY_SLOTS)
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        file: File,
        _postcopy: Option<bool>,
    ) -> Result<Option<u64>> {
        let mapped = Arc::new(self.map(region, file)?);
        let map = self.memory.memory().insert_region(mapped).map_err(failed)?;
        self.replace_memory(map);
        self.mappings.push(Mapping::of(region));
        Ok(None)
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        let (guest, size) = (region.guest_phys_addr, region.memory_size);
        let (map, _unmapped) =
            self.memory.memory().remove_region(GuestAddress(guest), size).map_err(failed)?;
        self.replace_memory(map);
        self.mappings.retain(|m| m.guest != guest);
        Ok(())
    }

    fn set_device_state_fd(
        &mut self,
        direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        file: File,
    ) -> Result<Option<File>> {
        let direction = match direction {
            VhostTransferStateDirection::SAVE => Direction::Save,
            VhostTransferStateDirection::LOAD => Direction::Load,
        };
        self.transfer
            .start(&self.device, direction, file, self.transfer_timeout)
            .inspect_err(|e| log::error!("{}: {direction:?}: {e}", self.name))
            .map_err(failed)?;
        Ok(None)
    }

    fn check_device_state(&mut self) -> Result<()> {
        self.transfer
            .check()
            .inspect_err(|e| {
                let cause = std::error::Error::source(e).map_or(String::new(), |s| format!(": {s}"));
                log::error!("{}: {e}{cause}", self.name);
            })
            .map_err(failed)
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        Err(UNSUPPORTED)
    }

    fn set_log_base(&mut self, log: &VhostUserLog, file: File) -> Result<()> {
        let (size, offset) = (log.mmap_size, log.mmap_offset);
        let size = usize::try_from(size).map_err(|_| Error::InvalidParam)?;
        self.dirty.set(file, offset, size).map_err(Error::ReqHandlerError)
    }
}
