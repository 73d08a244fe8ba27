//! Authorities: X.509 certificates of attestation keys, checked with rustls-webpki.

use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use std::time::SystemTime;
use vtpm_protocol::tpm::TpmtPublic;
use webpki::{EndEntityCert, Error, KeyUsage, anchor_from_trusted_cert};

use super::{Untrusted, spki};

/// `tcg-kp-AIKCertificate`, 2.23.133.8.3: a certificate that has extended key usages must have this one, so that an authority's server
/// certificates make no destinations.
const AIK_CERTIFICATE: &[u8] = &[0x67, 0x81, 0x05, 0x08, 0x03];

/// With which signatures certificates may be signed: SHA-256 or better.
static ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    webpki::ring::ECDSA_P256_SHA256,
    webpki::ring::ECDSA_P256_SHA384,
    webpki::ring::ECDSA_P384_SHA256,
    webpki::ring::ECDSA_P384_SHA384,
    webpki::ring::ED25519,
    webpki::ring::RSA_PKCS1_2048_8192_SHA256,
    webpki::ring::RSA_PKCS1_2048_8192_SHA384,
    webpki::ring::RSA_PKCS1_2048_8192_SHA512,
    webpki::ring::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    webpki::ring::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    webpki::ring::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];

/// Whether these bytes are a certificate that can be an authority's.
#[must_use]
pub fn is_authority(der: &[u8]) -> bool {
    anchor_from_trusted_cert(&CertificateDer::from(der)).is_ok()
}

/// The certificate is one of `authorities`, valid at `now`, and of this key.
///
/// # Errors
/// [`Untrusted`], by what is wrong.
pub(super) fn check<'a>(
    certificate: &[u8],
    key: &TpmtPublic,
    authorities: impl Iterator<Item = &'a [u8]>,
    now: SystemTime,
) -> Result<(), Untrusted> {
    let der = CertificateDer::from(certificate);
    let leaf = EndEntityCert::try_from(&der).map_err(|_| Untrusted::Certificate)?;
    let own = spki::of_public(key).ok_or(Untrusted::NoAttestationKey)?;
    if *leaf.subject_public_key_info() != *own {
        return Err(Untrusted::OtherKey);
    }
    let trusted: Vec<CertificateDer<'_>> = authorities.map(CertificateDer::from).collect();
    let anchors: Vec<TrustAnchor<'_>> =
        trusted.iter().filter_map(|der| anchor_from_trusted_cert(der).ok()).collect();
    let since = now.duration_since(SystemTime::UNIX_EPOCH).map_err(|_| Untrusted::NotNow)?;
    let now = UnixTime::since_unix_epoch(since);
    let usage = KeyUsage::required_if_present(AIK_CERTIFICATE);
    match leaf.verify_for_usage(ALGORITHMS, &anchors, &[], now, usage, None, None) {
        Ok(_path) => Ok(()),
        Err(Error::CertExpired { .. } | Error::CertNotValidYet { .. }) => Err(Untrusted::NotNow),
        Err(Error::RequiredEkuNotFoundContext(_)) => Err(Untrusted::Usage),
        Err(Error::UnknownIssuer | Error::InvalidSignatureForPublicKey) => Err(Untrusted::Authority),
        Err(error) => {
            log::info!("a certificate is refused: {error}");
            Err(Untrusted::Certificate)
        }
    }
}
