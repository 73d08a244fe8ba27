//! Endorsement keys and the storage key, as the TCG's EK Credential Profile (version 2.5) and swtpm have them.

use vtpm_protocol::tpm::{
    PublicId, PublicParms, Scheme, Tpm2b, TpmAlgId, TpmEccCurve, TpmaObject, TpmsEccPoint, TpmtPublic,
    TpmtSymDef, TpmtSymDefObject,
};

/// Persistent handle of a storage key.
pub(super) const STORAGE_KEY: u32 = 0x8100_0001;
/// NV index of the platform certificate.
pub(super) const PLATFORM_CERTIFICATE: u32 = 0x01c0_8000;

/// Policy A with SHA-256: `TPM2_PolicySecret` of the endorsement hierarchy. Table B.1.
const POLICY_A_SHA256: [u8; 32] = [
    0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xb3, 0xf8, 0x1a, 0x90, 0xcc, 0x8d, 0x46, 0xa5, 0xd7, 0x24, 0xfd,
    0x52, 0xd7, 0x6e, 0x06, 0x52, 0x0b, 0x64, 0xf2, 0xa1, 0xda, 0x1b, 0x33, 0x14, 0x69, 0xaa,
];
/// Policy B with SHA-384: Policy A, or the one in an NV index. Table B.6.
const POLICY_B_SHA384: [u8; 48] = [
    0xb2, 0x6e, 0x7d, 0x28, 0xd1, 0x1a, 0x50, 0xbc, 0x53, 0xd8, 0x82, 0xbc, 0xf5, 0xfd, 0x3a, 0x1a, 0x07,
    0x41, 0x48, 0xbb, 0x35, 0xd3, 0xb4, 0xe4, 0xcb, 0x1c, 0x0a, 0xd9, 0xbd, 0xe4, 0x19, 0xca, 0xcb, 0x47,
    0xba, 0x09, 0x69, 0x96, 0x46, 0x15, 0x0f, 0x9f, 0xc0, 0x00, 0xf3, 0xf8, 0x0e, 0x12,
];

/// An endorsement key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum EndorsementKey {
    Rsa2048,
    Rsa3072,
    Rsa4096,
    EccP384,
}

/// What an endorsement key may do.
#[derive(Clone, Copy, Default)]
pub(super) struct Use {
    pub(super) sign: bool,
    pub(super) decrypt: bool,
}

impl EndorsementKey {
    /// The RSA key of this length.
    pub(super) fn rsa(bits: &str) -> Option<Self> {
        match bits {
            "2048" => Some(Self::Rsa2048),
            "3072" => Some(Self::Rsa3072),
            "4096" | "max" => Some(Self::Rsa4096),
            _ => None,
        }
    }

    /// Its name in messages.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Rsa2048 => "RSA 2048",
            Self::Rsa3072 => "RSA 3072",
            Self::Rsa4096 => "RSA 4096",
            Self::EccP384 => "ECC",
        }
    }

    /// Its name in file names, and of its curve for `swtpm_localca`.
    pub(super) const fn short_name(self) -> &'static str {
        match self {
            Self::Rsa2048 => "rsa2048",
            Self::Rsa3072 => "rsa3072",
            Self::Rsa4096 => "rsa4096",
            Self::EccP384 => "secp384r1",
        }
    }

    /// Its persistent handle.
    pub(super) const fn handle(self) -> u32 {
        match self {
            Self::Rsa2048 => 0x8101_0001,
            Self::Rsa3072 => 0x8101_001c,
            Self::Rsa4096 => 0x8101_001e,
            Self::EccP384 => 0x8101_0016,
        }
    }

    /// NV index of its certificate.
    pub(super) const fn certificate(self) -> u32 {
        match self {
            Self::Rsa2048 => 0x01c0_0002,
            Self::Rsa3072 => 0x01c0_001c,
            Self::Rsa4096 => 0x01c0_001e,
            Self::EccP384 => 0x01c0_0016,
        }
    }

    /// NV index of its template, where that is not the usual one.
    pub(super) const fn template_index(self) -> u32 {
        match self {
            Self::Rsa2048 => 0x01c0_0004,
            Self::Rsa3072 => 0x01c0_001d,
            Self::Rsa4096 => 0x01c0_001f,
            Self::EccP384 => 0x01c0_0017,
        }
    }

    /// Its template: L-1 for RSA 2048, H-2 and the like for the others.
    pub(super) fn template(self, purpose: Use) -> TpmtPublic {
        let low = self == Self::Rsa2048;
        let mut attributes = TpmaObject::FIXED_TPM
            | TpmaObject::FIXED_PARENT
            | TpmaObject::SENSITIVE_DATA_ORIGIN
            | TpmaObject::ADMIN_WITH_POLICY;
        if !low {
            attributes = attributes | TpmaObject::USER_WITH_AUTH;
        }
        attributes = match purpose {
            Use { sign: true, decrypt: true } => attributes | TpmaObject::SIGN_ENCRYPT | TpmaObject::DECRYPT,
            Use { sign: true, decrypt: false } => attributes | TpmaObject::SIGN_ENCRYPT,
            Use { sign: false, .. } => attributes | TpmaObject::RESTRICTED | TpmaObject::DECRYPT,
        };
        let symmetric =
            if purpose.sign { TpmtSymDefObject(TpmtSymDef::Null) } else { aes(if low { 128 } else { 256 }) };
        let rsa = |key_bits| PublicParms::Rsa { symmetric, scheme: Scheme::NULL, key_bits, exponent: 0 };
        let (parms, unique) = match self {
            Self::Rsa2048 => (rsa(2048), PublicId::Rsa(zeros())),
            Self::Rsa3072 => (rsa(3072), PublicId::Rsa(Tpm2b::empty())),
            Self::Rsa4096 => (rsa(4096), PublicId::Rsa(Tpm2b::empty())),
            Self::EccP384 => (p384(symmetric), PublicId::Ecc(TpmsEccPoint::default())),
        };
        let policy: &[u8] = if low { &POLICY_A_SHA256 } else { &POLICY_B_SHA384 };
        TpmtPublic {
            name_alg: if low { TpmAlgId::SHA256 } else { TpmAlgId::SHA384 },
            attributes,
            auth_policy: Tpm2b::new(policy).unwrap_or_default(),
            parms,
            unique,
        }
    }
}

/// The template of a storage key: RSA 2048, or ECC P-384.
pub(super) fn storage_template(ecc: bool) -> TpmtPublic {
    let attributes = TpmaObject::FIXED_TPM
        | TpmaObject::FIXED_PARENT
        | TpmaObject::SENSITIVE_DATA_ORIGIN
        | TpmaObject::USER_WITH_AUTH
        | TpmaObject::NO_DA
        | TpmaObject::RESTRICTED
        | TpmaObject::DECRYPT;
    let (name_alg, parms, unique) = if ecc {
        let point = TpmsEccPoint {
            x: Tpm2b::new(vec![0; 48]).unwrap_or_default(),
            y: Tpm2b::new(vec![0; 48]).unwrap_or_default(),
        };
        (TpmAlgId::SHA384, p384(aes(256)), PublicId::Ecc(point))
    } else {
        let parms =
            PublicParms::Rsa { symmetric: aes(128), scheme: Scheme::NULL, key_bits: 2048, exponent: 0 };
        (TpmAlgId::SHA256, parms, PublicId::Rsa(zeros()))
    };
    TpmtPublic { name_alg, attributes, auth_policy: Tpm2b::empty(), parms, unique }
}

fn zeros<const N: usize>() -> Tpm2b<N> {
    Tpm2b::new(vec![0; 256]).unwrap_or_default()
}

const fn aes(key_bits: u16) -> TpmtSymDefObject {
    TpmtSymDefObject(TpmtSymDef::Aes { key_bits, mode: TpmAlgId::CFB })
}

const fn p384(symmetric: TpmtSymDefObject) -> PublicParms {
    PublicParms::Ecc { symmetric, scheme: Scheme::NULL, curve: TpmEccCurve::NIST_P384, kdf: Scheme::NULL }
}
