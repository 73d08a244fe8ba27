//! The harness itself: what the other tests rely on when they say that a guest did something.

use qemu_tests::frame::Response;
use qemu_tests::{GuestBuilder, ensure, guest_test, same};
use std::time::{Duration, Instant};

#[test]
fn a_guest_boots_runs_commands_and_reboots() {
    guest_test("harness", |setup, scratch| {
        let mut guest = GuestBuilder::new(setup, "plain").boot(setup, scratch)?;

        same("output", &guest.run(&["echo", "a  b"])?.as_str(), &"a  b\n")?;
        let failed =
            guest.execute(&["sh", "-c", "echo out; echo err >&2; exit 3"], &[], Duration::from_secs(5))?;
        same("status", &failed.status, &3)?;
        same("standard output", &failed.stdout.as_slice(), &b"out\n".as_slice())?;
        same("standard error", &failed.stderr.as_slice(), &b"err\n".as_slice())?;
        same(
            "a program that is not there",
            &guest.execute(&["nosuch"], &[], Duration::from_secs(5))?.status,
            &1001,
        )?;

        let bytes: Vec<u8> = (0..20_000u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
        guest.write("/tmp/file", &bytes)?;
        let back = guest.execute(&["cat", "/tmp/file"], &[], Duration::from_secs(5))?;
        ensure(back.stdout == bytes, "a file came back different")?;

        let started = Instant::now();
        let slow = guest.execute(&["sleep", "60"], &[], Duration::from_secs(1))?;
        same("a command that takes too long", &slow.status, &Response::TIMED_OUT)?;
        ensure(started.elapsed() < Duration::from_secs(20), "and it was waited for")?;

        // The background process holds on to the pipe; the agent must not wait for it.
        guest.shell("touch /tmp/here; sleep 100 &")?;
        ensure(started.elapsed() < Duration::from_secs(30), "a background process held the agent up")?;

        guest.reset()?;
        ensure(guest.run(&["cat", "/tmp/here"]).is_err(), "a reboot kept a file that was in memory")?;
        ensure(guest.run(&["ls", "/dev/tpm0"]).is_err(), "a TPM where there is none")
    });
}

#[test]
fn a_running_command_and_the_channel_migrate() {
    guest_test("harness-migration", |setup, scratch| {
        let socket = scratch.join("migrate");
        let mut source = GuestBuilder::new(setup, "source").boot(setup, scratch)?;
        source.shell("(for i in $(seq 1000); do echo $i >/tmp/i; usleep 10000; done) >/dev/null 2>&1 &")?;
        let mut destination =
            GuestBuilder::new(setup, "destination").incoming(&socket).start(setup, scratch)?;
        let boot = source.boot_id()?;

        source.qmp().migrate(&socket)?;
        let migration = source.qmp().wait_migration("completed", Duration::from_secs(60))?;
        same("migration", &migration.status.as_str(), &"completed")?;
        same("source", &source.qmp().run_state()?.as_str(), &"postmigrate")?;
        drop(source);

        same("boot", &destination.boot_id()?, &boot)?;
        let one: u64 = destination.run(&["cat", "/tmp/i"])?.trim().parse().unwrap_or(0);
        destination.run(&["usleep", "500000"])?;
        let two: u64 = destination.run(&["cat", "/tmp/i"])?.trim().parse().unwrap_or(0);
        ensure(0 < one && one < two, format!("the background process counted from {one} to {two}"))
    });
}
