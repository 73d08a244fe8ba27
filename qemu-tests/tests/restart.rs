//! Guests that use their TPMs while vtpmd is restarted by systemd, which runs in a container.

#[allow(
    dead_code,
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "shared with vtpmd's tests/restart, which uses the rest; a test that panics has failed"
)]
#[path = "../../tests/restart/systemd.rs"]
mod systemd;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use qemu_tests::{
    Error, Guest, GuestBuilder, Possessions, Result, Setup, Summary, Workload, ensure, guest_test, same,
};
use systemd::Container;

const EVENT: &str = "60060000000000000000000000000000000000000000000000000000000000a4";
const RESTARTS: usize = 3;
/// A restart may take as long. Linux gives up a command to a device that it polls after 750 ms.
const SHORT: Duration = Duration::from_millis(500);
/// The host of this test may have other things to do.
const PATIENCE: Duration = Duration::from_secs(5);
/// So often it is tried whether restarts are short.
const ROUNDS: usize = 4;

/// A machine whose TPM is at a door of the daemon in the container.
struct Machine {
    name: &'static str,
    door: PathBuf,
    guest: Guest,
    possessions: Possessions,
}

impl Machine {
    fn boot(
        setup: &Setup,
        scratch: &Path,
        container: &Container,
        name: &'static str,
        door: &str,
        device: impl FnOnce(GuestBuilder, &Path) -> GuestBuilder,
    ) -> Result<Self> {
        container.succeed(&["vtpmctl", "create", name]);
        let door = container.path("/run/vtpmd").join(name).join(door);
        let machine = device(GuestBuilder::new(setup, name), &door);
        let mut guest = machine.boot(setup, scratch)?;
        let possessions = Possessions::make(&mut guest, EVENT, name)?;
        Ok(Self { name, door, guest, possessions })
    }

    /// Which file the socket is.
    fn file(&self) -> Result<u64> {
        let metadata = std::fs::metadata(&self.door).map_err(Error::io(self.door.display().to_string()))?;
        Ok(metadata.ino())
    }
}

fn restart(container: &Container) -> Duration {
    let begin = Instant::now();
    container.succeed(&["systemctl", "restart", "vtpmd.service"]);
    begin.elapsed()
}

/// The slowest command of a loop.
fn longest(summary: &Summary) -> Duration {
    Duration::from_micros(summary.latency_us.max.into())
}

/// Restarts vtpmd while the machines use their TPMs. Of those that poll theirs, nothing is asked if a restart was not short.
fn restarts_are_short(container: &Container, machines: &mut [Machine]) -> Result<bool> {
    let loops = machines.iter_mut().map(|m| Workload::start(&mut m.guest, "loop"));
    let loops = loops.collect::<Result<Vec<_>>>()?;
    let mut slowest = Duration::ZERO;
    for _ in 0..RESTARTS {
        slowest = slowest.max(restart(container));
        for (machine, running) in machines.iter_mut().zip(&loops) {
            running.wait_rounds(&mut machine.guest, 3)?;
        }
    }
    println!("the slowest of {RESTARTS} restarts took {slowest:?}");
    for (machine, running) in machines.iter_mut().zip(loops) {
        let summary = running.stop(&mut machine.guest)?;
        println!("{}: {} commands, the longest {:?}", machine.name, summary.commands, longest(&summary));
        if slowest < SHORT || machine.name == "virtio" {
            summary.exactly_once()?;
            ensure(longest(&summary) < PATIENCE, format!("a command took {:?}", longest(&summary)))?;
        }
        machine.possessions.check(&mut machine.guest)?;
    }
    Ok(slowest < SHORT)
}

#[test]
fn guests_do_not_notice_a_restart_of_the_service() {
    guest_test("restart", |setup, scratch| {
        let container = match Container::boot() {
            Ok(container) => container,
            Err(why) => {
                println!("SKIPPED: this machine cannot run systemd in a container: {why}");
                return Ok(());
            }
        };
        container.install(&setup.programs, &Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd"));
        container.succeed(&["systemctl", "start", "vtpmd-init.service"]);
        container.succeed(&["systemctl", "start", "vtpmd.service"]);
        let mut machines = [
            Machine::boot(setup, scratch, &container, "virtio", "vhost-user.sock", |machine, door| {
                machine.tpm(door)
            })?,
            Machine::boot(setup, scratch, &container, "crb", "control.sock", |machine, door| {
                machine.emulator(door, "tpm-crb")
            })?,
            // The emulated processor of Debian's QEMU 7.2 fails under a kernel of 6.12.
            Machine::boot(setup, scratch, &container, "tis", "control.sock", |machine, door| {
                machine.kernel("6.1").qemu(Path::new("/usr/bin/qemu-system-x86_64")).emulator(door, "tpm-tis")
            })?,
        ];
        let files = machines.iter().map(Machine::file).collect::<Result<Vec<_>>>()?;
        let mut rounds = 0..ROUNDS;
        while rounds.next().is_some() && !restarts_are_short(&container, &mut machines)? {}
        same(
            "the files of the sockets",
            &machines.iter().map(Machine::file).collect::<Result<_>>()?,
            &files,
        )?;

        // The machine that comes up then finds its TPM on, and empty PCRs in it.
        for machine in &mut machines {
            let boot = machine.guest.boot_id()?;
            machine.guest.qmp().system_reset()?;
            restart(&container);
            machine.guest.wait_reboot(&boot)?;
            machine.possessions.check_after_reset(&mut machine.guest)?;
        }
        same("starts that systemd made by itself", &container.property("NRestarts").as_str(), &"0")
    });
}
