//! The NV memory of a libtpms state: the data of orderly indices, which it keeps apart, then indices and persistent objects.

use super::format::{Kind, Stop};
use super::{ForeignError, Note, object};
use crate::state::{MAX_PERSISTENT_OBJECTS, NvIndex, Object};
use std::collections::BTreeMap;
use vtpm_protocol::codec::{Decode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{
    MAX_NV_INDEX_SIZE, Tpm2b, Tpm2bAuth, TpmHandle, TpmHt, TpmNt, TpmaNv, TpmsNvPublic,
};

const RAM: Kind = Kind { magic: 0x5346_feab, known: 2 };
const USER: Kind = Kind { magic: 0x094f_22c3, known: 2 };
const INDEX: Kind = Kind { magic: 0x2547_265a, known: 2 };

/// Bytes of an entry's header in libtpms' memory: size, handle, attributes. Where fewer are left, there is no end mark.
const RAM_HEADER: u32 = 12;

/// Attributes and data of the orderly indices.
pub type Ram = BTreeMap<u32, (TpmaNv, Vec<u8>)>;

/// INDEX_ORDERLY_RAM.
///
/// # Errors
/// [`Stop`].
pub fn ram(r: &mut Reader<'_>) -> Result<Ram, Stop> {
    RAM.read(r, |r, _| {
        let room = u32::decode(r)?;
        let (mut used, mut entries) = (0u32, Ram::new());
        while used.saturating_add(RAM_HEADER) <= room {
            let size = u32::decode(r)?;
            if size == 0 {
                break;
            }
            let (handle, attributes): (TpmHandle, TpmaNv) = Decode::decode(r)?;
            let data = r.sized(MAX_NV_INDEX_SIZE)?;
            let expected = u32::try_from(data.len()).unwrap_or(u32::MAX).saturating_add(RAM_HEADER);
            if size != expected || entries.insert(handle.0, (attributes, data.to_vec())).is_some() {
                return Err(ResponseCode::SIZE.into());
            }
            used = used.saturating_add(size);
        }
        Ok(entries)
    })
}

/// What the NV memory holds: indices, persistent objects by handle, and the highest count of a deleted counter.
pub type Memory = (Vec<NvIndex>, Vec<(u32, Object)>, u64);

/// USER_NVRAM.
///
/// # Errors
/// [`Stop`].
pub fn user(r: &mut Reader<'_>, mut ram: Ram, notes: &mut Vec<Note>) -> Result<Memory, Stop> {
    USER.read(r, |r, _| {
        let _room = u64::decode(r)?;
        let (mut indices, mut objects) = (BTreeMap::new(), BTreeMap::new());
        // Each entry has its size in the memory of the libtpms that wrote it, which says nothing here, or 0 at the end.
        while u32::decode(r)? != 0 {
            let handle = TpmHandle::decode(r)?;
            let is_new = match handle.handle_type() {
                TpmHt::NV_INDEX => indices.insert(handle.0, index(r, handle, &mut ram)?).is_none(),
                TpmHt::PERSISTENT => objects.insert(handle.0, object::read(r, handle.0)?).is_none(),
                _ => return Err(ResponseCode::HANDLE.into()),
            };
            if !is_new {
                return Err(ResponseCode::NV_DEFINED.into());
            }
        }
        if let Some(&handle) = ram.keys().next() {
            return Err(wrong(handle, "the data", "are there, and the index is not"));
        }
        let max_counter = u64::decode(r)?;
        let mut held = Vec::new();
        for (handle, object) in objects {
            match object {
                Ok(object) => held.push((handle, object)),
                Err(why) => notes.push(Note::Object { handle, why }),
            }
        }
        if held.len() > MAX_PERSISTENT_OBJECTS {
            let sentence = "it has more persistent objects than there can be here";
            return Err(ForeignError::Unusable(sentence).into());
        }
        Ok((indices.into_values().collect(), held, max_counter))
    })
}

fn wrong(handle: u32, what: &'static str, wrong: &'static str) -> Stop {
    ForeignError::Index { handle, what, wrong }.into()
}

/// NV_INDEX with its data.
fn index(r: &mut Reader<'_>, handle: TpmHandle, ram: &mut Ram) -> Result<NvIndex, Stop> {
    let (mut public, auth): (TpmsNvPublic, Tpm2bAuth) =
        INDEX.read(r, |r, _| Ok((Decode::decode(r)?, Decode::decode(r)?)))?;
    let size = usize::try_from(u32::decode(r)?).map_err(|_| ResponseCode::SIZE)?;
    if size > MAX_NV_INDEX_SIZE {
        return Err(ResponseCode::SIZE.into());
    }
    let mut data = r.take(size)?.to_vec();
    if public.nv_index != handle {
        return Err(wrong(handle.0, "the public area", "is of another one"));
    }
    if public.attributes.has(TpmaNv::ORDERLY) {
        let (attributes, now) =
            ram.remove(&handle.0).ok_or_else(|| wrong(handle.0, "the orderly data", "are missing"))?;
        (public.attributes, data) = (attributes, now);
        if !attributes.has(TpmaNv::ORDERLY) {
            return Err(wrong(handle.0, "the attributes", "are those of another one"));
        }
    }
    let fits = match public.attributes.nt() {
        Ok(TpmNt::Counter | TpmNt::Bits | TpmNt::PinFail | TpmNt::PinPass) => public.data_size == 8,
        Ok(_) => true,
        Err(_) => return Err(wrong(handle.0, "the type", "is unknown")),
    };
    if !fits || data.len() != usize::from(public.data_size) {
        return Err(wrong(handle.0, "the data", "have another size than the public area says"));
    }
    Ok(NvIndex { public, auth: auth.without_trailing_zeros(), data: Tpm2b::new(data)? })
}
