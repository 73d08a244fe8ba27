//! A disk that the TPM unlocks: LUKS2 with a key that systemd-cryptenroll sealed to a PCR.

use qemu_tests::{Error, Guest, GuestBuilder, Hosts, Result, ensure, guest_test, same};
use std::fs::File;

const NAME: &str = "vault";
const CONTENT: &str = "what the disk keeps";
/// Boot code measures itself into it, and so does this test.
const PCR: &str = "11";
const BOOTED: &str = "90090000000000000000000000000000000000000000000000000000000000f6";

/// The drivers of the disk, after each boot.
fn load(guest: &mut Guest) -> Result<()> {
    let script = "while read -r module; do insmod /lib/vtpmd/$module; done </lib/vtpmd/disk-modules
                  mkdir -p /run/cryptsetup";
    guest.shell(script).map(drop)
}

/// What a boot loader would do.
fn measure(guest: &mut Guest) -> Result<()> {
    guest.run(&["tpm2_pcrextend", &format!("{PCR}:sha256={BOOTED}")]).map(drop)
}

/// Opens it with what the TPM unseals, and with nothing else.
fn open(guest: &mut Guest) -> Result<()> {
    // There is no udev that would tell when a device is there.
    guest.shell("export DM_DISABLE_UDEV=1; cryptsetup open --token-only /dev/vda secret").map(drop)
}

fn close(guest: &mut Guest) -> Result<()> {
    guest.shell("export DM_DISABLE_UDEV=1; cryptsetup close secret").map(drop)
}

/// Opens, reads, closes.
fn check(guest: &mut Guest) -> Result<()> {
    open(guest)?;
    let read = guest.shell(&format!("head -c {} /dev/mapper/secret", CONTENT.len()))?;
    same("the content of the disk", &read.as_str(), &CONTENT)?;
    close(guest)
}

fn stays_closed(guest: &mut Guest) -> Result<()> {
    match open(guest) {
        Err(Error::Status { .. }) => Ok(()),
        Err(other) => Err(other),
        Ok(()) => Err(Error::Differs("the disk opened with other PCRs than it was sealed to".into())),
    }
}

#[test]
fn the_tpm_unlocks_a_disk_after_a_reboot_and_after_a_live_migration() {
    guest_test("disk", |setup, scratch| {
        let disk = scratch.join("disk");
        let file = File::create(&disk).map_err(Error::io("the disk"))?;
        file.set_len(64 << 20).map_err(Error::io("the disk"))?;
        let mut hosts = Hosts::start_linked(setup, scratch)?;
        let socket = hosts.source.create(NAME)?;
        let mut guest = GuestBuilder::new(setup, NAME).tpm(&socket).disk(&disk).boot(setup, scratch)?;
        load(&mut guest)?;
        measure(&mut guest)?;
        guest.shell(&format!(
            "export DM_DISABLE_UDEV=1 PASSWORD=once
             printf %s $PASSWORD >/tmp/password
             cryptsetup luksFormat --batch-mode --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \
                 /dev/vda /tmp/password
             systemd-cryptenroll --wipe-slot=password --tpm2-device=/dev/tpmrm0 --tpm2-pcrs={PCR} /dev/vda
             cryptsetup open --token-only /dev/vda secret
             printf %s '{CONTENT}' >/dev/mapper/secret
             sync
             cryptsetup close secret"
        ))?;
        let dump = guest.run(&["cryptsetup", "luksDump", "/dev/vda"])?;
        ensure(dump.contains("systemd-tpm2"), format!("no token of the TPM: {dump}"))?;
        check(&mut guest)?;

        guest.reset()?;
        load(&mut guest)?;
        // Before the boot is measured the PCR is another.
        stays_closed(&mut guest)?;
        measure(&mut guest)?;
        check(&mut guest)?;

        // It is open while the machine moves, and goes on; and the TPM opens it again there.
        open(&mut guest)?;
        hosts.ticket(NAME)?;
        let arriving = GuestBuilder::new(setup, &format!("{NAME}-arrived")).disk(&disk);
        let attempt = hosts.migrate(setup, &mut guest, arriving, NAME, None)?;
        same("migration", &attempt.migration.status.as_str(), &"completed")?;
        guest = attempt.guest;
        let read = guest.shell(&format!("head -c {} /dev/mapper/secret", CONTENT.len()))?;
        same("the content of the disk that was open", &read.as_str(), &CONTENT)?;
        close(&mut guest)?;
        check(&mut guest)?;
        measure(&mut guest)?;
        stays_closed(&mut guest)?;

        guest.reset()?;
        load(&mut guest)?;
        measure(&mut guest)?;
        check(&mut guest)
    });
}
