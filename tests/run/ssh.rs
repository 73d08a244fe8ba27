//! By a pipe of ssh: a script in its place, which runs what it is given in a shell of its own; and once a real one.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::site::{NAME, Site, UUID, until};
use crate::tpm::{Possessions, fill, possessions};

/// Two hosts, of which nobody is told an address, and the TPM on the first; the home of somebody on the second, and his programs.
struct Stage {
    a: Site,
    b: Site,
    kept: Possessions,
    home: PathBuf,
    ssh: PathBuf,
}

impl Stage {
    fn new() -> Self {
        let (a, b) = (Site::start("a"), Site::start("b"));
        a.add_peer(&b, &[]);
        a.ctl(&["create", NAME, "--uuid", UUID]);
        fill(&a);
        let kept = possessions(&a);
        let home = b.dir.path().join("home");
        fs::create_dir_all(home.join("bin")).unwrap();
        fs::create_dir(home.join("tmp")).unwrap();
        let ssh = home.join("ssh");
        let stage = Self { a, b, kept, home, ssh };
        stage.fake("sh -c \"$2\"");
        stage
    }

    /// What stands in the place of ssh does this with `$1`, the host, and `$2`, the command, in the environment of the other host.
    fn fake(&self, does: &str) {
        let home = self.home.display();
        let text = format!(
            "#!/bin/sh\n[ \"$1\" = nobody@b.example ] || exit 9\n\
             HOME={home} TMPDIR={home}/tmp PATH={home}/bin:/usr/bin:/bin\nexport HOME TMPDIR PATH\n{does}\n"
        );
        program(&self.ssh, &text);
    }

    /// vtpmctl is installed there.
    fn install(&self) {
        symlink(env!("CARGO_BIN_EXE_vtpmctl"), self.home.join("bin/vtpmctl")).unwrap();
    }

    /// A program that comes before the other host's own.
    fn replace(&self, name: &str, text: &str) {
        program(&self.home.join("bin").join(name), text);
    }

    fn command(&self, more: &[&str]) -> Vec<String> {
        let remote = format!("{{}} {}", self.b.reach().join(" "));
        let ssh = self.ssh.to_str().unwrap();
        let run = ["migrate", "run", NAME, "--host", "nobody@b.example", "--ssh-command", ssh];
        let all = [&run[..], &["--remote-command", &remote], more].concat();
        all.into_iter().map(str::to_owned).collect()
    }

    fn run(&self, more: &[&str]) -> serde_json::Value {
        let command = self.command(more);
        self.a.json(&command.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn refused(&self, more: &[&str]) -> String {
        let command = self.command(more);
        self.a.refused(&command.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn assert_untouched(&self) {
        assert_eq!((self.a.state(NAME).as_deref(), self.b.state(NAME)), (Some("live"), None));
        assert_eq!(possessions(&self.a), self.kept);
        self.assert_clean();
    }

    fn assert_arrived(&self) {
        assert_eq!(self.a.state(NAME).as_deref(), Some("exported"));
        assert_eq!(self.b.state(NAME).as_deref(), Some("imported"));
        assert_eq!(possessions(&self.b), self.kept);
        // Nobody has the address of the other: the receipt is fetched by the same command.
        assert_eq!(self.run(&[])["source"], "gone");
        assert_eq!(self.a.state(NAME), None);
        self.assert_clean();
    }

    /// Nothing that was sent is left.
    fn assert_clean(&self) {
        let temporary = || fs::read_dir(self.home.join("tmp")).unwrap().count();
        until("cleared up", || temporary() == 0);
        let left: Vec<_> = fs::read_dir(&self.home).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| !name.to_str().unwrap().contains("vtpmctl")), "{left:?}");
    }
}

fn program(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn an_instance_moves_through_a_pipe() {
    let stage = Stage::new();
    stage.install();
    // What shells say at their start does no harm.
    stage.fake("echo 'Welcome to b!'; echo 'You have mail.' >&2; sh -c \"$2\"");
    let told = stage.run(&["--to", "b", "--as", "moved"]);
    assert_eq!((&told["source"], &told["destination"]), (&"exported".into(), &"imported".into()), "{told}");
    assert_eq!(stage.b.state("moved").as_deref(), Some("imported"));
    assert_eq!(stage.b.instance("moved").handle(), stage.b.daemon().tree().instances()[1].handle());
    let steps = stage.b.json(&["migrate", "status", "moved"])["steps"].clone();
    let steps: Vec<&str> = steps.as_array().unwrap().iter().map(|s| s["step"].as_str().unwrap()).collect();
    assert_eq!(steps, ["prepare", "set-key", "set-data", "unlock"]);
}

#[test]
fn a_key_that_may_run_one_command_is_enough() {
    let stage = Stage::new();
    stage.install();
    let reach = stage.b.reach().join(" ");
    // As `command=` in authorized_keys has it, whatever the client asks for.
    stage.fake(&format!("echo 'vtpmctl-pipe: here'; exec vtpmctl {reach} migrate serve --stdio"));
    assert_eq!(stage.run(&["--bootstrap", "ssh"])["destination"], "imported");
    stage.assert_arrived();
}

#[test]
fn area_by_area_through_a_pipe_and_the_receipt_by_the_same_command() {
    let stage = Stage::new();
    stage.install();
    let told = stage.run(&["--buffer", "2000"]);
    assert_eq!(told["portions"], "areas");
    stage.assert_arrived();
}

#[test]
fn who_is_no_peer_or_another_one_gets_nothing() {
    let stage = Stage::new();
    stage.install();
    let c = Site::start("c");
    stage.a.add_peer(&c, &[]);
    let another = stage.refused(&["--to", "c"]);
    assert!(another.contains("nobody@b.example is peer b, not c"), "{another}");
    stage.assert_untouched();
    stage.a.forget(&stage.b);
    let unpinned = stage.refused(&[]);
    let fingerprint = stage.b.json(&["identity", "show"])["fingerprint"].as_str().unwrap().to_owned();
    assert!(unpinned.contains(&fingerprint) && unpinned.contains("not pinned"), "{unpinned}");
    stage.assert_untouched();
}

#[test]
fn a_pipe_that_does_not_come_to_be_says_why() {
    let stage = Stage::new();
    stage.fake("echo 'no route to b' >&2; exit 255");
    let failed = stage.refused(&[]);
    assert!(failed.contains("no route to b") && failed.contains("exit status: 255"), "{failed}");
    stage.fake("sh -c \"$2\"");
    let absent = stage.refused(&[]);
    assert!(absent.contains("not found") && absent.contains("--bootstrap ssh"), "{absent}");
    let missing = ["migrate", "run", NAME, "--host", "b", "--ssh-command", "/nonexistent/ssh"];
    let missing = stage.a.refused(&missing);
    assert!(missing.contains("/nonexistent/ssh") && missing.contains("exit status: 127"), "{missing}");
    let option = stage.a.refused(&["migrate", "run", NAME, "--host=-oProxyCommand=false"]);
    assert!(option.contains("is no host"), "{option}");
    // A daemon that is away there.
    stage.install();
    let ssh = stage.ssh.to_str().unwrap();
    let host = ["migrate", "run", NAME, "--host", "nobody@b.example", "--ssh-command", ssh];
    let remote = ["--remote-command", "{} --runtime-dir /nonexistent --state-dir /nonexistent"];
    let nobody = stage.a.refused(&[&host[..], &remote].concat());
    assert!(nobody.contains("/nonexistent"), "{nobody}");
    stage.assert_untouched();
}

#[test]
fn a_pipe_that_is_cut_in_the_middle_is_made_again() {
    let stage = Stage::new();
    stage.install();
    let cut = stage.home.join("cut");
    let once = format!(
        "if [ ! -e {0} ]; then touch {0}; dd bs=1 count=12000 2>/dev/null | sh -c \"$2\"; else sh -c \"$2\"; fi",
        cut.display()
    );
    stage.fake(&once);
    let told = stage.run(&[]);
    assert!(cut.exists());
    assert_eq!(told["destination"], "imported");
    stage.fake("dd bs=1 count=9000 2>/dev/null | sh -c \"$2\"");
    // Always, from now on; what is there already is enough for the receipt.
    assert_eq!(possessions(&stage.b), stage.kept);
    assert_eq!(stage.run(&[])["source"], "gone");
}

#[test]
fn a_host_without_vtpmctl_is_sent_it_and_keeps_nothing_of_it() {
    let stage = Stage::new();
    let command = stage.command(&["--bootstrap", "ssh", "--progress"]);
    let output = stage.a.output(&command.iter().map(String::as_str).collect::<Vec<_>>());
    let progress = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{progress}");
    assert!(progress.contains("this one is sent") && progress.contains("sending the program"), "{progress}");
    stage.assert_clean();
    // And again, for the receipt.
    assert_eq!(possessions(&stage.b), stage.kept);
    assert_eq!(stage.run(&["--bootstrap", "ssh"])["source"], "gone");
    stage.assert_clean();
}

#[test]
fn a_vtpmctl_that_is_there_is_not_sent() {
    let stage = Stage::new();
    stage.install();
    let command = stage.command(&["--bootstrap", "ssh", "--progress"]);
    let output = stage.a.output(&command.iter().map(String::as_str).collect::<Vec<_>>());
    let progress = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && !progress.contains("program"), "{progress}");
    stage.assert_arrived();
}

#[test]
fn a_program_that_cannot_run_there_is_told_apart() {
    let stage = Stage::new();
    // One of another release, which does not know how.
    stage.replace("vtpmctl", "#!/bin/sh\necho \"error: unrecognized subcommand 'serve'\" >&2; exit 2\n");
    let old = stage.refused(&[]);
    assert!(old.contains("unrecognized subcommand 'serve'"), "{old}");
    stage.replace("uname", "#!/bin/sh\n[ \"$1\" = -s ] && echo Linux || echo sparc64\n");
    let other = stage.refused(&["--bootstrap", "ssh"]);
    assert!(other.contains("Linux sparc64") && other.contains(std::env::consts::ARCH), "{other}");
    fs::remove_file(stage.home.join("bin/uname")).unwrap();
    // A network that changes a byte.
    stage.replace("head", "#!/bin/sh\n/usr/bin/head \"$@\" | tr '\\000' '\\001'\n");
    let changed = stage.refused(&["--bootstrap", "ssh"]);
    assert!(changed.contains("changed on the way"), "{changed}");
    // A full disk.
    stage.replace("head", "#!/bin/sh\necho 'No space left on device' >&2; exit 1\n");
    let full = stage.refused(&["--bootstrap", "ssh"]);
    assert!(full.contains("No space left on device"), "{full}");
    fs::remove_file(stage.home.join("bin/head")).unwrap();
    // A dynamic library that is not there.
    let loader = "error while loading shared libraries: libgcc_s.so.1";
    let script = format!(
        "#!/bin/sh\n/usr/bin/chmod \"$@\"; case $1 in 500) printf '#!/bin/sh\\necho \"{loader}\" >&2; exit 127' >\"$2\";; esac\n"
    );
    stage.replace("chmod", &script);
    let library = stage.refused(&["--bootstrap", "ssh"]);
    assert!(library.contains(loader), "{library}");
    fs::remove_file(stage.home.join("bin/chmod")).unwrap();
    stage.replace("mktemp", "#!/bin/sh\nexit 1\n");
    let nowhere = stage.refused(&["--bootstrap", "ssh"]);
    assert!(nowhere.contains("no directory"), "{nowhere}");
    stage.assert_untouched();
}

/// A server of OpenSSH on 127.0.0.1, for the user of this test.
struct Sshd {
    child: Child,
    client: String,
}

impl Sshd {
    fn start(dir: &Path) -> Self {
        let key = |name: &str| {
            let path = dir.join(name);
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&path).stdin(Stdio::null());
            let made = keygen.status().unwrap();
            assert!(made.success());
            path.display().to_string()
        };
        let (host, user) = (key("host_key"), key("user_key"));
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (config, log) = (dir.join("sshd_config"), dir.join("sshd.log"));
        let text = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {host}\nAuthorizedKeysFile {user}.pub\nStrictModes no\nPidFile none\n\
             UsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n"
        );
        fs::write(&config, text).unwrap();
        // Where the service never ran, a server that is root wants its directory.
        if nix::unistd::geteuid().is_root() {
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let mut command = Command::new("/usr/sbin/sshd");
        command.arg("-D").arg("-f").arg(&config).arg("-E").arg(&log).stdin(Stdio::null());
        // Of the package openssh-server.
        let child = command.spawn().unwrap();
        until("up", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        let known = dir.join("known_hosts");
        let public = fs::read_to_string(format!("{host}.pub")).unwrap();
        fs::write(&known, format!("[127.0.0.1]:{port} {public}")).unwrap();
        let client = format!(
            "ssh -F none -p {port} -i {user} -o UserKnownHostsFile={} -o IdentitiesOnly=yes -o BatchMode=yes",
            known.display()
        );
        Self { child, client }
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
#[ignore = "needs the server of OpenSSH; scripts/test installs it and runs this"]
fn a_host_is_sent_the_program_by_a_real_ssh() {
    let stage = Stage::new();
    let sshd = Sshd::start(stage.b.dir.path());
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name;
    let host = format!("{user}@127.0.0.1");
    let remote = format!("{{}} {}", stage.b.reach().join(" "));
    let run_by = |ssh: &str, more: &[&str]| {
        let command = ["migrate", "run", NAME, "--to", "b", "--host", &host, "--ssh-command", ssh];
        let output = stage.a.output(&[&command[..], &["--remote-command", &remote], more].concat());
        let errors = String::from_utf8(output.stderr).unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap(), errors)
    };
    let run = |more: &[&str]| run_by(&sshd.client, more);
    let (ok, _, errors) = run(&[]);
    assert!(!ok && errors.contains("--bootstrap ssh"), "{errors}");
    // Nobody whom the server knows.
    let (ok, _, errors) = run_by(&sshd.client.replace("user_key", "host_key"), &["--bootstrap", "ssh"]);
    assert!(!ok && errors.contains("Permission denied") && errors.contains("exit status: 255"), "{errors}");
    let (ok, text, errors) = run(&["--bootstrap", "ssh", "--progress", "--piecewise"]);
    assert!(ok && errors.contains("sending the program"), "{errors}");
    assert!(text.contains("imported on b"), "{text}");
    assert_eq!(possessions(&stage.b), stage.kept);
    let (ok, text, errors) = run(&["--bootstrap", "ssh", "--json"]);
    assert!(ok && text.contains("\"gone\""), "{text}{errors}");
    assert_eq!(stage.a.state(NAME), None);
    let sent = || {
        let names = fs::read_dir("/tmp").unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_str().is_some_and(|name| name.starts_with("vtpmctl."))).count()
    };
    until("cleared up", || sent() == 0);
}
