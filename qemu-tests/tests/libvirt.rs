//! Machines that libvirt runs.

use qemu_tests::libvirt::{Libvirtd, emulator_domain, external_domain, virtio_domain};
use qemu_tests::process::wait_until;
use qemu_tests::snapshot::add_disk;
use qemu_tests::{
    Daemon, Error, GuestBuilder, Hosts, Possessions, Result, Setup, Workload, ensure, guest_test, same,
};
use std::path::Path;
use std::time::Duration;

const EVENT: &str = "90090000000000000000000000000000000000000000000000000000000000f4";
const NAME: &str = "alice";
const PATIENCE: Duration = Duration::from_secs(20);

fn instances(daemon: &Daemon) -> Result<String> {
    daemon.control(&["list"])
}

/// What libvirt says of something that must fail.
fn refusal(result: Result<()>) -> Result<String> {
    match result {
        Err(Error::Status { output, .. }) => Ok(output),
        Err(other) => Err(other),
        Ok(()) => Err(Error::Differs("libvirt did what it had to refuse".into())),
    }
}

#[test]
fn a_live_migration_of_a_virtio_tpm_takes_no_step_but_the_hook() {
    life_of_a_domain("libvirt-virtio", virtio_domain);
}

#[test]
fn a_live_migration_of_a_crb_takes_no_step_but_the_hook() {
    life_of_a_domain("libvirt-crb", external_domain);
}

/// From its definition to its end, with a migration there and back under load.
fn life_of_a_domain(test: &str, xml: fn(&Setup, &str, &str) -> String) {
    guest_test(test, |setup, scratch| {
        let mut hosts = Hosts::start_linked(setup, scratch)?;
        let mut here = Libvirtd::start(setup, scratch, "libvirt-one", &hosts.source)?;
        let mut there = Libvirtd::start(setup, scratch, "libvirt-two", &hosts.destination)?;
        hosts.source.create(NAME)?;
        here.define(&xml(setup, NAME, &hosts.source.uuid(NAME)?))?;
        here.virsh(&["start", NAME])?;
        let mut guest = here.guest(NAME)?;
        guest.wait_ready()?;
        let mut possessions = Possessions::make(&mut guest, EVENT, "data that travels")?;

        // Nothing is armed, so that the state does not leave: the machine runs on, and so does its TPM.
        let file = scratch.join("saved").display().to_string();
        let said = refusal(here.virsh(&["save", NAME, &file]).map(drop))?;
        println!("virsh save: {said}");
        same("state after a refused save", &here.virsh(&["domstate", NAME])?.as_str(), &"running")?;
        possessions.check(&mut guest)?;

        for trip in 1..=2 {
            let workload = Workload::start(&mut guest, "load")?;
            here.migrate(NAME, &there)?;
            same("state", &there.virsh(&["domstate", NAME])?.as_str(), &"running")?;
            guest = there.guest(NAME)?;
            workload.wait_rounds(&mut guest, 10)?;
            // The receipt came over the link, and nothing is left.
            wait_until("the instance stays at the source", PATIENCE, || {
                Ok((!instances(&hosts.source)?.contains(NAME)).then_some(()))
            })?;
            let summary = workload.stop(&mut guest)?;
            println!("trip {trip}: {} commands, slowest {:?}", summary.commands, summary.latency_us.max);
            summary.exactly_once()?;
            possessions.check(&mut guest)?;
            possessions.count(&mut guest)?;
            hosts.turn();
            std::mem::swap(&mut here, &mut there);
        }

        // A TPM that lives at the destination already: the hook stops the migration before anything has moved.
        let uuid = hosts.source.uuid(NAME)?;
        hosts.destination.control(&["create", "another", "--uuid", &uuid])?;
        let said = refusal(here.migrate(NAME, &there))?;
        println!("virsh migrate: {said}");
        ensure(said.contains("there is an instance with this UUID here, another, and it is live"), said)?;
        same("state after a refused migration", &here.virsh(&["domstate", NAME])?.as_str(), &"running")?;
        possessions.check(&mut guest)?;

        // A reboot by libvirt is a reset of the machine; what is durable is there again.
        let before = guest.boot_id()?;
        here.virsh(&["reset", NAME])?;
        guest.wait_reboot(&before)?;
        possessions.check_after_reset(&mut guest)?;
        here.virsh(&["destroy", NAME])?;
        here.virsh(&["undefine", NAME])?;
        ensure(instances(&hosts.source)?.contains(NAME), "the instance went with its domain")
    });
}

#[test]
fn libvirt_runs_our_programs_in_place_of_swtpm() {
    guest_test("libvirt-emulator", |setup, scratch| {
        let daemon = Daemon::start(setup, scratch, "host")?;
        let host = Libvirtd::start(setup, scratch, "libvirt", &daemon)?;
        let uuid = "6f1c5a52-9b0c-4d0e-8d65-0d2a5b1c7e02";
        host.define(&emulator_domain(setup, NAME, uuid))?;
        host.virsh(&["start", NAME])?;
        let mut guest = host.guest(NAME)?;
        guest.wait_ready()?;
        let maker = guest.run(&["tpm2_getcap", "properties-fixed"])?;
        ensure(maker.contains("VTPM"), format!("another TPM than ours: {maker}"))?;
        let possessions = Possessions::make(&mut guest, EVENT, "data that stays")?;
        let before = guest.boot_id()?;
        host.virsh(&["reset", NAME])?;
        guest.wait_reboot(&before)?;
        possessions.check_after_reset(&mut guest)?;
        drop(guest);

        // The process of the TPM ends with the machine; its state stays until the domain goes.
        host.virsh(&["destroy", NAME])?;
        host.virsh(&["start", NAME])?;
        let mut guest = host.guest(NAME)?;
        guest.wait_ready()?;
        possessions.check_after_reset(&mut guest)?;
        drop(guest);
        host.virsh(&["destroy", NAME])?;
        host.virsh(&["undefine", NAME])?;
        host.define(&emulator_domain(setup, NAME, uuid))?;
        host.virsh(&["start", NAME])?;
        let mut guest = host.guest(NAME)?;
        guest.wait_ready()?;
        ensure(possessions.check_after_reset(&mut guest).is_err(), "the TPM outlived its domain")
    });
}

#[test]
fn a_saved_machine_with_a_virtio_tpm_comes_back_once() {
    saves_of_a_daemon("libvirt-save-virtio", virtio_domain);
}

#[test]
fn a_saved_machine_with_a_crb_comes_back_once() {
    saves_of_a_daemon("libvirt-save-crb", external_domain);
}

fn saves_of_a_daemon(test: &str, xml: fn(&Setup, &str, &str) -> String) {
    guest_test(test, |setup, scratch| {
        let mut daemon = Daemon::start(setup, scratch, "host")?;
        let host = Libvirtd::start(setup, scratch, "libvirt", &daemon)?;
        daemon.create(NAME)?;
        host.define(&xml(setup, NAME, &daemon.uuid(NAME)?))?;
        host.virsh(&["start", NAME])?;
        let mut guest = host.guest(NAME)?;
        guest.wait_ready()?;
        let mut possessions = Possessions::make(&mut guest, EVENT, "data that is saved")?;

        // Nobody has allowed it: the machine runs on, and so does its TPM.
        for what in [&["managedsave", NAME][..], &snapshot(scratch).each_ref().map(String::as_str)] {
            println!("{what:?}: {}", refusal(host.virsh(what).map(drop))?);
            same("state after a refusal", &host.virsh(&["domstate", NAME])?.as_str(), &"running")?;
            possessions.check(&mut guest)?;
        }
        drop(guest);
        daemon.control(&["saves", NAME, "allowed"])?;
        host.virsh(&["managedsave", NAME])?;
        ensure(daemon.control(&["info", NAME])?.contains("state:      saved"), "it is not saved")?;
        // Between save and start vtpmd dies.
        daemon.kill()?;
        daemon.restart()?;
        host.virsh(&["start", NAME])?;
        let mut guest = host.guest(NAME)?;
        possessions.check(&mut guest)?;
        possessions.count(&mut guest)?;
        drop(guest);
        comes_back_once(&host, scratch, &mut possessions, &|| daemon.logged())?;
        ensure(daemon.control(&["info", NAME])?.contains("state:      live"), "it does not live")
    });
}

/// Snapshots with memory in the domain's disk.
#[test]
fn a_domain_does_not_go_back_to_a_snapshot_after_which_it_has_run() {
    guest_test("libvirt-internal", |setup, scratch| {
        let disk = scratch.join("disk.qcow2");
        add_disk(&mut GuestBuilder::new(setup, "maker").paused().start(setup, scratch)?, &disk)?;
        let daemon = Daemon::start(setup, scratch, "host")?;
        let host = Libvirtd::start(setup, scratch, "libvirt", &daemon)?;
        daemon.create(NAME)?;
        let disk = format!(
            "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{}'/>
             <target dev='vda' bus='virtio'/></disk></devices>",
            disk.display()
        );
        host.define(&external_domain(setup, NAME, &daemon.uuid(NAME)?).replace("</devices>", &disk))?;
        host.virsh(&["start", NAME])?;
        let mut guest = host.guest(NAME)?;
        guest.wait_ready()?;
        let mut possessions = Possessions::make(&mut guest, EVENT, "data of a snapshot")?;
        println!("{}", refusal(host.virsh(&["snapshot-create-as", NAME, "one"]).map(drop))?);
        same("state after a refusal", &host.virsh(&["domstate", NAME])?.as_str(), &"running")?;
        possessions.check(&mut guest)?;

        daemon.control(&["saves", NAME, "allowed"])?;
        host.virsh(&["snapshot-create-as", NAME, "two"])?;
        same("state after a snapshot", &host.virsh(&["domstate", NAME])?.as_str(), &"running")?;
        possessions.check(&mut guest)?;
        possessions.count(&mut guest)?;
        drop(guest);
        println!("{}", refusal(host.virsh(&["snapshot-revert", NAME, "two", "--force"]).map(drop))?);
        ensure(daemon.logged()?.contains("comes back once"), "nobody says why")?;
        let state = host.virsh(&["domstate", NAME])?;
        println!("after it the domain is {state}");
        ensure(state != "running", "the domain runs with the memory of a snapshot that was not loaded")?;
        if state != "shut off" {
            host.virsh(&["destroy", NAME])?;
        }
        host.virsh(&["start", NAME])?;
        let mut guest = host.guest(NAME)?;
        guest.wait_ready()?;
        possessions.check_after_reset(&mut guest)?;

        // With --halt it has not run since: once, like any save.
        drop(guest);
        host.virsh(&["snapshot-create-as", NAME, "three", "--halt"])?;
        same("state after a halt", &host.virsh(&["domstate", NAME])?.as_str(), &"shut off")?;
        ensure(daemon.control(&["info", NAME])?.contains("state:      saved"), "it is not saved")?;
        host.virsh(&["snapshot-revert", NAME, "three"])?;
        let mut guest = host.guest(NAME)?;
        possessions.check(&mut guest)?;
        possessions.count(&mut guest)?;
        drop(guest);
        println!("{}", refusal(host.virsh(&["snapshot-revert", NAME, "three", "--force"]).map(drop))?);
        host.virsh(&["start", NAME])?;
        let mut guest = host.guest(NAME)?;
        guest.wait_ready()?;
        possessions.check_after_reset(&mut guest)
    });
}

/// A snapshot of memory and devices, to a file.
fn snapshot(scratch: &Path) -> [String; 6] {
    let file = format!("file={},snapshot=external", scratch.join("snapshot").display());
    ["snapshot-create-as", NAME, "now", "--live", "--memspec", &file].map(String::from)
}

/// What a running domain that may be saved does. `logged` is what its TPM's program logged.
fn comes_back_once(
    host: &Libvirtd,
    scratch: &Path,
    possessions: &mut Possessions,
    logged: &dyn Fn() -> Result<String>,
) -> Result<()> {
    const WHY: &str = "has lived on since it had this state";
    let refusals = || logged().map(|log| log.matches(WHY).count());
    let file = scratch.join("saved").display().to_string();
    host.virsh(&["save", NAME, &file])?;
    host.virsh(&["restore", &file])?;
    possessions.check(&mut host.guest(NAME)?)?;
    host.virsh(&["destroy", NAME])?;
    let before = refusals()?;
    println!("a second restore: {}", refusal(host.virsh(&["restore", &file]).map(drop))?);
    ensure(refusals()? > before, "nobody says why a second restore is refused")?;

    // The machine starts without what was saved, which is void then.
    host.virsh(&["start", NAME])?;
    let mut guest = host.guest(NAME)?;
    guest.wait_ready()?;
    possessions.check_after_reset(&mut guest)?;
    drop(guest);
    host.virsh(&["managedsave", NAME])?;
    host.virsh(&["managedsave-remove", NAME])?;
    host.virsh(&["start", NAME])?;
    let mut guest = host.guest(NAME)?;
    guest.wait_ready()?;
    possessions.check_after_reset(&mut guest)?;

    // The machine runs on after a snapshot: that is of no use from then on.
    host.virsh(&snapshot(scratch).each_ref().map(String::as_str))?;
    same("state after a snapshot", &host.virsh(&["domstate", NAME])?.as_str(), &"running")?;
    possessions.check(&mut guest)?;
    drop(guest);
    host.virsh(&["destroy", NAME])?;
    let (before, memory) = (refusals()?, scratch.join("snapshot").display().to_string());
    println!("a restore of the snapshot: {}", refusal(host.virsh(&["restore", &memory]).map(drop))?);
    ensure(refusals()? > before, "nobody says why the snapshot is refused")?;
    host.virsh(&["start", NAME])?;
    let mut guest = host.guest(NAME)?;
    guest.wait_ready()?;
    possessions.check_after_reset(&mut guest)
}

#[test]
fn a_saved_machine_with_our_programs_in_place_of_swtpm_comes_back_once() {
    guest_test("libvirt-save-emulator", |setup, scratch| {
        let daemon = Daemon::start(setup, scratch, "host")?;
        let host = Libvirtd::start(setup, scratch, "libvirt", &daemon)?;
        host.define(&emulator_domain(setup, NAME, "6f1c5a52-9b0c-4d0e-8d65-0d2a5b1c7e03"))?;
        host.virsh(&["start", NAME])?;
        let mut guest = host.guest(NAME)?;
        guest.wait_ready()?;
        let mut possessions = Possessions::make(&mut guest, EVENT, "data that is saved")?;
        drop(guest);
        host.virsh(&["managedsave", NAME])?;
        host.virsh(&["start", NAME])?;
        let mut guest = host.guest(NAME)?;
        possessions.check(&mut guest)?;
        possessions.count(&mut guest)?;
        drop(guest);
        let log = scratch.join(format!("libvirt/log/swtpm/libvirt/qemu/{NAME}-swtpm.log"));
        let logged = || std::fs::read_to_string(&log).map_err(Error::io(log.display().to_string()));
        comes_back_once(&host, scratch, &mut possessions, &logged)
    });
}
