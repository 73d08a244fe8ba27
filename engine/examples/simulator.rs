//! One TPM in memory behind a UNIX socket: raw command bytes in, raw response bytes out. To try the engine with tpm2-tools, without a virtual
//! machine and without a daemon; its state ends with the process.
//!
//! ```text
//! cargo run -p vtpm-engine --example simulator -- /tmp/tpm.sock &
//! export TPM2TOOLS_TCTI="cmd:socat - UNIX-CONNECT:/tmp/tpm.sock"
//! tpm2_createprimary -C o -c primary.ctx && tpm2_flushcontext -t
//! ```
//!
//! `Startup(CLEAR)` is done before the first command. Connections are served one after the other.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
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

fn serve(stream: &mut UnixStream, tpm: &mut Tpm, host: &mut Host) -> io::Result<()> {
    while let Some(command) = read_command(stream)? {
        stream.write_all(&tpm.execute(host, 0, &command))?;
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let Some(path) = std::env::args_os().nth(1) else {
        return Err(io::Error::new(ErrorKind::InvalidInput, "usage: simulator SOCKET"));
    };
    let mut host = Host { random: File::open("/dev/urandom")?, started: Instant::now() };
    let mut tpm = Tpm::manufacture(&mut host);
    let startup = [0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x44, 0, 0];
    tpm.execute(&mut host, 0, &startup);
    let listener = UnixListener::bind(path)?;
    for stream in listener.incoming() {
        if let Err(e) = serve(&mut stream?, &mut tpm, &mut host) {
            eprintln!("simulator: connection ended: {e}");
        }
    }
    Ok(())
}
