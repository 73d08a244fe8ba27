//! The front door as QEMU finds it: spoken to by the front end of the `vhost` crate, in the order of QEMU's messages.

mod common;

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use common::{
    AVAIL, Bitmap, DESCRIPTORS, EVENT_IDX, Fixture, Guest, INDIRECT, INDIRECT_DESC, LOG_ALL, MEMORY, NEXT,
    PROTOCOL, Qemu, RESPONSE, USED, VERSION_1, WRITE, command, toy_response, wait_for, works,
};
use vhost::vhost_user::message::{VhostTransferStateDirection, VhostUserProtocolFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserDirtyLogRegion};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};
use vtpm_backend::vhost::{CONFIG_MACHINE_RESET, CONFIG_RUN_STATE, Options};

#[test]
fn offers_what_a_migratable_device_needs_and_nothing_else() {
    let f = Fixture::new();
    let mut frontend = Frontend::connect(&f.socket, 1).unwrap();
    assert_eq!(frontend.get_features().unwrap(), VERSION_1 | EVENT_IDX | INDIRECT_DESC | LOG_ALL | PROTOCOL);
    assert_eq!(
        frontend.get_protocol_features().unwrap(),
        VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::LOG_SHMFD
            | VhostUserProtocolFeatures::DEVICE_STATE
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
    );
}

#[test]
fn executes_commands_in_order_and_reports_each_as_completed() {
    let f = Fixture::new();
    let (guest, qemu) = f.guest();
    for n in 0..40 {
        let command = command(12 + usize::from(n), n);
        assert_eq!(qemu.run(&guest, &command), toy_response(&command));
    }
    let slots: Vec<u16> = f.toy.with(|s| s.executed.iter().map(|e| e.0.unwrap()).collect());
    assert_eq!(slots, (0..40).collect::<Vec<_>>());
    wait_for("completion", || f.toy.with(|s| s.completed.clone()) == slots);
}

#[test]
fn executes_what_was_available_before_the_queue_started() {
    let f = Fixture::new();
    let (guest, mut qemu) = (Guest::new(), Qemu::connect(&f.socket));
    guest.command(0, &command(20, 1), 4096);
    qemu.start(&guest, 0);
    guest.wait_used(1);
}

#[test]
fn takes_memory_region_by_region() {
    let f = Fixture::new();
    let (guest, mut qemu) = (Guest::new(), Qemu::connect(&f.socket));
    assert!(qemu.frontend.get_max_mem_slots().unwrap() >= 32);
    qemu.frontend.set_features(qemu.features).unwrap();
    qemu.frontend.add_mem_region(&guest.regions()[0]).unwrap();
    qemu.start_queue(&guest, 0);
    works(&guest, &qemu);

    // Unplugged under the queue's feet: the ring breaks, the connection holds, a new start heals it.
    qemu.frontend.remove_mem_region(&guest.regions()[0]).unwrap();
    guest.command(0, &command(20, 2), 4096);
    qemu.kick();
    wait_for("error", || qemu.err.read().is_ok());
    assert!(qemu.alive());
    qemu.frontend.add_mem_region(&guest.regions()[0]).unwrap();
    let base = qemu.stop();
    assert_eq!(base, 1);
    qemu.start_queue(&guest, base);
    guest.wait_used(2);
}

#[test]
fn stopping_waits_for_the_command_in_flight_and_drains_the_rest() {
    let f = Fixture::new();
    let (guest, mut qemu) = f.guest();
    f.toy.with(|s| s.held = true);
    guest.command(0, &command(20, 1), 4096);
    guest.command(2, &command(20, 2), 4096);
    qemu.kick();
    wait_for("execution", || f.toy.with(|s| s.waiting == 1));

    let toy = f.toy.clone();
    let releaser = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(toy.with(|s| s.stops), 0);
        toy.release();
    });
    assert_eq!(qemu.stop(), 2);
    releaser.join().unwrap();
    assert_eq!(guest.used_idx(), 2);
    f.toy.with(|s| {
        assert_eq!(s.completed, [0, 1]);
        assert_eq!(s.stops, 1);
    });

    // The driver is bound anew: the ring starts at zero.
    guest.put(AVAIL + 2, 0u16);
    guest.put(USED + 2, 0u16);
    qemu.start(&guest, 0);
    works(&guest, &qemu);
    assert_eq!(f.toy.with(|s| s.executed.last().unwrap().0), Some(0));
}

/// What QEMU does when the back end vanished: it takes the used index for the base.
fn reconnect(f: &Fixture, guest: &Guest) -> Qemu {
    let mut qemu = Qemu::connect(&f.socket);
    qemu.start(guest, guest.used_idx());
    qemu
}

#[test]
fn a_command_in_flight_is_offered_again_with_its_slot_after_a_crash() {
    let f = Fixture::new();
    let (guest, qemu) = f.guest();
    for _ in 0..3 {
        works(&guest, &qemu);
    }
    drop(qemu);
    // A back end executed slot 3 and died before it moved the used index: the device has kept the response.
    let lost = command(30, 9);
    f.toy.with(|s| s.last = Some((3, lost.clone(), toy_response(&lost))));
    guest.command(0, &lost, 4096);

    let _qemu = reconnect(&f, &guest);
    guest.wait_used(4);
    assert_eq!(guest.response(0, 40), toy_response(&lost));
    f.toy.with(|s| {
        assert_eq!(s.replays, 1);
        assert_eq!(s.executed.len(), 3);
    });
}

#[test]
fn a_client_killed_in_mid_command_does_not_get_the_command_executed_twice() {
    let f = Fixture::new();
    let (guest, qemu) = f.guest();
    works(&guest, &qemu);
    f.toy.with(|s| s.held = true);
    guest.command(0, &command(20, 5), 4096);
    qemu.kick();
    wait_for("execution", || f.toy.with(|s| s.waiting == 1));

    // The connection breaks, QEMU lives: it read the used index before the command was done.
    let base = guest.used_idx();
    assert_eq!(base, 1);
    drop(qemu);
    let toy = f.toy.clone();
    let releaser = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        toy.release();
    });
    let mut qemu = Qemu::connect(&f.socket);
    qemu.start(&guest, base);
    releaser.join().unwrap();
    guest.wait_used(2);
    works(&guest, &qemu);
    f.toy.with(|s| {
        assert_eq!(s.executed.len(), 3);
        assert_eq!(s.completed[..2], [0, 1]);
    });
}

#[test]
fn garbage_for_a_message_ends_the_connection_and_nothing_else() {
    use std::io::{Read, Write};
    let f = Fixture::new();
    let mut stream = UnixStream::connect(&f.socket).unwrap();
    stream.write_all(&[0xff; 64]).unwrap();
    assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
    let (guest, qemu) = f.guest();
    works(&guest, &qemu);
}

#[test]
fn state_is_saved_and_loaded() {
    let (source, target) = (Fixture::new(), Fixture::new());
    // More than a pipe holds.
    let mut state = vec![0x56];
    state.extend((0..300_000u32).map(|n| n.to_le_bytes()[0]));
    source.toy.with(|s| s.state = state.clone());

    let (_guest, mut qemu) = source.guest();
    qemu.stop();
    let stream = qemu.save().unwrap();
    assert_eq!(stream, state);

    let qemu = Qemu::connect(&target.socket);
    qemu.load(&stream).unwrap();
    assert_eq!(target.toy.with(|s| s.state.clone()), state);
}

#[test]
fn a_refused_save_is_told_and_the_machine_goes_on() {
    let f = Fixture::new();
    f.toy.with(|s| s.refuse = true);
    let (guest, mut qemu) = f.guest();
    works(&guest, &qemu);
    let base = qemu.stop();
    assert_eq!(qemu.save(), Err(()));
    qemu.start(&guest, base);
    works(&guest, &qemu);
}

#[test]
fn a_stream_that_is_refused_is_told() {
    let f = Fixture::new();
    let qemu = Qemu::connect(&f.socket);
    assert_eq!(qemu.load(&[]), Err(()));
    assert_eq!(qemu.load(b"something else"), Err(()));
    qemu.load(&[0x56]).unwrap();
    assert!(qemu.alive());
}

#[test]
fn checking_without_a_transfer_is_an_error() {
    let f = Fixture::new();
    let qemu = Qemu::connect(&f.socket);
    assert!(qemu.frontend.check_device_state().is_err());
    qemu.load(&[0x56]).unwrap();
    assert!(qemu.frontend.check_device_state().is_err(), "told once already");
    assert!(qemu.alive());
}

#[test]
fn a_transfer_that_stalls_ends_in_time_and_another_may_follow() {
    let mut options = Options::new("test");
    options.transfer_timeout = Duration::from_millis(200);
    let f = Fixture::with(options);
    let qemu = Qemu::connect(&f.socket);

    // A source that never sends.
    let (read, write) = std::io::pipe().unwrap();
    let begin = Instant::now();
    qemu.transfer(VhostTransferStateDirection::LOAD, read.into());
    assert!(qemu.frontend.check_device_state().is_err());
    assert!(begin.elapsed() < Duration::from_secs(2));
    drop(write);

    // A destination that never reads.
    f.toy.with(|s| s.state = vec![0x56; 1 << 20]);
    let (read, write) = std::io::pipe().unwrap();
    qemu.transfer(VhostTransferStateDirection::SAVE, write.into());
    assert!(qemu.frontend.check_device_state().is_err());
    drop(read);

    assert_eq!(qemu.save().map(|s| s.len()), Ok(1 << 20));
}

#[test]
fn a_second_transfer_beside_one_under_way_is_refused() {
    let f = Fixture::new();
    let qemu = Qemu::connect(&f.socket);
    let (read, write) = std::io::pipe().unwrap();
    qemu.transfer(VhostTransferStateDirection::LOAD, read.into());
    let (_read, other) = std::io::pipe().unwrap();
    let phase = vhost::vhost_user::message::VhostTransferStatePhase::STOPPED;
    assert!(
        qemu.frontend.set_device_state_fd(VhostTransferStateDirection::SAVE, phase, other.into()).is_err()
    );
    drop(write);
    assert!(qemu.frontend.check_device_state().is_err());
    assert!(qemu.alive());
}

#[test]
fn the_configuration_space_has_two_doorbells() {
    let f = Fixture::new();
    let (guest, mut qemu) = f.guest();
    assert_eq!(qemu.read_config(0, 16).unwrap(), [1, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);

    qemu.write_config(CONFIG_MACHINE_RESET, 0);
    qemu.write_config(CONFIG_MACHINE_RESET, 1);
    qemu.write_config(CONFIG_RUN_STATE, 1);
    assert_eq!(qemu.read_config(12, 4).unwrap(), [1, 0, 0, 0]);
    qemu.write_config(CONFIG_RUN_STATE, 0);
    // Neither of these is a doorbell; the device stays all the same.
    qemu.write_config(0, 7);
    qemu.write_config(CONFIG_RUN_STATE, 7);
    f.toy.with(|s| {
        assert_eq!(s.resets, 2);
        assert_eq!(s.runs, [true, false]);
    });
    works(&guest, &qemu);
}

#[test]
fn writes_to_guest_memory_are_logged_while_a_migration_runs() {
    let f = Fixture::new();
    let (guest, mut qemu) = f.guest();
    let bitmap = Bitmap::new();
    works(&guest, &qemu);

    bitmap.share(&qemu);
    qemu.frontend.set_features(qemu.features | LOG_ALL).unwrap();
    qemu.set_addresses(&guest);
    assert_eq!(f.toy.with(|s| s.migrations.clone()), [true]);
    works(&guest, &qemu);
    assert_eq!(bitmap.take(), [USED, RESPONSE]);

    // A reboot changes the memory table, and QEMU does not send the log again.
    qemu.frontend.set_mem_table(&guest.regions()).unwrap();
    works(&guest, &qemu);
    assert_eq!(bitmap.take(), [USED, RESPONSE]);

    // Draining on the way out is logged as well.
    qemu.frontend.set_vring_enable(0, false).unwrap();
    guest.command(2, &command(20, 1), 4096);
    let base = qemu.stop();
    assert_eq!(bitmap.take(), [USED, RESPONSE + 0x2000]);

    // Cancelled.
    qemu.start(&guest, base);
    assert_eq!(f.toy.with(|s| s.migrations.clone()), [true, false]);
    works(&guest, &qemu);
    assert_eq!(bitmap.take(), [0u64; 0]);
}

#[test]
fn the_end_of_a_migration_is_told_to_the_next_connection() {
    let f = Fixture::new();
    let (guest, qemu) = f.guest();
    qemu.frontend.set_features(qemu.features | LOG_ALL).unwrap();
    drop(qemu);
    let qemu = reconnect(&f, &guest);
    works(&guest, &qemu);
    assert_eq!(f.toy.with(|s| s.migrations.clone()), [true, false]);
}

#[test]
fn files_shorter_than_announced_are_refused_before_a_touch_of_them_kills_the_process() {
    let (f, neighbour) = (Fixture::new(), Fixture::new());
    let (good_guest, good_qemu) = neighbour.guest();

    let (_guest, qemu) = f.guest();
    let bitmap = Bitmap::new();
    bitmap.0.set_len(100).unwrap();
    let log = VhostUserDirtyLogRegion { mmap_size: 4096, mmap_offset: 0, mmap_handle: bitmap.0.as_raw_fd() };
    assert!(qemu.frontend.set_log_base(0, Some(log)).is_err());
    drop(qemu);

    let (guest, qemu) = (Guest::new(), Qemu::connect(&f.socket));
    qemu.frontend.set_features(qemu.features).unwrap();
    let region = guest.memory.iter().next().unwrap();
    region.file_offset().unwrap().file().set_len(4096).unwrap();
    assert!(qemu.frontend.set_mem_table(&guest.regions()).is_err());
    drop(qemu);

    works(&good_guest, &good_qemu);
    let (guest, qemu) = f.guest();
    works(&guest, &qemu);
}

type Garbage = (&'static str, fn(&Guest));

/// Each makes one bad chain available. What the guest gets for it is tested beside the ring.
const GARBAGE: &[Garbage] = &[
    ("a loop", |g| {
        g.descriptor(0, RESPONSE, 64, NEXT, 0);
        g.avail(0);
    }),
    ("a loop of writable descriptors", |g| {
        g.descriptor(0, RESPONSE, 64, NEXT | WRITE, 1);
        g.descriptor(1, RESPONSE, 64, NEXT | WRITE, 0);
        g.avail(0);
    }),
    ("a next that is no descriptor", |g| {
        g.descriptor(0, RESPONSE, 64, NEXT, 0xffff);
        g.avail(0);
    }),
    ("no writable descriptor", |g| {
        g.descriptor(0, RESPONSE, 64, 0, 0);
        g.avail(0);
    }),
    ("no readable descriptor", |g| {
        g.descriptor(0, RESPONSE, 64, WRITE, 0);
        g.avail(0);
    }),
    ("one byte", |g| g.command(0, &[0x80], 64)),
    ("no byte", |g| g.command(0, &[], 64)),
    ("a command over the limit", |g| g.command(0, &[0x80; 4097], 64)),
    ("nine bytes of room", |g| {
        g.command(0, &command(20, 0), 9);
    }),
    ("a response that does not fit", |g| {
        g.command(0, &command(20, 0), 12);
    }),
    ("writable before readable", |g| {
        g.descriptor(0, RESPONSE, 64, WRITE | NEXT, 1);
        g.descriptor(1, RESPONSE, 64, 0, 0);
        g.avail(0);
    }),
    ("a command outside memory", |g| {
        g.descriptor(0, u64::MAX - 8, 20, NEXT, 1);
        g.descriptor(1, RESPONSE, 64, WRITE, 0);
        g.avail(0);
    }),
    ("a response outside memory", |g| {
        g.descriptor(0, RESPONSE, 20, NEXT, 1);
        g.descriptor(1, MEMORY as u64, 64, WRITE, 0);
        g.avail(0);
    }),
    ("a table of garbage", |g| {
        g.descriptor(0, DESCRIPTORS, 4096, INDIRECT, 0);
        g.avail(0);
    }),
    ("a table in a table", |g| {
        g.descriptor(0, DESCRIPTORS, 16, INDIRECT, 0);
        g.avail(0);
    }),
    ("a table outside memory", |g| {
        g.descriptor(0, 1 << 40, 64, INDIRECT, 0);
        g.avail(0);
    }),
];

#[test]
fn garbage_comes_back_used_and_stops_neither_its_sender_nor_a_neighbour() {
    let (f, neighbour) = (Fixture::new(), Fixture::new());
    let (guest, qemu) = f.guest();
    let (good_guest, good_qemu) = neighbour.guest();
    for (what, make) in GARBAGE {
        let used = guest.used_idx();
        make(&guest);
        qemu.kick();
        wait_for(what, || guest.used_idx() == used.wrapping_add(1));
        works(&good_guest, &good_qemu);
        works(&guest, &qemu);
    }
    assert!(qemu.err.read().is_err(), "no ring was broken");
}

#[test]
fn a_broken_ring_stops_neither_the_device_nor_a_neighbour() {
    let breaks: [Garbage; 3] = [
        ("an avail index too far ahead", |g| g.put(AVAIL + 2, 4000u16)),
        ("an avail index that goes back", |g| g.put(AVAIL + 2, 0xfff0u16)),
        ("a head that is no descriptor", |g| g.avail(0x1234)),
    ];
    let (f, neighbour) = (Fixture::new(), Fixture::new());
    let (guest, mut qemu) = f.guest();
    let (good_guest, good_qemu) = neighbour.guest();
    for (what, make) in breaks {
        works(&guest, &qemu);
        make(&guest);
        qemu.kick();
        wait_for(what, || qemu.err.read().is_ok());
        for _ in 0..3 {
            qemu.kick();
        }
        works(&good_guest, &good_qemu);
        assert!(qemu.alive());
        assert!(qemu.err.read().is_err(), "told once");

        // The guest's driver resets the device.
        qemu.stop();
        guest.put(AVAIL + 2, 0u16);
        guest.put(USED + 2, 0u16);
        qemu.start(&guest, 0);
        works(&guest, &qemu);
    }
}

#[test]
fn a_device_that_panics_stops_nothing_else() {
    let f = Fixture::new();
    let (guest, qemu) = f.guest();
    f.toy.with(|s| s.panic = true);
    assert_eq!(qemu.run(&guest, &command(20, 1)), [0x80, 1, 0, 0, 0, 10, 0, 0, 1, 1]);
    f.toy.with(|s| s.panic = false);
    works(&guest, &qemu);
}

#[test]
fn a_reset_that_panics_ends_the_connection_so_that_it_is_told_again() {
    let f = Fixture::new();
    let (_guest, mut qemu) = f.guest();
    f.toy.with(|s| s.panic = true);
    let reset = 1u32.to_le_bytes();
    let flags = vhost::vhost_user::message::VhostUserConfigFlags::empty();
    assert!(qemu.frontend.set_config(CONFIG_MACHINE_RESET, flags, &reset).is_err());
    assert!(!qemu.alive());
    f.toy.with(|s| s.panic = false);
    let (guest, mut qemu) = f.guest();
    qemu.write_config(CONFIG_MACHINE_RESET, 1);
    works(&guest, &qemu);
}
