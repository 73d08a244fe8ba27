//! Two hosts, a guest between them, and what can be seen of both sides at any moment.

use crate::gate::Gate;
use qemu_tests::process::{Process, wait_until};
use qemu_tests::qmp::Migration;
use qemu_tests::{
    Daemon, Error, Guest, GuestBuilder, Hosts, Possessions, Result, Setup, Workload, ensure, same,
};
use serde_json::Value;
use std::fmt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// The instance of most rows.
pub const NAME: &str = "traveller";
/// How long anything may take on two busy cores under TCG.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Behind the header, the key and the beginning of the first piece, and before the end.
pub const MIDDLE: usize = 1500;

const EVENT: &str = "a11c0000000000000000000000000000000000000000000000000000000000f4";
const RETURN_PATH: &str = "return-path";
const PAUSE: &str = "pause-before-switchover";

/// The hosts and where everything is.
pub struct Field<'a> {
    pub setup: &'a Setup,
    pub scratch: &'a Path,
    pub hosts: Hosts,
    made: u32,
}

/// A machine that waits for a migration, and the socket at which it does.
pub struct Arriving {
    pub guest: Guest,
    pub end: PathBuf,
}

impl<'a> Field<'a> {
    pub fn new(setup: &'a Setup, scratch: &'a Path) -> Result<Self> {
        Ok(Self { setup, scratch, hosts: Hosts::start(setup, scratch)?, made: 0 })
    }

    /// A path that nothing has been at before.
    pub fn path(&mut self, what: &str) -> PathBuf {
        self.made = self.made.saturating_add(1);
        self.scratch.join(format!("{what}-{}", self.made))
    }

    /// A gate before an instance of the source.
    pub fn gate_at_source(&mut self) -> Result<Gate> {
        let socket = self.path("gate");
        Gate::new(&socket, &self.hosts.source.socket(NAME))
    }

    /// A gate before an instance of the destination.
    pub fn gate_at_destination(&mut self) -> Result<Gate> {
        let socket = self.path("gate");
        Gate::new(&socket, &self.hosts.destination.socket(NAME))
    }

    /// A machine that has booted on the source, with things in its TPM and a loop of commands.
    pub fn loaded_guest(&mut self, tpm: &Path) -> Result<(Guest, Possessions, Workload)> {
        let mut guest = GuestBuilder::new(self.setup, NAME).tpm(tpm).boot(self.setup, self.scratch)?;
        let possessions = Possessions::make(&mut guest, EVENT, "data in the matrix")?;
        let load = Workload::start(&mut guest, "load")?;
        Ok((guest, possessions, load))
    }

    /// A machine at the destination whose TPM is served at this socket.
    pub fn arriving(&mut self, tpm: &Path) -> Result<Arriving> {
        self.arriving_with(tpm, |builder| builder)
    }

    /// As [`Self::arriving`], but it stays stopped when it has arrived.
    pub fn arriving_paused(&mut self, tpm: &Path) -> Result<Arriving> {
        self.arriving_with(tpm, GuestBuilder::paused)
    }

    pub fn arriving_with(
        &mut self,
        tpm: &Path,
        how: impl FnOnce(GuestBuilder) -> GuestBuilder,
    ) -> Result<Arriving> {
        let end = self.path("end");
        let builder = GuestBuilder::new(self.setup, &format!("{NAME}-{}", self.made)).tpm(tpm).incoming(&end);
        let mut guest = how(builder).start(self.setup, self.scratch)?;
        guest.qmp().set_migration_capabilities(&[(RETURN_PATH, true)])?;
        Ok(Arriving { guest, end })
    }

    /// What can be seen now. That both sides would execute a command is an error at any moment.
    pub fn look(
        &mut self,
        instance: &str,
        source: Option<&mut Guest>,
        destination: Option<&mut Guest>,
    ) -> Result<Sight> {
        let sight = Sight {
            source: Side {
                machine: source.map_or_else(ended, machine),
                tpm: tpm(&mut self.hosts.source, instance),
            },
            destination: Side {
                machine: destination.map_or_else(ended, machine),
                tpm: tpm(&mut self.hosts.destination, instance),
            },
        };
        let both = sight.source.executes() && sight.destination.executes();
        ensure(!both, format!("two live copies: {sight}"))?;
        Ok(sight)
    }

    /// The destination gives the migration up and tells its receipt.
    pub fn void_receipt(&self, instance: &str) -> Result<String> {
        receipt(&self.hosts.destination, "abort", instance)
    }

    /// The destination says that the instance lives there.
    pub fn live_receipt(&self, instance: &str) -> Result<String> {
        receipt(&self.hosts.destination, "commit", instance)
    }

    /// Waits for a migration that succeeds; the guest, on the destination, is served there, and the source is told.
    pub fn settle_there(
        &mut self,
        row: &mut Row,
        guest: &mut Guest,
        arriving: &mut Guest,
        load: &Workload,
    ) -> Result<()> {
        let migration = ends(guest, "completed")?;
        row.note(figures(&migration));
        row.ran_on(guest, Some(arriving))?;
        row.served("destination", arriving, load)?;
        let sight = self.look(NAME, Some(guest), Some(arriving))?;
        sight.is(("postmigrate", "running"), ("exported", "live"))?;
        row.note(sight.to_string());
        let settled = Instant::now();
        self.hosts.settle(NAME)?;
        row.settled("`migrate commit` on the destination, then with its receipt on the source", settled);
        let sight = self.look(NAME, Some(guest), Some(arriving))?;
        sight.is(("postmigrate", "running"), ("none", "live"))
    }

    /// The source is locked and its loop waits, until both sides are told that the migration is given up.
    pub fn settle_back(&mut self, row: &mut Row, guest: &mut Guest, load: &Workload) -> Result<()> {
        stands_still(guest, load)?;
        let given_up = Instant::now();
        self.hosts.give_up(NAME)?;
        row.settled("`migrate abort` on the destination, then with its receipt on the source", given_up);
        row.served("source", guest, load)?;
        let sight = self.look(NAME, Some(guest), None)?;
        same("the source's machine", &sight.source.machine.as_str(), &"running")?;
        same("the source's TPM", &sight.source.tpm.as_str(), &"live")?;
        same("the destination's TPM", &sight.destination.tpm.as_str(), &"none")
    }
}

fn ended() -> String {
    "ended".into()
}

fn receipt(daemon: &Daemon, what: &str, instance: &str) -> Result<String> {
    let told: Value = daemon.control_json(&["migrate", what, instance])?;
    let receipt = told.get("receipt").and_then(Value::as_str).map(str::to_owned);
    receipt.ok_or_else(|| Error::Format { what: "a receipt".into(), text: told.to_string() })
}

/// The run state of a machine.
pub fn machine(guest: &mut Guest) -> String {
    if !matches!(guest.process().and_then(Process::ended), Ok(None)) {
        return ended();
    }
    guest.qmp().run_state().unwrap_or_else(|_| ended())
}

/// Where an instance stands, by `vtpmctl info`.
fn tpm(daemon: &mut Daemon, instance: &str) -> String {
    if daemon.process().is_none() {
        return "daemon down".into();
    }
    match daemon.control_json::<Value>(&["info", instance]) {
        Ok(info) => info.get("state").and_then(Value::as_str).unwrap_or("unknown").to_owned(),
        Err(Error::Status { output, .. }) if output.contains("there is no instance") => "none".into(),
        Err(error) => error.chain(),
    }
}

/// One side.
pub struct Side {
    /// QEMU's run state, or `ended`.
    pub machine: String,
    /// The state of the instance, or `none`.
    pub tpm: String,
}

impl Side {
    /// Whether an ordinary command would be executed.
    fn executes(&self) -> bool {
        matches!(self.tpm.as_str(), "live" | "imported")
    }
}

/// Both sides at one moment.
pub struct Sight {
    pub source: Side,
    pub destination: Side,
}

impl Sight {
    /// Fails unless these are the run states and these the states of the instance, source first.
    pub fn is(&self, machines: (&str, &str), tpms: (&str, &str)) -> Result<()> {
        let found = (self.source.machine.as_str(), self.destination.machine.as_str());
        same("the machines", &found, &machines)?;
        same("the TPMs", &(self.source.tpm.as_str(), self.destination.tpm.as_str()), &tpms)
    }
}

impl fmt::Display for Sight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (source, destination) = (&self.source, &self.destination);
        write!(f, "source {} with TPM {}, ", source.machine, source.tpm)?;
        write!(f, "destination {} with TPM {}", destination.machine, destination.tpm)
    }
}

/// Starts to migrate, with the return path.
pub fn depart(guest: &mut Guest, end: &Path) -> Result<()> {
    depart_with(guest, end, true)
}

/// Starts to migrate.
pub fn depart_with(guest: &mut Guest, end: &Path, return_path: bool) -> Result<()> {
    guest.qmp().forget_events()?;
    guest.qmp().set_migration_capabilities(&[(RETURN_PATH, return_path), (PAUSE, false)])?;
    guest.qmp().migrate(end)
}

/// Starts to migrate and stops before the machine's devices are saved.
pub fn depart_and_pause(guest: &mut Guest, arriving: &mut Arriving) -> Result<Migration> {
    guest.qmp().forget_events()?;
    for machine in [&mut *guest, &mut arriving.guest] {
        machine.qmp().set_migration_capabilities(&[(RETURN_PATH, true), (PAUSE, true)])?;
    }
    guest.qmp().migrate(&arriving.end)?;
    guest.qmp().wait_migration("pre-switchover", PATIENCE)
}

/// Waits for the end of the migration, which must be this one.
pub fn ends(guest: &mut Guest, status: &str) -> Result<Migration> {
    let migration = guest.qmp().wait_migration(status, PATIENCE)?;
    same("the migration", &migration.status.as_str(), &status)?;
    Ok(migration)
}

/// Waits for the end of a migration that was cancelled after the devices were saved. QEMU breaks the return path off before it says
/// that it was cancelled, so that its own thread may call it failed.
pub fn ends_cancelled(row: &mut Row, guest: &mut Guest) -> Result<()> {
    let migration = guest.qmp().wait_migration("cancelled", PATIENCE)?;
    ensure(migration.status != "completed", "the migration completed although it was cancelled")?;
    row.note(migration.status);
    Ok(())
}

/// Waits until the machine is in this run state; `ended` is one.
pub fn becomes(guest: &mut Guest, state: &str) -> Result<()> {
    let name = guest.name().to_owned();
    wait_until(&format!("{name} was not {state}"), PATIENCE, || Ok((machine(guest) == state).then_some(())))
}

/// The loop in this guest makes no progress: its TPM is locked.
pub fn stands_still(guest: &mut Guest, load: &Workload) -> Result<()> {
    let before = load.rounds(guest)?;
    thread::sleep(Duration::from_millis(300));
    let after = load.rounds(guest)?;
    same(&format!("rounds of the loop in {}, whose TPM is locked", guest.name()), &after, &before)
}

/// The host's clock since 1970, as QEMU's events have it.
pub fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// What was seen in one row of the matrix; printed at its end.
pub struct Row {
    name: &'static str,
    since: Duration,
    settled: Option<Instant>,
    facts: Vec<String>,
}

impl Row {
    pub fn new(name: &'static str) -> Self {
        Self { name, since: now(), settled: None, facts: Vec::new() }
    }

    pub fn note(&mut self, fact: impl Into<String>) {
        self.facts.push(fact.into());
    }

    /// From here on it is counted how long the guest is not served.
    pub fn count_from(&mut self, moment: Duration) {
        self.since = moment;
    }

    /// From the stop of the source's machine on. `by` is the machine that ran on then, and when it ran is noted.
    pub fn ran_on(&mut self, source: &mut Guest, by: Option<&mut Guest>) -> Result<()> {
        let stopped = source.qmp().wait_moment("STOP", PATIENCE)?;
        let resumed = match by {
            Some(by) => by.qmp().wait_moment("RESUME", PATIENCE)?,
            None => source.qmp().wait_moment("RESUME", PATIENCE)?,
        };
        self.since = stopped;
        self.note(format!("no machine ran for {}", millis(resumed.saturating_sub(stopped))));
        Ok(())
    }

    /// How it was settled, in so long.
    pub fn settled(&mut self, how: &str, since: Instant) {
        self.note(format!("settled in {} by {how}", millis(since.elapsed())));
        self.settled = Some(Instant::now());
    }

    /// The loop in this guest goes on; how long after [`Self::count_from`] that was seen. A question to the guest takes tens of
    /// milliseconds itself, and the driver of a guest whose TPM was locked asks again at intervals that double from 20 ms on.
    pub fn served(&mut self, side: &str, guest: &mut Guest, load: &Workload) -> Result<()> {
        load.wait_rounds(guest, 1)?;
        let after = millis(now().saturating_sub(self.since));
        let settled = self.settled.map_or_else(String::new, |settled| {
            format!(", {} after it was settled", millis(settled.elapsed()))
        });
        self.note(format!("served: the {side}, seen after {after}{settled}"));
        load.wait_rounds(guest, 5)
    }

    /// Prints it.
    pub fn done(self) {
        println!("matrix | {} | {}", self.name, self.facts.join(" | "));
    }
}

/// Runs one row; an error tells which it was.
pub fn row(name: &'static str, body: impl FnOnce(&mut Row) -> Result<()>) -> Result<()> {
    let mut row = Row::new(name);
    match body(&mut row) {
        Ok(()) => {
            row.done();
            Ok(())
        }
        Err(error) => {
            Err(Error::Differs(format!("row {name:?}: {} (so far: {:?})", error.chain(), row.facts)))
        }
    }
}

fn millis(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}

/// What QEMU says of a migration that succeeded.
pub fn figures(migration: &Migration) -> String {
    let of = |value: Option<u64>| value.map_or_else(|| "?".into(), |value| value.to_string());
    format!("{}: downtime {} ms of {} ms", migration.status, of(migration.downtime), of(migration.total_time))
}

/// Ends the loop: everything took effect exactly once, over all rows.
pub fn end_of_load(load: Workload, guest: &mut Guest, rows: &str) -> Result<()> {
    let summary = load.stop(guest)?;
    println!(
        "matrix | {rows} | {} rounds, {} commands, each done exactly once; {} answered TPM_RC_RETRY at first; the \
         longest took {} ms of the guest's time",
        summary.rounds,
        summary.commands,
        summary.retried,
        summary.latency_us.max / 1000
    );
    summary.exactly_once_in_the_end()
}
