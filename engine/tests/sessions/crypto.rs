//! The cryptography of a client, by the formulas of Part 1 and of the standards.

use aes::cipher::{Block, BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Aes192, Aes256};
use camellia::{Camellia128, Camellia192, Camellia256};
use des::{TdesEde2, TdesEde3};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};
use sha3::{Sha3_256, Sha3_384, Sha3_512};
use sm3::Sm3;

/// A hash by its algorithm id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Alg(pub u16);

pub const SHA1: Alg = Alg(0x0004);
pub const SHA256: Alg = Alg(0x000b);
pub const SHA384: Alg = Alg(0x000c);
pub const SHA512: Alg = Alg(0x000d);
pub const SM3: Alg = Alg(0x0012);
pub const SHA3_256: Alg = Alg(0x0027);
pub const SHA3_384: Alg = Alg(0x0028);
pub const SHA3_512: Alg = Alg(0x0029);
pub const ALGS: [Alg; 8] = [SHA1, SHA256, SHA384, SHA512, SM3, SHA3_256, SHA3_384, SHA3_512];

impl Alg {
    pub fn hash(self, parts: &[&[u8]]) -> Vec<u8> {
        let all = parts.concat();
        match self {
            SHA1 => Sha1::digest(&all).to_vec(),
            SHA256 => Sha256::digest(&all).to_vec(),
            SHA384 => Sha384::digest(&all).to_vec(),
            SHA512 => Sha512::digest(&all).to_vec(),
            SM3 => Sm3::digest(&all).to_vec(),
            SHA3_256 => Sha3_256::digest(&all).to_vec(),
            SHA3_384 => Sha3_384::digest(&all).to_vec(),
            SHA3_512 => Sha3_512::digest(&all).to_vec(),
            other => panic!("{other:?}"),
        }
    }

    pub fn size(self) -> usize {
        self.hash(&[]).len()
    }

    /// RFC 2104.
    pub fn hmac(self, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        let block = match self {
            SHA384 | SHA512 => 128,
            SHA3_256 => 136,
            SHA3_384 => 104,
            SHA3_512 => 72,
            _ => 64,
        };
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
    Camellia(u16),
    Tdes(u16),
    Xor(Alg),
}

impl Symmetric {
    /// `TPMT_SYM_DEF`.
    pub fn bytes(self) -> Vec<u8> {
        match self {
            Self::Null => vec![0, 0x10],
            Self::Aes(bits) => [&[0, 6][..], &bits.to_be_bytes(), &[0, 0x43]].concat(),
            Self::Camellia(bits) => [&[0, 0x26][..], &bits.to_be_bytes(), &[0, 0x43]].concat(),
            Self::Tdes(bits) => [&[0, 3][..], &bits.to_be_bytes(), &[0, 0x43]].concat(),
            Self::Xor(alg) => [&[0, 0x0a][..], &alg.0.to_be_bytes()].concat(),
        }
    }

    /// Encrypts or decrypts a parameter in place; `alg` is the hash of the session.
    pub fn apply(self, alg: Alg, key: &[u8], newer: &[u8], older: &[u8], data: &mut [u8], encrypt: bool) {
        match self {
            Self::Null => panic!("no cipher"),
            Self::Xor(_) => xor(data, &alg.kdfa(key, "XOR", newer, older, data.len() * 8)),
            Self::Aes(bits) | Self::Camellia(bits) | Self::Tdes(bits) => {
                let block = if matches!(self, Self::Tdes(_)) { 8 } else { 16 };
                let material = alg.kdfa(key, "CFB", newer, older, usize::from(bits) + 8 * block);
                let (key, iv) = material.split_at(usize::from(bits / 8));
                let mut feedback = iv.to_vec();
                for chunk in data.chunks_mut(block) {
                    let stream = self.block(key, &feedback);
                    let before = chunk.to_vec();
                    xor(chunk, &stream);
                    feedback = if encrypt { chunk.to_vec() } else { before };
                }
            }
        }
    }

    /// One block, of as many bytes as the cipher has.
    fn block(self, key: &[u8], input: &[u8]) -> Vec<u8> {
        let encrypt = match (self, key.len()) {
            (Self::Aes(_), 16) => encrypted::<Aes128>,
            (Self::Aes(_), 24) => encrypted::<Aes192>,
            (Self::Aes(_), _) => encrypted::<Aes256>,
            (Self::Camellia(_), 16) => encrypted::<Camellia128>,
            (Self::Camellia(_), 24) => encrypted::<Camellia192>,
            (Self::Camellia(_), _) => encrypted::<Camellia256>,
            (_, 16) => encrypted::<TdesEde2>,
            _ => encrypted::<TdesEde3>,
        };
        encrypt(key, input)
    }
}

fn encrypted<C: BlockCipherEncrypt + KeyInit>(key: &[u8], input: &[u8]) -> Vec<u8> {
    let mut block = Block::<C>::try_from(input).unwrap();
    C::new_from_slice(key).unwrap().encrypt_block(&mut block);
    block.to_vec()
}
