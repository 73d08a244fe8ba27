//! What every hierarchy has: authorization value, policy, primary seed, proof.

use vtpm_protocol::codec::{Decode, Encode, Reader};
use vtpm_protocol::rc::ResponseCode;
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

/// How primary objects are derived from a seed: a seed that came from another implementation goes on giving the keys that it gave there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Derivation {
    /// As this engine does it: see [`crate::object::generate`].
    #[default]
    Own,
    /// As libtpms does it with a seed of this kind: see [`crate::crypto::libtpms`].
    Libtpms(SeedCompat),
}

/// Libtpms' compatibility level of a seed (`SEED_COMPAT_LEVEL`): when it was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SeedCompat {
    /// Level 0: before libtpms 0.8.
    Original,
    /// Level 1: since libtpms 0.8, where the candidates for RSA primes are made in another way.
    PrimeAdjustFix,
}

impl Encode for Derivation {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(match self {
            Self::Own => 0,
            Self::Libtpms(SeedCompat::Original) => 1,
            Self::Libtpms(SeedCompat::PrimeAdjustFix) => 2,
        });
    }
}

impl Decode for Derivation {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        match u8::decode(r)? {
            0 => Ok(Self::Own),
            1 => Ok(Self::Libtpms(SeedCompat::Original)),
            2 => Ok(Self::Libtpms(SeedCompat::PrimeAdjustFix)),
            _ => Err(ResponseCode::VALUE),
        }
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
        /// The primary seed, 64 bytes. Who changes it says in `derivation` how.
        pub seed: Secret2b<64>,
        /// The proof, 64 bytes.
        pub proof: Secret2b<64>,
        /// How the seed is used.
        pub derivation: Derivation,
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
            derivation: Derivation::Own,
        }
    }
}

/// A fresh seed or proof.
pub fn random_secret(fill_random: &mut dyn FnMut(&mut [u8])) -> Secret2b<64> {
    let mut bytes = vec![0; SEED_SIZE];
    fill_random(&mut bytes);
    Secret2b::new(bytes).unwrap_or_default()
}
