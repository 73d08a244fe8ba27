//! Sensitive areas: what objects keep to themselves (Part 2, chapters 11.1 and 12.3).

use super::constants::TpmAlgId;
use super::sized::{Secret2b, Tpm2bAuth, Tpm2bPrivateKeyRsa, Tpm2bSensitiveData, decode_filling};
use crate::codec::{Decode, Encode, Reader, encode_sized_with};
use crate::rc::ResponseCode;

/// `TPMU_SENSITIVE_COMPOSITE` with its selector, 12.3.2.
#[derive(Clone)]
pub enum SensitiveComposite {
    /// One prime of an RSA key.
    Rsa(Tpm2bPrivateKeyRsa),
    /// The private scalar of an ECC key.
    Ecc(Secret2b<66>),
    /// An HMAC or XOR key, or sealed data.
    Bits(Tpm2bSensitiveData),
    /// A symmetric key.
    Sym(Secret2b<32>),
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
