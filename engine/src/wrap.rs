//! The outer wrapper (Part 1, "Protected Storage", "Outer Duplication Wrapper"): data encrypted in CFB mode and authenticated with
//! an HMAC, both under keys derived from a seed that only the holder of a storage key has, and both bound to a Name.

use crate::alg::SymCipher;
use crate::crypto::sym::{self, MAX_BLOCK};
use crate::crypto::{Digest, HashAlg, ct_eq, hmac, kdfa};
use vtpm_protocol::codec::{Reader, encode_sized};
use vtpm_protocol::rc::ResponseCode;
use zeroize::Zeroizing;

/// The keys of a wrapper.
pub struct Wrapper<'a> {
    /// The hash of both derivations and of the HMAC.
    pub alg: HashAlg,
    /// The secret.
    pub seed: &'a [u8],
    /// The Name of what is wrapped.
    pub name: &'a [u8],
    /// The cipher, used in CFB mode.
    pub cipher: SymCipher,
}

impl Wrapper<'_> {
    /// Encrypts with a zero IV, as the outer wrapper of a duplication has it, and puts the HMAC in front.
    ///
    /// # Errors
    /// `TPM_RC_FAILURE` for a key size that the cipher does not have.
    pub fn seal(&self, data: &[u8]) -> Result<Vec<u8>, ResponseCode> {
        self.seal_behind(&[], self.zero_iv(), data)
    }

    /// Encrypts with an IV that is part of the result, as `TPM2B_PRIVATE` of a child has it: HMAC, IV, then the data. The same
    /// object may be wrapped many times under the same key, each time with a fresh IV, of which a block of `fresh` is taken.
    ///
    /// # Errors
    /// `TPM_RC_FAILURE` for a key size that the cipher does not have.
    pub fn seal_with_iv(&self, fresh: &[u8; MAX_BLOCK], data: &[u8]) -> Result<Vec<u8>, ResponseCode> {
        let iv = fresh.get(..self.cipher.alg.block_size()).unwrap_or_default();
        let mut prefix = Vec::with_capacity(18);
        encode_sized(iv, &mut prefix);
        self.seal_behind(&prefix, iv, data)
    }

    fn seal_behind(&self, prefix: &[u8], iv: &[u8], data: &[u8]) -> Result<Vec<u8>, ResponseCode> {
        let mut protected = [prefix, data].concat();
        let encrypted = protected.get_mut(prefix.len()..).unwrap_or_default();
        sym::cfb_encrypt(self.cipher.alg, &self.key(), iv, encrypted).map_err(|_| ResponseCode::FAILURE)?;
        let mut out = Vec::with_capacity(protected.len().saturating_add(66));
        encode_sized(&self.integrity(&protected), &mut out);
        out.append(&mut protected);
        Ok(out)
    }

    /// Checks the HMAC and decrypts what [`Self::seal`] made.
    ///
    /// # Errors
    /// `TPM_RC_INTEGRITY` when the HMAC is not right, `TPM_RC_SIZE`, `TPM_RC_INSUFFICIENT` for bytes of another shape.
    pub fn open(&self, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, ResponseCode> {
        self.decrypt(self.zero_iv(), self.authenticated(sealed)?)
    }

    /// Checks the HMAC and decrypts what [`Self::seal_with_iv`] made.
    ///
    /// # Errors
    /// As [`Self::open`], and `TPM_RC_VALUE` for an IV of another size than a block.
    pub fn open_with_iv(&self, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, ResponseCode> {
        let mut r = Reader::new(self.authenticated(sealed)?);
        let iv = r.sized(MAX_BLOCK)?;
        if iv.len() != self.cipher.alg.block_size() {
            return Err(ResponseCode::VALUE);
        }
        self.decrypt(iv, r.take_rest())
    }

    fn authenticated<'a>(&self, sealed: &'a [u8]) -> Result<&'a [u8], ResponseCode> {
        let mut r = Reader::new(sealed);
        let tag = r.sized(64)?;
        let protected = r.take_rest();
        if ct_eq(tag, &self.integrity(protected)) { Ok(protected) } else { Err(ResponseCode::INTEGRITY) }
    }

    fn decrypt(&self, iv: &[u8], encrypted: &[u8]) -> Result<Zeroizing<Vec<u8>>, ResponseCode> {
        let mut data = Zeroizing::new(encrypted.to_vec());
        sym::cfb_decrypt(self.cipher.alg, &self.key(), iv, &mut data).map_err(|_| ResponseCode::FAILURE)?;
        Ok(data)
    }

    fn zero_iv(&self) -> &'static [u8] {
        const ZERO: [u8; MAX_BLOCK] = [0; MAX_BLOCK];
        ZERO.get(..self.cipher.alg.block_size()).unwrap_or_default()
    }

    fn key(&self) -> Zeroizing<Vec<u8>> {
        kdfa(self.alg, self.seed, b"STORAGE", self.name, &[], u32::from(self.cipher.key_bits))
    }

    fn integrity(&self, protected: &[u8]) -> Digest {
        let bits = u32::try_from(self.alg.digest_size()).unwrap_or_default().saturating_mul(8);
        let key = kdfa(self.alg, self.seed, b"INTEGRITY", &[], &[], bits);
        hmac(self.alg, &key, &[protected, self.name])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::SymAlg;

    #[test]
    fn opens_what_it_sealed_and_nothing_else() {
        for (alg, block) in [(SymAlg::Aes, 16), (SymAlg::Camellia, 16), (SymAlg::Tdes, 8)] {
            let cipher = SymCipher { alg, key_bits: 128 };
            let w = Wrapper { alg: HashAlg::Sha256, seed: &[1; 32], name: b"name", cipher };
            let sealed = w.seal(b"secret").unwrap();
            assert_eq!(w.open(&sealed).unwrap().as_slice(), b"secret");
            for i in 0..sealed.len() {
                let mut bad = sealed.clone();
                bad[i] ^= 1;
                assert!(w.open(&bad).is_err());
            }
            let with_iv = w.seal_with_iv(&[3; 16], b"secret").unwrap();
            assert_eq!(with_iv.len(), sealed.len() + 2 + block);
            assert_eq!(w.open_with_iv(&with_iv).unwrap().as_slice(), b"secret");
            assert_eq!(Wrapper { name: b"nane", ..w }.open(&sealed), Err(ResponseCode::INTEGRITY));
        }
    }
}
