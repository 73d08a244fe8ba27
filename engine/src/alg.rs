//! From algorithm ids of the specification to the algorithms of [`crate::crypto`].

use crate::crypto::{Digest, HashAlg};
use vtpm_protocol::tpm::{Tpm2bDigest, TpmAlgId, TpmiAlgHash};

/// The hash algorithm of an id; `None` for `TPM_ALG_NULL` and what is not implemented.
#[must_use]
pub fn hash_alg(id: TpmAlgId) -> Option<HashAlg> {
    match id {
        TpmAlgId::SHA1 => Some(HashAlg::Sha1),
        TpmAlgId::SHA256 => Some(HashAlg::Sha256),
        TpmAlgId::SHA384 => Some(HashAlg::Sha384),
        TpmAlgId::SHA512 => Some(HashAlg::Sha512),
        _ => None,
    }
}

/// The id of a hash algorithm.
#[must_use]
pub const fn hash_id(alg: HashAlg) -> TpmAlgId {
    match alg {
        HashAlg::Sha1 => TpmAlgId::SHA1,
        HashAlg::Sha256 => TpmAlgId::SHA256,
        HashAlg::Sha384 => TpmAlgId::SHA384,
        HashAlg::Sha512 => TpmAlgId::SHA512,
    }
}

/// The algorithm of a decoded `TPMI_ALG_HASH`, which is always an implemented one.
#[must_use]
pub fn hash_of(id: TpmiAlgHash) -> HashAlg {
    hash_alg(id.0).unwrap_or(HashAlg::Sha256)
}

/// A digest as a `TPM2B_DIGEST`.
#[must_use]
pub fn digest_2b(digest: &Digest) -> Tpm2bDigest {
    Tpm2bDigest::new(digest.as_slice()).unwrap_or_default()
}
