//! A client of one TPM behind a UNIX stream socket.

use crate::cases::Case;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;
use vtpm_protocol::codec::{Encode, Reader, encode_sized};
use vtpm_protocol::tpm::{HEADER_SIZE, TpmCc, TpmHandle, TpmSt};

/// Waits until something has come. A read that waits would be woken for nothing when the other side takes what was written before.
fn await_bytes(stream: &UnixStream) {
    poll(&mut [PollFd::new(stream.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).unwrap();
}

/// One response; `None` at the end of the stream.
fn read_response(stream: &mut UnixStream) -> Option<Vec<u8>> {
    let mut response = vec![0; 4096];
    let mut come = 0;
    loop {
        await_bytes(stream);
        match stream.read(&mut response[come..]).ok()? {
            0 => return None,
            got => come += got,
        }
        if come >= HEADER_SIZE
            && come >= usize::try_from(u32::from_be_bytes(response[2..6].try_into().ok()?)).ok()?
        {
            response.truncate(come);
            return Some(response);
        }
    }
}

/// Answers the commands of one client, each of which comes with one read, until it leaves. Waits as the others do, in a poll.
pub fn serve(mut stream: &UnixStream, mut execute: impl FnMut(&[u8]) -> Vec<u8>) {
    let mut command = [0; 4096];
    loop {
        await_bytes(stream);
        match stream.read(&mut command).unwrap() {
            0 => return,
            got => stream.write_all(&execute(&command[..got])).unwrap(),
        }
    }
}

/// Asks one TPM: command in, response out.
pub type Ask = Box<dyn FnMut(&[u8]) -> Vec<u8>>;

/// A TPM, and what was made in it.
pub struct Client {
    ask: Ask,
    /// To be flushed.
    loaded: Vec<TpmHandle>,
    /// The owner's password.
    owner: Vec<u8>,
}

/// A command with the authorization of its handles: empty passwords.
pub fn command(code: TpmCc, handles: &[TpmHandle], passwords: usize, parameters: &dyn Encode) -> Vec<u8> {
    authorized(code, handles, &vec![b"".as_slice(); passwords], parameters)
}

fn authorized(code: TpmCc, handles: &[TpmHandle], passwords: &[&[u8]], parameters: &dyn Encode) -> Vec<u8> {
    let mut body = Vec::new();
    handles.iter().for_each(|h| h.encode(&mut body));
    if !passwords.is_empty() {
        let mut area = Vec::new();
        for password in passwords {
            (TpmHandle::RS_PW, 0u16, 0u8).encode(&mut area);
            encode_sized(password, &mut area);
        }
        u32::try_from(area.len()).unwrap().encode(&mut body);
        body.append(&mut area);
    }
    parameters.encode(&mut body);
    let tag = if passwords.is_empty() { TpmSt::NO_SESSIONS } else { TpmSt::SESSIONS };
    let mut out = (tag, u32::try_from(body.len() + HEADER_SIZE).unwrap(), code).to_bytes();
    out.append(&mut body);
    out
}

impl Client {
    /// The TPM behind a socket.
    pub fn connect(socket: &Path, owner: &[u8]) -> Self {
        Self::of(UnixStream::connect(socket).unwrap(), owner)
    }

    /// The TPM at the other end of a connection.
    pub fn of(mut stream: UnixStream, owner: &[u8]) -> Self {
        let ask = move |command: &[u8]| {
            stream.write_all(command).unwrap();
            read_response(&mut stream).unwrap_or_else(|| panic!("no answer to {command:02x?}"))
        };
        Self::new(Box::new(ask), owner)
    }

    pub fn new(ask: Ask, owner: &[u8]) -> Self {
        Self { ask, loaded: Vec::new(), owner: owner.to_vec() }
    }

    /// A command that the owner authorizes.
    pub fn owner(&self, code: TpmCc, handles: &[TpmHandle], parameters: &dyn Encode) -> Vec<u8> {
        authorized(code, handles, &[&self.owner], parameters)
    }

    /// The response of a command that must succeed.
    pub fn run(&mut self, command: &[u8]) -> Vec<u8> {
        let response = (self.ask)(command);
        assert_eq!(response[6..10], [0; 4], "{:02x?} to {command:02x?}", &response[6..10]);
        response
    }

    /// As [`Self::run`], of a command that returns a handle, which is flushed by [`Self::clean`]; with the parameters.
    pub fn load(&mut self, command: &[u8]) -> (TpmHandle, Vec<u8>) {
        let response = self.run(command);
        let mut r = Reader::new(&response[HEADER_SIZE..]);
        let handle = TpmHandle(u32::from_be_bytes(r.array().unwrap()));
        self.loaded.push(handle);
        let parameters = if response[1] == 2 {
            let size = u32::from_be_bytes(r.array().unwrap());
            r.take(usize::try_from(size).unwrap()).unwrap().to_vec()
        } else {
            r.take_rest().to_vec()
        };
        (handle, parameters)
    }

    /// The parameters of a response to a command with sessions.
    pub fn parameters(&mut self, command: &[u8]) -> Vec<u8> {
        let response = self.run(command);
        let size = u32::from_be_bytes(response[HEADER_SIZE..HEADER_SIZE + 4].try_into().unwrap());
        response[HEADER_SIZE + 4..][..usize::try_from(size).unwrap()].to_vec()
    }

    pub fn flush(&mut self, handle: TpmHandle) {
        self.run(&command(TpmCc::FLUSH_CONTEXT, &[], 0, &handle));
        self.loaded.retain(|h| *h != handle);
    }

    /// Microseconds of one command; what it made is taken away again outside of them.
    pub fn timed(&mut self, command: &[u8], case: &Case) -> f64 {
        let start = Instant::now();
        let response = (self.ask)(command);
        let took = start.elapsed().as_secs_f64() * 1e6;
        assert_eq!(response[6..10], [0; 4], "{}: {:02x?}", case.name, &response[6..10]);
        if case.makes_handle {
            let handle = u32::from_be_bytes(response[HEADER_SIZE..HEADER_SIZE + 4].try_into().unwrap());
            self.flush(TpmHandle(handle));
        }
        if let Some(after) = case.after {
            after(self);
        }
        took
    }

    /// Flushes what the preparation of a case loaded.
    pub fn clean(&mut self) {
        for handle in std::mem::take(&mut self.loaded) {
            self.run(&command(TpmCc::FLUSH_CONTEXT, &[], 0, &handle));
        }
    }
}
