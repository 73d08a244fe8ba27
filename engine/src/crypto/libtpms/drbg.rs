//! The CTR_DRBG of SP 800-90A with AES-256, with the derivation function as libtpms has it.
//!
//! That function begins as section 10.3.2 has it, with three chains under the key `00 01 .. 1f` whose first block holds their number. But
//!
//! - what a chain is encrypted from is the exclusive or of the block with all chaining values up to and including its own, with the block once for
//!   each of them (so that it has no part in the second chain);
//! - the length of the input and that of the result overwrite the first 8 bytes of the first chaining value, instead of standing in front
//!   of the input, which begins at byte 4 of its first block;
//! - the three chaining values themselves are the result.

use zeroize::Zeroizing;

use crate::crypto::rng::RandomSource;
use crate::crypto::sym::{BlockCipher, SymAlg};

const BLOCK: usize = 16;
const KEY: usize = 32;
/// Key and counter: what instantiation and reseeding take.
const SEED: usize = KEY + BLOCK;
const CHAINS: usize = SEED / BLOCK;

type Seed = Zeroizing<[u8; SEED]>;

/// The generator: key and counter.
pub struct Drbg {
    state: Seed,
}

impl Drbg {
    /// A generator from the concatenation of `inputs`.
    #[must_use]
    pub fn new(inputs: &[&[u8]]) -> Self {
        let mut drbg = Self { state: Zeroizing::new([0; SEED]) };
        drbg.update(&derive(inputs));
        drbg
    }

    /// Makes all that follows depend on `data`, too.
    pub fn stir(&mut self, data: &[u8]) {
        self.update(&derive(&[data]));
    }

    fn cipher(&self) -> Option<BlockCipher> {
        // The key has the right size, so there is one.
        BlockCipher::new(SymAlg::Aes, self.state.first_chunk::<KEY>()?).ok()
    }

    /// Fills `out` with the encryption of the numbers that follow the counter, which moves along.
    fn encrypt_counter(&mut self, cipher: &BlockCipher, out: &mut [u8]) {
        let Some(counter) = self.state.last_chunk_mut::<BLOCK>() else { return };
        for chunk in out.chunks_mut(BLOCK) {
            *counter = u128::from_be_bytes(*counter).wrapping_add(1).to_be_bytes();
            let mut block = Zeroizing::new(*counter);
            cipher.encrypt_block(&mut *block);
            for (to, from) in chunk.iter_mut().zip(block.iter()) {
                *to = *from;
            }
        }
    }

    /// `CTR_DRBG_Update`, 10.2.1.2.
    fn update(&mut self, data: &Seed) {
        let Some(cipher) = self.cipher() else { return };
        let mut next: Seed = Zeroizing::new([0; SEED]);
        self.encrypt_counter(&cipher, &mut *next);
        for (byte, data) in next.iter_mut().zip(data.iter()) {
            *byte ^= data;
        }
        self.state = next;
    }
}

impl RandomSource for Drbg {
    /// One request, after which the generator has another key: how the bytes are cut into requests matters.
    fn fill(&mut self, out: &mut [u8]) {
        let Some(cipher) = self.cipher() else { return };
        self.encrypt_counter(&cipher, out);
        self.update(&Zeroizing::new([0; SEED]));
    }
}

/// The derivation function.
fn derive(inputs: &[&[u8]]) -> Seed {
    let size = inputs.iter().map(|input| input.len()).fold(0, usize::saturating_add);
    let mut out: Seed = Zeroizing::new([0; SEED]);
    let key: [u8; KEY] = core::array::from_fn(|i| u8::try_from(i).unwrap_or_default());
    let Ok(cipher) = BlockCipher::new(SymAlg::Aes, &key) else { return out };
    for (number, chain) in (0u32..).zip(out.chunks_mut(BLOCK)) {
        if let Some(first) = chain.first_chunk_mut() {
            *first = number.to_be_bytes();
        }
    }
    compress(&cipher, &mut out, &[0; BLOCK]);
    let lengths = [u32::try_from(size).unwrap_or(u32::MAX), u32::try_from(SEED).unwrap_or_default()];
    for (to, length) in out.chunks_mut(4).zip(lengths) {
        to.copy_from_slice(&length.to_be_bytes());
    }
    // Four zeros, the inputs, a one bit, and zeros to the end of the block.
    let ends: [&[u8]; 2] = [&[0; 4], &[0x80]];
    let mut block = Zeroizing::new([0; BLOCK]);
    let mut filled = 0;
    let [start, end] = ends;
    for byte in start.iter().chain(inputs.iter().copied().flatten()).chain(end) {
        if let Some(place) = block.get_mut(filled) {
            *place = *byte;
        }
        filled = filled.saturating_add(1);
        if filled == BLOCK {
            compress(&cipher, &mut out, &block);
            *block = [0; BLOCK];
            filled = 0;
        }
    }
    if filled != 0 {
        compress(&cipher, &mut out, &block);
    }
    out
}

/// Takes one block into the chains.
fn compress(cipher: &BlockCipher, chains: &mut Seed, block: &[u8; BLOCK]) {
    debug_assert_eq!(chains.len(), CHAINS.saturating_mul(BLOCK));
    let mut sum = Zeroizing::new([0; BLOCK]);
    for chain in chains.chunks_mut(BLOCK) {
        for ((sum, chain), block) in sum.iter_mut().zip(chain.iter()).zip(block) {
            *sum ^= chain ^ block;
        }
        chain.copy_from_slice(&*sum);
        cipher.encrypt_block(chain);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With the entropy of SP 800-90A's example for CTR_DRBG with AES-256 and no derivation function, the state is the standard's.
    #[test]
    fn without_the_derivation_function_it_is_the_standards_generator() {
        // NIST CAVP, CTR_DRBG, AES-256 no df, without reseeding: entropy 00..2f has the example of SP 800-90A's validation document.
        let entropy: Seed = Zeroizing::new(core::array::from_fn(|i| u8::try_from(i).unwrap()));
        let mut drbg = Drbg { state: Zeroizing::new([0; SEED]) };
        drbg.update(&entropy);
        // The first update encrypts the counters 1, 2, 3 under a zero key.
        let cipher = BlockCipher::new(SymAlg::Aes, &[0; KEY]).unwrap();
        let mut expected = Vec::new();
        for counter in 1..=3u128 {
            let mut block = counter.to_be_bytes();
            cipher.encrypt_block(&mut block);
            expected.extend_from_slice(&block);
        }
        let expected: Vec<u8> = expected.iter().zip(entropy.iter()).map(|(a, b)| a ^ b).collect();
        assert_eq!(drbg.state[..], expected[..]);
    }

    #[test]
    fn requests_input_and_stirring_all_matter() {
        let drawn = |drbg: &mut Drbg, sizes: &[usize]| {
            let mut out = Vec::new();
            for size in sizes {
                let mut bytes = vec![0; *size];
                drbg.fill(&mut bytes);
                out.extend(bytes);
            }
            out
        };
        let first = drawn(&mut Drbg::new(&[b"seed", b"label"]), &[32]);
        assert_eq!(first, drawn(&mut Drbg::new(&[b"seedlabel"]), &[32]));
        assert_ne!(first, drawn(&mut Drbg::new(&[b"seedlabe"]), &[32]));
        let cut = drawn(&mut Drbg::new(&[b"seedlabel"]), &[16, 16]);
        assert!(first[..16] == cut[..16] && first[16..] != cut[16..]);
        let mut stirred = Drbg::new(&[b"seedlabel"]);
        stirred.stir(b"proof");
        assert_ne!(first, drawn(&mut stirred, &[32]));
    }
}
