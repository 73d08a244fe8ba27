//! A host's root as the link sees it: its identity, its link key, its peers.

use std::sync::Arc;
use std::time::SystemTime;

use vtpm_protocol::codec::{Encode, decode_exact};
use vtpm_protocol::instance::{Identity, KeyRole, PeerEntry, PeerKind};
use vtpm_protocol::tpm::{PublicId, PublicParms, Tpm2b, Tpm2bName, TpmEccCurve, TpmtPublic};

use super::tls::{LinkKey, LinkPublic};
use super::trust::{Admitted, KnownPeer, Trust, TrustError};
use crate::migration::client::{Client, ClientError, Transport};
use crate::migration::source::storage_name;
use crate::sentence;
use crate::tree::LINK_KEY;
use crate::trust::{VerifiedIdentity, identity};

/// Answers with what the root answers, each time anew: peers come and go while the daemon runs.
pub struct RootTrust<T> {
    client: Arc<Client<T>>,
}

impl<T: Transport + Send + Sync + 'static> RootTrust<T> {
    /// By commands of this client.
    pub fn new(client: Arc<Client<T>>) -> Self {
        Self { client }
    }

    /// The link key, whose private part stays in the root.
    ///
    /// # Errors
    /// [`TrustError::Root`].
    pub fn link_key(&self) -> Result<LinkKey, TrustError> {
        let (public, _name) = self.client.read_public(LINK_KEY).map_err(|error| of_root(&error))?;
        let public = decode_exact(&public).ok().as_ref().and_then(link_public);
        let public = public.ok_or_else(|| TrustError::Root("its link key is none of P-256".into()))?;
        let client = self.client.clone();
        Ok(LinkKey::new(public, move |digest| {
            client.sign(LINK_KEY, digest).map_err(|error| sentence(&error))
        }))
    }

    /// The peer whose identity this is. That the other side has its keys is not proved by that.
    ///
    /// # Errors
    /// [`TrustError`].
    pub fn recognize(&self, identity: &[u8]) -> Result<Admitted, TrustError> {
        self.peer_of(&verified(identity)?)
    }

    /// Somebody who comes on a way on which every caller may do everything here, under the label of the peer that he says he is, or
    /// his fingerprint.
    ///
    /// # Errors
    /// [`TrustError`]; not [`TrustError::NoPeer`].
    pub fn welcome(&self, identity: &[u8]) -> Result<Admitted, TrustError> {
        let verified = verified(identity)?;
        let label = match self.peer_of(&verified) {
            Ok(peer) => peer.label,
            Err(TrustError::NoPeer { fingerprint, .. }) => fingerprint,
            Err(error) => return Err(error),
        };
        Ok(Admitted { label, attestation: name(&verified)?, may_prepare: true })
    }

    fn peer_of(&self, verified: &VerifiedIdentity) -> Result<Admitted, TrustError> {
        let peers = self.entries()?;
        let peer = verified
            .recognize(&peers, SystemTime::now())
            .map_err(|why| TrustError::NoPeer { fingerprint: verified.fingerprint(), why })?;
        Ok(Admitted {
            label: peer.label.as_str().to_owned(),
            attestation: name(verified)?,
            may_prepare: peer.rights.may_prepare(),
        })
    }

    fn entries(&self) -> Result<Vec<PeerEntry>, TrustError> {
        self.client.peers().map_err(|error| of_root(&error))
    }
}

impl<T: Transport + Send + Sync + 'static> Trust for RootTrust<T> {
    fn identity(&self) -> Result<Vec<u8>, TrustError> {
        self.client.identity().map(|identity| identity.to_bytes()).map_err(|error| of_root(&error))
    }

    fn admit(&self, identity: &[u8], link_key: LinkPublic) -> Result<Admitted, TrustError> {
        let verified = verified(identity)?;
        if verified.key(KeyRole::Link).and_then(link_public) != Some(link_key) {
            return Err(TrustError::LinkKey { fingerprint: verified.fingerprint() });
        }
        self.peer_of(&verified)
    }

    fn peers(&self) -> Result<Vec<KnownPeer>, TrustError> {
        let with_address = self.entries()?.into_iter().filter(|peer| !peer.address.is_empty());
        Ok(with_address.map(|peer| KnownPeer::from(&peer)).collect())
    }
}

impl From<&PeerEntry> for KnownPeer {
    fn from(peer: &PeerEntry) -> Self {
        Self {
            label: peer.label.as_str().to_owned(),
            attestation: match peer.kind {
                PeerKind::Pinned => storage_name(&peer.credential).and_then(|name| Tpm2b::new(name).ok()),
                PeerKind::Authority | PeerKind::Address => None,
            },
            address: peer.address.as_str().to_owned(),
        }
    }
}

fn of_root(error: &ClientError) -> TrustError {
    TrustError::Root(sentence(error))
}

fn verified(identity: &[u8]) -> Result<VerifiedIdentity, TrustError> {
    let document: Identity = decode_exact(identity).map_err(|code| TrustError::Identity(code.to_string()))?;
    identity::verify(document).map_err(|error| TrustError::Identity(error.to_string()))
}

fn name(verified: &VerifiedIdentity) -> Result<Tpm2bName, TrustError> {
    Tpm2b::new(verified.name()).map_err(|code| TrustError::Identity(code.to_string()))
}

/// The point of a P-256 key.
fn link_public(public: &TpmtPublic) -> Option<LinkPublic> {
    match (&public.parms, &public.unique) {
        (PublicParms::Ecc { curve: TpmEccCurve::NIST_P256, .. }, PublicId::Ecc(point)) => {
            LinkPublic::from_point(&point.x, &point.y)
        }
        _ => None,
    }
}
