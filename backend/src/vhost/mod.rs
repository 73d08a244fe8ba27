//! virtio-tpm over vhost-user: one UNIX socket for every instance, one QEMU at a time on it.
//!
//! A [`FrontDoor`] stands before one device. It costs one thread while nobody is connected and two while QEMU is.

mod chain;
mod config;
mod dirty;
mod ring;
mod server;
mod session;
mod transfer;
mod worker;

pub use config::{CONFIG_MACHINE_RESET, CONFIG_RUN_STATE, CONFIG_SIZE, CONFIG_VERSION};
pub use server::{FrontDoor, FrontDoorError, Options};
