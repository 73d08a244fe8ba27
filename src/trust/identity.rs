//! Identity documents: verified, judged, and as text.

use std::time::SystemTime;

use pem_rfc7468::LineEnding;
use vtpm_engine::instances::{is_attestation_key, is_signed_by};
use vtpm_protocol::codec::{Encode, decode_exact};
use vtpm_protocol::instance::{CertifiedKey, IDENTITY_LABEL, Identity, KeyRole, MAX_IDENTITY, PeerEntry};
use vtpm_protocol::tpm::{Attested, PublicParms, TpmaObject, TpmsAttest, TpmtPublic, TpmtSignature};

use super::{Untrusted, recognize};
use crate::migration::source::storage_name;

/// Why a document is no identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// It is not the text form of one.
    #[error("this is no vtpmd identity")]
    Text,
    /// A structure in it does not decode.
    #[error("the identity is damaged")]
    Malformed,
    /// Its first key is not restricted to attestations, or could leave its TPM.
    #[error("the key that vouches for the others is no attestation key")]
    NoAttestationKey,
    /// A signature is not that of the attestation key, or of something else.
    #[error("the attestation key does not vouch for its {0} key")]
    NotCertified(KeyRole),
    /// A key cannot have the role that it is said to have.
    #[error("its {0} key is not such a key")]
    Role(KeyRole),
    /// Two keys have the same role.
    #[error("it has two {0} keys")]
    Twice(KeyRole),
}

/// An identity in which the attestation key vouches for every other key. Only [`verify`] makes one. Whether the attestation key is one that this
/// host trusts is another question: [`Self::recognize`].
#[derive(Clone, Debug)]
pub struct VerifiedIdentity {
    document: Identity,
    attestation: TpmtPublic,
    name: Vec<u8>,
    keys: Vec<(KeyRole, TpmtPublic)>,
}

impl VerifiedIdentity {
    /// The document.
    #[must_use]
    pub fn document(&self) -> &Identity {
        &self.document
    }

    /// The attestation key.
    #[must_use]
    pub fn attestation(&self) -> &TpmtPublic {
        &self.attestation
    }

    /// The Name of the attestation key.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// What people compare: the Name of the attestation key in hexadecimal digits.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        hex::encode(&self.name)
    }

    /// The certified key of a role.
    #[must_use]
    pub fn key(&self, role: KeyRole) -> Option<&TpmtPublic> {
        self.keys.iter().find(|(r, _)| *r == role).map(|(_, key)| key)
    }

    /// All certified keys.
    pub fn keys(&self) -> impl Iterator<Item = (KeyRole, &TpmtPublic)> {
        self.keys.iter().map(|(role, key)| (*role, key))
    }

    /// The peer that it is.
    ///
    /// # Errors
    /// [`Untrusted`].
    pub fn recognize<'a>(&self, peers: &'a [PeerEntry], now: SystemTime) -> Result<&'a PeerEntry, Untrusted> {
        recognize(peers, &self.attestation, &self.name, &self.document.certificate, now)
    }
}

/// Checks that the attestation key is one, and that it certified every other key as one that fits its role.
///
/// # Errors
/// [`IdentityError`].
pub fn verify(document: Identity) -> Result<VerifiedIdentity, IdentityError> {
    let attestation: TpmtPublic =
        decode_exact(&document.attestation).map_err(|_| IdentityError::Malformed)?;
    if !is_attestation_key(&attestation) || attestation.to_bytes() != *document.attestation {
        return Err(IdentityError::NoAttestationKey);
    }
    let name = storage_name(&document.attestation).ok_or(IdentityError::NoAttestationKey)?;
    let mut keys: Vec<(KeyRole, TpmtPublic)> = Vec::new();
    for entry in &document.keys {
        if keys.iter().any(|(role, _)| *role == entry.role) {
            return Err(IdentityError::Twice(entry.role));
        }
        keys.push((entry.role, certified(&attestation, entry)?));
    }
    Ok(VerifiedIdentity { document, attestation, name, keys })
}

fn certified(attestation: &TpmtPublic, entry: &CertifiedKey) -> Result<TpmtPublic, IdentityError> {
    let malformed = |_| IdentityError::Malformed;
    let public: TpmtPublic = decode_exact(&entry.public).map_err(malformed)?;
    let attest: TpmsAttest = decode_exact(&entry.attest).map_err(malformed)?;
    let signature: TpmtSignature = decode_exact(&entry.signature).map_err(malformed)?;
    let name = storage_name(&entry.public).ok_or(IdentityError::Malformed)?;
    let is_of_it = matches!(&attest.attested, Attested::Certify { name: of, .. } if **of == *name);
    if !is_of_it || !is_signed_by(attestation, &entry.attest, &signature) {
        return Err(IdentityError::NotCertified(entry.role));
    }
    if !fits(entry.role, &public) {
        return Err(IdentityError::Role(entry.role));
    }
    Ok(public)
}

/// What a key of each role must be; but for the fleet's, one that stays in its TPM.
fn fits(role: KeyRole, public: &TpmtPublic) -> bool {
    let has = |attributes: TpmaObject| public.attributes.has(attributes);
    let stays = has(TpmaObject::FIXED_TPM | TpmaObject::FIXED_PARENT);
    let stores = has(TpmaObject::RESTRICTED | TpmaObject::DECRYPT) && !has(TpmaObject::SIGN_ENCRYPT);
    let is_rsa = matches!(public.parms, PublicParms::Rsa { .. });
    let is_ecc = matches!(public.parms, PublicParms::Ecc { .. });
    match role {
        KeyRole::RsaStorage => is_rsa && stores && stays,
        KeyRole::EccStorage => is_ecc && stores && stays,
        KeyRole::Link => {
            (is_rsa || is_ecc)
                && stays
                && has(TpmaObject::SIGN_ENCRYPT)
                && !has(TpmaObject::RESTRICTED)
                && !has(TpmaObject::DECRYPT)
        }
        KeyRole::Fleet => (is_rsa || is_ecc) && stores && !has(TpmaObject::FIXED_TPM),
    }
}

/// The text form, base64 between lines with a label.
#[must_use]
pub fn to_text(document: &Identity) -> String {
    // Fails for a label that is none only, which a constant is not.
    pem_rfc7468::encode_string(IDENTITY_LABEL, LineEnding::LF, &document.to_bytes()).unwrap_or_default()
}

/// From the text form; what stands around it is passed over.
///
/// # Errors
/// [`IdentityError::Text`], [`IdentityError::Malformed`].
pub fn from_text(text: &[u8]) -> Result<Identity, IdentityError> {
    let (label, bytes) = pem_rfc7468::decode_vec(text).map_err(|_| IdentityError::Text)?;
    if label != IDENTITY_LABEL {
        return Err(IdentityError::Text);
    }
    if bytes.len() > MAX_IDENTITY {
        return Err(IdentityError::Malformed);
    }
    decode_exact(&bytes).map_err(|_| IdentityError::Malformed)
}
