//! A host of the tests: a state, and a daemon on it that is a process of its own or lives in this one, so that a test can be its machine.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use vtpm_backend::device::TpmDevice;
use vtpm_protocol::instance::InstanceState;
use vtpmd::config::{Config, LinkConfig};
use vtpmd::daemon::{self, Daemon};
use vtpmd::migration::client::Client;
use vtpmd::service::Sockets;
use vtpmd::tree::{Instance, LocalTransport};

pub const NAME: &str = "guest";
pub const UUID: &str = "5f0c9c36-7d5e-4b0e-9a33-0d7f3f1f2a10";

/// Waits for it, up to a minute on a busy machine.
pub fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !reached() {
        assert!(Instant::now() < end, "it is never {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub struct Site {
    pub label: &'static str,
    pub dir: TempDir,
    config: Config,
    daemon: Option<Daemon>,
    process: Option<Child>,
}

impl Site {
    pub fn start(label: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let link = LinkConfig { listen: "127.0.0.1:0".parse().ok(), ..LinkConfig::default() };
        let config = Config {
            state_dir: dir.path().join("state"),
            runtime_dir: dir.path().join("run"),
            link: Some(link),
            ..Config::default()
        };
        daemon::init(&config).unwrap();
        let mut site = Self { label, dir, config, daemon: None, process: None };
        site.run();
        site
    }

    /// Two; a instance may go from the first to the second, which lets it make its slot.
    pub fn pair() -> (Self, Self) {
        let (a, b) = (Self::start("a"), Self::start("b"));
        a.add_peer(&b, &["--address", &b.address()]);
        b.add_peer(&a, &["--address", &a.address(), "--may-prepare"]);
        (a, b)
    }

    /// The daemon in this process, at the address of before.
    pub fn run(&mut self) {
        let daemon = Daemon::start(&self.config, Sockets::default()).unwrap();
        self.daemon = Some(daemon);
        if let Some(link) = &mut self.config.link {
            link.listen = self.daemon.as_ref().unwrap().link_address();
        }
        let link = match &self.config.link {
            Some(_) => format!("[link]\nlisten = {:?}\n", self.address()),
            None => String::new(),
        };
        let (state, runtime) = (&self.config.state_dir, &self.config.runtime_dir);
        let text = format!("state_dir = {state:?}\nruntime_dir = {runtime:?}\n{link}");
        std::fs::write(self.file(), text).unwrap();
    }

    /// The daemon as a process.
    pub fn run_process(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vtpmd"));
        command.arg("run").arg("--config").arg(self.file()).stdin(Stdio::null());
        self.process = Some(command.spawn().unwrap());
        let socket = self.config.runtime_dir.join("root/tpm.sock");
        until("up", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
    }

    /// From here on a process, or again in this one.
    pub fn stop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.stop();
        }
        self.kill();
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("vtpmd.toml")
    }

    pub fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    pub fn state_dir(&self) -> &std::path::Path {
        &self.config.state_dir
    }

    pub fn address(&self) -> String {
        self.config.link.as_ref().unwrap().listen.unwrap().to_string()
    }

    pub fn add_peer(&self, other: &Self, more: &[&str]) {
        let identity = self.path(&format!("{}.identity", other.label));
        other.ctl(&["identity", "export", "--output", &identity]);
        self.ctl(&[&["peer", "add", other.label, "--identity", &identity], more].concat());
        std::fs::remove_file(identity).unwrap();
    }

    /// The fleet key of the other host, which becomes this one's, too.
    pub fn share_fleet_key(&self, other: &Self) {
        let (identity, key) = (self.path("own.identity"), self.path("fleet.key"));
        self.ctl(&["identity", "export", "--output", &identity]);
        other.ctl(&["fleet-key", "duplicate", "--to", &identity, "--output", &key]);
        self.ctl(&["fleet-key", "import", &key]);
    }

    /// From the next start on without a link, of its own accord or of others'.
    pub fn silence(&mut self) {
        self.config.link = None;
    }

    pub fn forget(&self, other: &Self) {
        self.ctl(&["peer", "remove", other.label]);
    }

    /// The options with which a vtpmctl reaches this host.
    pub fn reach(&self) -> Vec<String> {
        vec!["--config".into(), self.file().to_str().unwrap().into()]
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vtpmctl"));
        command.args(self.reach()).args(arguments).stdin(Stdio::null());
        command
    }

    pub fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What vtpmctl prints; it must succeed.
    pub fn ctl(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ctl(&[arguments, &["--json"]].concat())).unwrap()
    }

    /// What vtpmctl complains of; it must fail.
    pub fn refused(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(!output.status.success(), "{arguments:?} succeeded");
        String::from_utf8(output.stderr).unwrap()
    }

    /// `None` when there is no such instance.
    pub fn state(&self, name: &str) -> Option<String> {
        let all = self.json(&["list"]);
        let found = all.as_array().unwrap().iter().find(|i| i["name"] == name);
        found.map(|i| i["state"].as_str().unwrap().to_owned())
    }

    pub fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().unwrap()
    }

    pub fn client(&self) -> Client<LocalTransport> {
        self.daemon().tree().local_client()
    }

    pub fn guest(&self) -> Arc<Instance> {
        self.instance(NAME)
    }

    pub fn instance(&self, name: &str) -> Arc<Instance> {
        self.daemon().tree().by_name(name).unwrap()
    }

    pub fn live_state(&self) -> Option<InstanceState> {
        self.daemon().tree().by_name(NAME)?.state()
    }

    /// What the TPM of the machine answers.
    pub fn execute(&self, command: &[u8]) -> Vec<u8> {
        self.guest().execute(0, command, None)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop();
    }
}
