//! Asymmetric primitives (Part 3, chapter 14), and ephemeral ECC keys (chapter 19).

mod commit;
mod ec_ephemeral;
mod ecc_decrypt;
mod ecc_encrypt;
mod ecc_parameters;
mod ecdh_key_gen;
mod ecdh_z_gen;
mod rsa_decrypt;
mod rsa_encrypt;
mod z_gen_2phase;

pub use commit::commit;
pub use ec_ephemeral::ec_ephemeral;
pub use ecc_decrypt::ecc_decrypt;
pub use ecc_encrypt::ecc_encrypt;
pub use ecc_parameters::ecc_parameters;
pub use ecdh_key_gen::ecdh_key_gen;
pub use ecdh_z_gen::ecdh_z_gen;
pub use rsa_decrypt::rsa_decrypt;
pub use rsa_encrypt::rsa_encrypt;
pub use z_gen_2phase::z_gen_2phase;

use crate::alg::hash_alg;
use crate::crypto::{Curve, Digest, HashAlg, Point, kdf2};
use crate::secret;
use crate::state::Object;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{
    PublicId, PublicParms, Scheme, SensitiveComposite, Sized2b, Tpm2bEccPoint, TpmAlgId, TpmaObject,
};
use zeroize::Zeroizing;

/// The padding of an RSA encryption key: its own, if it has one, which the caller may repeat but not change; else the caller's, which may
/// be none.
///
/// # Errors
/// `TPM_RC_KEY`, blaming handle 1, for a key that is not RSA; `TPM_RC_SCHEME`, blaming parameter 2, for another scheme than the key's.
fn select_rsa_scheme(key: &Object, requested: Scheme) -> Result<Scheme, ResponseCode> {
    let PublicParms::Rsa { scheme: own, .. } = key.public.parms else {
        return Err(ResponseCode::KEY.handle(1));
    };
    match (own.is_null(), requested.is_null()) {
        (true, _) => Ok(requested),
        (false, true) => Ok(own),
        (false, false) if own == requested => Ok(own),
        (false, false) => Err(ResponseCode::SCHEME.parameter(2)),
    }
}

/// Whether a label is one for OAEP: nothing, or a string with its terminating zero, which belongs to what is hashed (Part 1, B.4).
///
/// # Errors
/// `TPM_RC_VALUE`, blaming parameter 3.
fn check_label(label: &[u8]) -> Result<(), ResponseCode> {
    if matches!(label.last(), None | Some(0)) { Ok(()) } else { Err(ResponseCode::VALUE.parameter(3)) }
}

/// The curve of an ECC key.
///
/// # Errors
/// `TPM_RC_KEY`, blaming handle 1, for a key that is not ECC.
fn curve_of(key: &Object) -> Result<Curve, ResponseCode> {
    match key.public.parms {
        PublicParms::Ecc { curve, .. } => secret::curve(curve).ok_or(ResponseCode::KEY.handle(1)),
        _ => Err(ResponseCode::KEY.handle(1)),
    }
}

/// The scheme of an ECC key.
const fn scheme_of(key: &Object) -> TpmAlgId {
    match &key.public.parms {
        PublicParms::Ecc { scheme, .. } => scheme.scheme,
        _ => TpmAlgId::NULL,
    }
}

/// The public point of an ECC key. That of a key without a Name was not checked.
///
/// # Errors
/// `TPM_RC_KEY`, blaming handle 1, for a key that is not ECC.
fn public_point(key: &Object) -> Result<Point, ResponseCode> {
    match &key.public.unique {
        PublicId::Ecc(q) => Ok(secret::point(q)),
        _ => Err(ResponseCode::KEY.handle(1)),
    }
}

/// The private value of an ECC key.
///
/// # Errors
/// `TPM_RC_KEY`, blaming handle 1, for a key that is not ECC, or of which only the public area is loaded.
fn private_value(key: &Object) -> Result<&[u8], ResponseCode> {
    match key.sensitive.as_ref().map(|s| &s.sensitive) {
        Some(SensitiveComposite::Ecc(d)) => Ok(d.expose()),
        _ => Err(ResponseCode::KEY.handle(1)),
    }
}

/// Whether points may be multiplied by the key for the caller: it decrypts, and is not restricted.
///
/// # Errors
/// `TPM_RC_ATTRIBUTES`, blaming handle 1.
fn check_exchange_key(key: &Object) -> Result<(), ResponseCode> {
    if key.has(TpmaObject::DECRYPT) && !key.has(TpmaObject::RESTRICTED) {
        Ok(())
    } else {
        Err(ResponseCode::ATTRIBUTES.handle(1))
    }
}

/// A point as a response parameter; that without coordinates is the empty one.
///
/// # Errors
/// `TPM_RC_SIZE` for coordinates that are too long, which no curve has.
fn point_2b(point: &Point) -> Result<Tpm2bEccPoint, ResponseCode> {
    secret::ecc_point(point).map(Sized2b)
}

/// The hash of KDF2 for `TPM2_ECC_Encrypt` and `TPM2_ECC_Decrypt`, by the key's KDF or, if it has none, the caller's.
///
/// # Errors
/// `TPM_RC_SCHEME` when there is none, or the caller asks for another one than the key's, to be blamed on the parameter. The inner one is for a
/// KDF that is not KDF2, and blames nothing, as in libtpms: the caller returns it once all else is in order.
fn select_kdf(key: &Object, requested: Scheme) -> Result<Result<HashAlg, ResponseCode>, ResponseCode> {
    let own = match key.public.parms {
        PublicParms::Ecc { kdf, .. } => kdf,
        _ => Scheme::NULL,
    };
    let selected = if requested.is_null() { own } else { requested };
    if selected.is_null() || (!own.is_null() && own != selected) {
        return Err(ResponseCode::SCHEME);
    }
    let alg = hash_alg(selected.hash).filter(|_| selected.scheme == TpmAlgId::KDF2);
    Ok(alg.ok_or(ResponseCode::SCHEME))
}

/// Data XORed with what KDF2 makes of a shared point: encrypts and decrypts.
fn mask(alg: HashAlg, shared: &Point, data: &[u8]) -> Vec<u8> {
    let z = Zeroizing::new([shared.x.as_slice(), &shared.y].concat());
    kdf2(alg, &z, data.len()).iter().zip(data).map(|(mask, byte)| mask ^ byte).collect()
}

/// `C3`: the hash that shows that data was decrypted with the right key.
fn check_value(alg: HashAlg, shared: &Point, data: &[u8]) -> Digest {
    alg.digest(&[&shared.x, data, &shared.y])
}

#[cfg(test)]
mod damaged;
#[cfg(test)]
pub(super) mod testing;
