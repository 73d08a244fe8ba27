//! How libtpms draws primary objects from a seed, so that a TPM that was taken over from it goes on giving the keys that it gave there.
//!
//! What is written here are facts about libtpms 0.6 to 0.10, and follows from nothing else: the generator is that of SP 800-90A in name, but
//! its derivation function is not the one of that document, and the search for primes is libtpms' own.
//!
//! A primary object is drawn from a [`Drbg`] that is instantiated with the primary seed, the label `Primary Object Creation` with its terminating
//! zero, the Name of the template and the caller's sensitive data. Each request below is one request to the generator, since it changes its
//! key after each:
//!
//! - ECC: as [`super::ecc::generate`] does it.
//! - symmetric and keyed hash keys: as many bytes as the key has.
//! - RSA: see [`prime`].
//! - then, for the endorsement hierarchy, shProof and ehProof are stirred in, one after the other;
//! - then seedValue.

pub mod drbg;
pub mod prime;

pub use drbg::Drbg;
pub use prime::{Candidates, generate_rsa};
