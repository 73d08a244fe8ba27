//! Snapshots of a machine with its memory, in its disk: `savevm` and `loadvm`, which libvirt's internal snapshots are. One is taken where saves
//! are allowed. A machine goes back to one as to any save: once, and not after it has run without it.

use qemu_tests::snapshot::{add_disk, monitor};
use qemu_tests::{Daemon, Error, Guest, GuestBuilder, Possessions, Result, Setup, ensure, guest_test, same};
use std::path::Path;

const EVENT: &str = "a00a0000000000000000000000000000000000000000000000000000000000f5";
const NAME: &str = "snapped";
/// What the log says of a state that is brought back too late.
const TOO_LATE: &str = "a state that left or was saved comes back once";

/// What `vtpmctl info` says of the instance: its state.
fn state(daemon: &Daemon) -> Result<String> {
    let info = daemon.control(&["info", NAME])?;
    let state = info.lines().find_map(|line| line.strip_prefix("state:"));
    Ok(state.unwrap_or_default().trim().to_owned())
}

/// How many states the log says were brought back too late.
fn refusals(daemon: &Daemon) -> Result<usize> {
    Ok(daemon.logged()?.matches(TOO_LATE).count())
}

/// Whether the machine has a snapshot of this name.
fn has(guest: &mut Guest, snapshot: &str) -> Result<bool> {
    let list = monitor(guest, "info snapshots")?;
    Ok(list.lines().any(|line| line.split_whitespace().any(|word| word == snapshot)))
}

/// The machine may not be saved: no snapshot is made, and it runs on.
fn is_not_taken(guest: &mut Guest, snapshot: &str, possessions: &Possessions) -> Result<()> {
    let said = monitor(guest, &format!("savevm {snapshot}"))?;
    ensure(said.contains("Error"), format!("savevm said {said:?}"))?;
    ensure(!has(guest, snapshot)?, "there is a snapshot that was refused")?;
    same("the run state after it", &guest.qmp().run_state()?.as_str(), &"running")?;
    possessions.check(guest)
}

fn take(guest: &mut Guest, snapshot: &str) -> Result<()> {
    same("what savevm says", &monitor(guest, &format!("savevm {snapshot}"))?.as_str(), &"")?;
    ensure(has(guest, snapshot)?, "there is no snapshot")
}

fn goes_back(guest: &mut Guest, snapshot: &str) -> Result<()> {
    same("what loadvm says", &monitor(guest, &format!("loadvm {snapshot}"))?.as_str(), &"")
}

/// The machine runs from where it was saved, with its TPM.
fn goes_on(daemon: &Daemon, guest: &mut Guest, possessions: &mut Possessions) -> Result<()> {
    guest.qmp().cont()?;
    possessions.check(guest)?;
    same("the state of the instance", &state(daemon)?.as_str(), &"live")?;
    possessions.count(guest)
}

/// The machine does not go back: QEMU says so, the log says why, the TPM lives, and nothing runs.
fn does_not_go_back(daemon: &Daemon, guest: &mut Guest, snapshot: &str) -> Result<()> {
    let before = refusals(daemon)?;
    let said = monitor(guest, &format!("loadvm {snapshot}"))?;
    ensure(said.contains("Error"), format!("loadvm said {said:?}"))?;
    same("the refusals in the log", &refusals(daemon)?, &before.saturating_add(1))?;
    same("the state of the instance", &state(daemon)?.as_str(), &"live")?;
    let run_state = guest.qmp().run_state()?;
    ensure(run_state != "running", "a machine runs whose memory is that of a snapshot that was not loaded")
}

/// The machine starts anew, with a TPM that is reset and has lost nothing.
fn starts_anew(guest: &mut Guest, possessions: &mut Possessions) -> Result<()> {
    guest.qmp().system_reset()?;
    guest.qmp().cont()?;
    guest.wait_ready()?;
    possessions.check_after_reset(guest)?;
    possessions.count(guest)
}

fn snapshots(test: &str, machine: fn(&Setup, &Daemon) -> GuestBuilder) {
    guest_test(test, |setup, scratch| {
        let daemon = Daemon::start(setup, scratch, "host")?;
        daemon.create(NAME)?;
        let machine = machine(setup, &daemon);
        let mut guest = machine.boot(setup, scratch)?;
        let mut possessions = Possessions::make(&mut guest, EVENT, "data of a snapshot")?;
        add_disk(&mut guest, &scratch.join("disk.qcow2"))?;
        is_not_taken(&mut guest, "refused", &possessions)?;

        // Of a machine that runs on: the TPM counts further than what is in the snapshot.
        daemon.control(&["saves", NAME, "allowed"])?;
        take(&mut guest, "running")?;
        same("the run state after it", &guest.qmp().run_state()?.as_str(), &"running")?;
        possessions.check(&mut guest)?;
        same("the state of the instance", &state(&daemon)?.as_str(), &"live")?;
        possessions.count(&mut guest)?;
        does_not_go_back(&daemon, &mut guest, "running")?;
        does_not_go_back(&daemon, &mut guest, "running")?;
        starts_anew(&mut guest, &mut possessions)?;

        // Of one that stands still: the TPM waits for it. The reset with which QEMU begins decides nothing.
        guest.qmp().stop()?;
        take(&mut guest, "paused")?;
        same("the state of the instance", &state(&daemon)?.as_str(), &"saved")?;
        for _ in 0..2 {
            goes_back(&mut guest, "paused")?;
            same("the state of the instance", &state(&daemon)?.as_str(), &"saved")?;
        }
        goes_on(&daemon, &mut guest, &mut possessions)?;
        does_not_go_back(&daemon, &mut guest, "paused")?;
        starts_anew(&mut guest, &mut possessions)?;
        guest.qmp().stop()?;
        take(&mut guest, "continued")?;
        goes_on(&daemon, &mut guest, &mut possessions)?;
        does_not_go_back(&daemon, &mut guest, "continued")?;
        starts_anew(&mut guest, &mut possessions)?;

        // By another QEMU, which switches its TPM on before it loads the snapshot.
        guest.qmp().stop()?;
        take(&mut guest, "left")?;
        same("the state of the instance", &state(&daemon)?.as_str(), &"saved")?;
        drop(guest);
        let disk = scratch.join("disk.qcow2").display().to_string();
        let disk = format!("driver=qcow2,node-name=disk,file.driver=file,file.filename={disk}");
        let back = machine.clone().arguments(["-blockdev", disk.as_str(), "-loadvm", "left"]).paused();
        let mut guest = back.start(setup, scratch)?;
        same("the state of the instance", &state(&daemon)?.as_str(), &"saved")?;
        goes_on(&daemon, &mut guest, &mut possessions)?;
        drop(guest);
        let before = refusals(&daemon)?;
        match back.start(setup, scratch) {
            Err(Error::Ended { .. }) => {}
            Err(other) => return Err(other),
            Ok(_) => return Err(Error::Differs("QEMU started twice from a snapshot".into())),
        }
        same("the refusals in the log", &refusals(&daemon)?, &before.saturating_add(1))?;
        same("the state of the instance", &state(&daemon)?.as_str(), &"live")?;
        let mut guest = machine.boot(setup, scratch)?;
        possessions.check_after_reset(&mut guest)?;
        possessions.count(&mut guest)
    });
}

#[test]
fn a_machine_with_crb_goes_back_to_a_snapshot_once() {
    snapshots("snapshots-crb", |setup, daemon| {
        GuestBuilder::new(setup, NAME).emulator(&daemon.control_socket(NAME), "tpm-crb")
    });
}

#[test]
fn a_machine_of_debians_qemu_goes_back_to_a_snapshot_once() {
    snapshots("snapshots-debian", |setup, daemon| {
        GuestBuilder::new(setup, NAME)
            // The emulated processor of QEMU 7.2 fails under a kernel of 6.12.
            .kernel("6.1")
            .qemu(Path::new("/usr/bin/qemu-system-x86_64"))
            .emulator(&daemon.control_socket(NAME), "tpm-crb")
    });
}

#[test]
fn a_machine_with_virtio_goes_back_to_a_snapshot_once() {
    snapshots("snapshots-virtio", |setup, daemon| GuestBuilder::new(setup, NAME).tpm(&daemon.socket(NAME)));
}
