//! Hash algorithms, and comparison in constant time.

use core::fmt;
use core::ops::{Deref, Range};

use sha1::Sha1;
use sha2::digest::common::hazmat::{SerializableState, SerializedState};
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use sha3::{Sha3_256, Sha3_384, Sha3_512};
use sm3::Sm3;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// The number of bytes of the largest digest.
pub const MAX_DIGEST_SIZE: usize = 64;

/// The number of bytes of the largest block, that of SHA3-256.
pub const MAX_BLOCK_SIZE: usize = 136;

/// One line for each algorithm: its name here, the type that computes it, bytes of a digest, bytes of a block, and what stands before
/// the digest in a `DigestInfo`. After the bytes of a block, which bytes of a saved state are zero: the upper ones of the count of blocks,
/// which no message is long enough for.
macro_rules! algorithms {
    ($($(#[$m:meta])* $alg:ident = $state:ident, $digest:literal, $block:literal, $zero:expr, $prefix:expr;)*) => {
        /// A hash algorithm that the engine implements.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
        pub enum HashAlg {
            $($(#[$m])* $alg,)*
        }

        impl HashAlg {
            /// Every algorithm, in the order of their numbers in the specification.
            pub const ALL: &[HashAlg] = &[$(HashAlg::$alg),*];

            /// The number of bytes of a digest.
            pub const fn digest_size(self) -> usize {
                match self {
                    $(HashAlg::$alg => $digest,)*
                }
            }

            /// The number of bytes that the algorithm processes at once, which is also the longest HMAC key that is
            /// not hashed first.
            pub const fn block_size(self) -> usize {
                match self {
                    $(HashAlg::$alg => $block,)*
                }
            }

            /// What stands before the digest in a `DigestInfo` of RFC 8017, section 9.2: the DER encoding up to and
            /// including the header of the OCTET STRING.
            pub const fn digest_info_prefix(self) -> &'static [u8] {
                match self {
                    $(HashAlg::$alg => const { $prefix },)*
                }
            }
        }

        #[derive(Clone)]
        enum HasherState {
            $($alg($state),)*
        }

        impl Hasher {
            /// Starts a digest.
            pub fn new(alg: HashAlg) -> Hasher {
                Hasher(match alg {
                    $(HashAlg::$alg => HasherState::$alg($state::new()),)*
                })
            }

            /// The algorithm that it was started with.
            pub fn alg(&self) -> HashAlg {
                match self.0 {
                    $(HasherState::$alg(_) => HashAlg::$alg,)*
                }
            }

            /// Takes in more data.
            pub fn update(&mut self, data: &[u8]) {
                match &mut self.0 {
                    $(HasherState::$alg(state) => state.update(data),)*
                }
            }

            /// The digest of all that was taken in.
            pub fn finish(self) -> Digest {
                match self.0 {
                    $(HasherState::$alg(state) => Digest::of_array::<$digest>(state.finalize().into()),)*
                }
            }

            /// What [`Self::load`] goes on from: as secret as what was taken in.
            pub fn save(&self) -> Zeroizing<Vec<u8>> {
                match &self.0 {
                    $(HasherState::$alg(state) => saved(state),)*
                }
            }

            /// Goes on from where [`Self::save`] was called on a digest of this algorithm; `None` for other bytes.
            pub fn load(alg: HashAlg, bytes: &[u8]) -> Option<Hasher> {
                Some(Hasher(match alg {
                    $(HashAlg::$alg => HasherState::$alg(loaded(bytes, $zero)?),)*
                }))
            }
        }
    };
}

algorithms! {
    /// SHA-1, for what TPM 2.0 itself still asks for.
    Sha1 = Sha1, 20, 64, 26..28, &[0x30, 0x21, 0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00, 0x04, 0x14];
    /// SHA-256.
    Sha256 = Sha256, 32, 64, 38..40, &nist_prefix(0x01, 32);
    /// SHA-384.
    Sha384 = Sha384, 48, 128, 70..80, &nist_prefix(0x02, 48);
    /// SHA-512.
    Sha512 = Sha512, 64, 128, 70..80, &nist_prefix(0x03, 64);
    /// SM3.
    Sm3 = Sm3, 32, 64, 38..40, &[
        0x30, 0x30, 0x30, 0x0c, 0x06, 0x08, 0x2a, 0x81, 0x1c, 0xcf, 0x55, 0x01, 0x83, 0x11, 0x05, 0x00, 0x04, 0x20,
    ];
    /// SHA3-256.
    Sha3_256 = Sha3_256, 32, 136, 0..0, &nist_prefix(0x08, 32);
    /// SHA3-384.
    Sha3_384 = Sha3_384, 48, 104, 0..0, &nist_prefix(0x09, 48);
    /// SHA3-512.
    Sha3_512 = Sha3_512, 64, 72, 0..0, &nist_prefix(0x0a, 64);
}

/// The prefix of an algorithm below 2.16.840.1.101.3.4.2.
const fn nist_prefix(arc: u8, size: u8) -> [u8; 19] {
    [
        0x30,
        size.saturating_add(17),
        0x30,
        0x0d,
        0x06,
        0x09,
        0x60,
        0x86,
        0x48,
        0x01,
        0x65,
        0x03,
        0x04,
        0x02,
        arc,
        0x05,
        0x00,
        0x04,
        size,
    ]
}

fn saved<S: SerializableState>(state: &S) -> Zeroizing<Vec<u8>> {
    let mut bytes = state.serialize();
    let out = Zeroizing::new(bytes.to_vec());
    zeroize::Zeroize::zeroize(&mut *bytes);
    out
}

fn loaded<S: SerializableState>(bytes: &[u8], zero: Range<usize>) -> Option<S> {
    // The crates add to the count, and multiply it, as if it were always small.
    if bytes.get(zero)?.iter().any(|&byte| byte != 0) {
        return None;
    }
    let mut state = SerializedState::<S>::try_from(bytes).ok()?;
    let loaded = S::deserialize(&state).ok();
    zeroize::Zeroize::zeroize(&mut *state);
    loaded
}

impl HashAlg {
    /// The digest of the parts, one after the other.
    pub fn digest(self, parts: &[&[u8]]) -> Digest {
        let mut hasher = Hasher::new(self);
        for part in parts {
            hasher.update(part);
        }
        hasher.finish()
    }
}

/// A digest of any of the algorithms: up to 64 bytes that know their length. The default is the empty digest.
///
/// Digests are compared in variable time. Where one of them is a secret to the other side (an HMAC), use
/// [`ct_eq`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    // Beyond `len` all bytes are zero, so that the derived comparisons hold.
    bytes: [u8; MAX_DIGEST_SIZE],
    len: u8,
}

impl Digest {
    /// The empty digest.
    pub const EMPTY: Digest = Digest { bytes: [0; MAX_DIGEST_SIZE], len: 0 };

    /// A digest with the bytes of `bytes`, or `None` if there are more than 64 of them.
    pub fn from_slice(bytes: &[u8]) -> Option<Digest> {
        let mut digest = Digest::EMPTY;
        digest.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        digest.len = u8::try_from(bytes.len()).ok()?;
        Some(digest)
    }

    /// A digest of the length that `alg` has, with all bytes zero.
    pub const fn zero(alg: HashAlg) -> Digest {
        Digest { bytes: [0; MAX_DIGEST_SIZE], len: len_u8(alg) }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&self.bytes)
    }

    pub(super) fn of_array<const N: usize>(array: [u8; N]) -> Digest {
        let mut digest = Digest { bytes: [0; MAX_DIGEST_SIZE], len: N.min(MAX_DIGEST_SIZE) as u8 };
        for (to, from) in digest.bytes.iter_mut().zip(array) {
            *to = from;
        }
        digest
    }
}

/// The digest size as it is kept in a [`Digest`]; all of them fit.
const fn len_u8(alg: HashAlg) -> u8 {
    alg.digest_size() as u8
}

impl Default for Digest {
    fn default() -> Self {
        Digest::EMPTY
    }
}

impl Deref for Digest {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl From<Digest> for [u8; MAX_DIGEST_SIZE] {
    /// The bytes, followed by zeros.
    fn from(digest: Digest) -> Self {
        digest.bytes
    }
}

impl AsRef<[u8]> for Digest {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.as_slice() {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// A digest being computed. A clone goes its own way from the state that was cloned.
#[derive(Clone)]
pub struct Hasher(HasherState);

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What went in may be secret.
        write!(f, "Hasher({:?})", self.alg())
    }
}

/// Whether the two are equal, in a time that depends on their lengths only.
pub fn ct_eq(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_of_abc() {
        for (alg, expected) in [
            (HashAlg::Sha1, "a9993e364706816aba3e25717850c26c9cd0d89d"),
            (HashAlg::Sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (
                HashAlg::Sha384,
                "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed\
                 8086072ba1e7cc2358baeca134c825a7",
            ),
            (
                HashAlg::Sha512,
                "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                 2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
            ),
            // GB/T 32905-2016, A.1.
            (HashAlg::Sm3, "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0"),
            // FIPS 202: the examples of NIST's Cryptographic Algorithm Validation Program.
            (HashAlg::Sha3_256, "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532"),
            (
                HashAlg::Sha3_384,
                "ec01498288516fc926459f58e2c6ad8df9b473cb0fc08c2596da7cf0e49be4b2\
                 98d88cea927ac7f539f1edf228376d25",
            ),
            (
                HashAlg::Sha3_512,
                "b751850b1a57168a5693cd924b6b096e08f621827444f70d884f5d0240d2712e\
                 10e116e9192af3c91a7ec57647e3934057340b4cf408d5a56592f8274eec53f0",
            ),
        ] {
            assert_eq!(format!("{:?}", alg.digest(&[b"a", b"", b"bc"])), expected);
            assert_eq!(alg.digest(&[b"abc"]).len(), alg.digest_size());
        }
    }

    #[test]
    fn a_clone_goes_its_own_way() {
        for alg in HashAlg::ALL {
            let mut hasher = Hasher::new(*alg);
            hasher.update(b"a");
            let mut clone = hasher.clone();
            clone.update(b"b");
            hasher.update(b"c");
            assert_eq!((hasher.finish(), clone.finish()), (alg.digest(&[b"ac"]), alg.digest(&[b"ab"])));
        }
    }

    #[test]
    fn a_saved_digest_goes_on_where_it_was() {
        let data: Vec<u8> = (0..=255).cycle().take(600).collect();
        for &alg in HashAlg::ALL {
            for at in [0, 1, 63, 64, 65, 104, 135, 136, 137, 599, 600] {
                let mut hasher = Hasher::new(alg);
                hasher.update(&data[..at]);
                let saved = hasher.save();
                let mut loaded = Hasher::load(alg, &saved).unwrap();
                assert_eq!(loaded.save(), saved);
                loaded.update(&data[at..]);
                assert_eq!(loaded.finish(), alg.digest(&[&data]), "{alg:?} at {at}");
                assert!(Hasher::load(alg, &saved[1..]).is_none());
            }
        }
    }

    /// States stand in records and contexts: a crate that writes them in another way would lose sequences over an update.
    #[test]
    fn the_form_of_a_saved_digest_is_frozen() {
        let digest = |alg: HashAlg| {
            let mut hasher = Hasher::new(alg);
            hasher.update(&[7; 200]);
            hex::encode(&*HashAlg::Sha256.digest(&[&hasher.save()]))
        };
        let found: Vec<String> = HashAlg::ALL.iter().map(|&alg| digest(alg)).collect();
        assert_eq!(found, FROZEN);
    }

    const FROZEN: [&str; 8] = [
        "33b244d286a72cb025144908e4810d769c5513688dc4cdcc79fdac98d3dd0a12",
        "6308cd634b44e54b7f72c255eb43c008de8300119787d8eac83297ac8bab05c6",
        "6ea236290838f4591180981465a3c30169be5a2fbbcd0a48e0a8a62c2c9f167a",
        "5617195def6502b1b072ea77820ec3ff2a32361ef47eba7ce4bae95451a9e8aa",
        "e8e4d2c3d7b4fc8c99831cefce8964c23850807e9aec59c54f17f874ba90d0f7",
        "26e3d3e834996a1c85dd051b294f873ab368ff09807bd1e1eb70066d09ef17a9",
        "0d46ccc26a5a0194c09579618c93fd91e9091e82f64b24a2c80be7b9a5257266",
        "5e6af26994241ffbc2a800f63b5f35a1d50a0618eb279f2b5edee82ee9a0c259",
    ];

    #[test]
    fn no_bytes_make_a_saved_digest_that_panics() {
        for &alg in HashAlg::ALL {
            let size = Hasher::new(alg).save().len();
            for byte in 0..=255 {
                if let Some(mut hasher) = Hasher::load(alg, &vec![byte; size]) {
                    hasher.update(&[1; 300]);
                    assert_eq!(hasher.finish().len(), alg.digest_size());
                }
            }
        }
    }

    #[test]
    fn digest_info_has_the_length_of_the_digest() {
        for alg in HashAlg::ALL {
            let prefix = alg.digest_info_prefix();
            assert_eq!(usize::from(prefix[prefix.len() - 1]), alg.digest_size());
            assert_eq!(usize::from(prefix[1]) + 2, prefix.len() + alg.digest_size());
        }
    }

    #[test]
    fn a_digest_takes_up_to_64_bytes() {
        assert_eq!(Digest::default().len(), 0);
        assert_eq!(*Digest::from_slice(&[7; 64]).unwrap(), [7; 64]);
        assert_eq!(Digest::from_slice(&[7; 65]), None);
        assert_eq!(Digest::from_slice(&[0; 20]), Some(Digest::zero(HashAlg::Sha1)));
        assert_ne!(Digest::zero(HashAlg::Sha1), Digest::zero(HashAlg::Sha256));
    }

    #[test]
    fn ct_eq_compares_length_and_content() {
        assert!(ct_eq(b"", b""));
        assert!(ct_eq(b"same", b"same"));
        assert!(!ct_eq(b"same", b"sama"));
        assert!(!ct_eq(b"same", b"sam"));
    }
}
