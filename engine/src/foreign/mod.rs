//! The state of a TPM 2.0 of libtpms (what swtpm keeps in `tpm2-00.permall`, without swtpm's own wrapping), taken over into a TPM of ours.
//!
//! [`Foreign::read`] is a pure function: it understands the bytes whole, or says in a sentence why not. What it cannot take over while the
//! TPM stays usable is in [`Foreign::notes`]. [`Tpm::adopt`](crate::Tpm::adopt) makes a TPM of it, as after a loss of power: what of the old TPM was in
//! volatile memory only (transient objects, sessions, PCRs of the dynamic root of trust) is not in these bytes.
//!
//! # Format
//!
//! `PERSISTENT_ALL` of libtpms 0.5 to 0.10: structures in their canonical form, big-endian, each with a header of version (16 bits), magic (32
//! bits) and, from version 2 on, the least version that a reader must know (16 bits). What a version added stands at the end in a block with a
//! flag (8 bits) and a length (16 bits), in which the next version's block is nested. The format has no checksum. What keeps a damaged state from
//! being taken for a sound one is the structure itself, the magic at both ends, the Names of the objects, which are digests of their public areas,
//! and that each private area belongs to its public one.

mod adopt;
mod commands;
mod format;
mod nvram;
mod object;
mod persistent;
#[cfg(test)]
mod tests;

use crate::state::{Object, StateClear};
use std::fmt;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::TpmCc;

/// The longest state that is looked at. What libtpms' TPMs can hold (172 KiB of NV memory) takes less.
pub const MAX_STATE: usize = vtpm_protocol::instance::MAX_FOREIGN_STATE;

/// Why a state is not taken over; for the operator.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ForeignError {
    /// It cannot be one.
    #[error("{0} bytes are too many for the state of a TPM; {MAX_STATE} are the most")]
    TooLong(usize),
    /// It does not begin as one.
    #[error("this is not the state of a TPM 2.0 of libtpms")]
    NotLibtpms,
    /// A newer libtpms wrote it.
    #[error(
        "the state was written by a newer libtpms: its {what} needs a reader of version {version}, known here is {known}"
    )]
    TooNew {
        /// Which structure.
        what: &'static str,
        /// The least version that a reader must know.
        version: u16,
        /// The greatest one that is known.
        known: u16,
    },
    /// It ends in the middle.
    #[error("the state is cut off in its {0}")]
    CutOff(&'static str),
    /// The bytes make no sense.
    #[error("the state is damaged in its {what}")]
    Damaged {
        /// Which structure.
        what: &'static str,
        /// Where reading stopped.
        #[source]
        source: ResponseCode,
    },
    /// A persistent object is not whole.
    #[error("the state is damaged: {what} of the persistent object 0x{handle:08x} {wrong}")]
    Object {
        /// Which.
        handle: u32,
        /// Which part of it.
        what: &'static str,
        /// What is wrong.
        wrong: &'static str,
    },
    /// An NV index is not whole.
    #[error("the state is damaged: {what} of the NV index 0x{handle:08x} {wrong}")]
    Index {
        /// Which.
        handle: u32,
        /// Which part of it.
        what: &'static str,
        /// What is wrong.
        wrong: &'static str,
    },
    /// Without this the TPM could not be used.
    #[error("the TPM cannot be taken over: {0}")]
    Unusable(&'static str),
}

/// Something that is not taken over, while the rest is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Note {
    /// A persistent object.
    Object {
        /// Its handle.
        handle: u32,
        /// Why.
        why: &'static str,
    },
    /// PCRs of a bank that there is not here.
    PcrBank(u16),
    /// The audit of a command that there is not here.
    Audit(TpmCc),
    /// A command that needs physical presence there and cannot here.
    Presence(TpmCc),
    /// A command bit for which there is no command code.
    UnknownCommands(usize),
    /// The TPM was suspended with sessions saved outside.
    Suspended,
    /// What the profile of the TPM restricted.
    Profile(String),
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object { handle, why } => {
                write!(f, "the persistent object 0x{handle:08x} is left out: {why}")
            }
            Self::PcrBank(alg) => {
                write!(f, "the PCR bank of the hash 0x{alg:04x} is left out: there is none here")
            }
            Self::Audit(code) => {
                write!(f, "the command 0x{:08x} is audited no more: there is none here", code.0)
            }
            Self::Presence(code) => write!(
                f,
                "the command 0x{:08x} needs no physical presence any more: here it cannot need any",
                code.0
            ),
            Self::UnknownCommands(count) => {
                write!(f, "{count} audited commands are left out: it is not known which they are")
            }
            Self::Suspended => f.write_str(
                "the machine was suspended: sessions and objects whose contexts it has saved do not come along",
            ),
            Self::Profile(name) => write!(
                f,
                "the profile {name:?} of the TPM is left out: algorithms and commands that it disabled are there"
            ),
        }
    }
}

/// A state that was understood.
pub struct Foreign {
    persistent: persistent::Persistent,
    orderly: persistent::OrderlyData,
    /// What a TPM that was suspended goes on with.
    suspended: Option<Suspended>,
    indices: Vec<crate::state::NvIndex>,
    objects: Vec<(u32, Object)>,
    max_counter: u64,
    notes: Vec<Note>,
}

/// STATE_RESET_DATA and STATE_CLEAR_DATA, as far as they outlive the process.
struct Suspended {
    reset: persistent::ResetData,
    clear: StateClear,
    /// The values of PCR 0 to 15, by bank.
    pcrs: Vec<(vtpm_protocol::tpm::TpmAlgId, Vec<vtpm_protocol::tpm::Tpm2bDigest>)>,
}

impl Foreign {
    /// What is not taken over, for people.
    #[must_use]
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// The handles of the NV indices, ascending.
    #[must_use]
    pub fn nv_indices(&self) -> Vec<u32> {
        self.indices.iter().map(|index| index.public.nv_index.0).collect()
    }

    /// The handles of the persistent objects, ascending.
    #[must_use]
    pub fn persistent_objects(&self) -> Vec<u32> {
        self.objects.iter().map(|(handle, _)| *handle).collect()
    }
}
