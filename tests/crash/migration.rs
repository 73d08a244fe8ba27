//! One migration from host `a` to host `b`, brought to its end by an operator who looks at the states and does what comes next.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::machine::{Machine, probe};
use crate::site::{self, NAME, Site, names_the_medium};
use crate::tpm::{self, Possessions};

/// Of the instance.
pub const UUID: &str = "b9a6a2d4-5f6e-4c3b-9a51-6f3c1d2e4f50";

const RETRY: u32 = 0x922;
const NV_UNAVAILABLE: u32 = 0x923;

/// How the migration is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The machine goes on at the destination.
    Success,
    /// The destination gives it up when all is imported; the machine goes on at the source.
    Abort,
    /// The destination gives it up when the source is locked and nothing has left it.
    AbortLocked,
    /// The destination gives it up when all has left the source and nothing has reached it.
    AbortExported,
    /// The machine dies with the daemon in its first command at the destination, and the operator then tries to give the migration up. The
    /// fault is in a daemon of the destination that is started just before.
    Decide,
}

/// A fault, as `VTPMD_FAULT` names it.
#[derive(Clone, Debug)]
pub struct Fault(String);

impl Fault {
    /// `kind`, lasting if there is a `+` behind it, at step `n`.
    pub fn new(kind: &str, n: u64) -> Self {
        match kind.strip_suffix('+') {
            Some(kind) => Self(format!("{kind}:{n}+")),
            None => Self(format!("{kind}:{n}")),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Two hosts that trust each other, with a filled TPM on the first; made once.
struct Template {
    dir: TempDir,
    before: Possessions,
}

/// Where their states are, and what the TPM holds.
pub fn template() -> (&'static Path, &'static Possessions) {
    static TEMPLATE: OnceLock<Template> = OnceLock::new();
    let template = TEMPLATE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let [mut a, mut b] = ["a", "b"].map(|name| Site::at(dir.path().join(name)));
        for site in [&mut a, &mut b] {
            let init = site.host().vtpmd("init").output().unwrap();
            assert!(init.status.success(), "{}", String::from_utf8_lossy(&init.stderr));
            site.start(None);
        }
        trust(&a, &b);
        a.ctl(&["create", NAME, "--uuid", UUID]).unwrap();
        let mut machine = Machine::new();
        tpm::fill(&mut machine, &mut a);
        let before = tpm::possessions(&mut machine, &mut a);
        machine.leave(&mut a);
        a.stop();
        b.stop();
        Template { dir, before }
    });
    (template.dir.path(), &template.before)
}

/// What it takes for either host to accept the other's tickets.
fn trust(a: &Site, b: &Site) {
    a.host().pin(b.host());
    b.host().pin(a.host());
}

/// A migration under way.
pub struct Migration {
    dir: TempDir,
    a: Site,
    b: Site,
    way: Way,
    strict: bool,
    /// The fault for the destination's daemon at the first command.
    held_back: Option<Fault>,
    machine: Machine,
    before: Possessions,
    /// What the counter stands at, at least and at most.
    counter: (u64, u64),
    /// What it stood at when the machine left the source.
    counter_at_source: (u64, u64),
    /// The ticket that the destination gave out, and whether the source is armed with it.
    ticket: Option<(PathBuf, bool)>,
    stream: Option<PathBuf>,
    files: u32,
    /// The source was locked.
    left: bool,
}

impl Migration {
    /// On fresh hosts, with a fault each.
    pub fn start(way: Way, strict: bool, faults: &[Option<Fault>; 2]) -> Self {
        let (from, possessions) = template();
        let dir = tempfile::tempdir().unwrap();
        let [mut a, mut b] = ["a", "b"].map(|name| {
            for part in ["state", "run"] {
                site::copy(&from.join(name).join(part), &dir.path().join(name).join(part));
            }
            Site::at(dir.path().join(name))
        });
        let [of_a, of_b] = faults.clone();
        let (of_b, held_back) = if way == Way::Decide { (None, of_b) } else { (of_b, None) };
        a.start(of_a.as_ref().map(|f| f.0.as_str()));
        b.start(of_b.as_ref().map(|f| f.0.as_str()));
        let counter = (possessions.counter, possessions.counter);
        Self {
            dir,
            a,
            b,
            way,
            strict,
            held_back,
            machine: Machine::new(),
            before: possessions.clone(),
            counter,
            counter_at_source: counter,
            ticket: None,
            stream: None,
            files: 0,
            left: false,
        }
    }

    fn new_file(&mut self) -> PathBuf {
        self.files += 1;
        self.dir.path().join(format!("file{}", self.files))
    }

    /// The machine counts on, at the source or the destination, until it is told that it has.
    fn count(&mut self, at_destination: bool) {
        for attempt in 0..5 {
            let site = if at_destination { &mut self.b } else { &mut self.a };
            let response = self.machine.run(site, &tpm::increment());
            if self.take_answer(&response, at_destination, attempt > 0) {
                return;
            }
        }
        panic!("the medium of {} does not work again", self.dir.path().display());
    }

    /// Whether the answer is that it counted on; if it is not, the medium has failed, and said so.
    fn take_answer(&mut self, response: &[u8], at_destination: bool, repair: bool) -> bool {
        let site = if at_destination { &mut self.b } else { &mut self.a };
        match tpm::code(response) {
            0 => {
                self.counter = (self.counter.0 + 1, self.counter.1 + 1);
                true
            }
            code @ (RETRY | NV_UNAVAILABLE) => {
                let log = site.log();
                assert!(site.struck() && names_the_medium(&log), "{code:#x} to the guest: {log}");
                // What was written may be there although the system did not say so.
                if log.contains("outcome could not be found out") {
                    self.counter.1 += 1;
                }
                if repair {
                    site.repair();
                }
                false
            }
            code => panic!("{code:#x} to the guest of {}: {}", site.name(), site.log()),
        }
    }

    /// Brings the migration to its end and looks at what is there. How many faults struck.
    pub fn finish(mut self) -> u32 {
        self.count(false);
        self.counter_at_source = self.counter;
        self.machine.leave(&mut self.a);
        let mut seen = Vec::new();
        for _ in 0..40 {
            let states = (self.a.state(), self.b.state());
            let (a, b) = (states.0.as_deref(), states.1.as_deref());
            seen.push(format!("{a:?} {b:?}"));
            let executes = |state| matches!(state, Some("live" | "imported"));
            assert!(!(executes(a) && executes(b)), "two live copies: {seen:?}");
            match self.next(a, b) {
                Ok(true) => return self.end(b == Some("live")),
                Ok(false) => {}
                Err(complaint) => {
                    seen.push(complaint);
                    // Twice, so that what the first failure left is met by the second try.
                    if seen.iter().filter(|s| s.starts_with("vtpmctl")).count() > 1 {
                        self.a.repair();
                        self.b.repair();
                    }
                }
            }
        }
        panic!("no end in sight: {seen:#?}\na: {}\nb: {}", self.a.log(), self.b.log());
    }

    /// The ordinary command that comes next. Whether all is done.
    fn next(&mut self, a: Option<&str>, b: Option<&str>) -> Result<bool, String> {
        let source_locked = matches!(a, Some("source-locked" | "source-keyed" | "exporting" | "exported"));
        self.left |= source_locked;
        match (a, b) {
            (Some("live"), None) => {
                let path = self.new_file();
                let ticket = path.to_str().unwrap();
                self.b.ctl(&["migrate", "prepare", NAME, "--uuid", UUID, "--ticket", ticket])?;
                self.ticket = Some((path, false));
            }
            (Some("live"), Some("destination-locked")) => match self.ticket.clone() {
                Some((path, armed)) => {
                    let ticket = ["--ticket", path.to_str().unwrap()];
                    let strict: &[&str] = if self.strict { &["--strict"] } else { &[] };
                    if armed {
                        self.a.ctl(&[&["lock", NAME][..], &ticket, strict].concat())?;
                    } else {
                        self.a.ctl(&[&["migrate", "arm", NAME][..], &ticket, strict].concat())?;
                        self.ticket = Some((path, true));
                    }
                }
                // The answer with the ticket was lost.
                None => drop(self.b.ctl(&["migrate", "abort", NAME])?),
            },
            (Some("live"), Some("void")) if !self.left => drop(self.b.ctl(&["delete", NAME])?),
            (Some("live"), Some("void")) | (None, Some("live")) => return Ok(true),
            (Some("source-locked"), Some("destination-locked")) if self.way == Way::AbortLocked => {
                self.b.ctl(&["migrate", "abort", NAME])?;
            }
            (Some("exported"), Some("destination-locked")) if self.way == Way::AbortExported => {
                self.b.ctl(&["migrate", "abort", NAME])?;
            }
            (Some(_), Some("destination-locked" | "destination-keyed" | "importing")) if source_locked => {
                self.move_stream()?;
            }
            (Some("exported"), Some("imported")) => match self.way {
                Way::Success => self.count(true),
                Way::Abort | Way::AbortLocked | Way::AbortExported => {
                    drop(self.b.ctl(&["migrate", "abort", NAME])?)
                }
                Way::Decide => self.decide(),
            },
            (Some("exported"), Some("live")) => {
                let receipt = receipt(&self.b.ctl(&["migrate", "commit", NAME, "--json"])?);
                self.a.ctl(&["migrate", "commit", NAME, "--receipt", &receipt])?;
            }
            (Some(_), Some("void")) if source_locked => {
                let receipt = receipt(&self.b.ctl(&["migrate", "abort", NAME, "--json"])?);
                match self.a.ctl(&["migrate", "abort", NAME, "--receipt", &receipt]) {
                    Err(complaint) if complaint.contains("before it had the keys") => {
                        assert!(self.strict);
                        self.show_keys()?;
                    }
                    settled => drop(settled?),
                }
            }
            states => panic!("nobody knows how to go on from {states:?}"),
        }
        Ok(false)
    }

    fn move_stream(&mut self) -> Result<(), String> {
        if let Some(stream) = &self.stream {
            return self.b.ctl(&["import", NAME, "--input", stream.to_str().unwrap()]).map(drop);
        }
        // An instance that is locked answers nothing.
        assert_eq!(probe(&mut self.a), Some(RETRY));
        let path = self.new_file();
        self.a.ctl(&["export", NAME, "--output", path.to_str().unwrap()])?;
        self.stream = Some(path);
        Ok(())
    }

    /// A destination that gave up before it had the keys of a strict source is shown its stream, and takes no more of it than them.
    fn show_keys(&mut self) -> Result<(), String> {
        if self.stream.is_none() {
            let path = self.new_file();
            self.a.ctl(&["export", NAME, "--output", path.to_str().unwrap()])?;
            self.stream = Some(path);
        }
        let stream = self.stream.clone().unwrap();
        let refused = self.b.ctl(&["import", NAME, "--input", stream.to_str().unwrap()]).unwrap_err();
        if refused.contains("void") { Ok(()) } else { Err(refused) }
    }

    /// The first command at the destination, with the daemon dying in it; then the operator gives up, if that is possible yet.
    fn decide(&mut self) {
        if let Some(fault) = self.held_back.take() {
            self.b.restart(Some(&fault.0));
        }
        if let Some(response) = self.machine.run_once(&mut self.b, &tpm::increment()) {
            assert!(self.take_answer(&response, true, true));
            return;
        }
        match self.b.ctl(&["migrate", "abort", NAME]) {
            Ok(_) => {}
            Err(complaint) => {
                assert!(complaint.contains("is live"), "{complaint}");
                // The command that nobody answered was executed or was not.
                self.counter.1 += 1;
            }
        }
    }

    /// One copy lives, it has all that there was, and the receipts agree with that.
    fn end(mut self, at_destination: bool) -> u32 {
        if at_destination {
            assert!(matches!(self.way, Way::Success | Way::Decide));
            assert_eq!(probe(&mut self.a), None);
            self.b.ctl(&["migrate", "abort", NAME]).unwrap_err();
        } else {
            assert!(self.way != Way::Success);
            assert_eq!(probe(&mut self.b), Some(RETRY));
            self.b.ctl(&["migrate", "commit", NAME]).unwrap_err();
            self.counter = self.counter_at_source;
            self.count(false);
        }
        self.a.repair();
        self.b.repair();
        for _ in 0..2 {
            let site = if at_destination { &mut self.b } else { &mut self.a };
            let now = tpm::possessions(&mut self.machine, site);
            assert!(
                (self.counter.0..=self.counter.1).contains(&now.counter),
                "the counter stands at {}, not {:?}",
                now.counter,
                self.counter
            );
            assert_eq!(now, Possessions { counter: now.counter, ..self.before.clone() });
            // And what is there is durable.
            self.machine.leave(site);
            site.crash();
        }
        u32::from(self.a.struck()) + u32::from(self.b.struck())
    }
}

/// The receipt that vtpmctl prints.
fn receipt(json: &str) -> String {
    let json: serde_json::Value = serde_json::from_str(json).unwrap();
    json["receipt"].as_str().unwrap().to_owned()
}
