//! The dirty log of a live migration, as a bitmap under the guest's memory.
//!
//! QEMU shares one bitmap for the whole guest, a bit for every 4 KiB of guest-physical address space, and sends it again
//! only when its size changes. All regions of a connection therefore point at one [`DirtyLog`]: a memory table that
//! changes in the middle of a migration (a reboot, a hot-plugged module) keeps being logged, and switching the log off
//! needs one store.

use std::fs::File;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use vm_memory::bitmap::{Bitmap, BitmapSlice, WithBitmapSlice};
use vm_memory::mmap::{MmapRegionError, NewBitmap};
use vm_memory::{FileOffset, GuestMemoryMmap, MmapRegion, VolatileMemory};

/// The memory of one guest, with its writes logged.
pub(crate) type GuestMap = GuestMemoryMmap<RegionLog>;

/// What one bit of the log stands for: `VHOST_LOG_PAGE` of the vhost-user protocol.
const LOG_PAGE: u64 = 4096;

/// The log of one connection. Its clones are the same log.
#[derive(Clone, Debug, Default)]
pub(crate) struct DirtyLog(Arc<RwLock<Option<MmapRegion>>>);

impl DirtyLog {
    /// Logs into `size` bytes of `file` from `offset` on.
    pub(crate) fn set(&self, file: File, offset: u64, size: usize) -> Result<(), MmapRegionError> {
        let map = MmapRegion::from_file(FileOffset::new(file, offset), size)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(map);
        Ok(())
    }

    /// Stops logging.
    pub(crate) fn clear(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The log as the bitmap of a region that starts at guest-physical address `base`.
    pub(crate) fn region(&self, base: u64) -> RegionLog {
        RegionLog { log: self.clone(), base }
    }

    /// Runs `f` on the byte and the mask of every page that `len` bytes from `address` on touch, as far as the log reaches.
    fn each_page(&self, address: u64, len: usize, mut f: impl FnMut(&AtomicU8, u8)) {
        let guard = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let (Some(map), Some(last)) = (guard.as_ref(), len.checked_sub(1)) else {
            return;
        };
        let end = address.saturating_add(u64::try_from(last).unwrap_or(u64::MAX));
        for page in address / LOG_PAGE..=end / LOG_PAGE {
            let Ok(byte) = usize::try_from(page / 8) else {
                return;
            };
            match map.get_atomic_ref::<AtomicU8>(byte) {
                Ok(cell) => f(cell, 1 << (page % 8)),
                Err(_) => return,
            }
        }
    }
}

/// A [`DirtyLog`] seen from one region of guest memory, or from a slice of one.
#[derive(Clone, Debug, Default)]
pub(crate) struct RegionLog {
    log: DirtyLog,
    base: u64,
}

impl RegionLog {
    fn address(&self, offset: usize) -> u64 {
        self.base.saturating_add(u64::try_from(offset).unwrap_or(u64::MAX))
    }
}

impl WithBitmapSlice<'_> for RegionLog {
    type S = Self;
}

impl BitmapSlice for RegionLog {}

impl Bitmap for RegionLog {
    fn mark_dirty(&self, offset: usize, len: usize) {
        self.log.each_page(self.address(offset), len, |cell, mask| {
            cell.fetch_or(mask, Ordering::Relaxed);
        });
    }

    fn dirty_at(&self, offset: usize) -> bool {
        let mut dirty = false;
        self.log.each_page(self.address(offset), 1, |cell, mask| {
            dirty = cell.load(Ordering::Relaxed) & mask != 0;
        });
        dirty
    }

    fn slice_at(&self, offset: usize) -> Self {
        self.log.region(self.address(offset))
    }
}

impl NewBitmap for RegionLog {
    fn with_len(_len: usize) -> Self {
        Self::default()
    }
}
