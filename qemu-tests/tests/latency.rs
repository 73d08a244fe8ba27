//! How long a TPM command takes, as the guest sees it: through the virtio device and through tpm-crb, both in front of vtpmd, and through tpm-crb
//! in front of swtpm. A measurement: `scripts/bench-guest`.

use qemu_tests::process::{Process, wait_until};
use qemu_tests::{Daemon, Error, Guest, GuestBuilder, Result, Setup, guest_test};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Each in turn, so often, so that what else the machine does meets all three.
const TURNS: usize = 5;
/// TPM2_GetRandom of 32 bytes.
const GET_RANDOM: &str = "80010000000c0000017b0020";
/// TPM2_PCR_Extend of PCR 16 with a SHA-256 digest of zeros.
const PCR_EXTEND: &str = "80020000004100000182000000100000000940000009000000000000000001000b\
                          0000000000000000000000000000000000000000000000000000000000000000";
/// TPM2_Sign of a digest of zeros with the P-256 key at 0x81000010.
const SIGN: &str = "8002000000490000015d8100001000000009400000090000000000\
                    00200000000000000000000000000000000000000000000000000000000000000000\
                    0018000b8024400000070000";
const COMMANDS: [(&str, &str, usize); 3] = [
    ("GetRandom 32", GET_RANDOM, 200),
    ("PCR_Extend, one bank", PCR_EXTEND, 200),
    ("Sign ECDSA P-256", SIGN, 50),
];

fn with_crb(setup: &Setup, scratch: &Path, name: &str, control: &Path) -> Result<Guest> {
    let chardev = format!("socket,id=chrtpm,path={}", control.display());
    let arguments = [
        "-chardev",
        &chardev,
        "-tpmdev",
        "emulator,id=tpm0,chardev=chrtpm",
        "-device",
        "tpm-crb,tpmdev=tpm0",
    ];
    GuestBuilder::new(setup, name).arguments(arguments).boot(setup, scratch)
}

/// Debian's swtpm, with the socket of its control channel.
fn swtpm(scratch: &Path) -> Result<(Process, PathBuf)> {
    let (state, control) = (scratch.join("swtpm-state"), scratch.join("swtpm-control"));
    fs::create_dir(&state).map_err(Error::io(state.display().to_string()))?;
    let (dir, ctrl) = (format!("dir={}", state.display()), format!("type=unixio,path={}", control.display()));
    let arguments = ["socket", "--tpm2", "--tpmstate", &dir, "--ctrl", &ctrl];
    let process =
        Process::start("swtpm", Path::new("/usr/bin/swtpm"), arguments, &scratch.join("swtpm.log"))?;
    wait_until("swtpm does not listen", Duration::from_secs(10), || Ok(control.exists().then_some(())))?;
    Ok((process, control))
}

fn median(guest: &mut Guest, command: &str, count: usize) -> Result<u64> {
    let text = guest.run(&["guest-helper", "time", &count.to_string(), command])?;
    let half = text.split_whitespace().nth(1).and_then(|number| number.parse().ok());
    half.ok_or_else(|| Error::Format { what: "times".into(), text })
}

#[test]
#[ignore = "a measurement: scripts/bench-guest"]
fn what_a_command_takes_in_the_guest() {
    guest_test("latency", |setup, scratch| {
        let daemon = Daemon::start(setup, scratch, "host")?;
        let virtio = daemon.create("virtio")?;
        daemon.create("crb")?;
        let (_swtpm, theirs) = swtpm(scratch)?;
        let mut guests = [
            GuestBuilder::new(setup, "virtio").tpm(&virtio).boot(setup, scratch)?,
            with_crb(setup, scratch, "crb", &daemon.runtime().join("crb").join("control.sock"))?,
            with_crb(setup, scratch, "swtpm", &theirs)?,
        ];
        for guest in &mut guests {
            guest.shell(
                "cd /root
                 tpm2_createprimary -Q -C o -g sha256 -G ecc -c primary
                 tpm2_create -Q -C primary -g sha256 -G ecc:ecdsa -u key.pub -r key.priv
                 tpm2_load -Q -C primary -u key.pub -r key.priv -c key
                 tpm2_evictcontrol -Q -C o -c key 0x81000010",
            )?;
        }
        println!(
            "{:<22}{:>10}{:>10}{:>10}{:>10}{:>10}",
            "median, us", "virtio", "crb", "swtpm crb", "ratio", "ratio"
        );
        for (name, command, count) in COMMANDS {
            let mut times = [const { Vec::new() }; 3];
            for _ in 0..TURNS {
                for (guest, times) in guests.iter_mut().zip(&mut times) {
                    times.push(median(guest, command, count)?);
                }
            }
            let [virtio, crb, swtpm] = times.map(|mut turns| {
                turns.sort_unstable();
                turns.get(TURNS / 2).copied().unwrap_or_default()
            });
            let ratio = |time: u64| time as f64 / swtpm as f64;
            println!("{name:<22}{virtio:>10}{crb:>10}{swtpm:>10}{:>10.2}{:>10.2}", ratio(virtio), ratio(crb));
        }
        Ok(())
    });
}
