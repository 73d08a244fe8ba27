//! What others call, with the options that they call it with: Proxmox VE, Incus, libvirt below KubeVirt, containers with a machine in them.

use std::os::unix::process::CommandExt;

use super::setup::authority;
use super::*;

const QEMU: &str = "/usr/bin/qemu-system-x86_64";

/// A process that is killed when this is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _over = self.0.kill();
        let _over = self.0.wait();
    }
}

/// A machine that stands still at its first instruction, with a TPM behind a control channel.
struct Machine(Running);

impl Machine {
    /// Returns when its TPM is switched on.
    fn start(control: &Path) -> Self {
        let chardev = format!("socket,id=tpmchar,path={}", control.display());
        let monitor = control.with_extension("qmp");
        let qmp = format!("unix:{},server=on,wait=off", monitor.display());
        let line = ["-nodefaults", "-display", "none", "-S", "-chardev", &chardev, "-qmp", &qmp];
        let tpm = ["-tpmdev", "emulator,id=tpmdev,chardev=tpmchar", "-device", "tpm-tis,tpmdev=tpmdev"];
        let child = Command::new(QEMU).args(line).args(tpm).stdin(Stdio::null()).spawn().unwrap();
        let mut machine = Self(Running(child));
        let mut stream = until("the machine", || {
            assert!(machine.0.0.try_wait().unwrap().is_none(), "it ended");
            UnixStream::connect(&monitor).ok()
        });
        stream.set_read_timeout(Some(LONG)).unwrap();
        // Answered when all devices are there.
        stream.write_all(b"{\"execute\": \"qmp_capabilities\"}\n").unwrap();
        let mut said = String::new();
        while !said.contains("return") {
            let mut bytes = [0; 512];
            let got = stream.read(&mut bytes).unwrap();
            assert!(got > 0, "{said}");
            said += &text(&bytes[..got]);
        }
        fs::remove_file(&monitor).unwrap();
        machine
    }

    /// It tells its TPM that it ends; one that is killed does not.
    fn end(mut self) {
        let process = nix::unistd::Pid::from_raw(self.0.0.id().try_into().unwrap());
        nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGTERM).unwrap();
        assert!(ended(&mut self.0.0));
    }
}

fn runs(process: &str) -> bool {
    Path::new("/proc").join(process).exists()
}

#[test]
fn proxmox_makes_a_tpm_on_its_volume_and_serves_it_as_long_as_its_machine_runs() {
    if !debian(&["swtpm_localca", "qemu-system-x86_64"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let config = authority(dir.path());
    let volume = at("vm-100-disk-1.raw");
    fs::File::create(&volume).unwrap().set_len(4 << 20).unwrap();
    let state = format!("file://{volume}");
    let make = || {
        let line = [
            "--tpmstate",
            &state,
            "--createek",
            "--create-ek-cert",
            "--create-platform-cert",
            "--lock-nvram",
            "--config",
            &config,
            "--runas",
            "0",
            "--not-overwrite",
            "--tpm2",
            "--ecc",
        ];
        said(SETUP, &line)
    };
    assert!(make().contains("Successfully authored TPM state."));
    let made = fs::read(&volume).unwrap();
    assert!(make().contains("already"), "before each start it asks again");
    assert!(fs::read(&volume).unwrap() == made && made.len() == 4 << 20);
    for killed in [false, true] {
        let (control, pid) = (at("100.swtpm"), at("100.swtpm.pid"));
        said(
            SWTPM,
            &[
                "socket",
                "--tpmstate",
                &format!("backend-uri={state},mode=0600"),
                "--ctrl",
                &format!("type=unixio,path={control},mode=0600"),
                "--pid",
                &format!("file={pid}"),
                "--terminate",
                "--daemon",
                "--log",
                &format!("file={},level=1,prefix=[id=100] ", at("100-swtpm.log")),
                "--tpm2",
            ],
        );
        let process = fs::read_to_string(&pid).unwrap().trim().to_owned();
        assert!(runs(&process));
        let machine = Machine::start(Path::new(&control));
        if killed {
            drop(machine);
        } else {
            machine.end();
        }
        until("the end of the TPM", || (!runs(&process)).then_some(()));
        assert!(!Path::new(&control).exists() && !Path::new(&pid).exists());
    }
    let log = fs::read_to_string(at("100-swtpm.log")).unwrap();
    assert!(log.lines().all(|line| line.starts_with("[id=100] ")), "{log}");
}

#[test]
fn incus_finds_the_socket_in_the_directory_where_it_starts_the_tpm() {
    if !debian(&["qemu-system-x86_64"]) {
        return;
    }
    let (dir, state) = place();
    let control = dir.path().join("state/swtpm-vtpm.sock");
    for _ in 0..2 {
        let child = Command::new(SWTPM)
            .args(["socket", "--tpm2", "--tpmstate", &format!("dir={state}")])
            .args(["--ctrl", "type=unixio,path=swtpm-vtpm.sock"])
            .current_dir(&state)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut tpm = Running(child);
        // It waits for two seconds; the rest is for this machine.
        until("the socket", || control.exists().then_some(()));
        // It stays for the next one when a machine is killed, as Debian's does.
        drop(Machine::start(&control));
        Machine::start(&control).end();
        assert!(ended(&mut tpm.0), "with its machine");
        assert!(!control.exists());
    }
    // Of a container it wants a device, which takes a module of the kernel.
    if !Path::new("/dev/vtpmx").exists() {
        let line = ["chardev", "--tpm2", "--tpmstate", &format!("dir={state}"), "--vtpm-proxy"];
        assert!(refused(SWTPM, &line).contains("/dev/vtpmx"));
    }
}

#[test]
fn a_container_with_a_machine_in_it_keeps_its_tpm_beside_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let (state, control, pid) = (format!("file://{}", at("windows.tpm")), at("swtpm-sock"), at("tpm.pid"));
    let line = [
        "socket",
        "-t",
        "-d",
        "--tpmstate",
        &format!("backend-uri={state}"),
        "--ctrl",
        &format!("type=unixio,path={control}"),
        "--pid",
        &format!("file={pid}"),
        "--tpm2",
    ];
    said(SWTPM, &line);
    let process = fs::read_to_string(&pid).unwrap().trim().to_owned();
    said(IOCTL, &["--unix", &control, "-i"]);
    said(IOCTL, &["--unix", &control, "-s"]);
    until("the end", || (!runs(&process)).then_some(()));
    assert!(fs::metadata(at("windows.tpm")).unwrap().len() > 4096);
}

/// A user who is not root: KubeVirt's libvirt has its programs run as one, with a configuration of their own.
const NOBODY: u32 = 65534;

#[test]
fn libvirt_of_an_unprivileged_user_makes_and_serves_an_encrypted_tpm() {
    if !debian(&["swtpm_localca"]) || !nix::unistd::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    // Programs that everybody may start.
    for (program, name) in [(SWTPM, "swtpm"), (SETUP, "swtpm_setup")] {
        fs::copy(program, dir.path().join(name)).unwrap();
    }
    let at = |name: &str| dir.path().join(name).display().to_string();
    let (state, log) = (at("state"), at("log"));
    fs::create_dir(&state).unwrap();
    std::os::unix::fs::chown(&state, Some(NOBODY), Some(NOBODY)).unwrap();
    let passphrase = || {
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(b"a secret of libvirt's").unwrap();
        reader
    };
    let run = |program: &str, line: &[&str], descriptor: Option<OwnedFd>| {
        let mut command = Command::new("/bin/sh");
        let with = if descriptor.is_some() { "exec \"$@\" 5<&0 </dev/null" } else { "exec \"$@\"" };
        command.args(["-c", with, "sh", &at(program)]).args(line).uid(NOBODY).gid(NOBODY);
        command.env("XDG_CONFIG_HOME", at("config")).env("HOME", at("home"));
        command.stdin(descriptor.map_or_else(Stdio::null, Stdio::from));
        let output = command.output().unwrap();
        assert!(
            output.status.success(),
            "{line:?}: {} {}",
            text(&output.stderr),
            fs::read_to_string(&log).unwrap_or_default()
        );
        text(&output.stdout)
    };
    for program in ["swtpm", "swtpm_setup"] {
        let line: &[&str] =
            if program == "swtpm" { &["socket", "--print-capabilities"] } else { &["--print-capabilities"] };
        assert!(run(program, line, None).contains("features"));
    }
    run("swtpm_setup", &["--create-config-files", "skip-if-exist"], None);
    run(
        "swtpm_setup",
        &[
            "--pwdfile-fd",
            "5",
            "--cipher",
            "aes-256-cbc",
            "--tpm2",
            "--tpm-state",
            &state,
            "--vmid",
            "machine:5f1b0f5d-2b7d-4ec2-8d2b-4ff9b1a1b1a1",
            "--logfile",
            &log,
            "--createek",
            "--create-ek-cert",
            "--create-platform-cert",
            "--lock-nvram",
            "--not-overwrite",
            "--pcr-banks",
            "sha256,sha384",
        ],
        Some(passphrase().into()),
    );
    let (control, pid) = (at("c"), at("pid"));
    run(
        "swtpm",
        &[
            "socket",
            "--ctrl",
            &format!("type=unixio,path={control},mode=0600"),
            "--tpmstate",
            &format!("dir={state},mode=0600"),
            "--log",
            &format!("file={log}"),
            "--terminate",
            "--daemon",
            "--pid",
            &format!("file={pid}"),
            "--key",
            "pwdfd=5,mode=aes-256-cbc,kdf=pbkdf2",
            "--tpm2",
        ],
        Some(passphrase().into()),
    );
    assert_eq!(fs::metadata(&control).unwrap().uid(), NOBODY);
    said(IOCTL, &["--unix", &control, "-i"]);
    said(IOCTL, &["--unix", &control, "-s"]);
    until("the end", || (!Path::new(&pid).exists()).then_some(()));
}
