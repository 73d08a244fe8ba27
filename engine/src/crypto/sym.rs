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
