//! The command loop in the guest, seen from the host.

use crate::error::{Error, Result};
use crate::guest::Guest;
use crate::process::wait_until;
use serde::Deserialize;
use std::time::Duration;

/// What `guest-helper loop` prints at its end.
#[derive(Clone, Debug, Deserialize)]
pub struct Summary {
    /// Rounds of extend, read, increment, read, random.
    pub rounds: u64,
    /// Commands.
    pub commands: u64,
    /// Commands that did not succeed.
    pub failed: Vec<Failed>,
    /// How often `TPM_RC_RETRY` reached the loop, which then sent the command again. The kernel's driver tries for two and a half seconds
    /// before it passes that code on.
    pub retried: u64,
    /// Commands that succeeded without effect.
    pub lost: u64,
    /// Commands that took effect twice.
    pub repeated: u64,
    /// Values that neither explains.
    pub wrong: u64,
    /// The PCR before the loop.
    pub pcr_first: String,
    /// The PCR after it.
    pub pcr_last: String,
    /// The counter before the loop.
    pub counter_first: u64,
    /// The counter after it.
    pub counter_last: u64,
    /// How long the loop ran, in the guest's time.
    pub seconds: f64,
    /// How long the commands took.
    pub latency_us: Latency,
}

/// A command of the loop that did not succeed.
#[derive(Clone, Debug, Deserialize)]
pub struct Failed {
    /// In this round.
    pub round: u64,
    /// Which command.
    pub command: String,
    /// The response code or the driver's error.
    pub error: String,
}

/// Microseconds of the guest's time from command to response.
#[derive(Clone, Debug, Deserialize)]
pub struct Latency {
    /// Half of the commands took less.
    pub p50: u32,
    /// All but one in a hundred took less.
    pub p99: u32,
    /// The slowest.
    pub max: u32,
    /// Which command that was.
    pub max_command: String,
    /// And in which round.
    pub max_round: u64,
}

impl Summary {
    /// Every command had its effect exactly once, at the first try.
    ///
    /// # Errors
    /// [`Error::Differs`] with the summary.
    pub fn exactly_once(&self) -> Result<()> {
        if self.retried > 0 {
            return Err(Error::Differs(format!("the loop saw a TPM that was locked: {self:?}")));
        }
        self.exactly_once_in_the_end()
    }

    /// Every command had its effect exactly once; the TPM may have been locked in between.
    ///
    /// # Errors
    /// [`Error::Differs`] with the summary.
    pub fn exactly_once_in_the_end(&self) -> Result<()> {
        let counted = self.counter_last.checked_sub(self.counter_first) == Some(self.rounds);
        let clean = self.failed.is_empty() && self.lost == 0 && self.repeated == 0 && self.wrong == 0;
        if clean && counted && self.rounds > 0 {
            return Ok(());
        }
        Err(Error::Differs(format!("the loop saw a command fail, get lost or be done twice: {self:?}")))
    }
}

/// A command loop that runs in a guest. It belongs to the guest, not to this process, and so it migrates.
#[derive(Debug)]
pub struct Workload {
    name: String,
}

impl Workload {
    /// Starts the loop and waits until it has done a few rounds.
    ///
    /// # Errors
    /// [`Error::Status`] with its words if it ends at once.
    pub fn start(guest: &mut Guest, name: &str) -> Result<Self> {
        let workload = Self { name: name.to_owned() };
        guest.shell(&format!(
            "cd /tmp; rm -f {name}.stop {name}.rounds {name}.status; \
             (guest-helper loop --stop {name}.stop --progress {name}.rounds >{name}.json 2>{name}.errors; \
             echo $? >{name}.status) </dev/null >/dev/null 2>&1 &"
        ))?;
        workload.wait_rounds(guest, 3)?;
        Ok(workload)
    }

    /// How many rounds it has done.
    ///
    /// # Errors
    /// [`Error::Status`] if it has ended.
    pub fn rounds(&self, guest: &mut Guest) -> Result<u64> {
        let name = &self.name;
        let text = guest.shell(&format!(
            "cd /tmp; if [ -s {name}.status ]; then cat {name}.errors {name}.json >&2; exit 1; fi; \
             if [ -e {name}.rounds ]; then cat {name}.rounds; else echo 0; fi"
        ))?;
        text.trim().parse().map_err(|_| Error::Format { what: "rounds of the loop".into(), text })
    }

    /// Waits until it has done so many rounds more than now.
    ///
    /// # Errors
    /// [`Error::Timeout`] if it stands still.
    pub fn wait_rounds(&self, guest: &mut Guest, more: u64) -> Result<()> {
        let until = self.rounds(guest)?.saturating_add(more);
        wait_until("the command loop stands still", Duration::from_secs(60), || {
            Ok((self.rounds(guest)? >= until).then_some(()))
        })
    }

    /// Stops the loop; `guest` may be another than the one it was started in.
    ///
    /// # Errors
    /// [`Error::Status`] if it did not end well, [`Error::Format`] if it printed no summary.
    pub fn stop(self, guest: &mut Guest) -> Result<Summary> {
        let name = &self.name;
        let text = guest.shell(&format!(
            "cd /tmp; touch {name}.stop; while [ ! -s {name}.status ]; do usleep 10000; done; \
             [ \"$(cat {name}.status)\" = 0 ] || {{ cat {name}.errors >&2; exit 1; }}; cat {name}.json"
        ))?;
        serde_json::from_str(&text).map_err(|_| Error::Format { what: "summary of the loop".into(), text })
    }
}
