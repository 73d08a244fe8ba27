//! Secret sharing (Part 1, annexes B.10 and C.6): a secret encrypted to an asymmetric key, for salts, duplication and the
//! instance key.

use crate::alg::hash_alg;
use crate::crypto::rsa::{RsaPrivate, RsaPublic};
use crate::crypto::{CryptoError, Curve, HashAlg, Point, RandomSource, ecc, kdfe};
use crate::state::Object;
use std::sync::Arc;
use vtpm_protocol::codec::{Decode, Encode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{
    PublicId, PublicParms, Tpm2bEccParameter, Tpm2bEncryptedSecret, TpmAlgId, TpmEccCurve, TpmsEccPoint,
    TpmtPublic,
};
use zeroize::Zeroizing;

/// The curve of an id.
#[must_use]
pub fn curve(id: TpmEccCurve) -> Option<Curve> {
    match id {
        TpmEccCurve::NIST_P192 => Some(Curve::NistP192),
        TpmEccCurve::NIST_P224 => Some(Curve::NistP224),
        TpmEccCurve::NIST_P256 => Some(Curve::NistP256),
        TpmEccCurve::NIST_P384 => Some(Curve::NistP384),
        TpmEccCurve::NIST_P521 => Some(Curve::NistP521),
        TpmEccCurve::SM2_P256 => Some(Curve::Sm2P256),
        _ => None,
    }
}

/// A point of a public area or parameter.
#[must_use]
pub fn point(p: &TpmsEccPoint) -> Point {
    Point { x: p.x.to_vec(), y: p.y.to_vec() }
}

/// A point as a structure.
///
/// # Errors
/// `TPM_RC_SIZE` for coordinates that are too long, which no curve has.
pub fn ecc_point(p: &Point) -> Result<TpmsEccPoint, ResponseCode> {
    Ok(TpmsEccPoint { x: Tpm2bEccParameter::new(p.x.clone())?, y: Tpm2bEccParameter::new(p.y.clone())? })
}

/// The public RSA key of a public area.
///
/// # Errors
/// `TPM_RC_KEY` when it is not one.
pub fn rsa_public(public: &TpmtPublic) -> Result<RsaPublic, ResponseCode> {
    match (&public.parms, &public.unique) {
        (PublicParms::Rsa { exponent, .. }, PublicId::Rsa(n)) => {
            RsaPublic::new(n, *exponent).map_err(|_| ResponseCode::KEY)
        }
        _ => Err(ResponseCode::KEY),
    }
}

/// The public RSA key of a loaded object, which is made once.
///
/// # Errors
/// `TPM_RC_KEY` when it is not one.
pub fn rsa_public_of(object: &Object) -> Result<Arc<RsaPublic>, ResponseCode> {
    match (&object.public.parms, &object.public.unique) {
        (PublicParms::Rsa { exponent, .. }, PublicId::Rsa(n)) => {
            object.computed.rsa_public(n, *exponent).map_err(|_| ResponseCode::KEY)
        }
        _ => Err(ResponseCode::KEY),
    }
}

/// The private RSA key of a loaded object, which is made once.
///
/// # Errors
/// `TPM_RC_KEY` when it is not one or has no private part, `TPM_RC_BINDING` when its private part is that of another key.
pub fn rsa_private(object: &Object) -> Result<Arc<RsaPrivate>, ResponseCode> {
    let sensitive = object.sensitive.as_ref().ok_or(ResponseCode::KEY)?;
    match (&object.public.parms, &object.public.unique) {
        (PublicParms::Rsa { exponent, .. }, PublicId::Rsa(n)) => {
            let key = object.computed.rsa_private(n, *exponent, sensitive.sensitive.expose());
            key.map_err(|e| match e {
                CryptoError::Binding => ResponseCode::BINDING,
                _ => ResponseCode::KEY,
            })
        }
        _ => Err(ResponseCode::KEY),
    }
}

/// Encrypts a fresh secret to a public key; returns the secret and what carries it. `label` is without its terminating zero.
///
/// # Errors
/// `TPM_RC_KEY` for a key that cannot receive one; of an RSA key that is too small for OAEP with the hash of its name algorithm `TPM_RC_HASH`,
/// for one that is too small for a digest of it inside `TPM_RC_VALUE`.
pub fn encrypt(
    public: &TpmtPublic,
    label: &[u8],
    rng: &mut dyn RandomSource,
) -> Result<(Zeroizing<Vec<u8>>, Tpm2bEncryptedSecret), ResponseCode> {
    let alg = hash_alg(public.name_alg).ok_or(ResponseCode::KEY)?;
    match (&public.parms, &public.unique) {
        (PublicParms::Rsa { .. }, _) => {
            let mut secret = Zeroizing::new(vec![0; alg.digest_size()]);
            rng.fill(&mut secret);
            let with_zero = [label, &[0]].concat();
            let encrypted =
                rsa_public(public)?.encrypt_oaep(alg, &with_zero, &secret, rng).map_err(|e| match e {
                    CryptoError::HashTooLarge => ResponseCode::HASH,
                    CryptoError::MessageTooLong => ResponseCode::VALUE,
                    _ => ResponseCode::KEY,
                })?;
            Ok((secret, Tpm2bEncryptedSecret::new(encrypted)?))
        }
        (PublicParms::Ecc { curve: id, .. }, PublicId::Ecc(key)) => {
            let curve = curve(*id).ok_or(ResponseCode::KEY)?;
            let (d, ephemeral) = ecc::generate(curve, rng);
            let z = ecc::ecdh(curve, &d, &point(key)).map_err(|_| ResponseCode::KEY)?;
            let secret = ecc_secret(alg, &z, label, &ephemeral.x, &point(key).x);
            Ok((secret, Tpm2bEncryptedSecret::new(ecc_point(&ephemeral)?.to_bytes())?))
        }
        _ => Err(ResponseCode::KEY),
    }
}

/// Decrypts a secret with the private key of an object. `label` is without its terminating zero.
///
/// # Errors
/// `TPM_RC_SCHEME` for an RSA key with another scheme than OAEP, `TPM_RC_VALUE` for a secret that does not decrypt, `TPM_RC_ECC_POINT` for a point that is not on the curve, `TPM_RC_SIZE` or
/// `TPM_RC_INSUFFICIENT` for one of the wrong shape, `TPM_RC_KEY` for an object that cannot decrypt.
pub fn decrypt(object: &Object, label: &[u8], encrypted: &[u8]) -> Result<Zeroizing<Vec<u8>>, ResponseCode> {
    let alg = hash_alg(object.public.name_alg).ok_or(ResponseCode::KEY)?;
    match (&object.public.parms, &object.public.unique) {
        (PublicParms::Rsa { scheme, .. }, _) => {
            // Only a key that is no storage key has a scheme of its own.
            let alg = match scheme.scheme {
                TpmAlgId::NULL => alg,
                TpmAlgId::OAEP => hash_alg(scheme.hash).ok_or(ResponseCode::SCHEME)?,
                _ => return Err(ResponseCode::SCHEME),
            };
            let with_zero = [label, &[0]].concat();
            let secret = rsa_private(object)?.decrypt_oaep(alg, &with_zero, encrypted).map_err(|e| {
                if e == CryptoError::Length { ResponseCode::SIZE } else { ResponseCode::VALUE }
            })?;
            if secret.len() > alg.digest_size() { Err(ResponseCode::VALUE) } else { Ok(secret) }
        }
        (PublicParms::Ecc { curve: id, .. }, PublicId::Ecc(key)) => {
            let curve = curve(*id).ok_or(ResponseCode::KEY)?;
            let mut r = Reader::new(encrypted);
            let ephemeral = point(&TpmsEccPoint::decode(&mut r)?);
            r.finish()?;
            let sensitive = object.sensitive.as_ref().ok_or(ResponseCode::KEY)?;
            let z = ecc::ecdh(curve, sensitive.sensitive.expose(), &ephemeral)
                .map_err(|_| ResponseCode::ECC_POINT)?;
            Ok(ecc_secret(alg, &z, label, &ephemeral.x, &point(key).x))
        }
        _ => Err(ResponseCode::KEY),
    }
}

fn ecc_secret(alg: HashAlg, z: &[u8], label: &[u8], party_u: &[u8], party_v: &[u8]) -> Zeroizing<Vec<u8>> {
    let bits = u32::try_from(alg.digest_size()).unwrap_or_default().saturating_mul(8);
    kdfe(alg, z, label, party_u, party_v, bits)
}

/// Whether the key is one to which a secret can be encrypted at all.
#[must_use]
pub fn is_asymmetric(public: &TpmtPublic) -> bool {
    matches!(public.parms.alg(), TpmAlgId::RSA | TpmAlgId::ECC)
}
