//! Asks a peer.

use std::io::{self, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use vtpm_protocol::instance::{InstanceName, MigrationTicket, Outcome, Uuid};
use vtpm_protocol::link::{LinkLimits, MAX_CHUNK, MAX_WAIT_MS, Message, MessageTag, MigrationRef, Reason};

use super::Patience;
use super::tls::{Tls, TlsError, TlsStream};
use super::trust::{Admitted, HelloError, KnownPeer, Trust, greet};
use super::wire::{Stream, Wire, WireError};
use crate::migration::client::ClientError;

/// Why a peer did not do or say what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// Nothing listens there.
    #[error("{address} cannot be reached")]
    Connect {
        /// The address of the peer.
        address: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// No connection came to be.
    #[error("no link with {address}")]
    Tls {
        /// The address of the peer.
        address: String,
        /// Why.
        #[source]
        source: TlsError,
    },
    /// One side does not trust the other.
    #[error("no link with {address}")]
    Hello {
        /// The address of the peer.
        address: String,
        /// Why.
        #[source]
        source: HelloError,
    },
    /// Another trusted host than the one that was meant answers there.
    #[error("{address} is peer {found}, not {wanted}")]
    Another {
        /// How it was called.
        address: String,
        /// Who answers.
        found: String,
        /// Who was meant.
        wanted: String,
    },
    /// See [`WireError`].
    #[error(transparent)]
    Wire(#[from] WireError),
    /// It was asked and refused.
    #[error("the peer refuses: {0}")]
    Refused(Reason),
    /// The stream could not be made.
    #[error("the stream for the peer could not be made")]
    Export(#[source] ClientError),
}

/// What a destination says of a migration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is decided, and this is the proof.
    Receipt(Outcome, [u8; 32]),
    /// It is not decided.
    Open,
    /// Nothing is known of it there.
    Unknown,
}

/// A slot that a peer has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FoundSlot {
    /// Its ticket.
    pub ticket: MigrationTicket,
    /// Whether a machine is connected to it.
    pub attached: bool,
}

/// Calls peers.
#[derive(Clone)]
pub struct Dialer {
    tls: Tls,
    trust: Arc<dyn Trust>,
    patience: Patience,
}

impl Dialer {
    /// With the link key and the trust of this host.
    pub fn new(tls: Tls, trust: Arc<dyn Trust>, patience: Patience) -> Self {
        Self { tls, trust, patience }
    }

    /// Connects to `host:port`, and makes sure that a peer answers.
    ///
    /// # Errors
    /// [`PeerError`].
    pub fn dial(&self, address: &str) -> Result<Peer<TlsStream>, PeerError> {
        let unreachable = |source| PeerError::Connect { address: address.to_owned(), source };
        let mut found = Err(io::ErrorKind::NotFound.into());
        for socket_address in address.to_socket_addrs().map_err(unreachable)? {
            found = TcpStream::connect_timeout(&socket_address, self.patience.connect);
            if found.is_ok() {
                break;
            }
        }
        let socket = found.map_err(unreachable)?;
        let stream = self
            .tls
            .connect(socket, self.patience.handshake)
            .map_err(|source| PeerError::Tls { address: address.to_owned(), source })?;
        let link_key = stream.peer();
        let mut wire = Wire::new(stream);
        let peer = greet(&mut wire, &*self.trust, link_key, self.patience.handshake)
            .map_err(|source| PeerError::Hello { address: address.to_owned(), source })?;
        Ok(Peer { wire, peer, patience: self.patience })
    }
}

impl<S: Stream + 'static> Peer<S> {
    /// For those to whom all streams are alike.
    pub fn boxed(self) -> Peer<Box<dyn Stream>> {
        let Self { wire, peer, patience } = self;
        Peer { wire: Wire::new(Box::new(wire.into_stream())), peer, patience }
    }
}

/// A peer that answers.
pub struct Peer<S> {
    wire: Wire<S>,
    peer: Admitted,
    patience: Patience,
}

impl<S: Stream> Peer<S> {
    /// A peer on a stream that is known to lead to it, such as the pipe of ssh.
    pub fn on(stream: S, peer: Admitted, patience: Patience) -> Self {
        Self { wire: Wire::new(stream), peer, patience }
    }

    /// Who it is.
    pub fn admitted(&self) -> &Admitted {
        &self.peer
    }

    /// Makes sure that it is this peer, where that has a pinned key, and not another one that is trusted, too. `address` is for the error.
    ///
    /// # Errors
    /// [`PeerError::Another`].
    pub fn expect(self, known: &KnownPeer, address: &str) -> Result<Self, PeerError> {
        match &known.attestation {
            Some(wanted) if *wanted != self.peer.attestation => Err(PeerError::Another {
                address: address.to_owned(),
                found: self.peer.label,
                wanted: known.label.clone(),
            }),
            _ => Ok(self),
        }
    }

    /// The stream to it.
    pub fn stream(&self) -> &S {
        self.wire.stream()
    }

    fn ask(&mut self, request: &Message, wait: Duration) -> Result<Message, PeerError> {
        self.wire.send(request, self.patience.message)?;
        let within = self.patience.message.saturating_add(wait);
        match self.wire.receive(is_answer, within)? {
            Message::Refused(reason) => Err(PeerError::Refused(reason)),
            answer => Ok(answer),
        }
    }

    /// The slot for this instance.
    ///
    /// # Errors
    /// [`PeerError`], as all below.
    pub fn find_slot(&mut self, uuid: Uuid) -> Result<Option<FoundSlot>, PeerError> {
        match self.ask(&Message::FindSlot(uuid), Duration::ZERO)? {
            Message::Slot { attached, ticket } => Ok(Some(FoundSlot { ticket, attached })),
            Message::NoSlot => Ok(None),
            other => Err(unexpected(&other)),
        }
    }

    /// What has become of a migration; the peer waits for a decision up to that long, at most a minute.
    ///
    /// # Errors
    /// [`PeerError`].
    pub fn outcome(&mut self, migration: &MigrationRef, wait: Duration) -> Result<Verdict, PeerError> {
        let wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX).min(MAX_WAIT_MS);
        let wait = Duration::from_millis(u64::from(wait_ms));
        verdict(self.ask(&Message::Outcome(*migration, wait_ms), wait)?)
    }

    /// Calls a migration off, unless its instance lives there already.
    ///
    /// # Errors
    /// [`PeerError`].
    pub fn give_up(&mut self, migration: &MigrationRef) -> Result<Verdict, PeerError> {
        verdict(self.ask(&Message::GiveUp(*migration), Duration::ZERO)?)
    }

    /// Makes a slot, or finds the one that is there under the same name.
    ///
    /// # Errors
    /// [`PeerError`]; `Refused` without the right.
    pub fn prepare(&mut self, uuid: Uuid, name: &InstanceName) -> Result<MigrationTicket, PeerError> {
        match self.ask(&Message::Prepare(uuid, name.clone()), Duration::ZERO)? {
            Message::Slot { ticket, .. } => Ok(ticket),
            other => Err(unexpected(&other)),
        }
    }

    /// How much a command for this instance takes there; `None` when there is no such instance.
    ///
    /// # Errors
    /// [`PeerError`].
    pub fn limits(&mut self, uuid: Uuid) -> Result<Option<LinkLimits>, PeerError> {
        match self.ask(&Message::Limits(uuid), Duration::ZERO)? {
            Message::LimitsAre(limits) => Ok(Some(limits)),
            Message::NoSlot => Ok(None),
            other => Err(unexpected(&other)),
        }
    }

    /// Sends the stream that `export` writes, and waits until it is imported.
    ///
    /// # Errors
    /// [`PeerError`]; `Refused` when the destination does not take it, `Export` when `export` failed for another reason than the
    /// link.
    pub fn import(
        &mut self,
        migration: &MigrationRef,
        export: impl FnOnce(&mut dyn Write) -> Result<(), ClientError>,
    ) -> Result<(), PeerError> {
        self.wire.send(&Message::Import(*migration), self.patience.message)?;
        let mut writer = ChunkWriter { wire: &mut self.wire, within: self.patience.message, broken: None };
        let exported = export(&mut writer);
        let broken = writer.broken.take();
        if let Some(error) = broken {
            return Err(error.into());
        }
        // Also after a failed export: a stream that ends early is refused, and the link is in order again.
        self.wire.send(&Message::Chunk(Vec::new()), self.patience.message)?;
        let answer = self.wire.receive(is_answer, self.patience.message)?;
        exported.map_err(PeerError::Export)?;
        match answer {
            Message::Done => Ok(()),
            Message::Refused(reason) => Err(PeerError::Refused(reason)),
            other => Err(unexpected(&other)),
        }
    }
}

fn verdict(answer: Message) -> Result<Verdict, PeerError> {
    match answer {
        Message::Receipt { outcome, receipt } => Ok(Verdict::Receipt(outcome, receipt)),
        Message::Open => Ok(Verdict::Open),
        Message::Unknown => Ok(Verdict::Unknown),
        other => Err(unexpected(&other)),
    }
}

fn unexpected(answer: &Message) -> PeerError {
    WireError::Unexpected(answer.tag()).into()
}

fn is_answer(tag: MessageTag) -> bool {
    matches!(
        tag,
        MessageTag::Slot
            | MessageTag::NoSlot
            | MessageTag::Receipt
            | MessageTag::Open
            | MessageTag::Unknown
            | MessageTag::LimitsAre
            | MessageTag::Done
            | MessageTag::Refused
    )
}

/// Cuts what is written into chunks.
struct ChunkWriter<'a, S> {
    wire: &'a mut Wire<S>,
    within: Duration,
    broken: Option<WireError>,
}

impl<S: Stream> Write for ChunkWriter<'_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let chunk = bytes.get(..bytes.len().min(MAX_CHUNK)).unwrap_or_default();
        // An empty chunk would be the end.
        if chunk.is_empty() {
            return Ok(0);
        }
        match self.wire.send(&Message::Chunk(chunk.to_vec()), self.within) {
            Ok(()) => Ok(chunk.len()),
            Err(error) => {
                self.broken = Some(error);
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
