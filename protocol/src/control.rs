//! The control channel of swtpm, as QEMU, libvirt and Cloud Hypervisor speak it, and the frame around commands on its data channel.
//! `docs/control.md` says what vtpmd answers.
//!
//! A request is a 32-bit command and the fields of that command; a response is a 32-bit [`ControlResult`] and, unless that is an error, the
//! fields of the command. Two requests are followed by content of a length that they name ([`Request::content_length`]), as are two
//! responses ([`Response::content_length`]). Nothing frames a message: its length follows from its command. A client sends one request and
//! waits, so that what is there at once is one message; [`Request::parse`] is made for this.
//!
//! Two requests have two lengths: QEMU sends a locality in a field of four bytes, of which three are padding, swtpm_ioctl in one byte.

use crate::codec::{Decode, Encode, Reader};
use crate::rc::ResponseCode;
use core::fmt;

/// The longest part of the JSON text that one response to [`Command::GetInfo`] has, in bytes; the terminating zero counts.
pub const MAX_INFO_PART: usize = 3072;
/// The longest request, in bytes, without content that follows.
pub const MAX_REQUEST: usize = 20;
/// The longest response, in bytes, without content that follows.
pub const MAX_RESPONSE: usize = 16;

macro_rules! commands {
    ($($(#[$m:meta])* $name:ident = $code:literal, $wire:literal, $body:literal;)*) => {
        /// A command of the control channel.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u32)]
        pub enum Command { $($(#[$m])* $name = $code),* }

        impl Command {
            /// All of them, in ascending order.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The command of this number.
            #[must_use]
            pub const fn from_number(number: u32) -> Option<Self> {
                match number { $($code => Some(Self::$name),)* _ => None }
            }

            /// Its number.
            #[must_use]
            pub const fn number(self) -> u32 {
                match self { $(Self::$name => $code),* }
            }

            /// Its name in swtpm's headers.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $wire),* }
            }

            /// The least bytes of fields behind the number of a request.
            const fn body(self) -> usize {
                match self { $(Self::$name => $body),* }
            }
        }
    };
}

commands! {
    /// Which commands there are.
    GetCapability = 1, "CMD_GET_CAPABILITY", 0;
    /// `_TPM_Init`: the TPM is switched on.
    Init = 2, "CMD_INIT", 4;
    /// The TPM is switched off, and the process may end.
    Shutdown = 3, "CMD_SHUTDOWN", 0;
    /// The bit `tpmEstablishment`.
    GetTpmEstablished = 4, "CMD_GET_TPMESTABLISHED", 0;
    /// The locality of the TPM commands to come.
    SetLocality = 5, "CMD_SET_LOCALITY", 1;
    /// `_TPM_Hash_Start`.
    HashStart = 6, "CMD_HASH_START", 0;
    /// `_TPM_Hash_Data`.
    HashData = 7, "CMD_HASH_DATA", 4;
    /// `_TPM_Hash_End`.
    HashEnd = 8, "CMD_HASH_END", 0;
    /// Ends the TPM command at hand, if it can be.
    CancelTpmCmd = 9, "CMD_CANCEL_TPM_CMD", 0;
    /// Keeps what `_TPM_Init` would clear for the next one.
    StoreVolatile = 10, "CMD_STORE_VOLATILE", 0;
    /// Resets the bit `tpmEstablishment`.
    ResetTpmEstablished = 11, "CMD_RESET_TPMESTABLISHED", 1;
    /// Reads a part of the state.
    GetStateBlob = 12, "CMD_GET_STATEBLOB", 12;
    /// Writes a part of the state.
    SetStateBlob = 13, "CMD_SET_STATEBLOB", 12;
    /// The TPM is switched off.
    Stop = 14, "CMD_STOP", 0;
    /// Which keys protect the state.
    GetConfig = 15, "CMD_GET_CONFIG", 0;
    /// Passes the descriptor of the data channel.
    SetDataFd = 16, "CMD_SET_DATAFD", 0;
    /// Chooses how long TPM commands and responses may be.
    SetBufferSize = 17, "CMD_SET_BUFFERSIZE", 4;
    /// What TPM this is, as JSON.
    GetInfo = 18, "CMD_GET_INFO", 16;
    /// Takes the storage after a migration that did not happen.
    LockStorage = 19, "CMD_LOCK_STORAGE", 4;
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Sets of flags: an integer of the wire, of which unknown bits are kept.
macro_rules! flags {
    ($($(#[$m:meta])* $name:ident: $t:ty { $($(#[$fm:meta])* $flag:ident = $bit:literal;)* })*) => {$(
        $(#[$m])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
        pub struct $name(pub $t);

        impl $name {
            $($(#[$fm])* pub const $flag: Self = Self(1 << $bit);)*

            /// Whether all flags of `other` are set.
            #[must_use]
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// With the flags of `other`.
            #[must_use]
            pub const fn with(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
        }

        impl Encode for $name {
            fn encode(&self, out: &mut Vec<u8>) {
                self.0.encode(out);
            }
        }

        impl Decode for $name {
            fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
                <$t>::decode(r).map(Self)
            }
        }
    )*};
}

flags! {
    /// Which commands are understood: the response to [`Command::GetCapability`].
    Capabilities: u32 {
        /// [`Command::Init`].
        INIT = 0;
        /// [`Command::Shutdown`].
        SHUTDOWN = 1;
        /// [`Command::GetTpmEstablished`].
        GET_TPMESTABLISHED = 2;
        /// [`Command::SetLocality`].
        SET_LOCALITY = 3;
        /// [`Command::HashStart`], [`Command::HashData`], [`Command::HashEnd`].
        HASHING = 4;
        /// [`Command::CancelTpmCmd`].
        CANCEL_TPM_CMD = 5;
        /// [`Command::StoreVolatile`].
        STORE_VOLATILE = 6;
        /// [`Command::ResetTpmEstablished`].
        RESET_TPMESTABLISHED = 7;
        /// [`Command::GetStateBlob`].
        GET_STATEBLOB = 8;
        /// [`Command::SetStateBlob`].
        SET_STATEBLOB = 9;
        /// [`Command::Stop`].
        STOP = 10;
        /// [`Command::GetConfig`].
        GET_CONFIG = 11;
        /// [`Command::SetDataFd`].
        SET_DATAFD = 12;
        /// [`Command::SetBufferSize`].
        SET_BUFFERSIZE = 13;
        /// [`Command::GetInfo`].
        GET_INFO = 14;
        /// The data channel takes a [`SendCommand`] in front of a TPM command.
        SEND_COMMAND_HEADER = 15;
        /// [`Command::LockStorage`].
        LOCK_STORAGE = 16;
    }
    /// Of [`Command::Init`].
    InitFlags: u32 {
        /// What was kept for this `_TPM_Init` is not kept for another.
        DELETE_VOLATILE = 0;
    }
    /// Of [`Command::GetStateBlob`] and [`Command::SetStateBlob`].
    StateFlags: u32 {
        /// Asks for a blob that is not encrypted.
        DECRYPTED = 0;
        /// The blob is encrypted.
        ENCRYPTED = 1;
    }
    /// The response to [`Command::GetConfig`].
    ConfigFlags: u32 {
        /// The stored state is encrypted.
        FILE_KEY = 0;
        /// State blobs are encrypted.
        MIGRATION_KEY = 1;
    }
    /// What [`Command::GetInfo`] asks for.
    InfoFlags: u64 {
        /// `TPMSpecification`.
        TPM_SPECIFICATION = 0;
        /// `TPMAttributes`.
        TPM_ATTRIBUTES = 1;
        /// `TPMFeatures`.
        TPM_FEATURES = 2;
        /// `RuntimeAlgorithms`.
        RUNTIME_ALGORITHMS = 3;
        /// `RuntimeCommands`.
        RUNTIME_COMMANDS = 4;
        /// `ActiveProfile`.
        ACTIVE_PROFILE = 5;
        /// `AvailableProfiles`.
        AVAILABLE_PROFILES = 6;
        /// `RuntimeAttributes`.
        RUNTIME_ATTRIBUTES = 7;
    }
}

/// Which part of the state; there are no others than the constants.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BlobType(pub u32);

impl BlobType {
    /// What survives a loss of power.
    pub const PERMANENT: Self = Self(1);
    /// What `_TPM_Init` clears.
    pub const VOLATILE: Self = Self(2);
    /// What `TPM_SaveState` of TPM 1.2 kept.
    pub const SAVESTATE: Self = Self(3);
}

impl fmt::Display for BlobType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::PERMANENT => f.write_str("permanent"),
            Self::VOLATILE => f.write_str("volatile"),
            Self::SAVESTATE => f.write_str("savestate"),
            Self(other) => write!(f, "type {other}"),
        }
    }
}

/// What came of a request: a code of TPM 1.2, whatever the TPM.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ControlResult(pub u32);

impl ControlResult {
    /// It was done.
    pub const SUCCESS: Self = Self(0);
    /// `TPM_BAD_PARAMETER`: a message of a wrong length, or a field of a wrong value.
    pub const BAD_PARAMETER: Self = Self(3);
    /// `TPM_FAIL`.
    pub const FAIL: Self = Self(9);
    /// `TPM_BAD_ORDINAL`: there is no such command, or not in this state.
    pub const BAD_ORDINAL: Self = Self(0x0a);
    /// `TPM_IOERROR`.
    pub const IO_ERROR: Self = Self(0x1f);
    /// `TPM_DECRYPT_ERROR`: the state does not open here.
    pub const DECRYPT_ERROR: Self = Self(0x21);
    /// `TPM_BAD_LOCALITY`.
    pub const BAD_LOCALITY: Self = Self(0x3d);
    /// `TPM_RETRY`, which is no error: there is no such blob.
    pub const RETRY: Self = Self(0x800);

    /// Whether fields follow in a response.
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for ControlResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            Self::SUCCESS => "success",
            Self::BAD_PARAMETER => "TPM_BAD_PARAMETER",
            Self::FAIL => "TPM_FAIL",
            Self::BAD_ORDINAL => "TPM_BAD_ORDINAL",
            Self::IO_ERROR => "TPM_IOERROR",
            Self::DECRYPT_ERROR => "TPM_DECRYPT_ERROR",
            Self::BAD_LOCALITY => "TPM_BAD_LOCALITY",
            Self::RETRY => "TPM_RETRY",
            Self(other) => return write!(f, "0x{other:x}"),
        };
        f.write_str(name)
    }
}

/// A request, without the content that may follow it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Request {
    /// [`Command::GetCapability`].
    GetCapability,
    /// [`Command::Init`].
    Init(InitFlags),
    /// [`Command::Shutdown`].
    Shutdown,
    /// [`Command::GetTpmEstablished`].
    GetTpmEstablished,
    /// [`Command::SetLocality`]; the locality is any number.
    SetLocality(u8),
    /// [`Command::HashStart`].
    HashStart,
    /// [`Command::HashData`]; as many bytes follow.
    HashData(u32),
    /// [`Command::HashEnd`].
    HashEnd,
    /// [`Command::CancelTpmCmd`].
    CancelTpmCmd,
    /// [`Command::StoreVolatile`].
    StoreVolatile,
    /// [`Command::ResetTpmEstablished`], from a locality, which is any number.
    ResetTpmEstablished(u8),
    /// [`Command::GetStateBlob`].
    GetStateBlob {
        /// `DECRYPTED`, or nothing.
        flags: StateFlags,
        /// Which.
        blob: BlobType,
        /// From which byte on.
        offset: u32,
    },
    /// [`Command::SetStateBlob`]; the blob follows.
    SetStateBlob {
        /// `ENCRYPTED`, or nothing.
        flags: StateFlags,
        /// Which.
        blob: BlobType,
        /// Its length in bytes.
        length: u32,
    },
    /// [`Command::Stop`].
    Stop,
    /// [`Command::GetConfig`].
    GetConfig,
    /// [`Command::SetDataFd`]; a descriptor comes with it.
    SetDataFd,
    /// [`Command::SetBufferSize`]: the size wanted in bytes, or 0 to ask only.
    SetBufferSize(u32),
    /// [`Command::GetInfo`].
    GetInfo {
        /// About what.
        flags: InfoFlags,
        /// From which byte of the text on.
        offset: u32,
    },
    /// [`Command::LockStorage`]: how often to try again, with 10 ms between.
    LockStorage(u32),
}

/// What the bytes that have come so far are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parsed<'a> {
    /// The beginning of a request, which has at least so many bytes in total.
    Incomplete(usize),
    /// A request, and the beginning of its content.
    Whole(Request, &'a [u8]),
}

/// Bytes that are no request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RequestError {
    /// There is no such command.
    Unknown(u32),
    /// The request is longer than its command has it.
    TooLong(Command),
}

impl RequestError {
    /// What swtpm answers to it.
    #[must_use]
    pub const fn result(self) -> ControlResult {
        match self {
            Self::Unknown(_) => ControlResult::BAD_ORDINAL,
            Self::TooLong(_) => ControlResult::BAD_PARAMETER,
        }
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(number) => write!(f, "there is no control command 0x{number:x}"),
            Self::TooLong(command) => write!(f, "{command} is longer than it should be"),
        }
    }
}

impl std::error::Error for RequestError {}

impl Request {
    /// Its command.
    #[must_use]
    pub const fn command(&self) -> Command {
        match self {
            Self::GetCapability => Command::GetCapability,
            Self::Init(_) => Command::Init,
            Self::Shutdown => Command::Shutdown,
            Self::GetTpmEstablished => Command::GetTpmEstablished,
            Self::SetLocality(_) => Command::SetLocality,
            Self::HashStart => Command::HashStart,
            Self::HashData(_) => Command::HashData,
            Self::HashEnd => Command::HashEnd,
            Self::CancelTpmCmd => Command::CancelTpmCmd,
            Self::StoreVolatile => Command::StoreVolatile,
            Self::ResetTpmEstablished(_) => Command::ResetTpmEstablished,
            Self::GetStateBlob { .. } => Command::GetStateBlob,
            Self::SetStateBlob { .. } => Command::SetStateBlob,
            Self::Stop => Command::Stop,
            Self::GetConfig => Command::GetConfig,
            Self::SetDataFd => Command::SetDataFd,
            Self::SetBufferSize(_) => Command::SetBufferSize,
            Self::GetInfo { .. } => Command::GetInfo,
            Self::LockStorage(_) => Command::LockStorage,
        }
    }

    /// How many bytes follow the request.
    #[must_use]
    pub const fn content_length(&self) -> u32 {
        match self {
            Self::HashData(length) | Self::SetStateBlob { length, .. } => *length,
            _ => 0,
        }
    }

    /// What `bytes` are: all that has come so far, of one request.
    ///
    /// # Errors
    /// [`RequestError`]; bytes behind the content are too long, too.
    pub fn parse(bytes: &[u8]) -> Result<Parsed<'_>, RequestError> {
        let Some((number, body)) = bytes.split_first_chunk() else { return Ok(Parsed::Incomplete(4)) };
        let number = u32::from_be_bytes(*number);
        let command = Command::from_number(number).ok_or(RequestError::Unknown(number))?;
        let mut r = Reader::new(body);
        let Ok(request) = Self::read(command, &mut r) else {
            return Ok(Parsed::Incomplete(command.body().saturating_add(4)));
        };
        let rest = match request {
            // The padding behind a locality.
            Self::SetLocality(_) | Self::ResetTpmEstablished(_) if r.remaining() == 3 => &[][..],
            _ => r.peek_rest(),
        };
        let length = usize::try_from(request.content_length()).unwrap_or(usize::MAX);
        if rest.len() > length {
            return Err(RequestError::TooLong(command));
        }
        Ok(Parsed::Whole(request, rest))
    }

    fn read(command: Command, r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        Ok(match command {
            Command::GetCapability => Self::GetCapability,
            Command::Init => Self::Init(Decode::decode(r)?),
            Command::Shutdown => Self::Shutdown,
            Command::GetTpmEstablished => Self::GetTpmEstablished,
            Command::SetLocality => Self::SetLocality(Decode::decode(r)?),
            Command::HashStart => Self::HashStart,
            Command::HashData => Self::HashData(Decode::decode(r)?),
            Command::HashEnd => Self::HashEnd,
            Command::CancelTpmCmd => Self::CancelTpmCmd,
            Command::StoreVolatile => Self::StoreVolatile,
            Command::ResetTpmEstablished => Self::ResetTpmEstablished(Decode::decode(r)?),
            Command::GetStateBlob => {
                let (flags, blob, offset) = Decode::decode(r)?;
                Self::GetStateBlob { flags, blob: BlobType(blob), offset }
            }
            Command::SetStateBlob => {
                let (flags, blob, length) = Decode::decode(r)?;
                Self::SetStateBlob { flags, blob: BlobType(blob), length }
            }
            Command::Stop => Self::Stop,
            Command::GetConfig => Self::GetConfig,
            Command::SetDataFd => Self::SetDataFd,
            Command::SetBufferSize => Self::SetBufferSize(Decode::decode(r)?),
            Command::GetInfo => {
                let (flags, offset, _padding) = <(_, _, u32)>::decode(r)?;
                Self::GetInfo { flags, offset }
            }
            Command::LockStorage => Self::LockStorage(Decode::decode(r)?),
        })
    }
}

impl Encode for Request {
    fn encode(&self, out: &mut Vec<u8>) {
        self.command().number().encode(out);
        match *self {
            Self::GetCapability
            | Self::Shutdown
            | Self::GetTpmEstablished
            | Self::HashStart
            | Self::HashEnd
            | Self::CancelTpmCmd
            | Self::StoreVolatile
            | Self::Stop
            | Self::GetConfig
            | Self::SetDataFd => {}
            Self::Init(flags) => flags.encode(out),
            Self::SetLocality(locality) | Self::ResetTpmEstablished(locality) => locality.encode(out),
            Self::HashData(number) | Self::SetBufferSize(number) | Self::LockStorage(number) => {
                number.encode(out);
            }
            Self::GetStateBlob { flags, blob, offset } => (flags, blob.0, offset).encode(out),
            Self::SetStateBlob { flags, blob, length } => (flags, blob.0, length).encode(out),
            Self::GetInfo { flags, offset } => (flags, offset, 0u32).encode(out),
        }
    }
}

/// A response, without the content that may follow it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Response {
    /// To commands without fields in their response, and every error but those of [`Command::GetStateBlob`].
    Result(ControlResult),
    /// To [`Command::GetCapability`].
    Capability(Capabilities),
    /// To [`Command::GetTpmEstablished`].
    TpmEstablished(bool),
    /// To [`Command::GetStateBlob`], also an error, for QEMU waits for all of these fields. `length` bytes follow.
    StateBlob {
        /// What came of it.
        result: ControlResult,
        /// `ENCRYPTED`, or nothing.
        flags: StateFlags,
        /// How many bytes there are from the offset on.
        total: u32,
        /// How many of them follow; QEMU wants all.
        length: u32,
    },
    /// To [`Command::GetConfig`].
    Config(ConfigFlags),
    /// To [`Command::SetBufferSize`], in bytes.
    BufferSize {
        /// The size that is in use from now on.
        size: u32,
        /// The least that can be chosen.
        min: u32,
        /// The most that can be chosen.
        max: u32,
    },
    /// To [`Command::GetInfo`]; `length` bytes follow.
    Info {
        /// How long the whole text is in bytes, with the terminating zero.
        total: u32,
        /// How many bytes of it follow.
        length: u32,
    },
}

impl Response {
    /// What came of the request.
    #[must_use]
    pub const fn result(&self) -> ControlResult {
        match self {
            Self::Result(result) | Self::StateBlob { result, .. } => *result,
            _ => ControlResult::SUCCESS,
        }
    }

    /// How many bytes follow the response.
    #[must_use]
    pub const fn content_length(&self) -> u32 {
        match self {
            Self::StateBlob { length, .. } | Self::Info { length, .. } => *length,
            _ => 0,
        }
    }

    /// How many bytes a response to `command` has that begins with `result`, without content that follows.
    #[must_use]
    pub const fn length(command: Command, result: ControlResult) -> usize {
        match command {
            Command::GetStateBlob => 16,
            _ if !result.is_success() => 4,
            Command::GetCapability | Command::GetTpmEstablished | Command::GetConfig => 8,
            Command::SetBufferSize => 16,
            Command::GetInfo => 12,
            _ => 4,
        }
    }

    /// Takes the response to `command` from the front of `r`.
    ///
    /// # Errors
    /// `TPM_RC_INSUFFICIENT` when it is cut short.
    pub fn decode(command: Command, r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        let result = ControlResult(Decode::decode(r)?);
        Ok(match command {
            Command::GetStateBlob => {
                let (flags, total, length) = Decode::decode(r)?;
                Self::StateBlob { result, flags, total, length }
            }
            _ if !result.is_success() => Self::Result(result),
            Command::GetCapability => Self::Capability(Decode::decode(r)?),
            Command::GetTpmEstablished => {
                let [bit, ..] = r.array::<4>()?;
                Self::TpmEstablished(bit != 0)
            }
            Command::GetConfig => Self::Config(Decode::decode(r)?),
            Command::SetBufferSize => {
                let (size, min, max) = Decode::decode(r)?;
                Self::BufferSize { size, min, max }
            }
            Command::GetInfo => {
                let (total, length) = Decode::decode(r)?;
                Self::Info { total, length }
            }
            _ => Self::Result(result),
        })
    }
}

impl Encode for Response {
    fn encode(&self, out: &mut Vec<u8>) {
        self.result().0.encode(out);
        match *self {
            Self::Result(_) => {}
            Self::Capability(capabilities) => capabilities.encode(out),
            Self::TpmEstablished(bit) => [u8::from(bit), 0, 0, 0].encode(out),
            Self::StateBlob { result: _, flags, total, length } => (flags, total, length).encode(out),
            Self::Config(flags) => flags.encode(out),
            Self::BufferSize { size, min, max } => (size, min, max).encode(out),
            Self::Info { total, length } => (total, length).encode(out),
        }
    }
}

/// `TPM2_SEND_COMMAND` of the TCG's simulator: what may stand in front of a TPM command on the data channel. The response then has its
/// 32-bit length in front, and 32 zero bits behind.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SendCommand {
    /// The locality of this command and those after it; any number.
    pub locality: u8,
    /// The length of the command in bytes.
    pub length: u32,
}

impl SendCommand {
    /// The first 32 bits, which are no tag of a TPM command.
    pub const NUMBER: u32 = 8;
    /// Its length in bytes.
    pub const LENGTH: usize = 9;
}

impl Encode for SendCommand {
    fn encode(&self, out: &mut Vec<u8>) {
        (Self::NUMBER, self.locality, self.length).encode(out);
    }
}

impl Decode for SendCommand {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        let (number, locality, length): (u32, _, _) = Decode::decode(r)?;
        if number == Self::NUMBER { Ok(Self { locality, length }) } else { Err(ResponseCode::VALUE) }
    }
}

#[cfg(test)]
mod tests;
