//! NV indices.
//!
//! # Orderly indices
//!
//! The data of an index with `TPMA_NV_ORDERLY` belong in volatile memory and reach non-volatile memory with `TPM2_Shutdown` (Part 1,
//! "Hybrid NV Indexes"), so that they can be written often without wear. Here every index is one record, durable before the response
//! leaves, orderly or not: the store has no cells to wear out, and a restart or migration of the daemon, which is no loss of power, must
//! not lose what a running guest has written. What a guest can see of the delay happens at the Startup after the loss of power instead,
//! in [`State::start_nv_indices`], and is what happens in a TPM that delays:
//!
//! - After an unorderly shutdown the data are gone: the index is unwritten, and blank as after its definition.
//! - After `Shutdown(CLEAR)` it is unwritten, too; after `Shutdown(STATE)` it goes on, with Restart and Resume.
//! - A counter goes on after an orderly shutdown. After an unorderly one a TPM that delays no longer knows its value. It knows that it
//!   wrote it at the last multiple of [`MAX_ORDERLY_COUNT`] + 1, and sets all bits below, so that the next increment reaches that of
//!   the next multiple. The bits above are those of the value that we do know, which gives the same number.
//!
//! A lock of an orderly index that is for good (`TPMA_NV_WRITEDEFINE`) is as durable as any other.

use super::{OrderlyState, State};
use crate::nv::MAX_ORDERLY_COUNT;
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
    /// As many bytes as the public area says.
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
    /// What a Startup that is no Resume does to NV indices; `saved` is how the last boot ended. Locks end, except those for good; data that
    /// last until a Restart end, and at a Reset orderly data.
    pub fn start_nv_indices(&mut self, saved: OrderlyState) {
        for index in self.nv.values_mut() {
            let new = index.started(saved);
            if new.public.attributes != index.public.attributes || new.data != index.data {
                *index = Arc::new(new);
            }
        }
    }
}

impl State {
    /// Whether the data of an orderly index were written since `before`, which a `TPM2_Shutdown` would have to save. Its locks, its definition
    /// and its end need none.
    #[must_use]
    pub fn orderly_data_differs(&self, before: &Self) -> bool {
        let data = |index: &NvIndex| {
            let attributes = index.public.attributes;
            attributes.has(TpmaNv::ORDERLY).then(|| (attributes.has(TpmaNv::WRITTEN), index.data.clone()))
        };
        self.nv.iter().any(|(handle, index)| {
            before.nv.get(handle).is_some_and(|old| !Arc::ptr_eq(old, index) && data(old) != data(index))
        })
    }
}

impl NvIndex {
    /// The index after a Startup that is no Resume: see [`State::start_nv_indices`].
    fn started(&self, saved: OrderlyState) -> Self {
        let mut new = self.clone();
        let old = self.public.attributes;
        let is_counter = old.nt() == Ok(TpmNt::Counter);
        let is_reset = saved != OrderlyState::State;
        let is_lost = old.has(TpmaNv::ORDERLY) && saved == OrderlyState::None;
        let ends = old.has(TpmaNv::CLEAR_ST_CLEAR) || (is_reset && old.has(TpmaNv::ORDERLY));
        let mut attributes = old.with(TpmaNv::READ_LOCKED, false);
        if is_counter {
            if is_lost && let Some(value) = self.value() {
                new.set_value(value | MAX_ORDERLY_COUNT);
            }
        } else {
            if is_lost {
                new.data = self.blank();
            }
            if ends {
                attributes = attributes.with(TpmaNv::WRITTEN, false);
            }
        }
        // As it is now: what has no data any more must be writable.
        if !attributes.has(TpmaNv::WRITE_DEFINE) || !attributes.has(TpmaNv::WRITTEN) {
            attributes = attributes.with(TpmaNv::WRITE_LOCKED, false);
        }
        new.public.attributes = attributes;
        new
    }
}
