//! What a root shows of itself: its attestation key and, certified by it, its other keys. Response parameters of GetIdentity, and what
//! hosts exchange before they trust one another.

use super::{KeyRole, decode_list, encode_list};
use crate::codec::{Decode, Encode, Reader};
use crate::rc::ResponseCode;
use crate::structure;
use crate::tpm::Tpm2b;

/// The NV index of a privileged instance that holds an X.509 certificate (DER) of its attestation key.
pub const CERTIFICATE_INDEX: u32 = 0x0180_0001;
/// The longest such certificate in bytes.
pub const MAX_CERTIFICATE: usize = 1536;
/// The most keys in an identity.
pub const MAX_CERTIFIED_KEYS: usize = 8;
/// The longest encoded [`Identity`].
pub const MAX_IDENTITY: usize = 2 + 1024 + 2 + MAX_CERTIFICATE + 4 + MAX_CERTIFIED_KEYS * (1 + 3 * 1026);
/// The label of the text form: base64 of the encoded [`Identity`] between the lines `-----BEGIN` and `-----END` with this label
/// (RFC 7468).
pub const IDENTITY_LABEL: &str = "VTPMD IDENTITY";

structure! {
    /// A key with the attestation key's word for it.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct CertifiedKey {
        /// What it is for.
        pub role: KeyRole,
        /// Its `TPMT_PUBLIC`.
        pub public: Tpm2b<1024>,
        /// `TPMS_ATTEST` of `TPM2_Certify` of it.
        pub attest: Tpm2b<1024>,
        /// `TPMT_SIGNATURE` of the attestation key over `attest`.
        pub signature: Tpm2b<1024>,
    }
}

/// Attestation key and certified keys of a root.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// `TPMT_PUBLIC` of the attestation key.
    pub attestation: Tpm2b<1024>,
    /// An X.509 certificate (DER) of it, or nothing.
    pub certificate: Tpm2b<MAX_CERTIFICATE>,
    /// The other keys, of each role one at most.
    pub keys: Vec<CertifiedKey>,
}

impl Encode for Identity {
    fn encode(&self, out: &mut Vec<u8>) {
        (&self.attestation, &self.certificate).encode(out);
        encode_list(&self.keys, out);
    }
}

impl Decode for Identity {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        let (attestation, certificate) = Decode::decode(r)?;
        Ok(Self { attestation, certificate, keys: decode_list(r, MAX_CERTIFIED_KEYS)? })
    }
}
