//! The raw TPM socket of the root: a stream of commands, each answered by its response, as any TSS speaks it.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vtpm_backend::socket::{Access, FrontDoorError, Listener, is_passing};
use vtpm_protocol::codec::Encode;
use vtpm_protocol::instance::MAX_INSTANCE_COMMAND;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{HEADER_SIZE, TpmSt};
use zeroize::{Zeroize, Zeroizing};

use super::DaemonError;
use super::doors::make_private_dir;
use crate::gate::Gate;
use crate::service::Sockets;
use crate::tree::Instance;

/// Clients at a time; more are sent away.
const MAX_CLIENTS: usize = 64;
/// Bytes that are read at once; a longer command takes more reads.
const AT_ONCE: usize = 4096;
/// How long a client may take for the rest of a command that it has begun, and to take its response.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the end waits for commands that are being executed.
const END_WAIT: Duration = Duration::from_secs(20);

/// The socket, open until this is dropped.
pub(crate) struct RawSocket {
    path: PathBuf,
    listener: Arc<Listener>,
    gate: Arc<Gate>,
    clients: Arc<Clients>,
    thread: Option<JoinHandle<()>>,
}

impl RawSocket {
    /// Listens at `path`, in a directory of its own, in place of a socket that a dead process left, or on the socket that was handed in for it.
    pub(super) fn open(path: &Path, sockets: &mut Sockets, root: Arc<Instance>) -> Result<Self, DaemonError> {
        let failed = |source| DaemonError::Make { path: path.to_owned(), source };
        if let Some(dir) = path.parent() {
            make_private_dir(dir)?;
        }
        let listener = sockets.unix(path, Access::default()).map_err(|error| match error {
            FrontDoorError::InUse(path) => DaemonError::InUse(path),
            other => DaemonError::RawSocket(other),
        })?;
        let (listener, clients) = (Arc::new(listener), Arc::<Clients>::default());
        let gate = Arc::new(Gate::new().map_err(failed)?);
        let thread = std::thread::Builder::new()
            .name("tpm.sock".into())
            .spawn({
                let (listener, gate, clients) = (listener.clone(), gate.clone(), clients.clone());
                move || accept(&listener, &gate, &clients, &root)
            })
            .map_err(failed)?;
        Ok(Self { path: path.to_owned(), listener, gate, clients, thread: Some(thread) })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Tells how many are connected, for as long as this is open.
    pub(super) fn count(&self) -> impl Fn() -> usize + Send + Sync + 'static {
        let clients = Arc::downgrade(&self.clients);
        move || clients.upgrade().map_or(0, |clients| clients.list().inside.len())
    }

    /// The socket that clients connect to.
    pub(super) fn listener(&self) -> &Listener {
        &self.listener
    }
}

impl Drop for RawSocket {
    /// Commands that are being executed are finished and answered.
    fn drop(&mut self) {
        self.gate.close();
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
        self.clients.see_off();
    }
}

/// Everybody who is connected.
#[derive(Default)]
struct Clients {
    list: Mutex<List>,
    left: Condvar,
}

#[derive(Default)]
struct List {
    next: u64,
    inside: HashMap<u64, Arc<UnixStream>>,
}

impl Clients {
    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets one in, if there is room.
    fn welcome(&self, stream: &Arc<UnixStream>) -> Option<u64> {
        let mut list = self.list();
        if list.inside.len() >= MAX_CLIENTS {
            return None;
        }
        let id = list.next;
        list.next = list.next.wrapping_add(1);
        list.inside.insert(id, stream.clone());
        Some(id)
    }

    fn leave(&self, id: u64) {
        self.list().inside.remove(&id);
        self.left.notify_all();
    }

    /// Takes no more commands from anybody, and waits for those that are being executed.
    fn see_off(&self) {
        let list = self.list();
        for stream in list.inside.values() {
            let _gone = stream.shutdown(Shutdown::Read);
        }
        let somebody = |list: &mut List| !list.inside.is_empty();
        let (list, _) =
            self.left.wait_timeout_while(list, END_WAIT, somebody).unwrap_or_else(PoisonError::into_inner);
        if !list.inside.is_empty() {
            log::warn!("tpm.sock: {} clients do not take their responses", list.inside.len());
        }
    }
}

fn accept(listener: &Listener, gate: &Gate, clients: &Arc<Clients>, root: &Arc<Instance>) {
    let troubled = |error: io::Error| {
        log::warn!("tpm.sock: {error}");
        std::thread::sleep(Duration::from_millis(200));
    };
    loop {
        match gate.wait(listener) {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => troubled(error),
        }
        let stream = match listener.accept() {
            Ok(stream) => Arc::new(UnixStream::from(stream)),
            Err(error) if is_passing(&error) => continue,
            Err(error) => {
                troubled(error);
                continue;
            }
        };
        let Some(id) = clients.welcome(&stream) else {
            log::warn!("tpm.sock: more than {MAX_CLIENTS} clients; one is sent away");
            continue;
        };
        let spawned = std::thread::Builder::new().name("tpm.sock client".into()).spawn({
            let (root, clients) = (root.clone(), clients.clone());
            move || {
                if let Err(e) = serve(&stream, &root) {
                    log::debug!("tpm.sock: a client went: {e}");
                }
                // Before it is known that nobody has the root any more.
                drop(root);
                clients.leave(id);
            }
        });
        if let Err(e) = spawned {
            log::warn!("tpm.sock: {e}");
            clients.leave(id);
        }
    }
}

fn serve(mut stream: &UnixStream, root: &Instance) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    // Most commands come whole, with one read.
    let mut buffer = Zeroizing::new([0; AT_ONCE]);
    loop {
        await_bytes(stream)?;
        let got = stream.read(&mut *buffer)?;
        if got == 0 {
            return Ok(());
        }
        let mut come = buffer.get(..got).unwrap_or_default();
        while !come.is_empty() {
            let response = match read_command(stream, &mut come)? {
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
fn read_command(stream: &UnixStream, come: &mut &[u8]) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
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
fn fill(mut stream: &UnixStream, come: &mut &[u8], out: &mut [u8]) -> io::Result<()> {
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
