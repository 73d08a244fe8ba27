//! NV indices (Part 1, "NV Memory"; Part 3, 31.1): who may read and write one, what a write does to it, and how many there may be.

use crate::env::Limits;
use crate::state::{NvIndex, State};
use vtpm_protocol::codec::{Encode, decode_exact};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{MAX_NV_INDEX_SIZE, Tpm2b, Tpm2bAuth, TpmHandle, TpmNt, TpmaNv, TpmsNvPublic};

/// The most indices that one TPM holds.
///
/// With [`MAX_BYTES`] a guest gets whatever it gets in swtpm 0.7.1, which has room for 68 indices of 2048 bytes, or for 947 of 8.
pub const MAX_INDICES: usize = 1024;
/// The most bytes that all indices of one TPM may take, as [`size`] counts them.
pub const MAX_BYTES: usize = 144 * 1024;

/// `MAX_ORDERLY_COUNT`: how far the value of an orderly counter may be ahead of the durable one, less one; a mask.
pub const MAX_ORDERLY_COUNT: u64 = 0xff;

/// What the bytes of an index are before they are written: as erased flash memory has them, and as cleared RAM.
const UNWRITTEN: u8 = 0xff;
const UNWRITTEN_ORDERLY: u8 = 0;

/// The bytes that an index takes: public area, authorization value and data.
#[must_use]
pub fn size(index: &NvIndex) -> usize {
    index.to_bytes().len()
}

/// Whether `auth`, which was authorized, may write `index`.
///
/// # Errors
/// `TPM_RC_NV_LOCKED` for an index that is locked, `TPM_RC_NV_AUTHORIZATION` for an entity that may not write it.
pub fn check_write(state: &State, auth: TpmHandle, index: TpmHandle) -> Result<(), ResponseCode> {
    let attributes = state.nv_index(index)?.public.attributes;
    if attributes.has(TpmaNv::WRITE_LOCKED) {
        return Err(ResponseCode::NV_LOCKED);
    }
    // That the index's own authorization may write was checked with the authorization itself.
    let allowed = match auth {
        TpmHandle::OWNER => attributes.has(TpmaNv::OWNER_WRITE),
        TpmHandle::PLATFORM => attributes.has(TpmaNv::PP_WRITE),
        _ => auth == index,
    };
    if allowed { Ok(()) } else { Err(ResponseCode::NV_AUTHORIZATION) }
}

/// Whether `auth`, which was authorized, may read `index`.
///
/// # Errors
/// `TPM_RC_NV_LOCKED` for an index that is locked, `TPM_RC_NV_AUTHORIZATION` for an entity that may not read it,
/// `TPM_RC_NV_UNINITIALIZED` when there is nothing to read yet.
pub fn check_read(state: &State, auth: TpmHandle, index: TpmHandle) -> Result<(), ResponseCode> {
    let attributes = state.nv_index(index)?.public.attributes;
    if attributes.has(TpmaNv::READ_LOCKED) {
        return Err(ResponseCode::NV_LOCKED);
    }
    let allowed = match auth {
        TpmHandle::OWNER => attributes.has(TpmaNv::OWNER_READ),
        TpmHandle::PLATFORM => attributes.has(TpmaNv::PP_READ),
        _ => auth == index,
    };
    if !allowed {
        return Err(ResponseCode::NV_AUTHORIZATION);
    }
    if attributes.has(TpmaNv::WRITTEN) { Ok(()) } else { Err(ResponseCode::NV_UNINITIALIZED) }
}

impl NvIndex {
    /// An index that was not written.
    ///
    /// # Errors
    /// `TPM_RC_SIZE` for a data size above `MAX_NV_INDEX_SIZE`.
    pub fn new(public: TpmsNvPublic, auth: Tpm2bAuth) -> Result<Self, ResponseCode> {
        let data = Tpm2b::new(vec![0; usize::from(public.data_size)])?;
        let mut index = Self { public, auth, data };
        index.data = index.blank();
        Ok(index)
    }

    /// The data area of an index that was never written.
    #[must_use]
    pub fn blank(&self) -> Tpm2b<MAX_NV_INDEX_SIZE> {
        let orderly = self.public.attributes.has(TpmaNv::ORDERLY);
        let byte = if orderly { UNWRITTEN_ORDERLY } else { UNWRITTEN };
        Tpm2b::new(vec![byte; self.data.len()]).unwrap_or_default()
    }

    /// Sets an attribute.
    pub fn set(&mut self, attribute: TpmaNv) {
        self.public.attributes = self.public.attributes.with(attribute, true);
    }

    /// `size` bytes from `offset`; `None` beyond the data area.
    #[must_use]
    pub fn range(&self, offset: u16, size: u16) -> Option<&[u8]> {
        let start = usize::from(offset);
        self.data.get(start..start.checked_add(usize::from(size))?)
    }

    /// Writes `bytes` from `offset` on and marks the index as written, which changes its Name. The first write to an ordinary index
    /// begins with a blank area, also after a `TPMA_NV_CLEAR_STCLEAR`; of a PIN, the half that it does not write stays.
    ///
    /// # Errors
    /// `TPM_RC_NV_RANGE` when they do not fit.
    pub fn write(&mut self, offset: u16, bytes: &[u8]) -> Result<(), ResponseCode> {
        let attributes = self.public.attributes;
        let anew = !attributes.has(TpmaNv::WRITTEN) && attributes.nt() == Ok(TpmNt::Ordinary);
        let mut data = if anew { self.blank() } else { self.data.clone() }.to_vec();
        let start = usize::from(offset);
        start
            .checked_add(bytes.len())
            .and_then(|end| data.get_mut(start..end))
            .ok_or(ResponseCode::NV_RANGE)?
            .copy_from_slice(bytes);
        self.data = Tpm2b::new(data)?;
        self.public.attributes = attributes.with(TpmaNv::WRITTEN, true);
        Ok(())
    }

    /// Changes the value of a counter that was written.
    pub fn set_value(&mut self, value: u64) {
        if let Ok(data) = Tpm2b::new(value.to_be_bytes()) {
            self.data = data;
        }
    }

    /// The value of a counter or bit field; `None` when it was not written, or has other data.
    #[must_use]
    pub fn value(&self) -> Option<u64> {
        if self.public.attributes.has(TpmaNv::WRITTEN) { decode_exact(&self.data).ok() } else { None }
    }
}

impl State {
    /// Adds an index.
    ///
    /// # Errors
    /// `TPM_RC_NV_SPACE` when there are as many as `limits` allows, or the bytes of all would be more.
    pub fn add_nv_index(&mut self, index: NvIndex, limits: &Limits) -> Result<(), ResponseCode> {
        if self.nv.len() >= limits.nv_indices || size(&index) > self.nv_bytes_free(limits) {
            return Err(ResponseCode::NV_SPACE);
        }
        self.nv.insert(index.public.nv_index.0, std::sync::Arc::new(index));
        Ok(())
    }

    /// The bytes that further indices may take.
    #[must_use]
    pub fn nv_bytes_free(&self, limits: &Limits) -> usize {
        let used = self.nv.values().map(|i| size(i)).fold(0, usize::saturating_add);
        limits.nv_bytes.saturating_sub(used)
    }

    /// The highest value that a counter has, or had when it was deleted.
    #[must_use]
    pub fn highest_counter(&self) -> u64 {
        let counters = self
            .nv
            .values()
            .filter(|i| i.public.attributes.nt() == Ok(TpmNt::Counter))
            .filter_map(|i| i.value());
        counters.fold(self.permanent.max_counter, u64::max)
    }

    /// Removes the indices whose public area `which` picks; see [`Self::remove_nv_index`].
    pub fn remove_nv_indices(&mut self, which: impl Fn(&TpmsNvPublic) -> bool) {
        let picked: Vec<TpmHandle> =
            self.nv.values().filter(|i| which(&i.public)).map(|i| i.public.nv_index).collect();
        picked.into_iter().for_each(|handle| self.remove_nv_index(handle));
    }

    /// Removes an index. The value of a counter is remembered, so that a new one cannot show it again.
    pub fn remove_nv_index(&mut self, handle: TpmHandle) {
        let Some(index) = self.nv.remove(&handle.0) else { return };
        if index.public.attributes.nt() == Ok(TpmNt::Counter)
            && let Some(value) = index.value()
            && value > self.permanent.max_counter
        {
            self.permanent_mut().max_counter = value;
        }
    }
}
