//! Signatures of the root's own keys.

use vtpm_protocol::codec::{Encode, decode_exact, encode_sized};
use vtpm_protocol::tpm::{TpmAlgId, TpmCc, TpmHandle, TpmSt, TpmtSignature};

use super::{Client, ClientError, Result, Transport};

impl<T: Transport> Client<T> {
    /// `TPM2_Sign` of a SHA-256 digest by the P-256 key at `key`, which is not restricted and needs no authorization value: r and s of
    /// the ECDSA signature, 32 bytes each.
    ///
    /// # Errors
    /// [`ClientError`]; `Malformed` when the signature is another.
    pub fn sign(&self, key: u32, digest: &[u8; 32]) -> Result<[u8; 64]> {
        let command = "TPM2_Sign";
        let mut input = Vec::new();
        encode_sized(digest, &mut input);
        (TpmAlgId::ECDSA, TpmAlgId::SHA256).encode(&mut input);
        // The empty ticket: a key that is not restricted signs any digest.
        (TpmSt::HASHCHECK, TpmHandle::NULL, 0u16).encode(&mut input);
        let out = self.raw((TpmCc::SIGN, command), &[key], &[&[]], &input)?;
        let malformed = || ClientError::Malformed { command };
        let signature: TpmtSignature = decode_exact(&out).map_err(|_| malformed())?;
        ecdsa_parts(&signature).ok_or_else(malformed)
    }
}

fn ecdsa_parts(signature: &TpmtSignature) -> Option<[u8; 64]> {
    let TpmtSignature::Ecc { scheme: TpmAlgId::ECDSA, hash: TpmAlgId::SHA256, r, s } = signature else {
        return None;
    };
    let mut out = [0; 64];
    for (half, number) in out.chunks_exact_mut(32).zip([r, s]) {
        let start = half.len().checked_sub(number.len())?;
        half.get_mut(start..)?.copy_from_slice(number);
    }
    Some(out)
}
