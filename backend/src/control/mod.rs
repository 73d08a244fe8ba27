//! The control channel and the data channel of swtpm, for QEMU's `tpm-crb` and `tpm-tis`, libvirt, Cloud Hypervisor and `swtpm_ioctl`.
//!
//! A [`ControlDoor`] stands before one device. TPM commands come over the descriptor that `CMD_SET_DATAFD` passes, or over a data socket of
//! the door's own. The door costs one thread while nobody is connected, and one more while there is a data channel, so that a command
//! that takes long does not keep `CMD_CANCEL_TPM_CMD` waiting.
//!
//! # Machine and TPM
//!
//! `CMD_INIT` switches the TPM on, `CMD_STOP` and `CMD_SHUTDOWN` switch it off (`machine`). While it is off, the door answers TPM
//! commands itself with `TPM_RC_FAILURE`, and the device hears of none: QEMU asks for the version of the TPM before it loads a migrated
//! state, and that must not count as the first command of the TPM's new life. When the connection that passed a descriptor ends, the
//! machine is gone, and its TPM is off.
//!
//! A program that ends to be started anew need not end its connections: [`ControlDoor::hand_over`] gives them out between two messages,
//! and [`ControlDoor::resume`] goes on with them. The client notices nothing, for QEMU does not connect to a control channel again.
//!
//! # Bad clients
//!
//! What is no request, what does not come to its end in time, and who does not read what was asked for: the connection is closed, with a
//! line in the log, and nothing else is touched. On the descriptor of a machine, TPM commands come from a guest, and a guest is
//! answered: a command that is none gets `TPM_RC_COMMAND_SIZE`.

mod blobs;
mod channel;
mod data;
mod door;
mod kept;
mod machine;
mod requests;

pub use crate::socket::{Access, Entrance, FrontDoorError};
pub use door::{ControlDoor, ControlEvent, Options};
pub use kept::{Kept, KeptState};
