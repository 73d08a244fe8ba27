//! Where commands come from: passed descriptors, sockets of the door's own, several clients; and what the owner hears of it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use vtpm_backend::attachment::{self, Attachment};
use vtpm_backend::control::{Access, ControlDoor, ControlEvent, Entrance};
use vtpm_backend::vhost::{FrontDoor, FrontDoorError};
use vtpm_protocol::codec::Encode;
use vtpm_protocol::control::{InitFlags, Request, SendCommand};

use crate::world::*;

#[test]
fn commands_go_over_the_descriptor_and_the_device_hears_none_before_init() {
    let w = World::new();
    let mut c = w.client();
    let mut data = c.pass_data();
    // QEMU asks for the version here.
    assert_eq!(exchange(&mut data, &command(0x17a)), OFF);
    assert_eq!(w.mock.told(), []);
    assert_eq!(c.result(Request::Init(InitFlags(0))), 0);
    assert_eq!(exchange(&mut data, &command(0x17a)), OK);
    assert_eq!(w.mock.told(), [Told::PowerOn, Told::Execute(0, command(0x17a))]);
    assert_eq!(c.result(Request::Stop), 0);
    assert_eq!(exchange(&mut data, &command(0x17a)), OFF);
    // A second channel is refused, and the first stays.
    let (_here, there) = UnixStream::pair().unwrap();
    assert_eq!(c.pass(&[0, 0, 0, 16], &there.into()), [0, 0, 0, 0x1f]);
    assert_eq!(exchange(&mut data, &command(0x17a)), OFF);
}

#[test]
fn a_client_that_leaves_while_the_door_opens_does_not_shut_it() {
    for round in 0..400 {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("c");
        let entrance = Entrance::bind_unix(&socket, Access::default()).unwrap();
        drop(UnixStream::connect(&socket).unwrap());
        let options = options(&Arc::default());
        let door = ControlDoor::open(Some(entrance), None, Arc::<Mock>::default(), options).unwrap();
        let mut next = Client::over(UnixStream::connect(&socket).unwrap());
        assert_eq!(next.ask(&[0, 0, 0, 1], 8)[..4], [0; 4], "round {round}");
        drop(next);
        door.close();
    }
}

#[test]
fn a_command_may_come_in_pieces_and_with_a_prefix() {
    let w = World::new();
    let mut m = w.machine();
    for byte in command(0x17b) {
        m.data.write_all(&[byte]).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(read_response(&mut m.data), OK);
    let framed = [SendCommand { locality: 2, length: 10 }.to_bytes(), command(0x17b)].concat();
    m.data.write_all(&framed).unwrap();
    let mut response = [0; 18];
    m.data.read_exact(&mut response).unwrap();
    assert_eq!(response[..], [&[0, 0, 0, 10][..], &OK, &[0; 4]].concat());
    assert_eq!(w.mock.told().last(), Some(&Told::Execute(2, command(0x17b))));
    let framed = [SendCommand { locality: 5, length: 10 }.to_bytes(), command(0x17b)].concat();
    m.data.write_all(&framed).unwrap();
    m.data.read_exact(&mut response).unwrap();
    assert_eq!(response[10..14], [0, 0, 9, 7]);
    assert_eq!(w.mock.told(), []);
}

#[test]
fn machines_come_one_after_the_other_and_with_each_the_tpm_goes_off() {
    let w = World::new();
    for _ in 0..3 {
        let mut c = w.client();
        let mut data = c.pass_data();
        assert_eq!(exchange(&mut data, &command(0x17b)), OFF);
        c.result(Request::Init(InitFlags(0)));
        c.result(Request::SetLocality(3));
        assert_eq!(exchange(&mut data, &command(0x17b)), OK);
        drop((c, data));
        wait_for("end", || w.attachment.client().is_none());
    }
    use ControlEvent::{ControlClosed, DataClosed};
    assert_eq!(w.events.lock().unwrap().len(), 6);
    assert_eq!(w.events.lock().unwrap()[4..], [DataClosed, ControlClosed]);
}

#[test]
fn a_tpm_without_a_machine_stays_on_between_requests() {
    let dir = tempfile::tempdir().unwrap();
    let (control, data) = (dir.path().join("c"), dir.path().join("d"));
    let (mock, events) = (Arc::new(Mock::default()), Arc::default());
    let bind = |path| Entrance::bind_unix(path, Access::default()).unwrap();
    let door =
        ControlDoor::open(Some(bind(&control)), Some(bind(&data)), mock.clone(), options(&events)).unwrap();
    let ask = |request| Client::over(UnixStream::connect(&control).unwrap()).result(request);
    let run = || exchange(&mut UnixStream::connect(&data).unwrap(), &command(0x17b));
    assert_eq!(run(), OFF);
    assert_eq!(ask(Request::Init(InitFlags(0))), 0);
    assert_eq!((run(), run()), (OK.to_vec(), OK.to_vec()));
    assert_eq!(ask(Request::SetLocality(3)), 0);
    run();
    assert_eq!(mock.told().last(), Some(&Told::Execute(3, command(0x17b))));
    assert_eq!(ask(Request::Shutdown), 0);
    wait_for("event", || events.lock().unwrap().contains(&ControlEvent::Shutdown));
    assert_eq!(run(), OFF);
    // Two clients of the data socket: the second waits for the first.
    let mut first = UnixStream::connect(&data).unwrap();
    assert_eq!(exchange(&mut first, &command(0x17b)), OFF);
    let mut second = UnixStream::connect(&data).unwrap();
    second.write_all(&command(0x17b)).unwrap();
    second.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert!(second.read(&mut [0]).is_err());
    drop(first);
    second.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(read_response(&mut second), OFF);
    drop(door);
    assert!(!control.exists() && !data.exists());
}

#[test]
fn a_data_socket_can_serve_one_command_a_connection() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d");
    let events = Arc::default();
    let options = vtpm_backend::control::Options { disconnect: true, running: true, ..options(&events) };
    let entrance = Entrance::bind_unix(&path, Access::default()).unwrap();
    let _door = ControlDoor::open(None, Some(entrance), Arc::new(Mock::default()), options).unwrap();
    for _ in 0..3 {
        let mut data = UnixStream::connect(&path).unwrap();
        assert_eq!(exchange(&mut data, &command(0x17b)), OK);
        assert_eq!(data.read(&mut [0]).unwrap(), 0);
    }
}

#[test]
fn both_channels_can_be_tcp() {
    let any = (Ipv4Addr::LOCALHOST, 0).into();
    let (control, data) = (Entrance::bind_tcp(any).unwrap(), Entrance::bind_tcp(any).unwrap());
    let (to_control, to_data) = (control.tcp_address().unwrap(), data.tcp_address().unwrap());
    assert!(matches!(Entrance::bind_tcp(to_control), Err(FrontDoorError::Address { .. })));
    let events = Arc::default();
    let _door =
        ControlDoor::open(Some(control), Some(data), Arc::new(Mock::default()), options(&events)).unwrap();
    let mut c = TcpStream::connect(to_control).unwrap();
    c.write_all(&[0, 0, 0, 2, 0, 0, 0, 0]).unwrap();
    let mut result = [9; 4];
    c.read_exact(&mut result).unwrap();
    assert_eq!(result, [0; 4]);
    let mut d = TcpStream::connect(to_data).unwrap();
    for _ in 0..3 {
        d.write_all(&command(0x17b)).unwrap();
        assert_eq!(read_response(&mut d), OK);
    }
}

#[test]
fn descriptors_that_were_handed_down_are_served() {
    // A connected one: as long as it lasts.
    let (here, there) = UnixStream::pair().unwrap();
    let events = Arc::default();
    let entrance = Entrance::from_fd(OwnedFd::from(there)).unwrap();
    let mut door =
        ControlDoor::open(Some(entrance), None, Arc::new(Mock::default()), options(&events)).unwrap();
    let mut c = Client::over(here);
    assert_eq!(c.result(Request::Init(InitFlags(0))), 0);
    let mut data = c.pass_data();
    assert_eq!(exchange(&mut data, &command(0x17b)), OK);
    drop(c);
    door.wait();
    assert!(events.lock().unwrap().contains(&ControlEvent::ControlClosed));
    // A listening one, of either family.
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("s")).unwrap();
    let entrance = Entrance::from_fd(listener.into()).unwrap();
    let _door = ControlDoor::open(Some(entrance), None, Arc::new(Mock::default()), options(&events)).unwrap();
    let mut c = Client::over(UnixStream::connect(dir.path().join("s")).unwrap());
    assert_eq!(c.result(Request::Stop), 0);
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let entrance = Entrance::from_fd(listener.into()).unwrap();
    assert_eq!(entrance.tcp_address(), Some(address));
    let _door = ControlDoor::open(Some(entrance), None, Arc::new(Mock::default()), options(&events)).unwrap();
    TcpStream::connect(address).unwrap().write_all(&[0, 0, 0, 14]).unwrap();
    assert!(matches!(Entrance::from_fd(plain_file()), Err(FrontDoorError::Descriptor(_))));
    let datagrams = std::os::unix::net::UnixDatagram::unbound().unwrap();
    assert!(matches!(Entrance::from_fd(datagrams.into()), Err(FrontDoorError::Descriptor(_))));
}

#[test]
fn a_socket_is_for_whom_it_was_given_to() {
    let w = World::new();
    let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&w.socket), 0o600);
    let open = w.dir.path().join("open");
    let access = Access { mode: Some(0o770), ..Access::default() };
    let door = ControlDoor::bind(&open, access, w.mock.clone(), options(&w.events)).unwrap();
    assert_eq!(mode(&open), 0o770);
    let again = ControlDoor::bind(&open, access, w.mock.clone(), options(&w.events));
    assert!(matches!(again, Err(FrontDoorError::InUse(_))));
    door.close();
    assert!(!open.exists());
}

#[test]
fn one_client_at_a_time_whichever_door_it_comes_through_and_the_log_says_who_has_the_instance() {
    log_of::begin();
    let attachment: Arc<Attachment> = Arc::default();
    let w = World::with(|o| {
        o.name = "shared".into();
        o.attachment = attachment.clone();
    });
    let vhost = w.dir.path().join("vhost-user.sock");
    let options = vtpm_backend::vhost::Options {
        attachment: attachment.clone(),
        ..vtpm_backend::vhost::Options::new("shared")
    };
    let _front = FrontDoor::bind(&vhost, w.mock.clone(), options).unwrap();
    let this = format!("process {}", std::process::id());
    // A client of the control channel keeps out another one, and one of the vhost-user socket.
    let mut c = w.client();
    assert_eq!(c.result(Request::Stop), 0);
    assert_eq!(attachment.client().map(|c| c.door), Some(attachment::Door::Control));
    assert!(w.client().closed().is_empty());
    assert!(Client::over(UnixStream::connect(&vhost).unwrap()).closed().is_empty());
    let holder = format!("{this} at the control channel has the instance");
    assert!(log_of::has(&["shared", "sent away", &format!("{this} at the control channel was"), &holder]));
    assert!(log_of::has(&["shared", "sent away", &format!("{this} at the vhost-user socket, was"), &holder]));
    assert_eq!(c.result(Request::Stop), 0);
    drop(c);
    // And the other way round; who leaves makes room at once.
    let qemu = UnixStream::connect(&vhost).unwrap();
    wait_for("connection", || attachment.client().is_some_and(|c| c.door == attachment::Door::VhostUser));
    assert!(w.client().closed().is_empty());
    assert!(log_of::has(&[
        "shared",
        "sent away",
        &format!("{this} at the vhost-user socket has the instance")
    ]));
    drop(qemu);
    w.works();
}

#[test]
fn a_program_can_be_on_from_the_start() {
    let w = World::with(|o| o.running = true);
    let mut c = w.client();
    let mut data = c.pass_data();
    assert_eq!(exchange(&mut data, &command(0x17b)), OK);
    assert_eq!(c.result(Request::Stop), 0);
    assert_eq!(exchange(&mut data, &command(0x17b)), OFF);
    drop((c, data));
    wait_for("end", || w.attachment.client().is_none());
    assert_eq!(exchange(&mut w.client().pass_data(), &command(0x17b)), OK);
}

#[test]
fn the_door_closes_under_a_machine_after_its_command() {
    let w = World::new();
    let mut m = w.machine();
    w.mock.lock().held = true;
    m.data.write_all(&command(0x131)).unwrap();
    wait_for("command", || w.mock.lock().waiting);
    let World { mock, door, socket, dir: _dir, .. } = w;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(30));
            mock.release();
        });
        door.close();
        assert!(!mock.lock().held, "it waited");
    });
    assert!(!socket.exists());
    assert!(m.control.closed().is_empty());
}

#[test]
fn the_door_closes_in_the_middle_of_a_message() {
    let w = World::with(|o| o.patience = Duration::from_secs(100));
    let mut c = w.client();
    c.stream.write_all(&[0, 0]).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    let begin = std::time::Instant::now();
    w.door.close();
    assert!(begin.elapsed() < Duration::from_secs(5));
}
