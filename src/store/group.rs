//! Commits that wait for the same transaction, from the first of them on until all know what came of it.
//!
//! Whoever waits is woken once, and all of a group with one system call.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::{Batch, Op, StoreError};

/// Bounds of one transaction, so that the first batch in it is not kept waiting by ever more behind it.
const MOST_BATCHES: usize = 512;
const MOST_BYTES: usize = 8 << 20;

/// What the batches of one transaction came to, one by one.
pub(super) type Outcomes = Vec<Result<(), StoreError>>;

/// Batches for one transaction. Whoever waits for one that is dropped without an answer is told that the store is closed.
#[derive(Default)]
pub(super) struct Group {
    pub(super) batches: Vec<Batch>,
    bytes: usize,
    answer: Arc<OnceLock<Outcomes>>,
}

impl Group {
    fn has_room(&self) -> bool {
        self.batches.len() < MOST_BATCHES && self.bytes < MOST_BYTES
    }

    fn push(&mut self, batch: Batch) -> Ticket {
        let ticket = Ticket { answer: Arc::clone(&self.answer), place: self.batches.len() };
        self.bytes = batch.ops.iter().map(Op::bytes).fold(self.bytes, usize::saturating_add);
        self.batches.push(batch);
        ticket
    }

    /// All is over.
    pub(super) fn answer(self, outcomes: Outcomes) {
        let _only_once = self.answer.set(outcomes);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _answered = self.answer.set(Vec::new());
    }
}

/// A batch that is on its way.
pub(super) struct Ticket {
    answer: Arc<OnceLock<Outcomes>>,
    place: usize,
}

impl Ticket {
    /// Waits until it is known what came of the batch.
    pub(super) fn wait(self) -> Result<(), StoreError> {
        self.answer.wait().get(self.place).cloned().unwrap_or(Err(StoreError::Closed))
    }
}

/// The groups that nobody has taken yet.
#[derive(Default)]
pub(super) struct Gathering(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    groups: VecDeque<Group>,
    closed: bool,
}

impl Gathering {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a batch to the last group, or to a new one: then somebody has to be told ([`Self::take`]).
    ///
    /// # Errors
    /// [`StoreError::Closed`].
    pub(super) fn push(&self, batch: Batch) -> Result<(Ticket, bool), StoreError> {
        let mut queue = self.lock();
        if queue.closed {
            return Err(StoreError::Closed);
        }
        if let Some(group) = queue.groups.back_mut().filter(|group| group.has_room()) {
            return Ok((group.push(batch), false));
        }
        let mut group = Group::default();
        let ticket = group.push(batch);
        queue.groups.push_back(group);
        Ok((ticket, true))
    }

    /// The group that waits longest; nobody joins it any more.
    pub(super) fn take(&self) -> Option<Group> {
        self.lock().groups.pop_front()
    }

    /// Nobody takes any more.
    pub(super) fn close(&self) {
        let mut queue = self.lock();
        queue.closed = true;
        queue.groups.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_takes_so_many_and_the_next_ones_begin_another() {
        let gathering = Gathering::default();
        let begun = |_| gathering.push(Batch::default()).unwrap().1;
        let begun: Vec<_> = (0..=MOST_BATCHES).map(begun).collect();
        let new: Vec<_> = (0..begun.len()).filter(|&place| begun[place]).collect();
        assert_eq!(new, [0, MOST_BATCHES]);
        let sizes = [gathering.take(), gathering.take()].map(|group| group.unwrap().batches.len());
        assert_eq!(sizes, [MOST_BATCHES, 1]);
        assert!(gathering.take().is_none());
    }

    #[test]
    fn each_has_its_own_answer() {
        let gathering = Gathering::default();
        let (first, _) = gathering.push(Batch::default()).unwrap();
        let (second, is_new) = gathering.push(Batch::default()).unwrap();
        assert!(!is_new);
        gathering.take().unwrap().answer(vec![Ok(()), Err(StoreError::NumberTooLarge)]);
        assert!(first.wait().is_ok());
        assert!(matches!(second.wait(), Err(StoreError::NumberTooLarge)));
    }

    #[test]
    fn nobody_waits_for_a_store_that_is_gone() {
        let gathering = Gathering::default();
        let (taken, _) = gathering.push(Batch::default()).unwrap();
        drop(gathering.take());
        assert!(matches!(taken.wait(), Err(StoreError::Closed)));
        let (left, _) = gathering.push(Batch::default()).unwrap();
        gathering.close();
        assert!(matches!(left.wait(), Err(StoreError::Closed)));
        assert!(matches!(gathering.push(Batch::default()), Err(StoreError::Closed)));
    }
}
