//! Public and sensitive areas, their parameters, and creation data (Part 2, chapters 11, 12 and 15).

use super::attributes::{TpmaLocality, TpmaObject};
use super::constants::{TpmAlgId, TpmEccCurve};
use super::ecc::{KDFS, TpmiEccCurve, TpmsEccPoint, TpmtEccScheme, TpmtKdfScheme};
use super::lists::{TpmlPcrSelection, decode_hash_alg, decode_hash_alg_or_null, hash_size};
use super::sized::{
    Tpm2bAuth, Tpm2bData, Tpm2bDigest, Tpm2bLabel, Tpm2bName, Tpm2bPrivateKeyRsa, Tpm2bPublicKeyRsa,
    Tpm2bSensitiveData,
};
use crate::codec::{Decode, Encode, Reader, encode_sized_with};
use crate::rc::ResponseCode;
use crate::structure;

/// The RSA key sizes that objects may have, in bits: `TPMI_RSA_KEY_BITS`.
pub const RSA_KEY_BITS: [u16; 4] = [1024, 2048, 3072, 4096];
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

/// Decodes a `TPMT_SYM_DEF`.
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

/// A `TPM2B` around a structure, 12.2.5 and others: the size must be that of the structure.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sized2b<T>(pub T);

impl<T: Encode> Encode for Sized2b<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_sized_with(out, |o| self.0.encode(o));
    }
}

impl<T: Decode> Decode for Sized2b<T> {
    /// An empty one is `TPM_RC_SIZE`, as is one that the structure does not fill, once the structure itself is in order.
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        let size = u16::decode(r)?;
        if size == 0 {
            return Err(ResponseCode::SIZE);
        }
        decode_filling(r, size).map(Self)
    }
}

/// Decodes a structure that stands in a `TPM2B` of `size` bytes. What is wrong in it is told before a size that is wrong, as in libtpms.
fn decode_filling<T: Decode>(r: &mut Reader<'_>, size: u16) -> Result<T, ResponseCode> {
    let before = r.remaining();
    let value = T::decode(r)?;
    if before.checked_sub(r.remaining()) == Some(usize::from(size)) {
        Ok(value)
    } else {
        Err(ResponseCode::SIZE)
    }
}

/// `TPM2B_PUBLIC`, 12.2.5.
pub type Tpm2bPublic = Sized2b<TpmtPublic>;
/// `TPM2B_ECC_POINT`, 11.2.5.3.
pub type Tpm2bEccPoint = Sized2b<TpmsEccPoint>;

/// `TPMU_SENSITIVE_COMPOSITE` with its selector, 12.3.2.
#[derive(Clone)]
pub enum SensitiveComposite {
    /// One prime of an RSA key.
    Rsa(Tpm2bPrivateKeyRsa),
    /// The private scalar of an ECC key.
    Ecc(crate::tpm::Secret2b<66>),
    /// An HMAC or XOR key, or sealed data.
    Bits(Tpm2bSensitiveData),
    /// A symmetric key.
    Sym(crate::tpm::Secret2b<32>),
}

impl SensitiveComposite {
    /// The selector, `TPMI_ALG_PUBLIC`.
    #[must_use]
    pub const fn alg(&self) -> TpmAlgId {
        match self {
            Self::Rsa(_) => TpmAlgId::RSA,
            Self::Ecc(_) => TpmAlgId::ECC,
            Self::Bits(_) => TpmAlgId::KEYEDHASH,
            Self::Sym(_) => TpmAlgId::SYMCIPHER,
        }
    }

    /// The secret bytes.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        match self {
            Self::Rsa(b) => b.expose(),
            Self::Ecc(b) => b.expose(),
            Self::Bits(b) => b.expose(),
            Self::Sym(b) => b.expose(),
        }
    }
}

/// `TPMT_SENSITIVE`, 12.3.2.4: the part of an object that never leaves in the clear.
#[derive(Clone)]
pub struct TpmtSensitive {
    /// The authorization value.
    pub auth_value: Tpm2bAuth,
    /// The seed of a storage key, the obfuscation value of other objects.
    pub seed_value: Tpm2bAuth,
    /// The secret itself.
    pub sensitive: SensitiveComposite,
}

impl Encode for TpmtSensitive {
    fn encode(&self, out: &mut Vec<u8>) {
        self.sensitive.alg().encode(out);
        self.auth_value.encode(out);
        self.seed_value.encode(out);
        match &self.sensitive {
            SensitiveComposite::Rsa(b) => b.encode(out),
            SensitiveComposite::Ecc(b) => b.encode(out),
            SensitiveComposite::Bits(b) => b.encode(out),
            SensitiveComposite::Sym(b) => b.encode(out),
        }
    }
}

impl Decode for TpmtSensitive {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        let alg = TpmAlgId::decode(r)?;
        if ![TpmAlgId::RSA, TpmAlgId::ECC, TpmAlgId::KEYEDHASH, TpmAlgId::SYMCIPHER].contains(&alg) {
            return Err(ResponseCode::TYPE);
        }
        let auth_value = Decode::decode(r)?;
        let seed_value = Decode::decode(r)?;
        let sensitive = match alg {
            TpmAlgId::RSA => SensitiveComposite::Rsa(Decode::decode(r)?),
            TpmAlgId::ECC => SensitiveComposite::Ecc(Decode::decode(r)?),
            TpmAlgId::KEYEDHASH => SensitiveComposite::Bits(Decode::decode(r)?),
            TpmAlgId::SYMCIPHER => SensitiveComposite::Sym(Decode::decode(r)?),
            _ => return Err(ResponseCode::TYPE),
        };
        Ok(Self { auth_value, seed_value, sensitive })
    }
}

/// An optional `TPM2B_SENSITIVE`: `TPM2_LoadExternal` takes an empty one for a public key.
#[derive(Clone)]
pub struct Tpm2bSensitive(pub Option<TpmtSensitive>);

impl Encode for Tpm2bSensitive {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_sized_with(out, |o| {
            if let Some(s) = &self.0 {
                s.encode(o);
            }
        });
    }
}

impl Decode for Tpm2bSensitive {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        match u16::decode(r)? {
            0 => Ok(Self(None)),
            size => decode_filling(r, size).map(|s| Self(Some(s))),
        }
    }
}

/// `TPMS_SENSITIVE_CREATE`, 11.1.15, in its `TPM2B` (11.1.16).
#[derive(Clone, Default)]
pub struct Tpm2bSensitiveCreate {
    /// The authorization value of the new object.
    pub user_auth: Tpm2bAuth,
    /// Data to seal or key bits to take over; empty when the TPM makes them.
    pub data: Tpm2bSensitiveData,
}

impl Encode for Tpm2bSensitiveCreate {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_sized_with(out, |o| (&self.user_auth, &self.data).encode(o));
    }
}

impl Decode for Tpm2bSensitiveCreate {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        let size = u16::decode(r)?;
        if size == 0 {
            return Err(ResponseCode::SIZE);
        }
        let (user_auth, data) = decode_filling(r, size)?;
        Ok(Self { user_auth, data })
    }
}

structure! {
    /// `TPMS_CREATION_DATA`, 15.1.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct TpmsCreationData {
        /// The PCRs that `pcr_digest` covers.
        pub pcr_select: TpmlPcrSelection,
        /// Digest of those PCRs with the object's name algorithm.
        pub pcr_digest: Tpm2bDigest,
        /// The locality of the creation.
        pub locality: TpmaLocality,
        /// The parent's name algorithm, null for a primary object.
        pub parent_name_alg: TpmAlgId,
        /// The parent's Name, or the hierarchy handle.
        pub parent_name: Tpm2bName,
        /// The parent's Qualified Name, or the hierarchy handle.
        pub parent_qualified_name: Tpm2bName,
        /// What the caller wanted remembered.
        pub outside_info: Tpm2bData,
    }
}

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
