//! Trust between hosts: whose tickets a source takes, and whose link it talks to.
//!
//! The root of each host has an attestation key that certifies its other keys ([`Identity`]). A host trusts the *peers* of its
//! processing instance, which operators add: attestation keys that are *pinned*, or *authorities* whose certificates cover one. The
//! third way, a storage key that two roots share, needs no peer: a ticket that is authenticated with it proves itself in the engine.
//!
//! Two values can be had by verification only: a [`VerifiedTicket`] from the engine, that
//! [`admit`] judges here, and a [`VerifiedIdentity`] from [`identity::verify`], that [`VerifiedIdentity::recognize`] judges.

pub mod certificate;
pub mod identity;
pub mod spki;
#[cfg(test)]
pub(crate) mod tests;

use std::time::SystemTime;

use vtpm_engine::instances::{TicketAuthority, VerifiedTicket, is_attestation_key};
use vtpm_protocol::codec::decode_exact;
use vtpm_protocol::instance::{PeerEntry, PeerKind};
use vtpm_protocol::tpm::TpmtPublic;

use crate::migration::source::storage_name;

pub use identity::{IdentityError, VerifiedIdentity};
pub use vtpm_protocol::instance::Identity;

/// Why a key is not that of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    /// Not restricted, or not fixed to a TPM: it could sign anything.
    #[error("its key is no attestation key")]
    NoAttestationKey,
    /// No such key is pinned, and there is no certificate.
    #[error("its key is not pinned, and it came without a certificate")]
    Unknown,
    /// The certificate cannot be read or breaks a rule.
    #[error("its certificate is malformed or cannot be that of an attestation key")]
    Certificate,
    /// None of the authorities issued the certificate.
    #[error("its key is not pinned, and its certificate is of no authority that is trusted here")]
    Authority,
    /// Expired, or not valid yet.
    #[error("its certificate is not valid at this time")]
    NotNow,
    /// The certificate has extended key usages, but not that of an attestation key.
    #[error("its certificate is for another usage")]
    Usage,
    /// The certificate is of another key.
    #[error("its certificate is for another key")]
    OtherKey,
}

/// The peer whose attestation key this is: one that is pinned, or else the authority of the certificate.
///
/// # Errors
/// [`Untrusted`].
pub fn recognize<'a>(
    peers: &'a [PeerEntry],
    key: &TpmtPublic,
    name: &[u8],
    certificate: &[u8],
    now: SystemTime,
) -> Result<&'a PeerEntry, Untrusted> {
    if !is_attestation_key(key) {
        return Err(Untrusted::NoAttestationKey);
    }
    let pinned = peers.iter().find(|peer| {
        peer.kind == PeerKind::Pinned
            && decode_exact::<TpmtPublic>(&peer.credential).is_ok()
            && storage_name(&peer.credential).is_some_and(|pin| pin == name)
    });
    if let Some(peer) = pinned {
        return Ok(peer);
    }
    if certificate.is_empty() {
        return Err(Untrusted::Unknown);
    }
    let mut authorities = peers.iter().filter(|peer| peer.kind == PeerKind::Authority);
    // All of them at once, for the most telling error; then which one it was.
    let credentials = authorities.clone().map(|peer| peer.credential.as_slice());
    certificate::check(certificate, key, credentials, now)?;
    let issued = |peer: &&PeerEntry| {
        certificate::check(certificate, key, std::iter::once(peer.credential.as_slice()), now).is_ok()
    };
    authorities.find(issued).ok_or(Untrusted::Authority)
}

/// Whether the processing instance with these peers takes a ticket. Returns the label of the peer; none for a ticket that is authenticated with
/// a storage key that both hosts have.
///
/// # Errors
/// [`Untrusted`].
pub fn admit<'a>(
    peers: &'a [PeerEntry],
    ticket: &VerifiedTicket,
    now: SystemTime,
) -> Result<Option<&'a PeerEntry>, Untrusted> {
    match ticket.authority() {
        TicketAuthority::StorageKey => Ok(None),
        TicketAuthority::Signer(key, name) => {
            recognize(peers, key, name, &ticket.ticket().certificate, now).map(Some)
        }
    }
}
