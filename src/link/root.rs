//! A host's root as the link sees it: its identity, its link key, its peers.

use std::sync::Arc;
use std::time::SystemTime;

use vtpm_protocol::codec::{Encode, decode_exact};
use vtpm_protocol::instance::{Identity, KeyRole, PeerEntry, PeerKind};
use vtpm_protocol::tpm::{PublicId, PublicParms, Tpm2b, TpmEccCurve, TpmtPublic};

use super::tls::{LinkKey, LinkPublic};
use super::trust::{Admitted, KnownPeer, Trust, TrustError};
use crate::migration::client::{Client, ClientError, Transport};
use crate::migration::source::storage_name;
use crate::sentence;
use crate::tree::LINK_KEY;
use crate::trust::identity;

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

    fn entries(&self) -> Result<Vec<PeerEntry>, TrustError> {
        self.client.peers().map_err(|error| of_root(&error))
    }
}

impl<T: Transport + Send + Sync + 'static> Trust for RootTrust<T> {
    fn identity(&self) -> Result<Vec<u8>, TrustError> {
        self.client.identity().map(|identity| identity.to_bytes()).map_err(|error| of_root(&error))
    }

    fn admit(&self, identity: &[u8], link_key: LinkPublic) -> Result<Admitted, TrustError> {
        let document: Identity =
            decode_exact(identity).map_err(|code| TrustError::Identity(code.to_string()))?;
        let verified = identity::verify(document).map_err(|error| TrustError::Identity(error.to_string()))?;
        let fingerprint = verified.fingerprint();
        if verified.key(KeyRole::Link).and_then(link_public) != Some(link_key) {
            return Err(TrustError::LinkKey { fingerprint });
        }
        let peers = self.entries()?;
        let peer = verified
            .recognize(&peers, SystemTime::now())
            .map_err(|why| TrustError::NoPeer { fingerprint, why })?;
        Ok(Admitted {
            label: peer.label.as_str().to_owned(),
            attestation: Tpm2b::new(verified.name())
                .map_err(|code| TrustError::Identity(code.to_string()))?,
            may_prepare: peer.rights.may_prepare(),
        })
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

/// The point of a P-256 key.
fn link_public(public: &TpmtPublic) -> Option<LinkPublic> {
    match (&public.parms, &public.unique) {
        (PublicParms::Ecc { curve: TpmEccCurve::NIST_P256, .. }, PublicId::Ecc(point)) => {
            LinkPublic::from_point(&point.x, &point.y)
        }
        _ => None,
    }
}
