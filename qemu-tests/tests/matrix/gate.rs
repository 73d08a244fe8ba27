//! Sits between a QEMU and its vtpmd and lets the TPM's state through as far as a test says.
//!
//! All vhost-user messages pass with their descriptors. The pipe that comes with `SET_DEVICE_STATE_FD` is exchanged for a
//! small one of the gate's own, so that the state stands still in the middle of a save or a load, with the one side in `read` and the
//! other in `write`, for as long as the test needs to do something to one of them.

use nix::fcntl::{FcntlArg, fcntl};
use qemu_tests::{Error, Result};
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

/// `VHOST_USER_SET_DEVICE_STATE_FD`
const SET_DEVICE_STATE_FD: u32 = 42;
/// Longer than any message of vhost-user.
const MAX_PAYLOAD: usize = 1 << 16;
/// What a pipe of the gate holds: less than any state, so that who writes it is held up, too.
const PIPE: i32 = 4096;

/// The way of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From vtpmd to QEMU.
    Save,
    /// From QEMU to vtpmd.
    Load,
}

#[derive(Default)]
struct Plan {
    /// The next transfer of this way stops after so many bytes.
    hold: Option<(Way, usize)>,
    /// It stands there.
    held: bool,
}

#[derive(Default)]
struct Shared {
    connections: AtomicUsize,
    plan: Mutex<Plan>,
    changed: Condvar,
}

impl Shared {
    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the gate is opened, if these are the bytes after which it is to be shut. Returns how many may pass now.
    fn room(&self, way: Way, passed: usize) -> usize {
        let mut plan = self.plan();
        loop {
            match plan.hold {
                Some((held, after)) if held == way => {
                    let left = after.saturating_sub(passed);
                    if left > 0 {
                        return left;
                    }
                    plan.held = true;
                    self.changed.notify_all();
                    plan = self.changed.wait(plan).unwrap_or_else(PoisonError::into_inner);
                }
                _ => return usize::MAX,
            }
        }
    }
}

/// A gate before the socket of one instance. It opens when it is dropped.
pub struct Gate {
    socket: PathBuf,
    shared: Arc<Shared>,
}

impl Gate {
    /// Listens at `socket` for QEMU and connects to vtpmd's `backend` whenever it comes.
    pub fn new(socket: &Path, backend: &Path) -> Result<Self> {
        let listener = UnixListener::bind(socket).map_err(Error::io(socket.display().to_string()))?;
        let shared = Arc::new(Shared::default());
        let (backend, plan) = (backend.to_owned(), Arc::clone(&shared));
        thread::spawn(move || {
            for qemu in listener.incoming() {
                let (Ok(qemu), Ok(daemon)) = (qemu, UnixStream::connect(&backend)) else { continue };
                plan.connections.fetch_add(1, Ordering::Release);
                let (Ok(up), Ok(down)) = (qemu.try_clone(), daemon.try_clone()) else { continue };
                thread::spawn(move || answers(daemon, qemu));
                let plan = Arc::clone(&plan);
                thread::spawn(move || {
                    let _ended = requests(&up, &down, &plan);
                    let _ = up.shutdown(Shutdown::Both);
                    let _ = down.shutdown(Shutdown::Both);
                });
            }
        });
        Ok(Self { socket: socket.to_owned(), shared })
    }

    /// Where QEMU connects.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// How often QEMU and vtpmd were brought together.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Acquire)
    }

    /// The next transfer of this way stands still after so many bytes.
    pub fn hold(&self, way: Way, after: usize) {
        *self.shared.plan() = Plan { hold: Some((way, after)), held: false };
    }

    /// Waits until the transfer stands still.
    pub fn wait_held(&self, timeout: Duration) -> Result<()> {
        let plan = self.shared.plan();
        let (plan, _) = self
            .shared
            .changed
            .wait_timeout_while(plan, timeout, |plan| !plan.held)
            .unwrap_or_else(PoisonError::into_inner);
        if plan.held {
            return Ok(());
        }
        Err(Error::Timeout { what: "no transfer of a state came to the gate".into(), after: timeout })
    }

    /// Lets it go on.
    pub fn open(&self) {
        *self.shared.plan() = Plan::default();
        self.shared.changed.notify_all();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.open();
    }
}

/// From vtpmd to QEMU; no descriptors go this way.
fn answers(mut daemon: UnixStream, mut qemu: UnixStream) {
    let _ended = io::copy(&mut daemon, &mut qemu);
    let _ = qemu.shutdown(Shutdown::Both);
    let _ = daemon.shutdown(Shutdown::Both);
}

/// From QEMU to vtpmd, message by message.
fn requests(mut qemu: &UnixStream, mut daemon: &UnixStream, shared: &Arc<Shared>) -> io::Result<()> {
    loop {
        let mut header = [0; 12];
        let (length, mut descriptor) = qemu.recv_with_fd(&mut header).map_err(system)?;
        if length == 0 {
            return Ok(());
        }
        qemu.read_exact(header.get_mut(length..).unwrap_or_default())?;
        let field =
            |at: usize| header.get(at..).and_then(|b| b.first_chunk()).copied().map(u32::from_le_bytes);
        let size = field(8).and_then(|size| usize::try_from(size).ok()).filter(|size| *size <= MAX_PAYLOAD);
        let mut payload = vec![0; size.ok_or(io::ErrorKind::InvalidData)?];
        qemu.read_exact(&mut payload)?;
        if field(0) == Some(SET_DEVICE_STATE_FD)
            && let Some(pipe) = descriptor.take()
        {
            let way = if payload.first() == Some(&0) { Way::Save } else { Way::Load };
            descriptor = Some(splice(pipe, way, shared)?);
        }
        let message = [header.as_slice(), &payload].concat();
        match descriptor {
            Some(descriptor) => {
                let sent = daemon.send_with_fd(message.as_slice(), descriptor.as_raw_fd()).map_err(system)?;
                daemon.write_all(message.get(sent..).unwrap_or_default())?;
            }
            None => daemon.write_all(&message)?,
        }
    }
}

fn system(error: vmm_sys_util::errno::Error) -> io::Error {
    io::Error::from_raw_os_error(error.errno())
}

/// A pipe for vtpmd in place of QEMU's, and a thread that moves the bytes between the two.
fn splice(qemu: File, way: Way, shared: &Arc<Shared>) -> io::Result<File> {
    let (reader, writer) = nix::unistd::pipe()?;
    fcntl(&reader, FcntlArg::F_SETPIPE_SZ(PIPE))?;
    let (from, to, theirs) = match way {
        Way::Save => (File::from(reader), qemu, File::from(writer)),
        Way::Load => (qemu, File::from(writer), File::from(reader)),
    };
    let shared = Arc::clone(shared);
    thread::spawn(move || pump(from, to, way, &shared));
    Ok(theirs)
}

fn pump(mut from: File, mut to: File, way: Way, shared: &Shared) -> io::Result<()> {
    let mut buffer = vec![0; 4096];
    let mut passed = 0usize;
    loop {
        let room = shared.room(way, passed).min(buffer.len());
        let Some(portion) = buffer.get_mut(..room) else { return Ok(()) };
        let length = from.read(portion)?;
        if length == 0 {
            return Ok(());
        }
        to.write_all(portion.get(..length).unwrap_or_default())?;
        passed = passed.saturating_add(length);
    }
}
