//! One test body on guests that came to where they are in different ways.

use nix::sys::signal::Signal;
use qemu_tests::frame::Response;
use qemu_tests::{Daemon, Guest, GuestBuilder, Possessions, Result, Workload, ensure, guest_test, same};
use std::thread;
use std::time::Duration;

const EVENT: &str = "5afe000000000000000000000000000000000000000000000000000000000002";

/// What any guest may expect of its TPM, at any time: all it has is there, and commands have their effect once.
fn body(guest: &mut Guest, possessions: &mut Possessions) -> Result<()> {
    possessions.check(guest)?;
    possessions.count(guest)?;
    let workload = Workload::start(guest, "body")?;
    workload.wait_rounds(guest, 20)?;
    workload.stop(guest)?.exactly_once()?;
    guest.run(&["tpm2_getcap", "properties-variable"])?;
    possessions.check(guest)
}

#[test]
fn a_fresh_guest() {
    guest_test("fresh", |setup, scratch| {
        let daemon = Daemon::start(setup, scratch, "host")?;
        let socket = daemon.create("fresh")?;
        let mut guest = GuestBuilder::new(setup, "fresh").tpm(&socket).boot(setup, scratch)?;
        let mut possessions = Possessions::make(&mut guest, EVENT, "fresh data")?;
        body(&mut guest, &mut possessions)
    });
}

#[test]
fn a_guest_whose_daemon_was_killed_under_load() {
    guest_test("restarted", |setup, scratch| {
        let mut daemon = Daemon::start(setup, scratch, "host")?;
        let socket = daemon.create("restarted")?;
        let mut guest = GuestBuilder::new(setup, "restarted").tpm(&socket).boot(setup, scratch)?;
        let mut possessions = Possessions::make(&mut guest, EVENT, "data before the kill")?;

        let workload = Workload::start(&mut guest, "load")?;
        for round in 0..5u64 {
            workload.wait_rounds(&mut guest, 5)?;
            // Not always at the same point of a round.
            thread::sleep(Duration::from_millis(round.wrapping_mul(7)));
            daemon.kill()?;
            thread::sleep(Duration::from_millis(200));
            daemon.restart()?;
        }
        workload.wait_rounds(&mut guest, 5)?;
        let summary = workload.stop(&mut guest)?;
        println!("{} commands across 5 kills, {:?}", summary.commands, summary.latency_us);
        summary.exactly_once()?;
        body(&mut guest, &mut possessions)
    });
}

#[test]
fn a_guest_that_was_reset() {
    guest_test("rebooted", |setup, scratch| {
        let daemon = Daemon::start(setup, scratch, "host")?;
        let socket = daemon.create("rebooted")?;
        let mut guest = GuestBuilder::new(setup, "rebooted").tpm(&socket).boot(setup, scratch)?;
        let mut possessions = Possessions::make(&mut guest, EVENT, "data before the reset")?;
        guest.reset()?;
        possessions.check_after_reset(&mut guest)?;
        body(&mut guest, &mut possessions)
    });
}

#[test]
fn a_reset_while_the_daemon_is_away_is_not_forgotten() {
    guest_test("reset-away", |setup, scratch| {
        let mut daemon = Daemon::start(setup, scratch, "host")?;
        let socket = daemon.create("away")?;
        let mut guest = GuestBuilder::new(setup, "away").tpm(&socket).boot(setup, scratch)?;
        let mut possessions = Possessions::make(&mut guest, EVENT, "data before the reset")?;
        let boot = guest.boot_id()?;
        daemon.kill()?;
        guest.qmp().system_reset()?;
        thread::sleep(Duration::from_millis(500));
        daemon.restart()?;
        guest.wait_reboot(&boot)?;
        possessions.check_after_reset(&mut guest)?;
        body(&mut guest, &mut possessions)
    });
}

#[test]
fn neighbours_do_not_see_each_other() {
    guest_test("neighbours", |setup, scratch| {
        let daemon = Daemon::start(setup, scratch, "host")?;
        let mut one = GuestBuilder::new(setup, "one").tpm(&daemon.create("one")?).boot(setup, scratch)?;
        let mut two = GuestBuilder::new(setup, "two").tpm(&daemon.create("two")?).boot(setup, scratch)?;
        let mut of_one = Possessions::make(&mut one, EVENT, "of one")?;
        let mut of_two = Possessions::make(&mut two, EVENT, "of the other")?;
        ensure(of_one != of_two, "two instances made the same key")?;
        one.reset()?;
        body(&mut two, &mut of_two)?;
        of_one.check_after_reset(&mut one)?;
        body(&mut one, &mut of_one)
    });
}

#[test]
fn a_caller_that_is_killed_leaves_the_tpm_usable() {
    guest_test("killed-caller", |setup, scratch| {
        let mut daemon = Daemon::start(setup, scratch, "host")?;
        let socket = daemon.create("caller")?;
        let mut guest = GuestBuilder::new(setup, "caller").tpm(&socket).boot(setup, scratch)?;
        let mut possessions = Possessions::make(&mut guest, EVENT, "data before the kill")?;
        let hold =
            |daemon: &mut Daemon, signal| daemon.process().map_or(Ok(()), |process| process.signal(signal));

        hold(&mut daemon, Signal::SIGSTOP)?;
        // The agent kills it after two seconds, in the middle of a command that nobody answers.
        let killed = guest.execute(&["tpm2_getrandom", "--hex", "8"], &[], Duration::from_secs(2))?;
        same("a command that nobody answers", &killed.status, &Response::TIMED_OUT)?;
        hold(&mut daemon, Signal::SIGCONT)?;
        body(&mut guest, &mut possessions)
    });
}
