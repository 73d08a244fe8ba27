//! What no client should send: it loses its connection, the log has a line, and nothing else notices.

use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;
use vtpm_protocol::codec::Encode;
use vtpm_protocol::control::{BlobType, Request, StateFlags};

use crate::world::*;

/// Sends `bytes`; the connection is closed after `answer`, the log says why in words with `why`, the device heard nothing, and the next client
/// is served.
fn is_sent_away(bytes: &[u8], answer: &[u8], why: &str) {
    log_of::begin();
    let name = format!("bad {}", bytes.iter().map(|b| format!("{b:02x}")).collect::<String>());
    let w = World::with(|o| o.name.clone_from(&name));
    let mut c = w.client();
    c.stream.write_all(bytes).unwrap();
    assert_eq!(c.closed(), answer, "{name}");
    wait_for("end", || w.attachment.client().is_none());
    assert!(log_of::has(&[&name, "closed", why]), "{name}: no line with {why:?}");
    assert_eq!(w.mock.told(), []);
    w.works();
}

#[test]
fn unknown_commands() {
    is_sent_away(&[0, 0, 0, 0], &[0, 0, 0, 10], "no control command 0x0");
    is_sent_away(&[0, 0, 0, 20], &[0, 0, 0, 10], "no control command 0x14");
    is_sent_away(b"GET / HTTP/1.1\r\n\r\n", &[0, 0, 0, 10], "no control command 0x47455420");
}

#[test]
fn short_messages() {
    let too_long = "took too long";
    is_sent_away(&[0], &[], too_long);
    is_sent_away(&[0, 0, 0, 2, 0], &[], too_long);
    is_sent_away(&[0, 0, 0, 5], &[], too_long);
    is_sent_away(&[0, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0, 1], &[], too_long);
    is_sent_away(&[0, 0, 0, 18, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0], &[], too_long);
    // Content that does not come.
    is_sent_away(&[0, 0, 0, 7, 0, 0, 0, 9, 1, 2, 3], &[], too_long);
    is_sent_away(&[0, 0, 0, 13, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 9, 1, 2, 3], &[], too_long);
}

#[test]
fn messages_that_end_in_the_middle() {
    log_of::begin();
    let w = World::with(|o| o.name = "ends early".into());
    let mut c = w.client();
    c.stream.write_all(&[0, 0, 0, 7, 0, 0, 0, 9, 1]).unwrap();
    c.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(c.closed().is_empty());
    wait_for("line", || log_of::has(&["ends early", "ended in the middle"]));
    w.works();
}

#[test]
fn oversized_messages() {
    let longer = "longer than it should be";
    is_sent_away(&[0, 0, 0, 1, 0], &[0, 0, 0, 3], longer);
    is_sent_away(&[0, 0, 0, 2, 0, 0, 0, 0, 0], &[0, 0, 0, 3], longer);
    is_sent_away(&[0, 0, 0, 14, 0, 0, 0, 0], &[0, 0, 0, 3], longer);
    is_sent_away(&[0, 0, 0, 5, 1, 0, 0, 0, 0], &[0, 0, 0, 3], longer);
    is_sent_away(&[0, 0, 0, 7, 0, 0, 0, 1, 1, 2], &[0, 0, 0, 3], longer);
    is_sent_away(&[[0, 0, 0, 3].as_slice(), &[0; 8000]].concat(), &[0, 0, 0, 3], longer);
    // A state that nobody has.
    is_sent_away(&[0, 0, 0, 13, 0, 0, 0, 2, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff], &[], "too large");
}

#[test]
fn descriptors_that_are_missing_or_of_the_wrong_kind() {
    log_of::begin();
    is_sent_away(&[0, 0, 0, 16], &[0, 0, 0, 3], "without a descriptor");
    let dir = tempfile::tempdir().unwrap();
    let (datagrams, _other) = UnixDatagram::pair().unwrap();
    let alone: UnixStream = {
        let (one, _two) = UnixStream::pair().unwrap();
        one
    };
    let wrong: [(&str, OwnedFd); 4] = [
        ("a file", plain_file()),
        ("datagrams", datagrams.into()),
        ("a listening socket", UnixListener::bind(dir.path().join("s")).unwrap().into()),
        ("one end of a pipe", std::io::pipe().unwrap().0.into()),
    ];
    for (what, descriptor) in wrong {
        let w = World::with(|o| o.name = what.into());
        let mut c = w.client();
        assert_eq!(c.pass(&[0, 0, 0, 16], &descriptor), [0, 0, 0, 3], "{what}");
        assert!(c.closed().is_empty());
        wait_for("line", || log_of::has(&[what, "is no connected stream socket"]));
        w.works();
    }
    // Whose other end is closed: the channel ends, and the control channel stays.
    let w = World::new();
    let mut c = w.client();
    assert_eq!(c.pass(&[0, 0, 0, 16], &alone.into()).len(), 4);
    assert_eq!(c.result(Request::Stop), 0);
}

#[test]
fn more_descriptors_than_one() {
    log_of::begin();
    let w = World::with(|o| o.name = "many".into());
    let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    w.works();
    wait_for("end", || w.attachment.client().is_none());
    let before = count();
    for many in [2, 3, 253] {
        let mut c = w.client();
        let descriptor = plain_file();
        let all = vec![descriptor.as_raw_fd(); many];
        c.stream.send_with_fds(&[&[0u8, 0, 0, 16][..]], &all).unwrap();
        assert!(c.closed().is_empty());
        wait_for("line", || log_of::has(&["many", &format!("{many} descriptors came")]));
    }
    // All that were passed are closed. Other tests of this process come and go.
    wait_for("return to what was open before", || count() <= before);
    w.works();
}

#[test]
fn a_client_that_never_reads() {
    log_of::begin();
    let w = World::with(|o| o.name = "never reads".into());
    let mut c = w.client();
    w.mock.lock().state = Some(vec![7; 4 << 20]);
    c.result(Request::Init(vtpm_protocol::control::InitFlags(0)));
    let get = Request::GetStateBlob { flags: StateFlags(1), blob: BlobType::PERMANENT, offset: 0 };
    c.stream.write_all(&get.to_bytes()).unwrap();
    let begin = Instant::now();
    wait_for("line", || log_of::has(&["never reads", "closed", "took too long"]));
    assert!(begin.elapsed() < Duration::from_secs(5));
    w.works();
}

#[test]
fn a_client_of_the_data_channel_that_never_reads() {
    log_of::begin();
    let w = World::with(|o| o.name = "deaf machine".into());
    let mut m = w.machine();
    m.data.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    m.data.set_nonblocking(true).unwrap();
    w.mock.lock().response = vec![0; 4000];
    let until = Instant::now() + Duration::from_secs(20);
    while !log_of::has(&["deaf machine", "data channel is closed", "took too long"]) {
        // One command after the other, as many as go in.
        let _full = m.data.write(&command(0x17b));
        std::thread::sleep(Duration::from_micros(200));
        assert!(Instant::now() < until);
    }
    // The control channel is not concerned.
    assert_eq!(m.control.result(Request::Stop), 0);
}

#[test]
fn half_commands_on_the_data_channel() {
    log_of::begin();
    // Of a machine, whose guest wrote a size that is no truth: it is answered, and goes on.
    let w = World::new();
    let mut m = w.machine();
    m.data.write_all(&command(0x17b)[..7]).unwrap();
    assert_eq!(read_response(&mut m.data), TOO_LONG);
    for lie in [0u32, 9, 4097, u32::MAX] {
        let mut bytes = command(0x17b);
        bytes[2..6].copy_from_slice(&lie.to_be_bytes());
        m.data.write_all(&bytes).unwrap();
        // The device is shown what has the length of a command; it knows what to answer.
        assert_eq!(read_response(&mut m.data), OK);
        assert_eq!(w.mock.told().last(), Some(&Told::Execute(0, bytes)));
    }
    m.data.write_all(&[0x80, 1, 0, 0, 0, 6]).unwrap();
    assert_eq!(read_response(&mut m.data), TOO_LONG);
    assert_eq!(m.execute(&command(0x17b)), OK);
}

#[test]
fn a_device_that_panics_costs_one_connection_or_one_command() {
    let w = World::new();
    let mut m = w.machine();
    w.mock.lock().panic = true;
    assert_eq!(m.execute(&command(0x17b)), OFF);
    m.control.stream.write_all(&Request::HashStart.to_bytes()).unwrap();
    assert!(m.control.closed().is_empty());
    w.mock.lock().panic = false;
    drop(m);
    w.works();
}

#[test]
fn a_hundred_clients_of_every_kind_leave_no_descriptor_or_thread_behind() {
    let w = World::new();
    let count = |dir: &str| std::fs::read_dir(dir).unwrap().count();
    let open = || (count("/proc/self/fd"), count("/proc/self/task"));
    w.works();
    wait_for("end", || w.attachment.client().is_none());
    let before = open();
    for round in 0..100u32 {
        match round % 4 {
            0 => w.works(),
            1 => {
                let mut c = w.client();
                c.pass(&[0, 0, 0, 14], &plain_file());
            }
            2 => {
                let mut c = w.client();
                c.pass(&[0, 0, 0, 16], &plain_file());
            }
            _ => w.client().stream.write_all(&[0, 0, 0, 99]).unwrap(),
        }
        wait_for("end", || w.attachment.client().is_none());
    }
    wait_for("return to what was open before", || open() <= before);
}

/// A request of any command, well-formed or not, with anything behind it.
fn anything() -> impl Strategy<Value = Vec<u8>> {
    (0u32..24, proptest::collection::vec(any::<u8>(), 0..40), any::<bool>()).prop_map(
        |(code, mut rest, small)| {
            if small {
                // Lengths and flags that may be meant.
                rest.iter_mut().filter(|byte| **byte > 9).for_each(|byte| *byte = 0);
            }
            [code.to_be_bytes().to_vec(), rest].concat()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn whatever_clients_send_the_next_one_is_served(clients in proptest::collection::vec(anything(), 1..6), data: Vec<u8>) {
        let w = World::with(|o| {
            o.patience = Duration::from_millis(5);
            o.transfer_timeout = Duration::from_millis(5);
        });
        for (n, bytes) in clients.iter().enumerate() {
            let mut c = w.client();
            if n % 2 == 0 {
                // It may be answered too late, or end before.
                let _unread = c.pass_data().write_all(&data);
            }
            let _gone = c.stream.write_all(bytes);
            std::thread::sleep(Duration::from_millis(1));
        }
        w.works();
    }
}
