//! Live migration to a second daemon, and what happens when it is not let through.

use qemu_tests::relay::{Fate, Tamper, frames, from_frames};
use qemu_tests::{
    Daemon, Error, Guest, GuestBuilder, Hosts, Possessions, Result, Setup, Workload, ensure, guest_test, same,
};
use std::path::Path;

const EVENT: &str = "90090000000000000000000000000000000000000000000000000000000000f3";
const NAME: &str = "traveller";
/// TPM2_GetRandom of eight bytes.
const GET_RANDOM: &str = "80010000000c0000017b0008";

/// A guest on the source host that has things in its TPM.
fn guest_on_source(setup: &Setup, scratch: &Path, hosts: &Hosts) -> Result<(Guest, Possessions)> {
    let socket = hosts.source.create(NAME)?;
    let mut guest = GuestBuilder::new(setup, NAME).tpm(&socket).boot(setup, scratch)?;
    let possessions = Possessions::make(&mut guest, EVENT, "data that travels")?;
    Ok((guest, possessions))
}

fn arriving(setup: &Setup, number: usize) -> GuestBuilder {
    GuestBuilder::new(setup, &format!("{NAME}-{number}"))
}

fn is_executing(guest: &mut Guest) -> Result<bool> {
    Ok(guest.tpm(GET_RANDOM)?.get(6..10) == Some(&[0; 4]))
}

fn has_instance(daemon: &Daemon, name: &str) -> Result<bool> {
    Ok(daemon.control(&["list"])?.lines().any(|line| line.split_whitespace().any(|word| word == name)))
}

/// What any guest may expect of its TPM; the same as in `lifecycle.rs`.
fn body(guest: &mut Guest, possessions: &mut Possessions) -> Result<()> {
    possessions.check(guest)?;
    possessions.count(guest)?;
    let workload = Workload::start(guest, "body")?;
    workload.wait_rounds(guest, 20)?;
    workload.stop(guest)?.exactly_once()?;
    possessions.check(guest)
}

#[test]
fn a_guest_migrates_with_its_tpm_and_back_again() {
    guest_test("migrated", |setup, scratch| {
        let mut hosts = Hosts::start(setup, scratch)?;
        let (mut guest, mut possessions) = guest_on_source(setup, scratch, &hosts)?;
        for trip in 1..=2 {
            let workload = Workload::start(&mut guest, "load")?;
            hosts.prepare(NAME)?;
            let attempt = hosts.migrate(setup, &mut guest, arriving(setup, trip), NAME, None)?;
            same("migration", &attempt.migration.status.as_str(), &"completed")?;
            same("run state of the source", &guest.qmp().run_state()?.as_str(), &"postmigrate")?;
            guest = attempt.guest;

            workload.wait_rounds(&mut guest, 10)?;
            let summary = workload.stop(&mut guest)?;
            println!("trip {trip}: {:?}, {:?}", attempt.migration, summary.latency_us);
            summary.exactly_once()?;
            hosts.settle(NAME)?;
            ensure(!has_instance(&hosts.source, NAME)?, "the source still has the instance")?;
            body(&mut guest, &mut possessions)?;
            hosts.turn();
        }
        Ok(())
    });
}

#[test]
fn a_guest_without_a_driver_takes_its_tpm_along() {
    guest_test("migrated-idle", |setup, scratch| {
        let mut hosts = Hosts::start(setup, scratch)?;
        let socket = hosts.source.create(NAME)?;
        let mut guest = GuestBuilder::new(setup, NAME).tpm(&socket).without_driver().boot(setup, scratch)?;
        hosts.prepare(NAME)?;
        let mut attempt =
            hosts.migrate(setup, &mut guest, arriving(setup, 1).without_driver(), NAME, None)?;
        same("migration", &attempt.migration.status.as_str(), &"completed")?;
        attempt.guest.run(&["insmod", "/lib/vtpmd/tpm_virtio.ko"])?;
        ensure(is_executing(&mut attempt.guest)?, "the TPM does not execute commands at the destination")?;
        hosts.settle(NAME)
    });
}

#[test]
fn a_migration_that_was_not_prepared_is_refused_and_the_guest_runs_on() {
    guest_test("unprepared", |setup, scratch| {
        let mut hosts = Hosts::start(setup, scratch)?;
        let (mut guest, mut possessions) = guest_on_source(setup, scratch, &hosts)?;
        let workload = Workload::start(&mut guest, "load")?;

        // The destination is ready, but the source was not armed.
        hosts.ticket(NAME)?;
        let attempt = hosts.migrate(setup, &mut guest, arriving(setup, 1), NAME, None)?;
        same("migration without a ticket", &attempt.migration.status.as_str(), &"failed")?;
        drop(attempt);
        same("run state", &guest.qmp().run_state()?.as_str(), &"running")?;
        workload.wait_rounds(&mut guest, 10)?;

        // Nothing was locked, so nothing has to be given up, and the loop noticed nothing.
        workload.stop(&mut guest)?.exactly_once()?;
        body(&mut guest, &mut possessions)
    });
}

#[test]
fn a_cancelled_migration_leaves_the_guest_its_tpm() {
    guest_test("cancelled", |setup, scratch| {
        let hosts = Hosts::start(setup, scratch)?;
        let (mut guest, mut possessions) = guest_on_source(setup, scratch, &hosts)?;
        let workload = Workload::start(&mut guest, "load")?;
        hosts.prepare(NAME)?;
        let end = scratch.join("end");
        let waiting = arriving(setup, 1).tpm(&hosts.destination.socket(NAME)).incoming(&end);
        let mut waiting = waiting.start(setup, scratch)?;
        let capabilities = [("return-path", true), ("pause-before-switchover", true)];
        waiting.qmp().set_migration_capabilities(&capabilities)?;
        guest.qmp().set_migration_capabilities(&capabilities)?;
        guest.qmp().migrate(&end)?;
        let migration = guest.qmp().wait_migration("pre-switchover", std::time::Duration::from_secs(60))?;
        same("migration", &migration.status.as_str(), &"pre-switchover")?;
        guest.qmp().migrate_cancel()?;
        let migration = guest.qmp().wait_migration("cancelled", std::time::Duration::from_secs(60))?;
        same("migration", &migration.status.as_str(), &"cancelled")?;
        workload.wait_rounds(&mut guest, 10)?;
        workload.stop(&mut guest)?.exactly_once()?;
        body(&mut guest, &mut possessions)
    });
}

/// The places where pieces of state begin, in a frame of pieces.
fn pieces(body: &[u8]) -> Vec<usize> {
    body.windows(6)
        .enumerate()
        .filter(|(_, window)| *window == b"vTPD\0\x01")
        .map(|(place, _)| place)
        .collect()
}

fn flip(stream: &[u8], place: usize) -> Vec<u8> {
    let mut altered = stream.to_vec();
    if let Some(byte) = altered.get_mut(place) {
        *byte ^= 0x10;
    }
    altered
}

/// The stream with one frame altered.
fn with_frame(stream: &[u8], tag: u16, alter: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let mut all = frames(stream);
    for (_, body) in all.iter_mut().filter(|(found, _)| *found == tag) {
        *body = alter(body);
    }
    from_frames(&all)
}

fn altered(alter: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) -> Tamper {
    Box::new(move |stream| Fate::Pass(alter(stream)))
}

/// Every way in which a stream is damaged, by name.
fn damages() -> Vec<(&'static str, Tamper)> {
    vec![
        ("a bit of the instance's UUID", altered(|s| with_frame(s, 1, |b| flip(b, 14)))),
        ("a bit of the migration id", altered(|s| with_frame(s, 1, |b| flip(b, 40)))),
        ("a bit of the key", altered(|s| with_frame(s, 2, |b| flip(b, b.len() / 2)))),
        ("a bit of the first piece's header", altered(|s| with_frame(s, 3, |b| flip(b, 70)))),
        ("a bit in the middle of the pieces", altered(|s| with_frame(s, 3, |b| flip(b, b.len() / 2)))),
        ("the last bit of the pieces", altered(|s| with_frame(s, 3, |b| flip(b, b.len().saturating_sub(1))))),
        ("a bit of the digest", altered(|s| with_frame(s, 4, |b| flip(b, b.len().saturating_sub(1))))),
        ("no end", altered(|s| from_frames(&frames(s).into_iter().filter(|f| f.0 != 4).collect::<Vec<_>>()))),
        ("half of it", altered(|s| s.get(..s.len() / 2).unwrap_or_default().to_vec())),
        ("a byte less", altered(|s| s.get(..s.len().saturating_sub(1)).unwrap_or_default().to_vec())),
        ("a byte more", altered(|s| [s, &[0]].concat())),
        ("nothing", altered(|_| Vec::new())),
        ("a broken connection", Box::new(|s| Fate::Cut(s.len() / 2))),
        (
            "the last piece missing",
            altered(|s| {
                with_frame(s, 3, |b| pieces(b).last().and_then(|p| b.get(..*p)).unwrap_or_default().to_vec())
            }),
        ),
        (
            "the first two pieces in the other order",
            altered(|s| {
                with_frame(s, 3, |b| match pieces(b).as_slice() {
                    [one, two, three, ..] => {
                        let part = |from: usize, to: usize| b.get(from..to).unwrap_or_default();
                        [part(0, *one), part(*two, *three), part(*one, *two), part(*three, b.len())].concat()
                    }
                    _ => Vec::new(),
                })
            }),
        ),
        (
            "a piece twice",
            altered(|s| {
                with_frame(s, 3, |b| match pieces(b).as_slice() {
                    [one, two, ..] => {
                        let part = |from: usize, to: usize| b.get(from..to).unwrap_or_default();
                        [part(0, *two), part(*one, b.len())].concat()
                    }
                    _ => Vec::new(),
                })
            }),
        ),
        (
            "digest before pieces",
            altered(|s| {
                let mut all = frames(s);
                all.sort_by_key(|(tag, _)| if *tag == 4 { 2 } else { *tag });
                from_frames(&all)
            }),
        ),
    ]
}

/// Migrates with the stream altered. It must fail, with the guest running on; given up, the TPM goes on too.
fn refused(
    setup: &Setup,
    hosts: &mut Hosts,
    guest: &mut Guest,
    number: usize,
    what: &str,
    tamper: Tamper,
) -> Result<Vec<u8>> {
    hosts.prepare(NAME)?;
    let attempt = hosts.migrate(setup, guest, arriving(setup, number), NAME, Some(tamper))?;
    same(&format!("migration with {what}"), &attempt.migration.status.as_str(), &"failed")?;
    let stream = attempt.stream.ok_or_else(|| Error::Differs(format!("{what}: no stream came by")))?;
    drop(attempt.guest);
    same(&format!("run state after {what}"), &guest.qmp().run_state()?.as_str(), &"running")?;
    // The state has left and nobody has said that it will not live elsewhere, so it must not live here.
    ensure(!is_executing(guest)?, format!("{what}: two copies could execute"))?;
    hosts.give_up(NAME)?;
    ensure(is_executing(guest)?, format!("{what}: the TPM does not come back"))?;
    Ok(stream)
}

#[test]
fn damaged_streams_are_refused_and_the_guest_runs_on() {
    guest_test("damaged", |setup, scratch| {
        let mut hosts = Hosts::start(setup, scratch)?;
        let (mut guest, mut possessions) = guest_on_source(setup, scratch, &hosts)?;
        for (number, (what, tamper)) in damages().into_iter().enumerate() {
            let stream = refused(setup, &mut hosts, &mut guest, number, what, tamper)?;
            let pieces: usize = frames(&stream).iter().map(|(_, body)| pieces(body).len()).sum();
            ensure(pieces >= 3, format!("a stream of {pieces} pieces is too short for this test"))?;
            possessions.check(&mut guest)?;
        }
        body(&mut guest, &mut possessions)?;

        // The same guest can still migrate.
        hosts.prepare(NAME)?;
        let mut attempt = hosts.migrate(setup, &mut guest, arriving(setup, 100), NAME, None)?;
        same("migration", &attempt.migration.status.as_str(), &"completed")?;
        body(&mut attempt.guest, &mut possessions)
    });
}

#[test]
fn replayed_and_foreign_streams_are_refused_and_the_guest_runs_on() {
    guest_test("replayed", |setup, scratch| {
        let mut hosts = Hosts::start(setup, scratch)?;
        let (mut guest, mut possessions) = guest_on_source(setup, scratch, &hosts)?;

        // A whole and good stream, but of a migration that was given up.
        let cut: Tamper = Box::new(|_| Fate::Cut(0));
        let old = refused(setup, &mut hosts, &mut guest, 0, "a connection that broke at once", cut)?;
        possessions.count(&mut guest)?;
        refused(setup, &mut hosts, &mut guest, 1, "an old stream", altered(move |_| old.clone()))?;
        possessions.check(&mut guest)?;

        // A good stream of another instance, prepared for the same destination.
        let other = "other";
        hosts.source.create(other)?;
        let ticket = hosts.ticket(other)?;
        let file = scratch.join("other.stream");
        let path = file.display().to_string();
        hosts.source.control(&["export", other, "--ticket", &ticket, "--output", &path])?;
        let foreign = std::fs::read(&file).map_err(Error::io(path.clone()))?;
        refused(setup, &mut hosts, &mut guest, 2, "a foreign stream", altered(move |_| foreign.clone()))?;
        possessions.check(&mut guest)?;

        // The migration that succeeds, recorded; its stream is of no use afterwards.
        hosts.prepare(NAME)?;
        let record: Tamper = Box::new(|stream| Fate::Pass(stream.to_vec()));
        let mut attempt = hosts.migrate(setup, &mut guest, arriving(setup, 3), NAME, Some(record))?;
        same("migration", &attempt.migration.status.as_str(), &"completed")?;
        body(&mut attempt.guest, &mut possessions)?;
        hosts.settle(NAME)?;
        let stream = attempt.stream.ok_or_else(|| Error::Differs("no stream came by".into()))?;
        let file = scratch.join("recorded.stream");
        let path = file.display().to_string();
        std::fs::write(&file, &stream).map_err(Error::io(path.clone()))?;
        let again = hosts.destination.control(&["import", NAME, "--input", &path]);
        ensure(again.is_err(), "the living instance took the stream once more")?;
        hosts.turn();
        hosts.ticket(NAME)?;
        let again = hosts.destination.control(&["import", NAME, "--input", &path]);
        ensure(again.is_err(), "a new instance took the recorded stream")?;
        body(&mut attempt.guest, &mut possessions)
    });
}
