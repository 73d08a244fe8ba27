//! A vtpmd: one "host".

use crate::error::{Error, Result};
use crate::process::{Process, run, wait_until};
use crate::setup::Setup;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A running daemon with a state of its own. It is killed when this is dropped; its state stays in the directory.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    program: PathBuf,
    control: PathBuf,
    state: PathBuf,
    runtime: PathBuf,
    log: PathBuf,
    configuration: Option<PathBuf>,
    process: Option<Process>,
}

impl Daemon {
    /// Makes a new state under `directory` (`vtpmd init`) and starts the daemon on it.
    ///
    /// # Errors
    /// [`Error::Status`] if `init` refuses, [`Error::Ended`] if the daemon does.
    pub fn start(setup: &Setup, directory: &Path, name: &str) -> Result<Self> {
        let mut daemon = Self {
            name: name.to_owned(),
            program: setup.programs.join("vtpmd"),
            control: setup.programs.join("vtpmctl"),
            state: directory.join(format!("{name}-state")),
            runtime: directory.join(format!("{name}-run")),
            log: directory.join(format!("{name}.log")),
            configuration: None,
            process: None,
        };
        run(&daemon.program, daemon.arguments("init"))?;
        daemon.restart()?;
        Ok(daemon)
    }

    fn arguments(&self, command: &str) -> Vec<String> {
        let mut arguments = vec![
            command.to_owned(),
            "--state-dir".into(),
            self.state.display().to_string(),
            "--runtime-dir".into(),
            self.runtime.display().to_string(),
        ];
        if let Some(file) = &self.configuration {
            arguments.extend(["--config".into(), file.display().to_string()]);
        }
        arguments
    }

    /// Starts it again with this configuration.
    ///
    /// # Errors
    /// As [`Self::restart`]; [`Error::Io`] if the file cannot be written.
    pub fn configure(&mut self, text: &str) -> Result<()> {
        let file = self.state.with_extension("toml");
        std::fs::write(&file, text).map_err(Error::io(file.display().to_string()))?;
        self.configuration = Some(file);
        self.kill()?;
        self.restart()
    }

    /// Starts it again after [`Self::kill`].
    ///
    /// # Errors
    /// [`Error::Ended`] if it does not stay, [`Error::Timeout`] if it does not listen.
    pub fn restart(&mut self) -> Result<()> {
        self.process = None;
        let mut process = Process::start(&self.name, &self.program, self.arguments("run"), &self.log)?;
        let root = self.root_socket();
        wait_until(&format!("{} does not listen", self.name), Duration::from_secs(20), || {
            process.still_running()?;
            Ok(UnixStream::connect(&root).ok())
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().map_or(Ok(()), |mut process| process.kill())
    }

    /// Fails if it has ended by itself.
    ///
    /// # Errors
    /// [`Error::Ended`].
    pub fn still_running(&mut self) -> Result<()> {
        self.process.as_mut().map_or(Ok(()), Process::still_running)
    }

    /// The process, while it runs.
    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }

    /// The directory with its state.
    #[must_use]
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The directory with its sockets.
    #[must_use]
    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// The raw TPM socket of the root instance.
    #[must_use]
    pub fn root_socket(&self) -> PathBuf {
        self.runtime.join("root").join("tpm.sock")
    }

    /// The vhost-user socket of an instance.
    #[must_use]
    pub fn socket(&self, instance: &str) -> PathBuf {
        self.runtime.join(instance).join("vhost-user.sock")
    }

    /// The control channel of an instance.
    #[must_use]
    pub fn control_socket(&self, instance: &str) -> PathBuf {
        self.runtime.join(instance).join("control.sock")
    }

    /// What the daemon has logged so far.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read.
    pub fn logged(&self) -> Result<String> {
        std::fs::read_to_string(&self.log).map_err(Error::io(self.log.display().to_string()))
    }

    /// Makes an instance and returns its vhost-user socket.
    ///
    /// # Errors
    /// [`Error::Status`] if that failed.
    pub fn create(&self, instance: &str) -> Result<PathBuf> {
        self.control(&["create", instance])?;
        Ok(self.socket(instance))
    }

    /// The UUID of an instance.
    ///
    /// # Errors
    /// [`Error::Status`] if there is no such instance.
    pub fn uuid(&self, instance: &str) -> Result<String> {
        let info: Value = self.control_json(&["info", instance])?;
        let uuid = info.get("uuid").and_then(Value::as_str).map(str::to_owned);
        uuid.ok_or_else(|| Error::Format { what: "the UUID of an instance".into(), text: info.to_string() })
    }

    /// Makes `other` a peer: its identity goes from one `vtpmctl` to the other in a file below `directory`.
    ///
    /// # Errors
    /// [`Error::Status`] if one of them fails.
    pub fn pin(&self, other: &Self, directory: &Path) -> Result<()> {
        self.pin_at(other, directory, &[])
    }

    /// As [`Self::pin`], in place of what it was before, with the address of its link.
    ///
    /// # Errors
    /// [`Error::Status`] if one of them fails.
    pub fn pin_link(&self, other: &Self, directory: &Path, address: &str) -> Result<()> {
        self.control(&["peer", "remove", &other.name])?;
        self.pin_at(other, directory, &["--address", address])
    }

    fn pin_at(&self, other: &Self, directory: &Path, more: &[&str]) -> Result<()> {
        let identity = directory.join(format!("{}.identity", other.name)).display().to_string();
        // vtpmctl overwrites nothing.
        let _ = std::fs::remove_file(&identity);
        other.control(&["identity", "export", "--output", &identity])?;
        let add = ["peer", "add", &other.name, "--identity", &identity];
        self.control(&[&add[..], more].concat()).map(drop)
    }

    /// Runs `vtpmctl` on this daemon and returns what it printed.
    ///
    /// # Errors
    /// [`Error::Status`] if it failed.
    pub fn control(&self, arguments: &[&str]) -> Result<String> {
        let (state, runtime) = (self.state.display().to_string(), self.runtime.display().to_string());
        let own = ["--state-dir", &state, "--runtime-dir", &runtime];
        let printed = run(&self.control, own.iter().chain(arguments))?;
        Ok(String::from_utf8_lossy(&printed).into_owned())
    }

    /// Runs `vtpmctl … --json` on this daemon and reads what it printed.
    ///
    /// # Errors
    /// [`Error::Status`] if it failed, [`Error::Format`] if it did not print JSON.
    pub fn control_json<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        let mut with_json = arguments.to_vec();
        with_json.push("--json");
        let text = self.control(&with_json)?;
        serde_json::from_str(&text)
            .map_err(|_| Error::Format { what: format!("vtpmctl {}", with_json.join(" ")), text })
    }
}
