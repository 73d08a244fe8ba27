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
        let mut encrypted = data.to_vec();
        sym::aes_cfb_encrypt(&self.key(), &[0; 16], &mut encrypted).map_err(|_| ResponseCode::FAILURE)?;
        let mut out = Vec::with_capacity(encrypted.len().saturating_add(66));
        encode_sized(&self.integrity(&encrypted), &mut out);
        out.extend_from_slice(&encrypted);
        Ok(out)
    }

    /// Checks the HMAC and decrypts.
    ///
    /// # Errors
    /// `TPM_RC_INTEGRITY` when the HMAC is not right, `TPM_RC_SIZE`, `TPM_RC_INSUFFICIENT` for bytes of another shape.
    pub fn open(&self, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, ResponseCode> {
        let mut r = Reader::new(sealed);
        let tag = r.sized(64)?;
        let mut data = Zeroizing::new(r.take_rest().to_vec());
        if !ct_eq(tag, &self.integrity(&data)) {
            return Err(ResponseCode::INTEGRITY);
        }
        sym::aes_cfb_decrypt(&self.key(), &[0; 16], &mut data).map_err(|_| ResponseCode::FAILURE)?;
        Ok(data)
    }

    fn key(&self) -> Zeroizing<Vec<u8>> {
        kdfa(self.alg, self.seed, b"STORAGE", self.name, &[], u32::from(self.key_bits))
    }

    fn integrity(&self, encrypted: &[u8]) -> Digest {
        let bits = u32::try_from(self.alg.digest_size()).unwrap_or_default().saturating_mul(8);
        let key = kdfa(self.alg, self.seed, b"INTEGRITY", &[], &[], bits);
        hmac(self.alg, &key, &[encrypted, self.name])
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
