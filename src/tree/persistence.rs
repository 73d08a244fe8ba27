//! What the tree wants of the store, and how it names its records there.

use vtpm_engine::env::RecordKey;
use vtpm_protocol::codec::decode_exact;
use vtpm_protocol::instance::SavePermission;
use zeroize::Zeroizing;

use crate::migration::content::{Held, Records};
use crate::store::{Batch, DamagedInstance, InstanceId, InstanceRow, Op, RecordName, Store, StoreError};

/// A record of an instance with its name.
pub type NamedRecord = (RecordName, Zeroizing<Vec<u8>>);

/// The store as the tree sees it; tests put something in its place that fails when they say so.
pub trait Persistence: Send + Sync + 'static {
    /// See [`Store::commit`].
    ///
    /// # Errors
    /// [`StoreError`].
    fn commit(&self, batch: Batch) -> Result<(), StoreError>;

    /// See [`Store::instances`].
    ///
    /// # Errors
    /// [`StoreError`].
    fn instances(&self) -> Result<Vec<InstanceRow>, StoreError>;

    /// See [`Store::damaged`].
    ///
    /// # Errors
    /// [`StoreError`].
    fn damaged(&self) -> Result<Vec<DamagedInstance>, StoreError>;

    /// See [`Store::records`].
    ///
    /// # Errors
    /// [`StoreError`].
    fn records(&self, id: InstanceId) -> Result<Vec<NamedRecord>, StoreError>;

    /// See [`Store::allocate_id`].
    fn allocate_id(&self) -> InstanceId;
}

impl Persistence for Store {
    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        Self::commit(self, batch)
    }

    fn instances(&self) -> Result<Vec<InstanceRow>, StoreError> {
        Self::instances(self)
    }

    fn damaged(&self) -> Result<Vec<DamagedInstance>, StoreError> {
        Self::damaged(self)
    }

    fn records(&self, id: InstanceId) -> Result<Vec<NamedRecord>, StoreError> {
        Self::records(self, id)
    }

    fn allocate_id(&self) -> InstanceId {
        Self::allocate_id(self)
    }
}

/// Names of records. The engine's records have a kind from 1 to 8 in front ([`RecordKey::to_bytes`]), the tree's own one
/// from 0x80 on.
pub(super) mod name {
    use sha2::{Digest, Sha256};
    use vtpm_protocol::instance::{InstanceName, MigrationId, Uuid};

    use super::{RecordKey, RecordName};
    use crate::store::StoreError;

    /// The [`State`](crate::migration::State).
    pub(crate) const STATE: RecordName = RecordName::kind(0x80);
    /// The [`LastCommand`](crate::tree::replay::LastCommand).
    pub(crate) const LAST_COMMAND: RecordName = RecordName::kind(0x81);
    /// The content so far of a piece whose last part is still out.
    pub(crate) const PARTIAL: RecordName = RecordName::kind(0x82);
    /// There when the TPM is to be reset before it executes another command: its machine was reset while it was source-locked, or the host
    /// was started anew.
    pub(crate) const RESET: RecordName = RecordName::kind(0x83);
    /// Of the root: the boot of the host in which the instances were used last.
    pub(crate) const BOOT: RecordName = RecordName::kind(0x84);
    /// In front of what follows from the label of a peer: a [`PeerEntry`](vtpm_protocol::instance::PeerEntry).
    pub(super) const PEER: u8 = 0x85;
    /// Of the root: its [`Identity`](vtpm_protocol::instance::Identity), without the certificate.
    pub(crate) const IDENTITY: RecordName = RecordName::kind(0x86);
    /// In front of what follows from a UUID: the [`LogEntry`](vtpm_protocol::instance::LogEntry) of its last migration.
    pub(crate) const LOG: u8 = 0x87;
    /// Of the root, in front of what follows from the id of a migration: its receipt, when the instance is gone from here.
    pub(crate) const RECEIPT: u8 = 0x88;
    /// The [`SavePermission`](vtpm_protocol::instance::SavePermission) of an instance, where it is not as configured.
    pub(crate) const SAVES: RecordName = RecordName::kind(0x89);
    /// In front of the name of a record that is in the escrow.
    pub(super) const ESCROW: u8 = 0x90;
    /// In front of a sequence number: a part of a strict migration as it was sent.
    pub(super) const SENT: u8 = 0x91;
    /// The encrypted keys of a strict migration as they were sent.
    pub(crate) const SENT_KEY: RecordName = RecordName::kind(0x92);

    /// A record of the live state.
    pub(crate) fn live(key: RecordKey) -> Result<RecordName, StoreError> {
        RecordName::new(&key.to_bytes())
    }

    /// The same record in the escrow.
    pub(crate) fn escrow(key: RecordKey) -> Result<RecordName, StoreError> {
        let [a, b, c, d, e] = key.to_bytes();
        RecordName::new(&[ESCROW, a, b, c, d, e])
    }

    /// A part that was sent.
    pub(crate) fn sent(sequence: u32) -> Result<RecordName, StoreError> {
        let [a, b, c, d] = sequence.to_be_bytes();
        RecordName::new(&[SENT, a, b, c, d])
    }

    /// The peer of a label, which is longer than a name may be.
    pub(crate) fn peer(label: &InstanceName) -> Result<RecordName, StoreError> {
        let mut name = vec![PEER];
        name.extend(Sha256::digest(label.as_str()).iter().take(RecordName::MAX_BYTES.saturating_sub(1)));
        RecordName::new(&name)
    }

    /// The receipt of a migration, whose id is longer than a name may be.
    pub(crate) fn receipt(id: &MigrationId) -> Result<RecordName, StoreError> {
        let mut name = vec![RECEIPT];
        name.extend(Sha256::digest(id).iter().take(RecordName::MAX_BYTES.saturating_sub(1)));
        RecordName::new(&name)
    }

    /// The log of an instance, whose UUID is as long as a name may be.
    pub(crate) fn log(uuid: Uuid) -> Result<RecordName, StoreError> {
        let mut name = vec![LOG];
        name.extend(Sha256::digest(uuid.0).iter().take(RecordName::MAX_BYTES.saturating_sub(1)));
        RecordName::new(&name)
    }
}

/// All records of an instance, sorted by what they are.
#[derive(Default)]
pub(super) struct Stored {
    pub(super) state: Option<Zeroizing<Vec<u8>>>,
    pub(super) last_command: Option<Zeroizing<Vec<u8>>>,
    pub(super) reset_owed: bool,
    pub(super) saves: SavePermission,
    pub(super) boot: Option<Zeroizing<Vec<u8>>>,
    pub(super) identity: Option<Zeroizing<Vec<u8>>>,
    pub(super) peers: Vec<Zeroizing<Vec<u8>>>,
    pub(super) held: Held,
}

impl Stored {
    pub(super) fn read(persistence: &dyn Persistence, id: InstanceId) -> Result<Self, StoreError> {
        let mut stored = Self::default();
        for (name, value) in persistence.records(id)? {
            let bytes = name.as_bytes();
            if let Some(key) = RecordKey::from_bytes(bytes) {
                stored.held.live.insert(key, value);
            } else if let Some((&name::ESCROW, rest)) = bytes.split_first()
                && let Some(key) = RecordKey::from_bytes(rest)
            {
                stored.held.escrow.insert(key, value);
            } else if let Some((&name::SENT, rest)) = bytes.split_first()
                && let Ok(sequence) = rest.try_into()
            {
                stored.held.sent.insert(u32::from_be_bytes(sequence), value.to_vec());
            } else if name == name::SENT_KEY {
                stored.held.sent_key = value.to_vec();
            } else if name == name::STATE {
                stored.state = Some(value);
            } else if name == name::LAST_COMMAND {
                stored.last_command = Some(value);
            } else if name == name::PARTIAL {
                stored.held.partial = value;
            } else if name == name::RESET {
                stored.reset_owed = true;
            } else if name == name::SAVES {
                // What is not understood permits nothing.
                stored.saves = decode_exact(&value).unwrap_or(SavePermission::Refused);
            } else if name == name::BOOT {
                stored.boot = Some(value);
            } else if name == name::IDENTITY {
                stored.identity = Some(value);
            } else if bytes.first() == Some(&name::PEER) {
                stored.peers.push(value);
            } else if matches!(bytes.first(), Some(&(name::LOG | name::RECEIPT))) {
                // Read by those whose they are.
            } else {
                log::warn!("{id} has a {name} that this program does not know; it is left alone");
            }
        }
        Ok(stored)
    }
}

/// Operations on one instance, being collected.
pub(super) struct Ops {
    instance: InstanceId,
    pub(super) list: Vec<Op>,
}

impl Ops {
    pub(super) fn new(instance: InstanceId) -> Self {
        Self { instance, list: Vec::new() }
    }

    pub(super) fn put(&mut self, key: RecordName, value: Zeroizing<Vec<u8>>) {
        self.list.push(Op::Put { instance: self.instance, key, value });
    }

    pub(super) fn delete(&mut self, key: RecordName) {
        self.list.push(Op::Delete { instance: self.instance, key });
    }

    /// What makes of `before`, which is in the store, `after`.
    pub(super) fn exchange(&mut self, before: &Held, after: &Held) -> Result<(), StoreError> {
        self.exchange_records(&before.live, &after.live, name::live)?;
        self.exchange_records(&before.escrow, &after.escrow, name::escrow)?;
        if after.partial.is_empty() && !before.partial.is_empty() {
            self.delete(name::PARTIAL);
        } else if after.partial != before.partial {
            self.put(name::PARTIAL, after.partial.clone());
        }
        for &sequence in before.sent.keys().filter(|sequence| !after.sent.contains_key(sequence)) {
            self.delete(name::sent(sequence)?);
        }
        for (&sequence, part) in after.sent.iter().filter(|&(at, part)| before.sent.get(at) != Some(part)) {
            self.put(name::sent(sequence)?, Zeroizing::new(part.clone()));
        }
        if after.sent_key.is_empty() && !before.sent_key.is_empty() {
            self.delete(name::SENT_KEY);
        } else if after.sent_key != before.sent_key {
            self.put(name::SENT_KEY, Zeroizing::new(after.sent_key.clone()));
        }
        Ok(())
    }

    fn exchange_records(
        &mut self,
        before: &Records,
        after: &Records,
        name: fn(RecordKey) -> Result<RecordName, StoreError>,
    ) -> Result<(), StoreError> {
        for &key in before.keys().filter(|key| !after.contains_key(key)) {
            self.delete(name(key)?);
        }
        for (&key, value) in after.iter().filter(|&(key, value)| before.get(key) != Some(value)) {
            self.put(name(key)?, value.clone());
        }
        Ok(())
    }
}
