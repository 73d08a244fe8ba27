//! Hash algorithms, HMAC, and comparison in constant time.

use core::fmt;
use core::ops::Deref;

use ::hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use subtle::ConstantTimeEq;

/// A hash algorithm that the engine implements.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum HashAlg {
    /// SHA-1, for what TPM 2.0 itself still asks for.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// The number of bytes of the largest digest.
pub const MAX_DIGEST_SIZE: usize = 64;

impl HashAlg {
    /// Every algorithm, smallest digest first.
    pub const ALL: &[HashAlg] = &[HashAlg::Sha1, HashAlg::Sha256, HashAlg::Sha384, HashAlg::Sha512];

    /// The number of bytes of a digest.
    pub const fn digest_size(self) -> usize {
        match self {
            HashAlg::Sha1 => 20,
            HashAlg::Sha256 => 32,
            HashAlg::Sha384 => 48,
            HashAlg::Sha512 => 64,
        }
    }

    /// The number of bytes that the algorithm processes at once, which is also the longest HMAC key that is
    /// not hashed first.
    pub const fn block_size(self) -> usize {
        match self {
            HashAlg::Sha1 | HashAlg::Sha256 => 64,
            HashAlg::Sha384 | HashAlg::Sha512 => 128,
        }
    }

    /// The digest of the parts, one after the other.
    pub fn digest(self, parts: &[&[u8]]) -> Digest {
        let mut hasher = Hasher::new(self);
        for part in parts {
            hasher.update(part);
        }
        hasher.finish()
    }

    /// What stands before the digest in a `DigestInfo` of RFC 8017, section 9.2: the DER encoding up to and
    /// including the header of the OCTET STRING.
    pub const fn digest_info_prefix(self) -> &'static [u8] {
        match self {
            HashAlg::Sha1 => {
                &[0x30, 0x21, 0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00, 0x04, 0x14]
            }
            HashAlg::Sha256 => &[
                0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01,
                0x05, 0x00, 0x04, 0x20,
            ],
            HashAlg::Sha384 => &[
                0x30, 0x41, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02,
                0x05, 0x00, 0x04, 0x30,
            ],
            HashAlg::Sha512 => &[
                0x30, 0x51, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03,
                0x05, 0x00, 0x04, 0x40,
            ],
        }
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

    fn of_array<const N: usize>(array: [u8; N]) -> Digest {
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

#[derive(Clone)]
enum HasherState {
    Sha1(Sha1),
    Sha256(Sha256),
    Sha384(Sha384),
    Sha512(Sha512),
}

impl Hasher {
    /// Starts a digest.
    pub fn new(alg: HashAlg) -> Hasher {
        Hasher(match alg {
            HashAlg::Sha1 => HasherState::Sha1(Sha1::new()),
            HashAlg::Sha256 => HasherState::Sha256(Sha256::new()),
            HashAlg::Sha384 => HasherState::Sha384(Sha384::new()),
            HashAlg::Sha512 => HasherState::Sha512(Sha512::new()),
        })
    }

    /// The algorithm that it was started with.
    pub fn alg(&self) -> HashAlg {
        match self.0 {
            HasherState::Sha1(_) => HashAlg::Sha1,
            HasherState::Sha256(_) => HashAlg::Sha256,
            HasherState::Sha384(_) => HashAlg::Sha384,
            HasherState::Sha512(_) => HashAlg::Sha512,
        }
    }

    /// Takes in more data.
    pub fn update(&mut self, data: &[u8]) {
        match &mut self.0 {
            HasherState::Sha1(state) => state.update(data),
            HasherState::Sha256(state) => state.update(data),
            HasherState::Sha384(state) => state.update(data),
            HasherState::Sha512(state) => state.update(data),
        }
    }

    /// The digest of all that was taken in.
    pub fn finish(self) -> Digest {
        match self.0 {
            HasherState::Sha1(state) => Digest::of_array::<20>(state.finalize().into()),
            HasherState::Sha256(state) => Digest::of_array::<32>(state.finalize().into()),
            HasherState::Sha384(state) => Digest::of_array::<48>(state.finalize().into()),
            HasherState::Sha512(state) => Digest::of_array::<64>(state.finalize().into()),
        }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What went in may be secret.
        write!(f, "Hasher({:?})", self.alg())
    }
}

/// An HMAC being computed (RFC 2104). A clone of a fresh one saves hashing the key again.
#[derive(Clone)]
pub struct HmacHasher(HmacState);

#[derive(Clone)]
enum HmacState {
    Sha1(Hmac<Sha1>),
    Sha256(Hmac<Sha256>),
    Sha384(Hmac<Sha384>),
    Sha512(Hmac<Sha512>),
}

impl HmacHasher {
    /// Starts an HMAC under `key`, which may have any length, also none.
    pub fn new(alg: HashAlg, key: &[u8]) -> HmacHasher {
        HmacHasher(match alg {
            HashAlg::Sha1 => HmacState::Sha1(keyed(key)),
            HashAlg::Sha256 => HmacState::Sha256(keyed(key)),
            HashAlg::Sha384 => HmacState::Sha384(keyed(key)),
            HashAlg::Sha512 => HmacState::Sha512(keyed(key)),
        })
    }

    /// The algorithm that it was started with.
    pub fn alg(&self) -> HashAlg {
        match self.0 {
            HmacState::Sha1(_) => HashAlg::Sha1,
            HmacState::Sha256(_) => HashAlg::Sha256,
            HmacState::Sha384(_) => HashAlg::Sha384,
            HmacState::Sha512(_) => HashAlg::Sha512,
        }
    }

    /// Takes in more data.
    pub fn update(&mut self, data: &[u8]) {
        match &mut self.0 {
            HmacState::Sha1(state) => state.update(data),
            HmacState::Sha256(state) => state.update(data),
            HmacState::Sha384(state) => state.update(data),
            HmacState::Sha512(state) => state.update(data),
        }
    }

    /// The HMAC of all that was taken in. Compare it with [`ct_eq`].
    pub fn finish(self) -> Digest {
        match self.0 {
            HmacState::Sha1(state) => Digest::of_array::<20>(state.finalize().into_bytes().into()),
            HmacState::Sha256(state) => Digest::of_array::<32>(state.finalize().into_bytes().into()),
            HmacState::Sha384(state) => Digest::of_array::<48>(state.finalize().into_bytes().into()),
            HmacState::Sha512(state) => Digest::of_array::<64>(state.finalize().into_bytes().into()),
        }
    }
}

impl fmt::Debug for HmacHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HmacHasher({:?})", self.alg())
    }
}

#[expect(clippy::expect_used, reason = "HMAC takes a key of any length; the error belongs to other MACs")]
fn keyed<M: KeyInit>(key: &[u8]) -> M {
    M::new_from_slice(key).expect("a key of any length")
}

/// The HMAC of the parts, one after the other, under `key`. Compare it with [`ct_eq`].
pub fn hmac(alg: HashAlg, key: &[u8], parts: &[&[u8]]) -> Digest {
    let mut mac = HmacHasher::new(alg, key);
    for part in parts {
        mac.update(part);
    }
    mac.finish()
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
        ] {
            assert_eq!(format!("{:?}", alg.digest(&[b"a", b"", b"bc"])), expected);
            assert_eq!(alg.digest(&[b"abc"]).len(), alg.digest_size());
        }
    }

    /// RFC 2202, cases 1, 2, 6 and RFC 4231, cases 1, 2, 3, 6.
    #[test]
    fn hmacs_of_the_rfcs() {
        let long_text = b"Test Using Larger Than Block-Size Key - Hash Key First";
        let cases: [(HashAlg, &[u8], &[u8], &str); 13] = [
            (HashAlg::Sha1, &[0x0b; 20], b"Hi There", "b617318655057264e28bc0b6fb378c8ef146be00"),
            (
                HashAlg::Sha1,
                b"Jefe",
                b"what do ya want for nothing?",
                "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79",
            ),
            (HashAlg::Sha1, &[0xaa; 80], long_text, "aa4ae5e15272d00e95705637ce8a3b55ed402112"),
            (
                HashAlg::Sha256,
                &[0x0b; 20],
                b"Hi There",
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            ),
            (
                HashAlg::Sha256,
                b"Jefe",
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                HashAlg::Sha256,
                &[0xaa; 20],
                &[0xdd; 50],
                "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
            ),
            (
                HashAlg::Sha256,
                &[0xaa; 131],
                long_text,
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
            (
                HashAlg::Sha384,
                &[0x0b; 20],
                b"Hi There",
                "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59c\
                 faea9ea9076ede7f4af152e8b2fa9cb6",
            ),
            (
                HashAlg::Sha384,
                b"Jefe",
                b"what do ya want for nothing?",
                "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e\
                 8e2240ca5e69e2c78b3239ecfab21649",
            ),
            (
                HashAlg::Sha384,
                &[0xaa; 131],
                long_text,
                "4ece084485813e9088d2c63a041bc5b44f9ef1012a2b588f3cd11f05033ac4c6\
                 0c2ef6ab4030fe8296248df163f44952",
            ),
            (
                HashAlg::Sha512,
                &[0x0b; 20],
                b"Hi There",
                "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cde\
                 daa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854",
            ),
            (
                HashAlg::Sha512,
                b"Jefe",
                b"what do ya want for nothing?",
                "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554\
                 9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
            ),
            (
                HashAlg::Sha512,
                &[0xaa; 131],
                long_text,
                "80b24263c7c1a3ebb71493c1dd7be8b49b46d1f41b4aeec1121b013783f8f352\
                 6b56d037e05f2598bd0fd2215d6a1e5295e64f73f63f0aec8b915a985d786598",
            ),
        ];
        for (alg, key, text, expected) in cases {
            assert_eq!(format!("{:?}", hmac(alg, key, &[text])), expected, "{alg:?}");
            let (head, tail) = text.split_at(text.len() / 2);
            assert_eq!(format!("{:?}", hmac(alg, key, &[head, &[], tail])), expected, "{alg:?} in parts");
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
