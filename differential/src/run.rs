//! A run: episodes until enough commands were sent.

use crate::accepted::Usage;
use crate::bytes::{OURS, Pair, THEIRS, take_number, u32_at};
use crate::compare::What;
use crate::coverage::Coverage;
use crate::device::{Device, Died, Ours, Swtpm};
use crate::generate;
use crate::rng::Rng;
use crate::shrink;
use crate::world::{Common, Difference, Exchange, World};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{TpmCap, TpmCc};

/// What to do.
#[derive(Clone, Debug)]
pub struct Config {
    /// The seed of all choices.
    pub seed: u64,
    /// How many commands at least.
    pub commands: u64,
    /// Just this episode.
    pub episode: Option<u64>,
    /// How many steps an episode has.
    pub steps: usize,
    /// How many commands of a hundred are made wrong.
    pub mutations: usize,
    /// How many episodes run at a time.
    pub jobs: usize,
    /// Compares swtpm with itself: for the generator, and for what of it is random.
    pub oracle_twice: bool,
    /// Our TPM is dropped between commands now and then, and goes on from what it has committed.
    pub reload: bool,
    /// After how many kinds of differences to stop.
    pub differences: usize,
    /// Whether to look for the few steps that lead to a difference.
    pub shrink: bool,
    /// Tells on standard error how far it is.
    pub progress: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            seed: 1,
            commands: 20_000,
            episode: None,
            steps: 150,
            mutations: 25,
            jobs: 2,
            oracle_twice: false,
            reload: false,
            differences: 10,
            shrink: true,
            progress: false,
        }
    }
}

/// A difference with where it was found.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What.
    pub difference: Difference,
    /// The episode of the run.
    pub episode: u64,
    /// How often it was found.
    pub times: u64,
    /// What was sent, as few commands as were found to lead to it.
    pub log: Vec<Exchange>,
}

/// What came of a run.
#[derive(Debug, Default)]
pub struct Report {
    /// What ran.
    pub coverage: Coverage,
    /// Which entries of the table were needed.
    pub usage: Usage,
    /// What differs and must not.
    pub findings: Vec<Finding>,
    /// How many episodes there were.
    pub episodes: u64,
    /// How many of them ended early, as the sides were no longer the same.
    pub cut_short: u64,
    /// After which accepted differences that was.
    pub ended_by: BTreeMap<String, u64>,
    /// What a device died of.
    pub died: Vec<String>,
    /// How often swtpm died of a command that it is known to die of.
    pub oracle_deaths: u64,
    /// How often our TPM went on from what it had saved.
    pub reloaded: u64,
    /// What both can do.
    pub common: Common,
}

fn devices(config: &Config, seed: u64) -> Result<Pair<Box<dyn Device>>, Died> {
    let ours: Box<dyn Device> = if config.oracle_twice {
        Box::new(Swtpm::start()?)
    } else {
        Box::new(Ours::manufacture(seed, config.reload))
    };
    Ok([Box::new(Swtpm::start()?), ours])
}

/// One episode, or those of its steps that are named.
pub(crate) fn episode(
    config: &Config,
    common: &Arc<Common>,
    number: u64,
    steps: &[usize],
) -> Result<World, Died> {
    let seed = Rng::part(config.seed, number).draw();
    let mut w = World::new(devices(config, seed)?, Arc::clone(common));
    w.mutations = config.mutations;
    w.rng = Rng::new(seed);
    generate::prepare(&mut w);
    for step in steps {
        w.step = step + 1;
        // Each step has a generator of its own, so that leaving others out changes it little.
        w.rng = Rng::part(seed, *step as u64);
        generate::step(&mut w);
        if w.ended {
            break;
        }
    }
    Ok(w)
}

/// The numbers in a list of capabilities: (capability, first) as many as there are.
fn list(device: &mut dyn Device, capability: TpmCap, width: usize) -> Result<Vec<u64>, Died> {
    let mut all = Vec::new();
    let mut first = 0u32;
    loop {
        let parts = [capability.0, first, 128].map(u32::to_be_bytes).concat();
        let command = [&[0x80, 1, 0, 0, 0, 22, 0, 0, 1, 0x7a][..], &parts].concat();
        let response = device.execute(&command)?;
        let count = u32_at(&response, 15) as usize;
        let mut rest = response.get(19..).unwrap_or_default();
        let extra = if capability == TpmCap::ALGS { 4 } else { 0 };
        for _ in 0..count {
            all.extend(take_number(&mut rest, width));
            let _ = take_number(&mut rest, extra);
        }
        let more = response.get(10) == Some(&1);
        match all.last() {
            Some(last) if more => first = (*last as u32 & 0x2000_ffff) + 1,
            _ => return Ok(all),
        }
    }
}

/// The key sizes that a TPM takes, of those that are asked for.
fn sizes(
    device: &mut dyn Device,
    asked: &[u16],
    parms: fn(u8, u8) -> Vec<u8>,
) -> Result<BTreeSet<u16>, Died> {
    let mut all = BTreeSet::new();
    for &bits in asked {
        let [high, low] = bits.to_be_bytes();
        let parms = parms(high, low);
        let size = 10 + parms.len() as u8;
        let command = [&[0x80, 1, 0, 0, 0, size, 0, 0, 1, 0x8a][..], &parms].concat();
        if u32_at(&device.execute(&command)?, 6) == 0 {
            all.insert(bits);
        }
    }
    Ok(all)
}

/// What both can do.
///
/// # Errors
/// [`Died`].
pub fn common(config: &Config) -> Result<Common, Died> {
    let mut devices = devices(config, config.seed)?;
    let startup = [0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x44, 0, 0];
    let mut lists = Vec::new();
    for device in &mut devices {
        device.execute(&startup)?;
        let commands: Vec<u32> = list(device.as_mut(), TpmCap::COMMANDS, 4)?
            .into_iter()
            .map(|c| c as u32 & 0x2000_ffff)
            .filter(|c| c >> 29 == 0)
            .collect();
        let algs = list(device.as_mut(), TpmCap::ALGS, 2)?;
        let curves = list(device.as_mut(), TpmCap::ECC_CURVES, 2)?;
        let rsa_bits = sizes(device.as_mut(), &[512, 1024, 2048, 3072, 4096], |high, low| {
            vec![0, 1, 0, 0x10, 0, 0x10, high, low, 0, 0, 0, 0]
        })?;
        let short = |l: Vec<u64>| l.into_iter().map(|n| n as u16).collect::<BTreeSet<u16>>();
        let commands: BTreeSet<u32> = commands.into_iter().collect();
        let aes_bits =
            sizes(device.as_mut(), &[128, 192, 256], |high, low| vec![0, 0x25, 0, 6, high, low, 0, 0x43])?;
        lists.push((commands, short(algs), short(curves), rsa_bits, aes_bits));
    }
    let (theirs, ours) = (&lists[THEIRS], &lists[OURS]);
    Ok(Common {
        commands: &theirs.0 & &ours.0,
        ours_only: &ours.0 - &theirs.0,
        theirs_only: &theirs.0 - &ours.0,
        algs: &theirs.1 & &ours.1,
        disputed_algs: &theirs.1 ^ &ours.1,
        curves: &theirs.2 & &ours.2,
        disputed_curves: &theirs.2 ^ &ours.2,
        aes_bits: &theirs.4 & &ours.4,
        disputed_aes_bits: &theirs.4 ^ &ours.4,
        rsa_bits: &theirs.3 & &ours.3,
        disputed_rsa_bits: &theirs.3 ^ &ours.3,
    })
}

/// Runs.
///
/// # Errors
/// [`Died`] when no TPM can be started.
pub fn run(config: &Config) -> Result<Report, Died> {
    let common = Arc::new(common(config)?);
    let report = Mutex::new(Report { common: (*common).clone(), ..Report::default() });
    let next = AtomicU64::new(config.episode.unwrap_or_default());
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..config.jobs {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if config.episode.is_some_and(|e| number > e) {
                        return;
                    }
                    let steps: Vec<usize> = (0..config.steps).collect();
                    let result = episode(config, &common, number, &steps);
                    let mut report = report.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    let enough = take_in(config, &mut report, number, result);
                    if config.progress && number.is_multiple_of(20) {
                        let total = report.coverage.total();
                        let rate = total as f64 / started.elapsed().as_secs_f64();
                        eprintln!(
                            "{total} commands, {} episodes, {} kinds of differences, {rate:.0} commands/s",
                            report.episodes,
                            report.findings.len()
                        );
                    }
                    if enough {
                        return;
                    }
                }
            });
        }
    });
    let mut report = report.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    if config.shrink && !config.oracle_twice {
        for finding in &mut report.findings {
            shrink::shrink(config, &common, finding);
        }
    }
    Ok(report)
}

/// Adds an episode to the report; whether that is enough.
fn take_in(config: &Config, report: &mut Report, number: u64, result: Result<World, Died>) -> bool {
    let w = match result {
        Ok(w) => w,
        Err(e) => {
            report.died.push(e.0);
            return true;
        }
    };
    report.episodes += 1;
    report.cut_short += u64::from(w.ended);
    if let Some(why) = &w.ended_by {
        *report.ended_by.entry(why.clone()).or_default() += 1;
    }
    report.oracle_deaths += w.oracle_deaths;
    report.reloaded += w.reloaded();
    report.coverage.add(&w.coverage);
    report.usage.add(&w.usage, number);
    if let Some(died) = &w.died {
        let last = w.log.last().map(|e| format!("{}: {}", e.title, hex::encode(&e.sent[OURS])));
        report.died.push(format!("{} (episode {number}, at {})", died.0, last.unwrap_or_default()));
    }
    for difference in &w.differences {
        if let Some(known) = report.findings.iter_mut().find(|f| f.difference.resembles(difference)) {
            known.times += 1;
            continue;
        }
        let log = w.log[..difference.at].to_vec();
        if config.progress {
            eprintln!("difference in episode {number}: {difference}");
        }
        report.findings.push(Finding { difference: difference.clone(), episode: number, times: 1, log });
    }
    let enough = report.coverage.total() >= config.commands && config.episode.is_none();
    enough || report.findings.len() >= config.differences || !report.died.is_empty()
}

fn code_text(code: u32) -> String {
    if code == 0 { "success".into() } else { ResponseCode::from_value(code).to_string() }
}

impl Finding {
    /// For those who read: what differs, and how to get there.
    pub fn text(&self, config: &Config) -> String {
        let d = &self.difference;
        let mut out = String::new();
        let _ = writeln!(
            out,
            "{:?}{} ({} times; --seed {} --episode {}, step {})",
            TpmCc(d.code),
            d.mutation,
            self.times,
            config.seed,
            self.episode,
            d.step
        );
        let _ = match &d.what {
            What::Code(theirs, ours) => {
                writeln!(out, "  swtpm: {}\n  ours:  {}", code_text(*theirs), code_text(*ours))
            }
            What::Field(name, theirs, ours) => {
                writeln!(out, "  {name}\n  swtpm: {theirs}\n  ours:  {ours}")
            }
        };
        // The exchange itself stands last.
        for e in &self.log {
            let _ = write!(out, "    step {} {}", e.step, e.title);
            if e.sent[OURS].is_empty() {
                out.push('\n');
                continue;
            }
            let code = |side: usize| code_text(u32_at(&e.received[side], 6));
            let _ = writeln!(out, ": {} / {}", code(THEIRS), code(OURS));
            for (who, bytes) in [
                ("to swtpm ", &e.sent[THEIRS]),
                ("to ours  ", &e.sent[OURS]),
                ("swtpm    ", &e.received[THEIRS]),
                ("ours     ", &e.received[OURS]),
            ] {
                let _ = writeln!(out, "      {who} {}", hex::encode(bytes));
            }
        }
        out
    }
}

impl Report {
    /// No difference but the accepted ones, and nobody died.
    pub fn passed(&self) -> bool {
        self.findings.is_empty() && self.died.is_empty()
    }

    /// For those who read.
    pub fn text(&self, config: &Config) -> String {
        let mut out = self.coverage.table(self.common.commands.iter().copied());
        let names = |codes: &BTreeSet<u32>| {
            codes.iter().map(|c| format!("{:?}", TpmCc(*c))).collect::<Vec<_>>().join(", ")
        };
        let _ = writeln!(out, "only swtpm has: {}", names(&self.common.theirs_only));
        let _ = writeln!(out, "only we have: {}", names(&self.common.ours_only));
        let total = self.coverage.total();
        let succeeded: u64 = self.coverage.0.values().map(|c| c.succeeded).sum();
        let accepted = self.usage.total();
        let _ = writeln!(
            out,
            "{total} commands, {succeeded} successful, in {} episodes ({} cut short) of seed {}; {accepted} accepted differences",
            self.episodes, self.cut_short, config.seed
        );
        if self.reloaded > 0 {
            let _ = writeln!(out, "our TPM went on from its records {} times", self.reloaded);
        }
        if self.oracle_deaths > 0 {
            let _ = writeln!(
                out,
                "{} episodes ended as swtpm died of what it is known to die of",
                self.oracle_deaths
            );
        }
        for (why, n) in &self.ended_by {
            let _ = writeln!(out, "{n} episodes ended by {why}");
        }
        for entry in self.usage.unused() {
            let _ = writeln!(out, "never needed: {:?} {:?}: {}", entry.commands, entry.what, entry.reason);
        }
        for finding in &self.findings {
            let _ = writeln!(out, "\nDIFFERENCE: {}", finding.text(config));
        }
        for died in &self.died {
            let _ = writeln!(out, "\nDIED: {died}");
        }
        out
    }
}
