//! How far a transfer is, on standard error: one line that is written over on a terminal, one for each look elsewhere.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::migration::client::{Moved, Plan, Portions};

/// Not more often than this.
const PACE: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Silent,
    Terminal,
    Lines,
}

/// The display of one command.
pub(super) struct Progress {
    kind: Kind,
    began: Instant,
    shown: Option<Instant>,
    /// A line on the terminal is not ended.
    open: bool,
}

impl Progress {
    /// For people: on a terminal, or where they ask for it; never beside JSON.
    pub(super) fn new(asked: bool, json: bool) -> Self {
        let kind = match (json, io::stderr().is_terminal(), asked) {
            (true, ..) | (false, false, false) => Kind::Silent,
            (false, true, _) => Kind::Terminal,
            (false, false, true) => Kind::Lines,
        };
        Self { kind, began: Instant::now(), shown: None, open: false }
    }

    /// Another stretch begins.
    pub(super) fn restart(&mut self) {
        self.began = Instant::now();
        self.shown = None;
    }

    /// A line that stays.
    pub(super) fn say(&mut self, text: &str) {
        if self.kind != Kind::Silent {
            self.close();
            let _nobody = writeln!(io::stderr(), "{text}");
        }
    }

    /// What an export is going to do, and how far it is.
    pub(super) fn exported(&mut self, plan: &Plan, moved: Moved) {
        if moved.pieces == 0 && moved.bytes == 0 {
            self.restart();
            return self.say(&describe(plan));
        }
        let pieces = format!("{} of {} pieces, ", moved.pieces, plan.pieces);
        self.show(
            &format!("exporting: {pieces}{}", self.amount(moved.bytes, plan.bytes)),
            moved.bytes >= plan.bytes,
        );
    }

    /// How much of a stream has been sent.
    pub(super) fn sent(&mut self, bytes: u64, of: u64) {
        self.show(&format!("sending: {}", self.amount(bytes, of)), bytes >= of);
    }

    /// How much of this program has been sent.
    pub(super) fn sent_program(&mut self, bytes: u64, of: u64) {
        if self.shown.is_none() {
            self.say("the other host has no vtpmctl that can be run: this one is sent");
            self.restart();
        }
        self.show(&format!("sending the program: {}", self.amount(bytes, of)), bytes >= of);
    }

    fn amount(&self, bytes: u64, of: u64) -> String {
        amount(bytes, of, self.began.elapsed())
    }

    fn show(&mut self, text: &str, last: bool) {
        let due = self.shown.is_none_or(|at| at.elapsed() >= PACE);
        if self.kind == Kind::Silent || !(due || last) {
            return;
        }
        self.shown = Some(Instant::now());
        let mut stderr = io::stderr();
        let _nobody = if self.kind == Kind::Terminal {
            self.open = true;
            write!(stderr, "\r\x1b[K{text}").and_then(|()| stderr.flush())
        } else {
            writeln!(stderr, "{text}")
        };
        if last {
            self.close();
        }
    }

    fn close(&mut self) {
        if std::mem::take(&mut self.open) {
            let _nobody = writeln!(io::stderr());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.close();
    }
}

/// The plan in words.
pub(super) fn describe(plan: &Plan) -> String {
    if plan.pieces == 0 {
        return "exported before; the stream is written again".to_owned();
    }
    let bytes = amount_of(plan.bytes);
    match plan.portions {
        Portions::Whole => format!("moving {bytes} in one step"),
        Portions::Areas => {
            let rest = plan.pieces.saturating_sub(plan.nv_indices).saturating_sub(plan.persistent);
            format!(
                "moving {bytes} area by area, at most {} at a time: {} NV indices, {} persistent objects, {rest} more",
                amount_of(u64::from(plan.limit)),
                plan.nv_indices,
                plan.persistent
            )
        }
    }
}

fn amount(bytes: u64, of: u64, time: Duration) -> String {
    let percent = bytes.saturating_mul(100).checked_div(of).unwrap_or(100);
    let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let rate = match bytes.saturating_mul(1000).checked_div(ms) {
        // Over before anybody could look at it.
        None => String::new(),
        Some(rate) => format!(", {}/s", amount_of(rate)),
    };
    format!("{} of {} ({percent}%){rate}", amount_of(bytes), amount_of(of))
}

fn amount_of(bytes: u64) -> String {
    match bytes {
        0..10_240 => format!("{bytes} bytes"),
        10_240..10_485_760 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_say_how_much_of_the_whole_and_how_fast() {
        assert_eq!(
            amount(500, 2000, Duration::from_millis(250)),
            "500 bytes of 2000 bytes (25%), 2000 bytes/s"
        );
        assert_eq!(amount(3 << 20, 12 << 20, Duration::from_secs(2)), "3072 KiB of 12 MiB (25%), 1536 KiB/s");
        assert_eq!(amount(7, 7, Duration::ZERO), "7 bytes of 7 bytes (100%)");
    }

    #[test]
    fn a_plan_says_which_of_the_two_ways_it_is() {
        let plan = Plan {
            portions: Portions::Whole,
            limit: 4096,
            pieces: 7,
            nv_indices: 2,
            persistent: 2,
            bytes: 4000,
        };
        assert_eq!(describe(&plan), "moving 4000 bytes in one step");
        assert_eq!(
            describe(&Plan { portions: Portions::Areas, ..plan }),
            "moving 4000 bytes area by area, at most 4096 bytes at a time: 2 NV indices, 2 persistent objects, 3 more"
        );
    }
}
