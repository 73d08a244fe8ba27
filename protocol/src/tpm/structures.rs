//! Small structures: contexts, capability data, sessions in commands, creation data (Part 2, chapters 10, 14 and 15).

use super::attributes::{TpmaAct, TpmaAlgorithm, TpmaCc, TpmaLocality};
use super::constants::{PCR_COUNT, TpmAlgId, TpmCap, TpmCc, TpmEccCurve, TpmHandle, TpmHt, TpmPt, TpmPtPcr};
use super::lists::{TpmlPcrSelection, TpmtHa};
use super::sized::{Tpm2bAuth, Tpm2bContextData, Tpm2bData, Tpm2bDigest, Tpm2bName, Tpm2bNonce};
use crate::codec::{Decode, Encode, Reader};
use crate::rc::ResponseCode;
use crate::structure;

structure! {
    /// `TPMS_CONTEXT`, 14.5.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct TpmsContext {
        /// Number of the context, unique in this boot.
        pub sequence: u64,
        /// What was saved: a session's handle, or `0x80000000` to `0x80000002` for objects.
        pub saved_handle: TpmHandle,
        /// The hierarchy of a saved object.
        pub hierarchy: TpmHandle,
        /// Encrypted and integrity-protected.
        pub context_blob: Tpm2bContextData,
    }
}

structure! {
    /// `TPMS_AUTH_COMMAND`, 10.13.2: one entry of the authorization area.
    #[derive(Clone)]
    pub struct TpmsAuthCommand {
        /// The session, or `TPM_RS_PW`.
        pub session_handle: TpmHandle,
        /// The caller's new nonce.
        pub nonce: Tpm2bNonce,
        /// What the session is used for.
        pub session_attributes: super::attributes::TpmaSession,
        /// The HMAC, or the password.
        pub hmac: Tpm2bAuth,
    }
}

structure! {
    /// `TPMS_AUTH_RESPONSE`, 10.13.3.
    #[derive(Clone)]
    pub struct TpmsAuthResponse {
        /// The TPM's new nonce.
        pub nonce: Tpm2bNonce,
        /// The attributes as they are after the command.
        pub session_attributes: super::attributes::TpmaSession,
        /// The HMAC of the response.
        pub hmac: Tpm2bAuth,
    }
}

structure! {
    /// `TPMS_ALG_PROPERTY`, 10.8.1.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct TpmsAlgProperty {
        /// The algorithm.
        pub alg: TpmAlgId,
        /// What it is good for.
        pub properties: TpmaAlgorithm,
    }
}

structure! {
    /// `TPMS_TAGGED_PROPERTY`, 10.8.2.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct TpmsTaggedProperty {
        /// Which property.
        pub property: TpmPt,
        /// Its value.
        pub value: u32,
    }
}

/// `TPMS_TAGGED_PCR_SELECT`, 10.8.3.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TpmsTaggedPcrSelect {
    /// Which property.
    pub tag: TpmPtPcr,
    /// The PCRs that have it.
    pub select: [u8; super::constants::PCR_SELECT_SIZE],
}

impl Encode for TpmsTaggedPcrSelect {
    fn encode(&self, out: &mut Vec<u8>) {
        (self.tag, 3u8, self.select).encode(out);
    }
}

structure! {
    /// `TPMS_TAGGED_POLICY`, 10.8.4.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct TpmsTaggedPolicy {
        /// A permanent handle.
        pub handle: TpmHandle,
        /// Its policy.
        pub policy: TpmtHa,
    }
}

structure! {
    /// `TPMS_ACT_DATA`, 10.8.5.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct TpmsActData {
        /// The timer.
        pub handle: TpmHandle,
        /// Seconds until it expires; 0 for one that does not run, [`ACT_STOPPED`](super::constants::ACT_STOPPED) for one that stands.
        pub timeout: u32,
        /// Whether it has expired.
        pub attributes: TpmaAct,
    }
}

/// `TPMS_CAPABILITY_DATA`, 10.10.2.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TpmsCapabilityData {
    /// Algorithms.
    Algs(Vec<TpmsAlgProperty>),
    /// Handles.
    Handles(Vec<TpmHandle>),
    /// Commands with their attributes.
    Commands(Vec<TpmaCc>),
    /// Commands that need physical presence.
    PpCommands(Vec<TpmCc>),
    /// Commands that are audited.
    AuditCommands(Vec<TpmCc>),
    /// The PCR allocation.
    Pcrs(TpmlPcrSelection),
    /// TPM properties.
    TpmProperties(Vec<TpmsTaggedProperty>),
    /// PCR properties.
    PcrProperties(Vec<TpmsTaggedPcrSelect>),
    /// Curves.
    EccCurves(Vec<TpmEccCurve>),
    /// Policies of permanent handles.
    AuthPolicies(Vec<TpmsTaggedPolicy>),
    /// Authenticated countdown timers.
    Act(Vec<TpmsActData>),
}

impl Encode for TpmsCapabilityData {
    fn encode(&self, out: &mut Vec<u8>) {
        fn list<T: Encode>(cap: TpmCap, entries: &[T], out: &mut Vec<u8>) {
            cap.encode(out);
            u32::try_from(entries.len()).unwrap_or(u32::MAX).encode(out);
            entries.iter().for_each(|e| e.encode(out));
        }
        match self {
            Self::Algs(l) => list(TpmCap::ALGS, l, out),
            Self::Handles(l) => list(TpmCap::HANDLES, l, out),
            Self::Commands(l) => list(TpmCap::COMMANDS, l, out),
            Self::PpCommands(l) => list(TpmCap::PP_COMMANDS, l, out),
            Self::AuditCommands(l) => list(TpmCap::AUDIT_COMMANDS, l, out),
            Self::Pcrs(l) => (TpmCap::PCRS, l).encode(out),
            Self::TpmProperties(l) => list(TpmCap::TPM_PROPERTIES, l, out),
            Self::PcrProperties(l) => list(TpmCap::PCR_PROPERTIES, l, out),
            Self::EccCurves(l) => list(TpmCap::ECC_CURVES, l, out),
            Self::AuthPolicies(l) => list(TpmCap::AUTH_POLICIES, l, out),
            Self::Act(l) => list(TpmCap::ACT, l, out),
        }
    }
}

macro_rules! handle_type {
    ($(#[$m:meta])* $name:ident, |$h:ident| $ok:expr, $error:expr) => {
        $(#[$m])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub struct $name(pub TpmHandle);

        impl Encode for $name {
            fn encode(&self, out: &mut Vec<u8>) {
                self.0.encode(out);
            }
        }

        impl Decode for $name {
            fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
                let $h = TpmHandle::decode(r)?;
                if $ok { Ok(Self($h)) } else { Err($error) }
            }
        }
    };
}

handle_type! {
    /// `TPMI_RH_HIERARCHY+` as a parameter: owner, endorsement, platform or null, 9.13.
    TpmiRhHierarchy,
    |h| matches!(h, TpmHandle::OWNER | TpmHandle::ENDORSEMENT | TpmHandle::PLATFORM | TpmHandle::NULL),
    ResponseCode::VALUE
}

handle_type! {
    /// `TPMI_RH_ENABLES` as a parameter: owner, endorsement, platform or the platform's NV indices, 9.14.
    TpmiRhEnables,
    |h| matches!(h, TpmHandle::OWNER | TpmHandle::ENDORSEMENT | TpmHandle::PLATFORM | TpmHandle::PLATFORM_NV),
    ResponseCode::VALUE
}

handle_type! {
    /// `TPMI_DH_PCR` as a parameter, 9.6.
    TpmiDhPcr,
    |h| h.0 < PCR_COUNT,
    ResponseCode::VALUE
}

handle_type! {
    /// `TPMI_DH_PERSISTENT` as a parameter, 9.5.
    TpmiDhPersistent,
    |h| h.handle_type() == TpmHt::PERSISTENT,
    ResponseCode::VALUE
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
