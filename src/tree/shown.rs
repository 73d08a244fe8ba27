//! Where the instances stand, for those who count them and must not wait for their locks.

use std::ops::{Deref, DerefMut};
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicU16, Ordering};

use vtpm_protocol::codec::decode_exact;
use vtpm_protocol::instance::InstanceState;

use super::Tree;
use super::instance::Inner;

/// Nobody has read it since the start.
const UNREAD: u16 = 0;
/// What the store has is no instance.
const DAMAGED: u16 = InstanceState::Damaged as u16;
/// Beside the number of the state: the TPM is in memory.
const AWAKE: u16 = 0x100;

/// Where an instance stood when its lock was given up last.
#[derive(Default)]
pub(super) struct Shown(AtomicU16);

impl Shown {
    fn set(&self, value: u16) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Where `inner` says that it stands; what that was before, when it does not know.
    pub(super) fn show(&self, inner: &Inner) {
        if inner.loaded || inner.asleep {
            let awake = if inner.tpm.is_some() { AWAKE } else { 0 };
            self.set(inner.state.kind() as u16 | awake);
        }
    }

    /// What the store has of it, where nobody has used it meanwhile.
    pub(super) fn show_stored(&self, state: InstanceState) {
        let _ = self.0.compare_exchange(UNREAD, state as u16, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// It cannot be read, and that will not pass.
    pub(super) fn show_damaged(&self) {
        self.set(DAMAGED);
    }

    fn is_unread(&self) -> bool {
        self.0.load(Ordering::Relaxed) == UNREAD
    }
}

/// The lock of an instance. Giving it up shows where the instance stands.
pub(super) struct Entered<'a> {
    inner: MutexGuard<'a, Inner>,
    shown: &'a Shown,
}

impl<'a> Entered<'a> {
    pub(super) const fn new(inner: MutexGuard<'a, Inner>, shown: &'a Shown) -> Self {
        Self { inner, shown }
    }
}

impl Deref for Entered<'_> {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl DerefMut for Entered<'_> {
    fn deref_mut(&mut self) -> &mut Inner {
        &mut self.inner
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.shown.show(&self.inner);
    }
}

/// How many instances stand where, the root not counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// By state; every state is there but that of damaged ones.
    pub states: Vec<(InstanceState, u64)>,
    /// What the store has of them is damaged.
    pub damaged: u64,
    /// Not read from the store since the start.
    pub unread: u64,
    /// Whose TPM is in memory.
    pub awake: u64,
}

impl Tree {
    /// Counts the instances. Waits for no lock that is held during a command.
    #[must_use]
    pub fn census(&self) -> Census {
        let mut counts = [0u64; DAMAGED as usize + 1];
        let mut awake = 0u64;
        for instance in self.topology().values().filter(|instance| instance.parent().is_some()) {
            let shown = instance.shown.0.load(Ordering::Relaxed);
            awake = awake.saturating_add(u64::from(shown & AWAKE != 0));
            if let Some(count) = counts.get_mut(usize::from(shown & DAMAGED)) {
                *count = count.saturating_add(1);
            }
        }
        let count = |value: u16| counts.get(usize::from(value)).copied().unwrap_or(0);
        let states = (0..=u8::MAX).filter_map(|number| decode_exact::<InstanceState>(&[number]).ok());
        let states = states.filter(|state| *state != InstanceState::Damaged);
        Census {
            states: states.map(|state| (state, count(state as u16))).collect(),
            damaged: count(DAMAGED),
            unread: count(UNREAD),
            awake,
        }
    }

    /// Reads from the store where the instances stand that nobody has used since the start, one after the other, and leaves their TPMs there.
    /// Calls `pause` after each, and stops when that returns `false`.
    pub fn look_at_unread(&self, mut pause: impl FnMut() -> bool) {
        for instance in self.topology().values().filter(|instance| instance.shown.is_unread()) {
            let _ = instance.stored_state();
            if !pause() {
                return;
            }
        }
    }
}
