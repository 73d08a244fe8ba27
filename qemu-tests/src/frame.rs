//! The frames between the host and the agent in the guest.
//!
//! They travel over a serial port, which loses what arrives before the guest has opened it, echoes what arrives
//! before the guest has switched echo off, and changes its host end when the machine migrates. So a frame starts
//! with a magic number, carries a checksum, and a reader that finds neither goes on looking byte by byte. A request
//! may be sent again: the agent keeps its last response and answers a repeated number from there.
//!
//! ```text
//! magic "vTg1" | kind u8 | body length u32 | its complement u32 | first 4 bytes of SHA-256(kind | body) | body
//! ```
//!
//! A length of which a part got lost would have the reader wait for a body that never comes; hence the complement.

use sha2::{Digest, Sha256};
use std::time::Duration;

const MAGIC: &[u8; 4] = b"vTg1";
const HEADER: usize = 17;

/// The largest body; a command's output beyond what fits is cut by the agent.
pub const MAX_BODY: usize = 4 << 20;

/// A command line for the agent to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Number of the request; a repeated one is answered from memory.
    pub id: u64,
    /// After this long the agent kills the command and its process group.
    pub timeout: Duration,
    /// Program and arguments. Empty: nothing is run and the response is empty, which serves as a ping.
    pub argv: Vec<String>,
    /// What the program reads from its standard input.
    pub stdin: Vec<u8>,
}

/// How the command of a [`Request`] ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The number of the request.
    pub id: u64,
    /// The exit status, 128 + n for death by signal n, [`Response::TIMED_OUT`] or [`Response::NOT_STARTED`].
    pub status: i32,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
}

impl Response {
    /// The command took longer than allowed and was killed.
    pub const TIMED_OUT: i32 = 1000;
    /// The command could not be started; `stderr` says why.
    pub const NOT_STARTED: i32 = 1001;
}

/// Either kind of frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// From the host.
    Request(Request),
    /// From the guest.
    Response(Response),
}

impl Frame {
    /// The frame's bytes. Fields longer than [`MAX_BODY`] allows make a frame that no reader accepts.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        let kind = match self {
            Self::Request(request) => {
                body.extend(request.id.to_be_bytes());
                let millis = u64::try_from(request.timeout.as_millis()).unwrap_or(u64::MAX);
                body.extend(millis.to_be_bytes());
                put_bytes(&mut body, &request.stdin);
                for argument in &request.argv {
                    put_bytes(&mut body, argument.as_bytes());
                }
                1
            }
            Self::Response(response) => {
                body.extend(response.id.to_be_bytes());
                body.extend(response.status.to_be_bytes());
                put_bytes(&mut body, &response.stdout);
                put_bytes(&mut body, &response.stderr);
                2
            }
        };
        let mut frame = Vec::new();
        frame.extend(MAGIC);
        frame.push(kind);
        let length = length(&body);
        frame.extend(length);
        frame.extend(length.map(|byte| !byte));
        frame.extend(checksum(kind, &body));
        frame.extend(body);
        frame
    }

    fn decode(kind: u8, body: &[u8]) -> Option<Self> {
        let mut rest = Fields(body);
        let id = u64::from_be_bytes(rest.array()?);
        match kind {
            1 => {
                let timeout = Duration::from_millis(u64::from_be_bytes(rest.array()?));
                let stdin = rest.bytes()?;
                let mut argv = Vec::new();
                while !rest.0.is_empty() {
                    argv.push(String::from_utf8(rest.bytes()?).ok()?);
                }
                Some(Self::Request(Request { id, timeout, argv, stdin }))
            }
            2 => {
                let status = i32::from_be_bytes(rest.array()?);
                let stdout = rest.bytes()?;
                let stderr = rest.bytes()?;
                rest.0.is_empty().then_some(Self::Response(Response { id, status, stdout, stderr }))
            }
            _ => None,
        }
    }
}

fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes()
}

fn put_bytes(into: &mut Vec<u8>, bytes: &[u8]) {
    into.extend(length(bytes));
    into.extend(bytes);
}

fn checksum(kind: u8, body: &[u8]) -> [u8; 4] {
    let digest = Sha256::new().chain_update([kind]).chain_update(body).finalize();
    digest.first_chunk().copied().unwrap_or_default()
}

/// What is left to decode of a body.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        let length = usize::try_from(u32::from_be_bytes(self.array()?)).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes.to_vec())
    }
}

/// Finds the frames in what a serial port delivers.
#[derive(Debug, Default)]
pub struct FrameReader {
    buffer: Vec<u8>,
}

impl FrameReader {
    /// Adds what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame; bytes that belong to none are dropped.
    pub fn next_frame(&mut self) -> Option<Frame> {
        loop {
            let start = self.buffer.windows(MAGIC.len()).position(|window| window == MAGIC);
            // The end of the buffer may be the start of a magic number.
            let junk = start.unwrap_or(self.buffer.len().saturating_sub(3));
            self.buffer.drain(..junk);
            start?;

            let kind = *self.buffer.get(4)?;
            let length = u32::from_be_bytes(*self.buffer.get(5..9)?.first_chunk()?);
            let complement = u32::from_be_bytes(*self.buffer.get(9..13)?.first_chunk()?);
            let whole = length == !complement;
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            if whole && length <= MAX_BODY {
                let end = HEADER.saturating_add(length);
                let sum = *self.buffer.get(13..HEADER)?.first_chunk()?;
                let body = self.buffer.get(HEADER..end)?;
                if checksum(kind, body) == sum
                    && let Some(frame) = Frame::decode(kind, body)
                {
                    self.buffer.drain(..end);
                    return Some(frame);
                }
            }
            self.buffer.drain(..1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Frame {
        Frame::Request(Request {
            id: 7,
            timeout: Duration::from_millis(1500),
            argv: vec!["sh".into(), "-c".into(), String::new()],
            stdin: b"vTg1 is no frame".to_vec(),
        })
    }

    fn response() -> Frame {
        Frame::Response(Response { id: 7, status: -3, stdout: b"out".to_vec(), stderr: vec![] })
    }

    #[test]
    fn reads_back_what_was_written_byte_by_byte() {
        let mut reader = FrameReader::default();
        let mut frames = Vec::new();
        for byte in request().encode().into_iter().chain(response().encode()) {
            reader.push(&[byte]);
            frames.extend(reader.next_frame());
        }
        assert_eq!(frames, [request(), response()]);
    }

    #[test]
    fn finds_a_frame_after_noise_and_after_half_a_frame() {
        let mut reader = FrameReader::default();
        let whole = request().encode();
        reader.push(b"login: vTvTg");
        reader.push(&whole[..whole.len() - 5]);
        assert_eq!(reader.next_frame(), None);
        reader.push(&response().encode());
        assert_eq!(reader.next_frame(), Some(response()));
        assert_eq!(reader.next_frame(), None);
    }

    /// A serial port that is opened or set up clears its FIFO, somewhere in the middle of what arrives.
    #[test]
    fn what_was_lost_in_the_middle_of_a_frame_does_not_hold_up_the_next() {
        let ping = Frame::Request(Request {
            id: 0x18de_0123_4567_89ab,
            timeout: Duration::ZERO,
            argv: vec![],
            stdin: vec![],
        });
        let whole = ping.encode();
        for start in 0..whole.len() {
            for end in start..whole.len() {
                let mut reader = FrameReader::default();
                reader.push(&whole[..start]);
                reader.push(&whole[end..]);
                reader.push(&whole);
                reader.push(&whole);
                assert_eq!(reader.next_frame(), Some(ping.clone()), "without bytes {start} to {end}");
            }
        }
    }

    #[test]
    fn drops_a_frame_with_a_wrong_checksum() {
        let mut reader = FrameReader::default();
        let mut bad = request().encode();
        *bad.last_mut().unwrap() ^= 1;
        reader.push(&bad);
        assert_eq!(reader.next_frame(), None);
        reader.push(&request().encode());
        assert_eq!(reader.next_frame(), Some(request()));
    }

    #[test]
    fn a_length_beyond_the_cap_does_not_stop_the_reader() {
        let mut reader = FrameReader::default();
        reader.push(b"vTg1\x01\xff\xff\xff\xff\0\0\0\0....");
        reader.push(&response().encode());
        assert_eq!(reader.next_frame(), Some(response()));
    }
}
