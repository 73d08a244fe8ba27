//! The key derivation functions of Part 1, section 11.4.10, and a byte stream made of one of them.

use vtpm_protocol::tpm::MAX_DERIVATION_BITS;
use zeroize::Zeroizing;

use super::hash::{HashAlg, Hasher};
use super::mac::HmacHasher;
use super::rng::RandomSource;

/// KDFa: SP 800-108 in counter mode with HMAC.
///
/// Block *i*, counted from 1, is `HMAC(key, i || label || 00 || context_u || context_v || bits)` with 32-bit
/// big-endian numbers. `label` comes without its terminating NUL, which is added here. The result has
/// `bits` rounded up to whole bytes; bits beyond a byte boundary are not masked, as Part 1 leaves to the caller.
pub fn kdfa(
    alg: HashAlg,
    key: &[u8],
    label: &[u8],
    context_u: &[u8],
    context_v: &[u8],
    bits: u32,
) -> Zeroizing<Vec<u8>> {
    let keyed = HmacHasher::new(alg, key);
    fill_blocks(bits, alg, |counter| {
        let mut mac = keyed.clone();
        mac.update(&counter.to_be_bytes());
        mac.update(label);
        mac.update(&[0]);
        mac.update(context_u);
        mac.update(context_v);
        mac.update(&bits.to_be_bytes());
        mac.finish()
    })
}

/// KDFe: the one-step derivation of SP 800-56A from the x coordinate `z` of a shared point.
///
/// Block *i*, counted from 1, is `H(i || z || label || 00 || party_u || party_v)`. `label` comes without its
/// terminating NUL, which is added here (Part 1 has it a part of *Use*). Where `bits` is not a multiple of
/// eight, the excess high-order bits of the first byte are zero.
pub fn kdfe(
    alg: HashAlg,
    z: &[u8],
    label: &[u8],
    party_u: &[u8],
    party_v: &[u8],
    bits: u32,
) -> Zeroizing<Vec<u8>> {
    let mut out = fill_blocks(bits, alg, |counter| {
        let mut hasher = Hasher::new(alg);
        hasher.update(&counter.to_be_bytes());
        hasher.update(z);
        hasher.update(label);
        hasher.update(&[0]);
        hasher.update(party_u);
        hasher.update(party_v);
        hasher.finish()
    });
    let excess = bits.next_multiple_of(8).wrapping_sub(bits);
    if let Some(first) = out.first_mut() {
        *first &= 0xff_u8.checked_shr(excess).unwrap_or(0);
    }
    out
}

/// KDF2 of ISO/IEC 18033-2, 6.2.3: block *i*, counted from 1, is `H(z || i)` with a 32-bit big-endian number. The result has `size` bytes.
pub fn kdf2(alg: HashAlg, z: &[u8], size: usize) -> Zeroizing<Vec<u8>> {
    let bits = u32::try_from(size).unwrap_or(u32::MAX).saturating_mul(8);
    fill_blocks(bits, alg, |counter| {
        let mut hasher = Hasher::new(alg);
        hasher.update(z);
        hasher.update(&counter.to_be_bytes());
        hasher.finish()
    })
}

/// Concatenates blocks 1, 2, … until there are `bits` bits, and cuts to whole bytes.
fn fill_blocks(
    bits: u32,
    alg: HashAlg,
    mut block: impl FnMut(u32) -> super::hash::Digest,
) -> Zeroizing<Vec<u8>> {
    // 2^32 bits are 2^29 bytes, which is a usize everywhere, and far fewer blocks than the counter counts.
    let mut out = Zeroizing::new(vec![0; bits.div_ceil(8) as usize]);
    for (counter, chunk) in (1_u32..).zip(out.chunks_mut(alg.digest_size())) {
        let digest = Zeroizing::new(<[u8; super::hash::MAX_DIGEST_SIZE]>::from(block(counter)));
        for (to, from) in chunk.iter_mut().zip(digest.iter()) {
            *to = *from;
        }
    }
    out
}

/// An endless, deterministic byte source under a seed: what primary keys are drawn from.
///
/// The stream is the concatenation of the blocks `HMAC(seed, i || label || 00 || context || 00000000)` for
/// *i* = 1, 2, …; that is KDFa with a length field of zero, which no call of [`kdfa`] that returns
/// anything can have, so stream and derived keys never share a block. How the bytes are cut into requests
/// does not matter: two requests of 16 bytes give the same as one of 32.
///
/// **These bytes are frozen.** Keys that guests have sealed data to are derived from them.
pub struct KdfaStream {
    keyed: HmacHasher,
    /// `label || 00 || context || 00000000`
    suffix: Vec<u8>,
    counter: u32,
    block: Zeroizing<Vec<u8>>,
    used: usize,
}

impl KdfaStream {
    /// A stream under `seed`. `label` comes without NUL, which is added.
    pub fn new(alg: HashAlg, seed: &[u8], label: &[u8], context: &[u8]) -> KdfaStream {
        KdfaStream {
            keyed: HmacHasher::new(alg, seed),
            suffix: [label, &[0], context, &[0; 4]].concat(),
            counter: 0,
            block: Zeroizing::new(Vec::new()),
            used: 0,
        }
    }

    /// The stream that derived objects are made of (Part 1, "Derived Objects"): [`kdfa`] of [`MAX_DERIVATION_BITS`] under the secret of the
    /// derivation parent. A label that ends with a zero is not given another one.
    pub fn derivation(alg: HashAlg, secret: &[u8], label: &[u8], context: &[u8]) -> KdfaStream {
        let label = label.strip_suffix(&[0]).unwrap_or(label);
        let suffix = [label, &[0], context, &MAX_DERIVATION_BITS.to_be_bytes()].concat();
        KdfaStream { suffix, ..KdfaStream::new(alg, secret, &[], &[]) }
    }

    fn next_block(&mut self) {
        // Wraps after 2^32 blocks, which takes hours and no key needs a millionth of it.
        self.counter = self.counter.wrapping_add(1);
        let mut mac = self.keyed.clone();
        mac.update(&self.counter.to_be_bytes());
        mac.update(&self.suffix);
        self.block.clear();
        self.block.extend_from_slice(&mac.finish());
        self.used = 0;
    }
}

impl RandomSource for KdfaStream {
    fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            if self.used >= self.block.len() {
                self.next_block();
            }
            *byte = self.block.get(self.used).copied().unwrap_or_default();
            self.used = self.used.saturating_add(1);
        }
    }
}

/// The expected values come from a separate program in another language, written from Part 1.
#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Vec<u8> {
        (0..32).collect()
    }

    #[test]
    fn kdfa_of_every_hash() {
        for (alg, expected) in [
            (
                HashAlg::Sha1,
                "c466ffa0a7cbc9037bbdcd478e5767f8439d43c30a4278b5968b77367bfd657fc3b507e167e07e93\
                 7d04269a410d22e97a221f95eaf3c517bf86db3ecbd3717d61852bb0524694cbcf91d2",
            ),
            (
                HashAlg::Sha256,
                "9ba548d0cbd0e781c77f2d9e8d64622ef26877f96e61cecfa23133dc78f9868c7c198a0c8e35edf8\
                 a01cb708b92b72390444e181e6ef8eeef8528885f5c32585f75def243242b1e40e6fc3",
            ),
            (
                HashAlg::Sha384,
                "012e2336ac624995bec9101bf8a0cfaff1e3af23597d1a0f46a9e6686b827769e366d7746ded41de\
                 be973701206a6f2f7dfbb893787d6f1727fe618d7476498e141206da7745e23f3909a1",
            ),
            (
                HashAlg::Sha512,
                "51fd2a28489a0f8bb5db1e3d41c7879ca25401825e3a980c201f7467d24ac9ce4fd0a41eaa4c509a\
                 9a1f11f12266333fa31316f3368202372de49c122ba23f3b55a4e7596767f4a20d1401",
            ),
        ] {
            assert_eq!(hex::encode(&*kdfa(alg, &key(), b"STORAGE", b"name", b"more", 600)), expected);
        }
    }

    #[test]
    fn kdfa_rounds_bits_up_and_does_not_mask_them() {
        let out = kdfa(HashAlg::Sha256, &key(), b"CFB", b"", b"", 130);
        assert_eq!(hex::encode(&*out), "9b7029dc4f501dd6e3ed0a1800422a6392");
        assert!(kdfa(HashAlg::Sha256, &key(), b"CFB", b"", b"", 0).is_empty());
    }

    #[test]
    fn kdfe_masks_the_excess_bits() {
        for (alg, expected) in [
            (
                HashAlg::Sha1,
                "00ea532389b53612bde78c31a4c3efe96bb5a367d9f5de1cc34cee6fa7200331a38661c8232942c7\
                 3cc00f048db5064a8c828837eb5ef2efe7c023215f824a9e1c06",
            ),
            (
                HashAlg::Sha256,
                "01974e9353fc84b1860ad10ab7e67791bc9a2c21112c414402087c35d658341c30ffaf6b9b60c048\
                 11baf163095e0fc68596c95156264ef01dc52ac00b6db027fe77",
            ),
        ] {
            assert_eq!(hex::encode(&*kdfe(alg, &[b'Z'; 32], b"DUPLICATE", b"xu", b"xv", 521)), expected);
        }
        let whole = kdfe(HashAlg::Sha256, b"z", b"SECRET", b"", b"", 256);
        assert_eq!(**whole, *HashAlg::Sha256.digest(&[&[0, 0, 0, 1], b"z", b"SECRET\0"]));
    }

    #[test]
    fn kdf2_hashes_the_secret_before_the_counter() {
        let block = |i| HashAlg::Sha256.digest(&[b"z", &[0, 0, 0, i]]).to_vec();
        assert_eq!(**kdf2(HashAlg::Sha256, b"z", 40), [block(1), block(2)].concat()[..40]);
        assert!(kdf2(HashAlg::Sha256, b"z", 0).is_empty());
    }

    #[test]
    fn the_stream_is_frozen_and_does_not_depend_on_the_requests() {
        let expected = "a88661ec03f38cf1887c95b1bf7438a1dab12d0bac1f76f7068c83e1dce9b4d7aa3d8fb92b14f9a225e3\
                        62e8ae18203d8439d7210c6969983d95aa502ea2c1af4ed60fb7f08881619847ba80c74f5ddfa9523f3a\
                        ed5964df7d1b6a828e3e6ccef5c039d8";
        for step in [1, 7, 32, 33, 100] {
            let mut stream = KdfaStream::new(HashAlg::Sha256, b"seed", b"label", b"context");
            let mut out = vec![0; 100];
            for chunk in out.chunks_mut(step) {
                stream.fill(chunk);
            }
            assert_eq!(hex::encode(&out), expected, "in steps of {step}");
        }
    }
}
