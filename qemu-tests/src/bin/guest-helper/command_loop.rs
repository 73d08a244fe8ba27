//! TPM commands, one after the other, each checked: did it fail, was it lost, was it done twice?
//!
//! A round extends a PCR with a digest that only this round has, reads it back and compares it with a fold made here;
//! increments a counter and reads it back; asks for random bytes. A lost extend leaves the PCR where it was, a repeated
//! one makes it the fold of the same digest twice; a lost increment leaves the counter, a repeated one adds two.
//!
//! `TPM_RC_RETRY` says that the command was not started. It is sent again, as Part 2, 6.6 has it, until it is executed or the loop is
//! told to stop; so an instance that is locked by a migration holds the loop up and makes it count, but neither lose nor fail.

use crate::Failure;
use crate::bus;
use qemu_tests::tpm::{ALG_SHA256, RC_RETRY, Tpm, TpmError};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// So many failures are recorded in full; the loop ends after as many, since no more can be learned.
const MAX_FAILURES: usize = 20;

struct Options {
    pcr: u32,
    index: u32,
    count: u64,
    stop: Option<PathBuf>,
    progress: Option<PathBuf>,
}

impl Options {
    fn parse(arguments: &[&str]) -> Result<Self, Failure> {
        let mut options = Self { pcr: 14, index: 0x0180_0100, count: u64::MAX, stop: None, progress: None };
        let mut rest = arguments;
        while let [option, value, further @ ..] = rest {
            match *option {
                "--pcr" => options.pcr = value.parse()?,
                "--index" => options.index = u32::from_str_radix(value.trim_start_matches("0x"), 16)?,
                "--count" => options.count = value.parse()?,
                "--stop" => options.stop = Some(PathBuf::from(value)),
                "--progress" => options.progress = Some(PathBuf::from(value)),
                _ => return Err(format!("no such option: {option}").into()),
            }
            rest = further;
        }
        if let [option] = rest {
            return Err(format!("{option} wants a value").into());
        }
        Ok(options)
    }
}

/// What the loop prints at its end.
#[derive(Debug, Default, Serialize)]
struct Summary {
    rounds: u64,
    commands: u64,
    failed: Vec<Failed>,
    /// Answers that said to send the command again.
    retried: u64,
    lost: u64,
    repeated: u64,
    /// Neither what it should be, nor explained by one command lost or repeated.
    wrong: u64,
    pcr_first: String,
    pcr_last: String,
    counter_first: u64,
    counter_last: u64,
    seconds: f64,
    latency_us: Latency,
}

#[derive(Debug, Serialize)]
struct Failed {
    round: u64,
    command: &'static str,
    error: String,
}

#[derive(Debug, Default, Serialize)]
struct Latency {
    p50: u32,
    p99: u32,
    max: u32,
    max_command: &'static str,
    max_round: u64,
}

struct Loop {
    tpm: Tpm,
    pcr: u32,
    index: u32,
    value: [u8; 32],
    counter: u64,
    random: Vec<u8>,
    latencies: Vec<u32>,
    summary: Summary,
    stop: Option<PathBuf>,
}

pub(crate) fn run(arguments: &[&str]) -> Result<(), Failure> {
    let options = Options::parse(arguments)?;
    let mut state = Loop::start(&options)?;
    let started = Instant::now();
    let mut told = started;
    while state.summary.rounds < options.count && state.summary.failed.len() < MAX_FAILURES {
        if state.stopped() {
            break;
        }
        state.round();
        if let Some(file) = &options.progress
            && told.elapsed() > Duration::from_millis(50)
        {
            told = Instant::now();
            write_whole(file, &format!("{}\n", state.summary.rounds))?;
        }
    }
    state.summary.seconds = started.elapsed().as_secs_f64();
    let summary = state.finish();
    println!("{}", serde_json::to_string(&summary)?);
    Ok(())
}

/// So that a reader sees the old or the new content, never none.
fn write_whole(file: &Path, content: &str) -> Result<(), Failure> {
    let new = file.with_extension("new");
    fs::write(&new, content)?;
    Ok(fs::rename(new, file)?)
}

impl Loop {
    fn start(options: &Options) -> Result<Self, Failure> {
        let mut tpm = Tpm::open(Path::new(bus::TPM))?;
        tpm.define_counter(options.index)?;
        // A counter can be read only after its first increment.
        tpm.increment(options.index)?;
        let counter = tpm.read_counter(options.index)?;
        let value = read_pcr(&mut tpm, options.pcr)?;
        let summary = Summary { pcr_first: hex::encode(value), counter_first: counter, ..Summary::default() };
        Ok(Self {
            tpm,
            pcr: options.pcr,
            index: options.index,
            value,
            counter,
            random: Vec::new(),
            latencies: Vec::new(),
            summary,
            stop: options.stop.clone(),
        })
    }

    fn stopped(&self) -> bool {
        self.stop.as_ref().is_some_and(|file| file.exists())
    }

    fn round(&mut self) {
        self.summary.rounds = self.summary.rounds.saturating_add(1);
        let (pcr, index) = (self.pcr, self.index);

        let digest = round_digest(self.summary.rounds, self.counter);
        self.command("PCR_Extend", |tpm| tpm.pcr_extend(pcr, &digest));
        if let Some(value) = self.command("PCR_Read", |tpm| read_pcr(tpm, pcr)) {
            let once = fold(&self.value, &digest);
            if value == once {
            } else if value == self.value {
                self.summary.lost = self.summary.lost.saturating_add(1);
            } else if value == fold(&once, &digest) {
                self.summary.repeated = self.summary.repeated.saturating_add(1);
            } else {
                self.summary.wrong = self.summary.wrong.saturating_add(1);
            }
            self.value = value;
        }

        self.command("NV_Increment", |tpm| tpm.increment(index));
        if let Some(counter) = self.command("NV_Read", |tpm| tpm.read_counter(index)) {
            let tally = match counter.checked_sub(self.counter) {
                Some(1) => None,
                Some(0) => Some(&mut self.summary.lost),
                Some(2) => Some(&mut self.summary.repeated),
                _ => Some(&mut self.summary.wrong),
            };
            if let Some(tally) = tally {
                *tally = tally.saturating_add(1);
            }
            self.counter = counter;
        }

        if let Some(random) = self.command("GetRandom", |tpm| tpm.get_random(16)) {
            // Sixteen bytes do not come twice unless the generator was set back.
            if random.len() != 16 || random == self.random {
                self.summary.wrong = self.summary.wrong.saturating_add(1);
            }
            self.random = random;
        }
    }

    fn command<T>(&mut self, name: &'static str, run: impl Fn(&mut Tpm) -> Result<T, TpmError>) -> Option<T> {
        let started = Instant::now();
        let result = loop {
            match run(&mut self.tpm) {
                Err(TpmError::Code(RC_RETRY)) if !self.stopped() => {
                    self.summary.retried = self.summary.retried.saturating_add(1);
                }
                other => break other,
            }
        };
        let micros = u32::try_from(started.elapsed().as_micros()).unwrap_or(u32::MAX);
        self.summary.commands = self.summary.commands.saturating_add(1);
        self.latencies.push(micros);
        let round = self.summary.rounds;
        let latency = &mut self.summary.latency_us;
        if micros > latency.max {
            (latency.max, latency.max_command, latency.max_round) = (micros, name, round);
        }
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                let error = match &error {
                    TpmError::Io(source) => source.to_string(),
                    _ => error.to_string(),
                };
                self.summary.failed.push(Failed { round, command: name, error });
                None
            }
        }
    }

    fn finish(mut self) -> Summary {
        self.latencies.sort_unstable();
        let at = |part: usize, of: usize| {
            let place = self.latencies.len().saturating_mul(part).checked_div(of).unwrap_or(0);
            self.latencies.get(place).copied().unwrap_or(0)
        };
        self.summary.latency_us.p50 = at(50, 100);
        self.summary.latency_us.p99 = at(99, 100);
        self.summary.pcr_last = hex::encode(self.value);
        self.summary.counter_last = self.counter;
        self.summary
    }
}

fn read_pcr(tpm: &mut Tpm, pcr: u32) -> Result<[u8; 32], TpmError> {
    let value = tpm.pcr_read(ALG_SHA256, pcr)?;
    value.as_slice().try_into().map_err(|_| TpmError::Malformed(hex::encode(&value)))
}

fn fold(value: &[u8; 32], digest: &[u8; 32]) -> [u8; 32] {
    Sha256::new().chain_update(value).chain_update(digest).finalize().into()
}

/// Differs from round to round and, by the counter, from run to run.
fn round_digest(round: u64, counter: u64) -> [u8; 32] {
    Sha256::new()
        .chain_update(b"guest-helper loop")
        .chain_update(round.to_be_bytes())
        .chain_update(counter.to_be_bytes())
        .finalize()
        .into()
}
