//! Two daemons, one the source and one the destination of migrations.

use crate::daemon::Daemon;
use crate::error::{Error, Result, ensure};
use crate::guest::{Guest, GuestBuilder};
use crate::qmp::Migration;
use crate::relay::{Relay, Tamper};
use crate::setup::Setup;
use serde::Deserialize;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a migration may take on two busy cores under TCG.
const MIGRATION: Duration = Duration::from_secs(120);

/// Two daemons, each with a state of its own, as on two hosts.
#[derive(Debug)]
pub struct Hosts {
    /// Where instances are made.
    pub source: Daemon,
    /// Where they go.
    pub destination: Daemon,
    scratch: PathBuf,
    attempts: u32,
}

#[derive(Deserialize)]
struct Receipt {
    receipt: String,
}

/// One attempt to migrate a guest.
#[derive(Debug)]
pub struct Attempt {
    /// How it ended, as the source's QEMU sees it.
    pub migration: Migration,
    /// The machine on the destination; its QEMU has ended when it refused the stream.
    pub guest: Guest,
    /// The TPM's stream, as the source sent it.
    pub stream: Option<Vec<u8>>,
}

impl Hosts {
    /// Starts both, each of which takes the other's tickets.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn start(setup: &Setup, scratch: &Path) -> Result<Self> {
        let source = Daemon::start(setup, scratch, "source-host")?;
        let destination = Daemon::start(setup, scratch, "destination-host")?;
        source.pin(&destination, scratch)?;
        destination.pin(&source, scratch)?;
        Ok(Self { source, destination, scratch: scratch.to_owned(), attempts: 0 })
    }

    /// As [`Self::start`], with a peer link between the two.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn start_linked(setup: &Setup, scratch: &Path) -> Result<Self> {
        let mut hosts = Self::start(setup, scratch)?;
        // Both are taken at the same time, so that they differ.
        let free = || TcpListener::bind("127.0.0.1:0").map_err(Error::io("a free port"));
        let ports = [free()?, free()?];
        let [one, two] = ports.each_ref().map(|port| port.local_addr().map_err(Error::io("a free port")));
        let (one, two) = (one?.to_string(), two?.to_string());
        drop(ports);
        hosts.source.configure(&format!("[link]\nlisten = '{one}'\n"))?;
        hosts.destination.configure(&format!("[link]\nlisten = '{two}'\n"))?;
        hosts.source.pin_link(&hosts.destination, scratch, &two)?;
        hosts.destination.pin_link(&hosts.source, scratch, &one)?;
        Ok(hosts)
    }

    /// The way back: source and destination change places.
    pub fn turn(&mut self) {
        std::mem::swap(&mut self.source, &mut self.destination);
    }

    /// What `vtpmctl migrate` does before a machine moves: an empty instance and a ticket on the destination, which arms the
    /// instance on the source.
    ///
    /// # Errors
    /// [`crate::Error::Status`] if either side refuses.
    pub fn prepare(&self, instance: &str) -> Result<()> {
        let ticket = self.ticket(instance)?;
        self.source.control(&["migrate", "arm", instance, "--ticket", &ticket]).map(drop)
    }

    /// Only the destination's half of [`Self::prepare`]; returns the path of the ticket.
    ///
    /// # Errors
    /// [`crate::Error::Status`] if either side refuses.
    pub fn ticket(&self, instance: &str) -> Result<String> {
        let uuid = self.source.uuid(instance)?;
        // vtpmctl overwrites nothing.
        let path = self.scratch.join(format!("{instance}.ticket"));
        let _ = std::fs::remove_file(&path);
        let ticket = path.display().to_string();
        self.destination.control(&["migrate", "prepare", instance, "--uuid", &uuid, "--ticket", &ticket])?;
        Ok(ticket)
    }

    /// The destination gives up, and with its receipt the instance lives on at the source.
    ///
    /// # Errors
    /// [`crate::Error::Status`] if either side refuses.
    pub fn give_up(&self, instance: &str) -> Result<()> {
        let void: Receipt = self.destination.control_json(&["migrate", "abort", instance])?;
        self.source.control(&["migrate", "abort", instance, "--receipt", &void.receipt])?;
        self.destination.control(&["delete", instance]).map(drop)
    }

    /// The instance lives at the destination, and with its receipt the source destroys what it kept.
    ///
    /// # Errors
    /// [`crate::Error::Status`] if either side refuses.
    pub fn settle(&self, instance: &str) -> Result<()> {
        let live: Receipt = self.destination.control_json(&["migrate", "commit", instance])?;
        self.source.control(&["migrate", "commit", instance, "--receipt", &live.receipt]).map(drop)
    }

    /// Migrates a running machine and waits for the end, good or bad. What goes over the wire of the TPM's state is up
    /// to `tamper`; `None` leaves it alone.
    ///
    /// # Errors
    /// [`crate::Error::Timeout`] if the migration does not end.
    pub fn migrate(
        &mut self,
        setup: &Setup,
        guest: &mut Guest,
        builder: GuestBuilder,
        instance: &str,
        tamper: Option<Tamper>,
    ) -> Result<Attempt> {
        let builder = builder.tpm(&self.destination.socket(instance));
        self.migrate_to(setup, guest, builder, tamper)
    }

    /// As [`Self::migrate`], to a machine that has its TPM already.
    ///
    /// # Errors
    /// As [`Self::migrate`].
    pub fn migrate_to(
        &mut self,
        setup: &Setup,
        guest: &mut Guest,
        builder: GuestBuilder,
        tamper: Option<Tamper>,
    ) -> Result<Attempt> {
        self.attempts = self.attempts.saturating_add(1);
        let socket = |what: &str| self.scratch.join(format!("{what}-{}", self.attempts));
        let (wire, end) = (socket("wire"), socket("end"));
        let relay = tamper.map(|tamper| Relay::start(&wire, &end, tamper)).transpose()?;
        let to = if relay.is_some() { &wire } else { &end };

        let mut arrived = builder.incoming(&end).start(setup, &self.scratch)?;
        // With the return path every failure of the destination lets the source go on.
        arrived.qmp().set_migration_capabilities(&[("return-path", true)])?;
        guest.qmp().set_migration_capabilities(&[("return-path", true)])?;
        guest.qmp().migrate(to)?;
        let migration = guest.qmp().wait_migration("completed", MIGRATION)?;
        ensure(migration.is_over(), format!("the migration is {migration:?}"))?;
        Ok(Attempt { migration, guest: arrived, stream: relay.and_then(|relay| relay.recorded()) })
    }
}
