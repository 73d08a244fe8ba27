//! Signatures, tickets and attestation structures (Part 2, 10.7, 10.12 and 11.3).

use super::constants::{TpmAlgId, TpmHandle, TpmSt};
use super::lists::{TpmlPcrSelection, TpmtHa, decode_hash_alg};
use super::sized::{Tpm2bData, Tpm2bDigest, Tpm2bEccParameter, Tpm2bName, Tpm2bPublicKeyRsa};
use crate::codec::{Decode, Encode, Reader};
use crate::rc::ResponseCode;
use crate::structure;

/// `TPMT_SIGNATURE`, 11.3.4.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TpmtSignature {
    /// `TPM_ALG_NULL`: no signature.
    Null,
    /// RSASSA or RSAPSS.
    Rsa {
        /// Which of the two.
        scheme: TpmAlgId,
        /// The hash of the signed digest.
        hash: TpmAlgId,
        /// The signature.
        sig: Tpm2bPublicKeyRsa,
    },
    /// ECDSA, ECSCHNORR and the like.
    Ecc {
        /// Which one.
        scheme: TpmAlgId,
        /// The hash of the signed digest.
        hash: TpmAlgId,
        /// The first half.
        r: Tpm2bEccParameter,
        /// The second half.
        s: Tpm2bEccParameter,
    },
    /// An HMAC, as a `TPMT_HA`.
    Hmac(TpmtHa),
}

impl Encode for TpmtSignature {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => TpmAlgId::NULL.encode(out),
            Self::Rsa { scheme, hash, sig } => (scheme, hash, sig).encode(out),
            Self::Ecc { scheme, hash, r, s } => (scheme, hash, r, s).encode(out),
            Self::Hmac(ha) => (TpmAlgId::HMAC, ha).encode(out),
        }
    }
}

impl Decode for TpmtSignature {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        let scheme = TpmAlgId::decode(r)?;
        match scheme {
            TpmAlgId::NULL => Ok(Self::Null),
            TpmAlgId::RSASSA | TpmAlgId::RSAPSS => {
                Ok(Self::Rsa { scheme, hash: decode_hash_alg(r)?, sig: Decode::decode(r)? })
            }
            TpmAlgId::ECDSA | TpmAlgId::ECSCHNORR => Ok(Self::Ecc {
                scheme,
                hash: decode_hash_alg(r)?,
                r: Decode::decode(r)?,
                s: Decode::decode(r)?,
            }),
            TpmAlgId::HMAC => Decode::decode(r).map(Self::Hmac),
            _ => Err(ResponseCode::SCHEME),
        }
    }
}

structure! {
    /// `TPMT_TK_CREATION`, `_VERIFIED`, `_AUTH`, `_HASHCHECK`, 10.7: proof that this TPM made or checked something.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct TpmtTk {
        /// Which kind.
        pub tag: TpmSt,
        /// The hierarchy whose proof made the HMAC.
        pub hierarchy: TpmHandle,
        /// The HMAC; empty in a NULL ticket.
        pub digest: Tpm2bDigest,
    }
}

impl TpmtTk {
    /// The NULL ticket of a kind.
    #[must_use]
    pub const fn null(tag: TpmSt) -> Self {
        Self { tag, hierarchy: TpmHandle::NULL, digest: Tpm2bDigest::empty() }
    }

    /// Whether this is a NULL ticket: no hierarchy, no HMAC.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.hierarchy == TpmHandle::NULL && self.digest.is_empty()
    }
}

structure! {
    /// `TPMS_CLOCK_INFO`, 10.11.1.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct TpmsClockInfo {
        /// Milliseconds that the TPM has been powered, over resets.
        pub clock: u64,
        /// TPM Resets since manufacture or the last `TPM2_Clear`.
        pub reset_count: u32,
        /// TPM Restarts and Resumes since the last TPM Reset.
        pub restart_count: u32,
        /// No higher value of clock has been reported before.
        pub safe: bool,
    }
}

structure! {
    /// `TPMS_TIME_INFO`, 10.11.6.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct TpmsTimeInfo {
        /// Milliseconds since the last `_TPM_Init`.
        pub time: u64,
        /// The clock.
        pub clock_info: TpmsClockInfo,
    }
}

/// `TPMU_ATTEST` with its selector, 10.12.11.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Attested {
    /// `TPMS_QUOTE_INFO`.
    Quote {
        /// The quoted PCRs.
        pcr_select: TpmlPcrSelection,
        /// Their digest with the hash of the signing scheme.
        pcr_digest: Tpm2bDigest,
    },
    /// `TPMS_CREATION_INFO`.
    Creation {
        /// Name of the object.
        object_name: Tpm2bName,
        /// Digest of the creation data.
        creation_hash: Tpm2bDigest,
    },
    /// `TPMS_CERTIFY_INFO`.
    Certify {
        /// Name of the object.
        name: Tpm2bName,
        /// Its Qualified Name.
        qualified_name: Tpm2bName,
    },
}

impl Attested {
    /// The structure tag.
    #[must_use]
    pub const fn tag(&self) -> TpmSt {
        match self {
            Self::Quote { .. } => TpmSt::ATTEST_QUOTE,
            Self::Creation { .. } => TpmSt::ATTEST_CREATION,
            Self::Certify { .. } => TpmSt::ATTEST_CERTIFY,
        }
    }
}

/// `TPMS_ATTEST`, 10.12.12.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TpmsAttest {
    /// Qualified Name of the signing key.
    pub qualified_signer: Tpm2bName,
    /// The caller's nonce.
    pub extra_data: Tpm2bData,
    /// The clock, obfuscated for keys outside the endorsement and platform hierarchies.
    pub clock_info: TpmsClockInfo,
    /// Firmware version, obfuscated likewise.
    pub firmware_version: u64,
    /// What is attested.
    pub attested: Attested,
}

impl Encode for TpmsAttest {
    fn encode(&self, out: &mut Vec<u8>) {
        super::constants::TPM_GENERATED.encode(out);
        self.attested.tag().encode(out);
        (&self.qualified_signer, &self.extra_data, self.clock_info, self.firmware_version).encode(out);
        match &self.attested {
            Attested::Quote { pcr_select, pcr_digest } => (pcr_select, pcr_digest).encode(out),
            Attested::Creation { object_name, creation_hash } => (object_name, creation_hash).encode(out),
            Attested::Certify { name, qualified_name } => (name, qualified_name).encode(out),
        }
    }
}

impl Decode for TpmsAttest {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        if u32::decode(r)? != super::constants::TPM_GENERATED {
            return Err(ResponseCode::VALUE);
        }
        let tag = TpmSt::decode(r)?;
        let (qualified_signer, extra_data, clock_info, firmware_version) = Decode::decode(r)?;
        let attested = match tag {
            TpmSt::ATTEST_QUOTE => {
                Attested::Quote { pcr_select: Decode::decode(r)?, pcr_digest: Decode::decode(r)? }
            }
            TpmSt::ATTEST_CREATION => {
                Attested::Creation { object_name: Decode::decode(r)?, creation_hash: Decode::decode(r)? }
            }
            TpmSt::ATTEST_CERTIFY => {
                Attested::Certify { name: Decode::decode(r)?, qualified_name: Decode::decode(r)? }
            }
            _ => return Err(ResponseCode::SELECTOR),
        };
        Ok(Self { qualified_signer, extra_data, clock_info, firmware_version, attested })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::decode_exact;

    #[test]
    fn an_unknown_signature_scheme_is_refused() {
        assert_eq!(decode_exact::<TpmtSignature>(&[0, 0x99]), Err(ResponseCode::SCHEME));
        assert_eq!(decode_exact::<TpmtSignature>(&[0, 0x10]), Ok(TpmtSignature::Null));
    }

    #[test]
    fn an_attestation_without_the_magic_is_refused() {
        assert_eq!(decode_exact::<TpmsAttest>(&[0, 0, 0, 0, 0x80, 0x18]), Err(ResponseCode::VALUE));
    }
}
