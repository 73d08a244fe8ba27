//! Schemes of keys and signatures (Part 2, chapter 11.2).

use super::constants::TpmAlgId;
use super::ecc::KDFS;
use super::lists::decode_hash_alg;
use crate::codec::{Decode, Encode, Reader};
use crate::rc::ResponseCode;

/// A scheme with its hash: `TPMT_RSA_SCHEME`, `TPMT_ECC_SCHEME`, `TPMT_SIG_SCHEME`, `TPMT_KEYEDHASH_SCHEME`, `TPMT_RSA_DECRYPT`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scheme {
    /// The scheme; `TPM_ALG_NULL` for none.
    pub scheme: TpmAlgId,
    /// The hash, `TPM_ALG_NULL` where the scheme has none.
    pub hash: TpmAlgId,
    /// The KDF of an XOR keyed-hash scheme, else `TPM_ALG_NULL`.
    pub kdf: TpmAlgId,
    /// Which commitment an ECDAA signature uses up, else 0.
    pub count: u16,
}

impl Scheme {
    /// `TPM_ALG_NULL`.
    pub const NULL: Self = Self::new(TpmAlgId::NULL, TpmAlgId::NULL);

    /// A scheme with a hash and no KDF.
    #[must_use]
    pub const fn new(scheme: TpmAlgId, hash: TpmAlgId) -> Self {
        Self { scheme, hash, kdf: TpmAlgId::NULL, count: 0 }
    }

    /// Whether there is no scheme.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.scheme == TpmAlgId::NULL
    }

    pub(super) fn decode_from(
        r: &mut Reader<'_>,
        allowed: &[TpmAlgId],
        error: ResponseCode,
    ) -> Result<Self, ResponseCode> {
        let scheme = TpmAlgId::decode(r)?;
        if scheme == TpmAlgId::NULL {
            return Ok(Self::NULL);
        }
        if !allowed.contains(&scheme) {
            return Err(error);
        }
        match scheme {
            TpmAlgId::RSAES => Ok(Self::new(scheme, TpmAlgId::NULL)),
            TpmAlgId::XOR => {
                let hash = decode_hash_alg(r)?;
                let kdf = TpmAlgId::decode(r)?;
                // `TPMI_ALG_KDF+`: which of them a key can have is not a question of its form.
                if kdf != TpmAlgId::NULL && !KDFS.contains(&kdf) {
                    return Err(ResponseCode::KDF);
                }
                Ok(Self { kdf, ..Self::new(scheme, hash) })
            }
            TpmAlgId::ECDAA => {
                let hash = decode_hash_alg(r)?;
                Ok(Self { count: u16::decode(r)?, ..Self::new(scheme, hash) })
            }
            _ => Ok(Self::new(scheme, decode_hash_alg(r)?)),
        }
    }
}

impl Encode for Scheme {
    fn encode(&self, out: &mut Vec<u8>) {
        self.scheme.encode(out);
        match self.scheme {
            TpmAlgId::NULL | TpmAlgId::RSAES => {}
            TpmAlgId::XOR => (self.hash, self.kdf).encode(out),
            TpmAlgId::ECDAA => (self.hash, self.count).encode(out),
            _ => self.hash.encode(out),
        }
    }
}

/// Schemes of an RSA key, `TPMI_ALG_RSA_SCHEME`.
pub const RSA_SCHEMES: [TpmAlgId; 4] = [TpmAlgId::RSASSA, TpmAlgId::RSAES, TpmAlgId::RSAPSS, TpmAlgId::OAEP];
/// Signing schemes, `TPMI_ALG_SIG_SCHEME`.
pub const SIG_SCHEMES: [TpmAlgId; 7] = [
    TpmAlgId::RSASSA,
    TpmAlgId::RSAPSS,
    TpmAlgId::ECDSA,
    TpmAlgId::ECDAA,
    TpmAlgId::SM2,
    TpmAlgId::ECSCHNORR,
    TpmAlgId::HMAC,
];
/// Schemes of a keyed hash, `TPMI_ALG_KEYEDHASH_SCHEME`.
pub const KEYEDHASH_SCHEMES: [TpmAlgId; 2] = [TpmAlgId::HMAC, TpmAlgId::XOR];

/// `TPMT_SIG_SCHEME`, 11.2.1.5, as a command parameter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TpmtSigScheme(pub Scheme);

impl Encode for TpmtSigScheme {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }
}

impl Decode for TpmtSigScheme {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        Scheme::decode_from(r, &SIG_SCHEMES, ResponseCode::SCHEME).map(Self)
    }
}

/// `TPMT_RSA_DECRYPT`, 11.2.4.4, as a command parameter: RSAES, OAEP or none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TpmtRsaDecrypt(pub Scheme);

impl Encode for TpmtRsaDecrypt {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }
}

impl Decode for TpmtRsaDecrypt {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        Scheme::decode_from(r, &[TpmAlgId::RSAES, TpmAlgId::OAEP], ResponseCode::VALUE).map(Self)
    }
}
