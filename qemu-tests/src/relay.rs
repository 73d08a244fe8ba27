//! Sits between two QEMUs during a migration and has its hands on the TPM's part of it.
//!
//! QEMU's device `vhost-user-tpm` writes what the back-end gives it as chunks: a length of 32 bits and as many bytes,
//! until a length of zero. Everything else, the guest's memory most of all, passes through unseen.

use crate::error::{Error, Result};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// What the first frame of a migration stream has behind its tag and length.
const MAGIC: &[u8; 8] = b"vtpm-mig";
/// A chunk's length, then a frame's tag and length, come before the magic.
const BEFORE_MAGIC: usize = 4 + 6;

/// What becomes of the TPM's stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// This goes on to the destination in its place.
    Pass(Vec<u8>),
    /// So many bytes of it go on, and then the connection breaks.
    Cut(usize),
}

/// The longest beginning of chunk, frame and magic that is not the whole.
const HELD_BACK: usize = BEFORE_MAGIC + MAGIC.len() - 1;

/// Decides over the TPM's stream.
pub type Tamper = Box<dyn FnOnce(&[u8]) -> Fate + Send>;

/// A relay for one migration.
#[derive(Debug)]
pub struct Relay {
    seen: Arc<Mutex<Option<Vec<u8>>>>,
}

impl Relay {
    /// Listens for the source at one socket and connects to the destination at the other when the source comes.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot listen.
    pub fn start(listen: &Path, destination: &Path, tamper: Tamper) -> Result<Self> {
        let _ = std::fs::remove_file(listen);
        let listener = UnixListener::bind(listen).map_err(Error::io(listen.display().to_string()))?;
        let destination = destination.to_owned();
        let seen = Arc::new(Mutex::new(None));
        let record = Arc::clone(&seen);
        thread::spawn(move || {
            let Ok((source, _)) = listener.accept() else { return };
            let Ok(destination) = UnixStream::connect(destination) else { return };
            let back = (source.try_clone(), destination.try_clone());
            if let (Ok(to), Ok(from)) = back {
                thread::spawn(move || copy(from, to));
            }
            forward(source, destination, Filter::new(tamper, record));
        });
        Ok(Self { seen })
    }

    /// The TPM's stream as the source sent it, once it has come through.
    #[must_use]
    pub fn recorded(&self) -> Option<Vec<u8>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The way back, from destination to source.
fn copy(mut from: UnixStream, mut to: UnixStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

fn forward(mut from: UnixStream, mut to: UnixStream, mut filter: Filter) {
    // A few bytes are held back while the magic is looked for; not for longer than this.
    let _ = from.set_read_timeout(Some(Duration::from_millis(100)));
    let mut buffer = vec![0; 1 << 18];
    loop {
        let passed = match from.read(&mut buffer) {
            Ok(0) => {
                let _ = to.write_all(&filter.flush());
                break;
            }
            Ok(length) => filter.push(buffer.get(..length).unwrap_or_default()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                filter.flush()
            }
            Err(_) => break,
        };
        if to.write_all(&passed).is_err() {
            break;
        }
        if filter.cut {
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
            return;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

enum Looking {
    /// For the magic; these bytes may hold its beginning.
    ForMagic(Vec<u8>),
    /// For the last chunk; these are the chunks so far.
    ForEnd(Vec<u8>),
    /// No more.
    Done,
}

struct Filter {
    looking: Looking,
    tamper: Option<Tamper>,
    record: Arc<Mutex<Option<Vec<u8>>>>,
    cut: bool,
}

impl Filter {
    fn new(tamper: Tamper, record: Arc<Mutex<Option<Vec<u8>>>>) -> Self {
        Self { looking: Looking::ForMagic(Vec::new()), tamper: Some(tamper), record, cut: false }
    }

    /// Takes what came and returns what goes on.
    fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        match std::mem::replace(&mut self.looking, Looking::Done) {
            Looking::Done => bytes.to_vec(),
            Looking::ForMagic(mut held) => {
                held.extend_from_slice(bytes);
                let magic = held.windows(MAGIC.len()).position(|window| window == MAGIC);
                if let Some(start) = magic.and_then(|place| place.checked_sub(BEFORE_MAGIC)) {
                    let stream = held.split_off(start);
                    held.extend(self.stream(stream));
                    return held;
                }
                let keep = held.len().min(HELD_BACK);
                let kept = held.split_off(held.len().saturating_sub(keep));
                self.looking = Looking::ForMagic(kept);
                held
            }
            Looking::ForEnd(mut held) => {
                held.extend_from_slice(bytes);
                self.stream(held)
            }
        }
    }

    /// Gives up what is held back in search of the magic.
    fn flush(&mut self) -> Vec<u8> {
        match &mut self.looking {
            Looking::ForMagic(held) => std::mem::take(held),
            _ => Vec::new(),
        }
    }

    /// With everything from the first chunk on.
    fn stream(&mut self, held: Vec<u8>) -> Vec<u8> {
        let Some((stream, rest)) = join_chunks(&held) else {
            self.looking = Looking::ForEnd(held);
            return Vec::new();
        };
        let fate = self.tamper.take().map_or_else(|| Fate::Pass(stream.clone()), |tamper| tamper(&stream));
        let passed = match fate {
            Fate::Pass(instead) => [chunks(&instead).as_slice(), rest].concat(),
            Fate::Cut(length) => {
                self.cut = true;
                let mut passed = chunks(&stream);
                passed.truncate(length.saturating_add(4));
                passed
            }
        };
        *self.record.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
        passed
    }
}

/// The bytes in the chunks, and what is behind the last one; `None` until that is there.
fn join_chunks(held: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut stream = Vec::new();
    let mut rest = held;
    loop {
        let (length, behind) = rest.split_first_chunk()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (bytes, behind) = behind.split_at_checked(length)?;
        stream.extend_from_slice(bytes);
        rest = behind;
        if length == 0 {
            return Some((stream, rest));
        }
    }
}

fn chunks(stream: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in stream.chunks(65_536) {
        out.extend(u32::try_from(chunk.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(chunk);
    }
    out.extend([0; 4]);
    out
}

/// The frames of a migration stream: tag and body. What does not parse is left out.
#[must_use]
pub fn frames(stream: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut found = Vec::new();
    let mut rest = stream;
    while let Some((prefix, behind)) = rest.split_first_chunk::<6>() {
        let [t0, t1, l0, l1, l2, l3] = *prefix;
        let length = usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
        let Some((body, behind)) = behind.split_at_checked(length) else { break };
        found.push((u16::from_be_bytes([t0, t1]), body.to_vec()));
        rest = behind;
    }
    found
}

/// The stream of these frames.
#[must_use]
pub fn from_frames(frames: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut stream = Vec::new();
    for (tag, body) in frames {
        stream.extend(tag.to_be_bytes());
        stream.extend(u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes());
        stream.extend(body);
    }
    stream
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Vec<u8> {
        from_frames(&[(1, b"vtpm-mig and a header".to_vec()), (3, vec![7; 100_000]), (4, b"digest".to_vec())])
    }

    /// What comes out when `sent` comes in, in portions.
    fn through(sent: &[u8], portion: usize, tamper: Tamper) -> (Vec<u8>, Option<Vec<u8>>, bool) {
        let record = Arc::new(Mutex::new(None));
        let mut filter = Filter::new(tamper, Arc::clone(&record));
        let mut out: Vec<u8> = sent.chunks(portion).flat_map(|bytes| filter.push(bytes)).collect();
        out.extend(filter.flush());
        let recorded = record.lock().unwrap().clone();
        (out, recorded, filter.cut)
    }

    fn sent() -> Vec<u8> {
        [b"memory of the guest vtpm-mi".as_slice(), &chunks(&stream()), b"and the next device"].concat()
    }

    #[test]
    fn finds_the_stream_in_whatever_portions_it_comes() {
        for portion in [1, 7, 64, 5000, 1 << 20] {
            let (out, recorded, cut) =
                through(&sent(), portion, Box::new(|stream| Fate::Pass(stream.to_vec())));
            assert_eq!(out, sent(), "in portions of {portion}");
            assert_eq!(recorded, Some(stream()));
            assert!(!cut);
        }
    }

    #[test]
    fn another_stream_goes_on_in_its_place() {
        let (out, recorded, _) = through(&sent(), 1000, Box::new(|_| Fate::Pass(b"short".to_vec())));
        assert_eq!(out, b"memory of the guest vtpm-mi\0\0\0\x05short\0\0\0\0and the next device");
        assert_eq!(recorded, Some(stream()));
    }

    #[test]
    fn a_cut_ends_inside_the_stream() {
        let (out, _, cut) = through(&sent(), 1 << 20, Box::new(|_| Fate::Cut(50)));
        assert!(cut);
        assert_eq!(out.len(), b"memory of the guest vtpm-mi".len() + 4 + 50);
    }

    #[test]
    fn a_migration_without_a_stream_passes() {
        let (out, recorded, _) = through(b"nothing of interest", 3, Box::new(|_| Fate::Cut(0)));
        assert_eq!((out.as_slice(), recorded), (b"nothing of interest".as_slice(), None));
    }

    #[test]
    fn frames_come_apart_and_together() {
        assert_eq!(from_frames(&frames(&stream())), stream());
        assert_eq!(frames(&stream()).iter().map(|(tag, _)| *tag).collect::<Vec<_>>(), [1, 3, 4]);
    }
}
