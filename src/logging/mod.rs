//! The daemon's log: sentences with fields, for people, for programs that read a JSON object a line, or for the journal of systemd.
//!
//! Whatever a line is about is in its fields: `instance`, `uuid` and `handle` of an instance (`about!`), `migration`, `peer`,
//! `command`. What others have a say in, such as the reason that a peer gives for a refusal, can neither end a line nor steer a terminal.

mod about;
mod line;

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use env_logger::{Builder, Logger};
use log::{LevelFilter, Log, Metadata, Record};
use systemd_journal_logger::{JournalLog, connected_to_journal};

pub(crate) use about::{Handle, Short, about};

use crate::config::{LogFormat, LogLevel};

/// How this process logs: as it is told to, or else to the journal where the standard error is that, and as text.
#[must_use]
pub fn format_for(configured: Option<LogFormat>) -> LogFormat {
    let found = || if connected_to_journal() { LogFormat::Journal } else { LogFormat::Text };
    configured.unwrap_or_else(found)
}

/// Starts the log of this process. The first call counts.
pub fn init(level: LogLevel, format: LogFormat) {
    let lines = lines(level.into(), format, connected_to_journal());
    let most = lines.filter();
    // A journal that is not there is none; then its lines go to the standard error, with the priority in front.
    let journal = match format {
        LogFormat::Journal => JournalLog::new().ok(),
        LogFormat::Text | LogFormat::Json => None,
    };
    if log::set_boxed_logger(Box::new(Sink { lines, journal })).is_ok() {
        log::set_max_level(most);
        if format != LogFormat::Text {
            FOR_PROGRAMS.store(true, Ordering::Relaxed);
            log_panics();
        }
    }
}

/// Why the process ends: to whoever started it, and where lines are for programs as one of those.
pub fn last_words(text: &str) {
    if FOR_PROGRAMS.load(Ordering::Relaxed) {
        log::error!("{text}");
    } else {
        let _gone = writeln!(std::io::stderr(), "{text}");
    }
}

/// The standard error is for programs.
static FOR_PROGRAMS: AtomicBool = AtomicBool::new(false);

fn lines(level: LevelFilter, format: LogFormat, to_journal: bool) -> Logger {
    Builder::new()
        // Only what is ours: the libraries' own notes are for their authors.
        .filter_level(LevelFilter::Warn)
        .filter_module("vtpmd", level)
        .filter_module("vtpm_backend", level)
        .filter_module("vtpm_engine", level)
        .format(move |out, record| {
            // The journal takes the priority from there, and leaves the rest as it is.
            if to_journal || format == LogFormat::Journal {
                write!(out, "<{}>", line::priority(record.level()))?;
            }
            match format {
                LogFormat::Text => {
                    let time = out.timestamp_seconds();
                    line::text(out, Some(&time), record)
                }
                LogFormat::Journal => line::text(out, None, record),
                LogFormat::Json => {
                    let time = out.timestamp_millis().to_string();
                    line::json(out, &time, record)
                }
            }
        })
        .build()
}

/// Where lines go.
struct Sink {
    lines: Logger,
    journal: Option<JournalLog>,
}

impl Log for Sink {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.lines.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.lines.matches(record) {
            return;
        }
        if self.journal.as_ref().is_none_or(|journal| journal.journal_send(record).is_err()) {
            self.lines.log(record);
        }
    }

    fn flush(&self) {
        self.lines.flush();
    }
}

/// What a panic says, as a line like any other.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let text = panic.payload().downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.payload().downcast_ref::<String>().map(String::as_str));
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current();
        log::error!(
            thread = thread.name().unwrap_or_default(), location = place.as_str();
            "a panic: {}", text.unwrap_or("of no words")
        );
    }));
}
