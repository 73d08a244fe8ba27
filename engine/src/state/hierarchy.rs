//! What every hierarchy has: authorization value, policy, primary seed, proof.

use vtpm_protocol::structure;
use vtpm_protocol::tpm::{Secret2b, Tpm2bAuth, Tpm2bDigest, TpmAlgId};

structure! {
    /// An authorization policy with its hash; `TPM_ALG_NULL` and empty for none.
    #[derive(Clone)]
    pub struct Policy {
        /// The hash.
        pub alg: TpmAlgId,
        /// The policy digest.
        pub digest: Tpm2bDigest,
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self { alg: TpmAlgId::NULL, digest: Tpm2bDigest::empty() }
    }
}

structure! {
    /// One hierarchy. For the platform hierarchy authorization and policy live in [`super::StateClear`], as they do not
    /// survive a TPM Reset.
    #[derive(Clone)]
    pub struct Hierarchy {
        /// The authorization value.
        pub auth: Tpm2bAuth,
        /// The policy.
        pub policy: Policy,
        /// The primary seed, 64 bytes.
        pub seed: Secret2b<64>,
        /// The proof, 64 bytes.
        pub proof: Secret2b<64>,
    }
}

/// Bytes in a primary seed and in a proof.
pub const SEED_SIZE: usize = 64;

impl Hierarchy {
    /// With a fresh seed and proof, no authorization and no policy.
    pub fn generate(fill_random: &mut dyn FnMut(&mut [u8])) -> Self {
        Self {
            auth: Tpm2bAuth::empty(),
            policy: Policy::default(),
            seed: random_secret(fill_random),
            proof: random_secret(fill_random),
        }
    }
}

/// A fresh seed or proof.
pub fn random_secret(fill_random: &mut dyn FnMut(&mut [u8])) -> Secret2b<64> {
    let mut bytes = vec![0; SEED_SIZE];
    fill_random(&mut bytes);
    Secret2b::new(bytes).unwrap_or_default()
}
