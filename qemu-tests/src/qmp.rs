//! QEMU's monitor.

use crate::error::{Error, Result};
use crate::process::wait_until;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long QEMU may take to answer a command. Saving a device runs under the lock that the monitor needs too.
const ANSWER: Duration = Duration::from_secs(60);

/// A connection to the monitor of one QEMU.
#[derive(Debug)]
pub struct Qmp {
    stream: UnixStream,
    lines: Receiver<Value>,
    events: VecDeque<Value>,
    next_id: u64,
}

/// A command whose answer has not come yet.
#[derive(Debug)]
pub struct Sent {
    id: u64,
    command: String,
}

/// How a migration stands, from `query-migrate`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Migration {
    /// `setup`, `active`, `pre-switchover`, `completed`, `failed`, `cancelled` and others; empty before the first.
    pub status: String,
    /// QEMU's words about a failure.
    pub error_desc: Option<String>,
    /// Milliseconds that the guest did not run.
    pub downtime: Option<u64>,
    /// Milliseconds from start to end.
    pub total_time: Option<u64>,
}

impl Migration {
    /// Whether it has come to an end, good or bad.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.status.as_str(), "completed" | "failed" | "cancelled")
    }
}

impl Qmp {
    /// Connects as soon as the socket is there.
    ///
    /// # Errors
    /// [`Error::Timeout`] if it does not appear, [`Error::Io`] if QEMU hangs up.
    pub fn connect(socket: &Path, timeout: Duration) -> Result<Self> {
        let mut qmp = Self::open(socket, timeout)?;
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// As [`Self::connect`], for a monitor that takes commands while QEMU's lock is held.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub fn connect_out_of_band(socket: &Path, timeout: Duration) -> Result<Self> {
        let mut qmp = Self::open(socket, timeout)?;
        qmp.execute("qmp_capabilities", json!({ "enable": ["oob"] }))?;
        Ok(qmp)
    }

    fn open(socket: &Path, timeout: Duration) -> Result<Self> {
        let stream = wait_until(&format!("no monitor at {}", socket.display()), timeout, || {
            Ok(UnixStream::connect(socket).ok())
        })?;
        let reader = stream.try_clone().map_err(Error::io("a second descriptor for the monitor"))?;
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(reader).lines() {
                let Ok(line) = line else { break };
                let Ok(value) = serde_json::from_str(&line) else { continue };
                if sender.send(value).is_err() {
                    break;
                }
            }
        });
        Ok(Self { stream, lines, events: VecDeque::new(), next_id: 0 })
    }

    /// Runs one command.
    ///
    /// # Errors
    /// [`Error::Qmp`] if QEMU refuses, [`Error::Timeout`] or [`Error::Ended`] if it does not answer.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let sent = self.send("execute", command, arguments)?;
        self.answer(&sent)
    }

    /// Sends a command without waiting: QEMU may hold the lock that it needs. [`Self::answer`] waits.
    ///
    /// # Errors
    /// [`Error::Io`] if QEMU hung up.
    pub fn begin(&mut self, command: &str, arguments: Value) -> Result<Sent> {
        self.send("execute", command, arguments)
    }

    /// Runs a command that does not wait for QEMU's lock, on a monitor made by [`Self::connect_out_of_band`].
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub fn execute_out_of_band(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let sent = self.send("exec-oob", command, arguments)?;
        self.answer(&sent)
    }

    fn send(&mut self, verb: &str, command: &str, arguments: Value) -> Result<Sent> {
        self.next_id = self.next_id.wrapping_add(1);
        let id = self.next_id;
        let mut line = json!({ verb: command, "arguments": arguments, "id": id }).to_string();
        line.push('\n');
        self.stream.write_all(line.as_bytes()).map_err(Error::io(format!("QMP {command}")))?;
        Ok(Sent { id, command: command.to_owned() })
    }

    /// Waits for the answer to a command that was sent before.
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub fn answer(&mut self, sent: &Sent) -> Result<Value> {
        let Sent { id, command } = sent;
        let started = Instant::now();
        loop {
            let left = ANSWER.saturating_sub(started.elapsed());
            let value = self.receive(left, &format!("no answer to QMP {command}"))?;
            if value.get("event").is_some() {
                self.events.push_back(value);
            } else if value.get("id").and_then(Value::as_u64) == Some(*id) {
                if let Some(error) = value.get("error") {
                    let description = error.get("desc").and_then(Value::as_str).unwrap_or_default();
                    return Err(Error::Qmp { command: command.clone(), description: description.into() });
                }
                return Ok(value.get("return").cloned().unwrap_or_default());
            }
        }
    }

    fn receive(&self, timeout: Duration, what: &str) -> Result<Value> {
        self.lines.recv_timeout(timeout).map_err(|error| match error {
            RecvTimeoutError::Timeout => Error::Timeout { what: what.into(), after: timeout },
            RecvTimeoutError::Disconnected => {
                Error::Ended { name: "the monitor".into(), detail: "QEMU hung up".into() }
            }
        })
    }

    /// Waits for an event of this name; earlier events of other names are dropped. Returns its data.
    ///
    /// # Errors
    /// [`Error::Timeout`] if it does not come.
    pub fn wait_event(&mut self, name: &str, timeout: Duration) -> Result<Value> {
        let event = self.next_event(name, timeout)?;
        Ok(event.get("data").cloned().unwrap_or_default())
    }

    /// As [`Self::wait_event`]; returns when it happened, by the host's clock since 1970.
    ///
    /// # Errors
    /// As [`Self::wait_event`].
    pub fn wait_moment(&mut self, name: &str, timeout: Duration) -> Result<Duration> {
        let event = self.next_event(name, timeout)?;
        let part = |unit: &str| event.pointer(&format!("/timestamp/{unit}")).and_then(Value::as_u64);
        match (part("seconds"), part("microseconds")) {
            (Some(seconds), Some(micros)) => {
                Ok(Duration::from_secs(seconds).saturating_add(Duration::from_micros(micros)))
            }
            _ => Err(Error::Format { what: format!("the moment of {name}"), text: event.to_string() }),
        }
    }

    fn next_event(&mut self, name: &str, timeout: Duration) -> Result<Value> {
        let started = Instant::now();
        loop {
            let event = match self.events.pop_front() {
                Some(event) => event,
                None => {
                    let left = timeout.saturating_sub(started.elapsed());
                    self.receive(left, &format!("no event {name}"))?
                }
            };
            if event.get("event").and_then(Value::as_str) == Some(name) {
                return Ok(event);
            }
        }
    }

    /// Forgets the events that have come so far.
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub fn forget_events(&mut self) -> Result<()> {
        self.run_state()?;
        self.events.clear();
        Ok(())
    }

    /// `running`, `paused`, `postmigrate`, `inmigrate` and others.
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub fn run_state(&mut self) -> Result<String> {
        let status = self.execute("query-status", json!({}))?;
        Ok(status.get("status").and_then(Value::as_str).unwrap_or_default().to_owned())
    }

    /// Lets the guest run.
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub fn cont(&mut self) -> Result<()> {
        self.execute("cont", json!({})).map(drop)
    }

    /// Stops the guest.
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub fn stop(&mut self) -> Result<()> {
        self.execute("stop", json!({})).map(drop)
    }

    /// Resets the machine, as its reset button would.
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub fn system_reset(&mut self) -> Result<()> {
        self.execute("system_reset", json!({})).map(drop)
    }

    /// Ends QEMU.
    ///
    /// # Errors
    /// As [`Self::execute`]; that QEMU hangs up first is none.
    pub fn quit(&mut self) -> Result<()> {
        match self.execute("quit", json!({})) {
            Ok(_) | Err(Error::Ended { .. } | Error::Io { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Switches migration capabilities, `return-path` and `pre-switchover` states among them.
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub fn set_migration_capabilities(&mut self, capabilities: &[(&str, bool)]) -> Result<()> {
        let list: Vec<Value> =
            capabilities.iter().map(|(name, state)| json!({ "capability": name, "state": state })).collect();
        self.execute("migrate-set-capabilities", json!({ "capabilities": list })).map(drop)
    }

    /// Starts to migrate to a QEMU that listens on a UNIX socket.
    ///
    /// # Errors
    /// As [`Self::execute`]; a migration that is blocked is refused here.
    pub fn migrate(&mut self, socket: &Path) -> Result<()> {
        self.execute("migrate", json!({ "uri": format!("unix:{}", socket.display()) })).map(drop)
    }

    /// Starts to migrate into a command of the host's, such as `cat > file`.
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub fn migrate_to_command(&mut self, command: &str) -> Result<()> {
        self.execute("migrate", json!({ "uri": format!("exec:{command}") })).map(drop)
    }

    /// Goes on after the state `pre-switchover`.
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub fn migrate_continue(&mut self) -> Result<()> {
        self.execute("migrate-continue", json!({ "state": "pre-switchover" })).map(drop)
    }

    /// Gives the migration up.
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub fn migrate_cancel(&mut self) -> Result<()> {
        self.execute("migrate_cancel", json!({})).map(drop)
    }

    /// How the migration stands.
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub fn migration(&mut self) -> Result<Migration> {
        let value = self.execute("query-migrate", json!({}))?;
        serde_json::from_value(value.clone())
            .map_err(|_| Error::Format { what: "query-migrate".into(), text: value.to_string() })
    }

    /// Waits until the migration is in this state, or over.
    ///
    /// # Errors
    /// [`Error::Timeout`] if neither happens.
    pub fn wait_migration(&mut self, status: &str, timeout: Duration) -> Result<Migration> {
        wait_until(&format!("the migration was not {status}"), timeout, || {
            let migration = self.migration()?;
            Ok((migration.status == status || migration.is_over()).then_some(migration))
        })
    }
}
