//! Signing and verifying with loaded objects (Part 1, "Signing Operations"; Part 3, chapter 20).

#[cfg(test)]
pub(crate) mod test_keys;

use crate::alg::hash_alg;
use crate::command::{Context, EnvRandom};
use crate::crypto::{CryptoError, HashAlg, ct_eq, ecc, hmac};
use crate::object::template::ECC_SIGNING;
use crate::secret::{curve, point, rsa_private, rsa_public_of};
use crate::state::Object;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{
    PublicId, PublicParms, Scheme, Tpm2bDigest, Tpm2bEccParameter, Tpm2bPublicKeyRsa, TpmAlgId, TpmaObject,
    TpmtHa, TpmtSignature,
};

/// Whether an object may sign: it has the sign attribute, and is no symmetric cipher, for which the same bit means encrypt.
#[must_use]
pub fn is_signing_key(object: &Object) -> bool {
    object.has(TpmaObject::SIGN_ENCRYPT) && !matches!(object.public.parms, PublicParms::SymCipher { .. })
}

/// The scheme with which `key` signs when the caller asked for `requested`: the key's own, if it has one, which the caller may
/// repeat but not change; else the caller's. Its hash is always an implemented one.
///
/// # Errors
/// `TPM_RC_SCHEME` when neither names a scheme, when both do and differ, when the scheme is no signing scheme of this type of key, and
/// when the caller does not say which commitment an ECDAA key is to use up.
pub fn select_scheme(key: &Object, requested: Scheme) -> Result<Scheme, ResponseCode> {
    let (own, allowed): (Scheme, &[TpmAlgId]) = match key.public.parms {
        PublicParms::Rsa { scheme, .. } => (scheme, &[TpmAlgId::RSASSA, TpmAlgId::RSAPSS]),
        PublicParms::Ecc { scheme, .. } => (scheme, &ECC_SIGNING),
        PublicParms::KeyedHash { scheme } => (scheme, &[TpmAlgId::HMAC]),
        PublicParms::SymCipher { .. } => return Err(ResponseCode::SCHEME),
    };
    let selected = match (own.is_null(), requested.is_null()) {
        (true, _) => requested,
        (false, true) if own.scheme == TpmAlgId::ECDAA => return Err(ResponseCode::SCHEME),
        (false, true) => own,
        (false, false) if (own.scheme, own.hash) == (requested.scheme, requested.hash) => requested,
        (false, false) => return Err(ResponseCode::SCHEME),
    };
    if allowed.contains(&selected.scheme) && hash_alg(selected.hash).is_some() {
        Ok(selected)
    } else {
        Err(ResponseCode::SCHEME)
    }
}

/// Signs `digest` with a scheme that [`select_scheme`] returned for the same key. Attributes are the caller's business. An ECDAA signature
/// uses its commitment up.
///
/// # Errors
/// `TPM_RC_SCHEME` for a scheme that does not fit the key; `TPM_RC_VALUE` for a digest that does not fit the hash (RSA), a key too small for
/// it, or a commitment that is not outstanding (ECDAA); `TPM_RC_KEY` for a key without its private part; `TPM_RC_BINDING` for a private part that is not that of the public
/// one.
pub fn sign(
    cx: &mut Context<'_>,
    key: &Object,
    scheme: Scheme,
    digest: &[u8],
) -> Result<TpmtSignature, ResponseCode> {
    let Scheme { scheme, hash, count, .. } = scheme;
    let rng = &mut EnvRandom(cx.env);
    let alg = hash_alg(hash).ok_or(ResponseCode::SCHEME)?;
    let secret = key.sensitive.as_ref().ok_or(ResponseCode::KEY)?.sensitive.expose();
    match &key.public.parms {
        PublicParms::Rsa { .. } => {
            let private = rsa_private(key)?;
            let sig = match scheme {
                TpmAlgId::RSASSA => private.sign_rsassa(alg, digest),
                TpmAlgId::RSAPSS => private.sign_rsapss(alg, digest, rng),
                _ => return Err(ResponseCode::SCHEME),
            }
            .map_err(crypto_error)?;
            Ok(TpmtSignature::Rsa { scheme, hash, sig: Tpm2bPublicKeyRsa::new(sig)? })
        }
        PublicParms::Ecc { curve: id, .. } => {
            let curve = curve(*id).ok_or(ResponseCode::KEY)?;
            let (r, s) = match scheme {
                TpmAlgId::ECDSA => ecc::ecdsa_sign(curve, secret, digest, rng),
                TpmAlgId::ECSCHNORR => ecc::ec_schnorr_sign(curve, secret, alg, digest, rng),
                TpmAlgId::SM2 => ecc::sm2_sign(curve, secret, digest, rng),
                TpmAlgId::ECDAA => {
                    let commitments = &mut cx.state.volatile_mut().state_reset.commitments;
                    let r = commitments.promised(count, curve, &key.name).ok_or(ResponseCode::VALUE)?;
                    commitments.end(count);
                    ecc::ecdaa_sign(curve, secret, &r, alg, digest, rng)
                }
                _ => return Err(ResponseCode::SCHEME),
            }
            .map_err(crypto_error)?;
            let (r, s) = (Tpm2bEccParameter::new(r)?, Tpm2bEccParameter::new(s)?);
            Ok(TpmtSignature::Ecc { scheme, hash, r, s })
        }
        PublicParms::KeyedHash { .. } if scheme == TpmAlgId::HMAC => {
            let digest = hmac(alg, secret, &[digest]).to_vec();
            Ok(TpmtSignature::Hmac(TpmtHa { hash_alg: hash, digest }))
        }
        PublicParms::KeyedHash { .. } | PublicParms::SymCipher { .. } => Err(ResponseCode::SCHEME),
    }
}

fn crypto_error(e: CryptoError) -> ResponseCode {
    match e {
        CryptoError::Length | CryptoError::HashTooLarge | CryptoError::Range => ResponseCode::VALUE,
        CryptoError::Binding | CryptoError::Fault | CryptoError::Scalar => ResponseCode::BINDING,
        _ => ResponseCode::FAILURE,
    }
}

/// Checks a signature over `digest`. For an asymmetric key only the public part is needed, and its own scheme does not matter; an
/// HMAC key with a scheme verifies this one only.
///
/// # Errors
/// `TPM_RC_SIGNATURE` when it is not genuine; `TPM_RC_SCHEME` for a signature of another kind of key; `TPM_RC_HANDLE` for an HMAC key
/// without its private part, and for a keyed hash that is no HMAC key.
pub fn verify(key: &Object, digest: &Tpm2bDigest, signature: &TpmtSignature) -> Result<(), ResponseCode> {
    let genuine = match (&key.public.parms, signature) {
        (PublicParms::Rsa { .. }, TpmtSignature::Rsa { scheme, hash, sig }) => {
            let alg = implemented(*hash)?;
            let public = rsa_public_of(key)?;
            match *scheme {
                TpmAlgId::RSASSA => public.verify_rsassa(alg, digest, sig),
                TpmAlgId::RSAPSS => public.verify_rsapss(alg, digest, sig),
                _ => return Err(ResponseCode::SCHEME),
            }
        }
        (PublicParms::Ecc { curve: id, .. }, TpmtSignature::Ecc { scheme, hash, r, s }) => {
            let alg = implemented(*hash)?;
            let (Some(curve), PublicId::Ecc(public)) = (curve(*id), &key.public.unique) else {
                return Err(ResponseCode::KEY);
            };
            let public = point(public);
            match *scheme {
                TpmAlgId::ECDSA => ecc::ecdsa_verify(curve, &public, digest, r, s),
                TpmAlgId::ECSCHNORR => ecc::ec_schnorr_verify(curve, &public, alg, digest, r, s),
                TpmAlgId::SM2 => ecc::sm2_verify(curve, &public, digest, r, s),
                // ECDAA is verified with more than the key and the digest.
                _ => return Err(ResponseCode::SCHEME),
            }
        }
        // Of sealed data and other secrets, which need an authorization to be used, nobody may learn this way whether a guess is right.
        (PublicParms::KeyedHash { .. }, _) if !is_signing_key(key) => return Err(ResponseCode::HANDLE),
        (PublicParms::KeyedHash { scheme }, signature) => {
            let secret = key.sensitive.as_ref().ok_or(ResponseCode::HANDLE)?.sensitive.expose();
            let TpmtSignature::Hmac(mac) = signature else { return Err(ResponseCode::SCHEME) };
            let fits = scheme.is_null() || (scheme.scheme, scheme.hash) == (TpmAlgId::HMAC, mac.hash_alg);
            fits && ct_eq(&mac.digest, &hmac(implemented(mac.hash_alg)?, secret, &[digest]))
        }
        _ => return Err(ResponseCode::SCHEME),
    };
    if genuine { Ok(()) } else { Err(ResponseCode::SIGNATURE) }
}

fn implemented(hash: TpmAlgId) -> Result<HashAlg, ResponseCode> {
    hash_alg(hash).ok_or(ResponseCode::SCHEME)
}
