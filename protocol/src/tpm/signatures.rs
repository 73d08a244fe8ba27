//! Signatures, tickets and attestation structures (Part 2, 10.7, 10.12 and 11.3).

use super::constants::{TpmAlgId, TpmHandle, TpmSt};
use super::lists::{TpmlPcrSelection, TpmtHa, decode_hash_alg};
use super::sized::{
    Tpm2bData, Tpm2bDigest, Tpm2bEccParameter, Tpm2bMaxNvBuffer, Tpm2bName, Tpm2bPublicKeyRsa,
};
use super::structures::TpmiRhHierarchy;
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
    /// ECDSA, ECDAA, SM2 or ECSCHNORR.
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
            TpmAlgId::ECDSA | TpmAlgId::ECDAA | TpmAlgId::SM2 | TpmAlgId::ECSCHNORR => Ok(Self::Ecc {
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

/// `TPMT_SIGNATURE` without the plus sign, as a parameter: `TPM_ALG_NULL` is `TPM_RC_SCHEME`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GivenSignature(pub TpmtSignature);

impl Decode for GivenSignature {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        match TpmtSignature::decode(r)? {
            TpmtSignature::Null => Err(ResponseCode::SCHEME),
            signature => Ok(Self(signature)),
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

macro_rules! tickets {
    ($($(#[$m:meta])* $name:ident: $($tag:ident)|+;)*) => {$(
        $(#[$m])*
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub struct $name(pub TpmtTk);

        impl Encode for $name {
            fn encode(&self, out: &mut Vec<u8>) {
                self.0.encode(out);
            }
        }

        impl Decode for $name {
            fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
                let tag = TpmSt::decode(r)?;
                if !matches!(tag, $(TpmSt::$tag)|+) {
                    // As other TPMs have it: a number that is no structure's tag is no tag at all.
                    return Err(if tag.name().is_some() { ResponseCode::TAG } else { ResponseCode::VALUE });
                }
                let TpmiRhHierarchy(hierarchy) = Decode::decode(r)?;
                Ok(Self(TpmtTk { tag, hierarchy, digest: Decode::decode(r)? }))
            }
        }
    )*};
}

tickets! {
    /// `TPMT_TK_CREATION` as a command parameter, 10.7.3: the tag and the hierarchy are checked.
    TpmtTkCreation: CREATION;
    /// `TPMT_TK_VERIFIED` as a command parameter, 10.7.4.
    TpmtTkVerified: VERIFIED;
    /// `TPMT_TK_AUTH` as a command parameter, 10.7.5.
    TpmtTkAuth: AUTH_SECRET | AUTH_SIGNED;
    /// `TPMT_TK_HASHCHECK` as a command parameter, 10.7.6.
    TpmtTkHashcheck: HASHCHECK;
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
    /// `TPMS_COMMAND_AUDIT_INFO`.
    CommandAudit {
        /// How often an audit digest was begun.
        audit_counter: u64,
        /// The hash of the audit.
        digest_alg: TpmAlgId,
        /// The audit digest; empty when nothing was audited since it was reported.
        audit_digest: Tpm2bDigest,
        /// Digest of the codes of the audited commands.
        command_digest: Tpm2bDigest,
    },
    /// `TPMS_SESSION_AUDIT_INFO`.
    SessionAudit {
        /// The session is the exclusive audit session.
        exclusive_session: bool,
        /// Its audit digest.
        session_digest: Tpm2bDigest,
    },
    /// `TPMS_TIME_ATTEST_INFO`.
    Time {
        /// Time, Clock and their counts in plain.
        time: TpmsTimeInfo,
        /// The firmware version in plain.
        firmware_version: u64,
    },
    /// `TPMS_NV_CERTIFY_INFO`.
    Nv {
        /// Name of the index.
        index_name: Tpm2bName,
        /// Where in the index the data begins.
        offset: u16,
        /// The data.
        nv_contents: Tpm2bMaxNvBuffer,
    },
    /// `TPMS_NV_DIGEST_CERTIFY_INFO`.
    NvDigest {
        /// Name of the index.
        index_name: Tpm2bName,
        /// Digest of all of its data, with the hash of the signing scheme.
        nv_digest: Tpm2bDigest,
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
            Self::CommandAudit { .. } => TpmSt::ATTEST_COMMAND_AUDIT,
            Self::SessionAudit { .. } => TpmSt::ATTEST_SESSION_AUDIT,
            Self::Time { .. } => TpmSt::ATTEST_TIME,
            Self::Nv { .. } => TpmSt::ATTEST_NV,
            Self::NvDigest { .. } => TpmSt::ATTEST_NV_DIGEST,
        }
    }

    fn decode_for(tag: TpmSt, r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        Ok(match tag {
            TpmSt::ATTEST_QUOTE => {
                Self::Quote { pcr_select: Decode::decode(r)?, pcr_digest: Decode::decode(r)? }
            }
            TpmSt::ATTEST_CREATION => {
                Self::Creation { object_name: Decode::decode(r)?, creation_hash: Decode::decode(r)? }
            }
            TpmSt::ATTEST_CERTIFY => {
                Self::Certify { name: Decode::decode(r)?, qualified_name: Decode::decode(r)? }
            }
            TpmSt::ATTEST_COMMAND_AUDIT => Self::CommandAudit {
                audit_counter: Decode::decode(r)?,
                digest_alg: decode_hash_alg(r)?,
                audit_digest: Decode::decode(r)?,
                command_digest: Decode::decode(r)?,
            },
            TpmSt::ATTEST_SESSION_AUDIT => Self::SessionAudit {
                exclusive_session: Decode::decode(r)?,
                session_digest: Decode::decode(r)?,
            },
            TpmSt::ATTEST_TIME => {
                Self::Time { time: Decode::decode(r)?, firmware_version: Decode::decode(r)? }
            }
            TpmSt::ATTEST_NV => Self::Nv {
                index_name: Decode::decode(r)?,
                offset: Decode::decode(r)?,
                nv_contents: Decode::decode(r)?,
            },
            TpmSt::ATTEST_NV_DIGEST => {
                Self::NvDigest { index_name: Decode::decode(r)?, nv_digest: Decode::decode(r)? }
            }
            _ => return Err(ResponseCode::SELECTOR),
        })
    }
}

/// The union alone: the selector stands before the other fields of `TPMS_ATTEST`.
impl Encode for Attested {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Quote { pcr_select, pcr_digest } => (pcr_select, pcr_digest).encode(out),
            Self::Creation { object_name, creation_hash } => (object_name, creation_hash).encode(out),
            Self::Certify { name, qualified_name } => (name, qualified_name).encode(out),
            Self::CommandAudit { audit_counter, digest_alg, audit_digest, command_digest } => {
                (*audit_counter, *digest_alg, audit_digest, command_digest).encode(out);
            }
            Self::SessionAudit { exclusive_session, session_digest } => {
                (*exclusive_session, session_digest).encode(out);
            }
            Self::Time { time, firmware_version } => (time, *firmware_version).encode(out),
            Self::Nv { index_name, offset, nv_contents } => (index_name, *offset, nv_contents).encode(out),
            Self::NvDigest { index_name, nv_digest } => (index_name, nv_digest).encode(out),
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
        self.attested.encode(out);
    }
}

impl Decode for TpmsAttest {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        if u32::decode(r)? != super::constants::TPM_GENERATED {
            return Err(ResponseCode::VALUE);
        }
        let tag = TpmSt::decode(r)?;
        let (qualified_signer, extra_data, clock_info, firmware_version) = Decode::decode(r)?;
        let attested = Attested::decode_for(tag, r)?;
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
        assert_eq!(decode_exact::<GivenSignature>(&[0, 0x10, 0]), Err(ResponseCode::SCHEME));
    }

    #[test]
    fn an_attestation_without_the_magic_is_refused() {
        assert_eq!(decode_exact::<TpmsAttest>(&[0, 0, 0, 0, 0x80, 0x18]), Err(ResponseCode::VALUE));
    }

    #[test]
    fn a_ticket_has_the_tag_of_its_kind_and_a_hierarchy() {
        let bytes = |tag: u16, hierarchy: TpmHandle| (tag, hierarchy, Tpm2bDigest::empty()).to_bytes();
        let good = bytes(0x8021, TpmHandle::NULL);
        assert_eq!(decode_exact(&good), Ok(TpmtTkCreation(TpmtTk::null(TpmSt::CREATION))));
        assert_eq!(decode_exact::<TpmtTkVerified>(&good), Err(ResponseCode::TAG));
        assert_eq!(decode_exact::<TpmtTkAuth>(&good), Err(ResponseCode::TAG));
        assert_eq!(decode_exact::<TpmtTkAuth>(&bytes(0x8026, TpmHandle::NULL)), Err(ResponseCode::VALUE));
        assert!(decode_exact::<TpmtTkAuth>(&bytes(0x8023, TpmHandle::OWNER)).is_ok());
        assert!(decode_exact::<TpmtTkAuth>(&bytes(0x8025, TpmHandle::PLATFORM)).is_ok());
        let lockout = bytes(0x8024, TpmHandle::LOCKOUT);
        assert_eq!(decode_exact::<TpmtTkHashcheck>(&lockout), Err(ResponseCode::VALUE));
    }

    #[test]
    fn every_kind_of_attestation_survives_its_bytes() {
        let name = Tpm2bName::new(vec![1, 2, 3]).unwrap();
        let digest = Tpm2bDigest::new(vec![4; 32]).unwrap();
        let clock_info = TpmsClockInfo { clock: 5, reset_count: 6, restart_count: 7, safe: true };
        let time = TpmsTimeInfo { time: 8, clock_info };
        let kinds = [
            Attested::Quote { pcr_select: TpmlPcrSelection::default(), pcr_digest: digest.clone() },
            Attested::Creation { object_name: name.clone(), creation_hash: digest.clone() },
            Attested::Certify { name: name.clone(), qualified_name: name.clone() },
            Attested::CommandAudit {
                audit_counter: 9,
                digest_alg: TpmAlgId::SHA256,
                audit_digest: Tpm2bDigest::empty(),
                command_digest: digest.clone(),
            },
            Attested::SessionAudit { exclusive_session: true, session_digest: digest.clone() },
            Attested::Time { time, firmware_version: 10 },
            Attested::Nv {
                index_name: name.clone(),
                offset: 11,
                nv_contents: Tpm2bMaxNvBuffer::new(vec![12]).unwrap(),
            },
            Attested::NvDigest { index_name: name.clone(), nv_digest: digest },
        ];
        let tags = [0x8018, 0x801a, 0x8017, 0x8015, 0x8016, 0x8019, 0x8014, 0x801c];
        for (attested, tag) in kinds.into_iter().zip(tags) {
            let extra_data = Tpm2bData::new(vec![13]).unwrap();
            let qualified_signer = name.clone();
            let attest =
                TpmsAttest { qualified_signer, extra_data, clock_info, firmware_version: 14, attested };
            let bytes = attest.to_bytes();
            assert_eq!(bytes[..6], [0xff, 0x54, 0x43, 0x47, (tag >> 8) as u8, tag as u8]);
            assert_eq!(decode_exact(&bytes), Ok(attest));
        }
    }
}
