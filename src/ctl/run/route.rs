//! The way to the destination.

use std::sync::Arc;

use super::super::Ctl;
use super::super::args::Run;
use super::super::reach::SocketTransport;
use super::RunError;
use crate::link::client::{Dialer, Peer, PeerError};
use crate::link::root::RootTrust;
use crate::link::tls::Tls;
use crate::link::trust::KnownPeer;
use crate::link::wire::Stream;
use crate::link::{LinkError, Patience};

/// How the destination is reached, again if need be.
pub(super) struct Route {
    dialer: Dialer,
    known: KnownPeer,
}

impl Route {
    pub(super) fn new(ctl: &Ctl, run: &Run) -> Result<Self, super::CtlError> {
        let peers = ctl.client.peers()?;
        let entry = peers.iter().find(|peer| peer.label.as_str() == run.to);
        let known = KnownPeer::from(entry.ok_or_else(|| RunError::NoPeer(run.to.clone()))?);
        if known.address.is_empty() {
            return Err(RunError::NoAddress(run.to.clone()).into());
        }
        let root: RootTrust<SocketTransport> = RootTrust::new(ctl.client.clone());
        let key = root.link_key().map_err(LinkError::Root).map_err(RunError::Link)?;
        let tls = Tls::new(&key).map_err(LinkError::Tls).map_err(RunError::Link)?;
        Ok(Self { dialer: Dialer::new(tls, Arc::new(root), Patience::default()), known })
    }

    /// What the destination is called here.
    pub(super) fn label(&self) -> &str {
        &self.known.label
    }

    pub(super) fn connect(&self) -> Result<Peer<Box<dyn Stream>>, PeerError> {
        let peer = self.dialer.dial(&self.known.address)?;
        Ok(peer.expect(&self.known, &self.known.address)?.boxed())
    }
}
