//! A storage key on its way from one root to another (figure 5, step 502).

use super::{Identity, MAX_IDENTITY};
use crate::structure;
use crate::tpm::{Tpm2b, Tpm2bName};

/// The label of the text form, as for [`IDENTITY_LABEL`](super::IDENTITY_LABEL).
pub const FLEET_KEY_LABEL: &str = "VTPMD FLEET KEY";
/// The longest encoded [`FleetKey`].
pub const MAX_FLEET_KEY: usize = MAX_IDENTITY + 2 + 66 + 2 + 1024 + 2 + 1536 + 2 + 512 + 2 + 66;

structure! {
    /// What `TPM2_Duplicate` made of a fleet key for one other root, and who made it. It is of use to that root only.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct FleetKey {
        /// The root that it comes from, whose attestation key certifies the key in the role of a fleet key.
        pub identity: Identity,
        /// The Name of the storage key to which it is encrypted.
        pub parent: Tpm2bName,
        /// `TPMT_PUBLIC` of the key.
        pub public: Tpm2b<1024>,
        /// `TPM2B_PRIVATE`, with inner and outer wrapper.
        pub duplicate: Tpm2b<1536>,
        /// The seed of the outer wrapper, encrypted to `parent`.
        pub encrypted_secret: Tpm2b<512>,
        /// The key of the inner wrapper, AES-128 in CFB mode. It protects integrity; secrecy is the outer wrapper's.
        pub inner_key: Tpm2b<66>,
    }
}
