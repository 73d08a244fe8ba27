//! Symmetric ciphers, their key sizes and modes (Part 2, chapters 9 and 11.1).

use super::constants::TpmAlgId;
use super::lists::{decode_hash_alg, hash_size};
use crate::codec::{Decode, Encode, Reader};
use crate::rc::ResponseCode;

/// The AES key sizes, in bits: `TPMI_AES_KEY_BITS`.
pub const AES_KEY_BITS: [u16; 3] = [128, 192, 256];
/// The Camellia key sizes, in bits: `TPMI_CAMELLIA_KEY_BITS`.
pub const CAMELLIA_KEY_BITS: [u16; 3] = [128, 192, 256];
/// The TDES key sizes, in bits with those of parity: `TPMI_TDES_KEY_BITS`.
pub const TDES_KEY_BITS: [u16; 2] = [128, 192];
/// The modes that encrypt: `TPMI_ALG_CIPHER_MODE` without the plus sign.
pub const CIPHER_MODES: [TpmAlgId; 5] =
    [TpmAlgId::CTR, TpmAlgId::OFB, TpmAlgId::CBC, TpmAlgId::CFB, TpmAlgId::ECB];

/// `TPMT_SYM_DEF` (11.1.6) and `TPMT_SYM_DEF_OBJECT` (11.1.7); the latter has no XOR.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TpmtSymDef {
    /// `TPM_ALG_NULL`.
    Null,
    /// AES in a mode, which is one of [`CIPHER_MODES`], CMAC, or `TPM_ALG_NULL` where the caller may choose it later.
    Aes {
        /// Key size in bits.
        key_bits: u16,
        /// The mode of operation.
        mode: TpmAlgId,
    },
    /// Camellia in a mode.
    Camellia {
        /// Key size in bits.
        key_bits: u16,
        /// The mode of operation.
        mode: TpmAlgId,
    },
    /// TDES in a mode.
    Tdes {
        /// Key size in bits.
        key_bits: u16,
        /// The mode of operation.
        mode: TpmAlgId,
    },
    /// XOR obfuscation with a hash, for parameter encryption only.
    Xor {
        /// The hash of its KDF.
        hash: TpmAlgId,
    },
}

impl TpmtSymDef {
    fn decode_with(r: &mut Reader<'_>, allow_xor: bool) -> Result<Self, ResponseCode> {
        match TpmAlgId::decode(r)? {
            TpmAlgId::NULL => Ok(Self::Null),
            TpmAlgId::AES => {
                decode_cipher(r, &AES_KEY_BITS).map(|(key_bits, mode)| Self::Aes { key_bits, mode })
            }
            TpmAlgId::CAMELLIA => {
                decode_cipher(r, &CAMELLIA_KEY_BITS).map(|(key_bits, mode)| Self::Camellia { key_bits, mode })
            }
            TpmAlgId::TDES => {
                decode_cipher(r, &TDES_KEY_BITS).map(|(key_bits, mode)| Self::Tdes { key_bits, mode })
            }
            TpmAlgId::XOR if allow_xor => Ok(Self::Xor { hash: decode_hash_alg(r)? }),
            _ => Err(ResponseCode::SYMMETRIC),
        }
    }

    /// Algorithm, key size in bits, and mode of a block cipher; `None` for the others.
    #[must_use]
    pub const fn block_cipher(self) -> Option<(TpmAlgId, u16, TpmAlgId)> {
        match self {
            Self::Aes { key_bits, mode } => Some((TpmAlgId::AES, key_bits, mode)),
            Self::Camellia { key_bits, mode } => Some((TpmAlgId::CAMELLIA, key_bits, mode)),
            Self::Tdes { key_bits, mode } => Some((TpmAlgId::TDES, key_bits, mode)),
            Self::Null | Self::Xor { .. } => None,
        }
    }
}

/// Key size and mode of a block cipher; the mode is `TPMI_ALG_SYM_MODE+`.
fn decode_cipher(r: &mut Reader<'_>, key_bits: &[u16]) -> Result<(u16, TpmAlgId), ResponseCode> {
    let bits = u16::decode(r)?;
    if !key_bits.contains(&bits) {
        return Err(ResponseCode::VALUE);
    }
    let mode = TpmAlgId::decode(r)?;
    if mode == TpmAlgId::NULL || mode == TpmAlgId::CMAC || CIPHER_MODES.contains(&mode) {
        Ok((bits, mode))
    } else {
        Err(ResponseCode::MODE)
    }
}

impl Encode for TpmtSymDef {
    fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Null => TpmAlgId::NULL.encode(out),
            Self::Aes { key_bits, mode } => (TpmAlgId::AES, key_bits, mode).encode(out),
            Self::Camellia { key_bits, mode } => (TpmAlgId::CAMELLIA, key_bits, mode).encode(out),
            Self::Tdes { key_bits, mode } => (TpmAlgId::TDES, key_bits, mode).encode(out),
            Self::Xor { hash } => (TpmAlgId::XOR, hash).encode(out),
        }
    }
}

impl Decode for TpmtSymDef {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        Self::decode_with(r, true)
    }
}

/// `TPMT_SYM_DEF_OBJECT` as it stands in public areas and in `TPM2_Duplicate`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TpmtSymDefObject(pub TpmtSymDef);

impl Encode for TpmtSymDefObject {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }
}

impl Decode for TpmtSymDefObject {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        TpmtSymDef::decode_with(r, false).map(Self)
    }
}

/// `TPMI_ALG_CIPHER_MODE+`, 9.35: a mode that encrypts, or `TPM_ALG_NULL`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TpmiAlgCipherModeOrNull(pub TpmAlgId);

impl Encode for TpmiAlgCipherModeOrNull {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }
}

impl Decode for TpmiAlgCipherModeOrNull {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        let mode = TpmAlgId::decode(r)?;
        if mode == TpmAlgId::NULL || CIPHER_MODES.contains(&mode) {
            Ok(Self(mode))
        } else {
            Err(ResponseCode::MODE)
        }
    }
}

/// `TPMI_ALG_MAC_SCHEME+`, 9.36: CMAC, an implemented hash, or `TPM_ALG_NULL`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TpmiAlgMacSchemeOrNull(pub TpmAlgId);

impl Encode for TpmiAlgMacSchemeOrNull {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }
}

impl Decode for TpmiAlgMacSchemeOrNull {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        let scheme = TpmAlgId::decode(r)?;
        if scheme == TpmAlgId::NULL || scheme == TpmAlgId::CMAC || hash_size(scheme).is_some() {
            Ok(Self(scheme))
        } else {
            Err(ResponseCode::SYMMETRIC)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::decode_exact;

    #[test]
    fn a_cipher_has_its_key_sizes_and_modes() {
        let decode = |alg: TpmAlgId, bits: u16, mode: TpmAlgId| {
            decode_exact::<TpmtSymDefObject>(&(alg, bits, mode).to_bytes()).map(|s| s.0.block_cipher())
        };
        for (alg, sizes) in [
            (TpmAlgId::AES, &AES_KEY_BITS[..]),
            (TpmAlgId::CAMELLIA, &CAMELLIA_KEY_BITS),
            (TpmAlgId::TDES, &TDES_KEY_BITS),
        ] {
            for bits in [0, 56, 64, 112, 128, 168, 192, 256, 512] {
                let expected = if sizes.contains(&bits) {
                    Ok(Some((alg, bits, TpmAlgId::CFB)))
                } else {
                    Err(ResponseCode::VALUE)
                };
                assert_eq!(decode(alg, bits, TpmAlgId::CFB), expected);
            }
            for mode in [TpmAlgId::CMAC, TpmAlgId::NULL, TpmAlgId::ECB] {
                assert_eq!(decode(alg, 128, mode), Ok(Some((alg, 128, mode))));
            }
            assert_eq!(decode(alg, 128, TpmAlgId::SHA256), Err(ResponseCode::MODE));
        }
        assert_eq!(decode(TpmAlgId::SM4, 128, TpmAlgId::CFB), Err(ResponseCode::SYMMETRIC));
        assert_eq!(
            decode_exact::<TpmtSymDefObject>(&(TpmAlgId::XOR, TpmAlgId::SHA256).to_bytes()),
            Err(ResponseCode::SYMMETRIC)
        );
    }

    #[test]
    fn modes_and_schemes_as_parameters() {
        let mode = |id: TpmAlgId| decode_exact::<TpmiAlgCipherModeOrNull>(&id.to_bytes()).map(|m| m.0);
        let scheme = |id: TpmAlgId| decode_exact::<TpmiAlgMacSchemeOrNull>(&id.to_bytes()).map(|s| s.0);
        assert_eq!(mode(TpmAlgId::NULL), Ok(TpmAlgId::NULL));
        assert_eq!(mode(TpmAlgId::OFB), Ok(TpmAlgId::OFB));
        assert_eq!(mode(TpmAlgId::CMAC), Err(ResponseCode::MODE));
        for ok in [TpmAlgId::NULL, TpmAlgId::CMAC, TpmAlgId::SHA1, TpmAlgId::SHA3_512, TpmAlgId::SM3_256] {
            assert_eq!(scheme(ok), Ok(ok));
        }
        assert_eq!(scheme(TpmAlgId::OFB), Err(ResponseCode::SYMMETRIC));
    }
}
