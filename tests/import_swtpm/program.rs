//! The program, with a daemon, and the machine's use of what it made.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use vmm_sys_util::sock_ctrl_msg::ScmSocket;
use vtpm_protocol::tpm::*;

use crate::chip::{Chip, NO_AUTH, OWNER};
use crate::common::Host;
use crate::primaries::{ek, rsa};
use crate::source::Source;

/// A machine that has switched its TPM on through the control channel.
struct Machine {
    _control: UnixStream,
    data: UnixStream,
}

impl Machine {
    fn start(host: &Host, name: &str) -> Self {
        let mut control = UnixStream::connect(host.runtime().join(name).join("control.sock")).unwrap();
        let (data, theirs) = UnixStream::pair().unwrap();
        let mut answer = [0; 4];
        // CMD_SET_DATAFD, then CMD_INIT.
        control.send_with_fd(&[0u8, 0, 0, 16][..], theirs.as_raw_fd()).unwrap();
        control.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [0; 4]);
        control.write_all(&[0, 0, 0, 2, 0, 0, 0, 0]).unwrap();
        control.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [0; 4]);
        Self { _control: control, data }
    }

    fn chip(&mut self) -> Chip<'_> {
        Chip(Box::new(|command| {
            self.data.write_all(command).unwrap();
            let mut response = vec![0; HEADER_SIZE];
            self.data.read_exact(&mut response).unwrap();
            let size = u32::from_be_bytes(response[2..6].try_into().unwrap());
            response.resize(size as usize, 0);
            self.data.read_exact(&mut response[HEADER_SIZE..]).unwrap();
            response
        }))
    }
}

const SRK: u32 = 0x8100_0001;
const INDEX: u32 = 0x0150_0000;

fn fill(chip: &mut Chip<'_>) -> (TpmtPublic, Vec<u8>) {
    let made = chip.primary(OWNER, &rsa(2048)).unwrap();
    chip.persist(made.handle, SRK);
    chip.flush(made.handle);
    chip.define(INDEX, TpmaNv::OWNER_WRITE | TpmaNv::OWNER_READ, 5);
    chip.nv_write(INDEX, b"hello");
    (made.public, chip.seal(TpmHandle(SRK), b"the key of a disk", None).unwrap())
}

fn check(chip: &mut Chip<'_>, (public, sealed): &(TpmtPublic, Vec<u8>)) {
    assert_eq!(chip.read_public(SRK).unwrap(), *public);
    let again = chip.primary(OWNER, &rsa(2048)).unwrap();
    assert_eq!(again.public, *public);
    chip.flush(again.handle);
    let object = chip.load(TpmHandle(SRK), sealed).unwrap();
    assert_eq!(chip.unseal(object, NO_AUTH).unwrap(), b"the key of a disk");
    chip.flush(object);
    assert_eq!(chip.nv_read(INDEX, 5).unwrap(), b"hello");
}

fn names(host: &Host) -> Vec<String> {
    let list = host.json(&["list"]);
    list.as_array().unwrap().iter().map(|i| i["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_tpm_goes_on_below_a_daemon_and_after_its_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut host = Host::start(dir.path(), "host");
    let source = Source::new();
    let held = source.boot(fill);
    let path = source.path();
    let path = path.to_str().unwrap();
    let uuid = "6f1a3b52-5c2e-4a70-9d5a-0a1b2c3d4e5f";
    let json = host.json(&["import-swtpm", path, "guest", "--uuid", uuid]);
    assert_eq!((json["name"].as_str(), json["uuid"].as_str()), (Some("guest"), Some(uuid)));
    assert_eq!(json["nv_indices"], serde_json::json!(["0x01500000"]));
    assert_eq!(json["persistent_objects"], serde_json::json!(["0x81000001"]));
    assert_eq!(json["left_out"], serde_json::json!([]));
    assert_eq!(host.state_of("guest"), "live");
    let mut machine = Machine::start(&host, "guest");
    let mut chip = machine.chip();
    chip.startup();
    check(&mut chip, &held);
    chip.define(INDEX + 1, TpmaNv::OWNER_WRITE | TpmaNv::OWNER_READ, 3);
    chip.nv_write(INDEX + 1, b"new");
    drop(chip);
    drop(machine);
    host.terminate();
    host.run();
    let mut machine = Machine::start(&host, "guest");
    let mut chip = machine.chip();
    chip.startup();
    check(&mut chip, &held);
    assert_eq!(chip.nv_read(INDEX + 1, 3).unwrap(), b"new");
}

#[test]
fn without_a_name_the_directory_gives_it_and_for_people_there_is_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(dir.path(), "host");
    let source = Source::new();
    source.boot(|_| ());
    std::fs::write(source.path().join("tpm2-00.volatilestate"), b"whatever").unwrap();
    let said = host.ctl(&["import-swtpm", source.path().to_str().unwrap()]);
    assert!(said.contains("state: imported"), "{said}");
    assert!(said.contains("note: tpm2-00.volatilestate is left out"), "{said}");
    assert!(said.contains("No swtpm must run on"), "{said}");
    assert_eq!(names(&host), ["state"]);
}

/// As on a volume of Proxmox VE.
#[test]
fn a_tpm_that_swtpm_kept_in_one_file_comes_along() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(dir.path(), "host");
    let file = dir.path().join("vm-100-disk-1");
    std::fs::File::create(&file).unwrap().set_len(4 << 20).unwrap();
    let file = file.to_str().unwrap();
    let refused = |path: &str, words: &str| {
        let said = host.refused(&["import-swtpm", path, "no"]);
        assert!(said.contains(words), "{said}");
        assert_eq!(names(&host), Vec::<String>::new());
    };
    refused(file, "no state of a TPM 2.0");
    let source = Source::new().in_file(file);
    let held = source.boot(fill);
    let good = std::fs::read(file).unwrap();
    assert!(good.starts_with(b"nilmptws"));
    for (end, words) in [(100, "cannot use"), (30, "no state"), (0, "no state")] {
        std::fs::write(file, &good[..end]).unwrap();
        refused(file, words);
    }
    let mut long = good.clone();
    long[16..20].copy_from_slice(&[0xff; 4]);
    std::fs::write(file, &long).unwrap();
    refused(file, "too long");
    std::fs::write(file, &good).unwrap();
    refused("/dev/null", "no state");
    let said = host.ctl(&["import-swtpm", file]);
    assert!(said.contains("vm-100-disk-1: imported, with 1 NV indices and 1 persistent objects"), "{said}");
    assert_eq!(std::fs::read(file).unwrap(), good);
    let mut machine = Machine::start(&host, "vm-100-disk-1");
    let mut chip = machine.chip();
    chip.startup();
    check(&mut chip, &held);
}

/// What is refused leaves nothing behind.
#[test]
fn what_cannot_be_taken_over_is_refused_with_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(dir.path(), "host");
    let source = Source::new();
    let mut running = source.start();
    // Its socket is there before its state and its lock.
    running.chip().startup();
    let path = source.path();
    let path = path.to_str().unwrap();
    let refused = |arguments: &[&str], words: &str| {
        let said = host.refused(&[&["import-swtpm", path], arguments].concat());
        assert!(said.contains(words), "{said}");
        assert!(!said.contains("panicked"), "{said}");
        assert_eq!(names(&host), Vec::<String>::new());
    };
    refused(&["a"], "a swtpm is using");
    drop(running);
    let good = std::fs::read(source.permall()).unwrap();
    refused(&["../a"], "cannot be the name");
    refused(&["a", "--key", "mode=aes-cbc"], "one source");
    refused(&["a", "--key", "/nowhere/key"], "/nowhere/key");
    let key = source.file("key", b"00112233445566778899aabbccddeeff");
    refused(&["a", "--key", &key], "is not encrypted, and a key was given");
    std::fs::write(source.permall(), &good[..good.len() - 1]).unwrap();
    refused(&["a"], "another size than it has");
    // A header that is right, around a state that is cut off, has a newer version, or is none.
    let wrapped = |state: &[u8]| {
        let total = u32::try_from(16 + state.len()).unwrap().to_be_bytes();
        let size = u32::try_from(state.len()).unwrap().to_be_bytes();
        std::fs::write(source.permall(), [&[2, 1, 0, 10, 0, 0], &total[..], &[0, 1], &size, state].concat())
            .unwrap();
    };
    let state = good[16..].to_vec();
    wrapped(&state[..state.len() - 9]);
    refused(&["a"], "is not taken over: the state is");
    let mut newer = state.clone();
    newer[7] = 9;
    wrapped(&newer);
    refused(&["a"], "newer libtpms");
    wrapped(b"something else");
    refused(&["a"], "not the state of a TPM 2.0 of libtpms");
    wrapped(&state);
    std::fs::rename(source.permall(), source.path().join("tpm-00.permall")).unwrap();
    refused(&["a"], "TPM 1.2");
    std::fs::remove_file(source.path().join("tpm-00.permall")).unwrap();
    refused(&["a"], "no state of a TPM 2.0");
    wrapped(&state);
    host.ctl(&["import-swtpm", path, "a"]);
    let said = host.refused(&["import-swtpm", path, "a"]);
    assert!(said.contains("there is an instance \"a\" already"), "{said}");
    assert_eq!(names(&host), ["a"]);
}

/// An endorsement key with its certificate, as libvirt has swtpm_setup make them.
#[test]
fn the_endorsement_certificates_of_swtpm_setup_come_along() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(dir.path(), "host");
    let source = Source::new();
    let ca = dir.path().join("ca");
    std::fs::create_dir(&ca).unwrap();
    let at = |name: &str| ca.join(name).display().to_string();
    let localca = format!(
        "statedir = {}\nsigningkey = {}\nissuercert = {}\ncertserial = {}\n",
        ca.display(),
        at("key.pem"),
        at("cert.pem"),
        at("serial")
    );
    std::fs::write(at("localca.conf"), localca).unwrap();
    let options = "--platform-manufacturer test\n--platform-version 1\n--platform-model test\n";
    std::fs::write(at("localca.options"), options).unwrap();
    let setup = format!(
        "create_certs_tool = swtpm_localca\ncreate_certs_tool_config = {}\ncreate_certs_tool_options = {}\nactive_pcr_banks = sha256\n",
        at("localca.conf"),
        at("localca.options")
    );
    std::fs::write(at("setup.conf"), setup).unwrap();
    let mut program = Command::new("swtpm_setup");
    program.args(["--tpm2", "--createek", "--create-ek-cert", "--create-spk", "--lock-nvram", "--overwrite"]);
    program.arg("--tpmstate").arg(source.path()).arg("--config").arg(at("setup.conf"));
    let made = program.stdin(Stdio::null()).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
    // What swtpm shows of it.
    let (rsa_cert, ecc_cert, rsa_key, ecc_key, spk) =
        (0x01c0_0002, 0x01c0_0016, 0x8101_0001, 0x8101_0016, 0x8100_0001);
    let look = |chip: &mut Chip<'_>| {
        let certs = [rsa_cert, ecc_cert].map(|index| {
            let public = chip.nv_public(index).unwrap();
            let size = u16::from_be_bytes(public[14..16].try_into().unwrap());
            (public, chip.nv_read(index, size).unwrap())
        });
        (certs, [rsa_key, ecc_key, spk].map(|handle| chip.read_public(handle).unwrap()))
    };
    let theirs = source.boot(look);
    host.ctl(&["import-swtpm", source.path().to_str().unwrap(), "guest"]);
    let mut machine = Machine::start(&host, "guest");
    let mut chip = machine.chip();
    chip.startup();
    let ours = look(&mut chip);
    assert_eq!(ours, theirs);
    // The certificate is of the key that the seed gives.
    let made = chip.primary(TpmHandle::ENDORSEMENT, &ek()).unwrap().public;
    assert_eq!(made, ours.1[0]);
    let PublicId::Rsa(modulus) = &made.unique else { panic!("no RSA key") };
    let cert = &ours.0[0].1;
    assert!(cert.windows(modulus.len()).any(|bytes| bytes == &**modulus));
}
