//! Over TCP, where anybody on the host may be at the other end: what `bad_clients` sends over UNIX sockets, and what only TCP has.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use vtpm_backend::attachment::Attachment;
use vtpm_backend::control::{ControlDoor, Entrance};
use vtpm_protocol::codec::Encode;
use vtpm_protocol::control::{BlobType, InitFlags, Request, StateFlags};

use crate::world::*;

/// A door with both channels at addresses of this host.
struct Host {
    mock: Arc<Mock>,
    attachment: Arc<Attachment>,
    control: SocketAddr,
    data: SocketAddr,
    _door: ControlDoor,
}

impl Host {
    fn new(name: &str) -> Self {
        log_of::begin();
        let any = (Ipv4Addr::LOCALHOST, 0).into();
        let (control, data) = (Entrance::bind_tcp(any).unwrap(), Entrance::bind_tcp(any).unwrap());
        let (to_control, to_data) = (control.tcp_address().unwrap(), data.tcp_address().unwrap());
        let mock = Arc::new(Mock::default());
        let mut options = options(&Arc::default());
        options.name = name.into();
        let attachment = options.attachment.clone();
        let door = ControlDoor::open(Some(control), Some(data), mock.clone(), options).unwrap();
        Self { mock, attachment, control: to_control, data: to_data, _door: door }
    }

    fn client(&self) -> TcpStream {
        connect(self.control)
    }

    /// A machine switches its TPM on and uses it.
    fn works(&self) {
        wait_for("end", || self.attachment.client().is_none());
        let mut control = self.client();
        assert_eq!(ask(&mut control, &Request::Init(InitFlags(0)).to_bytes()), [0; 4]);
        let mut data = connect(self.data);
        data.write_all(&command(0x17b)).unwrap();
        assert_eq!(read_response(&mut data), OK);
        self.mock.told();
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

fn ask(stream: &mut TcpStream, bytes: &[u8]) -> [u8; 4] {
    stream.write_all(bytes).unwrap();
    let mut result = [9; 4];
    stream.read_exact(&mut result).unwrap();
    result
}

/// What comes until the connection is closed.
fn closed(mut stream: TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => rest,
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => rest,
        Err(e) => panic!("not closed: {e}"),
    }
}

#[test]
fn bad_messages_end_their_connection_with_a_line_and_nothing_else() {
    let cases: [(&str, &[u8], &[u8], &str); 9] = [
        ("tcp 0", &[0, 0, 0, 0], &[0, 0, 0, 10], "no control command 0x0"),
        ("tcp 1", &[0, 0, 0, 20], &[0, 0, 0, 10], "no control command 0x14"),
        ("tcp 2", b"GET / HTTP/1.1\r\n\r\n", &[0, 0, 0, 10], "no control command 0x47455420"),
        ("tcp 3", &[0], &[], "took too long"),
        ("tcp 4", &[0, 0, 0, 2, 0], &[], "took too long"),
        ("tcp 5", &[0, 0, 0, 7, 0, 0, 0, 9, 1, 2, 3], &[], "took too long"),
        ("tcp 6", &[0, 0, 0, 2, 0, 0, 0, 0, 0], &[0, 0, 0, 3], "longer than it should be"),
        // Nothing can be handed over with TCP.
        ("tcp 7", &[0, 0, 0, 16], &[0, 0, 0, 3], "without a descriptor"),
        ("tcp 8", &[0, 0, 0, 13, 0, 0, 0, 2, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff], &[], "too large"),
    ];
    for (name, bytes, answer, why) in cases {
        let host = Host::new(name);
        let mut client = host.client();
        client.write_all(bytes).unwrap();
        // What was sent and not read makes the end a reset, which may overtake the answer.
        let got = closed(client);
        assert!(got == answer || (got.is_empty() && bytes.len() > 4), "{name}: {got:?}");
        wait_for("line", || log_of::has(&[name, "closed", why]));
        assert_eq!(host.mock.told(), []);
        host.works();
    }
    let host = Host::new("tcp ends early");
    let mut client = host.client();
    client.write_all(&[0, 0, 0, 7, 0, 0, 0, 9, 1]).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert!(closed(client).is_empty());
    wait_for("line", || log_of::has(&["tcp ends early", "ended in the middle"]));
    host.works();
}

#[test]
fn a_second_client_is_sent_away_and_the_first_goes_on() {
    let host = Host::new("tcp two");
    let mut first = host.client();
    assert_eq!(ask(&mut first, &Request::Init(InitFlags(0)).to_bytes()), [0; 4]);
    assert!(closed(host.client()).is_empty());
    wait_for("line", || log_of::has(&["tcp two", "sent away", "has the instance"]));
    let mut data = connect(host.data);
    data.write_all(&command(0x17b)).unwrap();
    assert_eq!(read_response(&mut data), OK);
    assert_eq!(ask(&mut first, &Request::Stop.to_bytes()), [0; 4]);
    // Another one at the data channel waits for its turn, or is sent away; the first is served all the same.
    let other = connect(host.data);
    data.write_all(&command(0x17b)).unwrap();
    assert_eq!(read_response(&mut data), OFF);
    drop((other, data, first));
    host.works();
}

#[test]
fn clients_that_never_read_are_closed() {
    let host = Host::new("tcp deaf");
    // More than the system keeps for a connection.
    host.mock.lock().state = Some(vec![7; 48 << 20]);
    let mut client = host.client();
    assert_eq!(ask(&mut client, &Request::Init(InitFlags(0)).to_bytes()), [0; 4]);
    let get = Request::GetStateBlob { flags: StateFlags(1), blob: BlobType::PERMANENT, offset: 0 };
    client.write_all(&get.to_bytes()).unwrap();
    wait_for("line", || log_of::has(&["tcp deaf", "closed", "took too long"]));
    host.mock.lock().state = None;
    host.mock.told();
    host.works();

    let mut control = host.client();
    assert_eq!(ask(&mut control, &Request::Init(InitFlags(0)).to_bytes()), [0; 4]);
    host.mock.lock().response = vec![0; 4000];
    let mut data = connect(host.data);
    data.set_nonblocking(true).unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while !log_of::has(&["tcp deaf", "data channel is closed", "took too long"]) {
        let _full = data.write(&command(0x17b));
        std::thread::sleep(Duration::from_micros(200));
        assert!(Instant::now() < until);
    }
    assert_eq!(ask(&mut control, &Request::Stop.to_bytes()), [0; 4]);
    host.mock.lock().response = Vec::new();
    drop((control, data));
    host.works();
}

#[test]
fn half_commands_on_the_data_channel_are_answered_and_the_next_one_works() {
    let host = Host::new("tcp half");
    let mut control = host.client();
    assert_eq!(ask(&mut control, &Request::Init(InitFlags(0)).to_bytes()), [0; 4]);
    let mut data = connect(host.data);
    data.write_all(&[0x80, 1, 0, 0, 0, 6]).unwrap();
    assert_eq!(read_response(&mut data), TOO_LONG);
    data.write_all(&command(0x17b)).unwrap();
    assert_eq!(read_response(&mut data), OK);
    // One that leaves in the middle makes room.
    data.write_all(&command(0x17b)[..3]).unwrap();
    drop(data);
    let mut next = connect(host.data);
    next.write_all(&command(0x17b)).unwrap();
    assert_eq!(read_response(&mut next), OK);
}
