//! Faults on demand, for the test of crash safety (`tests/crash`): the process dies, or its medium fails, at a step that was named.
//!
//! Only a build with the feature `fault-injection` has them; it is refused for release builds. In every other build the calls below
//! are empty, and the environment is not looked at.
//!
//! # What can be asked for
//!
//! `VTPMD_FAULT` names one fault. A *step* is a transaction of the store, a *call* one of the system calls that change files; both are
//! counted from the start of the process, from 1.
//!
//! | value | what happens |
//! | --- | --- |
//! | `kill-before:N` | SIGKILL, before step N is written |
//! | `kill-after:N` | SIGKILL, when step N is durable and nothing else has happened yet |
//! | `kill-unsent:N` | SIGKILL, when the response of the command with step N is made and not sent |
//! | `kill-call:N` | SIGKILL, before call N |
//! | `tear-call:N` | SIGKILL in the middle of call N: a write leaves half of its bytes |
//! | `enospc:N`, `fsync:N` | from step N on the first write or synchronisation fails, and all others of that step |
//! | `enospc-call:N`, `fsync-call:N` | the first write or synchronisation from call N on fails |
//!
//! A `+` behind `enospc` and `fsync` faults makes the medium fail from then on, until there is a file at the path in
//! `VTPMD_FAULT_OVER`. What strikes says so on standard error, in a line that begins with `fault:`.
//!
//! # Where it strikes
//!
//! Steps are those of [`store`](crate::store). Calls and the errors of the medium are beneath everything: this build brings its own
//! `write`, `pwrite64`, `fsync`, `fdatasync`, `ftruncate64`, `rename`, `linkat` and `unlink`, which SQLite and Rust's library are linked
//! to in place of those of the C library.

#[cfg(feature = "fault-injection")]
mod injected;

#[cfg(feature = "fault-injection")]
pub use injected::arm;
#[cfg(feature = "fault-injection")]
pub(crate) use injected::{response_is_made, step_begins, step_is_over};

/// To be called first of all by a program that can be told to fail. Empty in this build.
#[cfg(not(feature = "fault-injection"))]
pub const fn arm() {}

/// A transaction is about to be written. Empty in this build.
#[cfg(not(feature = "fault-injection"))]
pub(crate) const fn step_begins() {}

/// A transaction was written, or failed. Empty in this build.
#[cfg(not(feature = "fault-injection"))]
pub(crate) const fn step_is_over(_durable: bool) {}

/// A response is about to be sent. Empty in this build.
#[cfg(not(feature = "fault-injection"))]
pub(crate) const fn response_is_made() {}
