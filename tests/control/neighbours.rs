//! Clients that do what they should not at the doors of one instance, while machines use theirs.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use vmm_sys_util::sock_ctrl_msg::ScmSocket;
use vtpm_protocol::control::Request;
use vtpm_protocol::rc::ResponseCode;

use crate::client::Machine;
use crate::common::Host;

/// What a client may send, and whether a plain file goes along with it.
const BAD: &[(&[u8], bool)] = &[
    (&[0, 0, 0, 0], false),
    (&[0, 0, 0, 20], false),
    (b"GET / HTTP/1.1\r\n\r\n", false),
    (&[0, 0, 0, 16], false),
    (&[0, 0, 0, 16], true),
    (&[0, 0, 0, 2, 0, 0, 0, 0, 0], false),
    (&[0, 0, 0, 13, 0, 0, 0, 2, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff], false),
    (&[0, 0, 0, 7, 0, 0, 0, 9, 1], false),
];

fn client(socket: &PathBuf) -> UnixStream {
    let stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// Until the door closes the connection.
fn is_closed(mut stream: UnixStream) {
    match stream.read_to_end(&mut Vec::new()) {
        Ok(_) => {}
        Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset),
    }
}

#[test]
fn bad_clients_of_one_instance_touch_neither_it_nor_its_neighbour() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(dir.path(), "a");
    let door = |name: &str| host.runtime().join(name).join("control.sock");
    for name in ["beset", "neighbour"] {
        host.ctl(&["create", name]);
    }
    let (beset, over) = (door("beset"), AtomicBool::new(false));
    let mut machine = Machine::connect(&door("neighbour"));
    machine.boot();
    machine.extend(16);
    let pcr = machine.pcr(16);
    std::thread::scope(|scope| {
        let machine = &mut machine;
        let over = &over;
        let neighbour = scope.spawn(move || {
            let mut commands = 0u32;
            while !over.load(Ordering::Relaxed) {
                assert_eq!(machine.random(), ResponseCode::SUCCESS);
                commands += 1;
            }
            commands
        });
        for _ in 0..5 {
            for (bytes, file) in BAD {
                let mut stream = client(&beset);
                if *file {
                    let null = std::fs::File::open("/dev/null").unwrap();
                    stream.send_with_fd(*bytes, null.as_raw_fd()).unwrap();
                } else {
                    stream.write_all(bytes).unwrap();
                }
                let _gone = stream.shutdown(Shutdown::Write);
                is_closed(stream);
            }
        }
        // The same while a machine has it: they are sent away before they have said anything.
        let mut owner = Machine::connect(&beset);
        owner.boot();
        owner.extend(16);
        let before = owner.pcr(16);
        for (bytes, _) in BAD {
            let mut stream = client(&beset);
            let _gone = stream.write_all(bytes);
            is_closed(stream);
            is_closed(client(&host.runtime().join("beset").join("vhost-user.sock")));
        }
        assert_eq!((owner.pcr(16), owner.result(Request::GetCapability)), (before, 0));
        over.store(true, Ordering::Relaxed);
        assert!(neighbour.join().unwrap() > 0);
    });
    assert_eq!(machine.pcr(16), pcr);
    assert_eq!((host.state_of("beset"), host.state_of("neighbour")), ("live".into(), "live".into()));
}
