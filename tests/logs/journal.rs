//! The journal of systemd, in a mount namespace of its own: a socket that takes what is sent to it.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::Host;

/// `vtpmd run` where `/run/systemd` is another directory, with a standard error that is said to be the journal.
struct Contained(Child);

impl Drop for Contained {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Whether this system lets one have a mount namespace.
fn namespaces_are_allowed() -> bool {
    let program = Command::new("unshare").args(["-rm", "mount", "-t", "tmpfs", "tmpfs", "/run"]).output();
    let allowed = program.is_ok_and(|output| output.status.success());
    if !allowed {
        let required = std::env::var("VTPMD_QEMU_TESTS").is_ok_and(|v| v == "required");
        assert!(!required, "there are no mount namespaces");
        eprintln!("skipped: there are no mount namespaces here");
    }
    allowed
}

impl Contained {
    fn run(host: &Host, systemd: &Path, stderr: &Path, arguments: &[&str]) -> Self {
        let vtpmd = host.vtpmd("run");
        let file = File::create(stderr).unwrap();
        let found = file.metadata().unwrap();
        let mut program = Command::new("unshare");
        program.args(["-rm", "sh", "-c"]);
        program.arg("mount -t tmpfs tmpfs /run && mkdir /run/systemd && mount --bind \"$1\" /run/systemd && shift && exec \"$@\"");
        program.arg("sh").arg(systemd).arg(vtpmd.get_program()).args(vtpmd.get_args()).args(arguments);
        program.env("JOURNAL_STREAM", format!("{}:{}", found.dev(), found.ino()));
        let child = program.stdin(Stdio::null()).stderr(file).spawn().unwrap();
        let contained = Self(child);
        let until = Instant::now() + Duration::from_secs(60);
        while UnixStream::connect(host.runtime().join("root/tpm.sock")).is_err() {
            assert!(Instant::now() < until, "vtpmd does not answer");
            std::thread::sleep(Duration::from_millis(5));
        }
        contained
    }
}

/// The fields of an entry in the journal's own protocol.
fn fields(mut datagram: &[u8]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    while !datagram.is_empty() {
        let end = datagram.iter().position(|b| *b == b'\n').unwrap();
        let line = String::from_utf8(datagram[..end].to_vec()).unwrap();
        datagram = &datagram[end + 1..];
        if let Some((name, value)) = line.split_once('=') {
            found.insert(name.to_owned(), value.to_owned());
            continue;
        }
        let (length, rest) = datagram.split_at(8);
        let length = usize::try_from(u64::from_le_bytes(length.try_into().unwrap())).unwrap();
        found.insert(line, String::from_utf8(rest[..length].to_vec()).unwrap());
        datagram = rest[length..].strip_prefix(b"\n").unwrap();
    }
    found
}

#[test]
fn the_journal_gets_entries_with_its_priorities_and_our_fields() {
    if !namespaces_are_allowed() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let host = Host::at(dir.path().join("a"));
    assert!(host.vtpmd("init").output().unwrap().status.success());
    let (systemd, stderr) = (dir.path().join("systemd"), dir.path().join("stderr"));
    std::fs::create_dir_all(systemd.join("journal")).unwrap();
    let socket = UnixDatagram::bind(systemd.join("journal/socket")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let contained = Contained::run(&host, &systemd, &stderr, &["--log-level", "trace"]);
    host.ctl(&["create", "guest"]);
    let mut buffer = vec![0; 1 << 16];
    // It is tried out with nothing at first.
    let mut next = || loop {
        match socket.recv(&mut buffer).unwrap() {
            0 => {}
            length => return fields(&buffer[..length]),
        }
    };
    let started = next();
    assert_eq!(started["SYSLOG_IDENTIFIER"], "vtpmd");
    let mut priorities = std::collections::BTreeSet::new();
    let created = loop {
        let entry = next();
        assert!(entry.contains_key("MESSAGE") && entry["TARGET"].starts_with("vtpm"), "{entry:?}");
        priorities.insert(entry["PRIORITY"].clone());
        if entry.get("COMMAND").is_some_and(|command| command == "CREATE_INSTANCE") {
            break entry;
        }
    };
    assert_eq!((&*created["INSTANCE"], &*created["PRIORITY"]), ("root", "7"));
    assert!(created["HANDLE"].starts_with("0xa0"), "{created:?}");
    assert!(priorities.contains("7"), "{priorities:?}");
    drop(contained);
    assert_eq!(std::fs::read_to_string(stderr).unwrap(), "");
}

#[test]
fn where_the_journal_cannot_be_reached_lines_have_its_priorities_in_front() {
    if !namespaces_are_allowed() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let host = Host::at(dir.path().join("a"));
    assert!(host.vtpmd("init").output().unwrap().status.success());
    let (systemd, stderr) = (dir.path().join("systemd"), dir.path().join("stderr"));
    std::fs::create_dir_all(&systemd).unwrap();
    for (format, begin) in [(None, "<5>vtpmd::"), (Some("text"), "<5>["), (Some("json"), "<5>{\"time\":")] {
        let arguments = format.map(|format| ["--log-format", format]);
        let contained = Contained::run(&host, &systemd, &stderr, arguments.as_ref().map_or(&[], |a| &a[..]));
        drop(contained);
        let text = std::fs::read_to_string(&stderr).unwrap();
        assert!(!text.is_empty() && text.lines().all(|line| line.starts_with(begin)), "{format:?} {text}");
    }
}
