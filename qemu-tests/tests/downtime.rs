//! What the TPM adds to the time in which a migrating machine stands still. A measurement: `scripts/bench-downtime`.

use qemu_tests::qmp::Migration;
use qemu_tests::{Daemon, Error, Guest, GuestBuilder, Hosts, Possessions, Result, Setup, guest_test, same};
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};

const EVENT: &str = "90090000000000000000000000000000000000000000000000000000000000f5";
const WITH: &str = "with";
const WITHOUT: &str = "without";
const TRIPS: usize = 15;

/// The steps on one host during which the machine stands still.
const SOURCE: &[&str] = &["lock", "get-key", "get-data"];
const DESTINATION: &[&str] = &["set-key", "set-data", "unlock"];

/// The steps of the last migration on one host: milliseconds from the first to the last, and how many of them vtpmd computed and wrote.
fn steps(daemon: &Daemon, of_it: &[&str]) -> Result<(f64, f64)> {
    let status: Value = daemon.control_json(&["migrate", "status", WITH])?;
    let wrong = || Error::Format { what: "migrate status".into(), text: status.to_string() };
    let all = status.get("steps").and_then(Value::as_array).ok_or_else(wrong)?;
    let name =
        |step: &&Value| step.get("step").and_then(Value::as_str).is_some_and(|name| of_it.contains(&name));
    let field = |step: &Value, name: &str| step.get(name).and_then(Value::as_f64).unwrap_or_default();
    let steps: Vec<&Value> = all.iter().filter(name).collect();
    same("steps", &steps.len(), &of_it.len())?;
    let (Some(first), Some(last)) = (steps.first(), steps.last()) else { return Err(wrong()) };
    let span = field(last, "at_ms") + field(last, "span_us") / 1e3 - field(first, "at_ms");
    Ok((span, steps.iter().map(|step| field(step, "spent_us")).sum::<f64>() / 1e3))
}

fn moved(
    setup: &Setup,
    scratch: &Path,
    guest: &mut Guest,
    arriving: &GuestBuilder,
    trip: usize,
) -> Result<(Migration, Guest)> {
    let wire = scratch.join(format!("wire-{trip}"));
    let mut arrived = arriving.clone().incoming(&wire).start(setup, scratch)?;
    arrived.qmp().set_migration_capabilities(&[("return-path", true)])?;
    guest.qmp().set_migration_capabilities(&[("return-path", true)])?;
    guest.qmp().migrate(&wire)?;
    let migration = guest.qmp().wait_migration("completed", Duration::from_secs(120))?;
    same("migration", &migration.status.as_str(), &"completed")?;
    arrived.wait_ready()?;
    Ok((migration, arrived))
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[test]
#[ignore = "a measurement: scripts/bench-downtime"]
fn what_the_tpm_adds() {
    guest_test("downtime", |setup, scratch| {
        let mut hosts = Hosts::start_linked(setup, scratch)?;
        let socket = hosts.source.create(WITH)?;
        let mut with = GuestBuilder::new(setup, WITH).tpm(&socket).boot(setup, scratch)?;
        let mut without = GuestBuilder::new(setup, WITHOUT).boot(setup, scratch)?;
        Possessions::make(&mut with, EVENT, "data that travels")?;
        let (mut down_with, mut down_without, mut source, mut destination) = (vec![], vec![], vec![], vec![]);
        let (mut source_spent, mut destination_spent) = (vec![], vec![]);
        for trip in 0..TRIPS {
            let (plain, arrived) = moved(
                setup,
                scratch,
                &mut without,
                &GuestBuilder::new(setup, &format!("{WITHOUT}-{trip}")),
                trip * 2,
            )?;
            without = arrived;
            hosts.ticket(WITH)?;
            let arriving =
                GuestBuilder::new(setup, &format!("{WITH}-{trip}")).tpm(&hosts.destination.socket(WITH));
            let (migration, arrived) = moved(setup, scratch, &mut with, &arriving, trip * 2 + 1)?;
            with = arrived;
            with.tpm("80010000000c0000017b0008")?;
            let gone = Instant::now();
            while hosts.source.control(&["list"])?.contains(WITH) && gone.elapsed() < Duration::from_secs(10)
            {
            }
            down_with.push(migration.downtime.unwrap_or_default() as f64);
            down_without.push(plain.downtime.unwrap_or_default() as f64);
            let (at, spent) = steps(&hosts.source, SOURCE)?;
            source.push(at);
            source_spent.push(spent);
            let (at, spent) = steps(&hosts.destination, DESTINATION)?;
            destination.push(at);
            destination_spent.push(spent);
            if trip == 0 {
                println!("{}", hosts.source.control(&["migrate", "status", WITH])?);
                println!("{}", hosts.destination.control(&["migrate", "status", WITH])?);
            }
            hosts.turn();
        }
        println!(
            "median of {TRIPS}, ms: QEMU's downtime {:.0} without a TPM, {:.0} with one; vtpmd from lock to the end of the stream {:.2} \
             (computing and writing {:.2}), from its first byte to the unlocked instance {:.2} ({:.2})",
            median(&mut down_without),
            median(&mut down_with),
            median(&mut source),
            median(&mut source_spent),
            median(&mut destination),
            median(&mut destination_spent),
        );
        Ok(())
    });
}
