//! The migration goes through: again and again, for two guests at once, through a file, without a driver.

use crate::field::{
    Field, NAME, PATIENCE, Row, becomes, depart, end_of_load, ends, figures, machine, now, row,
};
use qemu_tests::relay::{Fate, Relay, Tamper};
use qemu_tests::{Guest, GuestBuilder, Possessions, Result, Workload, ensure, guest_test, same};
use std::path::Path;
use std::time::Instant;

#[test]
fn back_and_forth_ten_times() {
    guest_test("matrix-ten", |setup, scratch| {
        let mut field = Field::new(setup, scratch)?;
        let socket = field.hosts.source.create(NAME)?;
        let (mut guest, mut possessions, load) = field.loaded_guest(&socket)?;
        let mut downtimes = Vec::new();
        for _trip in 0..10 {
            row("under load", |row| {
                field.hosts.prepare(NAME)?;
                let tpm = field.hosts.destination.socket(NAME);
                let mut arriving = field.arriving(&tpm)?;
                depart(&mut guest, &arriving.end)?;
                field.settle_there(row, &mut guest, &mut arriving.guest, &load)?;
                downtimes.extend(guest.qmp().migration()?.downtime);
                guest = arriving.guest;
                field.hosts.turn();
                Ok(())
            })?;
        }
        downtimes.sort_unstable();
        println!("matrix | back and forth ten times | downtimes in ms by QEMU {downtimes:?}");
        end_of_load(load, &mut guest, "back and forth ten times")?;
        possessions.check(&mut guest)?;
        possessions.count(&mut guest)
    });
}

#[test]
fn two_guests_at_once() {
    guest_test("matrix-two", |setup, scratch| {
        let mut field = Field::new(setup, scratch)?;
        let names = ["one", "two"];
        let mut loads = Vec::new();
        for name in names {
            let socket = field.hosts.source.create(name)?;
            let mut guest = GuestBuilder::new(setup, name).tpm(&socket).boot(setup, scratch)?;
            let load = Workload::start(&mut guest, "load")?;
            loads.push((name, guest, load));
        }
        row("two guests at once", |row| {
            let mut travelling = Vec::new();
            for (name, guest, load) in loads {
                field.hosts.prepare(name)?;
                let tpm = field.hosts.destination.socket(name);
                travelling.push((name, guest, field.arriving(&tpm)?, load));
            }
            for (_, guest, arriving, _) in &mut travelling {
                depart(guest, &arriving.end)?;
            }
            for (name, guest, arriving, load) in &mut travelling {
                let migration = ends(guest, "completed")?;
                row.note(format!("{name} {}", figures(&migration)));
                row.ran_on(guest, Some(&mut arriving.guest))?;
                row.served("destination", &mut arriving.guest, load)?;
            }
            for (name, mut guest, mut arriving, load) in travelling {
                let sight = field.look(name, Some(&mut guest), Some(&mut arriving.guest))?;
                sight.is(("postmigrate", "running"), ("exported", "live"))?;
                let settled = Instant::now();
                field.hosts.settle(name)?;
                row.settled("`migrate commit` on both", settled);
                let summary = load.stop(&mut arriving.guest)?;
                row.note(format!("{name}: {} commands, each done exactly once", summary.commands));
                summary.exactly_once()?;
            }
            Ok(())
        })
    });
}

/// A machine that takes its state from a file, on the destination.
fn restored(field: &mut Field<'_>, name: &str, file: &Path) -> Result<Guest> {
    let tpm = field.hosts.destination.socket(NAME);
    let command = format!("cat {}", file.display());
    GuestBuilder::new(field.setup, name)
        .tpm(&tpm)
        .incoming_from_command(&command)
        .start(field.setup, field.scratch)
}

/// QEMU may end before its monitor can be reached; either way the state is refused.
fn restore_is_refused(field: &mut Field<'_>, name: &str, file: &Path) -> Result<()> {
    match restored(field, name, file) {
        Ok(mut guest) => becomes(&mut guest, "ended"),
        Err(_) => Ok(()),
    }
}

#[test]
fn through_a_file_once() {
    guest_test("matrix-file", |setup, scratch| {
        let mut field = Field::new(setup, scratch)?;
        let socket = field.hosts.source.create(NAME)?;
        let (mut guest, mut possessions, load) = field.loaded_guest(&socket)?;
        let file = field.path("file");
        row("saved to a file and restored", |row| {
            field.hosts.prepare(NAME)?;
            guest.qmp().forget_events()?;
            guest.qmp().migrate_to_command(&format!("cat >{}", file.display()))?;
            row.note(figures(&ends(&mut guest, "completed")?));
            let sight = field.look(NAME, Some(&mut guest), None)?;
            sight.is(("postmigrate", "ended"), ("exported", "destination-locked"))?;
            row.note(sight.to_string());
            let mut arrived = restored(&mut field, "restored", &file)?;
            becomes(&mut arrived, "running")?;
            row.ran_on(&mut guest, Some(&mut arrived))?;
            arrived.wait_ready()?;
            row.served("destination", &mut arrived, &load)?;
            let sight = field.look(NAME, Some(&mut guest), Some(&mut arrived))?;
            sight.is(("postmigrate", "running"), ("exported", "live"))?;
            row.note(sight.to_string());
            let settled = Instant::now();
            field.hosts.settle(NAME)?;
            row.settled("`migrate commit` on both", settled);
            std::mem::swap(&mut guest, &mut arrived);
            Ok(())
        })?;
        end_of_load(load, &mut guest, "through a file")?;
        possessions.check(&mut guest)?;
        possessions.count(&mut guest)?;
        drop(guest);

        row("the file restored once more", |row| {
            restore_is_refused(&mut field, "second", &file)?;
            let sight = field.look(NAME, None, None)?;
            sight.is(("ended", "ended"), ("none", "live"))?;
            row.note(format!("on the same host: {sight}"));
            // A new slot on the host from which the file came, for a migration back.
            field.hosts.turn();
            field.hosts.prepare(NAME)?;
            restore_is_refused(&mut field, "third", &file)?;
            let sight = field.look(NAME, None, None)?;
            sight.is(("ended", "ended"), ("live", "destination-locked"))?;
            row.note(format!("in a new slot of the other host: {sight}"));
            row.count_from(now());
            let builder = GuestBuilder::new(field.setup, "anew").tpm(&field.hosts.source.socket(NAME));
            let mut anew = builder.boot(field.setup, field.scratch)?;
            possessions.check_after_reset(&mut anew)?;
            let load = Workload::start(&mut anew, "after")?;
            row.served("host of the first restore, in a new boot", &mut anew, &load)?;
            load.stop(&mut anew)?.exactly_once()
        })
    });
}

#[test]
fn a_guest_without_a_driver() {
    guest_test("matrix-idle", |setup, scratch| {
        let mut field = Field::new(setup, scratch)?;
        let socket = field.hosts.source.create(NAME)?;
        let mut guest = GuestBuilder::new(setup, NAME).tpm(&socket).without_driver().boot(setup, scratch)?;
        row("without a driver, connection lost", |row| idle_and_cut(&mut field, row, &mut guest))?;
        let mut arrived = None;
        row("without a driver", |row| {
            arrived = Some(idle_and_through(&mut field, row, &mut guest)?);
            Ok(())
        })?;
        let Some(mut guest) = arrived else { return Ok(()) };
        Possessions::make(&mut guest, &"5e".repeat(32), "made after the journey")?.check(&mut guest)?;
        let load = Workload::start(&mut guest, "load")?;
        load.wait_rounds(&mut guest, 5)?;
        end_of_load(load, &mut guest, "without a driver")
    });
}

/// No ring tells who owns the state of such a guest; the run state does.
fn idle_and_cut(field: &mut Field<'_>, row: &mut Row, guest: &mut Guest) -> Result<()> {
    field.hosts.prepare(NAME)?;
    let tpm = field.hosts.destination.socket(NAME);
    let mut arriving = field.arriving_with(&tpm, GuestBuilder::without_driver)?;
    let wire = field.path("wire");
    let cut: Tamper = Box::new(|stream| Fate::Cut(stream.len() / 2));
    let _relay = Relay::start(&wire, &arriving.end, cut)?;
    depart(guest, &wire)?;
    ends(guest, "failed")?;
    row.ran_on(guest, None)?;
    becomes(guest, "running")?;
    becomes(&mut arriving.guest, "ended")?;
    let sight = field.look(NAME, Some(guest), Some(&mut arriving.guest))?;
    sight.is(("running", "ended"), ("exported", "destination-locked"))?;
    row.note(sight.to_string());
    let given_up = Instant::now();
    field.hosts.give_up(NAME)?;
    row.settled("`migrate abort` on the destination, then with its receipt on the source", given_up);
    let sight = field.look(NAME, Some(guest), None)?;
    same("the source's TPM", &sight.source.tpm.as_str(), &"live")
}

fn idle_and_through(field: &mut Field<'_>, row: &mut Row, guest: &mut Guest) -> Result<Guest> {
    field.hosts.prepare(NAME)?;
    let tpm = field.hosts.destination.socket(NAME);
    let mut arriving = field.arriving_with(&tpm, GuestBuilder::without_driver)?;
    depart(guest, &arriving.end)?;
    row.note(figures(&guest.qmp().wait_migration("completed", PATIENCE)?));
    same("the source's machine", &machine(guest).as_str(), &"postmigrate")?;
    row.ran_on(guest, Some(&mut arriving.guest))?;
    // Until a command comes it is not decided that the TPM lives here.
    let sight = field.look(NAME, Some(guest), Some(&mut arriving.guest))?;
    sight.is(("postmigrate", "running"), ("exported", "imported"))?;
    row.note(format!("before the first command: {sight}"));
    ensure(field.live_receipt(NAME).is_err(), "a receipt before the first command")?;
    arriving.guest.run(&["insmod", "/lib/vtpmd/tpm_virtio.ko"])?;
    let sight = field.look(NAME, Some(guest), Some(&mut arriving.guest))?;
    sight.is(("postmigrate", "running"), ("exported", "live"))?;
    row.note(format!("with the driver loaded: {sight}"));
    let settled = Instant::now();
    field.hosts.settle(NAME)?;
    row.settled("`migrate commit` on both", settled);
    Ok(arriving.guest)
}
