//! Connections that outlive the process: what a door hands over when its program ends to be started anew, and what the next one's door
//! goes on with.

use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::machine::{MAX_BUFFER, MAX_LOCALITY, MIN_BUFFER, Machine};

/// The clients of a door, with the machine behind them. No request and no command is half done.
pub struct Kept {
    /// The connection of the control channel.
    pub control: Option<OwnedFd>,
    /// The data channel.
    pub data: Option<OwnedFd>,
    /// What goes with them.
    pub state: KeptState,
}

/// What the door knew of its clients and their machine; to be kept in memory only, since it can hold a part of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct KeptState {
    running: bool,
    locality: u8,
    buffer: u32,
    resumes: bool,
    last_command: Option<u32>,
    exported: Option<Vec<u8>>,
    /// The client of the control channel passed a descriptor: its machine goes with it.
    pub(super) of_control: bool,
    /// The data channel is that descriptor's.
    pub(super) data_passed: bool,
    /// What came of a command that is not whole yet.
    pub(super) beginning: Vec<u8>,
}

impl KeptState {
    pub(super) fn of(machine: &Machine, of_control: bool) -> Self {
        Self {
            running: machine.running,
            locality: machine.locality,
            buffer: machine.buffer,
            resumes: machine.resumes,
            last_command: machine.last_command,
            exported: machine.exported.clone(),
            of_control,
            data_passed: false,
            beginning: Vec::new(),
        }
    }

    /// The machine, as it was; within what this program can do, if another version of it wrote this.
    pub(super) fn machine(&self) -> Machine {
        Machine {
            running: self.running,
            locality: self.locality.min(MAX_LOCALITY),
            buffer: self.buffer.clamp(MIN_BUFFER, MAX_BUFFER),
            resumes: self.resumes,
            last_command: self.last_command,
            exported: self.exported.clone(),
        }
    }
}
