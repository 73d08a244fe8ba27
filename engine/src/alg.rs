//! From algorithm ids of the specification to the algorithms of [`crate::crypto`].

use crate::crypto::sym::Mode;
use crate::crypto::{Digest, HashAlg, SymAlg};
use vtpm_protocol::tpm::{Tpm2bDigest, TpmAlgId, TpmiAlgHash, TpmtSymDef};

/// The hash algorithm of an id; `None` for `TPM_ALG_NULL` and what is not implemented.
#[must_use]
pub fn hash_alg(id: TpmAlgId) -> Option<HashAlg> {
    match id {
        TpmAlgId::SHA1 => Some(HashAlg::Sha1),
        TpmAlgId::SHA256 => Some(HashAlg::Sha256),
        TpmAlgId::SHA384 => Some(HashAlg::Sha384),
        TpmAlgId::SHA512 => Some(HashAlg::Sha512),
        TpmAlgId::SM3_256 => Some(HashAlg::Sm3),
        TpmAlgId::SHA3_256 => Some(HashAlg::Sha3_256),
        TpmAlgId::SHA3_384 => Some(HashAlg::Sha3_384),
        TpmAlgId::SHA3_512 => Some(HashAlg::Sha3_512),
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
        HashAlg::Sm3 => TpmAlgId::SM3_256,
        HashAlg::Sha3_256 => TpmAlgId::SHA3_256,
        HashAlg::Sha3_384 => TpmAlgId::SHA3_384,
        HashAlg::Sha3_512 => TpmAlgId::SHA3_512,
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

/// A block cipher with the size of its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SymCipher {
    /// The cipher.
    pub alg: SymAlg,
    /// Bits of a key, whole bytes.
    pub key_bits: u16,
}

impl SymCipher {
    /// The cipher of a definition; `None` for `TPM_ALG_NULL` and XOR, which are none.
    #[must_use]
    pub fn of(def: TpmtSymDef) -> Option<Self> {
        let (alg, key_bits, _) = def.block_cipher()?;
        Some(Self { alg: Self::alg_of(alg)?, key_bits })
    }

    /// The block cipher of an id; `None` for what is none.
    #[must_use]
    pub fn alg_of(id: TpmAlgId) -> Option<SymAlg> {
        match id {
            TpmAlgId::AES => Some(SymAlg::Aes),
            TpmAlgId::CAMELLIA => Some(SymAlg::Camellia),
            TpmAlgId::TDES => Some(SymAlg::Tdes),
            _ => None,
        }
    }

    /// Bytes of a key.
    #[must_use]
    pub fn key_size(self) -> usize {
        usize::from(self.key_bits / 8)
    }
}

/// The id of a block cipher.
#[must_use]
pub const fn sym_id(alg: SymAlg) -> TpmAlgId {
    match alg {
        SymAlg::Aes => TpmAlgId::AES,
        SymAlg::Camellia => TpmAlgId::CAMELLIA,
        SymAlg::Tdes => TpmAlgId::TDES,
    }
}

/// The mode of operation of an id; `None` for `TPM_ALG_NULL` and what is none, such as CMAC.
#[must_use]
pub fn cipher_mode(id: TpmAlgId) -> Option<Mode> {
    match id {
        TpmAlgId::CTR => Some(Mode::Ctr),
        TpmAlgId::OFB => Some(Mode::Ofb),
        TpmAlgId::CBC => Some(Mode::Cbc),
        TpmAlgId::CFB => Some(Mode::Cfb),
        TpmAlgId::ECB => Some(Mode::Ecb),
        _ => None,
    }
}
