//! The file or block device in which swtpm keeps a state with `backend-uri=file://`, without a directory.
//!
//! It begins with eight bytes that say so, as a number in the host's order of bytes, which is that of all others: version and a byte of nothing (8
//! bits each), the length of the header (16 bits), and then for each of its files offset, length of what is in it, and length of the room
//! for it (32 bits each). The first file is the state, the second and third are what a running machine had in its TPM's memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use zeroize::Zeroizing;

/// How it begins on a host whose numbers begin with their lowest byte, as all that swtpm is shipped for have it.
const MAGIC: &[u8; 8] = b"nilmptws";
const VERSION: u8 = 1;
/// Of the header; behind it stand the files.
const ENTRIES: usize = 12;
const ENTRY: usize = 12;
/// The files that mean anything to us.
const FILES: usize = 3;
const HEADER: usize = ENTRIES + FILES * ENTRY;

/// Where the files are: offset and length.
pub(super) struct Linear {
    files: [(u32, u32); FILES],
}

impl Linear {
    /// Reads the header; `None` if it is none.
    pub(super) fn read(file: &File) -> io::Result<Option<Self>> {
        let mut header = [0; HEADER];
        match file.read_exact_at(&mut header, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let is_ours = header.starts_with(MAGIC) && header.get(8) == Some(&VERSION);
        let number = |at: usize| {
            let bytes = header.get(at..)?.first_chunk()?;
            Some(u32::from_le_bytes(*bytes))
        };
        let file = |index: usize| {
            let at = ENTRIES.checked_add(index.checked_mul(ENTRY)?)?;
            Some((number(at)?, number(at.checked_add(4)?)?))
        };
        let (Some(state), Some(volatile), Some(saved)) = (file(0), file(1), file(2)) else { return Ok(None) };
        Ok(is_ours.then_some(Self { files: [state, volatile, saved] }))
    }

    /// The lengths of the files.
    pub(super) fn lengths(&self) -> [u32; FILES] {
        self.files.map(|(_, length)| length)
    }

    /// What is in the first file.
    pub(super) fn state(&self, file: &File) -> io::Result<Zeroizing<Vec<u8>>> {
        let [(offset, length), ..] = self.files;
        let mut bytes = Zeroizing::new(vec![0; usize::try_from(length).unwrap_or_default()]);
        file.read_exact_at(&mut bytes, offset.into())?;
        Ok(bytes)
    }
}
