//! The migration is cancelled, earlier or later.

use crate::field::{
    Field, MIDDLE, NAME, PATIENCE, Row, becomes, depart, depart_and_pause, end_of_load, ends, ends_cancelled,
    machine, now, row, stands_still,
};
use crate::gate::{Gate, Way};
use qemu_tests::process::wait_until;
use qemu_tests::{Guest, Result, Workload, ensure, guest_test, same};
use serde_json::{Value, json};
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn cancelled_at_every_stage() {
    guest_test("matrix-cancelled", |setup, scratch| {
        let mut field = Field::new(setup, scratch)?;
        field.hosts.source.create(NAME)?;
        let gate = field.gate_at_source()?;
        let (mut guest, mut possessions, load) = field.loaded_guest(gate.socket())?;

        field.hosts.prepare(NAME)?;
        row("cancelled while memory is sent", |row| early(&mut field, row, &mut guest, &load))?;
        // The slot and its ticket are as they were, and serve once more.
        row("cancelled at pre-switchover", |row| pre_switchover(&mut field, row, &mut guest, &load))?;
        row("cancelled while vtpmd saves", |row| saving(&mut field, row, &mut guest, &load, &gate))?;
        row("connection lost while vtpmd saves", |row| yanked(&mut field, row, &mut guest, &load, &gate))?;
        row("cancelled while vtpmd loads, destination with -S", |row| {
            loading_paused(&mut field, row, &mut guest, &load)
        })?;
        let mut arrived = None;
        row("cancelled while vtpmd loads, destination with autostart", |row| {
            arrived = Some(loading_with_autostart(&mut field, row, &mut guest, &load)?);
            Ok(())
        })?;
        if let Some(mut guest) = arrived {
            end_of_load(load, &mut guest, "six cancelled migrations")?;
            possessions.check(&mut guest)?;
            possessions.count(&mut guest)?;
        }
        Ok(())
    });
}

fn bandwidth(guest: &mut Guest, bytes_a_second: u64) -> Result<()> {
    let limit = json!({ "max-bandwidth": bytes_a_second });
    guest.qmp().execute("migrate-set-parameters", limit).map(drop)
}

fn early(field: &mut Field<'_>, row: &mut Row, guest: &mut Guest, load: &Workload) -> Result<()> {
    let tpm = field.hosts.destination.socket(NAME);
    let mut arriving = field.arriving(&tpm)?;
    bandwidth(guest, 4 << 20)?;
    depart(guest, &arriving.end)?;
    let sent = wait_until("no memory was sent", PATIENCE, || {
        let migration = guest.qmp().execute("query-migrate", json!({}))?;
        let sent = migration.pointer("/ram/transferred").and_then(Value::as_u64).unwrap_or(0);
        let active = migration.get("status").and_then(Value::as_str) == Some("active");
        Ok((active && sent > 1 << 20).then_some(sent))
    })?;
    let sight = field.look(NAME, Some(guest), Some(&mut arriving.guest))?;
    sight.is(("running", "inmigrate"), ("live", "destination-locked"))?;
    row.note(format!("cancelled after {sent} bytes"));
    row.count_from(now());
    guest.qmp().migrate_cancel()?;
    ends(guest, "cancelled")?;
    bandwidth(guest, 128 << 20)?;
    becomes(&mut arriving.guest, "ended")?;
    let sight = field.look(NAME, Some(guest), Some(&mut arriving.guest))?;
    sight.is(("running", "ended"), ("live", "destination-locked"))?;
    row.note(sight.to_string());
    row.served("source", guest, load)?;
    row.note("nothing to settle");
    Ok(())
}

fn pre_switchover(field: &mut Field<'_>, row: &mut Row, guest: &mut Guest, load: &Workload) -> Result<()> {
    let tpm = field.hosts.destination.socket(NAME);
    let mut arriving = field.arriving(&tpm)?;
    let migration = depart_and_pause(guest, &mut arriving)?;
    same("the migration", &migration.status.as_str(), &"pre-switchover")?;
    let sight = field.look(NAME, Some(guest), Some(&mut arriving.guest))?;
    same("the source's TPM", &sight.source.tpm.as_str(), &"live")?;
    guest.qmp().migrate_cancel()?;
    ends(guest, "cancelled")?;
    row.ran_on(guest, None)?;
    becomes(&mut arriving.guest, "ended")?;
    let sight = field.look(NAME, Some(guest), Some(&mut arriving.guest))?;
    sight.is(("running", "ended"), ("live", "destination-locked"))?;
    row.note(sight.to_string());
    row.served("source", guest, load)?;
    row.note("nothing to settle");
    Ok(())
}

/// The state stands still on its way out of vtpmd, which has locked the instance.
fn hold_save(field: &mut Field<'_>, row: &mut Row, gate: &Gate) -> Result<()> {
    gate.wait_held(PATIENCE)?;
    let sight = field.look(NAME, None, None)?;
    let state = sight.source.tpm;
    ensure(
        matches!(state.as_str(), "exporting" | "exported"),
        format!("the source is {state} while it saves"),
    )?;
    same("the destination's TPM", &sight.destination.tpm.as_str(), &"destination-locked")?;
    row.note(format!("held after {MIDDLE} bytes of the state, source {state}"));
    Ok(())
}

fn saving(
    field: &mut Field<'_>,
    row: &mut Row,
    guest: &mut Guest,
    load: &Workload,
    gate: &Gate,
) -> Result<()> {
    let tpm = field.hosts.destination.socket(NAME);
    let mut arriving = field.arriving_paused(&tpm)?;
    gate.hold(Way::Save, MIDDLE);
    depart(guest, &arriving.end)?;
    hold_save(field, row, gate)?;
    // QEMU saves under the lock that its monitor needs: the command is there, and is taken when the save is over.
    let cancel = guest.qmp().begin("migrate_cancel", json!({}))?;
    thread::sleep(Duration::from_millis(50));
    gate.open();
    guest.qmp().answer(&cancel)?;
    ends_cancelled(row, guest)?;
    row.ran_on(guest, None)?;
    becomes(guest, "running")?;
    wait_until("the destination neither took the state nor ended", PATIENCE, || {
        Ok(matches!(machine(&mut arriving.guest).as_str(), "paused" | "ended").then_some(()))
    })?;
    let sight = field.look(NAME, Some(guest), Some(&mut arriving.guest))?;
    row.note(sight.to_string());
    field.settle_back(row, guest, load)
}

/// The connection breaks in the middle of the save: `yank` does not wait for QEMU's lock.
fn yanked(
    field: &mut Field<'_>,
    row: &mut Row,
    guest: &mut Guest,
    load: &Workload,
    gate: &Gate,
) -> Result<()> {
    field.hosts.prepare(NAME)?;
    let tpm = field.hosts.destination.socket(NAME);
    let mut arriving = field.arriving(&tpm)?;
    gate.hold(Way::Save, MIDDLE);
    let mut monitor = guest.out_of_band()?;
    depart(guest, &arriving.end)?;
    hold_save(field, row, gate)?;
    let instance = json!({ "instances": [{ "type": "migration" }] });
    monitor.execute_out_of_band("yank", instance)?;
    becomes(&mut arriving.guest, "ended")?;
    gate.open();
    ends(guest, "failed")?;
    row.ran_on(guest, None)?;
    becomes(guest, "running")?;
    let sight = field.look(NAME, Some(guest), Some(&mut arriving.guest))?;
    sight.is(("running", "ended"), ("exported", "destination-locked"))?;
    row.note(sight.to_string());
    field.settle_back(row, guest, load)
}

/// Cancels while the destination has the beginning of the state; the source runs then, and neither is served.
fn cancel_while_loading(
    field: &mut Field<'_>,
    row: &mut Row,
    guest: &mut Guest,
    load: &Workload,
    gate: &Gate,
) -> Result<()> {
    gate.wait_held(PATIENCE)?;
    // The destination's monitor waits for its lock; what runs there can be asked only afterwards.
    let sight = field.look(NAME, Some(guest), None)?;
    ensure(
        matches!(sight.destination.tpm.as_str(), "destination-locked" | "destination-keyed" | "importing"),
        format!("the destination is {} while it loads", sight.destination.tpm),
    )?;
    row.note(format!("held after {MIDDLE} bytes of the state, destination {}", sight.destination.tpm));
    guest.qmp().migrate_cancel()?;
    ends_cancelled(row, guest)?;
    becomes(guest, "running")?;
    stands_still(guest, load)
}

fn loading_paused(field: &mut Field<'_>, row: &mut Row, guest: &mut Guest, load: &Workload) -> Result<()> {
    field.hosts.prepare(NAME)?;
    let gate = field.gate_at_destination()?;
    gate.hold(Way::Load, MIDDLE);
    let mut arriving = field.arriving_paused(gate.socket())?;
    depart(guest, &arriving.end)?;
    cancel_while_loading(field, row, guest, load, &gate)?;
    row.ran_on(guest, None)?;
    gate.open();
    becomes(&mut arriving.guest, "paused")?;
    let sight = field.look(NAME, Some(guest), Some(&mut arriving.guest))?;
    sight.is(("running", "paused"), ("exported", "imported"))?;
    row.note(sight.to_string());
    stands_still(guest, load)?;

    let given_up = Instant::now();
    let void = field.void_receipt(NAME)?;
    field.hosts.source.control(&["migrate", "abort", NAME, "--receipt", &void])?;
    row.settled("`migrate abort` on the destination, then with its receipt on the source", given_up);
    row.served("source", guest, load)?;
    // QEMU lets the other machine run all the same. Its TPM is void.
    arriving.guest.qmp().cont()?;
    arriving.guest.wait_ready()?;
    stands_still(&mut arriving.guest, load)?;
    load.wait_rounds(guest, 5)?;
    let sight = field.look(NAME, Some(guest), Some(&mut arriving.guest))?;
    sight.is(("running", "running"), ("live", "void"))?;
    row.note(format!("then `cont` on the destination: {sight}"));
    drop(arriving);
    field.hosts.destination.control(&["delete", NAME]).map(drop)
}

fn loading_with_autostart(
    field: &mut Field<'_>,
    row: &mut Row,
    guest: &mut Guest,
    load: &Workload,
) -> Result<Guest> {
    field.hosts.prepare(NAME)?;
    let gate = field.gate_at_destination()?;
    gate.hold(Way::Load, MIDDLE);
    let mut arriving = field.arriving(gate.socket())?;
    depart(guest, &arriving.end)?;
    cancel_while_loading(field, row, guest, load, &gate)?;
    gate.open();
    becomes(&mut arriving.guest, "running")?;
    row.ran_on(guest, Some(&mut arriving.guest))?;
    arriving.guest.wait_ready()?;
    // QEMU's split brain: both machines run. The one that has the TPM executes, the other one waits.
    row.served("destination", &mut arriving.guest, load)?;
    stands_still(guest, load)?;
    let sight = field.look(NAME, Some(guest), Some(&mut arriving.guest))?;
    sight.is(("running", "running"), ("exported", "live"))?;
    row.note(sight.to_string());
    let again = field.void_receipt(NAME);
    ensure(again.is_err(), "the destination gave up what lives there")?;

    let settled = Instant::now();
    let live = field.live_receipt(NAME)?;
    let void = field.hosts.source.control(&["migrate", "abort", NAME, "--receipt", &live]);
    ensure(void.is_err(), "the source took the receipt of the other kind")?;
    field.hosts.source.control(&["migrate", "commit", NAME, "--receipt", &live])?;
    row.settled("`quit` of the source's machine, `migrate commit` on both", settled);
    guest.qmp().quit()?;
    load.wait_rounds(&mut arriving.guest, 5)?;
    let sight = field.look(NAME, None, Some(&mut arriving.guest))?;
    sight.is(("ended", "running"), ("none", "live"))?;
    Ok(arriving.guest)
}
