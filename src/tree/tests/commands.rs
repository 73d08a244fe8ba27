//! Creation, listing, deletion, and what an instance is as a device.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use vtpm_backend::device::{DeviceError, TpmDevice};
use vtpm_protocol::codec::Encode;
use vtpm_protocol::instance::{
    CreateInstanceIn, INSTANCE_FIRST, INSTANCE_SELF, InstanceAttributes, InstanceName, InstanceState,
    ListInstancesIn, Outcome, Uuid, cc,
};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Tpm2b, TpmCc, TpmHandle, TpmSt};
use zeroize::Zeroizing;

use super::{Host, UUID, code, command, extend, get_random, pcr16, random_bytes, startup};
use crate::host_key::HostKey;
use crate::migration::client::{Client, ClientError};
use crate::store::Store;
use crate::tree::{LocalTransport, RootOptions, Tree, TreeEvent};

fn refused<T>(result: Result<T, ClientError>) -> ResponseCode {
    match result {
        Err(ClientError::Refused { code, .. }) => code,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("the command succeeded"),
    }
}

fn input(name: &str, uuid: u8, attributes: InstanceAttributes) -> CreateInstanceIn {
    CreateInstanceIn {
        uuid: Uuid([uuid; 16]),
        name: InstanceName::new(name).unwrap(),
        attributes,
        storage_public: Tpm2b::empty(),
        certificate: Tpm2b::empty(),
    }
}

#[test]
fn a_new_instance_is_locked_until_it_is_made_a_tpm() {
    let host = Host::new(0);
    let made = host.client().create(INSTANCE_SELF, &input("vm", 1, InstanceAttributes::default())).unwrap();
    let vm = host.vm();
    assert_eq!(vm.state(), Some(InstanceState::DestinationLocked));
    assert_eq!(code(&vm.execute(0, &startup(), None)), ResponseCode::RETRY);
    assert_eq!(refused(host.client().unlock(made.instance, &[0; 32])), ResponseCode::VALUE.parameter(1));
    host.client().delete(made.instance).unwrap();
    host.client().create_fresh("vm", None).unwrap();
    let vm = host.vm();
    vm.machine_reset();
    assert_eq!(code(&vm.execute(0, &startup(), None)), ResponseCode::SUCCESS);
    assert_eq!(code(&vm.execute(0, &get_random(), None)), ResponseCode::SUCCESS);
}

#[test]
fn instances_of_one_daemon_differ_and_do_not_share_state() {
    let host = Host::with_vm(0);
    host.client().create_fresh("other", None).unwrap();
    let (vm, other) = (host.vm(), host.tree.by_name("other").unwrap());
    other.machine_reset();
    other.execute(0, &startup(), None);
    vm.execute(0, &extend(1), None);
    assert_ne!(pcr16(&vm), pcr16(&other));
    let randoms = [&vm, &other].map(|i| random_bytes(&i.execute(0, &get_random(), None)));
    assert_ne!(randoms[0], randoms[1]);
}

#[test]
fn what_was_acknowledged_survives_a_crash() {
    let host = Host::with_vm(0);
    host.vm().execute(0, &extend(7), None);
    let before = pcr16(&host.vm());
    let host = host.crash();
    assert_eq!(pcr16(&host.vm()), before);
    assert_ne!(before, [0; 32]);
    host.vm().machine_reset();
    assert_eq!(code(&host.vm().execute(0, &get_random(), None)), ResponseCode::INITIALIZE);
    host.vm().execute(0, &startup(), None);
    assert_eq!(pcr16(&host.vm()), [0; 32]);
}

#[test]
fn a_command_that_cannot_be_made_durable_is_taken_back() {
    let host = Host::with_vm(0);
    let vm = host.vm();
    vm.execute(0, &extend(1), None);
    let before = pcr16(&vm);
    host.memory.fail.store(true, Ordering::SeqCst);
    assert_eq!(code(&vm.execute(0, &extend(2), None)), ResponseCode::NV_UNAVAILABLE);
    assert_eq!(refused(host.client().create_fresh("x", None)), ResponseCode::NV_UNAVAILABLE);
    assert_eq!(refused(host.client().delete(vm.handle())), ResponseCode::NV_UNAVAILABLE);
    assert!(host.tree.by_name("x").is_none() && host.tree.by_name("vm").is_some());
    host.memory.fail.store(false, Ordering::SeqCst);
    assert_eq!(pcr16(&vm), before);
    assert_eq!(code(&vm.execute(0, &extend(2), None)), ResponseCode::SUCCESS);
    assert_ne!(pcr16(&vm), before);
}

#[test]
fn a_machine_reset_that_cannot_be_made_durable_comes_before_the_next_command() {
    let host = Host::with_vm(0);
    let vm = host.vm();
    vm.execute(0, &extend(1), None);
    host.memory.fail.store(true, Ordering::SeqCst);
    vm.machine_reset();
    for command in [get_random(), startup()] {
        assert_eq!(code(&vm.execute(0, &command, None)), ResponseCode::NV_UNAVAILABLE);
    }
    host.memory.fail.store(false, Ordering::SeqCst);
    assert_eq!(code(&vm.execute(0, &get_random(), None)), ResponseCode::INITIALIZE);
    assert_eq!(code(&vm.execute(0, &startup(), None)), ResponseCode::SUCCESS);
    assert_eq!(pcr16(&vm), [0; 32]);
}

#[test]
fn after_a_commit_of_unknown_outcome_the_store_says_what_is() {
    let host = Host::with_vm(0);
    let vm = host.vm();
    let before = pcr16(&vm);
    host.memory.doubt.store(true, Ordering::SeqCst);
    assert_eq!(code(&vm.execute(0, &extend(2), None)), ResponseCode::NV_UNAVAILABLE);
    host.memory.doubt.store(false, Ordering::SeqCst);
    // It took place, and is not forgotten.
    let after = pcr16(&vm);
    assert_ne!(after, before);
    assert_eq!(pcr16(&host.crash().vm()), after);
}

#[test]
fn an_instance_that_cannot_be_read_for_now_is_unavailable_and_not_broken() {
    let host = Host::with_vm(0);
    host.memory.doubt.store(true, Ordering::SeqCst);
    assert_eq!(code(&host.vm().execute(0, &extend(1), None)), ResponseCode::NV_UNAVAILABLE);
    host.memory.doubt.store(false, Ordering::SeqCst);
    // It must be read again, and that fails for as long as the medium does.
    host.memory.unreadable.store(true, Ordering::SeqCst);
    assert_eq!(code(&host.vm().execute(0, &get_random(), None)), ResponseCode::NV_UNAVAILABLE);
    // Nor does it seem to be gone.
    assert_eq!(refused(host.client().find("vm")), ResponseCode::NV_UNAVAILABLE);
    host.memory.unreadable.store(false, Ordering::SeqCst);
    assert_eq!(code(&host.vm().execute(0, &get_random(), None)), ResponseCode::SUCCESS);
    assert!(host.client().find("vm").unwrap().is_some());
}

#[test]
fn an_instance_whose_making_or_deletion_was_in_doubt_is_there_or_not_as_the_store_has_it() {
    let host = Host::new(0);
    host.memory.doubt.store(true, Ordering::SeqCst);
    assert_eq!(refused(host.client().create_fresh("vm", Some(UUID))), ResponseCode::NV_UNAVAILABLE);
    host.memory.doubt.store(false, Ordering::SeqCst);
    let made = host.client().find("vm").unwrap().unwrap();
    assert_eq!(made.state, InstanceState::DestinationLocked);

    host.memory.doubt.store(true, Ordering::SeqCst);
    assert_eq!(refused(host.client().delete(made.instance)), ResponseCode::NV_UNAVAILABLE);
    host.memory.doubt.store(false, Ordering::SeqCst);
    assert!(host.client().find("vm").unwrap().is_none());
    host.client().create_fresh("vm", Some(UUID)).unwrap();
}

#[test]
fn the_tree_lives_in_the_real_store() {
    let dir = tempfile::tempdir().unwrap();
    let (path, key) = (dir.path().join("state.db"), HostKey::for_tests(7));
    let auth = || Zeroizing::new(super::AUTH.to_vec());
    let store = Arc::new(Store::create(&path, &key).unwrap());
    Tree::init(store.clone(), RootOptions::new(auth())).unwrap();
    let tree = Tree::open(store.clone(), auth()).unwrap();
    let made = tree.local_client().create_fresh("vm", Some(UUID)).unwrap();
    assert_eq!(refused(tree.local_client().create_fresh("vm", None)), ResponseCode::NV_DEFINED);
    let vm = tree.by_name("vm").unwrap();
    vm.machine_reset();
    vm.execute(0, &startup(), None);
    vm.execute(0, &extend(5), Some(3));
    let value = pcr16(&vm);
    drop((tree, vm, store));

    let store = Arc::new(Store::open(&path, &key).unwrap());
    let tree = Tree::open(store.clone(), auth()).unwrap();
    let vm = tree.by_name("vm").unwrap();
    assert_eq!((pcr16(&vm), vm.handle()), (value, made.instance));
    tree.local_client().delete(made.instance).unwrap();
    drop((tree, vm, store));
    let tree = Tree::open(Arc::new(Store::open(&path, &key).unwrap()), auth()).unwrap();
    assert_eq!(tree.instances().len(), 1);
}

#[test]
fn a_command_in_flight_is_answered_once_and_executed_once() {
    let host = Host::with_vm(0);
    let first = host.vm().execute(0, &extend(3), Some(9));
    let once = pcr16(&host.vm());
    // The daemon dies before the guest sees the response, and the front end offers the command again.
    let host = host.crash();
    assert_eq!(host.vm().execute(0, &extend(3), Some(9)), first);
    assert_eq!(pcr16(&host.vm()), once);
    // The guest has it; the same bytes are a new command now.
    host.vm().completed(9);
    assert_eq!(code(&host.vm().execute(0, &extend(3), Some(9))), ResponseCode::SUCCESS);
    assert_ne!(pcr16(&host.vm()), once);
}

#[test]
fn the_same_bytes_in_another_slot_or_after_the_queue_stopped_are_executed() {
    let host = Host::with_vm(0);
    host.vm().execute(0, &extend(3), Some(1));
    let one = pcr16(&host.vm());
    host.vm().execute(0, &extend(3), Some(2));
    let two = pcr16(&host.vm());
    assert_ne!(one, two);
    host.vm().queue_stopped();
    let host = host.crash();
    host.vm().execute(0, &extend(3), Some(2));
    assert_ne!(pcr16(&host.vm()), two);
}

#[test]
fn a_list_shows_children_page_by_page() {
    let host = Host::new(0);
    for i in 0..5u8 {
        host.client().create_fresh(&format!("vm{i}"), Some(Uuid([i + 1; 16]))).unwrap();
    }
    let all = host.client().list(INSTANCE_SELF).unwrap();
    assert_eq!(all.len(), 5);
    assert!(all.is_sorted_by_key(|i| i.instance));
    assert!(all.iter().all(|i| i.state == InstanceState::Live && i.instance >= INSTANCE_FIRST));
    let mut body = (TpmHandle::OWNER, INSTANCE_SELF).to_bytes();
    let auth = super::AUTH;
    (u32::try_from(9 + auth.len()).unwrap(), TpmHandle::RS_PW, 0u16, 0u8).encode(&mut body);
    vtpm_protocol::codec::encode_sized(auth, &mut body);
    ListInstancesIn { first: all[1].instance, count: 2 }.encode(&mut body);
    let response = host.tree.root().execute_long(&command(TpmSt::SESSIONS, cc::LIST_INSTANCES, &body));
    assert_eq!(code(&response), ResponseCode::SUCCESS);
    // Header, parameter size, more, count.
    assert_eq!(response[14..19], [1, 0, 0, 0, 2]);
}

#[test]
fn info_tells_name_state_and_place() {
    let host = Host::new(0);
    let made = host.client().create_fresh("vm", Some(UUID)).unwrap();
    let info = host.client().info(made.instance).unwrap();
    assert_eq!((info.summary.uuid, info.summary.name.as_str()), (UUID, "vm"));
    assert_eq!((info.parent, info.children, info.outcome), (INSTANCE_SELF, 0, Outcome::Open));
    assert_eq!(info.ticket, None);
}

#[test]
fn a_name_or_uuid_that_is_taken_is_refused() {
    let host = Host::with_vm(0);
    let before = host.content();
    let same_name = host.client().create_fresh("vm", None);
    assert_eq!(refused(same_name), ResponseCode::NV_DEFINED);
    let same_uuid = host.client().create_fresh("other", Some(UUID));
    assert_eq!(refused(same_uuid), ResponseCode::NV_DEFINED);
    assert!(host.content() == before);
}

#[test]
fn a_deleted_instance_answers_nothing_and_its_handle_is_not_used_again() {
    let host = Host::with_vm(0);
    let vm = host.vm();
    host.client().delete(vm.handle()).unwrap();
    assert_eq!(code(&vm.execute(0, &get_random(), None)), ResponseCode::FAILURE);
    assert_eq!(refused(host.client().info(vm.handle())), ResponseCode::HANDLE.handle(2));
    assert!(host.content().records.keys().all(|(id, _)| *id != vm.id()));
    let again = host.client().create_fresh("vm", Some(UUID)).unwrap();
    assert!(again.instance > vm.handle());
    assert!(host.crash().tree.by_name("vm").is_some());
}

#[test]
fn who_comes_too_late_to_an_instance_is_told_that_it_is_gone() {
    let host = Host::with_vm(0);
    for round in 0..50 {
        let made = host.client().create_fresh(&format!("vm{round}"), None).unwrap();
        let barrier = std::sync::Barrier::new(3);
        std::thread::scope(|scope| {
            let race = |command: fn(&Client<LocalTransport>, u32) -> Result<(), ClientError>| {
                let (client, barrier) = (host.client(), &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    command(&client, made.instance)
                })
            };
            let deletions = [race(|client, vm| client.delete(vm)), race(|client, vm| client.delete(vm))];
            let looking = race(|client, vm| client.info(vm).map(drop));
            let ends = deletions.map(|thread| thread.join().unwrap());
            assert_eq!(ends.iter().filter(|end| end.is_ok()).count(), 1);
            for end in ends.into_iter().chain([looking.join().unwrap()]).filter(Result::is_err) {
                assert!(refused(end).is(ResponseCode::HANDLE));
            }
        });
    }
}

#[test]
fn without_owner_authorization_nothing_is_looked_at() {
    let host = Host::with_vm(0);
    let stranger = Client::new(LocalTransport(host.tree.root()), Zeroizing::new(b"guess".to_vec()));
    for refusal in [
        refused(stranger.list(INSTANCE_SELF)),
        refused(stranger.delete(host.vm().handle())),
        // Not even whether a handle exists.
        refused(stranger.delete(0xa0ff_0000)),
    ] {
        assert!(refusal.is(ResponseCode::BAD_AUTH) || refusal.is(ResponseCode::AUTH_FAIL), "{refusal}");
    }
    assert!(host.tree.by_name("vm").is_some());
}

#[test]
fn instance_commands_do_not_exist_for_a_guest() {
    let host = Host::with_vm(0);
    for &(instance_command, name) in cc::ALL {
        let mut body = (TpmHandle::OWNER, INSTANCE_SELF, 9u32, TpmHandle::RS_PW).to_bytes();
        (0u16, 0u8, 0u16).encode(&mut body);
        let response = host.vm().execute(0, &command(TpmSt::SESSIONS, instance_command, &body), None);
        assert_eq!(code(&response), ResponseCode::COMMAND_CODE, "{name}");
    }
}

#[test]
fn only_privileged_instances_have_children_and_only_childless_ones_are_deleted() {
    let host = Host::with_vm(0);
    let client = host.client();
    let none = InstanceAttributes::default();
    let below = client.create(host.vm().handle(), &input("below", 2, none));
    assert_eq!(refused(below), ResponseCode::ATTRIBUTES);

    let middle = client.create(INSTANCE_SELF, &input("middle", 3, InstanceAttributes::PRIVILEGED)).unwrap();
    let digest =
        crate::migration::session::MigrationDigest::initial(&middle.ticket.migration_id, middle.ticket.uuid);
    client.unlock(middle.instance, digest.as_bytes()).unwrap();
    let leaf = client.create(middle.instance, &input("leaf", 4, none)).unwrap();
    assert_eq!(refused(client.delete(middle.instance)), ResponseCode::PARENT);
    assert_eq!(client.info(middle.instance).unwrap().children, 1);
    assert_eq!(client.info(leaf.instance).unwrap().parent, middle.instance);

    // The middle one manages what is below it, and nothing else.
    let instance = host.tree.by_name("middle").unwrap();
    instance.machine_reset();
    instance.execute(0, &startup(), None);
    let own = Client::new(LocalTransport(instance), Zeroizing::new(Vec::new()));
    assert_eq!(own.list(INSTANCE_SELF).unwrap().len(), 1);
    assert_eq!(refused(own.info(host.vm().handle())), ResponseCode::HIERARCHY.handle(2));
    assert_eq!(refused(own.delete(middle.instance)), ResponseCode::HIERARCHY.handle(2));
    own.delete(leaf.instance).unwrap();
    client.delete(middle.instance).unwrap();
}

#[test]
fn long_commands_are_for_instance_commands_only() {
    let host = Host::with_vm(0);
    let long = command(TpmSt::NO_SESSIONS, TpmCc::GET_RANDOM, &[0; 5000]);
    assert_eq!(code(&host.tree.root().execute_long(&long)), ResponseCode::COMMAND_SIZE);
    assert_eq!(code(&host.vm().execute(0, &long, None)), ResponseCode::COMMAND_SIZE);
}

#[test]
fn whoever_listens_hears_of_every_instance() {
    let host = Host::new(0);
    let heard = Arc::new(Mutex::new(Vec::new()));
    let writer = heard.clone();
    host.tree.set_listener(move |event| {
        let (what, instance) = match event {
            TreeEvent::Created(instance) => ("created", instance),
            TreeEvent::Deleted(instance) => ("deleted", instance),
            TreeEvent::Moved(instance) => ("moved", instance),
            TreeEvent::Resumed(instance) => ("resumed", instance),
            TreeEvent::Migrating(instance, _) => ("migrating", instance),
        };
        // No lock is held: the instance can be asked.
        let _ = instance.state();
        writer.lock().unwrap().push(format!("{what} {}", instance.name()));
    });
    let made = host.client().create_fresh("vm", None).unwrap();
    host.client().delete(made.instance).unwrap();
    assert_eq!(*heard.lock().unwrap(), ["created vm", "moved vm", "deleted vm"]);
}

#[test]
fn a_device_without_a_ticket_refuses_to_leave_and_goes_on() {
    let host = Host::with_vm(0);
    let mut out = Vec::new();
    assert!(matches!(host.vm().save(&mut out), Err(DeviceError::Refused(_))));
    assert!(out.is_empty());
    assert_eq!(code(&host.vm().execute(0, &get_random(), None)), ResponseCode::SUCCESS);
    assert!(matches!(host.vm().load(&mut &b"garbage"[..]), Err(DeviceError::BadStream(_))));
    assert_eq!(code(&host.vm().execute(0, &get_random(), None)), ResponseCode::SUCCESS);
}

#[test]
fn garbage_is_answered_and_changes_nothing() {
    let host = Host::with_vm(0);
    let before = host.content();
    for garbage in
        [&[][..], &[0], &[0x80, 1], &[0xff; 10], &[0x80, 2, 0, 0, 0, 10, 0x20, 0, 0, 1], &[0; 4097]]
    {
        let response = host.vm().execute(0, garbage, Some(1));
        assert!(response.len() >= 10 && code(&response) != ResponseCode::SUCCESS);
        let response = host.tree.root().execute_long(garbage);
        assert!(response.len() >= 10 && code(&response) != ResponseCode::SUCCESS);
    }
    assert!(host.content() == before);
}

#[test]
fn neighbours_work_while_instances_come_and_go() {
    let host = Host::with_vm(0);
    std::thread::scope(|scope| {
        for t in 0..3u8 {
            let client = host.client();
            scope.spawn(move || {
                for i in 0..4u8 {
                    let made = client.create_fresh(&format!("t{t}-{i}"), None).unwrap();
                    client.info(made.instance).unwrap();
                    client.delete(made.instance).unwrap();
                }
            });
        }
        let vm = host.vm();
        scope.spawn(move || {
            for i in 0..40 {
                assert_eq!(code(&vm.execute(0, &extend(i), Some(i.into()))), ResponseCode::SUCCESS);
            }
        });
    });
    assert_eq!(host.tree.instances().len(), 2);
}
