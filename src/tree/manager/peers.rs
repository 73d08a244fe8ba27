//! The peers of the processing instance, and its identity: records beside those of its TPM.

use std::time::SystemTime;

use vtpm_engine::instances::VerifiedTicket;
use vtpm_protocol::codec::{Encode, decode_exact};
use vtpm_protocol::instance::{
    Identity, InstanceName, ListPeersIn, ListPeersOut, MAX_CAP_PEER_BYTES, MAX_CAP_PEERS, MAX_PEERS,
    MigrationTicket, PeerEntry, PeerKind,
};
use vtpm_protocol::rc::ResponseCode;
use zeroize::Zeroizing;

use super::{Effect, Pending, Transaction, refused, store_failed};
use crate::logging::about;
use crate::migration::StepError;
use crate::tree::instance::Instance;
use crate::tree::persistence::{Ops, name};
use crate::trust::{self, certificate};

impl Transaction<'_> {
    /// The peers, in the order of their labels. One that does not decode is left out: nobody is trusted for it.
    fn peers(&self) -> Result<Vec<PeerEntry>, ResponseCode> {
        let mut peers = Vec::new();
        for record in self.stored(self.processing)?.peers {
            match decode_exact::<PeerEntry>(&record) {
                Ok(peer) => peers.push(peer),
                Err(code) => {
                    about!(error, self.processing, "a peer of {} is damaged: {code}", self.processing.name())
                }
            }
        }
        peers.sort_by(|a, b| a.label.cmp(&b.label));
        Ok(peers)
    }

    /// The ticket, if it is vouched for by somebody whom the processing instance trusts.
    pub(super) fn admit(
        &self,
        instance: &Instance,
        ticket: VerifiedTicket,
    ) -> Result<MigrationTicket, ResponseCode> {
        let peers = self.peers()?;
        match trust::admit(&peers, &ticket, SystemTime::now()) {
            Ok(Some(peer)) => {
                about!(info, instance, [peer:% = peer.label], "instance {}: a ticket of {}", instance.name(), peer.label)
            }
            Ok(None) => {
                about!(info, instance, "instance {}: a ticket under a shared storage key", instance.name())
            }
            Err(untrusted) => return Err(refused(instance)(StepError::Untrusted(untrusted))),
        }
        Ok(ticket.into_ticket())
    }

    /// The operations are on the processing instance itself.
    fn change_own(&mut self, ops: Ops) -> Result<(), ResponseCode> {
        if self.pending.is_some() {
            return Err(ResponseCode::FAILURE);
        }
        self.pending = Some(Pending { ops: ops.list, effect: Effect::Own });
        Ok(())
    }

    /// AddPeer.
    pub(super) fn put_peer(&mut self, entry: &PeerEntry) -> Result<(), ResponseCode> {
        let peers = self.peers()?;
        if entry.kind == PeerKind::Authority && !certificate::is_authority(&entry.credential) {
            return Err(ResponseCode::VALUE.parameter(1));
        }
        if peers.iter().any(|peer| peer.label == entry.label) {
            return Err(ResponseCode::NV_DEFINED);
        }
        if peers.len() >= MAX_PEERS {
            return Err(ResponseCode::NV_SPACE);
        }
        let mut ops = Ops::new(self.processing.id());
        let record = name::peer(&entry.label).map_err(|e| store_failed(&e))?;
        ops.put(record, Zeroizing::new(entry.to_bytes()));
        self.change_own(ops)
    }

    /// RemovePeer.
    pub(super) fn delete_peer(&mut self, label: &InstanceName) -> Result<(), ResponseCode> {
        if !self.peers()?.iter().any(|peer| peer.label == *label) {
            return Err(ResponseCode::VALUE.parameter(1));
        }
        let mut ops = Ops::new(self.processing.id());
        ops.delete(name::peer(label).map_err(|e| store_failed(&e))?);
        self.change_own(ops)
    }

    /// ListPeers.
    pub(super) fn page_of_peers(&self, input: &ListPeersIn) -> Result<ListPeersOut, ResponseCode> {
        let first = usize::try_from(input.first).unwrap_or(usize::MAX);
        let count = usize::try_from(input.count).unwrap_or(usize::MAX).min(MAX_CAP_PEERS);
        let mut rest = self.peers()?.into_iter().skip(first).peekable();
        let (mut peers, mut size) = (Vec::new(), 0usize);
        while let Some(peer) = rest.peek() {
            size = size.saturating_add(peer.to_bytes().len());
            if peers.len() >= count || (!peers.is_empty() && size > MAX_CAP_PEER_BYTES) {
                break;
            }
            peers.extend(rest.next());
        }
        Ok(ListPeersOut { more: rest.peek().is_some(), peers })
    }

    /// GetIdentity.
    pub(super) fn stored_identity(&self) -> Result<Identity, ResponseCode> {
        let record = self.stored(self.processing)?.identity.ok_or(ResponseCode::NV_UNINITIALIZED)?;
        decode_exact(&record).map_err(|_| ResponseCode::FAILURE)
    }
}
