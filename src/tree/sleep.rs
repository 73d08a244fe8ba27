//! Instances that nobody uses cost disk and no memory: they sleep.
//!
//! All that a guest could ever see of its TPM is in the store before it has the response of the command that made it: PCRs,
//! sessions and transient objects as well as NV ([`Durability`](crate::store::Durability)). So an instance with no client can be forgotten and
//! read anew at its next command, as after a start of the daemon, and nobody can tell. What the store does not have keeps an instance
//! awake: a measurement that a client has begun, a clock that was just looked at.
//!
//! Nothing ticks. A round is made some time after an instance was read from the store, was made, or lost its client; it puts to sleep
//! what was not used since the round before, and there is another one only if that leaves something.
//!
//! The memory that is free then goes back to the system when there have been no rounds for a while. That takes some milliseconds for which others
//! cannot allocate: an instance that wakes meanwhile would wait for them.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use vtpm_engine::Tpm;

use super::instance::Instance;
use super::replay::LastCommand;
use super::{Tree, TreeError};

/// Tells the thread that makes the rounds that one is due.
#[derive(Default)]
pub(super) struct Rounds {
    due: Mutex<Due>,
    changed: Condvar,
}

#[derive(Default)]
struct Due {
    round: bool,
    end: bool,
}

impl Rounds {
    fn lock(&self) -> MutexGuard<'_, Due> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An instance is awake that may not be needed.
    pub(super) fn call(&self) {
        let mut due = self.lock();
        if !due.round {
            due.round = true;
            self.changed.notify_all();
        }
    }

    /// Waits until a round is called for, and then for `pause`; or for as long as is `quiet`, if it says how long, while none is.
    fn next(&self, pause: Duration, quiet: Option<Duration>) -> Next {
        let called = |due: &mut Due| !due.round && !due.end;
        let wait = |due, timeout: Duration, condition: fn(&mut Due) -> bool| {
            let waited = self.changed.wait_timeout_while(due, timeout, condition);
            waited.unwrap_or_else(PoisonError::into_inner)
        };
        let due = match quiet {
            None => self.changed.wait_while(self.lock(), called).unwrap_or_else(PoisonError::into_inner),
            Some(quiet) => match wait(self.lock(), quiet, called) {
                (_, timeout) if timeout.timed_out() => return Next::Quiet,
                (due, _) => due,
            },
        };
        let (mut due, _) = wait(due, pause, |due| !due.end);
        due.round = false;
        if due.end { Next::End } else { Next::Round }
    }
}

/// What the thread does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Round,
    /// Nobody wants a round.
    Quiet,
    /// There will be none any more.
    End,
}

/// Memory of instances that fell asleep, to be given back to the system.
#[derive(Default)]
struct Debt {
    rounds: u32,
}

impl Debt {
    /// So many rounds may follow one another until it is not waited for a quiet moment any more.
    const MOST_ROUNDS: u32 = 16;

    const fn is_owed(&self) -> bool {
        self.rounds > 0
    }

    /// After a round.
    fn note(&mut self, asleep: usize) {
        if asleep > 0 || self.is_owed() {
            self.rounds = self.rounds.saturating_add(1);
        }
        if self.rounds >= Self::MOST_ROUNDS {
            self.pay();
        }
    }

    fn pay(&mut self) {
        crate::memory::give_back();
        self.rounds = 0;
    }
}

/// What came of an instance in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// It sleeps now.
    FellAsleep,
    /// It was used since the last round.
    Later,
    /// It sleeps already, or is needed.
    No,
}

impl Instance {
    /// Drops what the store has as well, if nobody needs it.
    fn rest(&self, tree: &Tree) -> Rest {
        if self.parent().is_none() || self.clients.load(Ordering::Acquire) > 0 {
            return Rest::No;
        }
        // Somebody uses it; or has panicked, and then there is nothing to be kept but to be read anew.
        let Ok(mut guard) = self.inner.try_lock() else { return Rest::Later };
        let inner = &mut *guard;
        if !inner.loaded || inner.deleted || !inner.state.executes() {
            return Rest::No;
        }
        if std::mem::take(&mut inner.used) {
            return Rest::Later;
        }
        if inner.tpm.as_ref().is_none_or(Tpm::knows_more_than_its_records) {
            return Rest::No;
        }
        // That its response arrived is not in the store; so the command goes from there too.
        if inner.last.as_ref().is_some_and(LastCommand::is_over) {
            self.forget_command(tree, inner);
            if inner.last.is_some() || !inner.loaded {
                return Rest::No;
            }
        }
        inner.fall_asleep();
        self.shown.show(inner);
        Rest::FellAsleep
    }

    /// Whether it is not in memory, but for its name and where it stands.
    #[cfg(test)]
    pub(super) fn sleeps(&self) -> bool {
        let inner = self.inner.lock().unwrap();
        inner.asleep && !inner.loaded && inner.tpm.is_none()
    }
}

impl Tree {
    /// Puts to sleep what nobody has used since the last call. How many fell asleep, and whether there is a reason for another round.
    pub(super) fn make_round(&self) -> (usize, bool) {
        let rests: Vec<Rest> = self.topology().values().map(|instance| instance.rest(self)).collect();
        let count = |what| rests.iter().filter(|rest| **rest == what).count();
        (count(Rest::FellAsleep), count(Rest::Later) > 0)
    }

    /// Has instances without a client put to sleep once nobody has used them for `pause`, until what is returned is dropped.
    ///
    /// # Errors
    /// [`TreeError::Thread`].
    pub fn let_sleep(self: &Arc<Self>, pause: Duration) -> Result<Sleep, TreeError> {
        let (tree, rounds) = (Arc::downgrade(self), self.rounds.clone());
        let thread = std::thread::Builder::new().name("sleep".into()).spawn(move || {
            let mut debt = Debt::default();
            loop {
                match rounds.next(pause, debt.is_owed().then(|| pause.checked_div(2).unwrap_or(pause))) {
                    Next::Round => debt.note(round(&tree, &rounds)),
                    Next::Quiet => debt.pay(),
                    Next::End => break,
                }
            }
        });
        Ok(Sleep { rounds: self.rounds.clone(), thread: Some(thread.map_err(TreeError::Thread)?) })
    }
}

/// How many fell asleep.
fn round(tree: &Weak<Tree>, rounds: &Rounds) -> usize {
    let Some(tree) = tree.upgrade() else { return 0 };
    let (asleep, again) = tree.make_round();
    if asleep > 0 {
        log::debug!("{asleep} instances were put to sleep");
    }
    if again {
        rounds.call();
    }
    asleep
}

/// Instances that nobody uses are put to sleep as long as this is there.
pub struct Sleep {
    rounds: Arc<Rounds>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.rounds.lock().end = true;
        self.rounds.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(1);
    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn it_is_quiet_when_nobody_calls_and_only_where_that_matters() {
        let rounds = Rounds::default();
        assert_eq!(rounds.next(LONG, Some(SHORT)), Next::Quiet);
        rounds.call();
        assert_eq!(rounds.next(SHORT, Some(LONG)), Next::Round);
        rounds.call();
        assert_eq!(rounds.next(SHORT, None), Next::Round);
        rounds.lock().end = true;
        assert_eq!(rounds.next(LONG, Some(LONG)), Next::End);
        assert_eq!(rounds.next(LONG, None), Next::End);
    }

    #[test]
    fn memory_is_owed_from_the_first_that_sleeps_and_not_for_ever() {
        let mut debt = Debt::default();
        debt.note(0);
        assert!(!debt.is_owed());
        debt.note(1);
        for _ in 2..Debt::MOST_ROUNDS {
            debt.note(0);
            assert!(debt.is_owed());
        }
        debt.note(0);
        assert!(!debt.is_owed());
    }
}
