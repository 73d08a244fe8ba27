//! Public areas and their parameters (Part 2, chapter 12.2).

use super::attributes::TpmaObject;
use super::constants::{TpmAlgId, TpmEccCurve};
use super::ecc::{TpmiEccCurve, TpmsEccPoint, TpmtEccScheme, TpmtKdfScheme};
use super::lists::{decode_hash_alg, decode_hash_alg_or_null};
use super::schemes::{KEYEDHASH_SCHEMES, RSA_SCHEMES, Scheme};
use super::sized::{Sized2b, Tpm2bDigest, Tpm2bLabel, Tpm2bPublicKeyRsa};
use super::symmetric::{TpmtSymDef, TpmtSymDefObject};
use crate::codec::{Decode, Encode, Reader};
use crate::rc::ResponseCode;
use crate::structure;

/// The RSA key sizes that objects may have, in bits: `TPMI_RSA_KEY_BITS`.
pub const RSA_KEY_BITS: [u16; 4] = [1024, 2048, 3072, 4096];

/// `TPMU_PUBLIC_PARMS` with its selector, 12.2.3.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PublicParms {
    /// `TPMS_KEYEDHASH_PARMS`.
    KeyedHash {
        /// HMAC or XOR, or null for sealed data and for keys without a fixed scheme.
        scheme: Scheme,
    },
    /// `TPMS_SYMCIPHER_PARMS`.
    SymCipher {
        /// The cipher.
        sym: TpmtSymDefObject,
    },
    /// `TPMS_RSA_PARMS`.
    Rsa {
        /// The cipher for children of a storage key, else null.
        symmetric: TpmtSymDefObject,
        /// The scheme.
        scheme: Scheme,
        /// Size of the modulus in bits.
        key_bits: u16,
        /// Public exponent; 0 stands for 65,537.
        exponent: u32,
    },
    /// `TPMS_ECC_PARMS`.
    Ecc {
        /// The cipher for children of a storage key, else null.
        symmetric: TpmtSymDefObject,
        /// The scheme.
        scheme: Scheme,
        /// The curve.
        curve: TpmEccCurve,
        /// The KDF of `TPM2_ECC_Encrypt`; in keys of this TPM always null.
        kdf: Scheme,
    },
}

impl PublicParms {
    /// The selector, `TPMI_ALG_PUBLIC`.
    #[must_use]
    pub const fn alg(&self) -> TpmAlgId {
        match self {
            Self::KeyedHash { .. } => TpmAlgId::KEYEDHASH,
            Self::SymCipher { .. } => TpmAlgId::SYMCIPHER,
            Self::Rsa { .. } => TpmAlgId::RSA,
            Self::Ecc { .. } => TpmAlgId::ECC,
        }
    }

    fn decode_for(alg: TpmAlgId, r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        match alg {
            TpmAlgId::KEYEDHASH => Ok(Self::KeyedHash {
                scheme: Scheme::decode_from(r, &KEYEDHASH_SCHEMES, ResponseCode::VALUE)?,
            }),
            // `TPMS_SYMCIPHER_PARMS` takes no null cipher.
            TpmAlgId::SYMCIPHER => match Decode::decode(r)? {
                TpmtSymDefObject(TpmtSymDef::Null) => Err(ResponseCode::SYMMETRIC),
                sym => Ok(Self::SymCipher { sym }),
            },
            TpmAlgId::RSA => {
                let symmetric = Decode::decode(r)?;
                let scheme = Scheme::decode_from(r, &RSA_SCHEMES, ResponseCode::VALUE)?;
                let key_bits = u16::decode(r)?;
                if !RSA_KEY_BITS.contains(&key_bits) {
                    return Err(ResponseCode::VALUE);
                }
                Ok(Self::Rsa { symmetric, scheme, key_bits, exponent: u32::decode(r)? })
            }
            TpmAlgId::ECC => {
                let symmetric = Decode::decode(r)?;
                let TpmtEccScheme(scheme) = Decode::decode(r)?;
                let TpmiEccCurve(curve) = Decode::decode(r)?;
                let TpmtKdfScheme(kdf) = Decode::decode(r)?;
                Ok(Self::Ecc { symmetric, scheme, curve, kdf })
            }
            _ => Err(ResponseCode::TYPE),
        }
    }
}

impl Encode for PublicParms {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::KeyedHash { scheme } => scheme.encode(out),
            Self::SymCipher { sym } => sym.encode(out),
            Self::Rsa { symmetric, scheme, key_bits, exponent } => {
                (symmetric, scheme, *key_bits, *exponent).encode(out);
            }
            Self::Ecc { symmetric, scheme, curve, kdf } => (symmetric, scheme, curve, kdf).encode(out),
        }
    }
}

/// `TPMT_PUBLIC_PARMS`, 12.2.3.8: parameters with their selector in front. What decodes is supported.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TpmtPublicParms(pub PublicParms);

impl Encode for TpmtPublicParms {
    fn encode(&self, out: &mut Vec<u8>) {
        (self.0.alg(), &self.0).encode(out);
    }
}

impl Decode for TpmtPublicParms {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        let alg = TpmAlgId::decode(r)?;
        PublicParms::decode_for(alg, r).map(Self)
    }
}

/// `TPMU_PUBLIC_ID`, 12.2.3.2.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PublicId {
    /// Of a keyed hash or symmetric cipher: a digest over seed and sensitive data.
    Digest(Tpm2bDigest),
    /// The RSA modulus.
    Rsa(Tpm2bPublicKeyRsa),
    /// The public point.
    Ecc(TpmsEccPoint),
}

impl PublicId {
    /// As it stands in a template that says nothing of it.
    fn empty_for(alg: TpmAlgId) -> Self {
        match alg {
            TpmAlgId::RSA => Self::Rsa(Tpm2bPublicKeyRsa::empty()),
            TpmAlgId::ECC => Self::Ecc(TpmsEccPoint::default()),
            _ => Self::Digest(Tpm2bDigest::empty()),
        }
    }

    fn decode_for(alg: TpmAlgId, r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        match alg {
            TpmAlgId::RSA => Decode::decode(r).map(Self::Rsa),
            TpmAlgId::ECC => Decode::decode(r).map(Self::Ecc),
            _ => Decode::decode(r).map(Self::Digest),
        }
    }
}

impl Encode for PublicId {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Digest(d) => d.encode(out),
            Self::Rsa(n) => n.encode(out),
            Self::Ecc(p) => p.encode(out),
        }
    }
}

/// `TPMT_PUBLIC`, 12.2.4: the public area of an object, or a template for one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TpmtPublic {
    /// The hash of the Name; `TPM_ALG_NULL` only in `TPM2_LoadExternal`.
    pub name_alg: TpmAlgId,
    /// What the object is and may do.
    pub attributes: TpmaObject,
    /// The policy, or the Empty Buffer.
    pub auth_policy: Tpm2bDigest,
    /// Algorithm and parameters; the selector is `parms.alg()`.
    pub parms: PublicParms,
    /// The unique part, or the caller's entropy in a template.
    pub unique: PublicId,
}

impl Encode for TpmtPublic {
    fn encode(&self, out: &mut Vec<u8>) {
        (self.parms.alg(), self.name_alg, self.attributes).encode(out);
        (&self.auth_policy, &self.parms, &self.unique).encode(out);
    }
}

impl Decode for TpmtPublic {
    /// As `TPMT_PUBLIC+`: a null name algorithm decodes.
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        Self::decode_with(r, decode_hash_alg_or_null)
    }
}

impl TpmtPublic {
    fn decode_with(
        r: &mut Reader<'_>,
        decode_name_alg: fn(&mut Reader<'_>) -> Result<TpmAlgId, ResponseCode>,
    ) -> Result<Self, ResponseCode> {
        let mut public = Self::decode_before_unique(r, decode_name_alg)?;
        public.unique = PublicId::decode_for(public.parms.alg(), r)?;
        Ok(public)
    }

    /// All but the last field, which is left empty.
    fn decode_before_unique(
        r: &mut Reader<'_>,
        decode_name_alg: fn(&mut Reader<'_>) -> Result<TpmAlgId, ResponseCode>,
    ) -> Result<Self, ResponseCode> {
        let alg = TpmAlgId::decode(r)?;
        if ![TpmAlgId::RSA, TpmAlgId::ECC, TpmAlgId::KEYEDHASH, TpmAlgId::SYMCIPHER].contains(&alg) {
            return Err(ResponseCode::TYPE);
        }
        let name_alg = decode_name_alg(r)?;
        let attributes = TpmaObject::decode(r)?;
        let auth_policy = Tpm2bDigest::decode(r)?;
        let parms = PublicParms::decode_for(alg, r)?;
        let unique = PublicId::empty_for(alg);
        Ok(Self { name_alg, attributes, auth_policy, parms, unique })
    }
}

structure! {
    /// `TPMS_DERIVE`, 11.1.11: what tells one derived object from another.
    #[derive(Clone)]
    pub struct TpmsDerive {
        /// The label.
        pub label: Tpm2bLabel,
        /// The context.
        pub context: Tpm2bLabel,
    }
}

/// The template of a derived object, 12.2.6: `TPMT_PUBLIC` with a name algorithm, but label and context in place of the unique field.
#[derive(Clone)]
pub struct DerivationTemplate {
    /// The public area, its unique field empty.
    pub public: TpmtPublic,
    /// Label and context.
    pub derive: TpmsDerive,
}

impl Decode for DerivationTemplate {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        let public = TpmtPublic::decode_before_unique(r, decode_hash_alg)?;
        Ok(Self { public, derive: Decode::decode(r)? })
    }
}

/// `TPMT_PUBLIC` without the plus sign: a null name algorithm is `TPM_RC_HASH`, whatever is wrong behind it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NamedPublic(pub TpmtPublic);

impl Decode for NamedPublic {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        TpmtPublic::decode_with(r, decode_hash_alg).map(Self)
    }
}

/// `TPM2B_PUBLIC`, 12.2.5.
pub type Tpm2bPublic = Sized2b<TpmtPublic>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::decode_exact;

    fn ecc_template() -> TpmtPublic {
        TpmtPublic {
            name_alg: TpmAlgId::SHA256,
            attributes: TpmaObject(0x0003_0472),
            auth_policy: Tpm2bDigest::empty(),
            parms: PublicParms::Ecc {
                symmetric: TpmtSymDefObject(TpmtSymDef::Aes { key_bits: 128, mode: TpmAlgId::CFB }),
                scheme: Scheme::NULL,
                curve: TpmEccCurve::NIST_P256,
                kdf: Scheme::NULL,
            },
            unique: PublicId::Ecc(TpmsEccPoint::default()),
        }
    }

    #[test]
    fn a_public_area_survives_its_bytes() {
        let bytes = ecc_template().to_bytes();
        let expected = [
            0, 0x23, 0, 0x0b, 0, 3, 4, 0x72, 0, 0, 0, 6, 0, 0x80, 0, 0x43, 0, 0x10, 0, 3, 0, 0x10, 0, 0, 0, 0,
        ];
        assert_eq!(bytes, expected);
        assert_eq!(decode_exact::<TpmtPublic>(&bytes), Ok(ecc_template()));
    }

    #[test]
    fn unknown_algorithms_are_named_by_the_right_code() {
        let mut bytes = ecc_template().to_bytes();
        bytes[1] = 0x99;
        assert_eq!(decode_exact::<TpmtPublic>(&bytes), Err(ResponseCode::TYPE));
        let mut bytes = ecc_template().to_bytes();
        bytes[3] = 0x99;
        assert_eq!(decode_exact::<TpmtPublic>(&bytes), Err(ResponseCode::HASH));
        let mut bytes = ecc_template().to_bytes();
        bytes[19] = 9;
        assert_eq!(decode_exact::<TpmtPublic>(&bytes), Err(ResponseCode::CURVE));
    }

    #[test]
    fn what_is_wrong_in_a_sized_structure_is_told_before_its_size() {
        let good = Sized2b(ecc_template()).to_bytes();
        for size in [1u16, 3, 25, 27, 300] {
            let mut bytes = good.clone();
            bytes[..2].copy_from_slice(&size.to_be_bytes());
            assert_eq!(decode_exact::<Tpm2bPublic>(&bytes), Err(ResponseCode::SIZE), "{size}");
            bytes[3] = 0x99;
            assert_eq!(decode_exact::<Tpm2bPublic>(&bytes), Err(ResponseCode::TYPE), "{size}");
            bytes.truncate(3);
            assert_eq!(decode_exact::<Tpm2bPublic>(&bytes), Err(ResponseCode::INSUFFICIENT), "{size}");
        }
    }

    #[test]
    fn a_sized_structure_must_fill_its_size() {
        let mut bytes = Sized2b(ecc_template()).to_bytes();
        bytes[1] += 1;
        bytes.push(0);
        assert_eq!(decode_exact::<Tpm2bPublic>(&bytes), Err(ResponseCode::SIZE));
        assert_eq!(decode_exact::<Tpm2bPublic>(&[0, 0]), Err(ResponseCode::SIZE));
    }
}
