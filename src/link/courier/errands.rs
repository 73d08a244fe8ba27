//! What the courier's threads do, each for one instance.

use std::io;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use vtpm_protocol::instance::{GetInstanceInfoOut, InstanceState, LockFlags, MigrationTicket, Outcome, Uuid};
use vtpm_protocol::link::MigrationRef;
use vtpm_protocol::rc::ResponseCode;

use super::super::client::{FoundSlot, Peer, PeerError, Verdict};
use super::super::tls::TlsStream;
use super::super::trust::KnownPeer;
use super::{LONG_POLL, SHORT_POLL, Shared, Task, automatic};
use crate::logging::about;
use crate::migration::client::{Client, ClientError};
use crate::migration::source::storage_name;
use crate::sentence;
use crate::tree::{Instance, LocalTransport};

/// How long a search waits for the peers that have not answered.
const SEARCH_WAIT: Duration = Duration::from_secs(6);
/// How long it waits for the others after one has a slot: two slots mean that nobody knows where the machine goes.
const SECOND_SLOT_WAIT: Duration = Duration::from_millis(250);
/// The most peers that are asked at once.
const MAX_ASKED_AT_ONCE: usize = 16;

/// What became of asking about a migration.
enum Asked {
    /// It is settled here, too; or there is nothing to settle.
    Settled,
    /// The destination says that it is open.
    Open,
    /// Nobody says anything that helps, for this reason.
    Trouble(String),
}

/// A peer that is called, until this is dropped.
struct Call<'a> {
    peer: Peer<TlsStream>,
    shared: &'a Shared,
    id: u64,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.shared.desk().calls.remove(&self.id);
    }
}

impl Shared {
    pub(super) fn carry_out(self: &Arc<Self>, task: Task) {
        let Some(tree) = self.tree.upgrade() else { return };
        let (Task::Search(handle) | Task::GiveUp(handle) | Task::Ask(handle, _)) = task;
        let Some(instance) = tree.instances().into_iter().find(|i| i.handle() == handle) else {
            let mut desk = self.desk();
            desk.locked.remove(&handle);
            desk.searches.remove(&handle);
            return;
        };
        let client = tree.local_client();
        // What talks to the network does not keep the tree from ending.
        drop(tree);
        match task {
            Task::Search(_) => match self.search(&client, &instance) {
                Ok(()) => self.searched(handle),
                Err(why) => self.failed(task, format!("instance {}: {why}", instance.name())),
            },
            Task::GiveUp(_) => {
                let asked =
                    self.ask_destination(&client, &instance, |peer, migration| peer.give_up(migration));
                self.asked(task, &instance, asked);
            }
            Task::Ask(_, wait) => {
                let asked =
                    self.ask_destination(&client, &instance, |peer, migration| peer.outcome(migration, wait));
                self.asked(task, &instance, asked);
            }
        }
    }

    fn asked(&self, task: Task, instance: &Instance, asked: Asked) {
        match asked {
            Asked::Settled => {
                if let Some(locked) = self.desk().locked.get_mut(&instance.handle()) {
                    locked.ask.done(Some(Duration::ZERO));
                    locked.give_up.done(None);
                }
                self.look_at(instance);
            }
            Asked::Trouble(why) => self.failed(task, format!("instance {}: {why}", instance.name())),
            Asked::Open => {
                let mut desk = self.desk();
                if let Some(locked) = desk.locked.get_mut(&instance.handle()) {
                    locked.trouble = None;
                    let (errand, pause) = match task {
                        // Nobody answers so to this; if one does, the next call of the machine comes.
                        Task::GiveUp(_) => (&mut locked.give_up, None),
                        Task::Ask(_, LONG_POLL) => (&mut locked.ask, Some(Duration::ZERO)),
                        _ => (&mut locked.ask, Some(SHORT_POLL)),
                    };
                    errand.done(pause);
                }
            }
        }
    }

    /// The search is over: there is a ticket, or there is to be none.
    fn searched(&self, handle: u32) {
        let mut desk = self.desk();
        if let Some(search) = desk.searches.get_mut(&handle) {
            search.errand.done(None);
            search.trouble = None;
        }
        drop(desk);
        self.changed.notify_all();
    }

    /// A link with a known peer, and with no other.
    fn call(&self, known: &KnownPeer) -> Result<Call<'_>, PeerError> {
        let peer = self.dialer.dial(&known.address)?;
        let unreachable = |source| PeerError::Connect { address: known.address.clone(), source };
        let socket = peer.stream().socket().try_clone().map_err(unreachable)?;
        let mut desk = self.desk();
        if desk.closed {
            return Err(unreachable(io::ErrorKind::Interrupted.into()));
        }
        let id = desk.next_call;
        desk.next_call = id.wrapping_add(1);
        desk.calls.insert(id, socket);
        drop(desk);
        let call = Call { peer, shared: self, id };
        let peer = &call.peer;
        match &known.attestation {
            Some(wanted) if *wanted != peer.admitted().attestation => Err(PeerError::Another {
                address: known.address.clone(),
                found: peer.admitted().label.clone(),
                wanted: known.label.clone(),
            }),
            _ => Ok(call),
        }
    }

    /// Asks the destination of a source-locked instance, and does what its answer calls for.
    fn ask_destination(
        &self,
        client: &Client<LocalTransport>,
        instance: &Instance,
        question: impl Fn(&mut Peer<TlsStream>, &MigrationRef) -> Result<Verdict, PeerError>,
    ) -> Asked {
        let info = match client.info(instance.handle()) {
            Ok(info) => info,
            Err(error) => return Asked::Trouble(sentence(&error)),
        };
        let Some(ticket) = info.ticket.filter(|_| info.summary.state.is_source_locked()) else {
            return Asked::Settled;
        };
        let known_at = self.desk().locked.get(&instance.handle()).and_then(|l| l.known_at.clone());
        let candidates = match self.trust.peers() {
            Ok(peers) => candidates(peers, &ticket, known_at.as_deref()),
            Err(error) => return Asked::Trouble(sentence(&error)),
        };
        let migration = MigrationRef::from(&ticket);
        let mut trouble = "no peer with an address is its destination".to_owned();
        for known in candidates {
            let verdict = self.call(&known).and_then(|mut call| {
                let mut verdict = question(&mut call.peer, &migration)?;
                if let Verdict::Receipt(Outcome::Void, receipt) = &verdict
                    && info.summary.state != InstanceState::SourceLocked
                    && let Err(error) = settle(client, instance, Outcome::Void, receipt)
                {
                    // Of a destination that never saw the keys of a strict lock; or saw those of somebody else.
                    about!(info, instance, [peer:% = known.label], "instance {}: {}; peer {} is shown the keys",
                        instance.name(),
                        sentence(&error),
                        known.label);
                    let export = |out: &mut dyn io::Write| client.export_key(instance.handle(), &ticket, out);
                    match call.peer.import(&migration, export) {
                        Ok(()) | Err(PeerError::Refused(_)) => {}
                        Err(error) => return Err(error),
                    }
                    verdict = question(&mut call.peer, &migration)?;
                }
                Ok(verdict)
            });
            match verdict {
                Ok(Verdict::Unknown) => {
                    trouble = format!("peer {} knows nothing of its migration", known.label);
                    continue;
                }
                Ok(Verdict::Open) => {
                    self.remember(instance, &known);
                    return Asked::Open;
                }
                Ok(Verdict::Receipt(outcome, receipt)) => {
                    self.remember(instance, &known);
                    match settle(client, instance, outcome, &receipt) {
                        Ok(()) => {
                            about!(info, instance, [peer:% = known.label], "instance {}: peer {} says {outcome}, and it is settled",
                                instance.name(),
                                known.label);
                            return Asked::Settled;
                        }
                        Err(error) => trouble = sentence(&error),
                    }
                }
                Err(error) => trouble = format!("peer {}: {}", known.label, sentence(&error)),
            }
        }
        Asked::Trouble(trouble)
    }

    fn remember(&self, instance: &Instance, known: &KnownPeer) {
        if let Some(locked) = self.desk().locked.get_mut(&instance.handle()) {
            locked.known_at = Some(known.address.clone());
        }
    }

    /// Asks the peers for a slot, and arms the instance with its ticket.
    ///
    /// # Errors
    /// Why there is no ticket, if it may help to look again.
    fn search(self: &Arc<Self>, client: &Client<LocalTransport>, instance: &Instance) -> Result<(), String> {
        let info = client.info(instance.handle()).map_err(|error| sentence(&error))?;
        if !matches!(info.summary.state, InstanceState::Live | InstanceState::Imported) {
            return Ok(());
        }
        // That of an earlier migration could lock the instance for a destination that is not there any more.
        let earlier = armed_ticket(instance, &info);
        let by_hand = match earlier {
            Some((_, flags)) if flags.automatic() => {
                client.arm(instance.handle(), None, LockFlags::default()).map_err(|e| sentence(&e))?;
                None
            }
            other => other,
        };
        let found = match self.ask_for_slots(info.summary.uuid) {
            // Then the ticket of the operator is what there is.
            Err(_) if by_hand.is_some() => return Ok(()),
            other => other?,
        };
        let chosen = choose(found)?;
        let (flags, why) = match by_hand {
            None => (LockFlags::default(), "the slot for it is at"),
            Some((ticket, _)) if ticket.migration_id == chosen.1.ticket.migration_id => return Ok(()),
            // A host has one slot for an instance: the ticket by hand is of one that is no more.
            Some((ticket, flags)) if ticket.signer == chosen.1.ticket.signer && !ticket.signer.is_empty() => {
                (flags, "its ticket was of an earlier slot; the slot for it now is at")
            }
            // The operator says where it goes.
            Some(_) => return Ok(()),
        };
        let (peer, slot) = chosen;
        let name = instance.name();
        match client.arm(instance.handle(), Some(slot.ticket), automatic(flags)) {
            Ok(()) => {
                log::info!(instance:% = name, peer:% = peer; "instance {name}: {why} peer {peer}");
                Ok(())
            }
            Err(error) => Err(format!("the ticket of peer {peer} is not taken: {}", sentence(&error))),
        }
    }

    /// Every peer's slot for this instance, with the peer's label; or why none is there.
    fn ask_for_slots(self: &Arc<Self>, uuid: Uuid) -> Result<Vec<(String, FoundSlot)>, String> {
        let peers = self.trust.peers().map_err(|error| sentence(&error))?;
        if peers.is_empty() {
            return Err("no peer has an address".into());
        }
        let asked = peers.len();
        let waiting = Arc::new(std::sync::Mutex::new(peers.into_iter()));
        let (answer, answers) = mpsc::channel();
        for _ in 0..asked.min(MAX_ASKED_AT_ONCE) {
            let (shared, waiting, answer) = (self.clone(), waiting.clone(), answer.clone());
            let asking = move || {
                loop {
                    let next = waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
                    let Some(known) = next else { return };
                    let found = shared.call(&known).and_then(|mut call| call.peer.find_slot(uuid));
                    if answer.send((known.label, found)).is_err() {
                        return;
                    }
                }
            };
            std::thread::Builder::new()
                .name("link search".into())
                .spawn(asking)
                .map_err(|error| format!("no thread: {error}"))?;
        }
        drop(answer);
        let mut found = Vec::new();
        let mut trouble = Vec::new();
        let start = Instant::now();
        let mut until = start.checked_add(SEARCH_WAIT).unwrap_or(start);
        while let Ok((label, result)) = answers.recv_timeout(until.saturating_duration_since(Instant::now()))
        {
            match result {
                Ok(Some(slot)) => {
                    found.push((label, slot));
                    let now = Instant::now();
                    until = until.min(now.checked_add(SECOND_SLOT_WAIT).unwrap_or(now));
                }
                Ok(None) => {}
                Err(error) => trouble.push(format!("peer {label}: {}", sentence(&error))),
            }
        }
        match (found.is_empty(), trouble.is_empty()) {
            (false, _) => Ok(found),
            (true, true) => Err("no peer has a slot for it".into()),
            (true, false) => Err(format!("no peer has a slot for it; {}", trouble.join("; "))),
        }
    }
}

/// Gives the receipt to the instance.
fn settle(
    client: &Client<LocalTransport>,
    instance: &Instance,
    outcome: Outcome,
    receipt: &[u8; 32],
) -> Result<(), ClientError> {
    let done = match outcome {
        Outcome::Live => client.commit(instance.handle(), receipt),
        Outcome::Void | Outcome::Open => client.abort(instance.handle(), receipt),
    };
    match done {
        // Another answer was here first, or an operator.
        Err(ClientError::Refused { code: ResponseCode::SEQUENCE, .. })
            if !instance.stored_state().is_some_and(InstanceState::is_source_locked) =>
        {
            Ok(())
        }
        other => other.map(drop),
    }
}

/// Who may be the destination that a ticket names: the peer with the signer's key, or else everybody of whom only an authority or a
/// shared storage key tells; the one that knew of it last first.
fn candidates(peers: Vec<KnownPeer>, ticket: &MigrationTicket, known_at: Option<&str>) -> Vec<KnownPeer> {
    let signer = storage_name(&ticket.signer);
    let is_signer = |peer: &KnownPeer| match (&peer.attestation, &signer) {
        (Some(name), Some(signer)) => **name == **signer,
        _ => false,
    };
    if peers.iter().any(is_signer) {
        return peers.into_iter().filter(is_signer).collect();
    }
    let mut peers: Vec<KnownPeer> =
        peers.into_iter().filter(|peer| signer.is_none() || peer.attestation.is_none()).collect();
    peers.sort_by_key(|peer| Some(peer.address.as_str()) != known_at);
    peers
}

/// The one slot; with several, the one where a machine waits.
fn choose(found: Vec<(String, FoundSlot)>) -> Result<(String, FoundSlot), String> {
    let mut attached = found.iter().filter(|(_, slot)| slot.attached);
    let one = match (found.as_slice(), attached.next(), attached.next()) {
        ([one], ..) | (_, Some(one), None) => Some(one.clone()),
        _ => None,
    };
    one.ok_or_else(|| {
        let labels: Vec<&str> = found.iter().map(|(label, _)| label.as_str()).collect();
        format!(
            "several peers have a slot for it, and nothing says where it goes: {}; `vtpmctl migrate arm` does",
            labels.join(", ")
        )
    })
}

/// The ticket that is armed, with its flags.
fn armed_ticket(instance: &Instance, info: &GetInstanceInfoOut) -> Option<(MigrationTicket, LockFlags)> {
    if info.summary.state != InstanceState::Live {
        return None;
    }
    Some((info.ticket.clone()?, instance.armed()?))
}
