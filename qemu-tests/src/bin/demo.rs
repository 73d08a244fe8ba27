//! The main job, shown: a guest keeps its TPM across a live migration.
//!
//! `scripts/demo` makes everything that this needs and runs it. It prints each step with the time it took, and ends
//! with an error as soon as something is not as it should be.

use qemu_tests::process::tail;
use qemu_tests::relay::{Fate, Tamper};
use qemu_tests::{
    Daemon, Error, Guest, GuestBuilder, Hosts, Possessions, Result, Setup, Workload, ensure, same,
};
use serde::Deserialize;
use std::fs;
use std::io::{Write, stdout};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;
use tempfile::TempDir;

const NAME: &str = "demo";
const EVENT: &str = "d3300000000000000000000000000000000000000000000000000000000000e7";
const DATA: &str = "written before the migration";

/// A signature made here is verified after the migration, and the other way round.
const SIGN: &str = "cd /root; echo 'signed before the migration' >message
    tpm2_sign -Q -c 0x81000010 -g sha256 -o signature message";
const VERIFY: &str = "cd /root; tpm2_verifysignature -Q -c 0x81000010 -g sha256 -m message -s signature";

fn main() -> ExitCode {
    let setup = match Setup::from_environment() {
        Ok(Some(setup)) => setup,
        Ok(None) => return complain("VTPMD_QEMU names no QEMU with our device; run scripts/demo"),
        Err(error) => return complain(&error.chain()),
    };
    // Short, because the paths of UNIX sockets are.
    let scratch = match TempDir::with_prefix("vtpmd-demo-") {
        Ok(scratch) => scratch,
        Err(error) => return complain(&format!("no temporary directory: {error}")),
    };
    let mut timeline = Timeline::new();
    match demo(&setup, scratch.path(), &mut timeline) {
        Ok(()) => {
            println!("{:7.1} s  all as it should be", timeline.started.elapsed().as_secs_f64());
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("FAILED");
            let kept = scratch.keep();
            let mut logs: Vec<_> = fs::read_dir(&kept)
                .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
                .unwrap_or_default();
            logs.retain(|path: &std::path::PathBuf| path.extension().is_some_and(|end| end == "log"));
            logs.sort();
            for log in logs {
                eprintln!("---- {}\n{}", log.display(), tail(&log));
            }
            complain(&format!("{}\nall logs are in {}", error.chain(), kept.display()))
        }
    }
}

fn complain(what: &str) -> ExitCode {
    eprintln!("demo: {what}");
    ExitCode::FAILURE
}

/// Prints the steps as they are done.
struct Timeline {
    started: Instant,
}

impl Timeline {
    fn new() -> Self {
        Self { started: Instant::now() }
    }

    fn step<T>(&mut self, what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        print!("{:7.1} s  {what:<88} ", self.started.elapsed().as_secs_f64());
        // A closed standard output is no reason to stop: the status still tells.
        let _ = stdout().flush();
        let started = Instant::now();
        let done = work()?;
        println!("{:6.2} s", started.elapsed().as_secs_f64());
        Ok(done)
    }

    fn detail(&mut self, what: &str) {
        println!("{:11}{what}", "");
    }
}

#[derive(Deserialize)]
struct Info {
    name: String,
    uuid: String,
    state: String,
    migration_id: Option<String>,
}

fn info(daemon: &Daemon) -> Result<Info> {
    daemon.control_json(&["info", NAME])
}

/// The identifier of the migration that an instance is prepared for.
fn migration_id(daemon: &Daemon) -> Result<Vec<u8>> {
    let text = info(daemon)?.migration_id.unwrap_or_default();
    match hex::decode(&text) {
        Ok(id) if id.len() == 32 => Ok(id),
        _ => Err(Error::Format { what: "migration id".into(), text }),
    }
}

fn demo(setup: &Setup, scratch: &Path, timeline: &mut Timeline) -> Result<()> {
    let mut hosts =
        timeline.step("two hosts, each a vtpmd with a state of its own", || Hosts::start(setup, scratch))?;
    let socket = timeline.step("source: vtpmctl create", || hosts.source.create(NAME))?;
    let made = info(&hosts.source)?;
    timeline.detail(&format!("instance {NAME}, UUID {}, {}", made.uuid, made.state));

    let mut guest = timeline
        .step(&format!("source: a guest boots, Debian's kernel {}", setup.kernel), || {
            GuestBuilder::new(setup, "source").tpm(&socket).boot(setup, scratch)
        })?;
    let version = guest.run(&["cat", "/sys/class/tpm/tpm0/tpm_version_major"])?;
    same("the version of the guest's TPM", &version.trim(), &"2")?;

    let mut possessions = timeline.step(
        "guest: PCR extended, NV index and counter, persistent key, secret sealed to the PCR",
        || Possessions::make(&mut guest, EVENT, DATA),
    )?;
    timeline.step("guest: everything read back, a message signed", || {
        possessions.check(&mut guest)?;
        guest.shell(SIGN)
    })?;

    let (workload, before) = timeline.step("guest: a loop of TPM commands starts, and runs on", || {
        let workload = Workload::start(&mut guest, "load")?;
        workload.wait_rounds(&mut guest, 20)?;
        let rounds = workload.rounds(&mut guest)?;
        Ok((workload, rounds))
    })?;

    timeline
        .step("destination: vtpmctl migrate prepare; source: vtpmctl migrate arm", || hosts.prepare(NAME))?;
    let id = migration_id(&hosts.destination)?;
    let attempt = timeline.step("the machine migrates live, its TPM with it", || {
        // Nothing is altered; the relay is there to record.
        let record: Tamper = Box::new(|stream| Fate::Pass(stream.to_vec()));
        let builder = GuestBuilder::new(setup, "destination");
        hosts.migrate(setup, &mut guest, builder, NAME, Some(record))
    })?;
    same("the migration", &attempt.migration.status.as_str(), &"completed")?;
    same("the source's machine", &guest.qmp().run_state()?.as_str(), &"postmigrate")?;
    let stream = attempt.stream.ok_or_else(|| Error::Differs("no state of a TPM came by".into()))?;
    timeline.detail(&format!(
        "{} ms in all, {} ms of them the guest stood still; {} bytes of TPM state, encrypted",
        attempt.migration.total_time.unwrap_or_default(),
        attempt.migration.downtime.unwrap_or_default(),
        stream.len()
    ));
    ensure(!contains(&stream, DATA.as_bytes()), "the stream carries the NV data in the clear")?;
    let mut guest = attempt.guest;

    let summary = timeline.step("destination: the loop runs on, and is asked what it saw", || {
        workload.wait_rounds(&mut guest, 20)?;
        workload.stop(&mut guest)
    })?;
    summary.exactly_once()?;
    ensure(summary.rounds > before, "the loop stood still")?;
    timeline.detail(&format!(
        "{} commands: {} failed, {} lost, {} repeated; half within {:.2} ms, the slowest {:.1} ms",
        summary.commands,
        summary.failed.len(),
        summary.lost,
        summary.repeated,
        f64::from(summary.latency_us.p50) / 1000.0,
        f64::from(summary.latency_us.max) / 1000.0,
    ));

    timeline.step("destination: PCR, NV index, counter as they were; the secret unsealed", || {
        possessions.check(&mut guest)?;
        possessions.count(&mut guest)
    })?;
    timeline.step(
        "destination: the same key verifies the old signature, and makes and verifies one",
        || {
            guest.shell(VERIFY)?;
            guest.shell(SIGN)?;
            guest.shell(VERIFY)
        },
    )?;

    timeline.step("destination: vtpmctl migrate commit; source: the same, with the receipt", || {
        hosts.settle(NAME)
    })?;
    gone(&hosts.source)?;
    timeline.detail("the source has no such instance any more");

    let recorded = Recorded { stream, uuid: made.uuid, id };
    replay(&hosts, scratch, timeline, &recorded, &mut guest, &possessions)
}

/// What went over the wire, and in which migration.
struct Recorded {
    stream: Vec<u8>,
    uuid: String,
    id: Vec<u8>,
}

/// The recorded stream is good for nothing, wherever it is offered.
fn replay(
    hosts: &Hosts,
    scratch: &Path,
    timeline: &mut Timeline,
    recorded: &Recorded,
    guest: &mut Guest,
    possessions: &Possessions,
) -> Result<()> {
    let file = |name: &str, bytes: &[u8]| {
        let path = scratch.join(name).display().to_string();
        fs::write(&path, bytes).map_err(Error::io(path.clone())).map(|()| path)
    };
    let stream = file("recorded.stream", &recorded.stream)?;

    let words = timeline
        .step("destination: the recorded stream is imported once more, and refused", || {
            refused(&hosts.destination, &stream)
        })?;
    timeline.detail(&words);
    timeline.step("destination: the guest did not notice", || possessions.check(guest))?;

    let words =
        timeline.step("source: prepared for the same instance; the recorded stream is refused", || {
            prepare(&hosts.source, &recorded.uuid, scratch, "back.ticket")?;
            refused(&hosts.source, &stream)
        })?;
    timeline.detail(&words);

    // The hardest case: the very storage key that the stream was encrypted to, and an empty instance of that UUID.
    let words = timeline.step(
        "destination: the instance deleted and prepared anew; the stream is refused",
        || {
            guest.qmp().quit()?;
            hosts.destination.control(&["delete", NAME])?;
            gone(&hosts.destination)?;
            prepare(&hosts.destination, &recorded.uuid, scratch, "again.ticket")?;
            refused(&hosts.destination, &stream)
        },
    )?;
    timeline.detail(&words);
    let words = timeline.step("destination: the same with the new migration's id written into it", || {
        let id = migration_id(&hosts.destination)?;
        let forged = replaced(&recorded.stream, &recorded.id, &id);
        ensure(forged != recorded.stream, "the stream does not carry the migration's id")?;
        refused(&hosts.destination, &file("forged.stream", &forged)?)
    })?;
    timeline.detail(&words);
    Ok(())
}

fn prepare(daemon: &Daemon, uuid: &str, scratch: &Path, ticket: &str) -> Result<()> {
    let ticket = scratch.join(ticket).display().to_string();
    daemon.control(&["migrate", "prepare", NAME, "--uuid", uuid, "--ticket", &ticket]).map(drop)
}

/// The import is refused, and leaves the state of the instance as it was. Returns what `vtpmctl` says.
fn refused(daemon: &Daemon, recorded: &str) -> Result<String> {
    let before = info(daemon)?;
    let words = match daemon.control(&["import", NAME, "--input", recorded]) {
        Ok(_) => return Err(Error::Differs("the recorded stream was imported a second time".into())),
        Err(Error::Status { status: 1, output, .. }) => output,
        Err(error) => return Err(error),
    };
    same("the state after the refused import", &info(daemon)?.state, &before.state)?;
    Ok(words)
}

fn gone(daemon: &Daemon) -> Result<()> {
    let instances: Vec<Info> = daemon.control_json(&["list"])?;
    ensure(instances.iter().all(|instance| instance.name != NAME), format!("{NAME} is still there"))
}

/// The bytes with every `from` in them replaced by `to`.
fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = bytes;
    while let Some((first, behind)) = rest.split_first() {
        if let Some(behind) = rest.strip_prefix(from) {
            out.extend(to);
            rest = behind;
        } else {
            out.push(*first);
            rest = behind;
        }
    }
    out
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
