//! The peer link: what two daemons say to each other about migrations. `docs/protocol.md` is the normative layout.
//!
//! ```text
//! hello       (each side, once, first)
//! request  ─▶
//!          ◀─ answer        one for each request, in order
//! ```
//!
//! Every frame is a 16-bit tag and a 32-bit length in front of its body, as in the [migration stream](crate::stream). A reader takes
//! the [`Prefix`] first, which refuses a tag that is not known and a length over the cap of its tag; only then is room made for the
//! body, from which [`Message::decode`] makes the message.

use crate::codec::{Decode, Encode, Reader, decode_exact, encode_sized, encode_sized_with};
use crate::instance::{
    InstanceName, MAX_INSTANCE_NAME, MigrationId, MigrationTicket, Outcome, Uuid, migration::MAX_TICKET,
};
use crate::rc::ResponseCode;
use crate::structure;
use core::fmt;

/// First bytes of a hello's body.
pub const LINK_MAGIC: [u8; 8] = *b"vtpmlink";
/// The version of the layout that this crate writes and reads.
pub const LINK_VERSION: u16 = 1;
/// Length of tag and length in front of a body.
pub const LINK_PREFIX: usize = 6;
/// The longest identity in a hello, in bytes.
pub const MAX_LINK_IDENTITY: usize = 32 << 10;
/// The longest part of a migration stream in one frame, in bytes.
pub const MAX_CHUNK: usize = 64 << 10;
/// The longest reason of a refusal, in bytes of UTF-8.
pub const MAX_REASON: usize = 512;
/// The longest time that a request can ask to be kept waiting, in milliseconds.
pub const MAX_WAIT_MS: u32 = 60_000;

const MAX_HELLO: usize = 8 + 2 + 2 + MAX_LINK_IDENTITY;
const REFERENCE: usize = 16 + 32;

structure! {
    /// Names one migration to its destination.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct MigrationRef {
        /// The instance.
        pub uuid: Uuid,
        /// N.
        pub migration_id: MigrationId,
    }
}

impl From<&MigrationTicket> for MigrationRef {
    fn from(ticket: &MigrationTicket) -> Self {
        Self { uuid: ticket.uuid, migration_id: ticket.migration_id }
    }
}

structure! {
    /// How much an instance command takes and gives at a host, in bytes: the tags of GetInstanceCapability.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct LinkLimits {
        /// The longest instance command.
        pub max_command: u32,
        /// The longest response to one.
        pub max_response: u32,
        /// The longest parameter `data`.
        pub max_data: u32,
    }
}

/// Why something was refused, as one line for an operator: no control characters, at most [`MAX_REASON`] bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reason(String);

impl Reason {
    /// Makes one of any text; what is too long is cut, and control characters become blanks.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut line = String::new();
        for c in text.chars() {
            if line.len().saturating_add(c.len_utf8()) > MAX_REASON {
                break;
            }
            line.push(if c.is_control() { ' ' } else { c });
        }
        Self(line)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Encode for Reason {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_sized(self.0.as_bytes(), out);
    }
}

impl Decode for Reason {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        let text = core::str::from_utf8(r.sized(MAX_REASON)?).map_err(|_| ResponseCode::VALUE)?;
        if text.chars().any(char::is_control) { Err(ResponseCode::VALUE) } else { Ok(Self(text.to_owned())) }
    }
}

macro_rules! messages {
    ($($(#[$m:meta])* $name:ident = $tag:literal, $max:expr;)*) => {
        /// Names a message.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u16)]
        pub enum MessageTag { $($(#[$m])* $name = $tag),* }

        impl MessageTag {
            fn from_number(number: u16) -> Option<Self> {
                match number { $($tag => Some(Self::$name),)* _ => None }
            }

            const fn number(self) -> u16 {
                match self { $(Self::$name => $tag),* }
            }

            /// The longest body, in bytes.
            #[must_use]
            pub const fn max_body(self) -> usize {
                match self { $(Self::$name => $max),* }
            }
        }
    };
}

messages! {
    /// Who speaks.
    Hello = 0x01, MAX_HELLO;
    /// Is there a slot for this instance?
    FindSlot = 0x10, 16;
    /// What has become of a migration?
    Outcome = 0x11, REFERENCE + 4;
    /// Give a migration up, if its instance does not live yet.
    GiveUp = 0x12, REFERENCE;
    /// Make a slot.
    Prepare = 0x13, 16 + 2 + MAX_INSTANCE_NAME;
    /// How much fits a command?
    Limits = 0x14, 16;
    /// A migration stream follows.
    Import = 0x15, REFERENCE;
    /// Bytes of the stream.
    Chunk = 0x16, MAX_CHUNK;
    /// There is one.
    Slot = 0x90, 1 + 2 + MAX_TICKET;
    /// There is none.
    NoSlot = 0x91, 0;
    /// It is decided.
    Receipt = 0x92, 1 + 32;
    /// It is not decided.
    Open = 0x93, 0;
    /// Nothing is known of it.
    Unknown = 0x94, 0;
    /// So much.
    LimitsAre = 0x95, 12;
    /// The stream was imported.
    Done = 0x96, 0;
    /// It was not done.
    Refused = 0x97, 2 + MAX_REASON;
}

/// Tag and length of a frame, both looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prefix {
    tag: MessageTag,
    length: usize,
}

impl Prefix {
    /// Reads tag and length.
    ///
    /// # Errors
    /// [`LinkError::Tag`], [`LinkError::TooLong`].
    pub fn decode(bytes: [u8; LINK_PREFIX]) -> Result<Self, LinkError> {
        let [a, b, c, d, e, f] = bytes;
        let number = u16::from_be_bytes([a, b]);
        let tag = MessageTag::from_number(number).ok_or(LinkError::Tag(number))?;
        match usize::try_from(u32::from_be_bytes([c, d, e, f])) {
            Ok(length) if length <= tag.max_body() => Ok(Self { tag, length }),
            _ => Err(LinkError::TooLong(tag)),
        }
    }

    /// What comes.
    #[must_use]
    pub const fn tag(self) -> MessageTag {
        self.tag
    }

    /// The length of the body, within the cap of the tag.
    #[must_use]
    pub const fn length(self) -> usize {
        self.length
    }
}

/// A message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// The first message of each side: the encoded [`Identity`](crate::instance) of its root.
    Hello(Vec<u8>),
    /// Request: the ticket of the slot for this instance. [`Self::Slot`], [`Self::NoSlot`].
    FindSlot(Uuid),
    /// Request: what has become of a migration to this host; the answer waits for a decision, but not longer than so many milliseconds.
    /// [`Self::Receipt`], [`Self::Open`], [`Self::Unknown`].
    Outcome(MigrationRef, u32),
    /// Request: that the migration be given up here. Answered as [`Self::Outcome`]; never with [`Self::Open`].
    GiveUp(MigrationRef),
    /// Request, which needs the right for it: a slot under this name. [`Self::Slot`], [`Self::Refused`].
    Prepare(Uuid, InstanceName),
    /// Request: how much a command for this instance takes. [`Self::LimitsAre`], [`Self::NoSlot`].
    Limits(Uuid),
    /// Request: that the stream in the following [`Self::Chunk`]s be imported into this migration's slot. [`Self::Done`],
    /// [`Self::Refused`], once, after the last chunk.
    Import(MigrationRef),
    /// Bytes of a migration stream; none at its end.
    Chunk(Vec<u8>),
    /// Answer: the ticket of a slot, and whether a machine is connected to it.
    Slot {
        /// A front end is connected, as that of a QEMU that waits for the machine.
        attached: bool,
        /// The ticket.
        ticket: MigrationTicket,
    },
    /// Answer.
    NoSlot,
    /// Answer: the migration is decided, and this is the proof.
    Receipt {
        /// `Live` or `Void`.
        outcome: Outcome,
        /// The receipt.
        receipt: [u8; 32],
    },
    /// Answer.
    Open,
    /// Answer.
    Unknown,
    /// Answer.
    LimitsAre(LinkLimits),
    /// Answer.
    Done,
    /// Answer.
    Refused(Reason),
}

impl Message {
    /// Its tag.
    #[must_use]
    pub const fn tag(&self) -> MessageTag {
        match self {
            Self::Hello(_) => MessageTag::Hello,
            Self::FindSlot(_) => MessageTag::FindSlot,
            Self::Outcome(..) => MessageTag::Outcome,
            Self::GiveUp(_) => MessageTag::GiveUp,
            Self::Prepare(..) => MessageTag::Prepare,
            Self::Limits(_) => MessageTag::Limits,
            Self::Import(_) => MessageTag::Import,
            Self::Chunk(_) => MessageTag::Chunk,
            Self::Slot { .. } => MessageTag::Slot,
            Self::NoSlot => MessageTag::NoSlot,
            Self::Receipt { .. } => MessageTag::Receipt,
            Self::Open => MessageTag::Open,
            Self::Unknown => MessageTag::Unknown,
            Self::LimitsAre(_) => MessageTag::LimitsAre,
            Self::Done => MessageTag::Done,
            Self::Refused(_) => MessageTag::Refused,
        }
    }

    /// Appends tag, length and body.
    ///
    /// # Errors
    /// [`LinkError::TooLong`] for a hello or chunk over the cap; nothing is appended then. The other messages cannot be too long.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), LinkError> {
        let mut body = Vec::new();
        match self {
            Self::Hello(identity) => {
                (LINK_MAGIC, LINK_VERSION, 0u16).encode(&mut body);
                body.extend_from_slice(identity);
            }
            Self::FindSlot(uuid) | Self::Limits(uuid) => uuid.encode(&mut body),
            Self::Outcome(migration, wait_ms) => (migration, *wait_ms).encode(&mut body),
            Self::GiveUp(migration) | Self::Import(migration) => migration.encode(&mut body),
            Self::Prepare(uuid, name) => (uuid, name).encode(&mut body),
            Self::Chunk(bytes) => body.extend_from_slice(bytes),
            Self::Slot { attached, ticket } => {
                attached.encode(&mut body);
                encode_sized_with(&mut body, |o| ticket.encode(o));
            }
            Self::Receipt { outcome, receipt } => (*outcome, *receipt).encode(&mut body),
            Self::LimitsAre(limits) => limits.encode(&mut body),
            Self::Refused(reason) => reason.encode(&mut body),
            Self::NoSlot | Self::Open | Self::Unknown | Self::Done => {}
        }
        let tag = self.tag();
        match u32::try_from(body.len()) {
            Ok(length) if body.len() <= tag.max_body() => (tag.number(), length).encode(out),
            _ => return Err(LinkError::TooLong(tag)),
        }
        out.extend_from_slice(&body);
        Ok(())
    }

    /// Makes the message of a body; all of it must be of use.
    ///
    /// # Errors
    /// [`LinkError::Magic`], [`LinkError::Version`], [`LinkError::Body`].
    pub fn decode(tag: MessageTag, body: &[u8]) -> Result<Self, LinkError> {
        match tag {
            MessageTag::Hello => decode_hello(body),
            MessageTag::Chunk => Ok(Self::Chunk(body.to_vec())),
            _ => Self::decode_plain(tag, body).map_err(|code| LinkError::Body(tag, code)),
        }
    }

    fn decode_plain(tag: MessageTag, body: &[u8]) -> Result<Self, ResponseCode> {
        let nothing = || decode_exact::<()>(body);
        Ok(match tag {
            MessageTag::Hello | MessageTag::Chunk => return Err(ResponseCode::TYPE),
            MessageTag::FindSlot => Self::FindSlot(decode_exact(body)?),
            MessageTag::Outcome => {
                let (migration, wait_ms) = decode_exact(body)?;
                Self::Outcome(migration, wait_ms)
            }
            MessageTag::GiveUp => Self::GiveUp(decode_exact(body)?),
            MessageTag::Prepare => {
                let (uuid, name) = decode_exact(body)?;
                Self::Prepare(uuid, name)
            }
            MessageTag::Limits => Self::Limits(decode_exact(body)?),
            MessageTag::Import => Self::Import(decode_exact(body)?),
            MessageTag::Slot => {
                let mut r = Reader::new(body);
                let attached = bool::decode(&mut r)?;
                let ticket = MigrationTicket::decode_sized(&mut r)?;
                r.finish()?;
                Self::Slot { attached, ticket }
            }
            MessageTag::NoSlot => nothing().map(|()| Self::NoSlot)?,
            MessageTag::Receipt => {
                let (outcome, receipt) = decode_exact(body)?;
                if outcome == Outcome::Open {
                    return Err(ResponseCode::VALUE);
                }
                Self::Receipt { outcome, receipt }
            }
            MessageTag::Open => nothing().map(|()| Self::Open)?,
            MessageTag::Unknown => nothing().map(|()| Self::Unknown)?,
            MessageTag::LimitsAre => Self::LimitsAre(decode_exact(body)?),
            MessageTag::Done => nothing().map(|()| Self::Done)?,
            MessageTag::Refused => Self::Refused(decode_exact(body)?),
        })
    }
}

fn decode_hello(body: &[u8]) -> Result<Message, LinkError> {
    let body_error = |code| LinkError::Body(MessageTag::Hello, code);
    let mut r = Reader::new(body);
    let (magic, version): ([u8; 8], u16) = Decode::decode(&mut r).map_err(body_error)?;
    if magic != LINK_MAGIC {
        return Err(LinkError::Magic);
    }
    if version != LINK_VERSION {
        return Err(LinkError::Version(version));
    }
    if u16::decode(&mut r).map_err(body_error)? != 0 {
        return Err(body_error(ResponseCode::RESERVED_BITS));
    }
    Ok(Message::Hello(r.take_rest().to_vec()))
}

/// Why bytes are no message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkError {
    /// A frame of a kind that is not known.
    Tag(u16),
    /// A frame longer than its kind may be.
    TooLong(MessageTag),
    /// The first bytes are not those of a link.
    Magic,
    /// A version that this program does not speak.
    Version(u16),
    /// The body of a frame does not decode.
    Body(MessageTag, ResponseCode),
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => write!(f, "a message of a kind that is not known ({tag:#06x})"),
            Self::TooLong(tag) => write!(f, "the message {tag:?} is longer than allowed"),
            Self::Magic => f.write_str("not a peer link"),
            Self::Version(version) => write!(f, "peer link of version {version}, which is not known here"),
            Self::Body(tag, rc) => write!(f, "the message {tag:?} does not decode: {rc}"),
        }
    }
}

impl core::error::Error for LinkError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tpm::Tpm2b;
    use proptest::prelude::*;

    fn reference() -> MigrationRef {
        MigrationRef { uuid: Uuid([1; 16]), migration_id: [2; 32] }
    }

    fn ticket() -> MigrationTicket {
        MigrationTicket {
            migration_id: [2; 32],
            uuid: Uuid([1; 16]),
            storage_name: Tpm2b::new([0, 11, 5]).unwrap(),
            storage_public: Tpm2b::new([6; 90]).unwrap(),
            void: [3; 32],
            live: [4; 32],
            signer: Tpm2b::empty(),
            certificate: Tpm2b::empty(),
            signature: Tpm2b::empty(),
        }
    }

    /// One of each.
    fn messages() -> Vec<Message> {
        vec![
            Message::Hello(vec![7; 900]),
            Message::FindSlot(Uuid([1; 16])),
            Message::Outcome(reference(), 25_000),
            Message::GiveUp(reference()),
            Message::Prepare(Uuid([1; 16]), InstanceName::new("guest").unwrap()),
            Message::Limits(Uuid([1; 16])),
            Message::Import(reference()),
            Message::Chunk(vec![8; 70]),
            Message::Chunk(Vec::new()),
            Message::Slot { attached: true, ticket: ticket() },
            Message::NoSlot,
            Message::Receipt { outcome: Outcome::Void, receipt: [9; 32] },
            Message::Open,
            Message::Unknown,
            Message::LimitsAre(LinkLimits { max_command: 1, max_response: 2, max_data: 3 }),
            Message::Done,
            Message::Refused(Reason::new("no")),
        ]
    }

    fn bytes_of(message: &Message) -> Vec<u8> {
        let mut out = Vec::new();
        message.encode(&mut out).unwrap();
        out
    }

    fn hex(bytes: Vec<u8>) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn parse(bytes: &[u8]) -> Result<Message, LinkError> {
        let (prefix, body) = bytes.split_first_chunk().unwrap();
        let prefix = Prefix::decode(*prefix)?;
        assert_eq!(prefix.length(), body.len());
        Message::decode(prefix.tag(), body)
    }

    #[test]
    fn what_is_written_is_read() {
        for message in messages() {
            assert_eq!(parse(&bytes_of(&message)), Ok(message));
        }
    }

    #[test]
    fn layout_is_that_of_the_document() {
        assert_eq!(hex(bytes_of(&Message::NoSlot)), "009100000000");
        assert_eq!(hex(bytes_of(&Message::Hello(vec![0xab]))), "00010000000d7674706d6c696e6b00010000ab");
        let expected = format!("001100000034{}{}000061a8", "01".repeat(16), "02".repeat(32));
        assert_eq!(hex(bytes_of(&Message::Outcome(reference(), 25_000))), expected);
        let receipt = Message::Receipt { outcome: Outcome::Live, receipt: [9; 32] };
        assert_eq!(hex(bytes_of(&receipt)), format!("00920000002101{}", "09".repeat(32)));
        assert_eq!(hex(bytes_of(&Message::Refused(Reason::new("no")))), "00970000000400026e6f");
    }

    #[test]
    fn a_length_over_the_cap_is_refused_before_the_body_is_there() {
        for message in messages() {
            let tag = message.tag();
            let over = u32::try_from(tag.max_body()).unwrap() + 1;
            for length in [over, u32::MAX] {
                let bytes = (tag.number(), length).to_bytes();
                assert_eq!(Prefix::decode(bytes.try_into().unwrap()), Err(LinkError::TooLong(tag)));
            }
        }
    }

    #[test]
    fn no_message_over_its_cap_is_written() {
        let mut out = Vec::new();
        for message in
            [Message::Hello(vec![0; MAX_LINK_IDENTITY + 1]), Message::Chunk(vec![0; MAX_CHUNK + 1])]
        {
            assert_eq!(message.encode(&mut out), Err(LinkError::TooLong(message.tag())));
            assert!(out.is_empty());
        }
        Message::Chunk(vec![0; MAX_CHUNK]).encode(&mut out).unwrap();
        Message::Hello(vec![0; MAX_LINK_IDENTITY]).encode(&mut out).unwrap();
    }

    #[test]
    fn unknown_tags_are_refused() {
        for tag in [0u16, 2, 0x17, 0x8f, 0x98, 0xffff] {
            let bytes = (tag, 0u32).to_bytes();
            assert_eq!(Prefix::decode(bytes.try_into().unwrap()), Err(LinkError::Tag(tag)));
        }
    }

    #[test]
    fn bodies_that_are_too_short_or_too_long_are_refused() {
        for message in messages() {
            if matches!(message, Message::Hello(_) | Message::Chunk(_)) {
                continue;
            }
            let bytes = bytes_of(&message);
            let body = &bytes[LINK_PREFIX..];
            for n in 0..body.len() {
                assert!(Message::decode(message.tag(), &body[..n]).is_err(), "{message:?} of {n}");
            }
            let more = [body, &[0]].concat();
            assert!(Message::decode(message.tag(), &more).is_err(), "{message:?} and more");
        }
    }

    #[test]
    fn another_magic_or_version_is_refused() {
        let bytes = bytes_of(&Message::Hello(vec![1]));
        let body = &bytes[LINK_PREFIX..];
        let with = |at: usize, value: u8| {
            let mut body = body.to_vec();
            body[at] = value;
            Message::decode(MessageTag::Hello, &body)
        };
        assert_eq!(with(0, b'V'), Err(LinkError::Magic));
        assert_eq!(with(9, 2), Err(LinkError::Version(2)));
        assert_eq!(with(11, 1), Err(LinkError::Body(MessageTag::Hello, ResponseCode::RESERVED_BITS)));
        for n in 0..12 {
            assert!(Message::decode(MessageTag::Hello, &body[..n]).is_err());
        }
    }

    #[test]
    fn a_receipt_says_which_it_is() {
        let mut body = vec![0u8];
        body.extend([9; 32]);
        let error = LinkError::Body(MessageTag::Receipt, ResponseCode::VALUE);
        assert_eq!(Message::decode(MessageTag::Receipt, &body), Err(error));
    }

    #[test]
    fn a_reason_is_one_short_line() {
        assert_eq!(Reason::new("a\nb\u{1b}[2Jc").as_str(), "a b [2Jc");
        // Cut between two characters, not within one.
        assert_eq!(Reason::new(&"é".repeat(400)).as_str().len(), MAX_REASON);
        assert_eq!(Reason::new(&format!("x{}", "é".repeat(400))).as_str().len(), MAX_REASON - 1);
        assert_eq!(decode_exact::<Reason>(&[0, 1, b'\n']), Err(ResponseCode::VALUE));
        assert_eq!(decode_exact::<Reason>(&[0, 1, 0xff]), Err(ResponseCode::VALUE));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(
            tag in any::<u16>(),
            body in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            if let Some(tag) = MessageTag::from_number(tag & 0x9f) {
                let _ = Message::decode(tag, &body);
            }
        }
    }
}
