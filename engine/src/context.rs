//! Protection of saved contexts (Part 1, "Context Management"; Part 3, 28.2).
//!
//! The blob is a `TPM2B_DIGEST` with an HMAC, then the version of the saved records that the context was made with, then, encrypted with
//! AES-256-CFB, the fingerprint, which is the sequence number, and the structure. Both keys come from the proof of the hierarchy, the session's
//! from the null hierarchy's, so that a context ends with what its proof ends with. Of a context from outside nothing is decrypted, let alone
//! decoded, before its HMAC is checked.
//!
//! A guest's kernel keeps contexts while vtpmd is upgraded underneath, so that those of every version are read whose records are. The HMAC covers
//! the version, and a context of a newer release is outdated as one from before a reset is. Release 0.1.0 wrote neither version nor fingerprint,
//! and its HMAC began with the count of resets. What it covered begins as that of version 2 does after 2^49 resets, so that neither passes
//! for the other.

use crate::crypto::{Digest, HashAlg, ct_eq, hmac, kdfa, sym};
use crate::state::{RECORD_VERSION, Record, State, decode_version};
use vtpm_protocol::codec::{Decode, Encode, Reader, encode_sized};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{MAX_CONTEXT_SIZE, MAX_DIGEST_SIZE, Tpm2bContextData, TpmHandle, TpmsContext};
use zeroize::Zeroizing;

/// `CONTEXT_INTEGRITY_HASH_ALG`.
pub const HASH: HashAlg = HashAlg::Sha512;
/// Bits of the key and of the initialization vector.
const KEY_AND_IV: u32 = 256 + 128;
/// The most bytes of a saved context with all that stands before its blob: `TPM_PT_MAX_OBJECT_CONTEXT`, `TPM_PT_MAX_SESSION_CONTEXT`.
pub const MAX_CONTEXT: usize = 8 + 4 + 4 + 2 + MAX_CONTEXT_SIZE;
/// `savedHandle` of an object that stClear does not end.
pub const SAVED_OBJECT: TpmHandle = TpmHandle(0x8000_0000);
/// `savedHandle` of a sequence.
pub const SAVED_SEQUENCE: TpmHandle = TpmHandle(0x8000_0001);
/// `savedHandle` of an object with stClear.
pub const SAVED_ST_CLEAR_OBJECT: TpmHandle = TpmHandle(0x8000_0002);

/// Seals a structure as the context described by the other fields.
///
/// # Errors
/// `TPM_RC_SIZE` for a structure that no context can hold.
pub fn seal(
    state: &State,
    sequence: u64,
    saved_handle: TpmHandle,
    hierarchy: TpmHandle,
    value: &dyn Encode,
) -> Result<TpmsContext, ResponseCode> {
    let mut data = Zeroizing::new(Vec::with_capacity(4096));
    sequence.encode(&mut data);
    value.encode(&mut data);
    let context = TpmsContext { sequence, saved_handle, hierarchy, context_blob: Tpm2bContextData::empty() };
    let (key, iv) = keys(state, &context, RECORD_VERSION)?;
    sym::aes_cfb_encrypt(&key, &iv, &mut data).map_err(|_| ResponseCode::FAILURE)?;
    let mut blob = Vec::with_capacity(data.len().saturating_add(68));
    encode_sized(&integrity(state, &context, Some(RECORD_VERSION), &data), &mut blob);
    RECORD_VERSION.encode(&mut blob);
    blob.extend_from_slice(&data);
    Ok(TpmsContext { context_blob: Tpm2bContextData::new(blob)?, ..context })
}

/// Opens a context.
///
/// # Errors
/// `TPM_RC_SIZE`, `TPM_RC_INSUFFICIENT` for a blob that does not begin with a digest, blaming nothing, as in libtpms. Blaming the
/// context: `TPM_RC_SIZE` for a blob of another shape, `TPM_RC_INTEGRITY` for one that this TPM did not make, or not since the last reset of
/// what it depends on, or in a newer release.
pub fn open<T: Record>(state: &State, context: &TpmsContext) -> Result<T, ResponseCode> {
    let mut r = Reader::new(&context.context_blob);
    let tag = r.sized(MAX_DIGEST_SIZE)?;
    if tag.len() != HASH.digest_size() || r.remaining() < size_of_val(&context.sequence) {
        return Err(ResponseCode::SIZE.parameter(1));
    }
    let outdated = ResponseCode::INTEGRITY.parameter(1);
    let covered = r.take_rest();
    let (version, encrypted) = authenticate(state, context, tag, covered).ok_or(outdated)?;
    let mut data = Zeroizing::new(encrypted.to_vec());
    let (key, iv) = keys(state, context, version)?;
    sym::aes_cfb_decrypt(&key, &iv, &mut data).map_err(|_| ResponseCode::FAILURE)?;
    let mut r = Reader::new(&data);
    if version != 1 && u64::decode(&mut r) != Ok(context.sequence) {
        return Err(outdated);
    }
    decode_version(version, r).and_then(Result::ok).ok_or(outdated)
}

/// The version of a context that this TPM made, and what is encrypted of it.
fn authenticate<'a>(
    state: &State,
    context: &TpmsContext,
    tag: &[u8],
    covered: &'a [u8],
) -> Option<(u16, &'a [u8])> {
    let is_of = |version, encrypted| ct_eq(tag, &integrity(state, context, version, encrypted));
    let mut r = Reader::new(covered);
    let version = u16::decode(&mut r).ok()?;
    let encrypted = r.take_rest();
    if version > 1 && is_of(Some(version), encrypted) {
        return Some((version, encrypted));
    }
    is_of(None, covered).then_some((1, covered))
}

fn keys(
    state: &State,
    context: &TpmsContext,
    version: u16,
) -> Result<(Zeroizing<Vec<u8>>, [u8; 16]), ResponseCode> {
    let proof = state.proof(context.hierarchy).expose();
    let mut sequence = context.sequence.to_bytes();
    // The numbers of objects begin anew with each boot, while the proof stays. Version 1 did not mind.
    if version != 1 {
        state.permanent.total_reset_count.encode(&mut sequence);
    }
    let handle = context.saved_handle.to_bytes();
    let material = kdfa(HASH, proof, b"CONTEXT", &sequence, &handle, KEY_AND_IV);
    let (key, iv) = material.split_at_checked(32).ok_or(ResponseCode::FAILURE)?;
    Ok((Zeroizing::new(key.to_vec()), iv.try_into().map_err(|_| ResponseCode::FAILURE)?))
}

/// An stClear object's context ends at a Restart, every context at a TPM Reset.
/// Version 1 is not named.
fn integrity(state: &State, context: &TpmsContext, version: Option<u16>, encrypted: &[u8]) -> Digest {
    let clear_count = if context.saved_handle == SAVED_ST_CLEAR_OBJECT {
        state.volatile.state_reset.clear_count.to_bytes()
    } else {
        Vec::new()
    };
    hmac(
        HASH,
        state.proof(context.hierarchy).expose(),
        &[
            &version.map(|version| version.to_bytes()).unwrap_or_default(),
            &state.permanent.total_reset_count.to_bytes(),
            &clear_count,
            &context.sequence.to_bytes(),
            &context.saved_handle.to_bytes(),
            &context.hierarchy.to_bytes(),
            encrypted,
        ],
    )
}
