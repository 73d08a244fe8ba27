//! Guests whose TPM is `tpm-crb` or `tpm-tis` of an unmodified QEMU, in front of vtpmd's control channel: QEMU 7.2 as Debian has it, and
//! the release that the setup's QEMU was built from.

use qemu_tests::snapshot::{add_disk, monitor};
use qemu_tests::{
    Daemon, Error, Guest, GuestBuilder, Hosts, Possessions, Result, Setup, ensure, guest_test, same,
};
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const EVENT: &str = "50050000000000000000000000000000000000000000000000000000000000f3";
const NAME: &str = "stock";
/// An instance that is nobody's destination.
const DECOY: &str = "decoy";
/// TPM2_GetRandom of eight bytes.
const GET_RANDOM: &str = "80010000000c0000017b0008";
const PATIENCE: Duration = Duration::from_secs(60);

/// Debian's own QEMU.
fn stock_qemu() -> Result<PathBuf> {
    let program = PathBuf::from("/usr/bin/qemu-system-x86_64");
    let absent = || Error::Setup("there is no QEMU of the distribution; scripts/test installs it".into());
    if program.exists() { Ok(program) } else { Err(absent()) }
}

/// The response code of a command that the guest sends.
fn code(guest: &mut Guest) -> Result<u32> {
    let response = guest.tpm(GET_RANDOM)?;
    let code = response.get(6..10).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes);
    code.ok_or_else(|| Error::Format { what: "a response".into(), text: format!("{response:02x?}") })
}

/// The TPM is what the device makes of it, and answers.
fn is_there(guest: &mut Guest, device: &str) -> Result<()> {
    let driver = guest.run(&["readlink", "-f", "/sys/class/tpm/tpm0/device/driver"])?;
    let expected = device.replace('-', "_");
    ensure(driver.trim().ends_with(&expected), format!("the driver is {}", driver.trim()))?;
    same("the response code of GetRandom", &code(guest)?, &0)
}

/// A snapshot of the machine is refused, and the guest runs on with its TPM.
fn no_snapshot(guest: &mut Guest, scratch: &Path, possessions: &Possessions) -> Result<()> {
    add_disk(guest, &scratch.join("disk.qcow2"))?;
    let said = monitor(guest, "savevm one")?;
    ensure(said.to_lowercase().contains("error"), format!("savevm said {said}"))?;
    let there = monitor(guest, "info snapshots")?;
    ensure(!there.contains("one"), format!("there is a snapshot: {there}"))?;
    same("the run state after savevm", &guest.qmp().run_state()?.as_str(), &"running")?;
    possessions.check(guest)
}

/// Nobody has prepared the migration: it fails, and the guest runs on with its TPM.
fn no_unprepared_migration(guest: &mut Guest, scratch: &Path, possessions: &Possessions) -> Result<()> {
    let file = scratch.join("unprepared").display().to_string();
    guest.qmp().migrate_to_command(&format!("cat >{file}"))?;
    let migration = guest.qmp().wait_migration("failed", PATIENCE)?;
    same("the unprepared migration", &migration.status.as_str(), &"failed")?;
    same("the run state after it", &guest.qmp().run_state()?.as_str(), &"running")?;
    possessions.check(guest)
}

/// While a machine has the instance, others are sent away at both of its doors, and the log says who has it.
fn no_second_client(daemon: &Daemon, guest: &mut Guest) -> Result<()> {
    let qemu = guest.process()?.id();
    for socket in [daemon.control_socket(NAME), daemon.socket(NAME)] {
        let what = socket.display().to_string();
        let mut second = UnixStream::connect(&socket).map_err(Error::io(what.clone()))?;
        second.set_read_timeout(Some(PATIENCE)).map_err(Error::io(what.clone()))?;
        let got = second.read(&mut [0]).map_err(Error::io(what.clone()))?;
        same(&format!("what a second client reads at {what}"), &got, &0)?;
    }
    let line = format!("process {qemu} at the control channel has the instance");
    same("the lines about who has it", &daemon.logged()?.matches(&line).count(), &2)
}

/// The destination refuses the state, and the machine goes on where it was.
fn fall_back(
    setup: &Setup,
    hosts: &mut Hosts,
    guest: &mut Guest,
    arriving: GuestBuilder,
) -> Result<Duration> {
    let mut attempt = hosts.migrate_to(setup, guest, arriving, None)?;
    same("the migration", &attempt.migration.status.as_str(), &"failed")?;
    let failed = Instant::now();
    // It has refused, and ends.
    attempt.guest.process()?.wait(PATIENCE)?;
    same("the run state of the source", &guest.qmp().run_state()?.as_str(), &"running")?;
    Ok(failed.elapsed())
}

#[test]
fn a_linked_migration_and_all_before_it_with_debians_qemu_and_crb() {
    guest_test("crb", |setup, scratch| {
        let qemu = stock_qemu()?;
        let mut hosts = Hosts::start_linked(setup, scratch)?;
        hosts.source.create(NAME)?;
        hosts.destination.create(DECOY)?;
        let machine = |name: &str, control: &Path| {
            // The emulated processor of QEMU 7.2 fails under a kernel of 6.12.
            GuestBuilder::new(setup, name).kernel("6.1").qemu(&qemu).emulator(control, "tpm-crb")
        };
        let mut guest = machine(NAME, &hosts.source.control_socket(NAME)).boot(setup, scratch)?;
        is_there(&mut guest, "tpm-crb")?;
        // The firmware has measured what it starts.
        let pcrs = guest.pcrs("sha256")?;
        ensure(pcrs.first().is_some_and(|pcr| pcr != &"0".repeat(64)), format!("PCR 0 of {pcrs:?}"))?;
        let made = Possessions::make(&mut guest, EVENT, "data that travels")?;
        no_second_client(&hosts.source, &mut guest)?;
        no_snapshot(&mut guest, scratch, &made)?;
        no_unprepared_migration(&mut guest, scratch, &made)?;

        // A reboot is `_TPM_Init`; by the reset button, and by the guest.
        guest.reset()?;
        made.check_after_reset(&mut guest)?;
        let boot = guest.boot_id()?;
        guest.shell("(sleep 0.2; reboot -f) >/dev/null 2>&1 &")?;
        guest.wait_reboot(&boot)?;
        made.check_after_reset(&mut guest)?;
        let mut possessions = made;
        possessions.count(&mut guest)?;

        // QEMU tells nobody that it migrates, nor that it fell back: the slot is found when the state is asked for, and given up when
        // QEMU takes its storage back.
        hosts.ticket(NAME)?;
        let decoy = machine("decoy", &hosts.destination.control_socket(DECOY));
        fall_back(setup, &mut hosts, &mut guest, decoy)?;
        let fallen = Instant::now();
        same("the response code after falling back", &code(&mut guest)?, &0)?;
        println!("served {:?} after falling back", fallen.elapsed());
        possessions.check(&mut guest)?;
        hosts.destination.control(&["delete", NAME])?;

        // The only step: a slot at the destination.
        hosts.ticket(NAME)?;
        let arriving = machine("arriving", &hosts.destination.control_socket(NAME));
        let mut attempt = hosts.migrate_to(setup, &mut guest, arriving, None)?;
        same("the migration", &attempt.migration.status.as_str(), &"completed")?;
        println!("{:?}", attempt.migration);
        let arrived = &mut attempt.guest;
        possessions.check(arrived)?;
        possessions.count(arrived)?;
        let started = Instant::now();
        while hosts.source.control(&["list"])?.contains(NAME) {
            ensure(started.elapsed() < PATIENCE, "the source keeps the instance")?;
            std::thread::sleep(Duration::from_millis(20));
        }
        // The machine at the source cannot go on with a second copy.
        same("the run state of the source", &guest.qmp().run_state()?.as_str(), &"postmigrate")?;
        drop(guest);
        arrived.reset()?;
        possessions.check_after_reset(arrived)
    });
}

#[test]
fn a_migration_by_hand_with_the_newer_qemu_and_tis() {
    guest_test("tis", |setup, scratch| {
        let mut hosts = Hosts::start(setup, scratch)?;
        hosts.source.create(NAME)?;
        hosts.destination.create(DECOY)?;
        let machine =
            |name: &str, control: &Path| GuestBuilder::new(setup, name).emulator(control, "tpm-tis");
        let mut guest = machine(NAME, &hosts.source.control_socket(NAME)).boot(setup, scratch)?;
        is_there(&mut guest, "tpm-tis")?;
        let mut possessions = Possessions::make(&mut guest, EVENT, "data that travels")?;
        no_unprepared_migration(&mut guest, scratch, &possessions)?;

        // Nobody asks for a receipt: the TPM is locked until somebody brings it, and the guest runs.
        hosts.prepare(NAME)?;
        let decoy = machine("decoy", &hosts.destination.control_socket(DECOY));
        fall_back(setup, &mut hosts, &mut guest, decoy)?;
        same("the response code before the receipt", &code(&mut guest)?, &0x922)?;
        hosts.give_up(NAME)?;
        same("the response code after it", &code(&mut guest)?, &0)?;
        possessions.check(&mut guest)?;

        hosts.prepare(NAME)?;
        let arriving = machine("arriving", &hosts.destination.control_socket(NAME));
        let mut attempt = hosts.migrate_to(setup, &mut guest, arriving, None)?;
        same("the migration", &attempt.migration.status.as_str(), &"completed")?;
        possessions.check(&mut attempt.guest)?;
        possessions.count(&mut attempt.guest)?;
        hosts.settle(NAME)?;
        attempt.guest.reset()?;
        possessions.check_after_reset(&mut attempt.guest)
    });
}
