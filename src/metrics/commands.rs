//! Commands by code and result, and how long each took.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

use vtpm_engine::command::table::COMMANDS;
use vtpm_engine::execute::command_code;
use vtpm_protocol::instance::cc;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::TpmCc;

use super::Counter;
use super::histogram::{DURATIONS, Histogram};
use super::results::{self, OTHER};

/// The places of the commands, and their names. The place 0 is that of all which are no commands.
struct Names {
    /// By the code of the specification.
    standard: Vec<u8>,
    /// By the code of an instance command, without the bit that tells it apart.
    instance: Vec<u8>,
    names: Vec<&'static str>,
}

/// The upper half of the code of an instance command: `TPMA_CC.V`.
const INSTANCE: u32 = 0x2000;

fn name_of(code: TpmCc) -> &'static str {
    let own = || cc::ALL.iter().find(|(known, _)| *known == code).map(|(_, name)| *name);
    code.name().or_else(own).unwrap_or(OTHER)
}

static NAMES: LazyLock<Names> = LazyLock::new(|| {
    let mut found = Names { standard: Vec::new(), instance: Vec::new(), names: vec![OTHER] };
    for command in COMMANDS {
        let Some((table, number)) = table_of(&mut found, command.code) else { continue };
        if table.len() <= number {
            table.resize(number.saturating_add(1), 0);
        }
        let place = u8::try_from(found.names.len()).unwrap_or(0);
        if let Some((table, number)) = table_of(&mut found, command.code)
            && let Some(entry) = table.get_mut(number)
        {
            *entry = place;
        }
        found.names.push(name_of(command.code));
    }
    found
});

fn table_of(names: &mut Names, code: TpmCc) -> Option<(&mut Vec<u8>, usize)> {
    let number = usize::try_from(code.0 & 0xffff).ok()?;
    match code.0 >> 16 {
        0 => Some((&mut names.standard, number)),
        INSTANCE => Some((&mut names.instance, number)),
        _ => None,
    }
}

/// The place of a code, in constant time.
fn place(code: TpmCc) -> usize {
    let number = usize::try_from(code.0 & 0xffff).unwrap_or(usize::MAX);
    let table = match code.0 >> 16 {
        0 => &NAMES.standard,
        INSTANCE => &NAMES.instance,
        _ => return 0,
    };
    table.get(number).copied().unwrap_or(0).into()
}

/// The name of a command as a label and in the log: one of those in the table of commands, or one for all others.
#[must_use]
pub fn label(code: TpmCc) -> &'static str {
    NAMES.names.get(place(code)).copied().unwrap_or(OTHER)
}

/// What is counted of one command. Two that are used at once share no line of the processor's cache.
#[repr(align(64))]
struct OfCommand {
    succeeded: Counter,
    took: Histogram<{ DURATIONS.len() }>,
    /// By result; made when the first one fails.
    failed: OnceLock<Box<[AtomicU64]>>,
}

/// What is counted of all commands.
pub struct Commands {
    by_place: Box<[OfCommand]>,
}

/// What was counted of a command.
pub(super) struct Row<'a> {
    pub(super) command: &'static str,
    pub(super) results: Vec<(&'static str, u64)>,
    pub(super) took: &'a Histogram<{ DURATIONS.len() }>,
}

impl Default for Commands {
    fn default() -> Self {
        let new = || OfCommand {
            succeeded: Counter::default(),
            took: Histogram::new(&DURATIONS),
            failed: OnceLock::new(),
        };
        Self { by_place: NAMES.names.iter().map(|_| new()).collect() }
    }
}

impl Commands {
    /// Counts a command that was answered with `code`, `took` after it came.
    pub fn count(&self, command: &[u8], code: ResponseCode, took: Duration) {
        let place = command_code(command).map_or(0, place);
        let Some(of) = self.by_place.get(place) else { return };
        of.took.observe_duration(took);
        if code == ResponseCode::SUCCESS {
            of.succeeded.count();
            return;
        }
        let failed = of.failed.get_or_init(|| (0..results::count()).map(|_| AtomicU64::new(0)).collect());
        if let Some(count) = failed.get(results::place(code)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Of each command that there was, what came of it.
    pub(super) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.by_place.iter().zip(&NAMES.names).filter_map(|(of, &command)| {
            let success = ("SUCCESS", of.succeeded.get());
            let failed = of.failed.get().into_iter().flatten().map(|count| count.load(Ordering::Relaxed));
            let results: Vec<_> =
                [success].into_iter().chain(results::names().zip(failed)).filter(|(_, n)| *n > 0).collect();
            (!results.is_empty()).then_some(Row { command, results, took: &of.took })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vtpm_protocol::codec::Encode;
    use vtpm_protocol::tpm::TpmSt;

    fn command(code: u32) -> Vec<u8> {
        (TpmSt::NO_SESSIONS, 10u32, TpmCc(code)).to_bytes()
    }

    #[test]
    fn every_command_of_the_table_has_its_label_and_anything_else_one() {
        let mut seen = std::collections::BTreeSet::from([OTHER]);
        for known in COMMANDS {
            assert!(seen.insert(label(known.code)), "{:?}", known.code);
        }
        assert_eq!(seen.len(), NAMES.names.len());
        assert_eq!(label(TpmCc::NV_WRITE), "NV_WRITE");
        assert_eq!(label(cc::CREATE_INSTANCE), "CREATE_INSTANCE");
        let foreign =
            [0, 1, 0x11e, 0x1fff, 0xffff, 0x1_0144, 0x2000_0000, 0x2000_ffff, 0x2001_0001, u32::MAX];
        assert!(foreign.iter().all(|code| label(TpmCc(*code)) == OTHER));
    }

    #[test]
    fn what_was_not_sent_has_no_row_and_what_was_is_counted_by_its_result() {
        let counted = Commands::default();
        assert_eq!(counted.rows().count(), 0);
        let took = Duration::from_micros(40);
        let read = command(TpmCc::PCR_READ.0);
        counted.count(&read, ResponseCode::SUCCESS, took);
        counted.count(&read, ResponseCode::SUCCESS, took);
        counted.count(&read, ResponseCode::VALUE.parameter(1), took);
        counted.count(&read, ResponseCode::VALUE.parameter(2), took);
        counted.count(&read, ResponseCode::from_value(0xfff), took);
        counted.count(&command(0x999), ResponseCode::COMMAND_CODE, took);
        counted.count(&[0x80, 1], ResponseCode::COMMAND_SIZE, took);
        let rows: Vec<_> = counted.rows().map(|row| (row.command, row.results)).collect();
        assert_eq!(
            rows,
            [
                (OTHER, vec![("COMMAND_SIZE", 1), ("COMMAND_CODE", 1)]),
                ("PCR_READ", vec![("SUCCESS", 2), (OTHER, 1), ("VALUE", 2)]),
            ]
        );
        let took: Vec<u64> = counted.rows().map(|row| row.took.counted(1.0).count).collect();
        assert_eq!(took, [2, 5]);
    }

    /// What a command pays for being counted. Run with `--release -- --ignored --nocapture`.
    #[test]
    #[ignore = "a measurement"]
    fn what_counting_costs() {
        let counted = Commands::default();
        let extend = command(TpmCc::PCR_EXTEND.0);
        for threads in [1, 2] {
            const TIMES: u32 = 10_000_000;
            let begin = std::time::Instant::now();
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| {
                        for _ in 0..TIMES {
                            let start = std::time::Instant::now();
                            let command = std::hint::black_box(&extend);
                            counted.count(command, ResponseCode::SUCCESS, start.elapsed());
                        }
                    });
                }
            });
            println!("{threads} threads: {:?} each", begin.elapsed() / TIMES);
        }
        assert_eq!(counted.rows().count(), 1);
    }
}
