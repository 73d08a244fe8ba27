//! What the process takes, by the names that Prometheus' own libraries give it.

use std::fs;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::TimeValLike;
use rustix::param::{clock_ticks_per_second, page_size};

/// What the system says of this process. What it does not say is missing.
#[derive(Default)]
pub(super) struct Process {
    pub(super) cpu_seconds: Option<f64>,
    pub(super) start_time_seconds: Option<f64>,
    pub(super) virtual_bytes: Option<u64>,
    pub(super) resident_bytes: Option<u64>,
    pub(super) threads: Option<u64>,
    pub(super) open_descriptors: Option<u64>,
    pub(super) max_descriptors: Option<u64>,
}

/// Fields of proc(5), `/proc/pid/stat`, counted from the one behind the name of the program, which is the third.
const THREADS: usize = 17;
const START_TIME: usize = 19;
const VIRTUAL_SIZE: usize = 20;
const RESIDENT: usize = 21;

impl Process {
    /// As it is now.
    pub(super) fn now() -> Self {
        let mut found = fs::read_to_string("/proc/self/stat").map_or_else(|_| Self::default(), |s| parse(&s));
        found.cpu_seconds = cpu_seconds();
        let boot = fs::read_to_string("/proc/stat").ok().and_then(|stat| boot_time(&stat));
        found.start_time_seconds =
            found.start_time_seconds.zip(boot).map(|(since_boot, boot)| since_boot + boot);
        found.open_descriptors = open_descriptors();
        found.max_descriptors = getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft);
        found
    }
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus' numbers are those of f64")]
fn seconds(ticks: u64) -> f64 {
    ticks as f64 / clock_ticks_per_second() as f64
}

/// What `/proc/self/stat` has; the start since the system's.
fn parse(stat: &str) -> Process {
    // The name of the program may have any characters.
    let Some((_, fields)) = stat.rsplit_once(')') else { return Process::default() };
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let number = |place: usize| fields.get(place).and_then(|field| field.parse::<u64>().ok());
    let page = u64::try_from(page_size()).unwrap_or(4096);
    Process {
        start_time_seconds: number(START_TIME).map(seconds),
        virtual_bytes: number(VIRTUAL_SIZE),
        resident_bytes: number(RESIDENT).map(|pages| pages.saturating_mul(page)),
        threads: number(THREADS),
        ..Process::default()
    }
}

/// Of all threads. `/proc/self/stat` has it in ticks only, of which a young process has none.
#[expect(clippy::cast_precision_loss, reason = "Prometheus' numbers are those of f64")]
fn cpu_seconds() -> Option<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let used = usage.user_time().num_microseconds().saturating_add(usage.system_time().num_microseconds());
    Some(used as f64 / 1e6)
}

fn boot_time(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// Without the one that it takes to look.
fn open_descriptors() -> Option<u64> {
    let directory = fs::read_dir("/proc/self/fd").ok()?;
    u64::try_from(directory.count().saturating_sub(1)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    #[test]
    fn the_name_of_the_program_does_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 100 0 0 0 250 150 0 0 20 0 9 0 12345 8192 3 18446744073709551615";
        let found = parse(stat);
        let ticks = seconds(1);
        assert!((found.start_time_seconds.unwrap() - 12345.0 * ticks).abs() < 1e-9);
        assert_eq!((found.threads, found.virtual_bytes), (Some(9), Some(8192)));
        assert_eq!(found.resident_bytes, Some(3 * u64::try_from(page_size()).unwrap()));
        assert_eq!(parse("nonsense").threads, None);
    }

    #[test]
    fn processor_time_is_told_in_less_than_a_tick() {
        let mut last = cpu_seconds().unwrap();
        assert!(last > 0.0);
        // Other threads may have taken more between two looks, but not always.
        let grew_by_less_than_a_tick = || {
            let now = cpu_seconds().unwrap();
            let grew = now - last;
            last = now;
            grew > 0.0 && grew < seconds(1)
        };
        assert!(std::iter::repeat_with(grew_by_less_than_a_tick).take(100_000).any(|found| found));
    }

    #[test]
    fn this_process_started_lately_and_has_descriptors() {
        let now = Process::now();
        let start = UNIX_EPOCH + Duration::from_secs_f64(now.start_time_seconds.unwrap());
        let since = SystemTime::now().duration_since(start - Duration::from_secs(2)).unwrap();
        assert!(since < Duration::from_secs(3600), "{since:?}");
        let held = fs::File::open("/dev/null").unwrap();
        let more = Process::now();
        assert!(more.open_descriptors.unwrap() >= 4 && more.open_descriptors <= more.max_descriptors);
        assert!(more.resident_bytes.unwrap() > 1 << 20 && more.virtual_bytes > more.resident_bytes);
        drop(held);
    }
}
