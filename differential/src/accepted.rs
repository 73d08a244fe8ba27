//! The differences that are accepted, each with its reason. All others are findings.

use crate::client::Call;
use crate::compare::What;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::TpmCc;

mod table;
pub mod when;

pub use table::{ORACLE_DIES_OF, TABLE};

/// A set of response codes.
#[derive(Clone, Copy, Debug)]
pub enum Codes {
    /// Just this one.
    Is(u32),
    /// Each of these.
    In(&'static [u32]),
    /// This code, whatever it blames.
    Like(ResponseCode),
    /// Any failure.
    Failure,
    /// Success or any failure.
    Any,
}

impl Codes {
    fn has(self, code: u32) -> bool {
        match self {
            Self::Is(c) => c == code,
            Self::In(list) => list.contains(&code),
            Self::Like(base) => ResponseCode::from_value(code).is(base),
            Self::Failure => code != 0,
            Self::Any => true,
        }
    }
}

/// What may differ.
#[derive(Clone, Copy, Debug)]
pub enum Pattern {
    /// The response codes: theirs, ours.
    Code(Codes, Codes),
    /// A field whose name is this, or begins with what stands before a star.
    Field(&'static str),
}

/// An entry of the table.
#[derive(Clone, Copy, Debug)]
pub struct Accepted {
    /// The commands; none stands for all.
    pub commands: &'static [TpmCc],
    /// A word of what was done to make the command wrong; empty for any command.
    pub mutation: &'static str,
    /// What else must hold of the command.
    pub when: fn(&Call) -> bool,
    /// What may differ.
    pub what: Pattern,
    /// Why.
    pub reason: &'static str,
    /// So rare that the ordinary run may well do without it.
    pub rare: bool,
}

/// A kind of accepted difference: the entry, the command, and the codes (theirs, ours) or the field.
type Kind = (usize, u32, String);

/// How often a kind of difference came, and where for the first time.
#[derive(Clone, Debug, Default)]
struct Seen {
    times: u64,
    episode: u64,
    step: usize,
    mutation: String,
}

/// What each entry was needed for.
#[derive(Clone, Debug, Default)]
pub struct Usage(BTreeMap<Kind, Seen>);

impl Usage {
    /// Adds what an episode needed.
    pub fn add(&mut self, other: &Self, episode: u64) {
        for (kind, theirs) in &other.0 {
            let first = || Seen { times: 0, episode, ..theirs.clone() };
            self.0.entry(kind.clone()).or_insert_with(first).times += theirs.times;
        }
    }

    /// How many differences were accepted.
    pub fn total(&self) -> u64 {
        self.0.values().map(|s| s.times).sum()
    }

    /// The entries that nothing needed, though they are not rare.
    pub fn unused(&self) -> impl Iterator<Item = &'static Accepted> {
        let needed = |i: usize| self.0.keys().any(|(entry, ..)| *entry == i);
        TABLE.iter().enumerate().filter(move |(i, e)| !e.rare && !needed(*i)).map(|(_, e)| e)
    }

    /// For those who make the table narrower: an entry after the other, with all that it was needed for.
    pub fn table(&self) -> String {
        let mut out = String::new();
        for (i, entry) in TABLE.iter().enumerate() {
            let _ = writeln!(out, "{:?}: {}", entry.what, entry.reason);
            for ((_, code, what), seen) in self.0.iter().filter(|((e, ..), _)| *e == i) {
                let Seen { times, episode, step, mutation } = seen;
                let command = TpmCc(*code);
                let _ = writeln!(
                    out,
                    "{times:>8}  {command:?} {what}  (episode {episode}, step {step}{mutation})"
                );
            }
        }
        out
    }
}

fn named(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |start| name.starts_with(start))
}

/// Whether the table has an entry for this; counts its use. `step` is where it was.
pub fn accepts(call: &Call, what: &What, step: usize, usage: &mut Usage) -> bool {
    let fits = |entry: &Accepted| {
        let command = entry.commands.is_empty() || entry.commands.contains(&TpmCc(call.code));
        let same = match (entry.what, what) {
            (Pattern::Code(theirs, ours), What::Code(a, b)) => theirs.has(*a) && ours.has(*b),
            (Pattern::Field(pattern), What::Field(name, ..)) => named(pattern, name),
            _ => false,
        };
        command && same && call.mutation.contains(entry.mutation) && (entry.when)(call)
    };
    let Some(i) = TABLE.iter().position(fits) else { return false };
    let text = match what {
        What::Code(theirs, ours) => format!("{theirs:#x} / {ours:#x}"),
        What::Field(name, ..) => name.clone(),
    };
    let first = || Seen { times: 0, episode: 0, step, mutation: call.mutation.clone() };
    usage.0.entry((i, call.code, text)).or_insert_with(first).times += 1;
    true
}
