//! NV indices.

use super::State;
use std::sync::Arc;
use vtpm_protocol::codec::{Decode, Encode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{MAX_NV_INDEX_SIZE, Tpm2b, Tpm2bAuth, TpmNt, TpmaNv, TpmsNvPublic};

/// An NV index with its data.
#[derive(Clone)]
pub struct NvIndex {
    /// The public area.
    pub public: TpmsNvPublic,
    /// The authorization value.
    pub auth: Tpm2bAuth,
    /// As many bytes as the public area says; 0xff until written.
    pub data: Tpm2b<MAX_NV_INDEX_SIZE>,
}

impl Encode for NvIndex {
    fn encode(&self, out: &mut Vec<u8>) {
        let Self { public, auth, data } = self;
        (public, auth, data).encode(out);
    }
}

impl Decode for NvIndex {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        let (public, auth, data): (TpmsNvPublic, _, Tpm2b<MAX_NV_INDEX_SIZE>) = Decode::decode(r)?;
        if data.len() != usize::from(public.data_size) {
            return Err(ResponseCode::SIZE);
        }
        Ok(Self { public, auth, data })
    }
}

impl NvIndex {
    /// `TPMS_NV_PIN_COUNTER_PARAMETERS` of a PIN index: count and limit.
    #[must_use]
    pub fn pin(&self) -> Option<(u32, u32)> {
        let mut r = Reader::new(&self.data);
        Some((u32::decode(&mut r).ok()?, u32::decode(&mut r).ok()?))
    }

    /// Changes the count of a PIN index.
    pub fn count_pin(&mut self, change: impl FnOnce(u32) -> u32) {
        if let Some((count, limit)) = self.pin()
            && let Ok(data) = Tpm2b::new((change(count), limit).to_bytes())
        {
            self.data = data;
        }
    }
}

impl State {
    /// What a Startup that is no Resume does to NV indices (Part 1, "NV Index attributes"; Part 3, 9.3): locks and data that last until a
    /// Restart end; at a Reset orderly data ends, too, but for counters, which are durable here at all times.
    pub fn start_nv_indices(&mut self, reset: bool) {
        for index in self.nv.values_mut() {
            let old = index.public.attributes;
            let mut new = old.with(TpmaNv::READ_LOCKED, false);
            let ends = old.has(TpmaNv::CLEAR_ST_CLEAR) || (reset && old.has(TpmaNv::ORDERLY));
            if ends && old.nt() != Ok(TpmNt::Counter) {
                new = new.with(TpmaNv::WRITTEN, false);
            }
            // As it is now: what has no data any more must be writable.
            if !new.has(TpmaNv::WRITE_DEFINE) || !new.has(TpmaNv::WRITTEN) {
                new = new.with(TpmaNv::WRITE_LOCKED, false);
            }
            if new != old {
                Arc::make_mut(index).public.attributes = new;
            }
        }
    }
}
