//! Who speaks on a link: the hellos.

use std::time::{Duration, Instant};

use vtpm_protocol::link::{Message, MessageTag, Reason};
use vtpm_protocol::tpm::Tpm2bName;

use super::tls::LinkPublic;
use super::wire::{Stream, Wire, WireError};
use crate::trust::Untrusted;

/// A peer that this host trusts, with what it may do. Only [`Trust::admit`] makes one of what somebody says.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// What the operator calls it here.
    pub label: String,
    /// The Name of its attestation key.
    pub attestation: Tpm2bName,
    /// Whether it may make slots here.
    pub may_prepare: bool,
}

/// Why somebody is not admitted, or cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// What was shown is no identity, or does not prove what it says.
    #[error("the identity of the other side does not hold: {0}")]
    Identity(String),
    /// An identity that holds, but with another link key than that of the connection.
    #[error("the link key of the connection is not the one that the attestation key {fingerprint} certifies")]
    LinkKey {
        /// The fingerprint of the identity.
        fingerprint: String,
    },
    /// Nobody whom the operator trusts.
    #[error("{fingerprint} is no peer of this host: {why}")]
    NoPeer {
        /// The fingerprint of the identity.
        fingerprint: String,
        /// What is wrong with its key.
        why: Untrusted,
    },
    /// This host's own TPM does not answer.
    #[error("the root of this host cannot be asked: {0}")]
    Root(String),
}

/// What a host shows, and whom it lets in.
pub trait Trust: Send + Sync {
    /// The encoded identity of this host's root.
    ///
    /// # Errors
    /// [`TrustError::Root`].
    fn identity(&self) -> Result<Vec<u8>, TrustError>;

    /// Looks at the identity that the other side of a connection showed, which has proved to hold `link_key`.
    ///
    /// # Errors
    /// [`TrustError`].
    fn admit(&self, identity: &[u8], link_key: LinkPublic) -> Result<Admitted, TrustError>;

    /// The peers that have an address.
    ///
    /// # Errors
    /// [`TrustError::Root`].
    fn peers(&self) -> Result<Vec<KnownPeer>, TrustError>;
}

/// A peer that can be called.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KnownPeer {
    /// What the operator calls it.
    pub label: String,
    /// The Name of its attestation key, where that is pinned; else whoever is trusted may answer.
    pub attestation: Option<Tpm2bName>,
    /// `host:port`.
    pub address: String,
}

/// Why a connection did not become a link.
#[derive(Debug, thiserror::Error)]
pub enum HelloError {
    /// See [`WireError`].
    #[error(transparent)]
    Wire(#[from] WireError),
    /// This side does not trust the other.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The other side does not trust this one.
    #[error("the other side refuses: {0}")]
    Refused(Reason),
}

/// The hello of the side that connected: it shows itself first.
///
/// # Errors
/// [`HelloError`].
pub fn greet<S: Stream>(
    wire: &mut Wire<S>,
    trust: &dyn Trust,
    link_key: LinkPublic,
    within: Duration,
) -> Result<Admitted, HelloError> {
    let start = Instant::now();
    wire.send(&Message::Hello(trust.identity()?), within)?;
    let expected = |tag| matches!(tag, MessageTag::Hello | MessageTag::Refused);
    match wire.receive(expected, within.saturating_sub(start.elapsed()))? {
        Message::Hello(identity) => Ok(trust.admit(&identity, link_key)?),
        Message::Refused(reason) => Err(HelloError::Refused(reason)),
        other => Err(WireError::Unexpected(other.tag()).into()),
    }
}

/// The hello of the side that was connected to: it shows itself only to a peer.
///
/// # Errors
/// [`HelloError`]; the other side is told why, as far as it is its business.
pub fn answer<S: Stream>(
    wire: &mut Wire<S>,
    trust: &dyn Trust,
    link_key: LinkPublic,
    within: Duration,
) -> Result<Admitted, HelloError> {
    let start = Instant::now();
    let Message::Hello(identity) = wire.receive(|tag| tag == MessageTag::Hello, within)? else {
        return Err(WireError::Unexpected(MessageTag::Hello).into());
    };
    let left = within.saturating_sub(start.elapsed());
    match trust.admit(&identity, link_key) {
        Ok(peer) => {
            wire.send(&Message::Hello(trust.identity()?), left)?;
            Ok(peer)
        }
        Err(error) => {
            let told = match &error {
                TrustError::Root(_) => "this host cannot look at peers now".to_owned(),
                other => other.to_string(),
            };
            let _gone = wire.send(&Message::Refused(Reason::new(&told)), left);
            Err(error.into())
        }
    }
}
