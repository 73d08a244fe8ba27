//! Symmetric encryption: AES in CFB and counter mode, and the XOR obfuscation of Part 1.

use aes::cipher::{Block, BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Aes192, Aes256};
use zeroize::Zeroizing;

use super::CryptoError;
use super::hash::HashAlg;
use super::kdf::kdfa;

/// The number of bytes of an AES block, and so of every initialization vector here.
pub const AES_BLOCK_SIZE: usize = 16;

/// AES keyed with one of its three key sizes. CFB and counter mode only ever encrypt blocks.
enum Aes {
    Aes128(Aes128),
    Aes192(Aes192),
    Aes256(Aes256),
}

impl Aes {
    fn new(key: &[u8]) -> Result<Aes, CryptoError> {
        match key.len() {
            16 => Aes128::new_from_slice(key).map(Aes::Aes128),
            24 => Aes192::new_from_slice(key).map(Aes::Aes192),
            _ => Aes256::new_from_slice(key).map(Aes::Aes256),
        }
        .map_err(|_| CryptoError::KeySize)
    }

    fn encrypt_block(&self, block: &[u8; AES_BLOCK_SIZE]) -> [u8; AES_BLOCK_SIZE] {
        let mut out = Block::<Aes128>::from(*block);
        match self {
            Aes::Aes128(aes) => aes.encrypt_block(&mut out),
            Aes::Aes192(aes) => aes.encrypt_block(&mut out),
            Aes::Aes256(aes) => aes.encrypt_block(&mut out),
        }
        out.into()
    }
}

/// Encrypts `data` in place with AES in CFB mode with 128-bit feedback (SP 800-38A, section 6.3). The last
/// block may be short. The key has 16, 24 or 32 bytes, else [`CryptoError::KeySize`].
pub fn aes_cfb_encrypt(key: &[u8], iv: &[u8; AES_BLOCK_SIZE], data: &mut [u8]) -> Result<(), CryptoError> {
    let aes = Aes::new(key)?;
    let mut feedback = *iv;
    for chunk in data.chunks_mut(AES_BLOCK_SIZE) {
        let stream = Zeroizing::new(aes.encrypt_block(&feedback));
        for ((byte, stream), feedback) in chunk.iter_mut().zip(stream.iter()).zip(feedback.iter_mut()) {
            *byte ^= stream;
            *feedback = *byte;
        }
    }
    Ok(())
}

/// Decrypts what [`aes_cfb_encrypt`] made, in place.
pub fn aes_cfb_decrypt(key: &[u8], iv: &[u8; AES_BLOCK_SIZE], data: &mut [u8]) -> Result<(), CryptoError> {
    let aes = Aes::new(key)?;
    let mut feedback = *iv;
    for chunk in data.chunks_mut(AES_BLOCK_SIZE) {
        let stream = Zeroizing::new(aes.encrypt_block(&feedback));
        for ((byte, stream), feedback) in chunk.iter_mut().zip(stream.iter()).zip(feedback.iter_mut()) {
            *feedback = *byte;
            *byte ^= stream;
        }
    }
    Ok(())
}

/// Encrypts or decrypts `data` in place with AES in counter mode (SP 800-38A, section 6.5). The whole block is
/// the counter, big-endian, and wraps. The key has 16, 24 or 32 bytes, else [`CryptoError::KeySize`].
pub fn aes_ctr(key: &[u8], iv: &[u8; AES_BLOCK_SIZE], data: &mut [u8]) -> Result<(), CryptoError> {
    let aes = Aes::new(key)?;
    let mut counter = u128::from_be_bytes(*iv);
    for chunk in data.chunks_mut(AES_BLOCK_SIZE) {
        let stream = Zeroizing::new(aes.encrypt_block(&counter.to_be_bytes()));
        for (byte, stream) in chunk.iter_mut().zip(stream.iter()) {
            *byte ^= stream;
        }
        counter = counter.wrapping_add(1);
    }
    Ok(())
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
    use proptest::prelude::*;

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

    /// SP 800-38A, F.5.1 and F.5.5.
    #[test]
    fn aes_ctr_vectors() {
        let iv = core::array::from_fn(|i| 0xf0 + i as u8);
        for (key, cipher) in [
            (
                KEY_128,
                "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff\
                 5ae4df3edbd5d35e5b4f09020db03eab1e031dda2fbe03d1792170a0f3009cee",
            ),
            (
                KEY_256,
                "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5\
                 2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6",
            ),
        ] {
            for len in [64, 17, 5] {
                let mut data = bytes(PLAIN)[..len].to_vec();
                aes_ctr(&bytes(key), &iv, &mut data).unwrap();
                assert_eq!(data, bytes(cipher)[..len]);
            }
        }
    }

    #[test]
    fn the_counter_wraps_as_one_number() {
        let mut wrapped = [0; 32];
        aes_ctr(&bytes(KEY_128), &[0xff; 16], &mut wrapped).unwrap();
        let mut zero = [0; 16];
        aes_ctr(&bytes(KEY_128), &[0; 16], &mut zero).unwrap();
        assert_eq!(wrapped[16..], zero);
    }

    #[test]
    fn refuses_keys_of_other_lengths() {
        for len in (0..40).filter(|len| ![16, 24, 32].contains(len)) {
            let key = vec![1; len];
            let mut data = *b"data";
            assert_eq!(aes_cfb_encrypt(&key, &[0; 16], &mut data), Err(CryptoError::KeySize));
            assert_eq!(aes_cfb_decrypt(&key, &[0; 16], &mut data), Err(CryptoError::KeySize));
            assert_eq!(aes_ctr(&key, &[0; 16], &mut data), Err(CryptoError::KeySize));
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

    proptest! {
        #[test]
        fn decryption_inverts_encryption(
            key in proptest::sample::select(vec![16_usize, 24, 32]).prop_flat_map(|n| vec![any::<u8>(); n]),
            iv in any::<[u8; 16]>(),
            plain in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let mut data = plain.clone();
            aes_cfb_encrypt(&key, &iv, &mut data).unwrap();
            aes_cfb_decrypt(&key, &iv, &mut data).unwrap();
            prop_assert_eq!(&data, &plain);
            aes_ctr(&key, &iv, &mut data).unwrap();
            aes_ctr(&key, &iv, &mut data).unwrap();
            prop_assert_eq!(&data, &plain);
        }
    }
}
