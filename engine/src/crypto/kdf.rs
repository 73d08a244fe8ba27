//! The key derivation functions of Part 1, section 11.4.10, and a byte stream made of one of them.

use zeroize::Zeroizing;

use super::hash::{HashAlg, Hasher, HmacHasher};
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
