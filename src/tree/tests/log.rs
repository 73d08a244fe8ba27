//! The migration log.

use std::sync::atomic::Ordering;

use vtpm_backend::device::TpmDevice;
use vtpm_protocol::instance::{
    InstanceState, LogEntry, LoggedStep as S, MAX_LOG, MAX_LOG_STEPS, MigrationPolicy, MigrationSide,
};

use super::migration::Pair;
use super::*;
use crate::tree::ECC_STORAGE_KEY;

fn log_of(host: &Host) -> Vec<LogEntry> {
    host.client().migration_log(Some(UUID)).unwrap()
}

fn steps(host: &Host) -> Vec<S> {
    log_of(host).first().map(|entry| entry.steps.iter().map(|s| s.step).collect()).unwrap_or_default()
}

#[test]
fn both_sides_log_the_steps_of_a_migration_and_the_source_after_it_is_gone() {
    let pair = Pair::new();
    let stream = pair.save();
    assert_eq!(steps(&pair.source), [S::Arm, S::Lock, S::GetKey, S::GetData]);
    pair.destination.vm().load(&mut &*stream).unwrap();
    let there = pair.destination.vm();
    assert_eq!(code(&there.execute(0, &get_random(), None)), ResponseCode::SUCCESS);
    assert_eq!(steps(&pair.destination), [S::Prepare, S::SetKey, S::SetData, S::Unlock, S::FirstCommand]);
    let live = pair.destination.client().commit(there.handle(), &[]).unwrap();
    pair.source.client().commit(pair.source.vm().handle(), &live).unwrap();

    // The source has nothing left of the instance but this, also after a restart.
    let all = [S::Arm, S::Lock, S::GetKey, S::GetData, S::Commit];
    assert_eq!(steps(&pair.source), all);
    let source = pair.source.crash();
    assert!(source.tree.by_name("vm").is_none());
    assert_eq!(steps(&source), all);
    let [entry] = &log_of(&source)[..] else { panic!("one migration") };
    assert_eq!((entry.migration_id, entry.uuid), (pair.ticket.migration_id, UUID));
    assert_eq!((entry.name.as_str(), entry.side), ("vm", MigrationSide::Source));
    let data = entry.steps[3];
    assert!(data.bytes > 1000 && data.bytes < stream.len() as u64 + 200 && data.count == 1, "{data:?}");
    assert!(entry.steps.iter().all(|s| s.spent_us > 0 && s.at_ms > 1_577_836_800_000));
    assert!(entry.steps.is_sorted_by_key(|s| s.at_ms));
    let destination = pair.destination.crash();
    let [entry] = &log_of(&destination)[..] else { panic!("one migration") };
    assert_eq!((entry.migration_id, entry.side), (pair.ticket.migration_id, MigrationSide::Destination));
}

#[test]
fn what_is_refused_or_not_durable_is_not_logged() {
    let pair = Pair::new();
    let (client, vm) = (pair.source.client(), pair.source.vm().handle());
    assert!(client.abort(vm, &[1; 32]).is_err());
    pair.source.memory.fail.store(true, Ordering::SeqCst);
    assert!(client.lock(vm, &pair.ticket, Default::default()).is_err());
    pair.source.memory.fail.store(false, Ordering::SeqCst);
    assert_eq!(steps(&pair.source), [S::Arm]);
    client.lock(vm, &pair.ticket, Default::default()).unwrap();
    assert_eq!(steps(&pair.source), [S::Arm, S::Lock]);
    assert_eq!(steps(&pair.source.crash()), [S::Arm, S::Lock]);
    // An instance that is made here for good does not migrate.
    assert_eq!(client_log_of_all(&pair.destination), 1);
    pair.destination.client().create_fresh("fresh", None).unwrap();
    assert_eq!(client_log_of_all(&pair.destination), 1);
}

fn client_log_of_all(host: &Host) -> usize {
    host.client().migration_log(None).unwrap().len()
}

#[test]
fn a_new_migration_takes_the_place_of_the_one_before() {
    let pair = Pair::new();
    pair.save();
    let void = pair.destination.client().abort(pair.destination.vm().handle(), &[]).unwrap();
    assert_eq!(steps(&pair.destination), [S::Prepare, S::Abort]);
    pair.source.client().abort(pair.source.vm().handle(), &void).unwrap();
    assert_eq!(steps(&pair.source), [S::Arm, S::Lock, S::GetKey, S::GetData, S::Abort]);
    pair.destination.client().delete(pair.destination.vm().handle()).unwrap();
    assert_eq!(steps(&pair.destination), [S::Prepare, S::Abort, S::Delete]);
    let ticket = pair.destination.client().prepare("vm", UUID, ECC_STORAGE_KEY).unwrap().ticket;
    assert_eq!(steps(&pair.destination), [S::Prepare]);
    let vm = pair.source.vm().handle();
    pair.source.client().arm(vm, Some(ticket.clone()), Default::default()).unwrap();
    let [entry] = &log_of(&pair.source)[..] else { panic!("one migration") };
    assert_eq!((entry.migration_id, entry.steps.len()), (ticket.migration_id, 1));
    // However often a step is done, the record has its bounds.
    for _ in 0..3 * MAX_LOG_STEPS {
        pair.source.client().arm(vm, Some(ticket.clone()), Default::default()).unwrap();
    }
    let [entry] = &log_of(&pair.source)[..] else { panic!("one migration") };
    assert_eq!((entry.steps.len(), entry.steps[0].count as usize), (1, 3 * MAX_LOG_STEPS + 1));
}

#[test]
fn the_log_keeps_the_newest_migrations_only() {
    let host = Host::new(1);
    let client = host.client();
    for n in 0..MAX_LOG + 5 {
        let made = client.prepare("slot", Uuid([n as u8 + 1; 16]), ECC_STORAGE_KEY).unwrap();
        client.delete(made.instance).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let root = host.tree.root().id();
    let host = host.crash();
    let log = host.client().migration_log(None).unwrap();
    let uuids: Vec<u8> = log.iter().map(|entry| entry.uuid.0[0]).collect();
    let newest: Vec<u8> = (6..=MAX_LOG as u8 + 5).rev().collect();
    assert_eq!(uuids, newest);
    let kept = host
        .memory
        .content()
        .records
        .into_keys()
        .filter(|(id, record)| *id == root && record.as_bytes().first() == Some(&name::LOG));
    assert_eq!(kept.count(), MAX_LOG);
}

#[test]
fn a_machine_that_is_served_again_without_a_receipt_is_logged() {
    let pair = Pair::new();
    let vm = pair.source.vm();
    pair.source.client().set_policy(vm.handle(), MigrationPolicy::Availability).unwrap();
    pair.save();
    vm.run_state(true);
    assert_eq!(pair.source_state(), InstanceState::Live);
    let all = [S::Arm, S::Lock, S::GetKey, S::GetData, S::MachineRuns];
    assert_eq!(steps(&pair.source), all);
    let [entry] = &log_of(&pair.source)[..] else { panic!("one migration") };
    assert_eq!((entry.migration_id, entry.side), (pair.ticket.migration_id, MigrationSide::Source));
    assert_eq!(steps(&pair.source.crash()), all);
}
