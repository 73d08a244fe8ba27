//! A device that notes what it is told, a door before it, and clients.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use vmm_sys_util::sock_ctrl_msg::ScmSocket;
use vtpm_backend::attachment::Attachment;
use vtpm_backend::control::{Access, ControlDoor, ControlEvent, Options};
use vtpm_backend::device::{ControlledTpm, DeviceError, TpmDevice};
use vtpm_protocol::codec::{Encode, Reader};
use vtpm_protocol::control::{Command, InfoFlags, Request, Response};

/// What [`Mock`] was told, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    Execute(u8, Vec<u8>),
    PowerOn,
    HashStart,
    HashData(Vec<u8>),
    HashEnd,
    ResetEstablished(u8),
    Cancel,
    Save,
    Left,
    Load(Vec<u8>),
    Resumed(Duration),
}

#[derive(Default)]
pub struct MockState {
    pub told: Vec<Told>,
    pub established: bool,
    /// The state that is given out; `None`: it is refused.
    pub state: Option<Vec<u8>>,
    /// Loading, switching on and resuming are refused.
    pub refuse: bool,
    pub panic: bool,
    /// The response to every command; empty: the usual one.
    pub response: Vec<u8>,
    /// Commands wait until it is lifted, or they are cancelled.
    pub held: bool,
    pub waiting: bool,
}

#[derive(Default)]
pub struct Mock {
    state: Mutex<MockState>,
    changed: Condvar,
}

pub const OK: [u8; 10] = [0x80, 1, 0, 0, 0, 10, 0, 0, 0, 0];
/// `TPM_RC_FAILURE`: what a TPM that is off answers.
pub const OFF: [u8; 10] = [0x80, 1, 0, 0, 0, 10, 0, 0, 1, 1];
pub const TOO_LONG: [u8; 10] = [0x80, 1, 0, 0, 0, 10, 0, 0, 1, 0x42];
pub const INFO: &str = r#"{"TPMSpecification":{"family":"2.0"}}"#;

impl Mock {
    pub fn lock(&self) -> MutexGuard<'_, MockState> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// What it was told since this was asked last.
    pub fn told(&self) -> Vec<Told> {
        std::mem::take(&mut self.lock().told)
    }

    pub fn release(&self) {
        self.lock().held = false;
        self.changed.notify_all();
    }

    fn note(&self, told: Told) -> Result<(), DeviceError> {
        let mut state = self.lock();
        assert!(!state.panic, "told to");
        state.told.push(told);
        if state.refuse { Err(DeviceError::Refused("not now".into())) } else { Ok(()) }
    }
}

impl TpmDevice for Mock {
    fn execute(&self, locality: u8, command: &[u8], slot: Option<u16>) -> Vec<u8> {
        assert_eq!(slot, None);
        let mut state = self.lock();
        assert!(!state.panic, "told to");
        state.told.push(Told::Execute(locality, command.to_vec()));
        state.waiting = true;
        while state.held {
            state = self.changed.wait(state).unwrap();
        }
        state.waiting = false;
        if state.response.is_empty() { OK.to_vec() } else { state.response.clone() }
    }

    fn completed(&self, _slot: u16) {}
    fn queue_stopped(&self) {}
    fn machine_reset(&self) {}
    fn run_state(&self, _running: bool) {}

    fn migration_started(&self, _logging: bool) {}

    fn save(&self, _out: &mut dyn Write) -> Result<(), DeviceError> {
        Err(DeviceError::Internal("nobody announced it".into()))
    }

    fn load(&self, input: &mut dyn Read) -> Result<(), DeviceError> {
        if self.lock().refuse {
            // As a stream whose header is wrong, of which the rest is not read.
            input.read_exact(&mut [0; 1]).map_err(DeviceError::Io)?;
            return Err(DeviceError::BadStream("another magic".into()));
        }
        let mut bytes = Vec::new();
        input.read_to_end(&mut bytes).map_err(DeviceError::Io)?;
        self.note(Told::Load(bytes))
    }
}

impl ControlledTpm for Mock {
    fn power_on(&self) -> Result<(), DeviceError> {
        self.note(Told::PowerOn)
    }

    fn save_unannounced(&self, out: &mut dyn Write) -> Result<(), DeviceError> {
        self.note(Told::Save)?;
        let state = self.lock().state.clone();
        let state = state.ok_or_else(|| DeviceError::Refused("nothing is prepared".into()))?;
        // In pieces, as frames are.
        state.chunks(1000).try_for_each(|piece| out.write_all(piece)).map_err(DeviceError::Io)
    }

    fn has_left(&self) {
        self.lock().told.push(Told::Left);
    }

    fn hash_start(&self) -> Result<(), DeviceError> {
        self.lock().established = true;
        self.note(Told::HashStart)
    }

    fn hash_data(&self, data: &[u8]) -> Result<(), DeviceError> {
        let mut state = self.lock();
        if let Some(Told::HashData(before)) = state.told.last_mut() {
            before.extend_from_slice(data);
            return Ok(());
        }
        drop(state);
        self.note(Told::HashData(data.to_vec()))
    }

    fn hash_end(&self) -> Result<(), DeviceError> {
        self.note(Told::HashEnd)
    }

    fn is_established(&self) -> bool {
        self.lock().established
    }

    fn reset_established(&self, locality: u8) -> Result<bool, DeviceError> {
        self.note(Told::ResetEstablished(locality))?;
        let may = locality >= 3;
        self.lock().established &= !may;
        Ok(may)
    }

    fn cancel(&self) {
        let mut state = self.lock();
        state.told.push(Told::Cancel);
        state.held = false;
        drop(state);
        self.changed.notify_all();
    }

    fn machine_resumed(&self, patience: Duration) -> bool {
        self.note(Told::Resumed(patience)).is_ok()
    }

    fn info(&self, flags: InfoFlags) -> String {
        // As many blanks as the flags say, to be longer than one response.
        let blanks = usize::try_from(flags.0 >> 32).unwrap();
        format!("{INFO}{}", " ".repeat(blanks))
    }
}

/// A door with all that a test wants of it.
pub struct World {
    pub mock: Arc<Mock>,
    pub attachment: Arc<Attachment>,
    pub events: Arc<Mutex<Vec<ControlEvent>>>,
    pub door: ControlDoor,
    pub socket: PathBuf,
    pub dir: tempfile::TempDir,
}

/// Short enough for a test to see it end.
pub const PATIENCE: Duration = Duration::from_millis(300);

impl World {
    pub fn new() -> Self {
        Self::with(|_| ())
    }

    pub fn with(change: impl FnOnce(&mut Options)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("control.sock");
        let (mock, events) = (Arc::new(Mock::default()), Arc::default());
        let mut options = options(&events);
        change(&mut options);
        let attachment = options.attachment.clone();
        let door = ControlDoor::bind(&socket, Access::default(), mock.clone(), options).unwrap();
        Self { mock, attachment, events, door, socket, dir }
    }

    pub fn client(&self) -> Client {
        Client::over(UnixStream::connect(&self.socket).unwrap())
    }

    /// A machine whose TPM is on.
    pub fn machine(&self) -> Machine {
        let mut control = self.client();
        let data = control.pass_data();
        assert_eq!(control.ask(&[0, 0, 0, 2, 0, 0, 0, 0], 4), [0; 4]);
        Machine { control, data }
    }

    /// The door is as good as new: it serves a machine.
    pub fn works(&self) {
        let mut machine = self.machine();
        assert_eq!(machine.execute(&command(0x17b)), OK);
    }
}

pub fn options(events: &Arc<Mutex<Vec<ControlEvent>>>) -> Options {
    let events = events.clone();
    Options {
        patience: PATIENCE,
        transfer_timeout: PATIENCE,
        on_event: Some(Arc::new(move |event| events.lock().unwrap().push(event))),
        ..Options::new("test")
    }
}

/// A command that has its code and nothing else.
pub fn command(code: u32) -> Vec<u8> {
    (0x8001u16, 10u32, code).to_bytes()
}

pub struct Machine {
    pub control: Client,
    pub data: UnixStream,
}

impl Machine {
    pub fn execute(&mut self, command: &[u8]) -> Vec<u8> {
        exchange(&mut self.data, command)
    }
}

/// Sends a command and reads one response.
pub fn exchange(data: &mut UnixStream, command: &[u8]) -> Vec<u8> {
    data.write_all(command).unwrap();
    read_response(data)
}

pub fn read_response(data: &mut impl Read) -> Vec<u8> {
    let mut header = vec![0; 10];
    data.read_exact(&mut header).unwrap();
    let size = u32::from_be_bytes(header[2..6].try_into().unwrap());
    let mut rest = vec![0; usize::try_from(size).unwrap() - 10];
    data.read_exact(&mut rest).unwrap();
    [header, rest].concat()
}

/// A client of the control channel.
pub struct Client {
    pub stream: UnixStream,
}

impl Client {
    pub fn over(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { stream }
    }

    /// Sends bytes and reads as many.
    pub fn ask(&mut self, bytes: &[u8], length: usize) -> Vec<u8> {
        self.stream.write_all(bytes).unwrap();
        let mut out = vec![0; length];
        self.stream.read_exact(&mut out).unwrap();
        out
    }

    /// Sends a request with its content and reads the response with its content.
    pub fn request(&mut self, request: Request, content: &[u8]) -> (Response, Vec<u8>) {
        self.stream.write_all(&[request.to_bytes(), content.to_vec()].concat()).unwrap();
        self.response(request.command())
    }

    pub fn response(&mut self, command: Command) -> (Response, Vec<u8>) {
        let mut bytes = vec![0; 4];
        self.stream.read_exact(&mut bytes).unwrap();
        let result = vtpm_protocol::control::ControlResult(u32::from_be_bytes(bytes[..].try_into().unwrap()));
        bytes.resize(Response::length(command, result), 0);
        self.stream.read_exact(&mut bytes[4..]).unwrap();
        let response = Response::decode(command, &mut Reader::new(&bytes)).unwrap();
        let mut content = vec![0; usize::try_from(response.content_length()).unwrap()];
        self.stream.read_exact(&mut content).unwrap();
        (response, content)
    }

    /// The result of a request.
    pub fn result(&mut self, request: Request) -> u32 {
        self.request(request, &[]).0.result().0
    }

    /// Passes one end of a new pair as QEMU does, and keeps the other.
    pub fn pass_data(&mut self) -> UnixStream {
        let (here, there) = UnixStream::pair().unwrap();
        assert_eq!(self.pass(&[0, 0, 0, 16], &there.into()), [0; 4]);
        here.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        here
    }

    /// Sends bytes with a descriptor, and reads a result.
    pub fn pass(&mut self, bytes: &[u8], descriptor: &OwnedFd) -> Vec<u8> {
        assert_eq!(self.stream.send_with_fd(bytes, descriptor.as_raw_fd()).unwrap(), bytes.len());
        let mut out = vec![0; 4];
        self.stream.read_exact(&mut out).unwrap();
        out
    }

    /// The door closed the connection, perhaps after some bytes: these.
    pub fn closed(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        // What was sent and not read makes it a reset.
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => rest,
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => rest,
            Err(e) => panic!("not closed: {e}"),
        }
    }
}

pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < until, "no {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A file that is no socket.
pub fn plain_file() -> OwnedFd {
    File::open("/dev/null").unwrap().into()
}

/// What the log said; the one logger of this process notes it.
pub mod log_of {
    use std::sync::{Mutex, Once};

    static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());
    static START: Once = Once::new();

    struct Notebook;

    impl log::Log for Notebook {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &log::Record<'_>) {
            LINES.lock().unwrap().push(record.args().to_string());
        }

        fn flush(&self) {}
    }

    /// Notes from now on.
    pub fn begin() {
        START.call_once(|| {
            log::set_logger(&Notebook).unwrap();
            log::set_max_level(log::LevelFilter::Info);
        });
    }

    /// Whether a line has all of these parts.
    pub fn has(parts: &[&str]) -> bool {
        LINES.lock().unwrap().iter().any(|line| parts.iter().all(|part| line.contains(part)))
    }
}
