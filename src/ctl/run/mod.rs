//! `vtpmctl migrate run`: a whole migration of an instance whose machine is shut down (figures 4 to 6 of the patent), from the ticket to
//! the receipt.
//!
//! It decides nothing. Each step is an ordinary instance command here, or a request to the destination which that answers by
//! ordinary commands, and what was reached is in the states of both instances: the next run finds it there and goes on.
//!
//! ```text
//! live ──── slot? prepare ──▶ lock ──▶ export ──▶ send, import ──▶ outcome? ──▶ commit
//!                               │        │            │               │
//!  live again ◀── void receipt ─┴────────┴── refused ─┘            given up
//! ```

mod error;
mod route;
mod spool;
mod ssh;

pub use error::RunError;

use std::error::Error;
use std::time::{Duration, Instant};

use serde_json::json;
use vtpm_protocol::instance::{
    GetInstanceInfoOut, InstanceName, InstanceState, InstanceSummary, LoggedStep, MigrationPolicy,
    MigrationSide, MigrationTicket, Outcome,
};
use vtpm_protocol::link::{MigrationRef, Reason};
use vtpm_protocol::rc::ResponseCode;

use super::args::{Run, Via};
use super::files::{Sink, is_dash, read_ticket};
use super::progress::{Progress, describe};
use super::{Ctl, CtlError, Result, is_leaving, lock_flags};
use crate::link::client::{Peer, PeerError, Verdict};
use crate::link::wire::Stream;
use crate::migration::client::{Choice, ClientError, Departure, Plan, Portions};
use route::{Route, RouteError};
use spool::Spool;

type Link = Peer<Box<dyn Stream>>;

/// How often a link that broke is tried again, and how long after it did.
const PAUSES: [Duration; 3] = [Duration::from_millis(300), Duration::from_secs(1), Duration::from_secs(3)];
/// How long one question for the outcome waits at the destination.
const LONG_POLL: Duration = Duration::from_secs(20);

/// What is known at the end.
struct Arrival {
    plan: Option<Plan>,
    bytes: u64,
    /// It lives there, and is gone from here.
    settled: bool,
}

/// One run.
struct Journey<'a> {
    ctl: &'a Ctl,
    run: &'a Run,
    route: Route,
    progress: Progress,
    instance: InstanceSummary,
}

impl Ctl {
    pub(super) fn run(&self, run: &Run) -> Result<()> {
        let instance = match self.find(&run.name) {
            Err(CtlError::NoInstance(name)) if self.has_left(&name)? => {
                self.out.done(&name, "gone");
                return Ok(());
            }
            other => other?,
        };
        let mut progress = Progress::new(run.progress, self.out.json);
        if run.via == Via::File {
            return self.run_to_file(run, &instance, &mut progress);
        }
        let mut journey = Journey { ctl: self, run, route: Route::new(self, run)?, progress, instance };
        let arrival = journey.travel()?;
        journey.tell(&arrival);
        Ok(())
    }

    /// The source's half of a migration whose stream somebody carries.
    fn run_to_file(&self, run: &Run, instance: &InstanceSummary, progress: &mut Progress) -> Result<()> {
        let (Some(path), name) = (&run.to_file, instance.name.as_str()) else { return Ok(()) };
        let departure = match &run.ticket {
            Some(ticket) if !is_leaving(instance.state) => {
                Departure { ticket: read_ticket(ticket, instance)?, lock: Some(lock_flags(run.strict)) }
            }
            _ => self.locked_departure(instance)?,
        };
        let choice = Choice { their_limit: run.buffer, by_area: run.piecewise };
        let mut sink = Sink::create(path)?;
        let mut watch = |plan: &Plan, moved| progress.exported(plan, moved);
        let exported =
            self.client.export_in_portions(instance.instance, &departure, &choice, &mut watch, &mut sink);
        let plan = self.explained_ticket(exported, instance, Some(&departure.ticket))?;
        sink.finish()?;
        if is_dash(path) {
            return Ok(());
        }
        let json = json!({
            "name": name,
            "to": path.display().to_string(),
            "source": "exported",
            "portions": portions(&plan),
            "pieces": plan.pieces,
            "bytes": std::fs::metadata(path).map(|found| found.len()).ok(),
        });
        let file = path.display();
        let text = format!(
            "{name}: exported to {file} ({})\n\
             There, `vtpmctl import {name} --input {file}`; when its machine has used it there, `vtpmctl migrate commit` there and then here.\n",
            describe(&plan)
        );
        self.out.print(&json, &text);
        Ok(())
    }

    /// The log says that a migration of the instance that was here under this name has ended with its receipt.
    fn has_left(&self, name: &str) -> Result<bool> {
        let log = self.client.migration_log(None)?;
        let of_it = log.iter().find(|entry| entry.name.as_str() == name);
        Ok(of_it.is_some_and(|entry| {
            entry.side == MigrationSide::Source
                && entry.steps.last().is_some_and(|step| step.step == LoggedStep::Commit)
        }))
    }
}

fn portions(plan: &Plan) -> &'static str {
    match plan.portions {
        Portions::Whole => "whole",
        Portions::Areas => "areas",
    }
}

impl Journey<'_> {
    fn name(&self) -> String {
        self.instance.name.as_str().to_owned()
    }

    fn peer(&self) -> String {
        self.route.label().to_owned()
    }

    fn info(&self) -> Result<GetInstanceInfoOut> {
        Ok(self.ctl.client.info(self.instance.instance)?)
    }

    fn travel(&mut self) -> Result<Arrival> {
        let info = self.info()?;
        let state = info.summary.state;
        let leaving = is_leaving(state);
        if !leaving && !matches!(state, InstanceState::Live | InstanceState::Imported) {
            return Err(RunError::State { name: self.name(), state }.into());
        }
        let mut link =
            self.route.connect(&mut self.progress).map_err(|source| self.unreached(leaving, source))?;
        let departure = match info.ticket.filter(|_| leaving) {
            Some(ticket) => {
                if let Some(settled) = self.resume(&mut link, &ticket, state)? {
                    return Ok(settled);
                }
                Departure { ticket, lock: None }
            }
            None => {
                let ticket = self.slot(&mut link)?;
                Departure { ticket, lock: Some(lock_flags(self.run.strict)) }
            }
        };
        let strict = self.run.strict || info.policy == MigrationPolicy::Strict;
        self.depart(link, departure, strict)
    }

    /// What has become meanwhile of a migration that was begun before; `None` when it is to be gone on with.
    fn resume(
        &mut self,
        link: &mut Link,
        ticket: &MigrationTicket,
        state: InstanceState,
    ) -> Result<Option<Arrival>> {
        let (name, peer) = (self.name(), self.peer());
        let migration = MigrationRef::from(ticket);
        match link.outcome(&migration, Duration::ZERO) {
            Ok(Verdict::Open) => Ok(None),
            Ok(Verdict::Unknown) => Err(RunError::Elsewhere { name, state, peer }.into()),
            Ok(Verdict::Receipt(Outcome::Live, receipt)) => {
                self.commit(&receipt)?;
                Ok(Some(Arrival { plan: None, bytes: 0, settled: true }))
            }
            Ok(Verdict::Receipt(_, receipt)) => {
                self.ctl.client.abort(self.instance.instance, &receipt)?;
                Err(RunError::GivenUp { name, peer }.into())
            }
            Err(source) => Err(RunError::Unfinished { name, peer, source: source.into() }.into()),
        }
    }

    /// The ticket of the slot there, of a new one if need be and allowed.
    fn slot(&mut self, link: &mut Link) -> Result<MigrationTicket> {
        let uuid = self.instance.uuid;
        let (name, peer) = (self.name(), self.peer());
        let unreached = |source| self.unreached(false, source);
        if self.run.name_there.is_none()
            && let Some(slot) = link.find_slot(uuid).map_err(unreached)?
        {
            return Ok(slot.ticket);
        }
        let there = self.run.name_there.as_deref().unwrap_or(&name);
        let there = InstanceName::new(there).map_err(|_| CtlError::Name(there.to_owned()))?;
        link.prepare(uuid, &there).map_err(|source| {
            if !matches!(source, PeerError::Refused(_)) {
                return unreached(source);
            }
            let uuid = uuid::Uuid::from_bytes(uuid.0);
            RunError::NoSlot { name: name.clone(), peer, uuid, source }.into()
        })
    }

    fn depart(&mut self, mut link: Link, departure: Departure, strict: bool) -> Result<Arrival> {
        let ticket = departure.ticket.clone();
        let (name, peer) = (self.name(), self.peer());
        let limits = link.limits(ticket.uuid);
        let limits = limits.map_err(|source| self.unreached(departure.lock.is_none(), source))?;
        let Some(limits) = limits else {
            let uuid = uuid::Uuid::from_bytes(ticket.uuid.0);
            let source = PeerError::Refused(Reason::new("the slot has gone"));
            return Err(RunError::NoSlot { name, peer, uuid, source }.into());
        };
        // As long as nothing is locked, nothing needs to be brought back.
        if let Some(flags) = departure.lock {
            let locked = self.ctl.client.lock(self.instance.instance, &ticket, flags);
            self.ctl.explained_ticket(locked, &self.instance, Some(&ticket))?;
        }
        let their_limit = self.run.buffer.map_or(limits.max_data, |most| most.min(limits.max_data));
        let choice = Choice { their_limit: Some(their_limit), by_area: self.run.piecewise };
        let departure = Departure { lock: None, ..departure };
        let migration = MigrationRef::from(&ticket);
        let (spool, plan) = match self.export(strict, &departure, &choice) {
            Ok(exported) => exported,
            Err(error) => {
                self.bring_back(&mut link, &migration, strict, None, error.into())?;
                return Ok(Arrival { plan: None, bytes: 0, settled: true });
            }
        };
        let strict = strict || spool.path().is_some();
        let settled = self.send(link, &migration, &spool, strict)?;
        spool.done_with();
        let settled = settled || self.await_receipt(&migration)?;
        Ok(Arrival { plan, bytes: spool.length(), settled })
    }

    /// The whole stream, before any of it is sent: so it is known how much it is, and can be sent again.
    fn export(
        &mut self,
        strict: bool,
        departure: &Departure,
        choice: &Choice,
    ) -> Result<(Spool, Option<Plan>)> {
        let name = spool::file_name(self.instance.name.as_str(), &departure.ticket);
        let path = self.ctl.out.state_dir.join(name);
        // Of an earlier run, which may have locked strictly where this one is not told to.
        if let Some(spool) = Spool::find(&path)? {
            self.progress.say(&format!("the stream is in {}", path.display()));
            return Ok((spool, None));
        }
        let (client, instance) = (&self.ctl.client, self.instance.instance);
        let progress = &mut self.progress;
        let mut watch = |plan: &Plan, moved| progress.exported(plan, moved);
        let mut out = spool::Writer::create(strict.then_some(path))?;
        let plan = client.export_in_portions(instance, departure, choice, &mut watch, &mut out)?;
        Ok((out.finish()?, Some(plan)))
    }

    /// Sends the stream until the destination has it or refuses it. `true` when it turns out that it lives there already.
    fn send(&mut self, link: Link, migration: &MigrationRef, spool: &Spool, strict: bool) -> Result<bool> {
        let mut link: std::result::Result<Link, RouteError> = Ok(link);
        let mut pauses = PAUSES.iter();
        loop {
            let sent = match &mut link {
                Ok(link) => self.send_once(link, migration, spool),
                Err(_) => Ok(()),
            };
            let error = match (link, sent) {
                (Ok(_), Ok(())) => return Ok(false),
                (Ok(mut link), Err(error @ PeerError::Refused(_))) => {
                    self.bring_back(&mut link, migration, strict, Some(spool), error.into())?;
                    return Ok(true);
                }
                (Ok(_), Err(error)) => error.into(),
                (Err(error), _) => error,
            };
            let Some(pause) = pauses.next() else {
                return Err(self.unfinished(Some(spool), error.into()));
            };
            self.progress.say(&format!("{}; once more", crate::sentence(&error)));
            std::thread::sleep(*pause);
            link = self.route.connect(&mut self.progress);
        }
    }

    fn send_once(
        &mut self,
        link: &mut Link,
        migration: &MigrationRef,
        spool: &Spool,
    ) -> std::result::Result<(), PeerError> {
        let (progress, length) = (&mut self.progress, spool.length());
        progress.restart();
        link.import(migration, |out| spool.copy(out, |sent| progress.sent(sent, length)))
    }

    /// Has the destination give the migration up, takes its receipt, and returns the error to end with; unless the machine was there
    /// first, so that the instance lives there.
    fn bring_back(
        &mut self,
        link: &mut Link,
        migration: &MigrationRef,
        strict: bool,
        spool: Option<&Spool>,
        source: Box<dyn Error + Send + Sync>,
    ) -> Result<()> {
        // What has left under a strict lock is nowhere but in the stream, so that nothing may be given up.
        let verdict = if strict { link.outcome(migration, Duration::ZERO) } else { link.give_up(migration) };
        match verdict {
            Ok(Verdict::Receipt(Outcome::Live, receipt)) => self.commit(&receipt),
            Ok(Verdict::Receipt(_, receipt)) => {
                let aborted = self.ctl.client.abort(self.instance.instance, &receipt);
                // The courier may have been faster.
                if aborted.is_ok() || self.lives() {
                    let (name, peer) = (self.name(), self.peer());
                    return Err(RunError::RolledBack { name, peer, source }.into());
                }
                Err(self.unfinished(spool, source))
            }
            _ => Err(self.unfinished(spool, source)),
        }
    }

    fn lives(&self) -> bool {
        self.info().is_ok_and(|info| info.summary.state == InstanceState::Live)
    }

    /// Nothing was done yet in this run.
    fn unreached(&self, leaving: bool, source: impl Into<RouteError>) -> CtlError {
        let (name, peer, source) = (self.name(), self.peer(), source.into());
        if leaving {
            return RunError::Unfinished { name, peer, source: source.into() }.into();
        }
        RunError::Unreached { name, peer, source }.into()
    }

    fn unfinished(&self, spool: Option<&Spool>, source: Box<dyn Error + Send + Sync>) -> CtlError {
        let (name, peer) = (self.name(), self.peer());
        match spool.and_then(Spool::path) {
            Some(path) => RunError::Strict { name, peer, spool: path.to_owned(), source }.into(),
            None => RunError::Unfinished { name, peer, source }.into(),
        }
    }

    /// Waits as long as it may for the first command there. `true` when it lives there and is gone from here.
    fn await_receipt(&mut self, migration: &MigrationRef) -> Result<bool> {
        let (start, wait) = (Instant::now(), Duration::from_secs(self.run.wait));
        let mut link = None;
        loop {
            let left = wait.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(false);
            }
            let mut open = match link.take() {
                Some(open) => open,
                None => match self.route.connect(&mut self.progress) {
                    Ok(open) => open,
                    Err(error) => {
                        self.progress.say(&crate::sentence(&error));
                        std::thread::sleep(left.min(Duration::from_secs(1)));
                        continue;
                    }
                },
            };
            match open.outcome(migration, left.min(LONG_POLL)) {
                Ok(Verdict::Receipt(Outcome::Live, receipt)) => {
                    self.commit(&receipt)?;
                    return Ok(true);
                }
                Ok(Verdict::Receipt(_, receipt)) => {
                    if !self.lives() {
                        self.ctl.client.abort(self.instance.instance, &receipt)?;
                    }
                    return Err(RunError::GivenUp { name: self.name(), peer: self.peer() }.into());
                }
                Ok(Verdict::Unknown) => {
                    let (name, peer) = (self.name(), self.peer());
                    return Err(RunError::Elsewhere { name, state: InstanceState::Exported, peer }.into());
                }
                Ok(Verdict::Open) => link = Some(open),
                Err(error) => self.progress.say(&crate::sentence(&error)),
            }
        }
    }

    /// The `live` receipt. The peer link may have brought it already.
    fn commit(&self, receipt: &[u8]) -> Result<()> {
        match self.ctl.client.commit(self.instance.instance, receipt) {
            Err(ClientError::Refused { code, .. }) if code.is(ResponseCode::HANDLE) => Ok(()),
            other => Ok(other.map(drop)?),
        }
    }

    fn tell(&self, arrival: &Arrival) {
        let (name, peer) = (self.name(), self.peer());
        let here = if arrival.settled { "gone" } else { "exported" };
        let there = if arrival.settled { "live" } else { "imported" };
        let json = json!({
            "name": name,
            "to": peer,
            "source": here,
            "destination": there,
            "portions": arrival.plan.as_ref().map(portions),
            "pieces": arrival.plan.map(|plan| plan.pieces),
            "bytes": arrival.bytes,
        });
        let how = arrival.plan.as_ref().map(|plan| format!(" ({})", describe(plan))).unwrap_or_default();
        let text = if arrival.settled {
            format!("{name}: lives on {peer}, and is gone from here{how}\n")
        } else {
            format!(
                "{name}: imported on {peer}, exported here{how}\n\
                 It lives there from the first command of its machine on. The source's copy, which serves nobody, is destroyed when the receipt \
                 is here: the peer link brings it, or this command again, or `vtpmctl migrate commit` there and then here.\n"
            )
        };
        self.ctl.out.print(&json, &text);
    }
}
