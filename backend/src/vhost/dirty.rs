//! The dirty log of a live migration, as a bitmap under the guest's memory.
//!
//! QEMU shares one bitmap for the whole guest, a bit for every 4 KiB of guest-physical address space, and sends it again
//! only when its size changes. All regions of a connection therefore point at one [`DirtyLog`]: a memory table that
//! changes in the middle of a migration (a reboot, a hot-plugged module) keeps being logged, and switching the log off
//! needs one store.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use vm_memory::bitmap::{Bitmap, BitmapSlice, WithBitmapSlice};
use vm_memory::mmap::NewBitmap;
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
    pub(crate) fn set(&self, file: File, offset: u64, size: usize) -> io::Result<()> {
        reaches(&file, offset, size)?;
        let map = MmapRegion::from_file(FileOffset::new(file, offset), size).map_err(io::Error::other)?;
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

/// Checks that `file` has `size` bytes from `offset` on. A page that is mapped beyond the end of its file kills the whole
/// process at its first touch.
pub(crate) fn reaches(file: &File, offset: u64, size: usize) -> io::Result<()> {
    let found = file.metadata()?;
    let end = u64::try_from(size).ok().and_then(|size| offset.checked_add(size));
    if found.is_file() && end.is_none_or(|end| end > found.len()) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the file is shorter than what is to be mapped",
        ));
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use vm_memory::mmap::MmapRegionBuilder;
    use vm_memory::{Bytes, GuestAddress, GuestRegionMmap};

    use super::*;

    const BASE: u64 = 0x10_0000;

    fn guest(log: &DirtyLog) -> GuestMap {
        let mapping = MmapRegionBuilder::new_with_bitmap(0x8000, log.region(BASE))
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS)
            .build()
            .unwrap();
        let region = GuestRegionMmap::new(mapping, GuestAddress(BASE)).unwrap();
        GuestMap::from_regions(vec![region]).unwrap()
    }

    fn shared(len: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(len).unwrap();
        file
    }

    fn word(file: &File) -> u8 {
        let mut byte = [0];
        file.read_exact_at(&mut byte, BASE / LOG_PAGE / 8).unwrap();
        byte[0]
    }

    #[test]
    fn marks_every_page_that_a_write_touches() {
        let (log, file) = (DirtyLog::default(), shared(4096));
        let memory = guest(&log);
        log.set(file.try_clone().unwrap(), 0, 4096).unwrap();

        memory.write_slice(&[1; 0x1002], GuestAddress(BASE + 0x1fff)).unwrap();
        assert_eq!(word(&file), 0b1110);
        memory.store(7u16, GuestAddress(BASE + 0x7000), Ordering::Release).unwrap();
        assert_eq!(word(&file), 0b1000_1110);
    }

    #[test]
    fn reads_mark_nothing() {
        let (log, file) = (DirtyLog::default(), shared(4096));
        let memory = guest(&log);
        log.set(file.try_clone().unwrap(), 0, 4096).unwrap();
        memory.read_slice(&mut [0; 100], GuestAddress(BASE)).unwrap();
        assert_eq!(word(&file), 0);
    }

    #[test]
    fn memory_mapped_later_is_logged_too_until_the_log_is_cleared() {
        let (log, file) = (DirtyLog::default(), shared(4096));
        log.set(file.try_clone().unwrap(), 0, 4096).unwrap();
        let memory = guest(&log);
        memory.write_obj(1u8, GuestAddress(BASE)).unwrap();
        assert_eq!(word(&file), 1);

        log.clear();
        memory.write_obj(1u8, GuestAddress(BASE + 0x3000)).unwrap();
        assert_eq!(word(&file), 1);
    }

    #[test]
    fn writes_beyond_the_end_of_the_log_are_not_marked_and_do_no_harm() {
        // 32 bytes of log reach to 0x10_0000, where this memory begins.
        let (log, file) = (DirtyLog::default(), shared(32));
        let memory = guest(&log);
        log.set(file.try_clone().unwrap(), 0, 32).unwrap();
        memory.write_obj(1u8, GuestAddress(BASE)).unwrap();
        let mut bytes = [0; 32];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes, [0; 32]);
    }

    #[test]
    fn refuses_a_log_longer_than_its_file() {
        let log = DirtyLog::default();
        assert!(log.set(shared(4096), 0, 8192).is_err());
        assert!(log.set(shared(4096), u64::MAX, 4096).is_err());
    }
}
