//! The state directory of a swtpm: its files, what is wrapped around the TPM's state in them, and the lock that a running swtpm holds.
//!
//! `tpm2-00.permall` begins with a header of 10 bytes: version, the least version that a reader must know (8 bits each), its own size, flags (16
//! bits each) and the size of the file (32 bits). Behind it stand, in version 2, items of tag (16 bits), length (32 bits) and value: the state in
//! plain, or encrypted with AES in CBC mode, with its initial vector and an HMAC-SHA-256 over ciphertext and vector under the same key. Version
//! 1 has no items: the state, or ciphertext of its SHA-256 and it, with a vector of zeros. Padding is that of PKCS #7, but to the size of the key.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use vtpm_engine::crypto::sym::{BlockCipher, Mode};
use vtpm_engine::crypto::{HashAlg, SymAlg, ct_eq, hmac};
use vtpm_protocol::codec::{Decode, Reader};
use vtpm_protocol::rc::ResponseCode;
use zeroize::Zeroizing;

use super::key::FileKey;
use super::linear::Linear;

const STATE: &str = "tpm2-00.permall";
const STATE_OF_1_2: &str = "tpm-00.permall";
const VOLATILE: [&str; 2] = ["tpm2-00.volatilestate", "tpm2-00.savestate"];
const LOCK: &str = ".lock";
/// A file that is longer is not read.
const MAX_FILE: u64 = 2 << 20;

const VERSION: u8 = 2;
const HEADER: usize = 10;
const ENCRYPTED: u16 = 1;
const KEY_OF_256_BITS: u16 = 8;

const DATA: u16 = 1;
const ENCRYPTED_DATA: u16 = 2;
const HMAC: u16 = 3;
const IV: u16 = 6;

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SwtpmError {
    /// It cannot be read.
    #[error("cannot use {}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// There is no state.
    #[error("there is no state of a TPM 2.0 in {}", .0.display())]
    NoState(PathBuf),
    /// It is that of a TPM 1.2.
    #[error("the state in {} is that of a TPM 1.2, which there is no way to take over", .0.display())]
    Tpm12(PathBuf),
    /// A swtpm runs on it.
    #[error("a swtpm is using {}; it has to be stopped first", .0.display())]
    InUse(PathBuf),
    /// The file is too long.
    #[error("{} is too long to be the state of a TPM", .0.display())]
    TooLong(PathBuf),
    /// The header is wrong.
    #[error("{} is damaged: {what}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// A newer swtpm wrote it.
    #[error("{} was written by a newer swtpm: it needs a reader of version {version}, known here is {VERSION}", .path.display())]
    TooNew {
        /// The file.
        path: PathBuf,
        /// The version.
        version: u8,
    },
    /// It is encrypted, and no key was given.
    #[error("{} is encrypted; --key names the key that its swtpm had", .0.display())]
    NeedsKey(PathBuf),
    /// A key was given for nothing.
    #[error("{} is not encrypted, and a key was given", .0.display())]
    NeedsNoKey(PathBuf),
    /// The key has another size.
    #[error("{} is encrypted with a key of {expected} bits, the one given has {given}", .path.display())]
    KeySize {
        /// The file.
        path: PathBuf,
        /// Bits.
        expected: usize,
        /// Bits.
        given: usize,
    },
    /// The key is wrong.
    #[error("the key is not the one with which {} is encrypted, or the file was changed", .0.display())]
    WrongKey(PathBuf),
}

/// A state directory, or the one file or block device of a state, locked against swtpm as long as this lives.
pub struct StateDir {
    path: PathBuf,
    /// Where in the one file the state is.
    linear: Option<Linear>,
    _lock: Option<File>,
}

impl StateDir {
    /// Opens the directory, file or device, and takes swtpm's lock. (In a file 0.7.1 takes none.)
    ///
    /// # Errors
    /// [`SwtpmError`].
    pub fn open(path: &Path) -> Result<Self, SwtpmError> {
        if !path.is_dir() {
            let failed = |source| SwtpmError::File { path: path.to_owned(), source };
            let lock = lock(path, path)?;
            let linear = Linear::read(&File::open(path).map_err(failed)?).map_err(failed)?;
            let linear = linear.filter(|linear| linear.lengths().first().is_some_and(|&length| length > 0));
            let none = || SwtpmError::NoState(path.to_owned());
            return Ok(Self { path: path.to_owned(), linear: Some(linear.ok_or_else(none)?), _lock: lock });
        }
        let state = path.join(STATE);
        if !state.try_exists().map_err(|source| SwtpmError::File { path: path.to_owned(), source })? {
            return Err(if path.join(STATE_OF_1_2).exists() {
                SwtpmError::Tpm12(path.to_owned())
            } else {
                SwtpmError::NoState(path.to_owned())
            });
        }
        Ok(Self { path: path.to_owned(), linear: None, _lock: lock(path, &path.join(LOCK))? })
    }

    /// The files in it that say something of a machine that was running, and are not taken over.
    #[must_use]
    pub fn volatile_files(&self) -> Vec<&'static str> {
        let is_there = |(name, index): (&&str, usize)| match &self.linear {
            Some(linear) => linear.lengths().get(index).is_some_and(|&length| length > 0),
            None => self.path.join(name).exists(),
        };
        VOLATILE.iter().zip(1..).filter(|&named| is_there(named)).map(|(name, _)| *name).collect()
    }

    /// The state of the TPM, decrypted and without wrapping.
    ///
    /// # Errors
    /// [`SwtpmError`].
    pub fn read(&self, key: Option<&FileKey>) -> Result<Zeroizing<Vec<u8>>, SwtpmError> {
        let path = if self.linear.is_some() { self.path.clone() } else { self.path.join(STATE) };
        let failed = |source| SwtpmError::File { path: path.clone(), source };
        if let Some(linear) = &self.linear {
            if linear.lengths().iter().any(|&length| u64::from(length) > MAX_FILE) {
                return Err(SwtpmError::TooLong(path));
            }
            let state = linear.state(&File::open(&path).map_err(failed)?).map_err(failed)?;
            return unwrap(&state, key).map_err(|wrong| wrong.at(path));
        }
        let mut file = File::open(&path).map_err(failed)?.take(MAX_FILE.saturating_add(1));
        let mut bytes = Zeroizing::new(Vec::with_capacity(1 << 16));
        file.read_to_end(&mut bytes).map_err(failed)?;
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_FILE {
            return Err(SwtpmError::TooLong(path));
        }
        unwrap(&bytes, key).map_err(|wrong| wrong.at(path))
    }
}

/// Takes the lock that swtpm takes. Where nothing can be written no swtpm runs, and there is no lock.
fn lock(state: &Path, path: &Path) -> Result<Option<File>, SwtpmError> {
    let failed = |source| SwtpmError::File { path: path.to_owned(), source };
    let mut options = OpenOptions::new();
    let flags = OFlag::O_NOFOLLOW.bits();
    let opened = options.write(true).create(state != path).mode(0o660).custom_flags(flags).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let whole = libc::flock {
        l_type: i16::try_from(libc::F_WRLCK).unwrap_or_default(),
        l_whence: i16::try_from(libc::SEEK_SET).unwrap_or_default(),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    match fcntl(&file, FcntlArg::F_SETLK(&whole)) {
        Ok(_) => Ok(Some(file)),
        Err(nix::Error::EACCES | nix::Error::EAGAIN) => Err(SwtpmError::InUse(state.to_owned())),
        Err(error) => Err(failed(error.into())),
    }
}

/// An error without its file.
#[derive(Debug, PartialEq, Eq)]
enum Wrong {
    Damaged(&'static str),
    TooNew(u8),
    NeedsKey,
    NeedsNoKey,
    KeySize(usize, usize),
    Key,
}

impl Wrong {
    fn at(self, path: PathBuf) -> SwtpmError {
        match self {
            Self::Damaged(what) => SwtpmError::Damaged { path, what },
            Self::TooNew(version) => SwtpmError::TooNew { path, version },
            Self::NeedsKey => SwtpmError::NeedsKey(path),
            Self::NeedsNoKey => SwtpmError::NeedsNoKey(path),
            Self::KeySize(expected, given) => SwtpmError::KeySize { path, expected, given },
            Self::Key => SwtpmError::WrongKey(path),
        }
    }
}

fn unwrap(bytes: &[u8], key: Option<&FileKey>) -> Result<Zeroizing<Vec<u8>>, Wrong> {
    let mut r = Reader::new(bytes);
    let header: Result<(u8, u8, u16, u16, u32), ResponseCode> = Decode::decode(&mut r);
    let (version, least, size, flags, total) = header.map_err(|_| Wrong::Damaged("it is too short"))?;
    if usize::try_from(total) != Ok(bytes.len()) {
        return Err(Wrong::Damaged("its header gives another size than it has"));
    }
    if least > VERSION {
        return Err(Wrong::TooNew(least));
    }
    if usize::from(size) != HEADER || version == 0 {
        return Err(Wrong::Damaged("its header is none of swtpm's"));
    }
    let is_encrypted = flags & ENCRYPTED != 0;
    let body = r.take_rest();
    match (is_encrypted, key) {
        (true, None) => Err(Wrong::NeedsKey),
        (false, Some(_)) => Err(Wrong::NeedsNoKey),
        (false, None) if version == 1 => Ok(Zeroizing::new(body.to_vec())),
        (false, None) => {
            let state = item(body, DATA)?.ok_or(Wrong::Damaged("there is no state in it"))?;
            Ok(Zeroizing::new(state.to_vec()))
        }
        (true, Some(key)) if version == 1 => {
            let plain = decrypt(key, &[0; 16], body)?;
            let (digest, state) = plain.split_at_checked(32).ok_or(Wrong::Key)?;
            let is_right = ct_eq(&HashAlg::Sha256.digest(&[state]), digest);
            if is_right { Ok(Zeroizing::new(state.to_vec())) } else { Err(Wrong::Key) }
        }
        (true, Some(key)) => {
            let expected = if flags & KEY_OF_256_BITS != 0 { 256 } else { 128 };
            let given = key.expose().len().saturating_mul(8);
            if given != expected {
                return Err(Wrong::KeySize(expected, given));
            }
            let missing = Wrong::Damaged("the ciphertext or its HMAC is missing");
            let (Some(data), Some(mac)) = (item(body, ENCRYPTED_DATA)?, item(body, HMAC)?) else {
                return Err(missing);
            };
            let iv = item(body, IV)?.unwrap_or_default();
            if !ct_eq(&hmac(HashAlg::Sha256, key.expose(), &[data, iv]), mac) {
                return Err(Wrong::Key);
            }
            let first = if iv.is_empty() { [0; 16] } else { *iv.first_chunk().ok_or(Wrong::Key)? };
            decrypt(key, &first, data)
        }
    }
}

/// The value of the first item with that tag.
fn item(body: &[u8], wanted: u16) -> Result<Option<&[u8]>, Wrong> {
    let mut r = Reader::new(body);
    while !r.is_empty() {
        let next: Result<(u16, u32), ResponseCode> = Decode::decode(&mut r);
        let value = next.and_then(|(tag, size)| {
            let size = usize::try_from(size).map_err(|_| ResponseCode::SIZE)?;
            Ok((tag, r.take(size)?))
        });
        let (tag, value) = value.map_err(|_| Wrong::Damaged("it is cut off"))?;
        if tag == wanted {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

fn decrypt(key: &FileKey, iv: &[u8; 16], data: &[u8]) -> Result<Zeroizing<Vec<u8>>, Wrong> {
    let cipher = BlockCipher::new(SymAlg::Aes, key.expose()).map_err(|_| Wrong::Key)?;
    let mut plain = Zeroizing::new(data.to_vec());
    cipher.decrypt(Mode::Cbc, &mut iv.clone(), &mut plain).map_err(|_| Wrong::Key)?;
    let padding = usize::from(plain.last().copied().unwrap_or_default());
    let end = plain.len().checked_sub(padding).ok_or(Wrong::Key)?;
    let is_padding = (1..=key.expose().len()).contains(&padding)
        && plain.get(end..).is_some_and(|bytes| bytes.iter().all(|byte| usize::from(*byte) == padding));
    if !is_padding {
        return Err(Wrong::Key);
    }
    plain.truncate(end);
    Ok(plain)
}
