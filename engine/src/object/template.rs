//! Checks of a public area by itself and against its parent (Part 1, "Object Attributes"; Part 2, 8.3, 12.2; Part 3, 12.1 and 12.2).
//!
//! The checks stand in the order of the TCG reference implementation, as which of two faults is reported can be observed.

use crate::alg::hash_alg;
use crate::state::Object;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{
    ECC_KEY_EXCHANGES, PublicParms, TpmAlgId, TpmaObject, TpmtPublic, TpmtSymDef, TpmtSymDefObject,
};

/// The signing schemes of an ECC key.
pub const ECC_SIGNING: [TpmAlgId; 4] = [TpmAlgId::ECDSA, TpmAlgId::ECDAA, TpmAlgId::SM2, TpmAlgId::ECSCHNORR];

/// Checks a template for `TPM2_Create` (with a parent) or `TPM2_CreatePrimary` (without); `data_size` is the size of the caller's
/// sensitive data.
///
/// # Errors
/// `TPM_RC_HASH` for a null name algorithm; `TPM_RC_ATTRIBUTES` when sensitiveDataOrigin fits neither the type nor the data; else those of
/// [`check_attributes`]. They blame nothing yet.
pub fn check_creation(
    parent: Option<&Object>,
    public: &TpmtPublic,
    data_size: usize,
) -> Result<(), ResponseCode> {
    if public.name_alg == TpmAlgId::NULL {
        return Err(ResponseCode::HASH);
    }
    let a = public.attributes;
    let tpm_is_origin = a.has(TpmaObject::SENSITIVE_DATA_ORIGIN);
    // To a primary object the data is entropy, which goes with sensitiveDataOrigin.
    let data_without_need = parent.is_some() && tpm_is_origin && data_size != 0;
    let need_without_data = !tpm_is_origin && data_size == 0;
    let sealed = !a.any(TpmaObject::SIGN_ENCRYPT | TpmaObject::DECRYPT);
    let wrong_origin = match public.parms {
        // The secret of an asymmetric key is never the caller's.
        PublicParms::Rsa { .. } | PublicParms::Ecc { .. } => !tpm_is_origin,
        PublicParms::KeyedHash { .. } | PublicParms::SymCipher { .. } => {
            // A parent whose secret the caller knows must not look like one that never left the TPM.
            let known_parent = a.has(TpmaObject::RESTRICTED)
                && !tpm_is_origin
                && a.any(TpmaObject::FIXED_PARENT | TpmaObject::FIXED_TPM);
            let is_keyed_hash = matches!(public.parms, PublicParms::KeyedHash { .. });
            known_parent || (is_keyed_hash && sealed && tpm_is_origin)
        }
    };
    if need_without_data || data_without_need || wrong_origin {
        return Err(ResponseCode::ATTRIBUTES);
    }
    check_attributes(parent, public)
}

/// Checks the public area of an object that has or gets a sensitive area. Without a parent it is primary or comes from outside.
///
/// # Errors
/// `TPM_RC_HASH` for a null name algorithm; `TPM_RC_SIZE` for a policy of another size than its digest; `TPM_RC_ATTRIBUTES` for
/// fixedTPM, fixedParent or encryptedDuplication that contradict each other or the parent, for restricted without exactly one of sign
/// and decrypt, for a key that can do neither, for a derived object that is not fixed as its parent is, and for firmwareLimited and svnLimited, as there are no such hierarchies; and those of [`check_schemes`].
pub fn check_attributes(parent: Option<&Object>, public: &TpmtPublic) -> Result<(), ResponseCode> {
    let a = public.attributes;
    let alg = hash_alg(public.name_alg).ok_or(ResponseCode::HASH)?;
    if !public.auth_policy.is_empty() && public.auth_policy.len() != alg.digest_size() {
        return Err(ResponseCode::SIZE);
    }
    let fixed_tpm = a.has(TpmaObject::FIXED_TPM);
    let encrypted_duplication = a.has(TpmaObject::ENCRYPTED_DUPLICATION);
    let lineage_fits = match parent {
        // Under a parent that can be duplicated nothing is fixed to the TPM, and all are encrypted alike.
        Some(p) if !p.has(TpmaObject::FIXED_TPM) => {
            !fixed_tpm && encrypted_duplication == p.has(TpmaObject::ENCRYPTED_DUPLICATION)
        }
        _ => fixed_tpm == a.has(TpmaObject::FIXED_PARENT),
    };
    let (sign, decrypt) = (a.has(TpmaObject::SIGN_ENCRYPT), a.has(TpmaObject::DECRYPT));
    let restricted_without_use = sign == decrypt && a.has(TpmaObject::RESTRICTED);
    let key_without_use = !sign && !decrypt && !matches!(public.parms, PublicParms::KeyedHash { .. });
    if !lineage_fits
        || restricted_without_use
        || key_without_use
        || (fixed_tpm && encrypted_duplication)
        || a.any(TpmaObject::FIRMWARE_LIMITED | TpmaObject::SVN_LIMITED)
    {
        return Err(ResponseCode::ATTRIBUTES);
    }
    // A derived object has no private area that could go elsewhere, and is as fixed to the TPM as what it is derived from.
    if let Some(parent) = parent.filter(|p| p.is_derivation_parent())
        && (fixed_tpm != parent.has(TpmaObject::FIXED_TPM) || !a.has(TpmaObject::FIXED_PARENT))
    {
        return Err(ResponseCode::ATTRIBUTES);
    }
    check_schemes(parent, public)
}

/// Checks that schemes and symmetric algorithms of a public area fit its attributes, and, for a storage key that stays with its parent, the
/// parent's algorithms.
///
/// # Errors
/// `TPM_RC_SCHEME`, `TPM_RC_KDF`, `TPM_RC_SYMMETRIC`; `TPM_RC_HASH` for a storage key of another name algorithm than the parent that it
/// cannot leave.
pub fn check_schemes(parent: Option<&Object>, public: &TpmtPublic) -> Result<(), ResponseCode> {
    let a = public.attributes;
    let (sign, decrypt) = (a.has(TpmaObject::SIGN_ENCRYPT), a.has(TpmaObject::DECRYPT));
    let symmetric = match &public.parms {
        PublicParms::SymCipher { sym } => {
            if sym.0 == TpmtSymDef::Null {
                return Err(ResponseCode::SYMMETRIC);
            }
            // What decrypts must have a mode that does, or none yet; CMAC is for signing alone.
            if decrypt && sym.0.block_cipher().is_some_and(|(_, _, mode)| mode == TpmAlgId::CMAC) {
                return Err(ResponseCode::SCHEME);
            }
            Some(*sym)
        }
        PublicParms::KeyedHash { scheme } => {
            let expected = match (sign, decrypt) {
                (true, false) => TpmAlgId::HMAC,
                (false, true) => TpmAlgId::XOR,
                _ => TpmAlgId::NULL,
            };
            // Objects are derived with one KDF only; the others say nothing that any command would use.
            let derives = a.has(TpmaObject::RESTRICTED) && scheme.scheme == TpmAlgId::XOR;
            if scheme.scheme != expected || (derives && scheme.kdf != TpmAlgId::KDF1_SP800_108) {
                return Err(ResponseCode::SCHEME);
            }
            None
        }
        PublicParms::Rsa { symmetric, scheme, .. } => {
            let (signing, decrypting) =
                ([TpmAlgId::RSASSA, TpmAlgId::RSAPSS], [TpmAlgId::RSAES, TpmAlgId::OAEP]);
            check_asymmetric(public, scheme.scheme, &signing, &decrypting, *symmetric)?;
            Some(*symmetric)
        }
        PublicParms::Ecc { symmetric, scheme, kdf, .. } => {
            check_asymmetric(public, scheme.scheme, &ECC_SIGNING, &ECC_KEY_EXCHANGES, *symmetric)?;
            if !kdf.is_null() {
                return Err(ResponseCode::KDF);
            }
            Some(*symmetric)
        }
    };
    match symmetric {
        Some(sym) if a.has(TpmaObject::RESTRICTED | TpmaObject::DECRYPT) => {
            check_storage_key(parent, public, sym)
        }
        _ => Ok(()),
    }
}

fn check_asymmetric(
    public: &TpmtPublic,
    scheme: TpmAlgId,
    signing: &[TpmAlgId],
    decrypting: &[TpmAlgId],
    symmetric: TpmtSymDefObject,
) -> Result<(), ResponseCode> {
    let a = public.attributes;
    let restricted = a.has(TpmaObject::RESTRICTED);
    let decrypt = a.has(TpmaObject::DECRYPT);
    let none = scheme == TpmAlgId::NULL;
    let fits = match (a.has(TpmaObject::SIGN_ENCRYPT), decrypt) {
        (true, false) => signing.contains(&scheme) || (none && !restricted),
        (false, true) => none || (!restricted && decrypting.contains(&scheme)),
        // One field cannot hold a scheme for each of the two uses.
        _ => none,
    };
    if !fits {
        return Err(ResponseCode::SCHEME);
    }
    if !(restricted && decrypt) && symmetric.0 != TpmtSymDef::Null {
        return Err(ResponseCode::SYMMETRIC);
    }
    Ok(())
}

fn check_storage_key(
    parent: Option<&Object>,
    public: &TpmtPublic,
    symmetric: TpmtSymDefObject,
) -> Result<(), ResponseCode> {
    if symmetric.0 == TpmtSymDef::Null {
        return Err(ResponseCode::SYMMETRIC);
    }
    if let Some(parent) = parent.filter(|_| public.attributes.has(TpmaObject::FIXED_PARENT)) {
        if parent.public.name_alg != public.name_alg {
            return Err(ResponseCode::HASH);
        }
        if symmetric_of(&parent.public.parms) != Some(symmetric) {
            return Err(ResponseCode::SYMMETRIC);
        }
    }
    Ok(())
}

/// The symmetric algorithm of a public area; `None` for a keyed hash, which has none.
#[must_use]
pub const fn symmetric_of(parms: &PublicParms) -> Option<TpmtSymDefObject> {
    match parms {
        PublicParms::SymCipher { sym } => Some(*sym),
        PublicParms::Rsa { symmetric, .. } | PublicParms::Ecc { symmetric, .. } => Some(*symmetric),
        PublicParms::KeyedHash { .. } => None,
    }
}
