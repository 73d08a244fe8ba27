//! Curves, schemes and points of elliptic curve cryptography (Part 2, 11.2.3 and 11.2.5).

use super::constants::{TpmAlgId, TpmEccCurve};
use super::schemes::Scheme;
use super::sized::{Sized2b, Tpm2bEccParameter};
use crate::codec::{Decode, Encode, Reader};
use crate::rc::ResponseCode;
use crate::structure;

/// The implemented curves: `TPMI_ECC_CURVE`.
pub const ECC_CURVES: [TpmEccCurve; 6] = [
    TpmEccCurve::NIST_P192,
    TpmEccCurve::NIST_P224,
    TpmEccCurve::NIST_P256,
    TpmEccCurve::NIST_P384,
    TpmEccCurve::NIST_P521,
    TpmEccCurve::SM2_P256,
];
/// Schemes of an ECC key, `TPMI_ALG_ECC_SCHEME`.
pub const ECC_SCHEMES: [TpmAlgId; 6] =
    [TpmAlgId::ECDSA, TpmAlgId::ECDH, TpmAlgId::ECDAA, TpmAlgId::SM2, TpmAlgId::ECSCHNORR, TpmAlgId::ECMQV];
/// Key exchanges of `TPM2_ZGen_2Phase`, `TPMI_ECC_KEY_EXCHANGE`.
pub const ECC_KEY_EXCHANGES: [TpmAlgId; 3] = [TpmAlgId::ECDH, TpmAlgId::SM2, TpmAlgId::ECMQV];

structure! {
    /// `TPMS_ECC_POINT`, 11.2.5.2.
    #[derive(Clone, PartialEq, Eq, Debug, Default)]
    pub struct TpmsEccPoint {
        /// The x coordinate.
        pub x: Tpm2bEccParameter,
        /// The y coordinate.
        pub y: Tpm2bEccParameter,
    }
}

/// `TPM2B_ECC_POINT`, 11.2.5.3.
pub type Tpm2bEccPoint = Sized2b<TpmsEccPoint>;

/// Key derivation functions, `TPMI_ALG_KDF`.
pub const KDFS: [TpmAlgId; 4] =
    [TpmAlgId::MGF1, TpmAlgId::KDF1_SP800_56A, TpmAlgId::KDF2, TpmAlgId::KDF1_SP800_108];

/// `TPMT_KDF_SCHEME`, 11.2.3.3, as a command parameter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TpmtKdfScheme(pub Scheme);

impl Encode for TpmtKdfScheme {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }
}

impl Decode for TpmtKdfScheme {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        Scheme::decode_from(r, &KDFS, ResponseCode::KDF).map(Self)
    }
}

/// `TPMI_ECC_KEY_EXCHANGE`, 11.2.5.7.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TpmiEccKeyExchange(pub TpmAlgId);

impl Encode for TpmiEccKeyExchange {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }
}

impl Decode for TpmiEccKeyExchange {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        let scheme = TpmAlgId::decode(r)?;
        if ECC_KEY_EXCHANGES.contains(&scheme) { Ok(Self(scheme)) } else { Err(ResponseCode::SCHEME) }
    }
}

/// `TPMI_ECC_CURVE`, 11.2.5.5: an implemented one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TpmiEccCurve(pub TpmEccCurve);

impl Encode for TpmiEccCurve {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }
}

impl Decode for TpmiEccCurve {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        let curve = TpmEccCurve::decode(r)?;
        if ECC_CURVES.contains(&curve) { Ok(Self(curve)) } else { Err(ResponseCode::CURVE) }
    }
}

structure! {
    /// `TPMS_ALGORITHM_DETAIL_ECC`, 11.2.5.8.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct TpmsAlgorithmDetailEcc {
        /// The curve.
        pub curve: TpmEccCurve,
        /// Bits of a key.
        pub key_size: u16,
        /// The KDF and hash that fit the curve's strength.
        pub kdf: TpmtKdfScheme,
        /// The only signing scheme of the curve, or null for any.
        pub sign: TpmtEccScheme,
        /// The prime of the field.
        pub p: Tpm2bEccParameter,
        /// The linear coefficient.
        pub a: Tpm2bEccParameter,
        /// The constant coefficient.
        pub b: Tpm2bEccParameter,
        /// The x coordinate of the generator.
        pub gx: Tpm2bEccParameter,
        /// The y coordinate of the generator.
        pub gy: Tpm2bEccParameter,
        /// The order of the generator.
        pub n: Tpm2bEccParameter,
        /// The cofactor.
        pub h: Tpm2bEccParameter,
    }
}

/// `TPMT_ECC_SCHEME`, 11.2.5.6.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TpmtEccScheme(pub Scheme);

impl Encode for TpmtEccScheme {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }
}

impl Decode for TpmtEccScheme {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        Scheme::decode_from(r, &ECC_SCHEMES, ResponseCode::SCHEME).map(Self)
    }
}
