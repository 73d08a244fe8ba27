//! A store in memory that fails when it is told to.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use zeroize::Zeroizing;

use crate::store::{Batch, Durability, InstanceId, InstanceList, InstanceRow, Op, RecordName, StoreError};
use crate::tree::Persistence;
use crate::tree::persistence::NamedRecord;

#[derive(Clone, Default, PartialEq)]
pub(super) struct Content {
    rows: BTreeMap<InstanceId, InstanceRow>,
    pub(super) records: BTreeMap<(InstanceId, RecordName), Vec<u8>>,
}

impl Content {
    /// Every value, one behind the other: for looking for secrets.
    pub(super) fn contains(&self, needle: &[u8]) -> bool {
        self.records.values().any(|value| value.windows(needle.len()).any(|w| w == needle))
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Memory {
    content: Mutex<Content>,
    /// What a loss of power would leave.
    on_medium: Mutex<Content>,
    next: AtomicU64,
    pub(super) commits: AtomicU64,
    /// Commits fail, and change nothing.
    pub(super) fail: AtomicBool,
    /// So many commits succeed, then all fail, as if the process had died there. 0 is never.
    pub(super) last_commit: AtomicU64,
    /// Commits take place, but fail with an unknown outcome.
    pub(super) doubt: AtomicBool,
    /// Nothing can be read.
    pub(super) unreadable: AtomicBool,
}

impl Memory {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// What is durable now.
    pub(super) fn content(&self) -> Content {
        self.content.lock().unwrap().clone()
    }

    /// What a loss of power would leave now.
    pub(super) fn medium(&self) -> Content {
        self.on_medium.lock().unwrap().clone()
    }

    /// A store in which all is as it was durable here: what a restarted process finds after a crash.
    pub(super) fn after_crash(&self) -> Arc<Self> {
        self.copy_with(self.content())
    }

    /// As [`Self::after_crash`], when the host lost its power.
    pub(super) fn after_power_loss(&self) -> Arc<Self> {
        self.copy_with(self.medium())
    }

    fn copy_with(&self, content: Content) -> Arc<Self> {
        let copy = Self::default();
        *copy.on_medium.lock().unwrap() = content.clone();
        *copy.content.lock().unwrap() = content;
        copy.next.store(self.next.load(Ordering::SeqCst), Ordering::SeqCst);
        Arc::new(copy)
    }
}

impl Persistence for Memory {
    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let last = self.last_commit.load(Ordering::SeqCst);
        let dead = last > 0 && self.commits.load(Ordering::SeqCst) >= last;
        if dead || self.fail.load(Ordering::SeqCst) {
            return Err(StoreError::Closed);
        }
        // Held throughout, as the store's writer does.
        let mut place = self.content.lock().unwrap();
        let mut content = place.clone();
        let mut touched = Vec::new();
        let durability = batch.durability;
        for op in batch.ops {
            match op {
                Op::CreateInstance(row) => {
                    touched.push(row.id);
                    let taken = content.rows.values().any(|r| {
                        (r.id, r.handle) == (row.id, row.handle) || r.name == row.name || r.uuid == row.uuid
                    });
                    assert!(!taken, "{row:?} is there already");
                    assert!(row.parent.is_none_or(|p| content.rows.contains_key(&p)));
                    content.rows.insert(row.id, row);
                }
                Op::UpdateInstance(row) => drop(content.rows.insert(row.id, row)),
                Op::DeleteInstance(id) => {
                    assert!(content.rows.values().all(|r| r.parent != Some(id)), "{id} has children");
                    assert!(content.rows.remove(&id).is_some());
                    content.records.retain(|(instance, _), _| *instance != id);
                }
                Op::Put { instance, key, value } => {
                    assert!(content.rows.contains_key(&instance));
                    touched.push(instance);
                    content.records.insert((instance, key), value.to_vec());
                }
                Op::Delete { instance, key } => drop(content.records.remove(&(instance, key))),
            }
        }
        if durability == Durability::Medium {
            *self.on_medium.lock().unwrap() = content.clone();
        }
        *place = content;
        self.commits.fetch_add(1, Ordering::SeqCst);
        if self.doubt.load(Ordering::SeqCst) {
            return Err(StoreError::OutcomeUnknown {
                instances: InstanceList(touched),
                source: Box::new(StoreError::Closed),
            });
        }
        Ok(())
    }

    fn instances(&self) -> Result<Vec<InstanceRow>, StoreError> {
        Ok(self.content().rows.into_values().collect())
    }

    fn damaged(&self) -> Result<Vec<crate::store::DamagedInstance>, StoreError> {
        Ok(Vec::new())
    }

    fn records(&self, id: InstanceId) -> Result<Vec<NamedRecord>, StoreError> {
        if self.unreadable.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable { source: Box::new(StoreError::Closed) });
        }
        let records = self.content().records;
        Ok(records
            .into_iter()
            .filter(|((instance, _), _)| *instance == id)
            .map(|((_, name), value)| (name, Zeroizing::new(value)))
            .collect())
    }

    fn allocate_id(&self) -> InstanceId {
        InstanceId(self.next.fetch_add(1, Ordering::SeqCst).wrapping_add(1))
    }
}
