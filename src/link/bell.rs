//! Wakes those who wait for what becomes of a migration.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use vtpm_protocol::instance::Uuid;

/// One waits for the news of one instance; nobody else is woken for good by them.
#[derive(Default)]
pub struct Bell {
    state: Mutex<State>,
    rung: Condvar,
}

#[derive(Default)]
struct State {
    closed: bool,
    /// How many wait, and how often it rang meanwhile.
    waiting: HashMap<Uuid, (usize, u64)>,
}

/// Somebody who waits. News from the making of this on are not missed.
pub struct Waiting<'a> {
    bell: &'a Bell,
    uuid: Uuid,
    heard: u64,
}

impl Bell {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something was decided about the instance.
    pub fn ring(&self, uuid: Uuid) {
        if let Some((_, rung)) = self.state().waiting.get_mut(&uuid) {
            *rung = rung.wrapping_add(1);
            self.rung.notify_all();
        }
    }

    /// Nobody waits any more, now or later.
    pub fn close(&self) {
        self.state().closed = true;
        self.rung.notify_all();
    }

    /// Starts to listen.
    pub fn listen(&self, uuid: Uuid) -> Waiting<'_> {
        let mut state = self.state();
        let (waiting, heard) = state.waiting.entry(uuid).or_default();
        *waiting = waiting.saturating_add(1);
        Waiting { bell: self, uuid, heard: *heard }
    }
}

impl Waiting<'_> {
    /// Waits until there is news that this has not returned for yet: `true`; or until then, or until the bell is closed: `false`.
    pub fn wait(&mut self, until: Instant) -> bool {
        let mut state = self.bell.state();
        loop {
            let rung = state.waiting.get(&self.uuid).map_or(self.heard, |&(_, rung)| rung);
            if rung != self.heard {
                self.heard = rung;
                return true;
            }
            let left = until.saturating_duration_since(Instant::now());
            if state.closed || left.is_zero() {
                return false;
            }
            state = self.bell.rung.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.bell.state();
        if let Some((waiting, _)) = state.waiting.get_mut(&self.uuid) {
            *waiting = waiting.saturating_sub(1);
            if *waiting == 0 {
                state.waiting.remove(&self.uuid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const A: Uuid = Uuid([1; 16]);
    const B: Uuid = Uuid([2; 16]);

    fn soon() -> Instant {
        Instant::now().checked_add(Duration::from_secs(20)).unwrap()
    }

    #[test]
    fn what_rings_between_listening_and_waiting_is_heard_once() {
        let bell = Bell::default();
        bell.ring(A);
        let mut a = bell.listen(A);
        assert!(!a.wait(Instant::now()), "it rang before");
        bell.ring(A);
        bell.ring(A);
        assert!(a.wait(soon()));
        assert!(!a.wait(Instant::now() + Duration::from_millis(20)));
        drop(a);
        assert!(bell.state().waiting.is_empty());
    }

    #[test]
    fn the_one_concerned_is_woken_at_once_and_no_other() {
        let bell = Bell::default();
        std::thread::scope(|scope| {
            let mut b = bell.listen(B);
            let mut a = bell.listen(A);
            let woken = scope.spawn(move || (a.wait(soon()), Instant::now()));
            let other = scope.spawn(move || b.wait(Instant::now() + Duration::from_millis(300)));
            std::thread::sleep(Duration::from_millis(50));
            let rung = Instant::now();
            bell.ring(A);
            let (heard, at) = woken.join().unwrap();
            assert!(heard && at.duration_since(rung) < Duration::from_millis(200));
            assert!(!other.join().unwrap());
        });
    }

    #[test]
    fn nobody_waits_for_a_closed_bell() {
        let bell = Bell::default();
        std::thread::scope(|scope| {
            let mut a = bell.listen(A);
            let waiting = scope.spawn(move || a.wait(soon()));
            std::thread::sleep(Duration::from_millis(20));
            bell.close();
            assert!(!waiting.join().unwrap());
        });
        assert!(!bell.listen(A).wait(soon()));
    }
}
