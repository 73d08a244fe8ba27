//! Tells the service manager that the daemon lives, for as long as it does.
//!
//! A daemon that cannot go on by itself is started anew by the manager: its threads wait for one another, or the store's thread is gone. A medium that
//! does not answer is none of these. Starting anew would not help, and would take the TPM from machines that now only wait.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;

use sd_notify::NotifyState;

use super::tell;

/// Runs until it is dropped.
pub struct Watchdog {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Starts it, if the service manager wants to be told. `lives` takes what locks the daemon takes, and does not return where one is never
    /// given back; `false` when the daemon cannot go on.
    #[must_use]
    pub fn start(lives: impl Fn() -> bool + Send + 'static) -> Option<Self> {
        // Twice in the time after which it is taken for dead, as `sd_watchdog_enabled(3)` recommends.
        let pace = sd_notify::watchdog_enabled()?.checked_div(2).filter(|pace| !pace.is_zero())?;
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new().name("watchdog".into()).spawn(move || {
            let mut told = false;
            loop {
                if lives() {
                    tell(&[NotifyState::Watchdog]);
                } else if !std::mem::replace(&mut told, true) {
                    log::error!("vtpmd cannot go on, and waits for the service manager to start it anew");
                }
                if stopped.recv_timeout(pace) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        });
        match thread {
            Ok(thread) => Some(Self { stop: Some(stop), thread: Some(thread) }),
            Err(error) => {
                log::error!("the watchdog cannot be started: {error}");
                None
            }
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}
