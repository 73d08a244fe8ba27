//! The migration stream: what GetInstanceKey and GetInstanceData return, in sequence, as one byte string for a pipe, a file
//! or a socket. `docs/protocol.md` is the normative layout.
//!
//! ```text
//! header   (once)           magic, version, UUID, N, Name of S
//! key      (once)           the response parameters of GetInstanceKey
//! pieces   (once or more)   the parameter `data` of GetInstanceData
//! end      (once)           the migration digest
//! ```
//!
//! Every frame is a 16-bit tag and a 32-bit length in front of its body. [`StreamDecoder`] takes the bytes as they come, in whichever
//! portions, and gives out whole frames; it refuses a frame that is too long as soon as its length is there, and a
//! frame at the wrong place as soon as its tag is.

use crate::codec::{Decode, Encode, Reader, decode_exact};
use crate::instance::{GetInstanceKeyOut, Long2b, MAX_INSTANCE_DATA, MigrationId, Uuid};
use crate::rc::ResponseCode;
use crate::tpm::{Tpm2b, Tpm2bName};
use core::fmt;

/// First bytes of a header's body.
pub const STREAM_MAGIC: [u8; 8] = *b"vtpm-mig";
/// The version of the layout that this crate writes and reads.
pub const STREAM_VERSION: u16 = 1;
/// Length of tag and length in front of a body.
pub const FRAME_PREFIX: usize = 6;
/// The longest stream, in bytes.
pub const MAX_STREAM: usize = 64 << 20;

const TAG_HEADER: u16 = 1;
const TAG_KEY: u16 = 2;
const TAG_PIECES: u16 = 3;
const TAG_END: u16 = 4;
const MAX_HEADER: usize = 128;
const MAX_KEY: usize = 2 + 512 + 2 + 1024;
const MAX_END: usize = 2 + 64;

/// The first frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StreamHeader {
    /// The instance.
    pub uuid: Uuid,
    /// N.
    pub migration_id: MigrationId,
    /// The Name of the storage key S under which the key frame is encrypted.
    pub storage_name: Tpm2bName,
}

/// One frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    /// What the stream is.
    Header(StreamHeader),
    /// The keys under S.
    Key(GetInstanceKeyOut),
    /// Sealed pieces; the parameter of one SetInstanceData.
    Pieces(Long2b<MAX_INSTANCE_DATA>),
    /// The migration digest; the parameter of UnlockInstance.
    End(Tpm2b<64>),
}

impl Frame {
    /// Appends tag, length and body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut body = Vec::new();
        let tag = match self {
            Self::Header(h) => {
                (STREAM_MAGIC, STREAM_VERSION, 0u16).encode(&mut body);
                (h.uuid, h.migration_id, &h.storage_name).encode(&mut body);
                TAG_HEADER
            }
            Self::Key(key) => {
                key.encode(&mut body);
                TAG_KEY
            }
            Self::Pieces(data) => {
                body.extend_from_slice(data);
                TAG_PIECES
            }
            Self::End(digest) => {
                digest.encode(&mut body);
                TAG_END
            }
        };
        tag.encode(out);
        // Every body is of capped types.
        u32::try_from(body.len()).unwrap_or(u32::MAX).encode(out);
        out.extend_from_slice(&body);
    }

    fn decode(tag: u16, body: &[u8]) -> Result<Self, StreamError> {
        match tag {
            TAG_HEADER => {
                let mut r = Reader::new(body);
                let (magic, version, reserved): ([u8; 8], u16, u16) = read(&mut r)?;
                if magic != STREAM_MAGIC {
                    return Err(StreamError::Magic);
                }
                if version != STREAM_VERSION {
                    return Err(StreamError::Version(version));
                }
                if reserved != 0 {
                    return Err(StreamError::Body(ResponseCode::RESERVED_BITS));
                }
                let (uuid, migration_id, storage_name) = read(&mut r)?;
                r.finish().map_err(StreamError::Body)?;
                Ok(Self::Header(StreamHeader { uuid, migration_id, storage_name }))
            }
            TAG_KEY => Ok(Self::Key(decode_exact(body).map_err(StreamError::Body)?)),
            TAG_PIECES => Ok(Self::Pieces(Long2b::new(body).map_err(StreamError::Body)?)),
            TAG_END => Ok(Self::End(decode_exact(body).map_err(StreamError::Body)?)),
            other => Err(StreamError::Tag(other)),
        }
    }
}

fn read<T: Decode>(r: &mut Reader<'_>) -> Result<T, StreamError> {
    T::decode(r).map_err(StreamError::Body)
}

/// Why a stream is not one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamError {
    /// The first bytes are not those of a migration stream.
    Magic,
    /// A version that this program does not read.
    Version(u16),
    /// A frame that has no place here.
    Tag(u16),
    /// A frame longer than its kind may be, or a stream longer than [`MAX_STREAM`].
    TooLong,
    /// The body of a frame does not decode.
    Body(ResponseCode),
    /// The stream ended before its end frame.
    Truncated,
    /// Bytes after the end frame.
    TrailingBytes,
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic => f.write_str("not a migration stream"),
            Self::Version(v) => write!(f, "migration stream of version {v}, which is not known here"),
            Self::Tag(t) => write!(f, "frame {t} at the wrong place"),
            Self::TooLong => f.write_str("a frame is longer than allowed"),
            Self::Body(rc) => write!(f, "a frame does not decode: {rc}"),
            Self::Truncated => f.write_str("the stream ended early"),
            Self::TrailingBytes => f.write_str("bytes after the end of the stream"),
        }
    }
}

impl core::error::Error for StreamError {}

/// Which frames may come next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expect {
    Header,
    Key,
    FirstPieces,
    PiecesOrEnd,
    Nothing,
}

/// Turns bytes, in whatever portions they come, into frames in their order. After an error it stays in error.
#[derive(Debug)]
pub struct StreamDecoder {
    buffer: Vec<u8>,
    total: usize,
    expect: Expect,
    failed: Option<StreamError>,
}

impl Default for StreamDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl StreamDecoder {
    /// Expects a header.
    #[must_use]
    pub const fn new() -> Self {
        Self { buffer: Vec::new(), total: 0, expect: Expect::Header, failed: None }
    }

    /// How many bytes [`Self::next_frame`] lacks to give out a frame: never 0 while it returns `None`. A reader that asks for no more never
    /// takes a byte beyond the frame.
    #[must_use]
    pub fn wanted(&self) -> usize {
        let Some((_, length)) = self.prefix() else {
            return FRAME_PREFIX.saturating_sub(self.buffer.len());
        };
        FRAME_PREFIX.saturating_add(length).saturating_sub(self.buffer.len()).max(1)
    }

    fn prefix(&self) -> Option<(u16, usize)> {
        let mut r = Reader::new(&self.buffer);
        let (tag, length): (u16, u32) = Decode::decode(&mut r).ok()?;
        Some((tag, usize::try_from(length).unwrap_or(usize::MAX)))
    }

    /// Takes bytes.
    ///
    /// # Errors
    /// [`StreamError`] as soon as the bytes cannot become a stream any more.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if self.expect == Expect::Nothing && !bytes.is_empty() {
            return Err(self.fail(StreamError::TrailingBytes));
        }
        self.total = self.total.saturating_add(bytes.len());
        if self.total > MAX_STREAM {
            return Err(self.fail(StreamError::TooLong));
        }
        self.buffer.extend_from_slice(bytes);
        self.check_prefix()
    }

    fn check_prefix(&mut self) -> Result<(), StreamError> {
        let Some((tag, length)) = self.prefix() else { return Ok(()) };
        let max = match (self.expect, tag) {
            (Expect::Header, TAG_HEADER) => MAX_HEADER,
            (Expect::Key, TAG_KEY) => MAX_KEY,
            (Expect::FirstPieces | Expect::PiecesOrEnd, TAG_PIECES) => MAX_INSTANCE_DATA,
            (Expect::PiecesOrEnd, TAG_END) => MAX_END,
            (Expect::Header, _) => return Err(self.fail(StreamError::Magic)),
            (Expect::Nothing, _) => return Err(self.fail(StreamError::TrailingBytes)),
            _ => return Err(self.fail(StreamError::Tag(tag))),
        };
        if length > max { Err(self.fail(StreamError::TooLong)) } else { Ok(()) }
    }

    fn fail(&mut self, error: StreamError) -> StreamError {
        self.failed = Some(error);
        self.buffer = Vec::new();
        error
    }

    /// The next frame, when all of it is there.
    ///
    /// # Errors
    /// [`StreamError`].
    pub fn next_frame(&mut self) -> Result<Option<Frame>, StreamError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let Some((tag, length)) = self.prefix() else { return Ok(None) };
        let end = FRAME_PREFIX.saturating_add(length);
        let Some(body) = self.buffer.get(FRAME_PREFIX..end) else { return Ok(None) };
        let frame = match Frame::decode(tag, body) {
            Ok(frame) => frame,
            Err(error) => return Err(self.fail(error)),
        };
        self.expect = match frame {
            Frame::Header(_) => Expect::Key,
            Frame::Key(_) => Expect::FirstPieces,
            Frame::Pieces(_) => Expect::PiecesOrEnd,
            Frame::End(_) => Expect::Nothing,
        };
        self.buffer.drain(..end);
        if self.expect == Expect::Nothing && !self.buffer.is_empty() {
            return Err(self.fail(StreamError::TrailingBytes));
        }
        self.check_prefix()?;
        Ok(Some(frame))
    }

    /// Whether the end frame was given out.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.expect == Expect::Nothing && self.failed.is_none()
    }

    /// There are no more bytes.
    ///
    /// # Errors
    /// [`StreamError::Truncated`] when the end frame has not been given out, or the error met before.
    pub fn finish(self) -> Result<(), StreamError> {
        match self.failed {
            Some(error) => Err(error),
            None if self.is_complete() => Ok(()),
            None => Err(StreamError::Truncated),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frames() -> Vec<Frame> {
        vec![
            Frame::Header(StreamHeader {
                uuid: Uuid([1; 16]),
                migration_id: [2; 32],
                storage_name: Tpm2b::new(vec![0, 0x0b, 9]).unwrap(),
            }),
            Frame::Key(GetInstanceKeyOut {
                encrypted_secret: Tpm2b::new(vec![3; 70]).unwrap(),
                key_blob: Tpm2b::new(vec![4; 160]).unwrap(),
            }),
            Frame::Pieces(Long2b::new(vec![5; 300]).unwrap()),
            Frame::Pieces(Long2b::new(vec![6; 10]).unwrap()),
            Frame::End(Tpm2b::new(vec![7; 32]).unwrap()),
        ]
    }

    fn bytes_of(frames: &[Frame]) -> Vec<u8> {
        let mut out = Vec::new();
        frames.iter().for_each(|f| f.encode(&mut out));
        out
    }

    fn read_all(bytes: &[u8], portion: usize) -> Result<Vec<Frame>, StreamError> {
        let mut decoder = StreamDecoder::new();
        let mut out = Vec::new();
        for chunk in bytes.chunks(portion) {
            decoder.feed(chunk)?;
            while let Some(frame) = decoder.next_frame()? {
                out.push(frame);
            }
        }
        decoder.finish().map(|()| out)
    }

    #[test]
    fn split_reads_make_no_difference() {
        let bytes = bytes_of(&frames());
        for portion in [1, 2, 5, 6, 7, 64, 1000] {
            assert_eq!(read_all(&bytes, portion), Ok(frames()));
        }
    }

    #[test]
    fn wanted_never_reaches_into_the_next_frame() {
        let bytes = bytes_of(&frames());
        let mut rest = &bytes[..];
        let mut decoder = StreamDecoder::new();
        let mut out = Vec::new();
        while !decoder.is_complete() {
            let (head, tail) = rest.split_at(decoder.wanted());
            rest = tail;
            decoder.feed(head).unwrap();
            out.extend(decoder.next_frame().unwrap());
        }
        assert_eq!(out, frames());
        assert!(rest.is_empty());
    }

    #[test]
    fn a_truncated_stream_is_refused_at_every_length() {
        let bytes = bytes_of(&frames());
        for n in 0..bytes.len() {
            assert_eq!(read_all(&bytes[..n], 64), Err(StreamError::Truncated), "{n}");
        }
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let mut bytes = bytes_of(&frames());
        bytes.push(0);
        assert_eq!(read_all(&bytes, 1), Err(StreamError::TrailingBytes));
        assert_eq!(read_all(&bytes, 10_000), Err(StreamError::TrailingBytes));
    }

    #[test]
    fn frames_in_another_order_are_refused() {
        for (i, j, error) in [
            (0, 1, StreamError::Magic),
            (1, 2, StreamError::Tag(TAG_PIECES)),
            (2, 4, StreamError::Tag(TAG_END)),
        ] {
            let mut swapped = frames();
            swapped.swap(i, j);
            assert_eq!(read_all(&bytes_of(&swapped), 7), Err(error));
        }
    }

    #[test]
    fn a_frame_over_its_cap_is_refused_with_its_length() {
        let mut bytes = bytes_of(&frames()[..2]);
        TAG_PIECES.encode(&mut bytes);
        (u32::try_from(MAX_INSTANCE_DATA).unwrap() + 1).encode(&mut bytes);
        assert_eq!(read_all(&bytes, 1), Err(StreamError::TooLong));
    }

    #[test]
    fn another_magic_or_version_is_refused() {
        let mut bytes = bytes_of(&frames());
        bytes[FRAME_PREFIX] ^= 1;
        assert_eq!(read_all(&bytes, 64), Err(StreamError::Magic));
        bytes = bytes_of(&frames());
        bytes[FRAME_PREFIX + 9] = 2;
        assert_eq!(read_all(&bytes, 64), Err(StreamError::Version(2)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            at in 0usize..700,
            portion in 1usize..50,
        ) {
            let mut stream = bytes_of(&frames());
            let at = at.min(stream.len());
            stream.truncate(at);
            stream.extend(bytes);
            let _ = read_all(&stream, portion);
        }
    }
}
