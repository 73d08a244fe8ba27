//! Firmware that measures the boot, on Debian's QEMU, whose tpm-crb and tpm-tis meet the TPM at its control socket. What firmware, kernel and IMA
//! say that they measured is what the PCRs hold; and the PCRs are those that swtpm has after the same boot.

use qemu_tests::process::Process;
use qemu_tests::{Daemon, Error, Guest, GuestBuilder, Result, Setup, ensure, guest_test, same};
use sha1::{Digest, Sha1};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const STOCK_QEMU: &str = "/usr/bin/qemu-system-x86_64";
const OVMF_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const OVMF_VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
const EVENT_LOG: &str = "/sys/kernel/security/tpm0/binary_bios_measurements";
const IMA_LOG: &str = "/sys/kernel/security/ima/ascii_runtime_measurements";
/// PCRs into which firmware and boot loader measure.
const BOOT_PCRS: std::ops::RangeInclusive<u32> = 0..=9;
const IMA_PCR: u32 = 10;

#[derive(Clone, Copy, Debug)]
enum Firmware {
    Ovmf,
    SeaBios,
}

/// A bank's PCRs, or what a log says that they are: number and value in hexadecimal.
type Pcrs = BTreeMap<u32, String>;

fn boot(
    setup: &Setup,
    scratch: &Path,
    name: &str,
    (firmware, device): (Firmware, &str),
    control: &Path,
) -> Result<Guest> {
    let stock = Setup { qemu: STOCK_QEMU.into(), ..setup.clone() };
    let mut arguments = vec![
        "-chardev".to_owned(),
        format!("socket,id=chrtpm,path={}", control.display()),
        "-tpmdev".into(),
        "emulator,id=tpm0,chardev=chrtpm".into(),
        "-device".into(),
        format!("{device},tpmdev=tpm0"),
    ];
    if let Firmware::Ovmf = firmware {
        let vars = scratch.join(format!("{name}-vars.fd"));
        fs::copy(OVMF_VARS, &vars).map_err(Error::io(OVMF_VARS))?;
        for (file, read_only) in [(Path::new(OVMF_CODE), "on"), (&vars, "off")] {
            let drive = format!("if=pflash,format=raw,readonly={read_only},file={}", file.display());
            arguments.extend(["-drive".into(), drive]);
        }
    }
    let builder = GuestBuilder::new(setup, name)
        // The TCG of QEMU 7.2 now and then corrupts the flags of a 6.12, which then dies at boot.
        .kernel("6.1")
        .kernel_argument("ima_policy=tcb")
        .arguments(arguments.iter().map(String::as_str));
    builder.boot(&stock, scratch)
}

/// The banks that are in use, with all their PCRs.
fn banks(guest: &mut Guest) -> Result<BTreeMap<String, Pcrs>> {
    let mut banks = BTreeMap::new();
    let selected = guest.run(&["tpm2_getcap", "pcrs"])?;
    for line in selected.lines() {
        let Some((bank, pcrs)) = line.trim().trim_start_matches("- ").split_once(':') else { continue };
        // An empty list is a bank that is there and not in use.
        if pcrs.chars().any(|c| c.is_ascii_digit()) {
            let values = guest.run(&["tpm2_pcrread", bank])?;
            banks.insert(bank.to_owned(), values.lines().filter_map(pcr_line).collect());
        }
    }
    ensure(banks.len() >= 2, format!("one bank or none: {selected}"))?;
    Ok(banks)
}

/// `  0 : 0xAB…`
fn pcr_line(line: &str) -> Option<(u32, String)> {
    let (number, value) = line.split_once(':')?;
    let value = value.trim().trim_start_matches("0x").to_ascii_lowercase();
    Some((number.trim().parse().ok()?, value))
}

/// What `tpm2_eventlog` computes from the log, at the end of what it prints, by banks.
fn replayed(guest: &mut Guest) -> Result<BTreeMap<String, Pcrs>> {
    let text = guest.run(&["tpm2_eventlog", EVENT_LOG])?;
    let computed = text.rsplit_once("\npcrs:\n").map(|(_, rest)| rest);
    let computed = computed.ok_or_else(|| Error::Format { what: "event log".into(), text: text.clone() })?;
    let mut banks: BTreeMap<String, Pcrs> = BTreeMap::new();
    let mut bank = String::new();
    for line in computed.lines() {
        match pcr_line(line) {
            Some((number, value)) => drop(banks.entry(bank.clone()).or_default().insert(number, value)),
            None => bank = line.trim().trim_end_matches(':').to_owned(),
        }
    }
    Ok(banks)
}

/// PCR 10 of the SHA-1 bank as IMA's list has it, and how many measurements there are.
fn replayed_ima(guest: &mut Guest) -> Result<(String, usize)> {
    let list = guest.run(&["cat", IMA_LOG])?;
    let wrong = || Error::Format { what: "IMA's list".into(), text: list.clone() };
    let mut pcr = [0u8; 20];
    for line in list.lines() {
        let digest =
            line.split_whitespace().nth(1).and_then(|text| hex::decode(text).ok()).ok_or_else(wrong)?;
        // A violation is listed as zeros and measured as ones.
        let digest = if digest.iter().all(|byte| *byte == 0) { vec![0xff; 20] } else { digest };
        pcr = Sha1::new().chain_update(pcr).chain_update(digest).finalize().into();
    }
    ensure(list.lines().next().is_some_and(|line| line.contains("boot_aggregate")), "no boot_aggregate")?;
    Ok((hex::encode(pcr), list.lines().count()))
}

/// The logs and the PCRs agree, in every bank. Returns the PCRs into which the boot was measured.
fn check(guest: &mut Guest, what: &str) -> Result<BTreeMap<String, Pcrs>> {
    let mut banks = banks(guest)?;
    let log = replayed(guest)?;
    let mut measured = BTreeSet::new();
    for (bank, pcrs) in &banks {
        let events = log.get(bank).ok_or_else(|| Error::Differs(format!("the log has no bank {bank}")))?;
        for (number, value) in events.iter().filter(|(number, _)| BOOT_PCRS.contains(number)) {
            same(&format!("{what}: PCR {number} of {bank}"), &pcrs.get(number), &Some(value))?;
            if value.chars().any(|digit| digit != '0') {
                measured.insert(number);
            }
        }
    }
    ensure(measured.len() >= 6, format!("{what}: only {measured:?} were measured into"))?;
    let measured = measured.len();
    // The first entry is boot_aggregate, over the PCRs of the boot; then what is run from now on.
    guest.shell("printf 'measure func=BPRM_CHECK\\n' >/sys/kernel/security/ima/policy || true; cp /bin/busybox /tmp/true; /tmp/true")?;
    // IMA goes on measuring: nothing may be measured between the list and the PCR.
    let mut ima = Err(Error::Differs("PCR 10 is never what IMA's list says".into()));
    for _ in 0..5 {
        let (computed, count) = replayed_ima(guest)?;
        let read = guest.run(&["tpm2_pcrread", &format!("sha1:{IMA_PCR}")])?;
        let read = read.lines().find_map(pcr_line).map(|(_, value)| value);
        if read.as_ref() == Some(&computed) {
            ima = Ok(count);
            break;
        }
    }
    println!(
        "{what}: {measured} PCRs of {} banks as the log has them, {} measurements of IMA",
        banks.len(),
        ima?
    );
    for pcrs in banks.values_mut() {
        pcrs.retain(|number, _| BOOT_PCRS.contains(number));
    }
    Ok(banks)
}

/// Debian's swtpm with a TPM of its own.
fn swtpm(scratch: &Path, name: &str) -> Result<(Process, PathBuf)> {
    let (state, control) = (scratch.join(format!("{name}-state")), scratch.join(format!("{name}-control")));
    fs::create_dir(&state).map_err(Error::io(state.display().to_string()))?;
    let arguments = [
        "socket".to_owned(),
        "--tpm2".into(),
        "--tpmstate".into(),
        format!("dir={}", state.display()),
        "--ctrl".into(),
        format!("type=unixio,path={}", control.display()),
    ];
    let log = scratch.join(format!("{name}.log"));
    let process = Process::start(name, Path::new("/usr/bin/swtpm"), arguments, &log)?;
    qemu_tests::process::wait_until("swtpm does not listen", std::time::Duration::from_secs(10), || {
        Ok(control.exists().then_some(()))
    })?;
    Ok((process, control))
}

fn ours(setup: &Setup, scratch: &Path, row: (Firmware, &str)) -> Result<BTreeMap<String, Pcrs>> {
    let daemon = Daemon::start(setup, scratch, "host")?;
    daemon.create("measured")?;
    let control = daemon.runtime().join("measured").join("control.sock");
    let mut guest = boot(setup, scratch, "measured", row, &control)?;
    let first = check(&mut guest, &format!("{row:?}"))?;
    // Once more: the reset of the machine is one of the TPM.
    guest.reset()?;
    let second = check(&mut guest, &format!("{row:?} after a reset"))?;
    same("the PCRs of two boots", &second, &first)?;
    Ok(first)
}

fn theirs(setup: &Setup, scratch: &Path, row: (Firmware, &str)) -> Result<BTreeMap<String, Pcrs>> {
    let (_swtpm, control) = swtpm(scratch, "swtpm")?;
    let mut guest = boot(setup, scratch, "compared", row, &control)?;
    check(&mut guest, &format!("{row:?} with swtpm"))
}

fn compared(name: &str, row: (Firmware, &str)) {
    guest_test(name, |setup, scratch| {
        let (ours, theirs) = (ours(setup, scratch, row)?, theirs(setup, scratch, row)?);
        same("the PCRs with vtpmd and with swtpm", &ours, &theirs)
    });
}

#[test]
fn ovmf_measures_through_crb() {
    compared("ovmf-crb", (Firmware::Ovmf, "tpm-crb"));
}

#[test]
fn ovmf_measures_through_tis() {
    compared("ovmf-tis", (Firmware::Ovmf, "tpm-tis"));
}

#[test]
fn seabios_measures_through_tis() {
    compared("seabios-tis", (Firmware::SeaBios, "tpm-tis"));
}
