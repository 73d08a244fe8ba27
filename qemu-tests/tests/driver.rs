//! The driver `tpm_virtio`, on every kernel it is built for: what the guest's side of the device goes through without
//! the TPM noticing, and what resets the TPM.

use qemu_tests::{Daemon, Guest, GuestBuilder, Result, Workload, ensure, guest_test, same};
use serde_json::json;
use std::time::Duration;

const EVENT: &str = "c0de000000000000000000000000000000000000000000000000000000000001";

/// Runs the body on a fresh guest of every kernel.
fn on_every_kernel(name: &str, body: impl Fn(&mut Guest) -> Result<()>) {
    on_every_kernel_with(name, |builder| builder, body);
}

/// Runs the body on a guest of every kernel that is made in a way of its own.
fn on_every_kernel_with(
    name: &str,
    make: impl Fn(GuestBuilder) -> GuestBuilder,
    body: impl Fn(&mut Guest) -> Result<()>,
) {
    guest_test(name, |setup, scratch| {
        let daemon = Daemon::start(setup, scratch, "host")?;
        for (number, kernel) in setup.kernels()?.iter().enumerate() {
            let instance = format!("tpm{number}");
            let socket = daemon.create(&instance)?;
            let builder = GuestBuilder::new(setup, &instance).kernel(kernel).tpm(&socket);
            let mut guest = make(builder).boot(setup, scratch)?;
            body(&mut guest)?;
        }
        Ok(())
    });
}

fn extend(guest: &mut Guest) -> Result<Vec<String>> {
    guest.run(&["tpm2_pcrextend", &format!("9:sha256={EVENT}")])?;
    let pcrs = guest.pcrs("sha256")?;
    ensure(pcrs.get(9).is_some_and(|value| *value != "0".repeat(64)), "the extend had no effect")?;
    Ok(pcrs)
}

#[test]
fn the_device_is_a_tpm_to_the_kernel_and_to_tpm2_tools() {
    on_every_kernel("driver-basic", |guest| {
        same("version", &guest.run(&["cat", "/sys/class/tpm/tpm0/tpm_version_major"])?.trim(), &"2")?;
        guest.run(&["tpm2_getcap", "properties-fixed"])?;
        let random = guest.run(&["tpm2_getrandom", "--hex", "24"])?;
        same("random bytes in hexadecimal", &random.trim().len(), &48)?;
        // The kernel's own reading of the PCRs goes another way through the core than tpm2-tools.
        let pcrs = extend(guest)?;
        let sysfs = guest.run(&["cat", "/sys/class/tpm/tpm0/pcr-sha256/9"])?;
        same("PCR 9 in sysfs", &sysfs.trim().to_lowercase(), &pcrs.get(9).cloned().unwrap_or_default())?;

        let workload = Workload::start(guest, "loop")?;
        workload.wait_rounds(guest, 200)?;
        let summary = workload.stop(guest)?;
        println!("{} commands in {:.1} s, {:?}", summary.commands, summary.seconds, summary.latency_us);
        summary.exactly_once()
    });
}

#[test]
fn malformed_commands_get_an_answer_and_the_next_command_works() {
    on_every_kernel("driver-malformed", |guest| {
        for command in [
            // GetRandom with a parameter missing, with a byte too many, under a tag that is none, a code that is none.
            "80010000000a0000017b",
            "80010000000d0000017b000800",
            "12340000000c0000017b0008",
            "80010000000a20ffffff",
        ] {
            let response = guest.tpm(command)?;
            ensure(response.len() == 10, format!("{command}: {}", hex::encode(&response)))?;
            ensure(response.get(6..10) != Some(&[0; 4]), format!("{command} succeeded"))?;
        }
        let response = guest.tpm("80010000000c0000017b0008")?;
        same("length of eight random bytes", &response.len(), &20)
    });
}

#[test]
fn pcrs_survive_rebinding_reloading_and_a_function_level_reset() {
    on_every_kernel("driver-reset", |guest| {
        let pcrs = extend(guest)?;
        let boot = guest.boot_id()?;

        guest.run(&["guest-helper", "rebind"])?;
        same("PCRs after the driver was bound again", &guest.pcrs("sha256")?, &pcrs)?;

        guest.shell("rmmod tpm_virtio; insmod /lib/vtpmd/tpm_virtio.ko")?;
        same("PCRs after the driver was loaded again", &guest.pcrs("sha256")?, &pcrs)?;

        guest.run(&["guest-helper", "flr", "--unbound"])?;
        same("PCRs after a function-level reset", &guest.pcrs("sha256")?, &pcrs)?;

        guest.run(&["guest-helper", "flr"])?;
        same("PCRs after a function-level reset under the driver", &guest.pcrs("sha256")?, &pcrs)?;
        guest.run(&["tpm2_getrandom", "--hex", "8"])?;

        same("boot", &guest.boot_id()?, &boot)
    });
}

#[test]
fn a_command_in_flight_survives_a_storm_of_function_level_resets() {
    on_every_kernel("driver-storm", |guest| {
        let workload = Workload::start(guest, "loop")?;
        for _ in 0..5 {
            guest.run(&["guest-helper", "flr"])?;
            workload.wait_rounds(guest, 2)?;
        }
        let summary = workload.stop(guest)?;
        println!("{summary:?}");
        // A command that was in the queue at that moment may fail, and then nobody knows whether it was done. What the
        // loop may not see is one that succeeded without effect, or a driver that does not come back.
        ensure(summary.failed.len() <= 5, format!("more failures than resets: {:?}", summary.failed))?;
        ensure(summary.repeated == 0, format!("a command was done twice: {summary:?}"))
    });
}

#[test]
fn a_machine_reset_and_a_guest_reboot_clear_the_pcrs() {
    on_every_kernel("driver-reboot", |guest| {
        let fresh = guest.pcrs("sha256")?;
        extend(guest)?;
        guest.reset()?;
        same("PCRs after a machine reset", &guest.pcrs("sha256")?, &fresh)?;

        extend(guest)?;
        let boot = guest.boot_id()?;
        guest.shell("(sleep 0.2; reboot -f) >/dev/null 2>&1 &")?;
        guest.wait_reboot(&boot)?;
        same("PCRs after the guest rebooted", &guest.pcrs("sha256")?, &fresh)
    });
}

#[test]
fn a_machine_that_slept_finds_its_tpm_as_it_was() {
    on_every_kernel_with("driver-sleep", GuestBuilder::sleeps, |guest| {
        let pcrs = extend(guest)?;
        guest.qmp().forget_events()?;
        guest.shell("(sleep 0.2; echo mem >/sys/power/state) >/dev/null 2>&1 &")?;
        guest.qmp().wait_event("SUSPEND", Duration::from_secs(30))?;
        guest.qmp().execute("system_wakeup", json!({}))?;
        guest.wait_ready()?;
        same("PCRs after the machine slept", &guest.pcrs("sha256")?, &pcrs)?;
        let workload = Workload::start(guest, "loop")?;
        workload.wait_rounds(guest, 5)?;
        workload.stop(guest)?.exactly_once()
    });
}

#[test]
fn a_device_that_is_unplugged_goes_and_one_that_is_plugged_in_comes() {
    on_every_kernel("driver-unplug", |guest| {
        let fresh = guest.pcrs("sha256")?;
        extend(guest)?;
        guest.shell("guest-helper loop >/tmp/loop 2>&1 </dev/null & sleep 1")?;
        guest.qmp().forget_events()?;
        guest.qmp().execute("device_del", json!({ "id": "tpm0" }))?;
        guest.qmp().wait_event("DEVICE_DELETED", Duration::from_secs(60))?;
        // The loop holds the device open, and must see errors rather than wait.
        guest.shell(
            "i=0; while pidof guest-helper | grep -q ' '; do usleep 100000; i=$((i+1)); [ $i -lt 100 ]; done",
        )?;
        let end = guest.run(&["cat", "/tmp/loop"])?;
        ensure(end.contains("\"failed\":[{"), format!("the loop ended otherwise: {end}"))?;
        ensure(guest.run(&["ls", "/dev/tpm0"]).is_err(), "the device node is still there")?;

        guest.qmp().execute(
            "device_add",
            json!({ "driver": "vhost-user-tpm-pci", "id": "tpm0", "bus": "pcie1", "chardev": "tpm" }),
        )?;
        guest.shell("i=0; while [ ! -e /dev/tpm0 ]; do usleep 100000; i=$((i+1)); [ $i -lt 300 ]; done")?;
        // What is plugged in was powered on.
        same("PCRs after the device was plugged in again", &guest.pcrs("sha256")?, &fresh)?;
        guest.run(&["tpm2_getrandom", "--hex", "8"]).map(drop)
    });
}
