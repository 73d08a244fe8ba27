//! A host with a fault in it: its daemon dies or its medium fails, and the operator puts that right.

use std::fs::{self, OpenOptions};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::common::Host;

/// Name of the instance on either host.
pub const NAME: &str = "guest";

/// A host.
pub struct Site {
    host: Host,
    dir: PathBuf,
    /// For the next start.
    fault: Option<String>,
    /// How often the daemon died of a fault.
    pub deaths: u32,
    /// Where its link listens.
    link: Option<SocketAddr>,
}

impl Site {
    /// The host whose state is below `dir`.
    pub fn at(dir: PathBuf) -> Self {
        Self { host: Host::at(dir.clone()), dir, fault: None, deaths: 0, link: None }
    }

    /// As [`Self::at`], with a link to other hosts.
    pub fn linked(dir: PathBuf, listen: SocketAddr) -> Self {
        Self { link: Some(listen), ..Self::at(dir) }
    }

    /// From here on this host trusts the other one, and finds it at that address.
    pub fn befriend(&self, other: &Self, address: SocketAddr) {
        let identity = self.dir.join("peer.identity");
        let identity = identity.to_str().unwrap();
        other.host.ctl(&["identity", "export", "--output", identity]);
        let fingerprint = other.host.json(&["identity", "show"])["fingerprint"].as_str().unwrap().to_owned();
        let address = address.to_string();
        // The template's hosts trust each other, and know no addresses.
        self.host.ctl(&["peer", "remove", other.name()]);
        let peer = ["peer", "add", other.name(), "--identity", identity, "--address", &address];
        self.host.ctl(&[&peer[..], &["--fingerprint", &fingerprint]].concat());
    }

    pub fn host(&self) -> &Host {
        &self.host
    }

    pub fn name(&self) -> &str {
        self.dir.file_name().unwrap().to_str().unwrap()
    }

    /// The instance's vhost-user socket.
    pub fn socket(&self) -> PathBuf {
        self.host.runtime().join(NAME).join("vhost-user.sock")
    }

    fn log_file(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// What the daemons have said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Whether a fault has struck.
    pub fn struck(&self) -> bool {
        self.log().lines().any(|line| line.starts_with("fault: "))
    }

    fn over(&self) -> PathBuf {
        self.dir.join("over")
    }

    /// A lasting fault of the medium ends.
    pub fn repair(&self) {
        fs::write(self.over(), "").unwrap();
    }

    /// Starts the daemon with a fault in it.
    pub fn start(&mut self, fault: Option<&str>) {
        self.fault = fault.map(str::to_owned);
        // One fault, which may strike at the start, and what came of it.
        for _ in 0..4 {
            let mut program = self.host.vtpmd("run");
            if let Some(listen) = self.link {
                let config = self.dir.join("vtpmd.toml");
                fs::write(&config, format!("[link]\nlisten = \"{listen}\"\n")).unwrap();
                program.arg("--config").arg(config);
            }
            if let Some(fault) = self.fault.take() {
                program.env("VTPMD_FAULT", fault).env("VTPMD_FAULT_OVER", self.over());
            }
            let log = OpenOptions::new().create(true).append(true).open(self.log_file()).unwrap();
            program.stdout(Stdio::null()).stderr(log);
            match self.host.launch(program) {
                None => return,
                Some(status) if status.signal() == Some(9) => self.deaths += 1,
                Some(status) => {
                    let log = self.log();
                    assert!(self.struck() && names_the_medium(&log), "{status}: {log}");
                    self.repair();
                }
            }
        }
        panic!("{} does not start: {}", self.name(), self.log());
    }

    /// Whether the daemon has died; of the fault, or the test fails.
    pub fn is_dead(&mut self) -> bool {
        let Some(status) = self.host.ended() else { return false };
        assert!(
            status.signal() == Some(9) && self.struck(),
            "{} ended, {status}: {}",
            self.name(),
            self.log()
        );
        true
    }

    /// Restarts a daemon that has died. Whether it had.
    pub fn mend(&mut self) -> bool {
        let dead = self.is_dead();
        if dead {
            self.deaths += 1;
            self.start(None);
        }
        dead
    }

    /// The daemon ends in good order.
    pub fn stop(&mut self) {
        self.host.terminate();
    }

    /// The daemon is killed, by no fault, and restarted.
    pub fn crash(&mut self) {
        self.host.kill();
        self.start(None);
    }

    /// The daemon is restarted in good order.
    pub fn restart(&mut self, fault: Option<&str>) {
        if !self.mend() {
            self.host.terminate();
        }
        self.start(fault);
    }

    /// vtpmctl; what it complains of when it fails. A daemon that died meanwhile is restarted.
    pub fn ctl(&mut self, arguments: &[&str]) -> Result<String, String> {
        let output = self.host.ctl_output(arguments);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        if output.status.success() {
            // It may have died with the answer on its way.
            self.mend();
            return Ok(text(output.stdout));
        }
        let complaint = text(output.stderr);
        if !self.mend() {
            // A killed process is gone a moment after its socket.
            std::thread::sleep(std::time::Duration::from_millis(20));
            self.mend();
        }
        Err(complaint)
    }

    /// Where the instance stands; `None` when there is none.
    pub fn state(&mut self) -> Option<String> {
        for _ in 0..5 {
            match self.ctl(&["info", NAME, "--json"]) {
                Ok(json) => {
                    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
                    return Some(json["state"].as_str().unwrap().to_owned());
                }
                Err(complaint) if complaint.contains("no instance") => return None,
                // A medium that lastingly fails.
                Err(_) => self.repair(),
            }
        }
        panic!("{} does not tell: {}", self.name(), self.log());
    }
}

/// Whether an operator who reads the log knows that it is the medium.
pub fn names_the_medium(log: &str) -> bool {
    log.contains("there is no room left for the state database") || log.contains("disk I/O error")
}

/// Copies a directory with all in it, sockets aside.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (kind, to) = (entry.file_type().unwrap(), to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &to);
        } else if kind.is_file() {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}
