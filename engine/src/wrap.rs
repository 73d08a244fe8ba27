//! The outer wrapper (Part 1, "Protected Storage", "Outer Duplication Wrapper"): data encrypted with AES-CFB and authenticated with
//! an HMAC, both under keys derived from a seed that only the holder of a storage key has, and both bound to a Name.

use crate::crypto::{Digest, HashAlg, ct_eq, hmac, kdfa, sym};
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
    /// Bits of the AES key.
    pub key_bits: u16,
}

impl Wrapper<'_> {
    /// Encrypts with a zero IV, as the outer wrapper of a duplication has it, and puts the HMAC in front.
    ///
    /// # Errors
    /// `TPM_RC_FAILURE` for a key size that AES does not have.
    pub fn seal(&self, data: &[u8]) -> Result<Vec<u8>, ResponseCode> {
        self.seal_behind(&[], &[0; 16], data)
    }

    /// Encrypts with an IV that is part of the result, as `TPM2B_PRIVATE` of a child has it: HMAC, IV, then the data. The same
    /// object may be wrapped many times under the same key, each time with a fresh `iv`.
    ///
    /// # Errors
    /// `TPM_RC_FAILURE` for a key size that AES does not have.
    pub fn seal_with_iv(&self, iv: &[u8; 16], data: &[u8]) -> Result<Vec<u8>, ResponseCode> {
        let mut prefix = Vec::with_capacity(18);
        encode_sized(iv, &mut prefix);
        self.seal_behind(&prefix, iv, data)
    }

    fn seal_behind(&self, prefix: &[u8], iv: &[u8; 16], data: &[u8]) -> Result<Vec<u8>, ResponseCode> {
        let mut protected = [prefix, data].concat();
        let encrypted = protected.get_mut(prefix.len()..).unwrap_or_default();
        sym::aes_cfb_encrypt(&self.key(), iv, encrypted).map_err(|_| ResponseCode::FAILURE)?;
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
        self.decrypt(&[0; 16], self.authenticated(sealed)?)
    }

    /// Checks the HMAC and decrypts what [`Self::seal_with_iv`] made.
    ///
    /// # Errors
    /// As [`Self::open`], and `TPM_RC_VALUE` for an IV of another size than a block.
    pub fn open_with_iv(&self, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, ResponseCode> {
        let mut r = Reader::new(self.authenticated(sealed)?);
        let iv = r.sized(16)?.try_into().map_err(|_| ResponseCode::VALUE)?;
        self.decrypt(iv, r.take_rest())
    }

    fn authenticated<'a>(&self, sealed: &'a [u8]) -> Result<&'a [u8], ResponseCode> {
        let mut r = Reader::new(sealed);
        let tag = r.sized(64)?;
        let protected = r.take_rest();
        if ct_eq(tag, &self.integrity(protected)) { Ok(protected) } else { Err(ResponseCode::INTEGRITY) }
    }

    fn decrypt(&self, iv: &[u8; 16], encrypted: &[u8]) -> Result<Zeroizing<Vec<u8>>, ResponseCode> {
        let mut data = Zeroizing::new(encrypted.to_vec());
        sym::aes_cfb_decrypt(&self.key(), iv, &mut data).map_err(|_| ResponseCode::FAILURE)?;
        Ok(data)
    }

    fn key(&self) -> Zeroizing<Vec<u8>> {
        kdfa(self.alg, self.seed, b"STORAGE", self.name, &[], u32::from(self.key_bits))
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

    #[test]
    fn opens_what_it_sealed_and_nothing_else() {
        let w = Wrapper { alg: HashAlg::Sha256, seed: &[1; 32], name: b"name", key_bits: 128 };
        let sealed = w.seal(b"secret").unwrap();
        assert_eq!(w.open(&sealed).unwrap().as_slice(), b"secret");
        for i in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[i] ^= 1;
            assert!(w.open(&bad).is_err());
        }
        assert_eq!(Wrapper { name: b"nane", ..w }.open(&sealed), Err(ResponseCode::INTEGRITY));
    }
}
