//! Live migration between two daemons with a peer link: nothing is done by hand on the source.

use qemu_tests::relay::{Fate, Tamper};
use qemu_tests::{
    Daemon, Error, Guest, GuestBuilder, Hosts, Possessions, Result, Workload, ensure, guest_test, same,
};
use std::time::{Duration, Instant};

const EVENT: &str = "90090000000000000000000000000000000000000000000000000000000000f3";
const NAME: &str = "traveller";
/// TPM2_GetRandom of eight bytes.
const GET_RANDOM: &str = "80010000000c0000017b0008";
const PATIENCE: Duration = Duration::from_secs(20);

fn has_instance(daemon: &Daemon, name: &str) -> Result<bool> {
    Ok(daemon.control(&["list"])?.lines().any(|line| line.split_whitespace().any(|word| word == name)))
}

/// Waits until it is so, and returns how long that took.
fn time_until(what: &str, mut reached: impl FnMut() -> Result<bool>) -> Result<Duration> {
    let start = Instant::now();
    while !reached()? {
        if start.elapsed() > PATIENCE {
            return Err(Error::Timeout { what: format!("it is not {what}"), after: PATIENCE });
        }
    }
    Ok(start.elapsed())
}

#[test]
fn an_ordinary_migration_takes_no_step_on_the_source() {
    guest_test("linked", |setup, scratch| {
        let mut hosts = Hosts::start_linked(setup, scratch)?;
        let socket = hosts.source.create(NAME)?;
        let mut guest = GuestBuilder::new(setup, NAME).tpm(&socket).boot(setup, scratch)?;
        let mut possessions = Possessions::make(&mut guest, EVENT, "data that travels")?;
        for trip in 1..=2 {
            let workload = Workload::start(&mut guest, "load")?;
            // The only step: a slot at the destination.
            hosts.ticket(NAME)?;
            let arriving = GuestBuilder::new(setup, &format!("{NAME}-{trip}"));
            let attempt = hosts.migrate(setup, &mut guest, arriving, NAME, None)?;
            same("migration", &attempt.migration.status.as_str(), &"completed")?;
            same("run state of the source", &guest.qmp().run_state()?.as_str(), &"postmigrate")?;
            guest = attempt.guest;
            workload.wait_rounds(&mut guest, 10)?;
            // The receipt came with the first command; the source keeps nothing.
            let gone = time_until("gone at the source", || Ok(!has_instance(&hosts.source, NAME)?))?;
            let summary = workload.stop(&mut guest)?;
            println!("trip {trip}: {:?}, {:?}; looked for {gone:?}", attempt.migration, summary.latency_us);
            summary.exactly_once()?;
            possessions.check(&mut guest)?;
            possessions.count(&mut guest)?;
            hosts.turn();
        }
        Ok(())
    });
}

#[test]
fn a_machine_that_falls_back_is_served_again_without_a_step() {
    guest_test("linked-back", |setup, scratch| {
        let mut hosts = Hosts::start_linked(setup, scratch)?;
        let socket = hosts.source.create(NAME)?;
        let mut guest = GuestBuilder::new(setup, NAME).tpm(&socket).boot(setup, scratch)?;
        let possessions = Possessions::make(&mut guest, EVENT, "data that travels")?;
        for attempt in 1..=3 {
            hosts.ticket(NAME)?;
            let arriving = GuestBuilder::new(setup, &format!("{NAME}-{attempt}"));
            let cut: Tamper = Box::new(|stream| Fate::Cut(stream.len() / 2));
            let ended = hosts.migrate(setup, &mut guest, arriving, NAME, Some(cut))?;
            let answers = |guest: &mut Guest| -> Result<bool> {
                Ok(guest.tpm(GET_RANDOM)?.get(6..10) == Some(&[0; 4]))
            };
            let served = time_until("served again", || answers(&mut guest))?;
            println!("attempt {attempt}: served {served:?} after QEMU told that the migration failed");
            same("migration", &ended.migration.status.as_str(), &"failed")?;
            same("run state", &guest.qmp().run_state()?.as_str(), &"running")?;
            ensure(served < Duration::from_secs(1), format!("served after {served:?} only"))?;
            drop(ended);
            possessions.check(&mut guest)?;
            hosts.destination.control(&["delete", NAME])?;
        }
        Ok(())
    });
}
