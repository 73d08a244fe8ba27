//! Sensitive areas outside the TPM (Part 1, "Protected Storage", "Duplication").
//!
//! A child's private area is HMAC, IV and encrypted sensitive area, under keys from the parent's seedValue. A duplicate has up to two wrappers: inside
//! one with a symmetric key that the caller gives or gets, outside one from a seed that is encrypted to the new parent.

use crate::alg::hash_alg;
use crate::command::Context;
use crate::crypto::{HashAlg, SymAlg, ct_eq, sym};
use crate::state::Object;
use crate::wrap::Wrapper;
use vtpm_protocol::codec::{Decode, Encode, Reader, decode_exact, encode_sized};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Secret2b, Tpm2bAuth, Tpm2bPrivate, TpmtPublic, TpmtSensitive};
use zeroize::Zeroizing;

/// The sensitive area as `TPM2B_SENSITIVE`, its authorization value filled up with zeros to the size of the object's digest, so that its
/// length does not show.
fn padded(sensitive: &TpmtSensitive, name_alg: HashAlg) -> Result<Zeroizing<Vec<u8>>, ResponseCode> {
    let mut auth = Zeroizing::new(sensitive.auth_value.expose().to_vec());
    let size = auth.len().max(name_alg.digest_size());
    auth.resize(size, 0);
    let sensitive = TpmtSensitive { auth_value: Tpm2bAuth::new(auth.as_slice())?, ..sensitive.clone() };
    // Room enough for all, lest growing leave copies behind.
    let mut inner = Zeroizing::new(Vec::with_capacity(1024));
    sensitive.encode(&mut inner);
    let mut out = Zeroizing::new(Vec::with_capacity(1024));
    encode_sized(&inner, &mut out);
    Ok(out)
}

/// The wrapper that a storage key puts around its children, or, with another seed, around a duplicate or a credential for it.
///
/// # Errors
/// `TPM_RC_TYPE` for an object that is no storage key.
pub fn wrapper<'a>(parent: &Object, seed: &'a [u8], name: &'a [u8]) -> Result<Wrapper<'a>, ResponseCode> {
    let alg = parent.name_alg().ok_or(ResponseCode::TYPE)?;
    let cipher = parent.child_cipher().ok_or(ResponseCode::TYPE)?;
    Ok(Wrapper { alg, seed, name, cipher })
}

fn seed_of(parent: &Object) -> Result<&[u8], ResponseCode> {
    Ok(parent.sensitive.as_ref().ok_or(ResponseCode::TYPE)?.seed_value.expose())
}

/// The private area of a child: `TPM2B_PRIVATE` as `TPM2_Create` and `TPM2_Import` return it.
///
/// # Errors
/// `TPM_RC_HASH` for an object without a name algorithm, `TPM_RC_TYPE` for a parent that is none.
pub fn to_private(
    cx: &mut Context<'_>,
    parent: &Object,
    public: &TpmtPublic,
    name: &[u8],
    sensitive: &TpmtSensitive,
) -> Result<Tpm2bPrivate, ResponseCode> {
    let name_alg = hash_alg(public.name_alg).ok_or(ResponseCode::HASH)?;
    let iv = cx.random();
    let data = padded(sensitive, name_alg)?;
    Tpm2bPrivate::new(wrapper(parent, seed_of(parent)?, name)?.seal_with_iv(&iv, &data)?)
}

/// The sensitive area in the private area of a child.
///
/// # Errors
/// `TPM_RC_INTEGRITY`, `TPM_RC_SIZE`, `TPM_RC_INSUFFICIENT`, `TPM_RC_VALUE` for a private area that this parent did not make for this
/// Name, `TPM_RC_SENSITIVE` for one that it made around something else than a sensitive area.
pub fn from_private(parent: &Object, name: &[u8], private: &[u8]) -> Result<TpmtSensitive, ResponseCode> {
    let data = wrapper(parent, seed_of(parent)?, name)?.open_with_iv(private)?;
    let mut r = Reader::new(&data);
    let sensitive =
        r.sized(usize::from(u16::MAX)).and_then(decode_exact).map_err(|_| ResponseCode::SENSITIVE)?;
    if r.is_empty() { Ok(sensitive) } else { Err(ResponseCode::SENSITIVE) }
}

/// The wrappers of a duplicate.
pub struct Wrappers<'a> {
    /// The key of the inner wrapper, and the cipher that it is of, used in CFB mode; `None` for no inner wrapper.
    pub inner: Option<(SymAlg, &'a Secret2b<66>)>,
    /// The new parent and the secret shared with it; `None` for no outer wrapper.
    pub outer: Option<(&'a Object, &'a [u8])>,
}

/// The duplicate of an object, as `TPM2_Duplicate` returns it.
///
/// # Errors
/// `TPM_RC_HASH` for an object without a name algorithm, `TPM_RC_TYPE` for a new parent that is no storage key.
pub fn to_duplicate(
    public: &TpmtPublic,
    name: &[u8],
    sensitive: &TpmtSensitive,
    wrappers: &Wrappers<'_>,
) -> Result<Tpm2bPrivate, ResponseCode> {
    let name_alg = hash_alg(public.name_alg).ok_or(ResponseCode::HASH)?;
    let mut data = padded(sensitive, name_alg)?;
    if let Some((cipher, key)) = wrappers.inner {
        let mut inner = Zeroizing::new(Vec::with_capacity(1024));
        encode_sized(&name_alg.digest(&[&data, name]), &mut inner);
        inner.extend_from_slice(&data);
        let iv = vec![0; cipher.block_size()];
        sym::cfb_encrypt(cipher, key.expose(), &iv, &mut inner).map_err(|_| ResponseCode::SIZE)?;
        data = inner;
    }
    match wrappers.outer {
        Some((parent, seed)) => Tpm2bPrivate::new(wrapper(parent, seed, name)?.seal(&data)?),
        None => Tpm2bPrivate::new(data.to_vec()),
    }
}

/// The sensitive area in a duplicate.
///
/// # Errors
/// `TPM_RC_INTEGRITY` when a wrapper was made with another key or for another Name, or changed; `TPM_RC_SIZE`, `TPM_RC_INSUFFICIENT` and what
/// decoding says for bytes of another shape.
pub fn from_duplicate(
    public: &TpmtPublic,
    name: &[u8],
    duplicate: &[u8],
    wrappers: &Wrappers<'_>,
) -> Result<TpmtSensitive, ResponseCode> {
    let name_alg = hash_alg(public.name_alg).ok_or(ResponseCode::HASH)?;
    let mut data = match wrappers.outer {
        Some((parent, seed)) => wrapper(parent, seed, name)?.open(duplicate)?,
        None => Zeroizing::new(duplicate.to_vec()),
    };
    if let Some((cipher, key)) = wrappers.inner {
        let iv = vec![0; cipher.block_size()];
        sym::cfb_decrypt(cipher, key.expose(), &iv, &mut data).map_err(|_| ResponseCode::SIZE)?;
        let mut r = Reader::new(&data);
        // A wrong key makes the size random, too: that is no other fault than a wrong digest.
        let tag = r.sized(64).map_err(|_| ResponseCode::INTEGRITY)?;
        if !ct_eq(tag, &name_alg.digest(&[r.peek_rest(), name])) {
            return Err(ResponseCode::INTEGRITY);
        }
        data = Zeroizing::new(r.take_rest().to_vec());
    }
    let mut r = Reader::new(&data);
    let size = usize::from(u16::decode(&mut r)?);
    if size != r.remaining() {
        return Err(ResponseCode::SIZE);
    }
    decode_exact(r.peek_rest())
}
