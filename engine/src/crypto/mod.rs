//! The cryptography of the engine, on plain Rust types.
//!
//! This is the only place that names an algorithm crate. Above it stand the structures of Part 2, which the
//! engine translates; below it the RustCrypto crates. Nothing in here knows a handle, an object or a response
//! code: errors are [`CryptoError`], and the caller decides which code each of them is in its command.
//!
//! Secrets come back as `Zeroizing` values. No function takes randomness from the host: it is handed in as a
//! [`rng::RandomSource`], so that a source which replays the same bytes yields the same results.

pub mod constant;
pub mod ecc;
pub mod hash;
pub mod kdf;
pub mod libtpms;
pub mod mac;
mod montgomery;
mod padding;
pub mod prime;
pub mod rng;
pub mod rsa;
pub mod sym;

pub use ecc::{Curve, Point};
pub use hash::{Digest, HashAlg, Hasher, ct_eq};
pub use kdf::{KdfaStream, kdf2, kdfa, kdfe};
pub use mac::{Cmac, HmacHasher, hmac};
pub use padding::mgf1_xor;
pub use rng::RandomSource;
pub use sym::SymAlg;

/// Why an operation of this module did not give a result. None of the variants carries data, and none tells
/// anything about a secret beyond its own name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CryptoError {
    /// A symmetric key or an RSA modulus of a size that is not offered.
    #[error("key size is not supported")]
    KeySize,
    /// A public exponent that is not zero (which stands for 65537) and not a prime above 2^16.
    #[error("public exponent is not supported")]
    Exponent,
    /// The private part does not belong to the public part.
    #[error("private and public part do not match")]
    Binding,
    /// An input is not as long as the key or the hash algorithm asks for.
    #[error("input has the wrong length")]
    Length,
    /// A number is not below the modulus.
    #[error("number is not below the modulus")]
    Range,
    /// The message does not fit the key with this padding.
    #[error("message is too long for the key")]
    MessageTooLong,
    /// The hash algorithm is too large for the key in this scheme.
    #[error("hash algorithm is too large for the key")]
    HashTooLarge,
    /// A decrypted block is not padded as the scheme says. Which part of the padding was wrong is not told.
    #[error("padding is not valid")]
    Padding,
    /// A point is not on the curve, or is the point at infinity.
    #[error("point is not on the curve")]
    Point,
    /// A private scalar is not between 1 and the order of the curve.
    #[error("private value is not in the range of the curve")]
    Scalar,
    /// The random source gave no usable value in so many attempts that it must be broken.
    #[error("random source gives no usable values")]
    Exhausted,
    /// The source said that nobody waits any more.
    #[error("the search was called off")]
    Canceled,
    /// The result of a private-key operation did not survive its check against the public key.
    #[error("private-key operation failed its check")]
    Fault,
}
