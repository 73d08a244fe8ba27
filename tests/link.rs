//! The peer link between daemons: two of them in this process, on 127.0.0.1, with a test in the place of QEMU.
#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a test that panics has failed"
)]

mod link_hosts;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use link_hosts::{GUEST, Host, NAME, executes, get_random, until};
use vtpm_backend::device::{DeviceError, TpmDevice};
use vtpm_protocol::codec::Encode;
use vtpm_protocol::instance::{
    InstanceName, InstanceState, LockFlags, MigrationPolicy, PeerKind, PeerRights, Uuid,
};
use vtpm_protocol::link::MigrationRef;
use vtpmd::link::client::{PeerError, Verdict};
use vtpmd::link::trust::Trust;

#[test]
fn a_slot_is_found_while_the_machine_still_runs_and_the_live_receipt_comes_by_itself() {
    let (a, b) = Host::pair();
    a.create();
    b.prepare();
    let start = Instant::now();
    a.guest().migration_started(true);
    until("armed", || a.guest().armed().is_some_and(LockFlags::automatic));
    println!("armed {:?} after the migration began", start.elapsed());

    let stream = a.save().unwrap();
    assert_eq!(a.state(), Some(InstanceState::Exported));
    b.load(&stream).unwrap();
    assert_eq!(b.state(), Some(InstanceState::Imported));
    // Nothing is decided before the machine uses its TPM.
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(a.state(), Some(InstanceState::Exported));
    let start = Instant::now();
    assert!(executes(&b.guest()));
    until("gone", || a.state().is_none());
    println!("gone {:?} after the first command at the destination", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(1));
    assert!(executes(&b.guest()));
}

#[test]
fn a_machine_that_goes_on_at_the_source_is_served_again_within_a_second() {
    let (a, b) = Host::pair();
    a.create();
    let mut times = Vec::new();
    let rounds =
        [MigrationPolicy::Recoverable, MigrationPolicy::Strict].map(|p| [(p, false), (p, true), (p, true)]);
    for (policy, loaded) in rounds.concat() {
        a.client().set_policy(a.guest().handle(), policy).unwrap();
        b.prepare();
        a.guest().migration_started(true);
        until("armed", || a.guest().armed().is_some());
        let stream = a.save().unwrap();
        if loaded {
            b.load(&stream).unwrap();
        }
        let start = Instant::now();
        a.guest().run_state(true);
        until("served", || executes(&a.guest()));
        times.push(start.elapsed());
        a.guest().migration_started(false);
        assert_eq!(b.state(), Some(InstanceState::Void));
        assert!(!executes(&b.guest()));
        b.delete();
    }
    println!("served again after {times:?}");
    assert!(times.iter().all(|time| *time < Duration::from_secs(1)), "{times:?}");
}

#[test]
fn a_command_alone_tells_that_the_machine_goes_on_at_the_source() {
    let (a, b) = Host::pair();
    a.create();
    b.prepare();
    b.load(&a.save().unwrap()).unwrap();
    let start = Instant::now();
    until("served", || executes(&a.guest()));
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(b.state(), Some(InstanceState::Void));
}

#[test]
fn of_two_machines_that_both_go_on_exactly_one_is_served() {
    let (a, b) = Host::pair();
    let mut served = [0, 0];
    for round in 0..12u32 {
        a.create();
        b.prepare();
        b.load(&a.save().unwrap()).unwrap();
        let (source, destination) = (a.guest(), b.guest());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                source.run_state(true);
                let _ = executes(&source);
            });
            scope.spawn(|| {
                // Now the one is first, now the other.
                std::thread::sleep(Duration::from_millis(u64::from(round) * 5));
                let _ = executes(&destination);
            });
        });
        until("settled", || a.state().is_none_or(|state| state == InstanceState::Live));
        for _ in 0..20 {
            let (here, there) = (executes(&source), executes(&destination));
            assert!(here != there, "round {round}: source {here}, destination {there}");
            std::thread::sleep(Duration::from_millis(2));
        }
        served[usize::from(executes(&destination))] += 1;
        if a.state().is_some() {
            a.delete();
        }
        b.delete();
    }
    println!("the source was served {} times, the destination {} times", served[0], served[1]);
}

#[test]
fn a_save_that_nobody_announced_finds_its_slot_and_one_without_a_slot_is_refused_soon() {
    let (a, b) = Host::pair();
    a.create();
    let start = Instant::now();
    assert!(matches!(a.save(), Err(DeviceError::Refused(_))));
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert!(executes(&a.guest()));
    b.prepare();
    a.save().unwrap();
    assert_eq!(a.state(), Some(InstanceState::Exported));
}

#[test]
fn a_save_does_not_wait_long_for_a_peer_that_does_not_answer() {
    let (a, b) = Host::pair();
    a.create();
    // Accepts, and says nothing.
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    a.forget(&b);
    a.add_peer(&b, &deaf.local_addr().unwrap().to_string());
    a.guest().migration_started(true);
    let start = Instant::now();
    assert!(matches!(a.save(), Err(DeviceError::Refused(_))));
    println!("refused after {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
    // Its TPM was never locked.
    assert!(executes(&a.guest()));
}

#[test]
fn a_later_migration_replaces_the_ticket_that_the_link_found_but_not_that_of_an_operator() {
    let (a, b) = Host::pair();
    let c = Host::start("c");
    a.trust(&c);
    c.trust(&a);
    a.create();
    let first = b.prepare();
    a.guest().migration_started(true);
    until("armed", || a.armed_with() == Some(first.migration_id));
    a.guest().migration_started(false);
    b.delete();
    let second = c.prepare();
    a.guest().migration_started(true);
    until("armed", || a.armed_with() == Some(second.migration_id));

    // An operator's ticket stays, whatever the link finds elsewhere.
    a.guest().migration_started(false);
    let by_hand = b.prepare();
    c.delete();
    a.arm(&by_hand);
    c.prepare();
    a.guest().migration_started(true);
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(a.armed_with(), Some(by_hand.migration_id));
    a.guest().migration_started(false);
    // Unless the slot that it is for is no more, and its host has another.
    c.delete();
    b.delete();
    let renewed = b.prepare();
    a.guest().migration_started(true);
    until("armed anew", || a.armed_with() == Some(renewed.migration_id));
}

#[test]
fn two_slots_without_a_machine_arm_nothing() {
    let (a, b) = Host::pair();
    let c = Host::start("c");
    a.trust(&c);
    c.trust(&a);
    a.create();
    b.prepare();
    let at_c = c.prepare();
    a.guest().migration_started(true);
    std::thread::sleep(Duration::from_millis(700));
    assert!(a.guest().armed().is_none());
    // A QEMU at one of them says where the machine goes.
    let _front_end = std::os::unix::net::UnixStream::connect(c.device_socket()).unwrap();
    until("armed", || a.armed_with() == Some(at_c.migration_id));
}

#[test]
fn outcomes_are_asked_for_over_restarts_of_both_sides() {
    let (mut a, mut b) = Host::pair();
    a.create();
    b.prepare();
    let stream = a.save().unwrap();
    // The destination restarts while the source waits there, and then the source does.
    b.restart();
    b.load(&stream).unwrap();
    a.restart();
    assert_eq!(a.state(), Some(InstanceState::Exported));
    let start = Instant::now();
    assert!(executes(&b.guest()));
    until("gone", || a.state().is_none());
    println!("gone {:?} after the first command", start.elapsed());
}

#[test]
fn a_receipt_that_was_decided_while_the_source_was_down_is_fetched_when_it_is_back() {
    let (mut a, b) = Host::pair();
    a.create();
    b.prepare();
    let stream = a.save().unwrap();
    a.stop();
    b.load(&stream).unwrap();
    assert!(executes(&b.guest()));
    let start = Instant::now();
    a.run();
    until("gone", || a.state().is_none());
    println!("gone {:?} after the start of the source", start.elapsed());
}

#[test]
fn a_destination_that_is_away_is_asked_when_it_is_back() {
    let (a, mut b) = Host::pair();
    a.create();
    b.prepare();
    a.save().unwrap();
    b.stop();
    a.guest().run_state(true);
    std::thread::sleep(Duration::from_millis(700));
    // Nobody says that it will not live elsewhere.
    assert!(!executes(&a.guest()));
    let start = Instant::now();
    b.run();
    until("served", || executes(&a.guest()));
    println!("served {:?} after the destination was back", start.elapsed());
    assert_eq!(b.state(), Some(InstanceState::Void));
}

#[test]
fn a_source_hears_the_end_although_the_instance_moved_on_came_back_or_was_deleted() {
    for (moves, deleted) in [(0, true), (1, false), (2, false), (2, true)] {
        let (mut a, mut b, c) = (Host::start("a"), Host::start("b"), Host::start("c"));
        for (one, other) in [(&a, &b), (&b, &c)] {
            one.trust(other);
            other.trust(one);
        }
        a.create();
        b.prepare();
        b.load(&a.save().unwrap()).unwrap();
        a.stop();
        assert!(executes(&b.guest()));
        for (from, to) in [(&b, &c), (&c, &b)].into_iter().take(moves) {
            to.prepare();
            to.load(&from.save().unwrap()).unwrap();
            assert!(executes(&to.guest()));
            until("gone", || from.state().is_none());
        }
        if deleted {
            b.delete();
        }
        b.restart();
        a.run();
        until("settled", || a.state().is_none());
    }
}

#[test]
fn a_slot_that_is_deleted_frees_its_source() {
    let (a, mut b) = Host::pair();
    a.create();
    b.prepare();
    a.save().unwrap();
    b.restart();
    b.delete();
    until("served", || executes(&a.guest()));
    b.prepare();
    b.load(&a.save().unwrap()).unwrap();
    b.delete();
    until("served", || executes(&a.guest()));
}

#[test]
fn a_destination_that_an_operator_calls_off_frees_the_source_at_once() {
    let (a, b) = Host::pair();
    a.create();
    b.prepare();
    a.save().unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let start = Instant::now();
    b.client().abort(b.guest().handle(), &[]).unwrap();
    until("live", || a.state() == Some(InstanceState::Live));
    println!("live {:?} after the destination gave up", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[test]
fn who_is_no_peer_is_refused_by_name_on_either_side() {
    let (a, b) = Host::pair();
    let c = Host::start("c");
    c.trust(&b);
    let refused = c.dialer().dial(&b.address()).err().unwrap();
    let (why, name) = (vtpmd::sentence(&refused), c.fingerprint());
    assert!(matches!(refused, PeerError::Hello { .. }));
    assert!(why.contains("refuses") && why.contains(&name) && why.contains("not pinned"), "{why}");
    // The other way round: c lets b in, but b looks at who answers.
    let refused = b.dialer().dial(&c.address()).err().unwrap();
    let why = vtpmd::sentence(&refused);
    assert!(why.contains(&name) && why.contains("is no peer of this host"), "{why}");
    assert_eq!(a.dialer().dial(&b.address()).unwrap().admitted().label, "b");
    // From the moment that it is removed, a peer is none.
    b.forget(&a);
    assert!(vtpmd::sentence(&a.dialer().dial(&b.address()).err().unwrap()).contains("not pinned"));
}

#[test]
fn an_identity_with_another_hosts_link_key_is_refused() {
    let (a, b) = Host::pair();
    let thief = a.dialer_with(link_hosts::software_key(7));
    let why = vtpmd::sentence(&thief.dial(&b.address()).err().unwrap());
    assert!(why.contains("the link key of the connection is not the one"), "{why}");
    assert!(why.contains(&a.fingerprint()), "{why}");
    assert!(a.dialer().dial(&b.address()).is_ok());
}

#[test]
fn another_trusted_host_at_the_address_of_a_pinned_one_is_not_asked() {
    let (a, b) = Host::pair();
    let c = Host::start("c");
    a.trust(&c);
    c.trust(&a);
    a.create();
    c.prepare();
    a.forget(&c);
    a.forget(&b);
    a.add_peer(&c, "");
    a.add_peer(&b, &c.address());
    assert!(matches!(a.save(), Err(DeviceError::Refused(_))));
}

#[test]
fn garbage_costs_nobody_but_who_sends_it() {
    let (a, b) = Host::pair();
    let mut taken = 0;
    for n in 0..40u8 {
        let mut raw = TcpStream::connect(b.address()).unwrap();
        let bytes: Vec<u8> = (0..2000u32).map(|i| n.wrapping_mul(31).wrapping_add(i as u8)).collect();
        if raw.write_all(&bytes).is_ok() {
            raw.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            // An alert, and the end; no long wait.
            let mut answer = Vec::new();
            let _reset = raw.read_to_end(&mut answer);
            taken += answer.len();
        }
    }
    println!("{taken} bytes of alerts");
    // A peer that sends no message, one of a wrong kind, one that is too long, and one that lies about its length.
    let frames: [Vec<u8>; 5] = [
        vec![0xff; 64],
        (0x90u16, 4u32, 0u32).to_bytes(),
        (0x10u16, 17u32).to_bytes(),
        (0x16u16, u32::MAX).to_bytes(),
        [(0x11u16, 52u32).to_bytes(), vec![0; 51]].concat(),
    ];
    for frame in frames {
        let mut stream = a.hello(&b);
        stream.write_all(&frame).unwrap();
        if frame.len() == 57 {
            drop(stream);
            continue;
        }
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0, "hung up on");
    }
    assert!(a.dialer().dial(&b.address()).is_ok());
}

#[test]
fn a_flood_of_connections_keeps_no_peer_out_and_stays_within_its_bounds() {
    let (a, b) = Host::pair();
    b.create_other("bystander");
    let (over, address) = (AtomicBool::new(false), b.address());
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let before = threads();
    let (mut slowest, mut most) = (Duration::ZERO, 0);
    std::thread::scope(|scope| {
        for silent in [true, false] {
            let (over, address) = (&over, &address);
            scope.spawn(move || {
                // Some stay and say nothing, others come and go.
                let mut kept = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    let Ok(mut stream) = TcpStream::connect(address) else { continue };
                    if silent {
                        kept.push(stream);
                        if kept.len() > 300 {
                            kept.clear();
                        }
                    } else {
                        let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n");
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
        }
        std::thread::sleep(Duration::from_millis(300));
        let mut tries = 0;
        let mut reached = 0;
        while reached < 10 {
            tries += 1;
            assert!(tries < 60, "a peer does not get in");
            let start = Instant::now();
            reached += u32::from(a.dialer().dial(&address).is_ok());
            slowest = slowest.max(start.elapsed());
            most = most.max(threads());
            // Whoever is served by its TPM notices nothing.
            let start = Instant::now();
            assert!(executes(&b.instance("bystander")));
            assert!(start.elapsed() < Duration::from_secs(1));
        }
        println!(
            "10 links in {tries} tries under a flood, the slowest after {slowest:?}; {} threads more",
            most - before
        );
        over.store(true, Ordering::Relaxed);
    });
    assert!(most - before < 2 + 2 + 64 + 16 + 32, "{before} threads, then {most}");
    assert!(a.dialer().dial(&address).is_ok());
}

#[test]
fn more_peers_than_the_configuration_allows_are_sent_away() {
    let (a, mut b) = Host::pair();
    b.stop();
    b.allow(2);
    b.run();
    let mut links: Vec<_> = (0..2).map(|_| a.dialer().dial(&b.address()).unwrap()).collect();
    for link in &mut links {
        assert_eq!(link.find_slot(GUEST).unwrap(), None);
    }
    // The third got a hello before it was counted, and no answer.
    let third =
        a.dialer().dial(&b.address()).map_err(|_| ()).and_then(|mut l| l.find_slot(GUEST).map_err(|_| ()));
    assert!(third.is_err());
    drop(links);
    until("let in", || a.dialer().dial(&b.address()).is_ok_and(|mut link| link.find_slot(GUEST).is_ok()));
}

#[test]
fn an_instance_moves_over_the_link_by_a_peer_that_may_prepare() {
    let (a, b) = Host::pair();
    a.create();
    let name = InstanceName::new(NAME).unwrap();
    let mut link = a.dialer().dial(&b.address()).unwrap();
    let refused = link.prepare(GUEST, &name).err().unwrap();
    assert!(refused.to_string().contains("does not let you prepare"), "{refused}");
    b.forget(&a);
    b.add_peer_with(&a, &a.address(), PeerKind::Pinned, PeerRights::PREPARE);
    let mut link = a.dialer().dial(&b.address()).unwrap();
    assert_eq!(link.limits(GUEST).unwrap(), None);
    let ticket = link.prepare(GUEST, &name).unwrap();
    assert_eq!(link.prepare(GUEST, &name).unwrap(), ticket, "the slot that is there");
    let other = link.prepare(GUEST, &InstanceName::new("other").unwrap()).err().unwrap();
    assert!(other.to_string().contains("there is an instance with this UUID here"), "{other}");
    assert!(link.limits(GUEST).unwrap().is_some_and(|limits| limits.max_data > 4096));

    // What is no stream, and a stream of a broken-off export, are refused, and the link goes on.
    let migration = MigrationRef::from(&ticket);
    let junk = link.import(&migration, |out| {
        out.write_all(&[7; 200_000]).map_err(vtpmd::migration::client::ClientError::Io)
    });
    assert!(matches!(junk, Err(PeerError::Refused(_))), "{junk:?}");
    let elsewhere = MigrationRef { migration_id: [9; 32], ..migration };
    let foreign = link.import(&elsewhere, |_| Ok(())).err().unwrap();
    assert!(foreign.to_string().contains("no slot for this migration"), "{foreign}");
    assert_eq!(link.outcome(&migration, Duration::ZERO).unwrap(), Verdict::Open);

    a.client().lock(a.guest().handle(), &ticket, LockFlags::default()).unwrap();
    let departure = vtpmd::migration::client::Departure { ticket: ticket.clone(), lock: None };
    let (client, handle) = (a.client(), a.guest().handle());
    link.import(&migration, |out| client.export(handle, &departure, out)).unwrap();
    assert_eq!(b.state(), Some(InstanceState::Imported));
    assert!(executes(&b.guest()));
    until("gone", || a.state().is_none());
}

#[test]
fn outcomes_of_other_migrations_are_not_told_apart_from_none() {
    let (a, b) = Host::pair();
    a.create();
    let ticket = b.prepare();
    let migration = MigrationRef::from(&ticket);
    let mut link = a.dialer().dial(&b.address()).unwrap();
    for other in [
        MigrationRef { migration_id: [1; 32], ..migration },
        MigrationRef { uuid: Uuid([1; 16]), ..migration },
    ] {
        assert_eq!(link.outcome(&other, Duration::ZERO).unwrap(), Verdict::Unknown);
        assert_eq!(link.give_up(&other).unwrap(), Verdict::Unknown);
    }
    assert_eq!(b.state(), Some(InstanceState::DestinationLocked));
    // A question waits as long as it is told to, and no longer.
    let start = Instant::now();
    assert_eq!(link.outcome(&migration, Duration::from_millis(300)).unwrap(), Verdict::Open);
    assert!((300..2000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    let verdict = link.give_up(&migration).unwrap();
    assert!(matches!(verdict, Verdict::Receipt(vtpm_protocol::instance::Outcome::Void, _)));
    assert_eq!(link.give_up(&migration).unwrap(), verdict);
    assert_eq!(link.outcome(&migration, Duration::from_secs(9)).unwrap(), verdict);
    let other = MigrationRef { migration_id: [1; 32], ..migration };
    assert_eq!(link.outcome(&other, Duration::ZERO).unwrap(), Verdict::Unknown);

    // Nor those of an instance that lives there.
    b.delete();
    let migration = MigrationRef::from(&b.prepare());
    b.load(&a.save().unwrap()).unwrap();
    assert!(executes(&b.guest()));
    for asked in [link.outcome(&other, Duration::ZERO), link.give_up(&other)] {
        assert_eq!(asked.unwrap(), Verdict::Unknown);
    }
    for asked in [link.outcome(&migration, Duration::ZERO), link.give_up(&migration)] {
        assert!(matches!(asked.unwrap(), Verdict::Receipt(vtpm_protocol::instance::Outcome::Live, _)));
    }
}

#[test]
fn an_instance_that_prefers_to_be_available_does_not_wait_for_the_link() {
    let (a, mut b) = Host::pair();
    a.create();
    a.client().set_policy(a.guest().handle(), MigrationPolicy::Availability).unwrap();
    b.prepare();
    a.save().unwrap();
    b.stop();
    a.guest().run_state(true);
    assert!(executes(&a.guest()));
    assert_eq!(a.state(), Some(InstanceState::Live));
}

#[test]
fn commands_of_a_machine_do_not_wait_for_a_link_that_hangs() {
    let (a, b) = Host::pair();
    a.create();
    a.create_other("bystander");
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    b.prepare();
    a.save().unwrap();
    a.forget(&b);
    a.add_peer(&b, &deaf.local_addr().unwrap().to_string());
    let (guest, bystander) = (a.guest(), a.instance("bystander"));
    guest.run_state(true);
    let mut slowest = Duration::ZERO;
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        let start = Instant::now();
        assert!(executes(&bystander));
        let _retry = guest.execute(0, &get_random(), None);
        slowest = slowest.max(start.elapsed());
        std::thread::sleep(Duration::from_millis(5));
    }
    println!("the slowest pair of commands took {slowest:?}");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
}

#[test]
fn a_daemon_that_ends_does_not_wait_for_its_peers() {
    let (mut a, mut b) = Host::pair();
    a.create();
    b.prepare();
    a.save().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    // The one has a question open at the other.
    for host in [&mut a, &mut b] {
        let start = Instant::now();
        host.stop();
        println!("stopped after {:?}", start.elapsed());
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        host.run();
    }
}

#[test]
fn what_the_root_says_of_itself_is_what_peers_check() {
    let a = Host::start("a");
    let trust: Arc<dyn Trust> = a.trust_of_root();
    let identity = trust.identity().unwrap();
    for at in (0..identity.len()).step_by(97) {
        let mut bad = identity.clone();
        bad[at] ^= 0x40;
        assert!(trust.admit(&bad, a.link_key().public()).is_err(), "byte {at}");
    }
}
