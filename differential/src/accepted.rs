//! The differences that are accepted, each with its reason. All others are findings.

use crate::client::Call;
use crate::compare::What;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::TpmCc;

mod table;

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
    /// What may differ.
    pub what: Pattern,
    /// Why.
    pub reason: &'static str,
    /// So rare that the ordinary run may well do without it.
    pub rare: bool,
}

/// How often each entry was needed.
#[derive(Clone, Debug)]
pub struct Usage(pub Vec<u64>);

impl Default for Usage {
    fn default() -> Self {
        Self(vec![0; TABLE.len()])
    }
}

impl Usage {
    /// Adds the counts of another episode.
    pub fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(a, b)| *a += b);
    }

    /// The entries that nothing needed, though they are not rare.
    pub fn unused(&self) -> impl Iterator<Item = &'static Accepted> {
        self.0.iter().zip(TABLE).filter(|(n, entry)| **n == 0 && !entry.rare).map(|(_, entry)| entry)
    }
}

fn named(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |start| name.starts_with(start))
}

/// Whether the table has an entry for this; counts its use.
pub fn accepts(call: &Call, what: &What, usage: &mut Usage) -> bool {
    let fits = |entry: &Accepted| {
        let command = entry.commands.is_empty() || entry.commands.contains(&TpmCc(call.code));
        let same = match (entry.what, what) {
            (Pattern::Code(theirs, ours), What::Code(a, b)) => theirs.has(*a) && ours.has(*b),
            (Pattern::Field(pattern), What::Field(name, ..)) => named(pattern, name),
            _ => false,
        };
        command && same && call.mutation.contains(entry.mutation)
    };
    let Some(i) = TABLE.iter().position(fits) else { return false };
    usage.0[i] += 1;
    true
}
