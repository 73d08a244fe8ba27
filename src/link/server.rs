//! Answers the requests of a peer, by instance commands to this host's root. It serves any stream: TLS in the daemon, the pipe of ssh
//! in `vtpmctl`.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use vtpm_protocol::instance::{
    GetInstanceInfoOut, INSTANCE_SELF, InstanceCapability, InstanceCapabilityData, InstanceName,
    InstanceState, LimitTag, Outcome, Uuid,
};
use vtpm_protocol::link::{LinkLimits, MAX_CHUNK, MAX_WAIT_MS, Message, MessageTag, MigrationRef, Reason};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::stream::MAX_STREAM;

use super::Patience;
use super::bell::Bell;
use super::slot::{self, Slot, is_gone};
use super::trust::Admitted;
use super::wire::{Stream, Wire, WireError};
use crate::migration::client::{Client, ClientError, Transport};

/// What the server wants to know of its host beside what the root answers.
pub trait Host {
    /// The handle of the instance with this UUID.
    ///
    /// # Errors
    /// [`ClientError`].
    fn find(&self, uuid: Uuid) -> Result<Option<u32>, ClientError>;

    /// Whether a front end is connected to the instance.
    fn attached(&self, instance: u32) -> bool;

    /// What rings when the outcome of a migration is decided here. Without one, the server looks again from time to time.
    fn bell(&self) -> Option<&Bell>;
}

/// A host of which nothing is known but what its root answers.
pub struct Remote<'a, T>(pub &'a Client<T>);

impl<T: Transport> Host for Remote<'_, T> {
    fn find(&self, uuid: Uuid) -> Result<Option<u32>, ClientError> {
        let mut parents = VecDeque::from([INSTANCE_SELF]);
        while let Some(parent) = parents.pop_front() {
            for child in self.0.list(parent)? {
                if child.uuid == uuid {
                    return Ok(Some(child.instance));
                }
                if child.attributes.privileged() {
                    parents.push_back(child.instance);
                }
            }
        }
        Ok(None)
    }

    fn attached(&self, _instance: u32) -> bool {
        false
    }

    fn bell(&self) -> Option<&Bell> {
        None
    }
}

/// How often a server without a [`Bell`] looks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Serves one peer.
pub struct Service<'a, T> {
    client: &'a Client<T>,
    host: &'a dyn Host,
    peer: &'a Admitted,
    patience: Patience,
}

impl<'a, T: Transport> Service<'a, T> {
    /// For a peer that was let in, by a client of the root of this host.
    pub fn new(client: &'a Client<T>, host: &'a dyn Host, peer: &'a Admitted, patience: Patience) -> Self {
        Self { client, host, peer, patience }
    }

    /// Answers until the peer is through.
    ///
    /// # Errors
    /// [`WireError`]; also when the peer asks nothing for too long.
    pub fn serve<S: Stream>(&self, wire: &mut Wire<S>) -> Result<(), WireError> {
        loop {
            let request = match wire.receive(is_request, self.patience.idle) {
                Err(WireError::Closed) => return Ok(()),
                other => other?,
            };
            let answer = match request {
                Message::Import(migration) => self.import(migration, wire)?,
                request => self.answer(&request).unwrap_or_else(|error| self.refuse(&error)),
            };
            wire.send(&answer, self.patience.message)?;
        }
    }

    fn refuse(&self, error: &ClientError) -> Message {
        let why = crate::sentence(error);
        log::warn!(peer:% = self.peer.label; "a request of peer {} failed: {why}", self.peer.label);
        Message::Refused(Reason::new(&why))
    }

    fn answer(&self, request: &Message) -> Result<Message, ClientError> {
        match request {
            Message::FindSlot(uuid) => self.find_slot(*uuid),
            Message::Outcome(migration, wait_ms) => self.wait_for_outcome(migration, *wait_ms),
            Message::GiveUp(migration) => self.give_up(migration),
            Message::Prepare(uuid, name) => self.prepare(*uuid, name),
            Message::Limits(uuid) => self.limits(*uuid),
            _ => Ok(Message::Refused(Reason::new("not a request"))),
        }
    }

    fn look(&self, uuid: Uuid) -> Result<Option<GetInstanceInfoOut>, ClientError> {
        slot::look(self.client, self.host, uuid)
    }

    fn find_slot(&self, uuid: Uuid) -> Result<Message, ClientError> {
        let Some(info) = self.look(uuid)? else { return Ok(Message::NoSlot) };
        let attached = self.host.attached(info.summary.instance);
        Ok(slot::ticket(info).map_or(Message::NoSlot, |ticket| Message::Slot { attached, ticket }))
    }

    /// What has become of a migration, as of now: as its instance says, or as it said before it went.
    fn outcome(&self, migration: &MigrationRef) -> Result<Message, ClientError> {
        let said = self.outcome_here(migration)?;
        if said != Message::Unknown {
            return Ok(said);
        }
        let Some(kept) = self.client.kept_receipt(migration.migration_id)? else { return Ok(said) };
        let receipt = <[u8; 32]>::try_from(&kept.receipt[..]);
        let receipt = receipt.map_err(|_| ClientError::Malformed { command: "GetReceipt" })?;
        Ok(Message::Receipt { outcome: kept.outcome, receipt })
    }

    fn outcome_here(&self, migration: &MigrationRef) -> Result<Message, ClientError> {
        let Some(info) = self.look(migration.uuid)? else { return Ok(Message::Unknown) };
        let instance = info.summary.instance;
        // What was decided stays so, and asking for that receipt changes nothing.
        let receipt = match info.outcome {
            Outcome::Open if is_at_slot(&info, migration) => return Ok(Message::Open),
            Outcome::Open => return Ok(Message::Unknown),
            _ if !came_by(&info, migration) => return Ok(Message::Unknown),
            Outcome::Live => self.client.commit(instance, &[]),
            Outcome::Void => self.client.abort(instance, &[]),
        };
        let receipt = match receipt {
            Err(ClientError::Refused { code, .. }) if is_gone(code) => return Ok(Message::Unknown),
            other => other?,
        };
        let receipt = <[u8; 32]>::try_from(receipt.as_slice());
        let receipt = receipt.map_err(|_| ClientError::Malformed { command: "CommitMigration" })?;
        Ok(Message::Receipt { outcome: info.outcome, receipt })
    }

    fn wait_for_outcome(&self, migration: &MigrationRef, wait_ms: u32) -> Result<Message, ClientError> {
        let now = Instant::now();
        let wait = Duration::from_millis(u64::from(wait_ms.min(MAX_WAIT_MS)));
        let until = now.checked_add(wait).unwrap_or(now);
        let mut waiting = self.host.bell().map(|bell| bell.listen(migration.uuid));
        loop {
            let outcome = self.outcome(migration)?;
            let left = until.saturating_duration_since(Instant::now());
            if outcome != Message::Open || left.is_zero() {
                return Ok(outcome);
            }
            match &mut waiting {
                Some(waiting) => {
                    if !waiting.wait(until) {
                        return self.outcome(migration);
                    }
                }
                None => std::thread::sleep(left.min(LOOK_AGAIN)),
            }
        }
    }

    fn give_up(&self, migration: &MigrationRef) -> Result<Message, ClientError> {
        if let Some(info) = self.look(migration.uuid)?
            && info.outcome == Outcome::Open
            && is_at_slot(&info, migration)
        {
            match self.client.abort(info.summary.instance, &[]) {
                Ok(_) => log::info!(
                    instance:% = info.summary.name, peer:% = self.peer.label;
                    "instance {}: peer {} calls the migration off, and it will not live here",
                    info.summary.name,
                    self.peer.label
                ),
                // It executed its first command just now, or is gone.
                Err(ClientError::Refused { code, .. }) if code == ResponseCode::SEQUENCE || is_gone(code) => {
                }
                Err(other) => return Err(other),
            }
        }
        self.outcome(migration)
    }

    fn prepare(&self, uuid: Uuid, name: &InstanceName) -> Result<Message, ClientError> {
        let refused = |why: String| Ok(Message::Refused(Reason::new(&why)));
        if !self.peer.may_prepare {
            log::warn!(peer:% = self.peer.label; "peer {} may not prepare instances here", self.peer.label);
            return refused("this host does not let you prepare instances on it".into());
        }
        Ok(match slot::find_or_make(self.client, self.host, uuid, name)? {
            Slot::Found { instance, ticket } => {
                Message::Slot { attached: self.host.attached(instance), ticket }
            }
            Slot::Made { ticket } => {
                log::info!(instance:% = name, peer:% = self.peer.label; "instance {name}: prepared for peer {}", self.peer.label);
                Message::Slot { attached: false, ticket }
            }
            Slot::Taken(why) => return refused(why),
        })
    }

    fn limits(&self, uuid: Uuid) -> Result<Message, ClientError> {
        let Some(instance) = self.host.find(uuid)? else { return Ok(Message::NoSlot) };
        let out = self.client.capability(instance, InstanceCapability::Limits, 0)?;
        let InstanceCapabilityData::Limits(list) = out.data else {
            return Err(ClientError::Malformed { command: "GetInstanceCapability" });
        };
        let of =
            |wanted: LimitTag| list.iter().find(|(tag, _)| *tag == wanted).map_or(0, |&(_, value)| value);
        Ok(Message::LimitsAre(LinkLimits {
            max_command: of(LimitTag::MaxCommand),
            max_response: of(LimitTag::MaxResponse),
            max_data: of(LimitTag::MaxData),
        }))
    }

    /// Takes a stream out of the chunks that follow, to their end in any case, so that the answer is read.
    fn import<S: Stream>(&self, migration: MigrationRef, wire: &mut Wire<S>) -> Result<Message, WireError> {
        let mut chunks = Chunks {
            wire,
            patience: self.patience,
            rest: Vec::new(),
            at: 0,
            total: 0,
            end: false,
            broken: None,
        };
        let imported = match self.look(migration.uuid) {
            Ok(Some(info)) if is_at_slot(&info, &migration) || is_given_up(&info, &migration) => self
                .client
                .import(info.summary.instance, &mut chunks)
                .map_err(|error| crate::sentence(&error)),
            Ok(_) => Err("there is no slot for this migration here".to_owned()),
            Err(error) => Err(crate::sentence(&error)),
        };
        chunks.drain()?;
        Ok(match imported {
            Ok(()) => Message::Done,
            Err(why) => {
                log::warn!(peer:% = self.peer.label; "a stream of peer {} is refused: {why}", self.peer.label);
                Message::Refused(Reason::new(&why))
            }
        })
    }
}

fn is_request(tag: MessageTag) -> bool {
    matches!(
        tag,
        MessageTag::FindSlot
            | MessageTag::Outcome
            | MessageTag::GiveUp
            | MessageTag::Prepare
            | MessageTag::Limits
            | MessageTag::Import
    )
}

/// The instance is the slot of this migration, or was before it was given up.
fn is_at_slot(info: &GetInstanceInfoOut, migration: &MigrationRef) -> bool {
    let ours = info.ticket.as_ref().is_some_and(|ticket| MigrationRef::from(ticket) == *migration);
    let destination = matches!(
        info.summary.state,
        InstanceState::DestinationLocked
            | InstanceState::DestinationKeyed
            | InstanceState::Importing
            | InstanceState::Imported
            | InstanceState::Void
    );
    ours && destination
}

/// The instance is the slot of this migration that was given up or became a new TPM: it still takes the keys.
fn is_given_up(info: &GetInstanceInfoOut, migration: &MigrationRef) -> bool {
    info.outcome == Outcome::Void && info.arrival == migration.migration_id
}

/// The receipt that the instance shows is of this migration. One that came under a release that did not keep its migration may be: the source
/// looks at the receipt, and takes no other than its own.
fn came_by(info: &GetInstanceInfoOut, migration: &MigrationRef) -> bool {
    info.arrival == migration.migration_id || info.arrival == [0; 32]
}

/// The stream in the chunks, up to the empty one.
struct Chunks<'a, S> {
    wire: &'a mut Wire<S>,
    patience: Patience,
    rest: Vec<u8>,
    at: usize,
    total: usize,
    end: bool,
    broken: Option<WireError>,
}

impl<S: Stream> Chunks<'_, S> {
    fn next(&mut self) -> Result<(), WireError> {
        let Message::Chunk(bytes) =
            self.wire.receive(|tag| tag == MessageTag::Chunk, self.patience.message)?
        else {
            return Err(WireError::Unexpected(MessageTag::Chunk));
        };
        self.total = self.total.saturating_add(bytes.len());
        if self.total > MAX_STREAM.saturating_add(MAX_CHUNK) {
            return Err(WireError::Io(io::ErrorKind::FileTooLarge.into()));
        }
        self.end = bytes.is_empty();
        (self.rest, self.at) = (bytes, 0);
        Ok(())
    }

    /// Up to the end.
    fn drain(mut self) -> Result<(), WireError> {
        if let Some(error) = self.broken.take() {
            return Err(error);
        }
        while !self.end {
            self.next()?;
        }
        Ok(())
    }
}

impl<S: Stream> Read for Chunks<'_, S> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.broken.is_some() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        while self.at >= self.rest.len() && !self.end {
            if let Err(error) = self.next() {
                let kind = match &error {
                    WireError::Io(error) => error.kind(),
                    _ => io::ErrorKind::InvalidData,
                };
                self.broken = Some(error);
                return Err(kind.into());
            }
        }
        let left = self.rest.get(self.at..).unwrap_or_default();
        let n = left.len().min(out.len());
        for (to, from) in out.iter_mut().zip(left) {
            *to = *from;
        }
        self.at = self.at.saturating_add(n);
        Ok(n)
    }
}
