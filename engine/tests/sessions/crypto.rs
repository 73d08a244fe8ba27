//! The cryptography of a client, by the formulas of Part 1 and of the standards.

use aes::cipher::{Block, BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Aes192, Aes256};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};

/// A hash by its algorithm id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Alg(pub u16);

pub const SHA1: Alg = Alg(0x0004);
pub const SHA256: Alg = Alg(0x000b);
pub const SHA384: Alg = Alg(0x000c);
pub const SHA512: Alg = Alg(0x000d);
pub const ALGS: [Alg; 4] = [SHA1, SHA256, SHA384, SHA512];

impl Alg {
    pub fn hash(self, parts: &[&[u8]]) -> Vec<u8> {
        let all = parts.concat();
        match self {
            SHA1 => Sha1::digest(&all).to_vec(),
            SHA256 => Sha256::digest(&all).to_vec(),
            SHA384 => Sha384::digest(&all).to_vec(),
            SHA512 => Sha512::digest(&all).to_vec(),
            other => panic!("{other:?}"),
        }
    }

    pub fn size(self) -> usize {
        self.hash(&[]).len()
    }

    /// RFC 2104.
    pub fn hmac(self, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        let block = if self.size() > 32 { 128 } else { 64 };
        let mut padded = if key.len() > block { self.hash(&[key]) } else { key.to_vec() };
        padded.resize(block, 0);
        let inner: Vec<u8> = padded.iter().map(|b| b ^ 0x36).collect();
        let outer: Vec<u8> = padded.iter().map(|b| b ^ 0x5c).collect();
        self.hash(&[&outer, &self.hash(&[&inner, &parts.concat()])])
    }

    /// Part 1, "KDFa".
    pub fn kdfa(self, key: &[u8], label: &str, u: &[u8], v: &[u8], bits: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for i in 1u32.. {
            if out.len() * 8 >= bits {
                break;
            }
            let length = (bits as u32).to_be_bytes();
            out.extend(self.hmac(key, &[&i.to_be_bytes(), label.as_bytes(), &[0], u, v, &length]));
        }
        out.truncate(bits.div_ceil(8));
        out
    }

    /// Part 1, "KDFe", for as many bits as the hash has.
    pub fn kdfe(self, z: &[u8], label: &str, u: &[u8], v: &[u8]) -> Vec<u8> {
        self.hash(&[&1u32.to_be_bytes(), z, label.as_bytes(), &[0], u, v])
    }

    fn mgf1(self, seed: &[u8], len: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for i in 0u32.. {
            if out.len() >= len {
                break;
            }
            out.extend(self.hash(&[seed, &i.to_be_bytes()]));
        }
        out.truncate(len);
        out
    }

    /// RFC 8017, 7.1.1, with a fixed seed: the padded block of `size` bytes.
    pub fn oaep(self, label: &[u8], message: &[u8], size: usize) -> Vec<u8> {
        let h = self.size();
        let mut db = self.hash(&[label]);
        db.resize(size - h - 2 - message.len(), 0);
        db.push(1);
        db.extend_from_slice(message);
        let seed = vec![0x3c; h];
        xor(&mut db, &self.mgf1(&seed, size - h - 1));
        let mut masked_seed = seed;
        xor(&mut masked_seed, &self.mgf1(&db, h));
        [&[0][..], &masked_seed, &db].concat()
    }
}

fn xor(data: &mut [u8], mask: &[u8]) {
    data.iter_mut().zip(mask).for_each(|(d, m)| *d ^= m);
}

/// The cipher of parameter encryption.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Symmetric {
    Null,
    Aes(u16),
    Xor(Alg),
}

impl Symmetric {
    /// `TPMT_SYM_DEF`.
    pub fn bytes(self) -> Vec<u8> {
        match self {
            Self::Null => vec![0, 0x10],
            Self::Aes(bits) => [&[0, 6][..], &bits.to_be_bytes(), &[0, 0x43]].concat(),
            Self::Xor(alg) => [&[0, 0x0a][..], &alg.0.to_be_bytes()].concat(),
        }
    }

    /// Encrypts or decrypts a parameter in place; `alg` is the hash of the session.
    pub fn apply(self, alg: Alg, key: &[u8], newer: &[u8], older: &[u8], data: &mut [u8], encrypt: bool) {
        match self {
            Self::Null => panic!("no cipher"),
            Self::Xor(_) => xor(data, &alg.kdfa(key, "XOR", newer, older, data.len() * 8)),
            Self::Aes(bits) => {
                let material = alg.kdfa(key, "CFB", newer, older, usize::from(bits) + 128);
                let (key, iv) = material.split_at(usize::from(bits / 8));
                let mut feedback = iv.to_vec();
                for chunk in data.chunks_mut(16) {
                    let stream = aes_block(key, &feedback);
                    let before = chunk.to_vec();
                    xor(chunk, &stream);
                    feedback = if encrypt { chunk.to_vec() } else { before };
                }
            }
        }
    }
}

fn aes_block(key: &[u8], input: &[u8]) -> [u8; 16] {
    let mut block = Block::<Aes128>::from(<[u8; 16]>::try_from(input).unwrap());
    match key.len() {
        16 => Aes128::new_from_slice(key).unwrap().encrypt_block(&mut block),
        24 => Aes192::new_from_slice(key).unwrap().encrypt_block(&mut block),
        _ => Aes256::new_from_slice(key).unwrap().encrypt_block(&mut block),
    }
    block.into()
}
