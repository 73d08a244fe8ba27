//! One TPM in memory behind a UNIX socket: raw command bytes in, raw response bytes out. To try the engine with tpm2-tools, without a virtual
//! machine and without a daemon; its state ends with the process.
//!
//! ```text
//! cargo run -p vtpm-engine --example simulator -- /tmp/tpm.sock &
//! export TPM2TOOLS_TCTI="cmd:socat - UNIX-CONNECT:/tmp/tpm.sock"
//! tpm2_createprimary -C o -c primary.ctx && tpm2_flushcontext -t
//! ```
//!
//! `Startup(CLEAR)` is done before the first command. Connections are served one after the other. With a second socket, each connection to that
//! one is a loss of power, `_TPM_Init`: a byte is sent when it is over, and the next command must be `TPM2_Startup`.

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
}

fn locked<T>(machine: &Mutex<Machine>, work: impl FnOnce(&mut Tpm, &mut Host) -> T) -> T {
    let mut guard = machine.lock().unwrap_or_else(PoisonError::into_inner);
    let Machine { tpm, host } = &mut *guard;
    work(tpm, host)
}

fn serve(stream: &mut UnixStream, machine: &Mutex<Machine>) -> io::Result<()> {
    while let Some(command) = read_command(stream)? {
        let response = locked(machine, |tpm, host| tpm.execute(host, 0, &command));
        stream.write_all(&response)?;
    }
    Ok(())
}

fn serve_power(listener: &UnixListener, machine: &Mutex<Machine>) {
    for stream in listener.incoming() {
        let lost = locked(machine, |tpm, host| tpm.init(host).is_ok());
        if let Err(e) = stream.and_then(|mut s| s.write_all(&[u8::from(!lost)])) {
            eprintln!("simulator: power: {e}");
        }
    }
}

fn main() -> io::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let Some(path) = arguments.next() else {
        return Err(io::Error::new(ErrorKind::InvalidInput, "usage: simulator SOCKET [POWER-SOCKET]"));
    };
    let mut host = Host { random: File::open("/dev/urandom")?, started: Instant::now() };
    let mut tpm = Tpm::manufacture(&mut host);
    let startup = [0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x44, 0, 0];
    tpm.execute(&mut host, 0, &startup);
    let machine = Mutex::new(Machine { tpm, host });
    let power = arguments.next().map(UnixListener::bind).transpose()?;
    let listener = UnixListener::bind(path)?;
    std::thread::scope(|scope| {
        if let Some(power) = &power {
            scope.spawn(|| serve_power(power, &machine));
        }
        for stream in listener.incoming() {
            if let Err(e) = serve(&mut stream?, &machine) {
                eprintln!("simulator: connection ended: {e}");
            }
        }
        Ok(())
    })
}
