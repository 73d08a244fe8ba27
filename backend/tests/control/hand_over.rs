//! The door of one process closes, the door of the next one opens, and the clients notice nothing.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use vtpm_backend::control::{ControlDoor, Kept, KeptState, Options};
use vtpm_backend::socket::Listener;
use vtpm_protocol::control::{BlobType, InitFlags, Request, StateFlags};

use crate::world::*;

/// The door's end, and what is left of it: its socket and its clients.
fn hand_over(door: ControlDoor) -> (UnixListener, Option<Kept>) {
    let socket = door.listener().unwrap().as_fd().try_clone_to_owned().unwrap();
    (socket.into(), door.hand_over())
}

/// The next process, with a device that was told nothing yet.
fn next(w: World) -> World {
    let World { attachment, events, door, socket, dir, .. } = w;
    let (listener, kept) = hand_over(door);
    assert_eq!(attachment.client(), None);
    assert!(socket.exists());
    let mock = Arc::new(Mock::default());
    let listener = Listener::adopt(listener, Some(&socket)).unwrap();
    let door = match kept {
        Some(Kept { control, data, state }) => {
            // On its way it is text.
            let state: KeptState = serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
            let options = options(&events);
            let kept = Kept { control, data, state };
            ControlDoor::resume(
                listener,
                kept,
                mock.clone(),
                Options { attachment: attachment.clone(), ..options },
            )
        }
        None => {
            let options = Options { attachment: attachment.clone(), ..options(&events) };
            ControlDoor::open(Some(listener.into()), None, mock.clone(), options)
        }
    };
    World { mock, attachment, events, door: door.unwrap(), socket, dir }
}

#[test]
fn a_machine_goes_on_at_its_locality_and_its_tpm_is_still_on() {
    let mut w = World::new();
    let mut m = w.machine();
    assert_eq!(m.control.result(Request::SetLocality(2)), 0);
    assert_eq!(m.execute(&command(0x17b)), OK);
    for _ in 0..3 {
        w.mock.told();
        w = next(w);
        assert_eq!(m.execute(&command(0x17b)), OK);
        // Neither a shutdown nor a reset, and at the same locality.
        assert_eq!(w.mock.told(), [Told::Execute(2, command(0x17b))]);
        assert!(w.attachment.client().is_some());
        assert_eq!(m.control.result(Request::SetLocality(2)), 0);
    }
    // The machine goes as it would have: its TPM is shut down, and off.
    drop(m);
    wait_for("end", || w.attachment.client().is_none());
    assert!(matches!(w.mock.told()[..], [Told::Execute(0, _)]));
    w.works();
}

#[test]
fn the_command_at_hand_is_answered_by_the_door_that_took_it() {
    let w = World::new();
    let mut m = w.machine();
    w.mock.lock().held = true;
    m.data.write_all(&command(0x131)).unwrap();
    wait_for("command", || w.mock.lock().waiting);
    let (mock, told) = (w.mock.clone(), w.mock.told().len());
    assert_eq!(told, 2);
    let w = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(30));
            mock.release();
        });
        next(w)
    });
    assert_eq!(read_response(&mut m.data), OK);
    assert_eq!(w.mock.told(), []);
    assert_eq!(m.execute(&command(0x17b)), OK);
    assert_eq!(w.mock.told(), [Told::Execute(0, command(0x17b))]);
}

#[test]
fn half_a_command_is_not_lost() {
    let mut w = World::new();
    let mut m = w.machine();
    let whole = command(0x17b);
    let (last, beginning) = whole.split_last().unwrap();
    for byte in beginning {
        m.data.write_all(&[*byte]).unwrap();
        std::thread::sleep(Duration::from_millis(2));
        w = next(w);
    }
    m.data.write_all(&[*last]).unwrap();
    assert_eq!(read_response(&mut m.data), OK);
    assert_eq!(w.mock.told(), [Told::Execute(0, command(0x17b))]);
}

#[test]
fn no_command_is_lost_or_repeated_under_load() {
    let mut w = World::new();
    let mut m = w.machine();
    w.mock.told();
    let done = std::sync::atomic::AtomicBool::new(false);
    let (mut sent, mut executed) = (0u32, Vec::new());
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut sent = 0u32;
            while !done.load(std::sync::atomic::Ordering::Acquire) {
                assert_eq!(m.execute(&command(sent)), OK);
                sent += 1;
            }
            sent
        });
        for _ in 0..50 {
            std::thread::sleep(Duration::from_millis(2));
            let old = w.mock.clone();
            w = next(std::mem::replace(&mut w, World::new()));
            executed.extend(old.told());
        }
        done.store(true, std::sync::atomic::Ordering::Release);
        sent += client.join().unwrap();
    });
    executed.extend(w.mock.told());
    let expected: Vec<Told> = (0..sent).map(|n| Told::Execute(0, command(n))).collect();
    assert!(sent > 50);
    assert_eq!(executed, expected);
}

#[test]
fn a_client_without_a_data_channel_goes_on_too() {
    let w = World::new();
    let mut c = w.client();
    assert_eq!(c.result(Request::Init(InitFlags(0))), 0);
    let w = next(w);
    assert_eq!(exchange(&mut c.pass_data(), &command(0x17b)), OK);
    assert_eq!(w.mock.told(), [Told::Execute(0, command(0x17b))]);
}

#[test]
fn a_migration_stream_that_is_read_in_parts_stays_the_same_one() {
    let w = World::new();
    let mut m = w.machine();
    w.mock.lock().state = Some(vec![7; 5000]);
    let get = |offset| Request::GetStateBlob { flags: StateFlags(0), blob: BlobType::PERMANENT, offset };
    let (_, stream) = m.control.request(get(0), &[]);
    let w = next(w);
    let (_, rest) = m.control.request(get(4), &[]);
    assert_eq!(rest, stream[4..]);
    assert_eq!(w.mock.told(), []);
}

#[test]
fn with_nobody_inside_only_the_socket_is_left() {
    let w = World::new();
    w.works();
    wait_for("end", || w.attachment.client().is_none());
    let World { door, socket, .. } = &w;
    assert!(door.listener().is_some() && socket.exists());
    let w = next(w);
    w.works();
}

#[test]
fn whoever_knocks_between_two_processes_is_served_by_the_second() {
    let w = World::new();
    let World { attachment: _, events, door, socket, dir: _dir, mock: _ } = w;
    let (listener, kept) = hand_over(door);
    assert!(kept.is_none());
    let mut c = Client::over(std::os::unix::net::UnixStream::connect(&socket).unwrap());
    c.stream.write_all(&[0, 0, 0, 4]).unwrap();
    let listener = Listener::adopt(listener, Some(&socket)).unwrap();
    let mock = Arc::new(Mock::default());
    let _door = ControlDoor::open(Some(listener.into()), None, mock, options(&events)).unwrap();
    let mut answer = [0; 8];
    c.stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[..4], [0; 4]);
}

#[test]
fn a_client_that_left_between_two_processes_is_seen_off() {
    let w = World::new();
    let m = w.machine();
    let World { attachment, events, door, socket, dir: _dir, mock: _ } = w;
    let (listener, kept) = hand_over(door);
    drop(m);
    let listener = Listener::adopt(listener, Some(&socket)).unwrap();
    let mock = Arc::new(Mock::default());
    let options = Options { attachment: attachment.clone(), ..options(&events) };
    let _door = ControlDoor::resume(listener, kept.unwrap(), mock, options).unwrap();
    wait_for("end", || attachment.client().is_none());
}
