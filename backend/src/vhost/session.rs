//! One connection: QEMU's vhost-user messages, answered.
//!
//! The `vhost` crate reads and checks the messages; this is its request handler. It has the memory table, the dirty log and
//! the setting up of the queue; what the device itself has to say to a message is a [`VhostUserBackend`]'s affair.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig, VhostUserSharedMsg,
    VhostUserSingleMemoryRegion, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{Error, GpuBackend, Result, VhostUserBackendReqHandlerMut};
use vhost_user_backend::{VhostUserBackend, VringT};
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{FileOffset, GuestAddress, GuestAddressSpace, GuestRegionMmap};

use super::dirty::{self, DirtyLog, GuestMap, RegionLog};
use super::ring::{Memory, Vring};
use super::tpm::{LOG_ALL, Lasting, PROTOCOL_FEATURES, VIRTIO_F_EVENT_IDX, VirtioTpm};
use super::worker::Worker;
use crate::device::TpmDevice;

/// As many as Linux's vhost has.
const MEMORY_SLOTS: u64 = 509;

/// Where QEMU has a region of guest memory, and where the guest has it.
#[derive(Clone, Copy, Debug)]
struct Mapping {
    user: u64,
    guest: u64,
    size: u64,
}

/// One connection's state.
pub(crate) struct Session {
    memory: Memory,
    mappings: Vec<Mapping>,
    dirty: DirtyLog,
    tpm: Arc<VirtioTpm>,
    worker: Worker<VirtioTpm>,
}

impl Session {
    pub(crate) fn new(
        name: String,
        device: Arc<dyn TpmDevice>,
        lasting: Arc<Lasting>,
        transfer_timeout: Duration,
    ) -> io::Result<Self> {
        let memory = Memory::new(GuestMap::new());
        let tpm = VirtioTpm::new(name.clone(), device, lasting, transfer_timeout, memory.clone());
        let tpm = Arc::new(tpm.map_err(io::Error::other)?);
        Ok(Self {
            memory,
            mappings: Vec::new(),
            dirty: DirtyLog::default(),
            worker: Worker::spawn(&name, Arc::clone(&tpm), tpm.queue().vring().clone())?,
            tpm,
        })
    }

    /// The vring with this index, if there is one.
    fn vring(&self, index: u32) -> Result<&Vring> {
        if usize::try_from(index).is_ok_and(|index| index < self.tpm.num_queues()) {
            Ok(self.tpm.queue().vring())
        } else {
            Err(Error::InvalidParam)
        }
    }

    fn replace_memory(&self, map: GuestMap) -> Result<()> {
        self.memory.lock().unwrap_or_else(std::sync::PoisonError::into_inner).replace(map);
        self.tpm.update_memory(self.memory.clone()).map_err(Error::ReqHandlerError)
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
}

impl Mapping {
    fn of(region: &VhostUserMemoryRegion) -> Self {
        Self { user: region.user_addr, guest: region.guest_phys_addr, size: region.memory_size }
    }
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::ReqHandlerError(io::Error::other(error))
}

const UNSUPPORTED: Error = Error::InvalidOperation("not offered");

impl VhostUserBackendReqHandlerMut for Session {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.tpm.queue().vring().set_enabled(false);
        Ok(())
    }

    fn reset_device(&mut self) -> Result<()> {
        Err(UNSUPPORTED)
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(self.tpm.features())
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        if features & !self.tpm.features() != 0 {
            return Err(Error::InvalidParam);
        }
        self.tpm.set_event_idx(features & VIRTIO_F_EVENT_IDX != 0);
        if features & PROTOCOL_FEATURES == 0 {
            // Without SET_VRING_ENABLE the rings are enabled from here on.
            self.tpm.queue().vring().set_enabled(true);
            self.worker.wake();
        }
        if features & LOG_ALL == 0 {
            self.dirty.clear();
        }
        self.tpm.acked_features(features);
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
        self.replace_memory(GuestMap::from_regions(mapped).map_err(failed)?)?;
        self.mappings = regions.iter().map(Mapping::of).collect();
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        self.vring(index)?;
        let size = u16::try_from(num).map_err(|_| Error::InvalidParam)?;
        self.tpm.queue().set_size(size).map_err(failed)
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
        let vring = self.vring(index)?;
        let descriptor = self.guest_address(descriptor)?;
        let available = self.guest_address(available)?;
        let used = self.guest_address(used)?;
        vring.set_queue_info(descriptor, available, used).map_err(failed)
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        self.vring(index)?;
        self.tpm.queue().set_base(u16::try_from(base).map_err(|_| Error::InvalidParam)?);
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        let vring = self.vring(index)?;
        self.worker.unwatch();
        self.tpm.stop_vring(index).map_err(Error::ReqHandlerError)?;
        Ok(VhostUserVringState::new(index, u32::from(vring.queue_next_avail())))
    }

    fn set_vring_kick(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        self.vring(index.into())?;
        self.worker.unwatch();
        self.tpm.queue_starts().map_err(Error::ReqHandlerError)?;
        self.tpm.queue().start(fd);
        self.worker.watch().map_err(Error::ReqHandlerError)?;
        self.worker.wake();
        Ok(())
    }

    fn set_vring_call(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        self.vring(index.into())?;
        self.tpm.queue().set_call(fd);
        Ok(())
    }

    fn set_vring_err(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        self.vring(index.into())?;
        self.tpm.queue().set_error(fd);
        Ok(())
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(self.tpm.protocol_features())
    }

    fn set_protocol_features(&mut self, _features: u64) -> Result<()> {
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        u64::try_from(self.tpm.num_queues()).map_err(failed)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        self.vring(index)?.set_enabled(enable);
        if enable {
            self.worker.wake();
        }
        Ok(())
    }

    fn get_config(&mut self, offset: u32, size: u32, _: VhostUserConfigFlags) -> Result<Vec<u8>> {
        Ok(self.tpm.get_config(offset, size))
    }

    fn set_config(&mut self, offset: u32, buf: &[u8], _: VhostUserConfigFlags) -> Result<()> {
        self.tpm.set_config(offset, buf).map_err(Error::ReqHandlerError)
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
        self.replace_memory(map)?;
        self.mappings.push(Mapping::of(region));
        Ok(None)
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        let (guest, size) = (region.guest_phys_addr, region.memory_size);
        let (map, _unmapped) =
            self.memory.memory().remove_region(GuestAddress(guest), size).map_err(failed)?;
        self.replace_memory(map)?;
        self.mappings.retain(|m| m.guest != guest);
        Ok(())
    }

    fn set_device_state_fd(
        &mut self,
        direction: VhostTransferStateDirection,
        phase: VhostTransferStatePhase,
        file: File,
    ) -> Result<Option<File>> {
        self.tpm.set_device_state_fd(direction, phase, file).map_err(Error::ReqHandlerError)
    }

    fn check_device_state(&mut self) -> Result<()> {
        self.tpm.check_device_state().map_err(Error::ReqHandlerError)
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
