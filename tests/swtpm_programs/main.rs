//! The programs in swtpm's place, as libvirt, tpm2-tools and Debian's swtpm-tools call them. What needs Debian's programs says so when they
//! are not installed.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a test that panics has failed"
)]

mod callers;
mod entrances;
mod filter;
mod keys;
mod options;
mod places;
mod setup;
mod shared;
mod windows;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const SWTPM: &str = env!("CARGO_BIN_EXE_swtpm");
const DEBIANS: &str = "/usr/bin/swtpm";
const IOCTL: &str = env!("CARGO_BIN_EXE_swtpm_ioctl");
const SETUP: &str = env!("CARGO_BIN_EXE_swtpm_setup");
const LONG: Duration = Duration::from_secs(60);
/// TPM2_Startup(CLEAR).
const STARTUP: &[u8] = &[0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x44, 0, 0];
/// TPM2_GetRandom of 8 bytes.
const GET_RANDOM: [u8; 12] = [0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x7b, 0, 8];

/// Debian's programs, where all of them are installed.
fn debian(programs: &[&str]) -> bool {
    let missing: Vec<_> = programs.iter().filter(|p| !Path::new("/usr/bin").join(p).exists()).collect();
    if !missing.is_empty() {
        eprintln!("not compared: {missing:?} are not installed");
    }
    missing.is_empty()
}

fn call(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Standard output of a program that must succeed.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = call(program, arguments);
    assert!(output.status.success(), "{program} {arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Standard error of a program that must end with status 1.
fn refused(program: &str, arguments: &[&str]) -> String {
    let output = call(program, arguments);
    assert_eq!(output.status.code(), Some(1), "{program} {arguments:?}");
    text(&output.stderr)
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < LONG, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A running `swtpm socket` in the foreground; killed when dropped.
struct Server {
    child: Child,
    dir: PathBuf,
}

impl Server {
    /// With a control channel and a data channel in `dir`, where tpm2-tools look for them.
    fn start(program: &str, state: &str, dir: &Path, more: &[&str]) -> Self {
        let (data, control) = (dir.join("s"), dir.join("s.ctrl"));
        let state =
            if state.contains("://") { format!("backend-uri={state}") } else { format!("dir={state}") };
        let child = Command::new(program)
            .args(["socket", "--tpm2", "--tpmstate", &state])
            .args(["--server", &format!("type=unixio,path={}", data.display())])
            .args(["--ctrl", &format!("type=unixio,path={}", control.display())])
            .args(more)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = Self { child, dir: dir.to_owned() };
        until("the control channel", || {
            assert!(server.child.try_wait().unwrap().is_none(), "it ended");
            UnixStream::connect(&control).ok()
        });
        server
    }

    fn control(&self) -> String {
        self.dir.join("s.ctrl").display().to_string()
    }

    fn tool(&self, line: &str) -> Output {
        let mut words = line.split(' ');
        Command::new(words.next().unwrap())
            .args(words)
            .env("TPM2TOOLS_TCTI", format!("swtpm:path={}", self.dir.join("s").display()))
            .current_dir(&self.dir)
            .output()
            .unwrap()
    }

    fn tool_said(&self, line: &str) -> String {
        let output = self.tool(line);
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// `CMD_SHUTDOWN` ends the process with status 0.
    fn shut_down(mut self) {
        said(IOCTL, &["--unix", &self.control(), "-s"]);
        assert!(until("the end", || self.child.try_wait().unwrap()).success());
        for socket in ["s", "s.ctrl"] {
            let _gone = fs::remove_file(self.dir.join(socket));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _over = self.child.kill();
        let _over = self.child.wait();
    }
}

/// A directory with an empty state directory.
fn place() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    fs::create_dir(&state).unwrap();
    (dir, state.display().to_string())
}

/// `program` with `arguments`, and `fd` as its descriptor 5.
fn with_descriptor(program: &str, arguments: &[&str], fd: OwnedFd) -> Child {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "exec \"$@\" 5<&0 </dev/null", "sh", program]).args(arguments);
    command.stdin(fd).stderr(Stdio::null()).spawn().unwrap()
}

/// Sends a command; the response.
fn transmit(stream: &mut (impl Read + Write), command: &[u8]) -> Vec<u8> {
    stream.write_all(command).unwrap();
    let mut response = vec![0; 10];
    stream.read_exact(&mut response).unwrap();
    response.resize(u32::from_be_bytes(response[2..6].try_into().unwrap()) as usize, 0);
    stream.read_exact(&mut response[10..]).unwrap();
    response
}

fn ended(child: &mut Child) -> bool {
    until("the end", || child.try_wait().unwrap()).success()
}

/// Sends a command with the empty password for its handle, which must succeed; what follows the header of the response.
fn run(client: &mut UnixStream, code: u32, handle: u32, parameters: &[u8]) -> Vec<u8> {
    let size = 10 + 4 + 13 + u32::try_from(parameters.len()).unwrap();
    let head = [&[0x80, 2][..], &size.to_be_bytes(), &code.to_be_bytes(), &handle.to_be_bytes()].concat();
    let password = [0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0];
    client.write_all(&[&head[..], &password, parameters].concat()).unwrap();
    let mut header = [0; 10];
    client.read_exact(&mut header).unwrap();
    assert_eq!(header[6..], [0; 4]);
    let mut rest = vec![0; u32::from_be_bytes(header[2..6].try_into().unwrap()) as usize - 10];
    client.read_exact(&mut rest).unwrap();
    rest
}

#[test]
fn swtpm_ioctl_says_what_debians_says() {
    if !debian(&["swtpm", "swtpm_ioctl"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("permanent").display().to_string();
    let commands: Vec<String> = [
        "-c",
        "-g",
        "-e",
        "-b 3000",
        "-b 0",
        "--stop",
        "-b 3000",
        "--info 1",
        "--info 0x1f",
        "-i",
        "-e",
        "-l 3",
        "-l 4",
        "-l 5",
        "-h abc",
        "-r 3",
        "-r 0",
        "-v",
        "-C",
        "--save permanent P",
        "--save volatile V",
        "--save savestate S",
        "--save nonsense N",
        "--save permanent",
        "--stop",
        "--load permanent P",
        "-i",
        "-c -i",
        "-s",
    ]
    .iter()
    .map(|c| c.replace(" P", &format!(" {input}")))
    .collect();
    let run = |program: &str, name: &str| -> Vec<(String, Option<i32>, String, String)> {
        let own = dir.path().join(name);
        fs::create_dir_all(own.join("state")).unwrap();
        let state = own.join("state").display().to_string();
        let server =
            Server::start("/usr/bin/swtpm", &state, &own, &["--flags", "not-need-init,startup-clear"]);
        let results = commands.iter().map(|command| {
            let mut line = Command::new(program);
            line.args(["--unix", &server.control()]).args(command.split(' ')).current_dir(&own);
            let output = line.output().unwrap();
            let code =
                text(&output.stderr).lines().filter(|l| l.starts_with("TPM result")).collect::<String>();
            (command.clone(), output.status.code(), text(&output.stdout), code)
        });
        let results = results.collect();
        for (file, empty) in [("V", false), ("S", true)] {
            assert_eq!(fs::metadata(own.join(file)).unwrap().len() == 0, empty, "{file}");
        }
        results
    };
    assert_eq!(run(IOCTL, "ours"), run("/usr/bin/swtpm_ioctl", "theirs"));
}

#[test]
fn libvirts_daemon_serves_debians_client_and_ends_when_it_is_told_to() {
    let (dir, state) = place();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let (control, log, pid) = (at("c"), at("log"), at("pid"));
    let start = || {
        said(
            SWTPM,
            &[
                "socket",
                "--daemon",
                "--ctrl",
                &format!("type=unixio,path={control},mode=0600"),
                "--tpmstate",
                &format!("dir={state},mode=0600"),
                "--log",
                &format!("file={log}"),
                "--tpm2",
                "--pid",
                &format!("file={pid}"),
            ],
        );
        assert_eq!(fs::metadata(&control).unwrap().mode() & 0o777, 0o600);
        fs::read_to_string(&pid).unwrap().trim().to_owned()
    };
    let ioctl = if debian(&["swtpm_ioctl"]) { "/usr/bin/swtpm_ioctl" } else { IOCTL };
    let process = start();
    assert!(Path::new("/proc").join(&process).exists());
    let send = |arguments: &[&str]| call(ioctl, &[&["--unix", control.as_str()], arguments].concat());
    assert_eq!(text(&send(&["-c"]).stdout), "ptm capability is 0x1ffff\n");
    assert_eq!(text(&send(&["-e"]).stdout), "tpmEstablished is 0\n");
    assert!(send(&["-i"]).status.success());
    assert!(send(&["-h", "abc"]).status.success());
    assert_eq!(text(&send(&["-e"]).stdout), "tpmEstablished is 1\n");
    // The machine is saved, and then starts anew all the same: what was saved does not come back once its TPM has done anything.
    assert!(send(&["--save", "permanent", &at("blob")]).status.success());
    assert!(send(&["-i"]).status.success());
    assert!(send(&["-h", "abc"]).status.success());
    assert!(send(&["--stop"]).status.success());
    let loaded = send(&["--load", "permanent", &at("blob")]);
    assert!(!loaded.status.success(), "{}", text(&loaded.stderr));
    assert!(send(&["-i"]).status.success());
    assert!(send(&["-r", "3"]).status.success());
    assert!(text(&send(&["--info", "1"]).stdout).contains("\"family\":\"2.0\""));
    let states = said(SWTPM, &["socket", "--tpm2", "--print-states", "--tpmstate", &format!("dir={state}")]);
    assert!(states.contains("permall"));
    // A second one on the same state is told so, and its parent with it.
    let second = refused(
        SWTPM,
        &[
            "socket",
            "--tpm2",
            "--daemon",
            "--tpmstate",
            &format!("dir={state}"),
            "--ctrl",
            &format!("type=unixio,path={control}2"),
        ],
    );
    assert!(second.contains("state"), "{second}");
    assert!(send(&["-s"]).status.success());
    until("the end", || (!Path::new("/proc").join(&process).exists()).then_some(()));
    assert!(!Path::new(&pid).exists() && !Path::new(&control).exists());
    assert!(fs::read_to_string(&log).unwrap().contains("comes back once"));
    start();
    assert!(send(&["-s"]).status.success());
    until("the end", || (!Path::new(&pid).exists()).then_some(()));
}

#[test]
fn tcp_clients_are_disconnected_and_processes_terminate_as_asked() {
    let (_dir, state) = place();
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (data, control) = (free(), free());
    let start = |more: &[&str]| {
        let mut child = Command::new(SWTPM)
            .args(["socket", "--tpm2", "--tpmstate", &format!("dir={state}"), "--flags", "startup-clear"])
            .args(["--ctrl", &format!("type=tcp,port={control}")])
            .args(more)
            .spawn()
            .unwrap();
        let stream = until("the TPM", || {
            assert!(child.try_wait().unwrap().is_none(), "it ended");
            TcpStream::connect(("127.0.0.1", data)).ok()
        });
        stream.set_read_timeout(Some(LONG)).unwrap();
        (child, stream)
    };
    let random = |stream: &mut TcpStream| {
        stream.write_all(&GET_RANDOM).unwrap();
        let mut response = [0; 20];
        stream.read_exact(&mut response).unwrap();
        assert_eq!(response[..10], [0x80, 1, 0, 0, 0, 20, 0, 0, 0, 0]);
    };
    let (mut child, mut stream) = start(&["-p", &data.to_string()]);
    random(&mut stream);
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "it is disconnected");
    let mut next = TcpStream::connect(("127.0.0.1", data)).unwrap();
    random(&mut next);
    said(IOCTL, &["--tcp", &format!(":{control}"), "-s"]);
    assert!(until("the end", || child.try_wait().unwrap()).success());

    let (mut child, mut stream) = start(&["--server", &format!("port={data}"), "--terminate"]);
    random(&mut stream);
    random(&mut stream);
    drop(stream);
    assert!(until("the end", || child.try_wait().unwrap()).success());
}

#[test]
fn what_cannot_be_done_is_refused_with_status_1() {
    let (dir, state) = place();
    let tpm = format!("dir={state}");
    let control = format!("type=unixio,path={}", dir.path().join("c").display());
    for (line, word) in [
        (&["socket", "--tpmstate", &tpm, "--ctrl", &control][..], "TPM 1.2"),
        (&["socket", "--tpm2", "--tpmstate", &tpm, "--ctrl", &control, "--seccomp", "action=trap"], "trap"),
        (&["socket", "--tpm2", "--tpmstate", &tpm, "--ctrl", &control, "--migration", "incoming"], "no TPM"),
        (
            &["socket", "--tpm2", "--tpmstate", &tpm, "--ctrl", &control, "--migration", "outgoing"],
            "outgoing",
        ),
        (&["socket", "--tpm2", "--tpmstate", "backend-uri=/x", "--ctrl", &control], "file://"),
        (&["socket", "--tpm2", "--tpmstate", &tpm], "--ctrl"),
        (&["socket", "--tpm2", "--frobnicate"], "--frobnicate"),
        (&["cuse", "-n", "x"], "CUSE"),
        (&["chardev"], "TPM 1.2"),
    ] {
        let error = refused(SWTPM, line);
        assert!(error.contains(word), "{line:?}: {error}");
    }
    assert!(refused(SETUP, &["--tpm-state", &state]).contains("TPM 1.2"));
    assert_eq!(fs::read_dir(&state).unwrap().count(), 0, "nothing was made");
    for program in [SWTPM, IOCTL, SETUP] {
        assert!(said(program, &["--version"]).contains("version"));
    }
}
