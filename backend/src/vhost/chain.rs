//! One descriptor chain: a command in, room for its response out.
//!
//! A chain is a command in device-readable descriptors followed by room for the response in device-writable ones. The
//! command is copied whole before anything is written, because ChromeOS's driver offers one buffer for both.
//!
//! What a guest can get wrong, and what it gets:
//!
//! | the chain | the guest sees |
//! | --- | --- |
//! | an empty command, one shorter than a header, one over [`MAX_COMMAND_SIZE`] | `TPM_RC_COMMAND_SIZE` |
//! | descriptors that loop, run out of their table, or lie outside memory; garbage in an indirect table; a readable descriptor after a writable one | `TPM_RC_COMMAND_SIZE` when the writable descriptors found up to there hold a response header, else a used length of 0 |
//! | room for less than a response header, or room outside memory | a used length of 0. **The command is not executed** |
//! | room for a header but not for this response | the command was executed; `TPM_RC_NO_RESULT` |
//!
//! A used length of 0 is what Linux's TPM core turns into `-EFAULT`: it is shorter than a header. A truncated response
//! would be told apart only by its `responseSize`, so none is ever written.

use std::ops::Deref;

use virtio_queue::DescriptorChain;
use vm_memory::{Bytes, GuestAddress, GuestMemory, Permissions};
use vtpm_protocol::rc::ResponseCode;

use crate::device::MAX_COMMAND_SIZE;

/// The length of a command header, and of a response header: tag, size, code.
pub(crate) const HEADER_SIZE: usize = 10;

/// `TPM_ST_NO_SESSIONS`, the tag of every error response.
const NO_SESSIONS: u16 = 0x8001;

/// The most descriptors that are walked in one chain. Ten are plenty; an indirect table could hold 65535.
const MAX_DESCRIPTORS: usize = 1024;

/// A response that says `code` and nothing else.
pub(crate) fn error_response(code: ResponseCode) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_SIZE);
    out.extend_from_slice(&NO_SESSIONS.to_be_bytes());
    out.extend_from_slice(&[0, 0, 0, 10]);
    out.extend_from_slice(&code.value().to_be_bytes());
    out
}

/// What is wrong with a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Garbage {
    #[error("its descriptors loop, run out of their table, or are not in memory")]
    Malformed,
    #[error("a readable descriptor follows a writable one")]
    OutOfOrder,
    #[error("its command is not in memory")]
    CommandOutsideMemory,
    #[error("its room for a response is not in memory")]
    RoomOutsideMemory,
    #[error("it has room for {0} bytes of response, less than a header")]
    NoRoom(u64),
    #[error("its command has {0} bytes, less than a header")]
    Short(usize),
    #[error("its command is longer than {} bytes", MAX_COMMAND_SIZE)]
    Long,
}

/// The device-writable part of a chain.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Room {
    parts: Vec<(GuestAddress, u32)>,
    size: u64,
}

impl Room {
    /// The number of bytes that fit.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Writes `response` and returns its length for the used ring; 0 when it does not fit or memory went away.
    pub(crate) fn write<M: GuestMemory>(&self, mem: &M, response: &[u8]) -> u32 {
        let (Ok(total), true) =
            (u32::try_from(response.len()), u64::try_from(response.len()).is_ok_and(|len| len <= self.size))
        else {
            return 0;
        };
        let mut rest = response;
        for (address, len) in &self.parts {
            let take = rest.len().min(usize::try_from(*len).unwrap_or(usize::MAX));
            let (now, later) = rest.split_at_checked(take).unwrap_or((rest, &[]));
            if mem.write_slice(now, *address).is_err() {
                return 0;
            }
            rest = later;
        }
        total
    }
}

/// A chain, read.
#[derive(Debug)]
pub(crate) struct Request {
    /// The command, or why there is none that may be executed.
    pub(crate) command: Result<Vec<u8>, Garbage>,
    /// Where the response goes.
    pub(crate) room: Room,
}

/// Reads a chain: at most [`MAX_COMMAND_SIZE`] bytes of command, at most [`MAX_DESCRIPTORS`] descriptors.
pub(crate) fn read<M>(chain: DescriptorChain<M>) -> Request
where
    M: Deref + Clone,
    M::Target: GuestMemory + Sized,
{
    let mem = chain.clone();
    let mem = mem.memory();
    let mut command = Vec::new();
    let mut room = Room::default();
    let mut garbage = None;
    let mut ended = false;

    for descriptor in chain.take(MAX_DESCRIPTORS) {
        // The iterator stops without a word at a loop and at anything it cannot read; only the flag tells.
        ended = !descriptor.has_next();
        let len = usize::try_from(descriptor.len()).unwrap_or(usize::MAX);
        if descriptor.is_write_only() {
            if mem.check_range(descriptor.addr(), len, Permissions::Write) {
                room.parts.push((descriptor.addr(), descriptor.len()));
                room.size = room.size.saturating_add(u64::from(descriptor.len()));
            } else {
                garbage = garbage.or(Some(Garbage::RoomOutsideMemory));
                room = Room::default();
                ended = true;
                break;
            }
        } else if !room.parts.is_empty() {
            garbage = garbage.or(Some(Garbage::OutOfOrder));
        } else if garbage.is_none() {
            garbage = append(mem, &mut command, descriptor.addr(), len).err();
        }
    }

    if !ended {
        garbage = Some(Garbage::Malformed);
    }
    let header = u64::try_from(HEADER_SIZE).unwrap_or(u64::MAX);
    if garbage.is_none() && room.size < header {
        garbage = Some(Garbage::NoRoom(room.size));
    }
    if garbage.is_none() && command.len() < HEADER_SIZE {
        garbage = Some(Garbage::Short(command.len()));
    }
    Request { command: garbage.map_or(Ok(command), Err), room }
}

fn append<M: GuestMemory>(
    mem: &M,
    command: &mut Vec<u8>,
    address: GuestAddress,
    len: usize,
) -> Result<(), Garbage> {
    let start = command.len();
    let end = start.checked_add(len).filter(|end| *end <= MAX_COMMAND_SIZE).ok_or(Garbage::Long)?;
    command.resize(end, 0);
    let target = command.get_mut(start..).unwrap_or_default();
    mem.read_slice(target, address).map_err(|_| Garbage::CommandOutsideMemory)
}
