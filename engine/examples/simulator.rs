//! One TPM in memory behind a UNIX socket: raw command bytes in, raw response bytes out. To try the engine with tpm2-tools, without a virtual
//! machine and without a daemon; its state ends with the process.
//!
//! ```text
//! cargo run -p vtpm-engine --example simulator -- /tmp/tpm.sock &
//! export TPM2TOOLS_TCTI="cmd:nc.openbsd -U /tmp/tpm.sock"
//! tpm2_createprimary -C o -c primary.ctx && tpm2_flushcontext -t
//! ```
//!
//! `Startup(CLEAR)` is done before the first command. Connections are served one after the other. A second socket takes
//! some messages of swtpm's control channel: a loss of power (`CMD_INIT`, after which the next command must be `TPM2_Startup`), the locality of the
//! commands to come, measurements by the hardware and what the bit `tpmEstablishment` says of them.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use vtpm_engine::{Change, CommitFailed, Environment, Tpm};

/// The largest command that is read.
const MAX_COMMAND: usize = 4096;

struct Host {
    random: File,
    started: Instant,
}

impl Environment for Host {
    #[expect(clippy::expect_used, reason = "without randomness a simulator ends")]
    fn fill_random(&mut self, out: &mut [u8]) {
        self.random.read_exact(out).expect("/dev/urandom gives bytes");
    }

    fn now_ms(&mut self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn commit(&mut self, _changes: Vec<Change>, _response: &[u8]) -> Result<(), CommitFailed> {
        Ok(())
    }
}

/// The next command of a connection; `None` at its end.
fn read_command(stream: &mut UnixStream) -> io::Result<Option<Vec<u8>>> {
    let mut command = vec![0; 10];
    match stream.read_exact(&mut command) {
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let size = command.get(2..6).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes);
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    if !(10..=MAX_COMMAND).contains(&size) {
        return Err(io::Error::new(ErrorKind::InvalidData, format!("a command of {size} bytes")));
    }
    command.resize(size, 0);
    if let Some(rest) = command.get_mut(10..) {
        stream.read_exact(rest)?;
    }
    Ok(Some(command))
}

/// The TPM with its world.
struct Machine {
    tpm: Tpm,
    host: Host,
    locality: u8,
}

fn locked<T>(machine: &Mutex<Machine>, work: impl FnOnce(&mut Machine) -> T) -> T {
    work(&mut machine.lock().unwrap_or_else(PoisonError::into_inner))
}

fn serve(stream: &mut UnixStream, machine: &Mutex<Machine>) -> io::Result<()> {
    while let Some(command) = read_command(stream)? {
        let response = locked(machine, |m| m.tpm.execute(&mut m.host, m.locality, &command));
        stream.write_all(&response)?;
    }
    Ok(())
}

/// `TPM_BAD_LOCALITY` of TPM 1.2, as swtpm tells it.
const BAD_LOCALITY: u32 = 0x3d;

/// One message of swtpm's control channel; what it answers.
fn control(stream: &mut UnixStream, machine: &Mutex<Machine>) -> io::Result<Vec<u8>> {
    fn read<const N: usize>(stream: &mut UnixStream) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        stream.read_exact(&mut bytes).map(|()| bytes)
    }
    let failed = |_: CommitFailed| io::Error::other("the commit failed");
    let mut rest = Vec::new();
    let mut code = 0;
    match u32::from_be_bytes(read(stream)?) {
        // INIT, with flags.
        2 => {
            read::<4>(stream)?;
            locked(machine, |m| m.tpm.init(&mut m.host)).map_err(failed)?;
        }
        // GET_TPMESTABLISHED: the bit, and padding.
        4 => rest = vec![u8::from(locked(machine, |m| m.tpm.is_established())), 0, 0, 0],
        // SET_LOCALITY
        5 => {
            let [locality] = read(stream)?;
            locked(machine, |m| m.locality = locality);
        }
        // HASH_START, HASH_DATA with its size, HASH_END
        6 => locked(machine, |m| m.tpm.hash_start(&mut m.host)).map_err(failed)?,
        7 => {
            let size = usize::try_from(u32::from_be_bytes(read(stream)?)).unwrap_or(usize::MAX);
            let mut data = vec![0; size.min(MAX_COMMAND)];
            stream.read_exact(&mut data)?;
            locked(machine, |m| m.tpm.hash_data(&data));
        }
        8 => locked(machine, |m| m.tpm.hash_end(&mut m.host)).map_err(failed)?,
        // RESET_TPMESTABLISHED, from a locality.
        11 => {
            let [locality] = read(stream)?;
            let reset =
                locked(machine, |m| m.tpm.reset_established(&mut m.host, locality)).map_err(failed)?;
            code = if reset { 0 } else { BAD_LOCALITY };
        }
        other => return Err(io::Error::new(ErrorKind::InvalidData, format!("control message {other}"))),
    }
    Ok([&code.to_be_bytes(), rest.as_slice()].concat())
}

fn serve_control(listener: &UnixListener, machine: &Mutex<Machine>) {
    for stream in listener.incoming() {
        let result = stream.and_then(|mut stream| {
            let answer = control(&mut stream, machine)?;
            stream.write_all(&answer)
        });
        if let Err(e) = result {
            eprintln!("simulator: control: {e}");
        }
    }
}

fn main() -> io::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let Some(path) = arguments.next() else {
        return Err(io::Error::new(ErrorKind::InvalidInput, "usage: simulator SOCKET [CONTROL-SOCKET]"));
    };
    let mut host = Host { random: File::open("/dev/urandom")?, started: Instant::now() };
    let mut tpm = Tpm::manufacture(&mut host);
    let startup = [0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x44, 0, 0];
    tpm.execute(&mut host, 0, &startup);
    let machine = Mutex::new(Machine { tpm, host, locality: 0 });
    let control = arguments.next().map(UnixListener::bind).transpose()?;
    let listener = UnixListener::bind(path)?;
    std::thread::scope(|scope| {
        if let Some(control) = &control {
            scope.spawn(|| serve_control(control, &machine));
        }
        for stream in listener.incoming() {
            if let Err(e) = serve(&mut stream?, &machine) {
                eprintln!("simulator: connection ended: {e}");
            }
        }
        Ok(())
    })
}
