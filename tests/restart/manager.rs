//! A service manager of the kind of systemd, as far as vtpmd has to do with it: it is told things on a datagram socket, keeps descriptors for the
//! next process, and hands in those that it listens on itself.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::io::FdFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// `FileDescriptorStoreMax=` of the unit.
const MOST: usize = 4;

#[derive(Default)]
struct Known {
    /// `READY=1`, `WATCHDOG=1` and `STOPPING=1`, in the order in which they came, without repetition.
    told: Vec<String>,
    watchdogs: usize,
    status: String,
    kept: Vec<(String, OwnedFd)>,
}

#[derive(Default)]
struct State {
    known: Mutex<Known>,
    changed: Condvar,
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap()
    }

    fn hear(&self, text: &str, descriptors: Vec<OwnedFd>) {
        let mut known = self.lock();
        let field = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        if field("FDSTORE").is_some() {
            for descriptor in descriptors {
                assert!(known.kept.len() < MOST, "the store is full");
                known.kept.push((field("FDNAME").unwrap_or("stored").to_owned(), descriptor));
            }
        }
        if field("FDSTOREREMOVE").is_some() {
            let name = field("FDNAME").unwrap();
            known.kept.retain(|(kept, _)| kept != name);
        }
        if let Some(status) = field("STATUS") {
            known.status = status.to_owned();
        }
        for line in text.lines().filter(|l| ["READY=1", "WATCHDOG=1", "STOPPING=1"].contains(l)) {
            known.watchdogs += usize::from(line == "WATCHDOG=1");
            if known.told.last().is_none_or(|last| last != line) {
                known.told.push(line.to_owned());
            }
        }
        // The descriptor of BARRIER=1 is closed by now.
        self.changed.notify_all();
    }
}

pub struct Manager {
    socket: PathBuf,
    state: Arc<State>,
    /// What it listens on, by `FileDescriptorName=`.
    pub listening: Vec<(String, OwnedFd)>,
    /// More variables of the environment.
    pub environment: Vec<(&'static str, String)>,
}

impl Manager {
    pub fn at(dir: &Path) -> Self {
        let socket = dir.join("notify");
        let datagrams = UnixDatagram::bind(&socket).unwrap();
        let state = Arc::new(State::default());
        std::thread::spawn({
            let state = state.clone();
            move || {
                loop {
                    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
                    let mut ancillary = RecvAncillaryBuffer::new(&mut room);
                    let mut text = [0; 4096];
                    let mut parts = [IoSliceMut::new(&mut text)];
                    let flags = RecvFlags::CMSG_CLOEXEC;
                    let length = recvmsg(&datagrams, &mut parts, &mut ancillary, flags).unwrap().bytes;
                    let descriptors = ancillary.drain().filter_map(|message| match message {
                        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
                        _ => None,
                    });
                    let descriptors = descriptors.flatten().collect();
                    state.hear(std::str::from_utf8(&text[..length]).unwrap(), descriptors);
                }
            }
        });
        Self { socket, state, listening: Vec::new(), environment: Vec::new() }
    }

    /// `program` as it starts it: with the descriptors that it keeps or listens on from number 3 on.
    pub fn command(&self, program: &Command) -> Command {
        self.forget_dead();
        let known = self.state.lock();
        let descriptors: Vec<_> = known.kept.iter().chain(&self.listening).collect();
        let mut script = String::new();
        let mut names = Vec::new();
        for (index, (name, descriptor)) in descriptors.iter().enumerate() {
            rustix::io::fcntl_setfd(descriptor, FdFlags::empty()).unwrap();
            let number = descriptor.as_raw_fd();
            // First out of the way of one another.
            script.insert_str(0, &format!("exec {}<&{number} {number}<&-; ", 500 + index));
            script.push_str(&format!("exec {0}<&{1} {1}<&-; ", 3 + index, 500 + index));
            names.push(name.as_str());
        }
        let mut shell = Command::new("bash");
        shell.arg("-c").arg(format!("{script} export LISTEN_PID=$$ WATCHDOG_PID=$$; exec \"$0\" \"$@\""));
        shell.arg(program.get_program()).args(program.get_args()).stdin(Stdio::null());
        shell.env("NOTIFY_SOCKET", &self.socket);
        if !names.is_empty() {
            shell.env("LISTEN_FDS", names.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        }
        shell.envs(self.environment.iter().map(|(k, v)| (k, v)));
        shell
    }

    /// As systemd does it: what nobody is at the other end of is not kept.
    fn forget_dead(&self) {
        self.state.lock().kept.retain(|(_, descriptor)| {
            let mut fds = [PollFd::new(descriptor.as_fd(), PollFlags::empty())];
            poll(&mut fds, PollTimeout::ZERO).unwrap();
            !fds[0].revents().unwrap().intersects(PollFlags::POLLHUP | PollFlags::POLLERR)
        });
    }

    /// What is kept, by name.
    pub fn kept(&self) -> Vec<String> {
        self.state.lock().kept.iter().map(|(name, _)| name.clone()).collect()
    }

    pub fn keep(&self, name: &str, descriptor: OwnedFd) {
        self.state.lock().kept.push((name.to_owned(), descriptor));
    }

    /// As when the unit is stopped and not started again.
    pub fn forget(&self) {
        self.state.lock().kept.clear();
    }

    /// Waits for `READY=1` of a process that was just started.
    pub fn wait_ready(&self) {
        let starting = |known: &mut Known| !known.told.iter().any(|line| line == "READY=1");
        let known = self.state.lock();
        let (known, timeout) =
            self.state.changed.wait_timeout_while(known, Duration::from_secs(60), starting).unwrap();
        assert!(!timeout.timed_out(), "told {:?}", known.told);
    }

    /// What it was told, in order, and forgets it.
    pub fn told(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().told)
    }

    pub fn watchdogs(&self) -> usize {
        self.state.lock().watchdogs
    }

    pub fn status(&self) -> String {
        self.state.lock().status.clone()
    }
}
