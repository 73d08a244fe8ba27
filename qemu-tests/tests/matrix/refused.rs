//! The destination does not take the state.

use crate::field::{
    Arriving, Field, NAME, Row, becomes, depart, depart_with, end_of_load, ends, row, stands_still,
};
use qemu_tests::relay::{Fate, Relay, Tamper};
use qemu_tests::{Guest, Result, Workload, ensure, guest_test};
use std::time::Instant;

/// Another instance of the destination.
const OTHER: &str = "other";

#[test]
fn refused_by_the_destination() {
    guest_test("matrix-refused", |setup, scratch| {
        let mut field = Field::new(setup, scratch)?;
        let socket = field.hosts.source.create(NAME)?;
        let (mut guest, mut possessions, load) = field.loaded_guest(&socket)?;

        row("the slot was given up before the machine came", |row| {
            no_slot(&mut field, row, &mut guest, &load)
        })?;
        field.hosts.destination.create(OTHER)?;
        row("the machine came to a TPM that lives", |row| {
            wrong_slot(&mut field, row, &mut guest, &load, "live")
        })?;
        field.hosts.destination.control(&["delete", OTHER])?;
        // A slot that waits for another guest of the source.
        field.hosts.source.create(OTHER)?;
        field.hosts.ticket(OTHER)?;
        row("the machine came to the slot of another", |row| {
            wrong_slot(&mut field, row, &mut guest, &load, "destination-locked")
        })?;
        row("a bit of the state was changed on the way", |row| damaged(&mut field, row, &mut guest, &load))?;
        row("refused without the return path", |row| no_return_path(&mut field, row, &mut guest, &load))?;
        let mut arrived = None;
        row("then it goes through", |row| {
            field.hosts.prepare(NAME)?;
            let tpm = field.hosts.destination.socket(NAME);
            let mut arriving = field.arriving(&tpm)?;
            depart(&mut guest, &arriving.end)?;
            field.settle_there(row, &mut guest, &mut arriving.guest, &load)?;
            arrived = Some(arriving.guest);
            Ok(())
        })?;
        if let Some(mut guest) = arrived {
            end_of_load(load, &mut guest, "five refused migrations and one")?;
            possessions.check(&mut guest)?;
            possessions.count(&mut guest)?;
        }
        Ok(())
    });
}

/// The migration fails, with the source running on.
fn fails(row: &mut Row, guest: &mut Guest, arriving: &mut Arriving) -> Result<()> {
    ends(guest, "failed")?;
    row.ran_on(guest, None)?;
    becomes(guest, "running")?;
    becomes(&mut arriving.guest, "ended")
}

fn no_slot(field: &mut Field<'_>, row: &mut Row, guest: &mut Guest, load: &Workload) -> Result<()> {
    field.hosts.prepare(NAME)?;
    let void = field.void_receipt(NAME)?;
    let tpm = field.hosts.destination.socket(NAME);
    let mut arriving = field.arriving(&tpm)?;
    depart(guest, &arriving.end)?;
    fails(row, guest, &mut arriving)?;
    let sight = field.look(NAME, Some(guest), Some(&mut arriving.guest))?;
    sight.is(("running", "ended"), ("exported", "void"))?;
    row.note(sight.to_string());
    stands_still(guest, load)?;
    let settled = Instant::now();
    field.hosts.source.control(&["migrate", "abort", NAME, "--receipt", &void])?;
    row.settled("`migrate abort` on the source with the receipt of then", settled);
    row.served("source", guest, load)?;
    field.hosts.destination.control(&["delete", NAME])?;
    field.look(NAME, Some(guest), None)?.is(("running", "ended"), ("live", "none"))
}

fn wrong_slot(
    field: &mut Field<'_>,
    row: &mut Row,
    guest: &mut Guest,
    load: &Workload,
    state: &str,
) -> Result<()> {
    field.hosts.prepare(NAME)?;
    let tpm = field.hosts.destination.socket(OTHER);
    let mut arriving = field.arriving(&tpm)?;
    depart(guest, &arriving.end)?;
    fails(row, guest, &mut arriving)?;
    let sight = field.look(NAME, Some(guest), Some(&mut arriving.guest))?;
    sight.is(("running", "ended"), ("exported", "destination-locked"))?;
    row.note(sight.to_string());
    let list = field.hosts.destination.control(&["list"])?;
    let untouched = list.lines().any(|line| line.contains(OTHER) && line.contains(state));
    ensure(untouched, format!("the other instance is not {state} any more:\n{list}"))?;
    field.settle_back(row, guest, load)
}

fn damaged(field: &mut Field<'_>, row: &mut Row, guest: &mut Guest, load: &Workload) -> Result<()> {
    field.hosts.prepare(NAME)?;
    let tpm = field.hosts.destination.socket(NAME);
    let mut arriving = field.arriving(&tpm)?;
    let wire = field.path("wire");
    let flip: Tamper = Box::new(|stream| {
        let mut altered = stream.to_vec();
        if let Some(byte) = altered.get_mut(stream.len() / 2) {
            *byte ^= 0x04;
        }
        Fate::Pass(altered)
    });
    let relay = Relay::start(&wire, &arriving.end, flip)?;
    depart(guest, &wire)?;
    fails(row, guest, &mut arriving)?;
    let length = relay.recorded().map_or(0, |stream| stream.len());
    ensure(length > 0, "no state came by")?;
    row.note(format!("a state of {length} bytes"));
    let sight = field.look(NAME, Some(guest), Some(&mut arriving.guest))?;
    sight.is(("running", "ended"), ("exported", "destination-locked"))?;
    row.note(sight.to_string());
    field.settle_back(row, guest, load)
}

/// The source's QEMU never hears that the destination refused: no machine runs, until somebody looks.
fn no_return_path(field: &mut Field<'_>, row: &mut Row, guest: &mut Guest, load: &Workload) -> Result<()> {
    field.hosts.prepare(NAME)?;
    let tpm = field.hosts.destination.socket(OTHER);
    let mut arriving = field.arriving(&tpm)?;
    depart_with(guest, &arriving.end, false)?;
    ends(guest, "completed")?;
    becomes(&mut arriving.guest, "ended")?;
    let sight = field.look(NAME, Some(guest), Some(&mut arriving.guest))?;
    sight.is(("postmigrate", "ended"), ("exported", "destination-locked"))?;
    row.note(format!("completed, says the source: {sight}"));

    let settled = Instant::now();
    field.hosts.give_up(NAME)?;
    guest.qmp().cont()?;
    row.settled("`migrate abort` on both and `cont` of the source's machine", settled);
    row.ran_on(guest, None)?;
    row.served("source", guest, load)?;
    field.look(NAME, Some(guest), None)?.is(("running", "ended"), ("live", "none"))
}
