//! The way to the destination.

use std::sync::Arc;

use super::super::args::{Run, Via};
use super::super::progress::Progress;
use super::super::reach::SocketTransport;
use super::super::{Ctl, CtlError};
use super::RunError;
use super::ssh::{Ssh, SshError};
use crate::link::client::{Dialer, Peer, PeerError};
use crate::link::pipe;
use crate::link::root::RootTrust;
use crate::link::tls::Tls;
use crate::link::trust::KnownPeer;
use crate::link::wire::{Stream, Wire};
use crate::link::{LinkError, Patience};

/// How the destination is reached, again if need be.
pub(super) enum Route {
    /// Its daemon's link.
    Link { dialer: Dialer, known: KnownPeer },
    /// A vtpmctl there.
    Ssh { ssh: Ssh, root: RootTrust<SocketTransport>, known: Option<KnownPeer> },
}

/// Why the destination is not reached.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// By the link, or within the pipe.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The pipe.
    #[error(transparent)]
    Ssh(#[from] SshError),
}

impl Route {
    pub(super) fn new(ctl: &Ctl, run: &Run) -> Result<Self, CtlError> {
        let known = match &run.to {
            Some(to) => {
                let peers = ctl.client.peers()?;
                let entry = peers.iter().find(|peer| peer.label.as_str() == to);
                Some(KnownPeer::from(entry.ok_or_else(|| RunError::NoPeer(to.clone()))?))
            }
            None => None,
        };
        let root: RootTrust<SocketTransport> = RootTrust::new(ctl.client.clone());
        if let (Via::Ssh, Some(host)) = (run.via, &run.host) {
            // ssh would take it for an option.
            if host.starts_with('-') {
                return Err(RunError::Host(host.clone()).into());
            }
            let ssh = Ssh {
                command: run.ssh_command.clone(),
                host: host.clone(),
                remote: run.remote_command.clone(),
                bootstrap: run.bootstrap.is_some(),
            };
            return Ok(Self::Ssh { ssh, root, known });
        }
        let known = known.ok_or(RunError::NoDestination)?;
        if known.address.is_empty() {
            return Err(RunError::NoAddress(known.label).into());
        }
        let key = root.link_key().map_err(LinkError::Root).map_err(RunError::Link)?;
        let tls = Tls::new(&key).map_err(LinkError::Tls).map_err(RunError::Link)?;
        Ok(Self::Link { dialer: Dialer::new(tls, Arc::new(root), Patience::default()), known })
    }

    /// What the destination is called here.
    pub(super) fn label(&self) -> &str {
        match self {
            Self::Link { known, .. } | Self::Ssh { known: Some(known), .. } => &known.label,
            Self::Ssh { ssh, known: None, .. } => &ssh.host,
        }
    }

    pub(super) fn connect(&self, progress: &mut Progress) -> Result<Peer<Box<dyn Stream>>, RouteError> {
        match self {
            Self::Link { dialer, known } => {
                let peer = dialer.dial(&known.address)?;
                Ok(peer.expect(known, &known.address)?.boxed())
            }
            Self::Ssh { ssh, root, known } => {
                let patience = Patience::default();
                let stream = ssh.connect(|sent, of| progress.sent_program(sent, of))?;
                let mut wire = Wire::new(stream);
                let greeted = pipe::greet(&mut wire, root, patience.handshake);
                let admitted =
                    greeted.map_err(|source| PeerError::Hello { address: ssh.host.clone(), source })?;
                let peer = Peer::on(wire.into_stream(), admitted, patience);
                Ok(match known {
                    Some(known) => peer.expect(known, &ssh.host)?.boxed(),
                    None => peer.boxed(),
                })
            }
        }
    }
}
