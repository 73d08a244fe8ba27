//! Machines that are saved with their TPM on this host, restored, or not.

use std::sync::atomic::Ordering;

use vtpm_backend::device::{ControlledTpm, DeviceError, TpmDevice};
use vtpm_protocol::instance::{
    InstanceState, LockFlags, LoggedStep, MigrationPolicy, Outcome, SavePermission,
};

use super::migration::{Pair, bytes, frames};
use super::*;
use crate::migration::client::ClientError;
use crate::tree::{ECC_STORAGE_KEY, boot};
use vtpm_protocol::stream::Frame;

/// A host on which machines may be saved, with an instance that holds something.
fn prepared() -> Host {
    let host = Host::with_vm(0);
    host.client().permit_save(host.vm().handle(), SavePermission::Allowed).unwrap();
    fill(&host.vm());
    host
}

fn fill(vm: &Instance) {
    vm.execute(0, &extend(0x42), None);
    define_nv(vm);
    make_persistent(vm);
}

fn save(host: &Host) -> Vec<u8> {
    let mut stream = Vec::new();
    host.vm().run_state(false);
    host.vm().save(&mut stream).unwrap();
    assert_eq!(host.vm().state(), Some(InstanceState::Saved));
    stream
}

fn load(host: &Host, stream: &[u8]) -> Result<(), DeviceError> {
    host.vm().load(&mut &*stream)
}

fn refusal(host: &Host, stream: &[u8]) -> String {
    let before = host.content();
    let error = load(host, stream).unwrap_err();
    assert!(host.content() == before, "what was refused has changed something");
    error.to_string()
}

#[test]
fn without_permission_nothing_is_saved_and_the_machine_runs_on() {
    let host = Host::with_vm(0);
    let (client, vm) = (host.client(), host.vm());
    let refused = |host: &Host| {
        let before = host.content();
        let error = host.vm().save(&mut Vec::new()).unwrap_err();
        assert!(host.content() == before);
        assert!(matches!(&error, DeviceError::Refused(why) if why.contains("nor may its machine be saved")));
        assert!(matches!(
            host.client().lock_to_save(host.vm().handle()),
            Err(ClientError::Refused { code, .. }) if code.is(ResponseCode::DISABLED)
        ));
    };
    refused(&host);
    assert!(!client.info(vm.handle()).unwrap().may_be_saved);
    // The configuration permits it, but for one instance.
    host.tree.permit_saves(true);
    assert!(client.info(vm.handle()).unwrap().may_be_saved);
    client.permit_save(vm.handle(), SavePermission::Refused).unwrap();
    refused(&host);
    let host = host.crash();
    host.tree.permit_saves(true);
    refused(&host);
    host.client().permit_save(host.vm().handle(), SavePermission::Configured).unwrap();
    save(&host);
}

#[test]
fn a_machine_that_is_restored_finds_its_tpm_where_it_left_it() {
    let host = prepared();
    let (pcr, before) = (pcr16(&host.vm()), possessions(&host.vm()));
    let stream = save(&host);
    // Whatever dies meanwhile: vtpmd, or the host, after which every TPM is owed a reset, but not that of this machine.
    let host = host.crash();
    let memory = host.memory.after_power_loss();
    boot::observe(&host.tree, Some(b"first")).unwrap();
    drop(host);
    let tree = Tree::open_in(memory.clone(), Zeroizing::new(AUTH.to_vec()), Some(b"second")).unwrap();
    let host = Host { memory, tree };
    assert_eq!(host.vm().state(), Some(InstanceState::Saved));
    load(&host, &stream).unwrap();
    // As often as QEMU has to try, until the machine runs.
    load(&host, &stream).unwrap();
    let memory = host.memory.after_crash();
    let tree = Tree::open_in(memory.clone(), Zeroizing::new(AUTH.to_vec()), Some(b"second")).unwrap();
    let host = Host { memory, tree };
    assert_eq!(host.vm().state(), Some(InstanceState::Saved));
    host.vm().run_state(true);
    assert_eq!(host.vm().state(), Some(InstanceState::Live));
    assert_eq!((pcr16(&host.vm()), possessions(&host.vm())), (pcr, before.clone()));

    // It is over with the file now, also for a machine that has done nothing since.
    assert!(refusal(&host, &stream).contains("is live, and has lived on"));
    assert_eq!((pcr16(&host.vm()), possessions(&host.vm())), (pcr, before));
    let steps: Vec<_> = host.client().migration_log(Some(UUID)).unwrap()[0].steps.clone();
    let steps: Vec<LoggedStep> = steps.iter().map(|s| s.step).collect();
    use LoggedStep as S;
    assert_eq!(
        steps,
        [S::Lock, S::GetKey, S::GetData, S::SetKey, S::Unlock, S::SetKey, S::Unlock, S::MachineRuns]
    );
}

#[test]
fn without_a_run_state_the_first_command_of_the_restored_machine_counts() {
    let host = prepared();
    let pcr = pcr16(&host.vm());
    let stream = save(&host);
    load(&host, &stream).unwrap();
    assert_eq!(pcr16(&host.vm()), pcr);
    assert_eq!(host.vm().state(), Some(InstanceState::Live));
    refusal(&host, &stream);
}

#[test]
fn a_machine_that_runs_on_keeps_its_tpm_and_the_file_is_worthless() {
    // However it tells that it runs.
    let signs: [fn(&Instance); 5] = [
        |vm| vm.run_state(true),
        |vm| vm.queue_started(),
        |vm| assert!(vm.machine_resumed(std::time::Duration::ZERO)),
        |vm| assert_eq!(code(&vm.execute(0, &get_random(), None)), ResponseCode::SUCCESS),
        |vm| drop(vm.reset_established(3)),
    ];
    for sign in signs {
        let host = prepared();
        let pcr = pcr16(&host.vm());
        let stream = save(&host);
        sign(&host.vm());
        assert_eq!(host.vm().state(), Some(InstanceState::Live));
        let host = host.crash();
        assert_eq!(pcr16(&host.vm()), pcr);
        assert!(refusal(&host, &stream).contains("is live"));
        // Nor while it is saved again, with nothing done in between.
        let again = save(&host);
        assert_ne!(frames(&again)[0], frames(&stream)[0]);
        assert!(refusal(&host, &stream).contains("is saved, and has lived on"));
        load(&host, &again).unwrap();
        assert_eq!(pcr16(&host.vm()), pcr);
    }
}

#[test]
fn a_machine_that_starts_anew_finds_its_tpm_reset_and_nothing_else_lost() {
    let host = prepared();
    let durable = possessions(&host.vm())[0].clone();
    let stream = save(&host);
    host.vm().power_on().unwrap();
    assert_eq!(code(&host.vm().execute(0, &get_random(), None)), ResponseCode::INITIALIZE);
    assert_eq!(host.vm().state(), Some(InstanceState::Live));
    let host = host.crash();
    succeed(&host.vm(), &startup());
    assert_eq!(pcr16(&host.vm()), [0; 32]);
    let read = authorized(TpmCc::NV_READ, &[TpmHandle::OWNER.0, NV], &(8u16, 0u16).to_bytes());
    assert_eq!(succeed(&host.vm(), &read), durable);
    refusal(&host, &stream);

    // A reset is told first, or a TPM switched on, before what was saved is brought; nothing is decided by that.
    host.vm().execute(0, &extend(1), None);
    let pcr = pcr16(&host.vm());
    assert_ne!(pcr, [0; 32]);
    let signs: [fn(&Instance); 2] = [|vm| vm.machine_reset(), |vm| vm.power_on().unwrap()];
    let host = signs.into_iter().fold(host, |host, sign| {
        let stream = save(&host);
        sign(&host.vm());
        assert_eq!(host.vm().state(), Some(InstanceState::Saved));
        let host = host.crash();
        load(&host, &stream).unwrap();
        let host = host.crash();
        assert_eq!(pcr16(&host.vm()), pcr);
        host
    });
    host.vm().execute(0, &extend(1), None);
    save(&host);
    host.vm().machine_reset();
    let host = host.crash();
    host.vm().run_state(true);
    assert_eq!(code(&host.vm().execute(0, &get_random(), None)), ResponseCode::INITIALIZE);
}

#[test]
fn whether_a_launch_was_measured_is_told_while_the_machine_is_saved() {
    let host = prepared();
    assert!(!host.vm().is_established());
    save(&host);
    assert!(!host.vm().is_established());
    host.vm().run_state(true);
    host.vm().hash_start().unwrap();
    host.vm().hash_end().unwrap();
    save(&host);
    let host = host.crash();
    // As QEMU does it: it switches the TPM on, and asks.
    host.vm().power_on().unwrap();
    assert!(host.vm().is_established());
    assert_eq!(host.vm().state(), Some(InstanceState::Saved));
}

#[test]
fn an_altered_or_foreign_stream_changes_nothing() {
    let host = prepared();
    let pcr = pcr16(&host.vm());
    let stream = save(&host);
    for at in (0..stream.len()).step_by(97).chain([stream.len() - 1]) {
        let mut other = stream.clone();
        other[at] ^= 0x10;
        refusal(&host, &other);
        refusal(&host, &stream[..at]);
    }
    refusal(&host, &[&stream[..], b"x"].concat());
    // Without the pieces, or with the end of a migration in which nothing was sent.
    let all = frames(&stream);
    let without: Vec<Frame> = all.iter().filter(|f| !matches!(f, Frame::Pieces(_))).cloned().collect();
    refusal(&host, &bytes(&without));
    load(&host, &stream).unwrap();
    assert_eq!(pcr16(&host.vm()), pcr);
    // Another host has no key for it, whatever slot it has.
    let other = Host::new(1);
    other.client().prepare("vm", UUID, ECC_STORAGE_KEY).unwrap();
    let error = other.vm().load(&mut &*stream).unwrap_err();
    assert!(error.to_string().contains("another migration"), "{error}");
}

#[test]
fn what_cannot_be_made_durable_is_not_done() {
    let host = prepared();
    let stream = save(&host);
    host.memory.fail.store(true, Ordering::SeqCst);
    assert!(load(&host, &stream).is_err());
    host.vm().run_state(true);
    assert_eq!(host.vm().state(), Some(InstanceState::Saved));
    assert_eq!(code(&host.vm().execute(0, &get_random(), None)), ResponseCode::NV_UNAVAILABLE);
    host.memory.fail.store(false, Ordering::SeqCst);
    let host = host.crash();
    load(&host, &stream).unwrap();
    host.vm().run_state(true);
    assert_eq!(host.vm().state(), Some(InstanceState::Live));
}

#[test]
fn a_save_that_broke_off_goes_on_or_is_over_when_the_machine_runs() {
    struct Broken;
    impl std::io::Write for Broken {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let host = prepared();
    let pcr = pcr16(&host.vm());
    host.vm().save(&mut Broken).unwrap_err();
    assert_eq!(host.vm().state(), Some(InstanceState::Saving));
    let stream = save(&host.crash());
    let host = prepared();
    host.vm().save(&mut Broken).unwrap_err();
    let host = host.crash();
    assert_eq!(pcr16(&host.vm()), pcr);
    refusal(&host, &stream);
}

#[test]
fn an_armed_ticket_is_for_the_next_save_and_a_saved_instance_goes_nowhere() {
    let pair = Pair::new();
    let (client, vm) = (pair.source.client(), pair.source.vm());
    client.permit_save(vm.handle(), SavePermission::Allowed).unwrap();
    // The machine of one that is armed migrates.
    pair.save();
    assert_eq!(pair.source_state(), InstanceState::Exported);
    let void = pair.destination.client().abort(pair.destination.vm().handle(), &[]).unwrap();
    client.abort(vm.handle(), &void).unwrap();
    let stream = save(&pair.source);
    let slot = |name| pair.destination.client().prepare(name, UUID, ECC_STORAGE_KEY);
    pair.destination.client().delete(pair.destination.vm().handle()).unwrap();
    let ticket = slot("vm").unwrap().ticket;
    for refused in [
        client.arm(vm.handle(), Some(ticket.clone()), LockFlags::default()),
        client.lock(vm.handle(), &ticket, LockFlags::default()),
        client.set_policy(vm.handle(), MigrationPolicy::Strict),
        client.commit(vm.handle(), &[7; 32]).map(drop),
        client.abort(vm.handle(), &[7; 32]).map(drop),
        client.abort(vm.handle(), &[]).map(drop),
        client.reset(vm.handle()),
    ] {
        assert!(matches!(refused, Err(ClientError::Refused { code, .. }) if code.is(ResponseCode::SEQUENCE)));
    }
    assert_eq!(client.info(vm.handle()).unwrap().outcome, Outcome::Open);
    client.drop_saved(vm.handle()).unwrap();
    assert_eq!(pair.source_state(), InstanceState::Live);
    refusal(&pair.source, &stream);
    client.lock(vm.handle(), &ticket, LockFlags::default()).unwrap();
    assert_eq!(pair.source_state(), InstanceState::SourceLocked);
}

#[test]
fn an_instance_that_has_just_arrived_can_be_saved() {
    let pair = Pair::new();
    let pcr = pcr16(&pair.source.vm());
    pair.destination.tree.permit_saves(true);
    let stream = pair.save();
    let there = pair.destination.vm();
    there.load(&mut &*stream).unwrap();
    assert_eq!(pair.destination_state(), InstanceState::Imported);
    let saved = save(&pair.destination);
    // It lives there from then on, and says so.
    let live = pair.destination.client().commit(there.handle(), &[]).unwrap();
    pair.source.client().commit(pair.source.vm().handle(), &live).unwrap();
    load(&pair.destination, &saved).unwrap();
    assert_eq!(pcr16(&there), pcr);
    assert!(pair.destination.client().commit(there.handle(), &[]).is_ok());
}

#[test]
fn a_saved_instance_can_be_deleted_and_one_of_its_name_takes_nothing_of_it() {
    let host = prepared();
    let stream = save(&host);
    host.client().delete(host.vm().handle()).unwrap();
    host.client().create_fresh("vm", Some(UUID)).unwrap();
    refusal(&host, &stream);
}
