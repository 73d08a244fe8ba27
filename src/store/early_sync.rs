//! Has the log synchronised while nobody waits for it.
//!
//! What a transaction leaves that need not outlive a loss of power ([`Durability::Process`](super::Durability)) stays in the memory of the system.
//! Before it moves into the database file it is synchronised, and that happens within a commit, while every other instance waits: some
//! milliseconds for the thousand pages that may have gathered. Synchronised early, by a thread that holds no lock, there is little left to
//! write then.
//!
//! Nothing depends on it. A failure is the business of the connection, whose own synchronisation then fails as well.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

use super::Counters;

/// After how many transactions. A transaction leaves about five pages of 4 KiB.
const EVERY: u32 = 32;

/// The thread, which ends with this.
pub(super) struct EarlySync {
    wake: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
    gathered: u32,
}

impl EarlySync {
    /// For the log of the database at `path`.
    pub(super) fn start(path: &Path, counters: Arc<Counters>) -> io::Result<Self> {
        let mut log = OsString::from(path);
        log.push("-wal");
        let (wake, woken) = sync_channel(1);
        let thread =
            Builder::new().name("store-sync".into()).spawn(move || run(&log.into(), &woken, &counters))?;
        Ok(Self { wake: Some(wake), thread: Some(thread), gathered: 0 })
    }

    /// A transaction was left to the system.
    pub(super) fn left(&mut self) {
        self.gathered = self.gathered.saturating_add(1);
        if self.gathered >= EVERY {
            self.gathered = 0;
            // It is at work already if there is no room: it will come back for this.
            let _ = self.wake.as_ref().map(|wake| wake.try_send(()));
        }
    }

    /// The log was synchronised.
    pub(super) fn synchronised(&mut self) {
        self.gathered = 0;
    }
}

impl Drop for EarlySync {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(log: &PathBuf, woken: &Receiver<()>, counters: &Counters) {
    while woken.recv().is_ok() {
        // Opened each time: the connection may be another one by now, with another log.
        match File::open(log).and_then(|file| file.sync_data()) {
            Ok(()) => counters.early_syncs.count(),
            Err(error) => log::debug!("{} is left to be synchronised later: {error}", log.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_may_be_missing_and_the_thread_ends_with_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let mut sync = EarlySync::start(&dir.path().join("database"), Arc::default()).unwrap();
        for _ in 0..EVERY * 3 {
            sync.left();
        }
        assert!(sync.gathered < EVERY);
        sync.left();
        sync.synchronised();
        assert_eq!(sync.gathered, 0);
        drop(sync);
    }
}
