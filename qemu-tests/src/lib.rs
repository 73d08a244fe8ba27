//! Boots real guests and drives them.
//!
//! A [`GuestBuilder`] makes a QEMU machine out of what `scripts/build-qemu` and `scripts/fetch-guest` made, a
//! [`Daemon`] is the vtpmd that serves its TPM. In the guest an agent runs what [`Guest::run`] says; its other end is
//! a serial port, so it goes on after a migration, over the port of the destination.
//!
//! The tests are in `tests/`, one file a subject. Each body is a function from a running guest, whatever brought that
//! guest to where it is: a fresh boot, a daemon that was killed, a reboot, a migration.

pub mod agent;
pub mod daemon;
pub mod error;
pub mod frame;
pub mod guest;
pub mod hosts;
pub mod libvirt;
pub mod possessions;
pub mod process;
pub mod qmp;
pub mod relay;
pub mod setup;
pub mod snapshot;
pub mod tpm;
pub mod workload;

pub use daemon::Daemon;
pub use error::{Error, Result, ensure, same};
pub use guest::{Guest, GuestBuilder};
pub use hosts::Hosts;
pub use possessions::Possessions;
pub use setup::{Setup, guest_test};
pub use workload::{Summary, Workload};
