//! A guest whose TPM is our `swtpm` on a volume, as Proxmox VE calls it: no daemon, no directory.

use nix::sys::signal::Signal;
use qemu_tests::process::{Process, run, wait_until};
use qemu_tests::{Error, GuestBuilder, Possessions, Result, Setup, ensure, guest_test, same};
use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

const EVENT: &str = "d0d00000000000000000000000000000000000000000000000000000000000f6";
/// What a volume has that Proxmox VE makes for a TPM.
const VOLUME: u64 = 4 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

/// A running `swtpm`.
struct Swtpm {
    process: Process,
    control: PathBuf,
    log: PathBuf,
}

impl Swtpm {
    /// On this volume, on which `swtpm_setup` has made a TPM if it was not there and one is to be made.
    fn start(setup: &Setup, scratch: &Path, name: &str, is_made: bool) -> Result<Self> {
        let at = |what: &str| scratch.join(format!("{name}.{what}"));
        let volume = format!("file://{}", at("raw").display());
        if is_made {
            let line =
                ["--tpmstate", &volume, "--createek", "--runas", "0", "--not-overwrite", "--tpm2", "--ecc"];
            run(&setup.programs.join("swtpm_setup"), line)?;
        }
        let (control, log) = (at("swtpm"), at("log"));
        let line = [
            "socket".to_owned(),
            "--tpmstate".into(),
            format!("backend-uri={volume},mode=0600"),
            "--ctrl".into(),
            format!("type=unixio,path={},mode=0600", control.display()),
            "--terminate".into(),
            "--log".into(),
            format!("file={},level=1", log.display()),
            "--tpm2".into(),
        ];
        let mut process = Process::start(name, &setup.programs.join("swtpm"), line, &at("output"))?;
        wait_until("swtpm does not listen", PATIENCE, || {
            process.still_running()?;
            Ok(UnixStream::connect(&control).ok())
        })?;
        Ok(Self { process, control, log })
    }

    fn logged(&self) -> Result<String> {
        std::fs::read_to_string(&self.log).map_err(Error::io(self.log.display().to_string()))
    }

    /// It ends with its machine, in good order.
    fn ends(mut self) -> Result<()> {
        let status = self.process.wait(PATIENCE)?;
        ensure(status.success(), format!("swtpm ended with {status}"))
    }
}

fn volume(scratch: &Path, name: &str) -> Result<()> {
    let path = scratch.join(format!("{name}.raw"));
    File::create(&path).and_then(|file| file.set_len(VOLUME)).map_err(Error::io(path.display().to_string()))
}

#[test]
fn a_guest_keeps_its_tpm_on_a_volume_and_does_not_leave_it_behind() {
    guest_test("drop-in", |setup, scratch| {
        volume(scratch, "here")?;
        let tpm = Swtpm::start(setup, scratch, "here", true)?;
        let machine =
            |tpm: &Swtpm, name: &str| GuestBuilder::new(setup, name).emulator(&tpm.control, "tpm-tis");
        let mut guest = machine(&tpm, "here").boot(setup, scratch)?;
        let mut possessions = Possessions::make(&mut guest, EVENT, "data on a volume")?;
        let key = guest.run(&["tpm2_readpublic", "-c", "0x81010001"])?;
        guest.reset()?;
        possessions.check_after_reset(&mut guest)?;
        possessions.count(&mut guest)?;

        // A live migration to another host, where a swtpm waits on an empty volume: nobody has prepared it there, and the machine stays.
        volume(scratch, "there")?;
        let there = Swtpm::start(setup, scratch, "there", false)?;
        let wire = scratch.join("wire");
        let mut arriving = machine(&there, "there").incoming(&wire).start(setup, scratch)?;
        arriving.qmp().set_migration_capabilities(&[("return-path", true)])?;
        guest.qmp().set_migration_capabilities(&[("return-path", true)])?;
        guest.qmp().migrate(&wire)?;
        let migration = guest.qmp().wait_migration("failed", PATIENCE)?;
        same("the migration", &migration.status.as_str(), &"failed")?;
        same("the run state of the source", &guest.qmp().run_state()?.as_str(), &"running")?;
        ensure(there.logged()?.contains("a state is not taken"), there.logged()?)?;
        possessions.check(&mut guest)?;
        possessions.count(&mut guest)?;
        drop(arriving);
        there.process.signal(Signal::SIGTERM)?;

        guest.qmp().quit()?;
        drop(guest);
        tpm.ends()?;
        let tpm = Swtpm::start(setup, scratch, "here", true)?;
        let mut guest = machine(&tpm, "here").boot(setup, scratch)?;
        possessions.check_after_reset(&mut guest)?;
        same("the endorsement key", &guest.run(&["tpm2_readpublic", "-c", "0x81010001"])?, &key)?;
        // The power is cut, for machine and TPM.
        possessions.count(&mut guest)?;
        let Swtpm { mut process, .. } = tpm;
        process.kill()?;
        drop(guest);
        let tpm = Swtpm::start(setup, scratch, "here", true)?;
        let mut guest = machine(&tpm, "here").boot(setup, scratch)?;
        possessions.check_after_reset(&mut guest)?;
        let length = std::fs::metadata(scratch.join("here.raw")).map_err(Error::io("the volume"))?.len();
        same("the length of the volume", &length, &VOLUME)
    });
}
