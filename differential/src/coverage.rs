//! How often each command ran, and how often it succeeded.

use crate::client::Call;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::TpmCc;

/// Counts of one command.
#[derive(Clone, Debug, Default)]
pub struct Count {
    /// How often it was sent to both.
    pub run: u64,
    /// How often both did it.
    pub succeeded: u64,
    /// The response codes of swtpm, but for what they blame, and how often.
    pub failures: BTreeMap<u32, u64>,
}

/// Counts by command code.
#[derive(Clone, Debug, Default)]
pub struct Coverage(pub BTreeMap<u32, Count>);

impl Coverage {
    /// Counts a command and its outcome.
    pub fn count(&mut self, call: &Call, code: u32) {
        let count = self.0.entry(call.code).or_default();
        count.run += 1;
        if code == 0 {
            count.succeeded += 1;
        } else {
            *count.failures.entry(ResponseCode::from_value(code).base().value()).or_default() += 1;
        }
    }

    /// Adds the counts of another episode.
    pub fn add(&mut self, other: &Self) {
        for (code, theirs) in &other.0 {
            let ours = self.0.entry(*code).or_default();
            ours.run += theirs.run;
            ours.succeeded += theirs.succeeded;
            for (rc, n) in &theirs.failures {
                *ours.failures.entry(*rc).or_default() += n;
            }
        }
    }

    /// All commands that ran.
    pub fn total(&self) -> u64 {
        self.0.values().map(|c| c.run).sum()
    }

    /// The table: a command a line, with its failures from the most frequent on. `expected` are the commands that should be there.
    pub fn table(&self, expected: impl Iterator<Item = u32>) -> String {
        let mut counts = self.0.clone();
        for code in expected {
            counts.entry(code).or_default();
        }
        let mut out = String::new();
        for (code, c) in counts {
            let mut failures: Vec<_> = c.failures.iter().collect();
            failures.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
            let name = |rc: u32| ResponseCode::from_value(rc).name().unwrap_or("?");
            let list: Vec<_> = failures.iter().take(8).map(|(rc, n)| format!("{} {n}", name(**rc))).collect();
            let note = if c.run == 0 {
                "   NEVER RUN"
            } else if c.succeeded == 0 {
                "   NEVER SUCCEEDED"
            } else {
                ""
            };
            let title = format!("{:?}", TpmCc(code));
            let _ = writeln!(out, "{title:<32}{:>8}{:>8}{note}  {}", c.run, c.succeeded, list.join(", "));
        }
        out
    }
}
