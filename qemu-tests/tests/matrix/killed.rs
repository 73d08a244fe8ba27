//! One of the four programs is killed in the middle of a save or a load.

use crate::field::{
    Field, MIDDLE, NAME, PATIENCE, Row, becomes, depart, end_of_load, ends, now, row, stands_still,
};
use crate::gate::{Gate, Way};
use qemu_tests::process::wait_until;
use qemu_tests::{Guest, GuestBuilder, Possessions, Result, Workload, ensure, guest_test, same};
use std::time::{Duration, Instant};

#[test]
fn a_program_is_killed_while_the_state_moves() {
    guest_test("matrix-killed", |setup, scratch| {
        let mut field = Field::new(setup, scratch)?;
        field.hosts.source.create(NAME)?;
        let gate = field.gate_at_source()?;
        let (mut guest, mut possessions, load) = field.loaded_guest(gate.socket())?;

        row("destination's vtpmd killed while it loads", |row| {
            destination_daemon(&mut field, row, &mut guest, &load)
        })?;
        row("destination's QEMU killed while it loads", |row| {
            destination_machine(&mut field, row, &mut guest, &load)
        })?;
        let mut arrived = None;
        row("source's vtpmd killed while it saves, then migrated again", |row| {
            arrived = Some(source_daemon(&mut field, row, &mut guest, &load, &gate)?);
            Ok(())
        })?;
        let Some((mut guest, gate)) = arrived else { return Ok(()) };
        end_of_load(load, &mut guest, "three programs killed")?;
        possessions.check(&mut guest)?;
        possessions.count(&mut guest)?;

        field.hosts.turn();
        row("source's QEMU killed while it saves", |row| {
            source_machine(&mut field, row, guest, &gate, &mut possessions)
        })
    });
}

/// The state stands still on its way into the destination's vtpmd.
fn hold_load(field: &mut Field<'_>, row: &mut Row, gate: &Gate) -> Result<()> {
    gate.wait_held(PATIENCE)?;
    let sight = field.look(NAME, None, None)?;
    let state = sight.destination.tpm;
    let loading = matches!(state.as_str(), "destination-locked" | "destination-keyed" | "importing");
    ensure(loading, format!("the destination is {state} while it loads"))?;
    same("the source's TPM", &sight.source.tpm.as_str(), &"exported")?;
    row.note(format!("held after {MIDDLE} bytes of the state, destination {state}"));
    Ok(())
}

fn destination_daemon(
    field: &mut Field<'_>,
    row: &mut Row,
    guest: &mut Guest,
    load: &Workload,
) -> Result<()> {
    field.hosts.prepare(NAME)?;
    let gate = field.gate_at_destination()?;
    gate.hold(Way::Load, MIDDLE);
    let mut arriving = field.arriving(gate.socket())?;
    depart(guest, &arriving.end)?;
    hold_load(field, row, &gate)?;
    field.hosts.destination.kill()?;
    gate.open();
    ends(guest, "failed")?;
    row.ran_on(guest, None)?;
    becomes(guest, "running")?;
    becomes(&mut arriving.guest, "ended")?;
    field
        .look(NAME, Some(guest), Some(&mut arriving.guest))?
        .is(("running", "ended"), ("exported", "daemon down"))?;
    field.hosts.destination.restart()?;
    let sight = field.look(NAME, Some(guest), Some(&mut arriving.guest))?;
    row.note(sight.to_string());
    field.settle_back(row, guest, load)
}

fn destination_machine(
    field: &mut Field<'_>,
    row: &mut Row,
    guest: &mut Guest,
    load: &Workload,
) -> Result<()> {
    field.hosts.prepare(NAME)?;
    let gate = field.gate_at_destination()?;
    gate.hold(Way::Load, MIDDLE);
    let mut arriving = field.arriving(gate.socket())?;
    depart(guest, &arriving.end)?;
    hold_load(field, row, &gate)?;
    arriving.guest.process()?.kill()?;
    gate.open();
    ends(guest, "failed")?;
    row.ran_on(guest, None)?;
    becomes(guest, "running")?;
    // Once all of the state is in the pipe vtpmd takes it, with or without a QEMU that waits for the answer; before that it sees the
    // pipe end and empties the slot.
    wait_until("the slot was neither filled nor emptied", Duration::from_secs(20), || {
        let sight = field.look(NAME, None, None)?;
        Ok(matches!(sight.destination.tpm.as_str(), "destination-locked" | "imported").then_some(()))
    })?;
    let sight = field.look(NAME, Some(guest), Some(&mut arriving.guest))?;
    same("the source's TPM", &sight.source.tpm.as_str(), &"exported")?;
    same(
        "the machines",
        &(sight.source.machine.as_str(), sight.destination.machine.as_str()),
        &("running", "ended"),
    )?;
    row.note(sight.to_string());
    field.settle_back(row, guest, load)
}

fn hold_save(field: &mut Field<'_>, row: &mut Row, gate: &Gate) -> Result<()> {
    gate.wait_held(PATIENCE)?;
    let sight = field.look(NAME, None, None)?;
    let state = sight.source.tpm;
    ensure(
        matches!(state.as_str(), "exporting" | "exported"),
        format!("the source is {state} while it saves"),
    )?;
    row.note(format!("held after {MIDDLE} bytes of the state, source {state}"));
    Ok(())
}

/// Nothing is given up here: the state is locked, and the same migration is tried again with the ticket that it was locked with.
fn source_daemon(
    field: &mut Field<'_>,
    row: &mut Row,
    guest: &mut Guest,
    load: &Workload,
    gate: &Gate,
) -> Result<(Guest, Gate)> {
    field.hosts.prepare(NAME)?;
    let there = field.gate_at_destination()?;
    let mut arriving = field.arriving(there.socket())?;
    gate.hold(Way::Save, MIDDLE);
    depart(guest, &arriving.end)?;
    hold_save(field, row, gate)?;
    field.hosts.source.kill()?;
    gate.open();
    ends(guest, "failed")?;
    row.ran_on(guest, None)?;
    becomes(guest, "running")?;
    becomes(&mut arriving.guest, "ended")?;
    let connections = gate.connections();
    let restarted = Instant::now();
    field.hosts.source.restart()?;
    wait_until("QEMU did not connect to the new vtpmd", PATIENCE, || {
        Ok((gate.connections() > connections).then_some(()))
    })?;
    row.note(format!("vtpmd back and connected after {} ms", restarted.elapsed().as_millis()));
    stands_still(guest, load)?;
    let sight = field.look(NAME, Some(guest), Some(&mut arriving.guest))?;
    sight.is(("running", "ended"), ("exported", "destination-locked"))?;
    row.note(sight.to_string());
    drop(arriving);

    let mut arriving = field.arriving(there.socket())?;
    depart(guest, &arriving.end)?;
    row.note("migrated again without a step by hand");
    field.settle_there(row, guest, &mut arriving.guest, load)?;
    // A machine that stays behind connects to any slot that is made at its socket again, and the one that comes back could not.
    guest.qmp().quit()?;
    Ok((arriving.guest, there))
}

/// The machine is lost, its TPM is not: it boots again where it was.
fn source_machine(
    field: &mut Field<'_>,
    row: &mut Row,
    mut guest: Guest,
    gate: &Gate,
    possessions: &mut Possessions,
) -> Result<()> {
    let load = Workload::start(&mut guest, "before")?;
    load.wait_rounds(&mut guest, 5)?;
    let before = load.stop(&mut guest)?;
    before.exactly_once()?;
    let load = Workload::start(&mut guest, "lost")?;
    field.hosts.prepare(NAME)?;
    let tpm = field.hosts.destination.socket(NAME);
    let mut arriving = field.arriving(&tpm)?;
    load.wait_rounds(&mut guest, 5)?;
    let rounds = load.rounds(&mut guest)?;
    gate.hold(Way::Save, MIDDLE);
    depart(&mut guest, &arriving.end)?;
    hold_save(field, row, gate)?;
    row.count_from(now());
    guest.process()?.kill()?;
    gate.open();
    becomes(&mut arriving.guest, "ended")?;
    let sight = field.look(NAME, Some(&mut guest), Some(&mut arriving.guest))?;
    sight.is(("ended", "ended"), ("exported", "destination-locked"))?;
    row.note(sight.to_string());
    let given_up = Instant::now();
    field.hosts.give_up(NAME)?;
    row.settled(
        "`migrate abort` on the destination, then with its receipt on the source, and a boot",
        given_up,
    );

    let builder = GuestBuilder::new(field.setup, "again").tpm(gate.socket());
    let mut again = builder.boot(field.setup, field.scratch)?;
    possessions.check_after_reset(&mut again)?;
    let load = Workload::start(&mut again, "after")?;
    row.served("source, in a new boot", &mut again, &load)?;
    field.look(NAME, Some(&mut again), None)?.is(("running", "ended"), ("live", "none"))?;
    let after = load.stop(&mut again)?;
    after.exactly_once()?;
    // A loop increments once before its first round.
    let least = before.counter_last.saturating_add(1).saturating_add(rounds);
    let found = after.counter_first.saturating_sub(1);
    row.note(format!("the lost guest had seen the counter at {least} or more, it is at {found}"));
    ensure(found >= least, format!("increments are lost: the counter is {found}, not {least} or more"))?;
    possessions.count(&mut again)
}
