//! What is done next. A generator makes one good command or a few that belong together; a file of generators for each chapter of Part 3.

pub mod asymmetric;
pub mod attestation;
pub mod authorize;
pub mod capability;
pub mod context;
pub mod duplication;
pub mod hierarchy;
pub mod mutate;
pub mod nv;
pub mod object;
pub mod pcr;
pub mod policy;
pub mod sequence;
pub mod session;
pub mod signing;
pub mod startup;
pub mod symmetric;
pub mod templates;

use crate::world::World;
use vtpm_protocol::tpm::TpmCc as C;

/// A generator: how often it is chosen, the command that it is there for, and what it does.
type Generator = (usize, C, fn(&mut World));

const CHAPTERS: [&[Generator]; 14] = [
    startup::GENERATORS,
    session::GENERATORS,
    object::GENERATORS,
    duplication::GENERATORS,
    asymmetric::GENERATORS,
    symmetric::GENERATORS,
    sequence::GENERATORS,
    signing::GENERATORS,
    attestation::GENERATORS,
    pcr::GENERATORS,
    policy::GENERATORS,
    hierarchy::GENERATORS,
    context::GENERATORS,
    nv::GENERATORS,
];

/// One step: a generator of both TPMs' commands.
pub fn step(w: &mut World) {
    let all: Vec<Generator> =
        CHAPTERS.into_iter().chain([capability::GENERATORS]).flatten().copied().collect();
    let total: usize = all.iter().map(|g| g.0).sum();
    let mut n = w.rng.below(total);
    for (weight, code, run) in all {
        if n >= weight {
            n -= weight;
            continue;
        }
        object::room(w);
        if w.has(code) || w.common.ours_only.contains(&code.0) {
            run(w);
        }
        return;
    }
}

/// What an episode begins with: Startup, and something to work with.
pub fn prepare(w: &mut World) {
    let mutations = std::mem::take(&mut w.mutations);
    startup::first(w);
    object::prepare(w);
    w.mutations = mutations;
}
