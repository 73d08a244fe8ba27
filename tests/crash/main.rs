//! vtpmd is killed at every durable step of a migration, and its medium fails there, on either host; afterwards the migration is brought
//! to an end by the ordinary commands, with one live copy and nothing lost.
//!
//! Needs the feature `fault-injection`; `scripts/test` runs it, and so does
//! `cargo test -p vtpmd --features fault-injection --test crash -- --nocapture`. Each sweep repeats one migration with the fault at
//! step 1, 2, 3 … of the daemon, until a run meets no fault any more.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a test that panics has failed"
)]

#[allow(dead_code, reason = "shared with tests/programs.rs, which uses the rest")]
#[path = "../common/mod.rs"]
mod common;
mod init;
mod linked;
mod machine;
mod migration;
mod network;
mod site;
mod tpm;

use linked::Pair;
use migration::{Fault, Migration, Way};

/// One migration for each N, with the faults that `faults` names for it on source and destination, until neither strikes. How many did.
fn sweep(what: &str, way: Way, strict: bool, faults: impl Fn(u64) -> [Option<Fault>; 2]) -> u32 {
    let mut steps = 0;
    for n in 1..200 {
        let faults = faults(n);
        let told = format!("{what}, {faults:?}");
        let struck = std::panic::catch_unwind(|| Migration::start(way, strict, &faults).finish());
        let struck = struck.unwrap_or_else(|_| panic!("failed: {told}"));
        if struck == 0 {
            println!("{what}: {steps} faults");
            return steps;
        }
        steps += struck;
    }
    panic!("{what}: always another fault");
}

const KILLS: [&str; 3] = ["kill-before", "kill-after", "kill-unsent"];

fn on_source(kind: &'static str) -> impl Fn(u64) -> [Option<Fault>; 2] {
    move |n| [Some(Fault::new(kind, n)), None]
}

fn on_destination(kind: &'static str) -> impl Fn(u64) -> [Option<Fault>; 2] {
    move |n| [None, Some(Fault::new(kind, n))]
}

#[test]
fn source_is_killed_and_the_migration_succeeds() {
    for kind in KILLS {
        let sum = sweep(&format!("success, source, {kind}"), Way::Success, false, on_source(kind));
        assert!(sum > 5);
    }
}

#[test]
fn destination_is_killed_and_the_migration_succeeds() {
    for kind in KILLS {
        let sum = sweep(&format!("success, destination, {kind}"), Way::Success, false, on_destination(kind));
        assert!(sum > 5);
    }
}

#[test]
fn both_are_killed_and_the_migration_succeeds() {
    let both =
        |n| [Some(Fault::new(KILLS[n as usize % 3], n)), Some(Fault::new(KILLS[(n as usize + 1) % 3], n))];
    let sum = sweep("success, both", Way::Success, false, both);
    assert!(sum > 16);
}

#[test]
fn source_or_destination_is_killed_and_the_migration_is_given_up() {
    for kind in KILLS {
        let sum = sweep(&format!("abort, source, {kind}"), Way::Abort, false, on_source(kind));
        assert!(sum > 5);
        let sum = sweep(&format!("abort, destination, {kind}"), Way::Abort, false, on_destination(kind));
        assert!(sum > 5);
    }
}

#[test]
fn under_a_strict_lock_nothing_is_lost_when_the_source_is_killed() {
    for kind in KILLS {
        let sum = sweep(&format!("strict, success, source, {kind}"), Way::Success, true, on_source(kind));
        assert!(sum > 5);
    }
    for way in [Way::Abort, Way::AbortLocked, Way::AbortExported] {
        let sum = sweep(&format!("strict, {way:?}, source"), way, true, on_source("kill-after"));
        assert!(sum > 5);
    }
}

#[test]
fn under_a_strict_lock_nothing_is_lost_when_the_destination_is_killed() {
    for kind in KILLS {
        let what = format!("strict, success, destination, {kind}");
        assert!(sweep(&what, Way::Success, true, on_destination(kind)) > 5);
    }
    for way in [Way::Abort, Way::AbortLocked, Way::AbortExported] {
        let sum = sweep(&format!("strict, {way:?}, destination"), way, true, on_destination("kill-after"));
        assert!(sum > 3);
    }
}

#[test]
fn death_in_the_first_command_decides_for_one_receipt() {
    for kind in KILLS {
        let sum = sweep(&format!("first command, {kind}"), Way::Decide, false, on_destination(kind));
        assert!(sum > 1);
    }
}

#[test]
fn medium_without_room_is_named_and_got_over() {
    for kind in ["enospc", "enospc+"] {
        let sum = sweep(&format!("success, source, {kind}"), Way::Success, false, on_source(kind));
        assert!(sum > 5);
        let sum = sweep(&format!("success, destination, {kind}"), Way::Success, false, on_destination(kind));
        assert!(sum > 5);
    }
}

#[test]
fn medium_that_does_not_synchronise_is_named_and_got_over() {
    for kind in ["fsync", "fsync+"] {
        let sum = sweep(&format!("success, source, {kind}"), Way::Success, false, on_source(kind));
        assert!(sum > 5);
        let sum = sweep(&format!("success, destination, {kind}"), Way::Success, false, on_destination(kind));
        assert!(sum > 5);
    }
    let sum = sweep("abort, destination, fsync+", Way::Abort, false, on_destination("fsync+"));
    assert!(sum > 5);
}

/// One migration over the link for each N, until no fault strikes any more.
fn linked_sweep(
    what: &str,
    pair: &Pair,
    way: linked::Way,
    faults: impl Fn(u64) -> ([Option<Fault>; 2], Option<u64>),
) {
    for n in 1..300 {
        let (faults, cut) = faults(n);
        let told = format!("linked, {way:?}, {what}, {faults:?}, {cut:?}");
        let struck = std::panic::catch_unwind(|| pair.migrate(way, &faults, cut));
        if struck.unwrap_or_else(|_| panic!("failed: {told}")) == 0 {
            println!("linked, {way:?}, {what}: {} faults", n - 1);
            assert!(n > 5);
            return;
        }
    }
    panic!("linked, {what}: always another fault");
}

#[test]
fn over_the_link_source_is_killed() {
    let pair = Pair::new(false);
    for kind in KILLS {
        linked_sweep(&format!("source, {kind}"), &pair, linked::Way::Success, |n| (on_source(kind)(n), None));
    }
    linked_sweep("source", &pair, linked::Way::Fallback, |n| (on_source("kill-after")(n), None));
}

#[test]
fn over_the_link_destination_is_killed() {
    let pair = Pair::new(false);
    for kind in KILLS {
        let faults = |n| (on_destination(kind)(n), None);
        linked_sweep(&format!("destination, {kind}"), &pair, linked::Way::Success, faults);
    }
    linked_sweep("destination", &pair, linked::Way::Fallback, |n| (on_destination("kill-after")(n), None));
}

#[test]
fn over_the_link_a_strict_migration_falls_back_although_daemons_are_killed() {
    let pair = Pair::new(true);
    for way in [linked::Way::Fallback, linked::Way::EarlyFallback] {
        linked_sweep("strict, source", &pair, way, |n| (on_source("kill-after")(n), None));
        linked_sweep("strict, destination", &pair, way, |n| (on_destination("kill-after")(n), None));
    }
}

#[test]
fn the_connection_is_cut() {
    let pair = Pair::new(false);
    for way in [linked::Way::Success, linked::Way::Fallback] {
        linked_sweep("cut", &pair, way, |n| ([None, None], Some(n)));
    }
}
