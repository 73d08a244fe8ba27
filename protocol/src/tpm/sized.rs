//! `TPM2B` types: byte strings with a 16-bit size and a cap (Part 2, chapter 10.4 and 11).

use super::constants::{
    LABEL_MAX_BUFFER, MAX_CONTEXT_SIZE, MAX_DIGEST_BUFFER, MAX_DIGEST_SIZE, MAX_ECC_KEY_BYTES,
    MAX_NV_BUFFER_SIZE, MAX_RSA_KEY_BYTES, MAX_SYM_DATA,
};
use crate::codec::{Decode, Encode, Reader, encode_sized, encode_sized_with};
use crate::rc::ResponseCode;
use core::fmt;
use core::ops::Deref;
use zeroize::Zeroizing;

/// A byte string of at most `MAX` bytes that is no secret.
#[derive(Clone, PartialEq, Eq, Default, Hash, PartialOrd, Ord)]
pub struct Tpm2b<const MAX: usize>(Vec<u8>);

impl<const MAX: usize> Tpm2b<MAX> {
    /// Wraps bytes.
    ///
    /// # Errors
    /// `TPM_RC_SIZE` when they are more than `MAX`.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, ResponseCode> {
        let bytes = bytes.into();
        if bytes.len() > MAX { Err(ResponseCode::SIZE) } else { Ok(Self(bytes)) }
    }

    /// The Empty Buffer.
    #[must_use]
    pub const fn empty() -> Self {
        Self(Vec::new())
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

impl<const MAX: usize> Deref for Tpm2b<MAX> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl<const MAX: usize> fmt::Debug for Tpm2b<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl<const MAX: usize> Encode for Tpm2b<MAX> {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_sized(&self.0, out);
    }
}

impl<const MAX: usize> Decode for Tpm2b<MAX> {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        Ok(Self(r.sized(MAX)?.to_vec()))
    }
}

/// A byte string of at most `MAX` bytes that is a secret: wiped when dropped, without `Debug` and without comparison.
#[derive(Clone, Default)]
pub struct Secret2b<const MAX: usize>(Zeroizing<Vec<u8>>);

impl<const MAX: usize> Secret2b<MAX> {
    /// Wraps bytes.
    ///
    /// # Errors
    /// `TPM_RC_SIZE` when they are more than `MAX`.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, ResponseCode> {
        let bytes = Zeroizing::new(bytes.into());
        if bytes.len() > MAX { Err(ResponseCode::SIZE) } else { Ok(Self(bytes)) }
    }

    /// The Empty Buffer.
    #[must_use]
    pub fn empty() -> Self {
        Self(Zeroizing::new(Vec::new()))
    }

    /// The secret bytes. The caller keeps them from logs and from comparison with `==`.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Number of bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether this is the Empty Buffer.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Without trailing zeros, as Part 1 wants authorization values ("Authorization Value") to be.
    #[must_use]
    pub fn without_trailing_zeros(&self) -> Self {
        let end = self.0.iter().rposition(|&b| b != 0).map_or(0, |last| last.saturating_add(1));
        Self(Zeroizing::new(self.0.get(..end).unwrap_or_default().to_vec()))
    }
}

impl<const MAX: usize> Encode for Secret2b<MAX> {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_sized(&self.0, out);
    }
}

impl<const MAX: usize> Decode for Secret2b<MAX> {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        Ok(Self(Zeroizing::new(r.sized(MAX)?.to_vec())))
    }
}

/// `TPM2B_DIGEST`, 10.4.2.
pub type Tpm2bDigest = Tpm2b<MAX_DIGEST_SIZE>;
/// `TPM2B_DATA`, 10.4.3: at most a `TPMT_HA`.
pub type Tpm2bData = Tpm2b<66>;
/// `TPM2B_NONCE`, 10.4.4.
pub type Tpm2bNonce = Tpm2bDigest;
/// `TPM2B_AUTH`, 10.4.5.
pub type Tpm2bAuth = Secret2b<MAX_DIGEST_SIZE>;
/// `TPM2B_IV`, 10.4.11: at most a block.
pub type Tpm2bIv = Tpm2b<16>;
/// `TPM2B_EVENT`, 10.4.7.
pub type Tpm2bEvent = Tpm2b<1024>;
/// `TPM2B_MAX_BUFFER`, 10.4.8.
pub type Tpm2bMaxBuffer = Tpm2b<MAX_DIGEST_BUFFER>;
/// `TPM2B_MAX_NV_BUFFER`, 10.4.9.
pub type Tpm2bMaxNvBuffer = Tpm2b<MAX_NV_BUFFER_SIZE>;
/// `TPM2B_NAME`, 10.5.3: a handle or a `TPMT_HA`.
pub type Tpm2bName = Tpm2b<66>;
/// `TPM2B_ATTEST`, 10.12.13.
pub type Tpm2bAttest = Tpm2b<2048>;
/// `TPM2B_SENSITIVE_DATA`, 11.1.14.
pub type Tpm2bSensitiveData = Secret2b<MAX_SYM_DATA>;
/// `TPM2B_LABEL`, 11.1.10: label or context of a derivation.
pub type Tpm2bLabel = Secret2b<LABEL_MAX_BUFFER>;
/// `TPM2B_TEMPLATE`, 12.2.6: a `TPMT_PUBLIC`, or a template of derivation, not decoded yet.
pub type Tpm2bTemplate = Tpm2b<640>;
/// `TPM2B_PUBLIC_KEY_RSA`, 11.2.4.5.
pub type Tpm2bPublicKeyRsa = Tpm2b<MAX_RSA_KEY_BYTES>;
/// `TPM2B_PRIVATE_KEY_RSA`, 11.2.4.7: one prime; twice as long for keys from outside that name both.
pub type Tpm2bPrivateKeyRsa = Secret2b<MAX_RSA_KEY_BYTES>;
/// `TPM2B_ECC_PARAMETER`, 11.2.5.1.
pub type Tpm2bEccParameter = Tpm2b<MAX_ECC_KEY_BYTES>;
/// `TPM2B_ENCRYPTED_SECRET`, 11.4.3.
pub type Tpm2bEncryptedSecret = Tpm2b<MAX_RSA_KEY_BYTES>;
/// `TPM2B_ID_OBJECT`, 12.4.3: an HMAC and an encrypted credential, each the size of a digest at most, and their sizes.
pub type Tpm2bIdObject = Tpm2b<132>;
/// `TPM2B_PRIVATE`, 12.3.7.
pub type Tpm2bPrivate = Tpm2b<1536>;
/// `TPM2B_CONTEXT_DATA`, 14.5.
pub type Tpm2bContextData = Tpm2b<MAX_CONTEXT_SIZE>;

/// A `TPM2B` around a structure, 12.2.5 and others: the size must be that of the structure.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sized2b<T>(pub T);

impl<T: Encode> Encode for Sized2b<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_sized_with(out, |o| self.0.encode(o));
    }
}

impl<T: Decode> Decode for Sized2b<T> {
    /// An empty one is `TPM_RC_SIZE`, as is one that the structure does not fill, once the structure itself is in order.
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        let size = u16::decode(r)?;
        if size == 0 {
            return Err(ResponseCode::SIZE);
        }
        decode_filling(r, size).map(Self)
    }
}

/// Decodes a structure that stands in a `TPM2B` of `size` bytes. What is wrong in it is told before a size that is wrong, as in libtpms.
pub(super) fn decode_filling<T: Decode>(r: &mut Reader<'_>, size: u16) -> Result<T, ResponseCode> {
    let before = r.remaining();
    let value = T::decode(r)?;
    if before.checked_sub(r.remaining()) == Some(usize::from(size)) {
        Ok(value)
    } else {
        Err(ResponseCode::SIZE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::decode_exact;

    #[test]
    fn a_longer_string_than_the_cap_is_refused() {
        let mut bytes = vec![0, 65];
        bytes.resize(67, 1);
        assert_eq!(decode_exact::<Tpm2bDigest>(&bytes), Err(ResponseCode::SIZE));
        assert!(Tpm2bDigest::new(vec![0; 65]).is_err());
    }

    #[test]
    fn trailing_zeros_of_an_authorization_value_do_not_count() {
        let auth = Tpm2bAuth::new(vec![1, 0, 2, 0, 0]).unwrap();
        assert_eq!(auth.without_trailing_zeros().expose(), [1, 0, 2]);
        assert!(Tpm2bAuth::new(vec![0, 0]).unwrap().without_trailing_zeros().is_empty());
    }
}
