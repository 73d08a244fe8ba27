//! The source's side of the link: finds tickets for machines that begin to migrate, and asks destinations what became of what left.
//!
//! Which instances wait for an outcome is read from the tree, at the start and whenever one moves: nothing is lost with the process. The
//! desk below only knows when to ask next. One thread looks at it; what talks to the network runs in threads of its own, of which there
//! are [`MAX_WORKERS`] at most, and none while there is nothing to do. No lock, of the desk or of an instance, is held meanwhile.

mod errands;

use std::collections::BTreeMap;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use vtpm_protocol::instance::{InstanceState, LockFlags};

use super::client::Dialer;
use super::trust::Trust;
use crate::logging::about;
use crate::tree::{Instance, TicketFinder, Tree, TreeEvent};

/// The most threads that talk to peers for this host at once.
const MAX_WORKERS: usize = 24;
/// The most that wait at a destination for a decision; with more instances than that under way, they are asked about in turn.
const MAX_WAITING: usize = 12;
/// How long a destination is asked to wait for a decision.
const LONG_POLL: Duration = Duration::from_secs(25);
/// How often an instance is asked about when too many are under way to wait for each.
const SHORT_POLL: Duration = Duration::from_secs(2);
/// How long the end waits for threads that talk to peers.
const END_WAIT: Duration = Duration::from_secs(2);

/// First and longest pause between two attempts of a kind.
#[derive(Clone, Copy)]
struct Backoff {
    first: Duration,
    longest: Duration,
}

/// Between two attempts to reach a destination.
const ASKING: Backoff = Backoff { first: Duration::from_millis(250), longest: Duration::from_secs(30) };
/// The machine runs and its TPM does not answer it.
const GIVING_UP: Backoff = Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(5) };
/// While a machine migrates without a ticket.
const SEARCHING: Backoff = Backoff { first: Duration::from_millis(500), longest: Duration::from_secs(10) };

impl Backoff {
    /// The pause after so many failures; a little longer or shorter, so that many hosts do not come back at once.
    fn pause(self, failures: u32) -> Duration {
        let doubled = self.first.saturating_mul(1u32.checked_shl(failures.min(20)).unwrap_or(u32::MAX));
        let pause = doubled.min(self.longest);
        let mut random = [0; 1];
        // Without randomness they come back at once.
        let _even = getrandom::fill(&mut random);
        let [random] = random;
        let eighth = pause.checked_div(8).unwrap_or_default();
        pause.saturating_add(eighth.saturating_mul(u32::from(random)).checked_div(255).unwrap_or_default())
    }
}

/// One kind of errand for one instance: whether it is under way, and when it is due again.
#[derive(Clone, Copy)]
struct Errand {
    due: Option<Instant>,
    under_way: bool,
    failures: u32,
    /// How many times it was run, with whatever success.
    rounds: u64,
}

impl Errand {
    const fn none() -> Self {
        Self { due: None, under_way: false, failures: 0, rounds: 0 }
    }

    fn now() -> Self {
        Self { due: Some(Instant::now()), ..Self::none() }
    }

    fn is_due(&self, now: Instant) -> bool {
        !self.under_way && self.due.is_some_and(|due| due <= now)
    }

    fn call(&mut self) {
        self.due = Some(Instant::now());
        self.failures = 0;
    }

    /// It was run and is due again after a pause, or is not.
    fn done(&mut self, pause: Option<Duration>) {
        self.under_way = false;
        self.rounds = self.rounds.wrapping_add(1);
        self.failures = 0;
        self.due = pause.and_then(|pause| Instant::now().checked_add(pause));
    }

    fn failed(&mut self, backoff: Backoff) {
        let failures = self.failures;
        self.done(Some(backoff.pause(failures)));
        self.failures = failures.saturating_add(1);
    }
}

/// An instance whose source lock is engaged.
struct Locked {
    /// Asks what became of it.
    ask: Errand,
    /// Calls the migration off, since the machine runs here.
    give_up: Errand,
    /// What kept it last, so that the log has it once.
    trouble: Option<String>,
    /// The address of the peer that knew of it last.
    known_at: Option<String>,
}

impl Locked {
    fn new() -> Self {
        Self { ask: Errand::now(), give_up: Errand::none(), trouble: None, known_at: None }
    }
}

/// A machine that migrates.
struct Search {
    errand: Errand,
    /// As in [`Locked`].
    trouble: Option<String>,
}

impl Search {
    fn new() -> Self {
        Self { errand: Errand::none(), trouble: None }
    }
}

#[derive(Default)]
struct Desk {
    closed: bool,
    locked: BTreeMap<u32, Locked>,
    /// Machines that migrate, until they are locked or the migration is over.
    searches: BTreeMap<u32, Search>,
    workers: usize,
    /// The connections to peers, to be hung up at the end.
    calls: BTreeMap<u64, TcpStream>,
    next_call: u64,
}

/// What one thread does.
#[derive(Clone, Copy, Debug)]
enum Task {
    Search(u32),
    GiveUp(u32),
    Ask(u32, Duration),
}

impl Desk {
    /// The next task, marked as under way: first what a machine waits for.
    fn next_task(&mut self, now: Instant) -> Option<Task> {
        if self.workers >= MAX_WORKERS {
            return None;
        }
        if let Some((&instance, search)) =
            self.searches.iter_mut().find(|(_, search)| search.errand.is_due(now))
        {
            search.errand.under_way = true;
            return Some(Task::Search(instance));
        }
        if let Some((&instance, locked)) = self.locked.iter_mut().find(|(_, l)| l.give_up.is_due(now)) {
            locked.give_up.under_way = true;
            return Some(Task::GiveUp(instance));
        }
        let asking = self.locked.values().filter(|l| l.ask.under_way).count();
        if asking >= MAX_WAITING {
            return None;
        }
        let wait = if self.locked.len() <= MAX_WAITING { LONG_POLL } else { Duration::ZERO };
        // The one that is due longest, so that each gets its turn.
        let due = self.locked.iter_mut().filter(|(_, l)| l.ask.is_due(now));
        let (&instance, locked) = due.min_by_key(|(_, l)| l.ask.due)?;
        locked.ask.under_way = true;
        Some(Task::Ask(instance, wait))
    }

    /// When there is something to do next, if nothing happens before.
    fn next_due(&self) -> Option<Instant> {
        let locked = self.locked.values().flat_map(|l| [&l.ask, &l.give_up]);
        let all = self.searches.values().map(|search| &search.errand).chain(locked);
        all.filter(|errand| !errand.under_way).filter_map(|errand| errand.due).min()
    }
}

/// The courier; ends with [`Self::stop`].
pub struct Courier {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What its threads share.
struct Shared {
    tree: Weak<Tree>,
    dialer: Dialer,
    trust: Arc<dyn Trust>,
    desk: Mutex<Desk>,
    /// The desk has changed.
    changed: Condvar,
}

impl Courier {
    /// Starts, beginning with the instances that are source-locked now.
    ///
    /// # Errors
    /// When no thread can be made.
    pub fn start(tree: &Arc<Tree>, dialer: Dialer, trust: Arc<dyn Trust>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            tree: Arc::downgrade(tree),
            dialer,
            trust,
            desk: Mutex::default(),
            changed: Condvar::new(),
        });
        let thread = std::thread::Builder::new().name("link courier".into()).spawn({
            let shared = shared.clone();
            move || {
                shared.look_at_all();
                shared.run();
            }
        })?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Notes what happened to an instance. Takes no time: the threads of instances and machines call it.
    pub fn on_event(&self, event: &TreeEvent) {
        match event {
            TreeEvent::Created(_) | TreeEvent::Moved(_) => {
                if let TreeEvent::Moved(instance) = event {
                    self.shared.look_at(instance);
                }
            }
            TreeEvent::Deleted(instance) => {
                let mut desk = self.shared.desk();
                desk.locked.remove(&instance.handle());
                desk.searches.remove(&instance.handle());
            }
            TreeEvent::Resumed(instance) => self.shared.call_off(instance),
            TreeEvent::Migrating(instance, begun) => self.shared.migrating(instance, *begun),
        }
    }

    /// Ends. Threads that still talk to a peer are waited for, but not for long: what they were about is asked anew after the next start.
    pub fn stop(&self) {
        {
            let mut desk = self.shared.desk();
            desk.closed = true;
            for socket in desk.calls.values() {
                let _gone = socket.shutdown(Shutdown::Both);
            }
        }
        self.shared.changed.notify_all();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _panicked = thread.join();
        }
        let now = Instant::now();
        let until = now.checked_add(END_WAIT).unwrap_or(now);
        let mut desk = self.shared.desk();
        while desk.workers > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            desk = self.shared.wait(desk, left);
        }
    }
}

impl TicketFinder for Courier {
    fn await_ticket(&self, instance: &Instance, patience: Duration) {
        self.shared.await_ticket(instance, patience);
    }
}

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, desk: MutexGuard<'a, Desk>, most: Duration) -> MutexGuard<'a, Desk> {
        self.changed.wait_timeout(desk, most).unwrap_or_else(PoisonError::into_inner).0
    }

    /// The state of a thousand instances takes a while to read, for which nobody waits.
    fn look_at_all(&self) {
        let Some(tree) = self.tree.upgrade() else { return };
        for instance in tree.instances() {
            if self.desk().closed {
                return;
            }
            self.look_at(&instance);
        }
    }

    /// Asks about an instance from now on if its source lock is engaged, and not any more if it is not.
    fn look_at(&self, instance: &Instance) {
        let locked = instance.stored_state().is_some_and(InstanceState::is_source_locked);
        let mut desk = self.desk();
        if locked {
            desk.searches.remove(&instance.handle());
            desk.locked.entry(instance.handle()).or_insert_with(Locked::new);
        } else {
            desk.locked.remove(&instance.handle());
        }
        drop(desk);
        self.changed.notify_all();
    }

    /// The machine of a source-locked instance runs.
    fn call_off(&self, instance: &Instance) {
        let mut desk = self.desk();
        let locked = desk.locked.entry(instance.handle()).or_insert_with(Locked::new);
        // A machine calls again and again; the first call counts, and then the pace of the attempts.
        if locked.give_up.due.is_none() && !locked.give_up.under_way {
            about!(
                info,
                instance,
                "instance {}: its machine runs here again; the destination is asked to give the migration up",
                instance.name()
            );
            locked.give_up.call();
            drop(desk);
            self.changed.notify_all();
        }
    }

    fn migrating(&self, instance: &Instance, begun: bool) {
        let mut desk = self.desk();
        if begun {
            desk.searches.entry(instance.handle()).or_insert_with(Search::new).errand.call();
        } else {
            desk.searches.remove(&instance.handle());
        }
        drop(desk);
        self.changed.notify_all();
    }

    fn await_ticket(&self, instance: &Instance, patience: Duration) {
        if instance.stored_state() != Some(InstanceState::Live) {
            return;
        }
        let armed = instance.armed();
        let now = Instant::now();
        let until = now.checked_add(patience).unwrap_or(now);
        let mut desk = self.desk();
        let errand = &mut desk.searches.entry(instance.handle()).or_insert_with(Search::new).errand;
        let looked_for = errand.under_way || errand.due.is_some();
        // A ticket is there; and if the link found it, nobody looks for a better one.
        if armed.is_some_and(|flags| !flags.automatic() || !looked_for) {
            return;
        }
        let rounds = errand.rounds;
        if !errand.under_way {
            errand.call();
            self.changed.notify_all();
        }
        loop {
            let search = desk.searches.get(&instance.handle());
            let left = until.saturating_duration_since(Instant::now());
            if search.is_none_or(|s| s.errand.rounds != rounds) || left.is_zero() || desk.closed {
                return;
            }
            desk = self.wait(desk, left);
        }
    }

    /// Until the desk is closed.
    fn run(self: Arc<Self>) {
        let mut desk = self.desk();
        while !desk.closed {
            let now = Instant::now();
            if let Some(task) = desk.next_task(now) {
                desk.workers = desk.workers.saturating_add(1);
                drop(desk);
                self.clone().send_out(task);
                desk = self.desk();
                continue;
            }
            let due = desk.next_due().filter(|_| desk.workers < MAX_WORKERS);
            // With all hands out, or as many as may wait, the next one back wakes this.
            let most = due.map_or(LONG_POLL, |due| due.saturating_duration_since(now));
            desk = self.wait(desk, most.max(Duration::from_millis(5)));
        }
    }

    fn send_out(self: Arc<Self>, task: Task) {
        let shared = self.clone();
        let spawned = std::thread::Builder::new().name("link errand".into()).spawn(move || {
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| shared.carry_out(task)));
            if done.is_err() {
                log::error!("an errand to a peer ended in a panic");
                shared.failed(task, "the errand ended in a panic".into());
            }
            shared.back();
        });
        if let Err(error) = spawned {
            self.failed(task, format!("no thread: {error}"));
            self.back();
        }
    }

    fn back(&self) {
        let mut desk = self.desk();
        desk.workers = desk.workers.saturating_sub(1);
        drop(desk);
        self.changed.notify_all();
    }

    /// The task comes again, after a pause. The log has what is in the way, when it is something new.
    fn failed(&self, task: Task, why: String) {
        let mut desk = self.desk();
        let trouble = match task {
            Task::Search(instance) => desk.searches.get_mut(&instance).map(|search| {
                search.errand.failed(SEARCHING);
                &mut search.trouble
            }),
            Task::GiveUp(instance) => desk.locked.get_mut(&instance).map(|locked| {
                locked.give_up.failed(GIVING_UP);
                &mut locked.trouble
            }),
            Task::Ask(instance, _) => desk.locked.get_mut(&instance).map(|locked| {
                locked.ask.failed(ASKING);
                &mut locked.trouble
            }),
        };
        if let Some(trouble) = trouble
            && trouble.as_ref() != Some(&why)
        {
            log::warn!("{why}");
            *trouble = Some(why);
        }
        drop(desk);
        self.changed.notify_all();
    }
}

/// How the link arms: a ticket of a later migration takes the place of this one.
const fn automatic(flags: LockFlags) -> LockFlags {
    flags.with(LockFlags::AUTOMATIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_limit() {
        for backoff in [ASKING, GIVING_UP, SEARCHING] {
            for failures in [0, 1, 5, 19, 31, 32, u32::MAX] {
                let pause = backoff.pause(failures);
                assert!(
                    pause >= backoff.first && pause <= backoff.longest + backoff.longest / 8,
                    "{failures}: {pause:?}"
                );
            }
            assert!(backoff.pause(0) <= backoff.first + backoff.first / 8);
            assert!(backoff.pause(30) >= backoff.longest);
        }
    }

    #[test]
    fn what_a_machine_waits_for_comes_before_what_nobody_waits_for() {
        let mut desk = Desk::default();
        let now = Instant::now() + Duration::from_millis(1);
        for instance in 0..3 {
            desk.locked.insert(instance, Locked::new());
        }
        desk.locked.get_mut(&1).unwrap().give_up.call();
        desk.searches.insert(9, Search { errand: Errand::now(), trouble: None });
        assert!(matches!(desk.next_task(now), Some(Task::Search(9))));
        assert!(matches!(desk.next_task(now), Some(Task::GiveUp(1))));
        for _ in 0..3 {
            assert!(matches!(desk.next_task(now), Some(Task::Ask(_, LONG_POLL))));
        }
        assert!(desk.next_task(now).is_none());
        assert!(desk.next_due().is_none());
    }

    #[test]
    fn many_instances_are_asked_about_in_turn_without_waiting_for_each() {
        let mut desk = Desk::default();
        for instance in 0..40 {
            desk.locked.insert(instance, Locked::new());
        }
        let now = Instant::now() + Duration::from_millis(1);
        let mut asked = Vec::new();
        while asked.len() < 40 {
            let Some(Task::Ask(instance, wait)) = desk.next_task(now) else {
                // As many as may be are under way; they come back.
                assert_eq!(desk.locked.values().filter(|l| l.ask.under_way).count(), MAX_WAITING);
                for locked in desk.locked.values_mut().filter(|l| l.ask.under_way) {
                    locked.ask = Errand { due: Some(now + SHORT_POLL), ..Errand::none() };
                }
                continue;
            };
            assert_eq!(wait, Duration::ZERO);
            asked.push(instance);
        }
        asked.sort_unstable();
        assert_eq!(asked, (0..40).collect::<Vec<u32>>());
        desk.workers = MAX_WORKERS;
        assert!(desk.next_task(now).is_none());
    }
}
