//! virtio-tpm over vhost-user: one UNIX socket for every instance, one QEMU at a time on it.
//!
//! A [`FrontDoor`] stands before one device. It costs one thread while nobody is connected and two while QEMU is.
//!
//! # What comes from `vhost-user-backend`, and what does not
//!
//! What a connection serves (`tpm`) is a `VhostUserBackend` of that crate, its queue (`ring`) is a `VringMutex`; events and
//! epoll come from `vmm-sys-util`, the messages from `vhost`. The socket, the handler of the messages, the worker and the
//! dirty log are ours (`server`, `session`, `worker`, `dirty`), because the crate's `VhostUserDaemon`, as of 0.24,
//!
//! - takes its connections from a listening socket or a path alone, and tells their end only to a thread that blocks on it:
//!   no connected descriptor could be served, and sending a second QEMU away would cost a fourth thread;
//! - maps guest memory and the dirty log without a look at the length of their files, so that the first touch of a page
//!   behind the end kills this process, and with it the TPMs of all other machines;
//! - forgets the dirty log when the memory table changes in the middle of a migration, and keeps to itself how its bitmap
//!   is made;
//! - leaves one descriptor open for every connection that ended;
//! - ends its worker for good at a kick that cannot be read.

mod chain;
mod config;
mod dirty;
mod ring;
mod server;
mod session;
mod tpm;
mod transfer;
mod worker;

pub use crate::socket::FrontDoorError;
pub use config::{CONFIG_MACHINE_RESET, CONFIG_RUN_STATE, CONFIG_SIZE, CONFIG_VERSION};
pub use server::{FrontDoor, Options};
