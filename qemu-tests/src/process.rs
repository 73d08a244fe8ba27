//! Child processes that do not outlive the test.

use crate::error::{Error, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A process in the background, with its output in a file. It is killed when this is dropped, and by the kernel when
/// the thread that started it ends, so start it from the thread of the test.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program; what it prints is appended to `log`.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be started.
    pub fn start<S: AsRef<OsStr>>(
        name: &str,
        program: &Path,
        arguments: impl IntoIterator<Item = S>,
        log: &Path,
    ) -> Result<Self> {
        let output = OpenOptions::new().create(true).append(true).open(log);
        let output: File = output.map_err(Error::io(log.display().to_string()))?;
        let errors = output.try_clone().map_err(Error::io("a second descriptor for the log"))?;
        // setpriv sets the parent death signal and becomes the program, with the same process id.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(Error::io(format!("setpriv {}", program.display())))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The exit status, if it has ended.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be asked for.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().map_err(Error::io(format!("waiting for {}", self.name)))
    }

    /// Fails if it has ended, with the end of its log.
    ///
    /// # Errors
    /// [`Error::Ended`].
    pub fn still_running(&mut self) -> Result<()> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => Err(Error::Ended {
                name: self.name.clone(),
                detail: format!("{status}\n{}", tail(&self.log)),
            }),
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// [`Error::Timeout`] if it does not end in time.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let name = self.name.clone();
        wait_until(&format!("{name} did not end"), timeout, || self.ended())
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no such process any more.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = i32::try_from(self.child.id()).map_err(|_| Error::Setup("process id".into()))?;
        kill(Pid::from_raw(id), signal)
            .map_err(|errno| Error::io(format!("{signal} to {}", self.name))(errno.into()))
    }

    /// SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        let _ = self.child.kill();
        self.child.wait().map(drop).map_err(Error::io(format!("waiting for {}", self.name)))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Asks every few milliseconds until there is an answer.
///
/// # Errors
/// [`Error::Timeout`] if there is none in time, or what the question fails with.
pub fn wait_until<T>(
    what: &str,
    timeout: Duration,
    mut question: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let started = Instant::now();
    loop {
        if let Some(answer) = question()? {
            return Ok(answer);
        }
        if started.elapsed() >= timeout {
            return Err(Error::Timeout { what: what.to_owned(), after: timeout });
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a program to its end and returns what it printed on standard output.
///
/// # Errors
/// [`Error::Status`] with standard error if it failed.
pub fn run<S: AsRef<OsStr>>(program: &Path, arguments: impl IntoIterator<Item = S>) -> Result<Vec<u8>> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    let output = command.output().map_err(Error::io(program.display().to_string()))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(Error::Status {
        command: format!("{command:?}"),
        status: output.status.code().unwrap_or(-1),
        output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// The last lines of a log.
#[must_use]
pub fn tail(log: &Path) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().rev().take(25).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
