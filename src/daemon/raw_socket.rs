//! The raw TPM socket of the root: a stream of commands, each answered by its response, as any TSS speaks it.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Shutdown, shutdown};
use vtpm_protocol::codec::Encode;
use vtpm_protocol::instance::MAX_INSTANCE_COMMAND;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{HEADER_SIZE, TpmSt};
use zeroize::{Zeroize, Zeroizing};

use super::DaemonError;
use super::doors::make_private_dir;
use crate::tree::Instance;

/// Clients at a time; more are sent away.
const MAX_CLIENTS: usize = 64;
/// Bytes that are read at once; a longer command takes more reads.
const AT_ONCE: usize = 4096;
/// How long a client may take for the rest of a command that it has begun, and to take its response.
const PATIENCE: Duration = Duration::from_secs(30);

/// The socket, open until this is dropped.
pub(crate) struct RawSocket {
    path: PathBuf,
    listener: Arc<UnixListener>,
    exit: Arc<AtomicBool>,
    clients: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl RawSocket {
    /// Listens at `path`, in a directory of its own, in place of a socket that a dead process left.
    pub(super) fn bind(path: &Path, root: Arc<Instance>) -> Result<Self, DaemonError> {
        let failed = |source| DaemonError::Make { path: path.to_owned(), source };
        if let Some(dir) = path.parent() {
            make_private_dir(dir)?;
        }
        if UnixStream::connect(path).is_ok() {
            return Err(DaemonError::InUse(path.to_owned()));
        }
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
        // The directory is private; the mode is for those who move sockets about.
        let listener = Arc::new(UnixListener::bind(path).map_err(failed)?);
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let exit = Arc::new(AtomicBool::new(false));
        let clients = Arc::new(AtomicUsize::new(0));
        let thread = std::thread::Builder::new()
            .name("tpm.sock".into())
            .spawn({
                let (listener, exit, clients) = (listener.clone(), exit.clone(), clients.clone());
                move || accept(&listener, &exit, &clients, &root)
            })
            .map_err(failed)?;
        Ok(Self { path: path.to_owned(), listener, exit, clients, thread: Some(thread) })
    }

    /// How many are connected.
    pub(super) fn clients(&self) -> Arc<AtomicUsize> {
        self.clients.clone()
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for RawSocket {
    fn drop(&mut self) {
        self.exit.store(true, Ordering::Release);
        // Wakes the accept.
        let _ = shutdown(self.listener.as_raw_fd(), Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
        let _gone = fs::remove_file(&self.path);
    }
}

fn accept(listener: &UnixListener, exit: &AtomicBool, clients: &Arc<AtomicUsize>, root: &Arc<Instance>) {
    loop {
        let stream = match listener.accept() {
            _ if exit.load(Ordering::Acquire) => return,
            Ok((stream, _)) => stream,
            Err(e) => {
                log::warn!("tpm.sock: {e}");
                std::thread::sleep(Duration::from_millis(200));
                continue;
            }
        };
        if clients.fetch_add(1, Ordering::AcqRel) >= MAX_CLIENTS {
            log::warn!("tpm.sock: more than {MAX_CLIENTS} clients; one is sent away");
            clients.fetch_sub(1, Ordering::AcqRel);
            continue;
        }
        let spawned = std::thread::Builder::new().name("tpm.sock client".into()).spawn({
            let (root, clients) = (root.clone(), clients.clone());
            move || {
                if let Err(e) = serve(stream, &root) {
                    log::debug!("tpm.sock: a client went: {e}");
                }
                clients.fetch_sub(1, Ordering::AcqRel);
            }
        });
        if let Err(e) = spawned {
            log::warn!("tpm.sock: {e}");
            clients.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

fn serve(mut stream: UnixStream, root: &Instance) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    // Most commands come whole, with one read.
    let mut buffer = Zeroizing::new([0; AT_ONCE]);
    loop {
        await_bytes(&stream)?;
        let got = stream.read(&mut *buffer)?;
        if got == 0 {
            return Ok(());
        }
        let mut come = buffer.get(..got).unwrap_or_default();
        while !come.is_empty() {
            let response = match read_command(&mut stream, &mut come)? {
                Some(command) => root.execute_long(&command),
                None => {
                    // What follows cannot be told from a next command: answer and hang up.
                    let refusal = (TpmSt::NO_SESSIONS, 10u32, ResponseCode::COMMAND_SIZE.value());
                    return stream.write_all(&refusal.to_bytes());
                }
            };
            stream.write_all(&response)?;
        }
        buffer.get_mut(..got).unwrap_or_default().zeroize();
    }
}

/// Waits until there is something to be read, or the end. A read that waits is woken also when the client takes the response before (Linux wakes
/// whoever waits at a UNIX socket for anything when there is more room to write), for nothing, while the client goes on; a poll is not.
fn await_bytes(stream: &UnixStream) -> io::Result<()> {
    loop {
        match poll(&mut [PollFd::new(stream.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
            Ok(_) => return Ok(()),
        }
    }
}

/// The command at the front of what has `come`, which it is taken from; what is missing there is read. `None` when its header names a size
/// that no command has.
fn read_command(stream: &mut UnixStream, come: &mut &[u8]) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let mut header = [0; HEADER_SIZE];
    fill(stream, come, &mut header)?;
    let [_, _, a, b, c, d, ..] = header;
    let size = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    if !(HEADER_SIZE..=MAX_INSTANCE_COMMAND).contains(&size) {
        return Ok(None);
    }
    let mut command = Zeroizing::new(vec![0; size]);
    let (start, rest) = command.split_at_mut(HEADER_SIZE);
    start.copy_from_slice(&header);
    fill(stream, come, rest)?;
    Ok(Some(command))
}

/// Fills `out` with what has `come`, and then from the stream, with patience.
fn fill(stream: &mut UnixStream, come: &mut &[u8], out: &mut [u8]) -> io::Result<()> {
    let here = come.len().min(out.len());
    let (front, missing) = out.split_at_mut(here);
    let (taken, left) = come.split_at(here);
    front.copy_from_slice(taken);
    *come = left;
    if missing.is_empty() {
        return Ok(());
    }
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.read_exact(missing)?;
    stream.set_read_timeout(None)
}
