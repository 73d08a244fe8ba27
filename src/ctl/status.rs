//! `vtpmctl migrate status`: where an instance stands in its migration, and the steps of its last one with their times.

use serde_json::{Value, json};
use vtpm_protocol::instance::{InstanceSummary, LogEntry, LogStep};

use super::output::Output;
use super::{Ctl, CtlError, Result};

/// Microseconds for people.
fn duration(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} us"),
        1_000..1_000_000 => format!("{}.{:02} ms", us / 1_000, us % 1_000 / 10),
        _ => format!("{}.{:02} s", us / 1_000_000, us % 1_000_000 / 10_000),
    }
}

/// Milliseconds since 1970-01-01 UTC as RFC 3339 has them.
fn time(ms: u64) -> String {
    let (days, of_day) = (ms / 86_400_000, ms % 86_400_000);
    let (mut year, mut left) = (1970u64, days);
    let length = |year: u64| {
        let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        if leap { 366 } else { 365 }
    };
    while left >= length(year) {
        left = left.saturating_sub(length(year));
        year = year.saturating_add(1);
    }
    let february = if length(year) == 366 { 29 } else { 28 };
    let mut month = 1u64;
    for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if left < days {
            break;
        }
        left = left.saturating_sub(days);
        month = month.saturating_add(1);
    }
    let (hour, minute) = (of_day / 3_600_000, of_day / 60_000 % 60);
    let (second, millis) = (of_day / 1_000 % 60, of_day % 1_000);
    let day = left.saturating_add(1);
    format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

fn step_json(step: &LogStep) -> Value {
    json!({
        "step": step.step.as_str(),
        "at": time(step.at_ms),
        "at_ms": step.at_ms,
        "span_us": step.span_us,
        "spent_us": step.spent_us,
        "bytes": step.bytes,
        "count": step.count,
    })
}

fn entry_json(entry: &LogEntry, state: Option<&InstanceSummary>) -> Value {
    json!({
        "name": entry.name.as_str(),
        "uuid": uuid::Uuid::from_bytes(entry.uuid.0).to_string(),
        "migration_id": hex::encode(entry.migration_id),
        "side": entry.side.as_str(),
        "state": state.map(|summary| summary.state.as_str()),
        "steps": entry.steps.iter().map(step_json).collect::<Value>(),
    })
}

fn entry_text(entry: &LogEntry, state: Option<&InstanceSummary>) -> String {
    let state = state.map_or("gone from here", |summary| summary.state.as_str());
    let mut text = format!(
        "{}: {state}\nmigration {}, this is its {}\n",
        entry.name,
        hex::encode(entry.migration_id),
        entry.side
    );
    text += &format!(
        "  {:<14}  {:<24}  {:>10}  {:>10}  {:>5}  {:>9}\n",
        "STEP", "BEGAN", "TOOK", "COMPUTED", "TIMES", "BYTES"
    );
    for step in &entry.steps {
        text += &format!(
            "  {:<14}  {:<24}  {:>10}  {:>10}  {:>5}  {:>9}\n",
            step.step.as_str(),
            time(step.at_ms),
            duration(step.span_us),
            duration(step.spent_us),
            step.count,
            step.bytes
        );
    }
    text
}

impl Ctl {
    /// The last migration of the instance of that name, here or gone; without one, of all that the log has.
    pub(super) fn status(&self, name: Option<&str>) -> Result<()> {
        let here = self.client.list(vtpm_protocol::instance::INSTANCE_SELF)?;
        let own = name.and_then(|name| here.iter().find(|i| i.name.as_str() == name));
        let mut entries = self.client.migration_log(own.map(|i| i.uuid))?;
        if let (Some(name), None) = (name, own) {
            entries.retain(|entry| entry.name.as_str() == name);
            entries.truncate(1);
            if entries.is_empty() {
                return Err(CtlError::NoInstance(name.to_owned()));
            }
        }
        self.out.migrations(&entries, &here, name.is_some());
        Ok(())
    }
}

impl Output {
    fn migrations(&self, entries: &[LogEntry], here: &[InstanceSummary], one: bool) {
        let state = |entry: &LogEntry| here.iter().find(|i| i.uuid == entry.uuid);
        let all: Vec<Value> = entries.iter().map(|entry| entry_json(entry, state(entry))).collect();
        let json = if one { all.into_iter().next().unwrap_or(Value::Null) } else { Value::from(all) };
        let texts: Vec<String> = entries.iter().map(|entry| entry_text(entry, state(entry))).collect();
        let text = if texts.is_empty() { "no migration yet\n".to_owned() } else { texts.join("\n") };
        self.print(&json, &text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(time(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(time(951_782_399_999), "2000-02-28T23:59:59.999Z");
        assert_eq!(time(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(time(1_795_379_229_042), "2026-11-22T20:27:09.042Z");
        assert_eq!(time(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
    }

    #[test]
    fn durations_have_a_unit_that_fits() {
        assert_eq!([7, 1_234, 45_600_000].map(duration), ["7 us", "1.23 ms", "45.60 s"]);
    }
}
