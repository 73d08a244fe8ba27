//! Persistent objects of a libtpms state.

use super::ForeignError;
use super::format::{Kind, Stop, block};
use crate::alg::hash_alg;
use crate::object::validate::check_held;
use crate::state::{Computed, Object, ObjectFlags};
use vtpm_protocol::codec::{Decode, Encode, Reader, decode_exact};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Tpm2bName, TpmAlgId, TpmHandle, TpmtPublic, TpmtSensitive};

const ANY_OBJECT: Kind = Kind { magic: 0xfe9a_3974, known: 2 };
const OBJECT: Kind = Kind { magic: 0x75be_73af, known: 4 };

/// `OBJECT_ATTRIBUTES` by bit.
const PUBLIC_ONLY: u32 = 1;
const ENDORSEMENT: u32 = 1 << 1;
const PLATFORM: u32 = 1 << 2;
const OWNER: u32 = 1 << 3;
const PRIMARY: u32 = 1 << 5;
const ST_CLEAR: u32 = 1 << 7;
const SEQUENCES: u32 = (1 << 8) | (1 << 9) | (1 << 10);
const OCCUPIED: u32 = 1 << 15;

/// An object, or why there cannot be one like it here.
pub type Held = Result<Object, &'static str>;

/// An object as it stands there, its areas not understood yet.
struct Raw<'a> {
    attributes: u32,
    public: &'a [u8],
    sensitive: &'a [u8],
    qualified_name: Tpm2bName,
    name: Tpm2bName,
    hierarchy: TpmHandle,
}

/// ANY_OBJECT with an OBJECT in it.
///
/// # Errors
/// [`Stop`].
pub fn read(r: &mut Reader<'_>, handle: u32) -> Result<Held, Stop> {
    let raw = ANY_OBJECT.read(r, |r, _| {
        let attributes = u32::decode(r)?;
        if attributes & OCCUPIED == 0 || attributes & SEQUENCES != 0 {
            return Err(ResponseCode::ATTRIBUTES.into());
        }
        body(r, attributes)
    })?;
    held(&raw, handle)
}

fn body<'a>(r: &mut Reader<'a>, attributes: u32) -> Result<Raw<'a>, Stop> {
    let version = OBJECT.header(r)?;
    let public = taken(r, skip_public)?;
    let sensitive = taken(r, skip_sensitive)?;
    // The private exponent, which the prime says.
    block(r)?;
    let (qualified_name, _evict_handle, name): (Tpm2bName, u32, Tpm2bName) = Decode::decode(r)?;
    let mut hierarchy = match attributes & (ENDORSEMENT | PLATFORM | OWNER) {
        ENDORSEMENT => TpmHandle::ENDORSEMENT,
        PLATFORM => TpmHandle::PLATFORM,
        OWNER => TpmHandle::OWNER,
        _ => TpmHandle::NULL,
    };
    if version >= 2
        && let Some(mut r) = block(r)?
        && version >= 3
    {
        // The kind of the seed from which its children would be derived; they are the same in both.
        u8::decode(&mut r)?;
        if let Some(mut r) = block(&mut r)?
            && version >= 4
        {
            hierarchy = Decode::decode(&mut r)?;
        }
    }
    Ok(Raw { attributes, public, sensitive, qualified_name, name, hierarchy })
}

/// The object, with everything checked that can be.
fn held(raw: &Raw<'_>, handle: u32) -> Result<Held, Stop> {
    let wrong = |what, wrong| Stop::Said(ForeignError::Object { handle, what, wrong });
    if raw.attributes & PUBLIC_ONLY != 0 {
        return Ok(Err("it has no private area"));
    }
    let hierarchies = [TpmHandle::OWNER, TpmHandle::ENDORSEMENT, TpmHandle::PLATFORM];
    if !hierarchies.contains(&raw.hierarchy) {
        return Ok(Err("it belongs to a hierarchy that there is not here"));
    }
    // Also of an object that is left out: a changed byte must not pass for an algorithm that is not there.
    let (_alg, name_alg): (u16, TpmAlgId) = Decode::decode(&mut Reader::new(raw.public))?;
    let Some(hash) = hash_alg(name_alg) else { return Ok(Err("its hash is not implemented")) };
    let name = [name_alg.to_bytes().as_slice(), &hash.digest(&[raw.public])].concat();
    if name != raw.name.as_slice() {
        return Err(wrong("the Name", "is not that of its public area"));
    }
    let public: TpmtPublic = match decode_exact(raw.public) {
        Ok(public) => public,
        Err(ResponseCode::CURVE) => return Ok(Err("its curve is not implemented")),
        Err(ResponseCode::HASH) => return Ok(Err("its hash is not implemented")),
        Err(ResponseCode::SYMMETRIC) => return Ok(Err("its cipher is not implemented")),
        Err(ResponseCode::SCHEME | ResponseCode::KDF) => return Ok(Err("its scheme is not implemented")),
        Err(_) => return Err(wrong("the public area", "makes no sense")),
    };
    let mut sensitive: TpmtSensitive =
        decode_exact(raw.sensitive).map_err(|_| wrong("the private area", "makes no sense"))?;
    // There it is filled up with zeros.
    sensitive.auth_value = sensitive.auth_value.without_trailing_zeros();
    if raw.qualified_name.len() != raw.name.len() {
        return Err(wrong("the Qualified Name", "has not the size of the Name"));
    }
    match check_held(&public, &sensitive) {
        Ok(()) => {}
        Err(code) if code.is(ResponseCode::SYMMETRIC) || code.is(ResponseCode::CURVE) => {
            return Ok(Err("its algorithm is not implemented"));
        }
        Err(_) => return Err(wrong("the private area", "does not belong to the public one")),
    }
    let flags = ObjectFlags {
        primary: raw.attributes & PRIMARY != 0,
        st_clear: raw.attributes & ST_CLEAR != 0,
        ..ObjectFlags::default()
    };
    Ok(Ok(Object {
        public,
        sensitive: Some(sensitive),
        name: raw.name.clone(),
        qualified_name: raw.qualified_name.clone(),
        hierarchy: raw.hierarchy,
        flags,
        computed: Computed::default(),
    }))
}

/// The bytes that `skip` passes over.
fn taken<'a>(
    r: &mut Reader<'a>,
    skip: impl FnOnce(&mut Reader<'a>) -> Result<(), ResponseCode>,
) -> Result<&'a [u8], ResponseCode> {
    let mut end = r.clone();
    skip(&mut end)?;
    r.take(r.remaining().saturating_sub(end.remaining()))
}

fn buffer(r: &mut Reader<'_>) -> Result<(), ResponseCode> {
    r.sized(2048).map(drop)
}

/// A `TPMT_PUBLIC`, whatever its algorithms, so that an object that cannot be taken over does not take the others with it.
fn skip_public(r: &mut Reader<'_>) -> Result<(), ResponseCode> {
    let (alg, _name_alg, _attributes): (TpmAlgId, u16, u32) = Decode::decode(r)?;
    buffer(r)?;
    match alg {
        TpmAlgId::KEYEDHASH => {
            match TpmAlgId::decode(r)? {
                TpmAlgId::NULL => {}
                TpmAlgId::XOR => drop(r.take(4)?),
                _ => drop(r.take(2)?),
            }
            buffer(r)
        }
        TpmAlgId::SYMCIPHER => {
            skip_cipher(r)?;
            buffer(r)
        }
        TpmAlgId::RSA => {
            skip_cipher(r)?;
            skip_scheme(r)?;
            r.take(6)?;
            buffer(r)
        }
        TpmAlgId::ECC => {
            skip_cipher(r)?;
            skip_scheme(r)?;
            r.take(2)?;
            skip_scheme(r)?;
            buffer(r)?;
            buffer(r)
        }
        _ => Err(ResponseCode::TYPE),
    }
}

fn skip_cipher(r: &mut Reader<'_>) -> Result<(), ResponseCode> {
    if TpmAlgId::decode(r)? != TpmAlgId::NULL {
        r.take(4)?;
    }
    Ok(())
}

/// A scheme of an asymmetric key or a KDF: a hash, and for ECDAA a count.
fn skip_scheme(r: &mut Reader<'_>) -> Result<(), ResponseCode> {
    match TpmAlgId::decode(r)? {
        TpmAlgId::NULL | TpmAlgId::RSAES => {}
        TpmAlgId::ECDAA => drop(r.take(4)?),
        _ => drop(r.take(2)?),
    }
    Ok(())
}

fn skip_sensitive(r: &mut Reader<'_>) -> Result<(), ResponseCode> {
    let alg = TpmAlgId::decode(r)?;
    buffer(r)?;
    buffer(r)?;
    // A public key alone has nothing more, and an algorithm of 0.
    if alg != TpmAlgId(0) {
        buffer(r)?;
    }
    Ok(())
}
