//! Symmetric encryption: AES, Camellia and TDES in the modes of SP 800-38A, and the XOR obfuscation of Part 1.

use aes::cipher::{Block, BlockCipherDecrypt, BlockCipherEncrypt, BlockSizeUser, KeyInit};
use aes::{Aes128, Aes192, Aes256};
use camellia::{Camellia128, Camellia192, Camellia256};
use des::{TdesEde2, TdesEde3};
use zeroize::Zeroizing;

use super::hash::HashAlg;
use super::kdf::kdfa;
use super::{CryptoError, RandomSource};

/// The number of bytes of an AES block.
pub const AES_BLOCK_SIZE: usize = 16;
/// The number of bytes of the largest block.
pub const MAX_BLOCK: usize = 16;

/// A block cipher, in all its key sizes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SymAlg {
    /// AES with 128, 192 or 256 bits.
    Aes,
    /// Camellia with 128, 192 or 256 bits.
    Camellia,
    /// Triple DES with two keys or three, 128 or 192 bits with those of parity.
    Tdes,
}

impl SymAlg {
    /// Bytes in a block, and so in an initialization vector.
    pub const fn block_size(self) -> usize {
        match self {
            SymAlg::Aes | SymAlg::Camellia => 16,
            SymAlg::Tdes => 8,
        }
    }

    /// Whether a key may be used: whether TDES is more than DES with it. None of its keys is on the list of weak, semi-weak and
    /// possibly weak ones, and neighbours differ. Parity bits do not matter. Keys of other ciphers are all alike.
    pub fn is_good_key(self, key: &[u8]) -> bool {
        if self != SymAlg::Tdes {
            return true;
        }
        let keys = Zeroizing::new(with_odd_parity(key));
        let parts: Vec<&[u8]> = keys.chunks(8).collect();
        parts.iter().all(|part| part.len() == 8 && des::weak_key_test(part).is_ok())
            && parts.iter().zip(parts.iter().skip(1)).all(|(a, b)| a != b)
    }

    /// A fresh key of `size` bytes: for TDES one with odd parity for which [`Self::is_good_key`] holds.
    ///
    /// # Errors
    /// [`CryptoError::Exhausted`] when the source gives none.
    pub fn generate_key(
        self,
        size: usize,
        rng: &mut dyn RandomSource,
    ) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        for _ in 0..16 {
            let mut key = Zeroizing::new(vec![0; size]);
            rng.fill(&mut key);
            if self == SymAlg::Tdes {
                key = Zeroizing::new(with_odd_parity(&key));
            }
            if self.is_good_key(&key) {
                return Ok(key);
            }
        }
        Err(CryptoError::Exhausted)
    }
}

/// Each byte with its lowest bit such that the number of ones is odd.
fn with_odd_parity(key: &[u8]) -> Vec<u8> {
    key.iter().map(|byte| (byte & 0xfe) | (((byte >> 1).count_ones() & 1) ^ 1) as u8).collect()
}

/// A mode of operation (SP 800-38A).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Counter: the whole block counts, big-endian, and wraps.
    Ctr,
    /// Output feedback.
    Ofb,
    /// Cipher block chaining, without padding.
    Cbc,
    /// Cipher feedback, by whole blocks; the last one may be short.
    Cfb,
    /// Electronic codebook, without padding.
    Ecb,
}

impl Mode {
    /// Whether data must be whole blocks.
    pub const fn needs_whole_blocks(self) -> bool {
        matches!(self, Mode::Cbc | Mode::Ecb)
    }
}

/// A block cipher with its key.
pub struct BlockCipher(Keyed);

enum Keyed {
    Aes128(Aes128),
    Aes192(Aes192),
    Aes256(Aes256),
    Camellia128(Camellia128),
    Camellia192(Camellia192),
    Camellia256(Camellia256),
    Tdes2(TdesEde2),
    Tdes3(TdesEde3),
}

fn keyed<C: KeyInit>(key: &[u8]) -> Result<C, CryptoError> {
    C::new_from_slice(key).map_err(|_| CryptoError::KeySize)
}

/// The first block of `bytes` through `f`.
fn on_block<C: BlockSizeUser>(bytes: &mut [u8], f: impl FnOnce(&mut Block<C>)) {
    let size = C::block_size();
    if let Some(block) = bytes.get_mut(..size).and_then(|b| <&mut Block<C>>::try_from(b).ok()) {
        f(block);
    }
}

macro_rules! dispatch {
    ($self:expr, $bytes:expr, $f:ident) => {
        match &$self.0 {
            Keyed::Aes128(c) => on_block::<Aes128>($bytes, |b| c.$f(b)),
            Keyed::Aes192(c) => on_block::<Aes192>($bytes, |b| c.$f(b)),
            Keyed::Aes256(c) => on_block::<Aes256>($bytes, |b| c.$f(b)),
            Keyed::Camellia128(c) => on_block::<Camellia128>($bytes, |b| c.$f(b)),
            Keyed::Camellia192(c) => on_block::<Camellia192>($bytes, |b| c.$f(b)),
            Keyed::Camellia256(c) => on_block::<Camellia256>($bytes, |b| c.$f(b)),
            Keyed::Tdes2(c) => on_block::<TdesEde2>($bytes, |b| c.$f(b)),
            Keyed::Tdes3(c) => on_block::<TdesEde3>($bytes, |b| c.$f(b)),
        }
    };
}

impl BlockCipher {
    /// Takes a key.
    ///
    /// # Errors
    /// [`CryptoError::KeySize`] for one of a size that the cipher does not have.
    pub fn new(alg: SymAlg, key: &[u8]) -> Result<BlockCipher, CryptoError> {
        Ok(BlockCipher(match (alg, key.len()) {
            (SymAlg::Aes, 16) => Keyed::Aes128(keyed(key)?),
            (SymAlg::Aes, 24) => Keyed::Aes192(keyed(key)?),
            (SymAlg::Aes, 32) => Keyed::Aes256(keyed(key)?),
            (SymAlg::Camellia, 16) => Keyed::Camellia128(keyed(key)?),
            (SymAlg::Camellia, 24) => Keyed::Camellia192(keyed(key)?),
            (SymAlg::Camellia, 32) => Keyed::Camellia256(keyed(key)?),
            (SymAlg::Tdes, 16) => Keyed::Tdes2(keyed(key)?),
            (SymAlg::Tdes, 24) => Keyed::Tdes3(keyed(key)?),
            _ => return Err(CryptoError::KeySize),
        }))
    }

    /// Bytes in a block.
    pub const fn block_size(&self) -> usize {
        match self.0 {
            Keyed::Tdes2(_) | Keyed::Tdes3(_) => 8,
            _ => 16,
        }
    }

    /// Encrypts the first block of `bytes`; fewer bytes than a block stay as they are.
    pub fn encrypt_block(&self, bytes: &mut [u8]) {
        dispatch!(self, bytes, encrypt_block);
    }

    /// Decrypts the first block of `bytes`; fewer bytes than a block stay as they are.
    pub fn decrypt_block(&self, bytes: &mut [u8]) {
        dispatch!(self, bytes, decrypt_block);
    }

    fn check(&self, mode: Mode, iv: &[u8], data: &[u8]) -> Result<(), CryptoError> {
        let size = self.block_size();
        let iv_size = if mode == Mode::Ecb { 0 } else { size };
        let whole = data.chunks_exact(size).remainder().is_empty();
        if iv.len() == iv_size && (whole || !mode.needs_whole_blocks()) {
            Ok(())
        } else {
            Err(CryptoError::Length)
        }
    }

    /// Encrypts `data` in place. `iv`, a block long (none in ECB), becomes that with which data goes on that comes next; after a last
    /// block that was short it has zeros behind what CFB takes of it.
    ///
    /// # Errors
    /// [`CryptoError::Length`] for an initialization vector of another length, or data that is not whole blocks in CBC or ECB.
    pub fn encrypt(&self, mode: Mode, iv: &mut [u8], data: &mut [u8]) -> Result<(), CryptoError> {
        self.check(mode, iv, data)?;
        let size = self.block_size();
        match mode {
            Mode::Ctr => self.count(iv, data),
            Mode::Ofb => self.feed_back_output(iv, data),
            Mode::Cbc => {
                for block in data.chunks_mut(size) {
                    xor(block, iv);
                    self.encrypt_block(block);
                    iv.copy_from_slice(block);
                }
            }
            Mode::Cfb => {
                for chunk in data.chunks_mut(size) {
                    self.encrypt_block(iv);
                    xor(chunk, iv);
                    take_over(iv, chunk);
                }
            }
            Mode::Ecb => data.chunks_mut(size).for_each(|block| self.encrypt_block(block)),
        }
        Ok(())
    }

    /// Decrypts what [`Self::encrypt`] made, with the same `iv` before and after.
    ///
    /// # Errors
    /// As [`Self::encrypt`].
    pub fn decrypt(&self, mode: Mode, iv: &mut [u8], data: &mut [u8]) -> Result<(), CryptoError> {
        self.check(mode, iv, data)?;
        let size = self.block_size();
        let mut next = [0; MAX_BLOCK];
        match mode {
            Mode::Ctr => self.count(iv, data),
            Mode::Ofb => self.feed_back_output(iv, data),
            Mode::Cbc => {
                for block in data.chunks_mut(size) {
                    take_over(&mut next, block);
                    self.decrypt_block(block);
                    xor(block, iv);
                    take_over(iv, &next);
                }
            }
            Mode::Cfb => {
                for chunk in data.chunks_mut(size) {
                    take_over(&mut next, chunk);
                    self.encrypt_block(iv);
                    xor(chunk, iv);
                    take_over(iv, &next);
                }
            }
            Mode::Ecb => data.chunks_mut(size).for_each(|block| self.decrypt_block(block)),
        }
        Ok(())
    }

    fn count(&self, counter: &mut [u8], data: &mut [u8]) {
        let mut stream = Zeroizing::new([0; MAX_BLOCK]);
        for chunk in data.chunks_mut(self.block_size()) {
            take_over(&mut *stream, counter);
            self.encrypt_block(&mut *stream);
            xor(chunk, &*stream);
            for byte in counter.iter_mut().rev() {
                *byte = byte.wrapping_add(1);
                if *byte != 0 {
                    break;
                }
            }
        }
    }

    fn feed_back_output(&self, iv: &mut [u8], data: &mut [u8]) {
        for chunk in data.chunks_mut(self.block_size()) {
            self.encrypt_block(iv);
            xor(chunk, iv);
        }
    }
}

fn xor(to: &mut [u8], from: &[u8]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to ^= from;
    }
}

/// `to` becomes `from`, with zeros behind it where that is shorter.
fn take_over(to: &mut [u8], from: &[u8]) {
    for (to, from) in to.iter_mut().zip(from.iter().copied().chain(core::iter::repeat(0))) {
        *to = from;
    }
}

/// Encrypts `data` in place in CFB mode, with an initialization vector of a block. The last block may be short.
///
/// # Errors
/// [`CryptoError::KeySize`], [`CryptoError::Length`].
pub fn cfb_encrypt(alg: SymAlg, key: &[u8], iv: &[u8], data: &mut [u8]) -> Result<(), CryptoError> {
    let mut iv = Zeroizing::new(iv.to_vec());
    BlockCipher::new(alg, key)?.encrypt(Mode::Cfb, &mut iv, data)
}

/// Decrypts what [`cfb_encrypt`] made, in place.
///
/// # Errors
/// As [`cfb_encrypt`].
pub fn cfb_decrypt(alg: SymAlg, key: &[u8], iv: &[u8], data: &mut [u8]) -> Result<(), CryptoError> {
    let mut iv = Zeroizing::new(iv.to_vec());
    BlockCipher::new(alg, key)?.decrypt(Mode::Cfb, &mut iv, data)
}

/// [`cfb_encrypt`] with AES. The key has 16, 24 or 32 bytes, else [`CryptoError::KeySize`].
pub fn aes_cfb_encrypt(key: &[u8], iv: &[u8; AES_BLOCK_SIZE], data: &mut [u8]) -> Result<(), CryptoError> {
    cfb_encrypt(SymAlg::Aes, key, iv, data)
}

/// Decrypts what [`aes_cfb_encrypt`] made, in place.
pub fn aes_cfb_decrypt(key: &[u8], iv: &[u8; AES_BLOCK_SIZE], data: &mut [u8]) -> Result<(), CryptoError> {
    cfb_decrypt(SymAlg::Aes, key, iv, data)
}

/// XOR obfuscation (Part 1, section 11.4.7): `data` is XORed with `KDFa(alg, key, "XOR", context_u, context_v)`
/// of its own length. Doing it twice gives the data back.
pub fn xor_obfuscate(alg: HashAlg, key: &[u8], context_u: &[u8], context_v: &[u8], data: &mut [u8]) {
    // Parameters have at most 64 KiB; beyond what 32 bits can count nothing is sent in clear but all is cleared.
    let Some(bits) = data.len().checked_mul(8).and_then(|bits| u32::try_from(bits).ok()) else {
        data.fill(0);
        return;
    };
    let mask = kdfa(alg, key, b"XOR", context_u, context_v, bits);
    for (byte, mask) in data.iter_mut().zip(mask.iter()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51\
                         30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710";
    const KEY_128: &str = "2b7e151628aed2a6abf7158809cf4f3c";
    const KEY_192: &str = "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b";
    const KEY_256: &str = "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4";

    fn bytes(hex: &str) -> Vec<u8> {
        hex::decode(hex).unwrap()
    }

    fn counting_iv() -> [u8; 16] {
        core::array::from_fn(|i| i as u8)
    }

    /// SP 800-38A, F.3.13 to F.3.18.
    #[test]
    fn aes_cfb_vectors() {
        for (key, cipher) in [
            (
                KEY_128,
                "3b3fd92eb72dad20333449f8e83cfb4ac8a64537a0b3a93fcde3cdad9f1ce58b\
                 26751f67a3cbb140b1808cf187a4f4dfc04b05357c5d1c0eeac4c66f9ff7f2e6",
            ),
            (
                KEY_192,
                "cdc80d6fddf18cab34c25909c99a417467ce7f7f81173621961a2b70171d3d7a\
                 2e1e8a1dd59b88b1c8e60fed1efac4c9c05f9f9ca9834fa042ae8fba584b09ff",
            ),
            (
                KEY_256,
                "dc7e84bfda79164b7ecd8486985d386039ffed143b28b1c832113c6331e5407b\
                 df10132415e54b92a13ed0a8267ae2f975a385741ab9cef82031623d55b1e471",
            ),
        ] {
            // Also cut within a block, where the feedback of the last one is short.
            for len in [64, 63, 33, 16, 1, 0] {
                let mut data = bytes(PLAIN)[..len].to_vec();
                aes_cfb_encrypt(&bytes(key), &counting_iv(), &mut data).unwrap();
                assert_eq!(data, bytes(cipher)[..len]);
                aes_cfb_decrypt(&bytes(key), &counting_iv(), &mut data).unwrap();
                assert_eq!(data, bytes(PLAIN)[..len]);
            }
        }
    }

    #[test]
    fn refuses_keys_of_other_lengths() {
        for len in (0..40).filter(|len| ![16, 24, 32].contains(len)) {
            let key = vec![1; len];
            let mut data = *b"data";
            assert_eq!(aes_cfb_encrypt(&key, &[0; 16], &mut data), Err(CryptoError::KeySize));
            assert_eq!(aes_cfb_decrypt(&key, &[0; 16], &mut data), Err(CryptoError::KeySize));
            assert!(BlockCipher::new(SymAlg::Camellia, &key).is_err());
            assert_eq!(data, *b"data");
        }
    }

    #[test]
    fn xor_obfuscation_is_kdfa_of_the_length_in_bits() {
        let plain = b"forty-one bytes of parameter to obfuscate";
        let mut data = *plain;
        xor_obfuscate(HashAlg::Sha256, b"sessionkey", b"newer", b"older", &mut data);
        let expected = "5252901ac576ce6614fafd62a982d8280ec6fafb459d0a66c56168bcd2a162a47ca5aafff0d1070e56";
        assert_eq!(hex::encode(data), expected);
        xor_obfuscate(HashAlg::Sha256, b"sessionkey", b"newer", b"older", &mut data);
        assert_eq!(data, *plain);
    }

    /// `algorithm mode key iv plain cipher`, from SP 800-38A (AES), RFC 3713 and the modes of OpenSSL 3 (Camellia, TDES).
    const VECTORS: &str = include_str!("sym/vectors.txt");

    fn vectors() -> impl Iterator<Item = (SymAlg, Mode, [Vec<u8>; 4])> {
        VECTORS.lines().filter(|line| !line.starts_with('#')).map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let alg = match words[0] {
                "aes" => SymAlg::Aes,
                "camellia" => SymAlg::Camellia,
                _ => SymAlg::Tdes,
            };
            let mode = match words[1] {
                "ctr" => Mode::Ctr,
                "ofb" => Mode::Ofb,
                "cbc" => Mode::Cbc,
                "cfb" => Mode::Cfb,
                _ => Mode::Ecb,
            };
            (alg, mode, [2, 3, 4, 5].map(|i| bytes(words[i].trim_start_matches('-'))))
        })
    }

    #[test]
    fn every_cipher_in_every_mode_has_its_vectors() {
        let mut seen = Vec::new();
        for (alg, mode, [key, iv, plain, cipher]) in vectors() {
            let keyed = BlockCipher::new(alg, &key).unwrap();
            seen.push((format!("{alg:?} {mode:?}"), key.len()));
            let (mut data, mut iv_1, mut iv_2) = (plain.clone(), iv.clone(), iv.clone());
            keyed.encrypt(mode, &mut iv_1, &mut data).unwrap();
            assert_eq!(hex::encode(&data), hex::encode(&cipher), "{alg:?} {mode:?} {}", key.len());
            keyed.decrypt(mode, &mut iv_2, &mut data).unwrap();
            assert_eq!((data, iv_2), (plain, iv_1), "{alg:?} {mode:?}");
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 5 * (3 + 3 + 2));
    }

    #[test]
    fn data_in_pieces_is_encrypted_as_one() {
        for (alg, mode, [key, iv, plain, cipher]) in vectors() {
            let keyed = BlockCipher::new(alg, &key).unwrap();
            let mut iv_1 = iv.clone();
            let mut data = plain.clone();
            for part in data.chunks_mut(keyed.block_size()) {
                keyed.encrypt(mode, &mut iv_1, part).unwrap();
            }
            assert_eq!(data, cipher);
            iv_1 = iv;
            for part in data.chunks_mut(keyed.block_size()) {
                keyed.decrypt(mode, &mut iv_1, part).unwrap();
            }
            assert_eq!(data, plain);
        }
    }

    #[test]
    fn after_a_short_block_of_cfb_the_vector_is_filled_with_zeros() {
        let keyed = BlockCipher::new(SymAlg::Aes, &bytes(KEY_128)).unwrap();
        let (mut iv, mut data) = (counting_iv(), bytes(PLAIN)[..19].to_vec());
        keyed.encrypt(Mode::Cfb, &mut iv, &mut data).unwrap();
        assert_eq!(iv[..3], data[16..]);
        assert_eq!(iv[3..], [0; 13]);
        let mut iv_2 = counting_iv();
        keyed.decrypt(Mode::Cfb, &mut iv_2, &mut data).unwrap();
        assert_eq!(iv_2, iv);
    }

    #[test]
    fn the_counter_wraps_as_one_number() {
        for (alg, size) in [(SymAlg::Aes, 16), (SymAlg::Tdes, 8)] {
            let keyed = BlockCipher::new(alg, &bytes(KEY_128)).unwrap();
            let (mut iv, mut wrapped) = (vec![0xff; size], vec![0; 2 * size]);
            keyed.encrypt(Mode::Ctr, &mut iv, &mut wrapped).unwrap();
            assert_eq!(iv[size - 1], 1);
            let mut zero = vec![0; size];
            keyed.encrypt(Mode::Ctr, &mut vec![0; size], &mut zero).unwrap();
            assert_eq!(wrapped[size..], zero);
        }
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused_and_change_nothing() {
        for (alg, size) in [(SymAlg::Aes, 16), (SymAlg::Camellia, 16), (SymAlg::Tdes, 8)] {
            let keyed = BlockCipher::new(alg, &bytes(KEY_128)).unwrap();
            let mut data = vec![5; size + 1];
            for (mode, iv_size, fits) in [
                (Mode::Cbc, size, false),
                (Mode::Ecb, 0, false),
                (Mode::Ecb, size, false),
                (Mode::Ctr, size - 1, false),
                (Mode::Ofb, 0, false),
                (Mode::Cfb, size + 1, false),
                (Mode::Cfb, size, true),
            ] {
                let mut iv = vec![1; iv_size];
                let result = keyed.encrypt(mode, &mut iv, &mut data);
                assert_eq!(result.is_ok(), fits, "{alg:?} {mode:?}");
                assert_eq!(data == vec![5; size + 1] && iv == vec![1; iv_size], !fits);
            }
        }
    }

    #[test]
    fn tdes_takes_keys_that_make_it_more_than_des() {
        let good = bytes("0123456789abcdef23456789abcdef01456789abcdef0123");
        assert!(SymAlg::Tdes.is_good_key(&good) && SymAlg::Tdes.is_good_key(&good[..16]));
        // The first and the third may be equal, as those of two-key TDES are.
        let again = [&good[..16], &good[..8]].concat();
        assert!(SymAlg::Tdes.is_good_key(&again));
        for bad in [
            "0123456789abcdef0123456789abcdef",
            // Equal but for parity.
            "0123456789abcdef0022446688aaccee",
            "23456789abcdef010123456789abcdef0123456789abcdef",
            // Weak, semi-weak, possibly weak; also with other parity.
            "01010101010101010123456789abcdef",
            "00000000000000000123456789abcdef",
            "0123456789abcdef1ffe1ffe0efe0efe",
            "0123456789abcdef23456789abcdef01e01f1fe0f10e0ef1",
        ] {
            assert!(!SymAlg::Tdes.is_good_key(&bytes(bad)), "{bad}");
        }
        assert!(SymAlg::Aes.is_good_key(&[0; 16]));
    }

    #[test]
    fn a_fresh_tdes_key_is_good_and_has_odd_parity() {
        /// Zeros at first, which are a weak key.
        struct Source(u8);
        impl RandomSource for Source {
            fn fill(&mut self, out: &mut [u8]) {
                out.iter_mut().enumerate().for_each(|(i, byte)| *byte = self.0.wrapping_mul(i as u8));
                self.0 = self.0.wrapping_add(37);
            }
        }
        let key = SymAlg::Tdes.generate_key(24, &mut Source(0)).unwrap();
        assert!(key.iter().all(|byte| byte.count_ones() % 2 == 1));
        assert!(SymAlg::Tdes.is_good_key(&key));
        struct Zeros;
        impl RandomSource for Zeros {
            fn fill(&mut self, out: &mut [u8]) {
                out.fill(0);
            }
        }
        assert_eq!(SymAlg::Tdes.generate_key(16, &mut Zeros).map(drop), Err(CryptoError::Exhausted));
        assert_eq!(*SymAlg::Aes.generate_key(16, &mut Zeros).unwrap(), [0; 16]);
    }
}
