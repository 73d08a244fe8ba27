//! The key with which swtpm encrypts its state, in the forms of its option `--key`.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::unistd::dup;
use vtpm_engine::crypto::{HashAlg, hmac};
use zeroize::Zeroizing;

/// Why the key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// An option that swtpm does not have either.
    #[error("{0:?} is none of the options of a key: file, fd, format, mode, pwdfile, pwdfd, kdf")]
    Option(String),
    /// No source, or two.
    #[error("a key has one source: file=, fd=, pwdfile= or pwdfd=")]
    Source,
    /// The value of an option.
    #[error("{value:?} is no {option} of a key; there are {known}")]
    Value {
        /// The option.
        option: &'static str,
        /// Its value.
        value: String,
        /// What it could be.
        known: &'static str,
    },
    /// The file or descriptor cannot be read.
    #[error("the key cannot be read from {}", .from.display())]
    Read {
        /// From where.
        from: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// What was read is no key.
    #[error("what was read is no key of {bits} bits in the format {format}")]
    NoKey {
        /// Bits of the mode.
        bits: usize,
        /// `hex` or `binary`.
        format: &'static str,
    },
}

/// An AES key of 16 or 32 bytes.
pub struct FileKey(Zeroizing<Vec<u8>>);

impl FileKey {
    /// The key.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

/// Where the key comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    File(PathBuf),
    Descriptor(i32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Hex,
    Binary,
    Pbkdf2,
    Sha512,
}

/// The value of `--key`: options with commas between them, as swtpm takes them, or the path of a file with a key in hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyOptions {
    source: Source,
    kind: Kind,
    size: usize,
}

impl std::str::FromStr for KeyOptions {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        if !text.contains('=') {
            return Ok(Self { source: Source::File(text.into()), kind: Kind::Hex, size: 16 });
        }
        let (mut key, mut password) = (None, None);
        let (mut format, mut kdf, mut size) = (Kind::Hex, Kind::Pbkdf2, 16);
        for option in text.split(',') {
            let (name, value) = option.split_once('=').ok_or_else(|| KeyError::Option(option.to_owned()))?;
            let wrong = |option, known| KeyError::Value { option, value: value.to_owned(), known };
            let descriptor =
                |option| value.parse::<u16>().map(i32::from).map_err(|_| wrong(option, "numbers only"));
            let place = match name {
                "file" => key.replace(Source::File(value.into())).map(drop),
                "fd" => key.replace(Source::Descriptor(descriptor("fd")?)).map(drop),
                "pwdfile" => password.replace(Source::File(value.into())).map(drop),
                "pwdfd" => password.replace(Source::Descriptor(descriptor("pwdfd")?)).map(drop),
                "format" => {
                    format = match value {
                        "hex" => Kind::Hex,
                        "binary" => Kind::Binary,
                        _ => return Err(wrong("format", "hex and binary")),
                    };
                    None
                }
                "kdf" => {
                    kdf = match value {
                        "pbkdf2" => Kind::Pbkdf2,
                        "sha512" => Kind::Sha512,
                        _ => return Err(wrong("kdf", "pbkdf2 and sha512")),
                    };
                    None
                }
                "mode" => {
                    size = match value {
                        "aes-cbc" | "aes-128-cbc" => 16,
                        "aes-256-cbc" => 32,
                        _ => return Err(wrong("mode", "aes-cbc, aes-128-cbc and aes-256-cbc")),
                    };
                    None
                }
                _ => return Err(KeyError::Option(name.to_owned())),
            };
            if place.is_some() {
                return Err(KeyError::Source);
            }
        }
        match (key, password) {
            (Some(source), None) => Ok(Self { source, kind: format, size }),
            (None, Some(source)) => Ok(Self { source, kind: kdf, size }),
            _ => Err(KeyError::Source),
        }
    }
}

/// A passphrase that is longer is none.
const MAX_PASSPHRASE: u64 = 1 << 20;

impl KeyOptions {
    /// Reads the key.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn load(&self) -> Result<FileKey, KeyError> {
        let bytes = self.read()?;
        let format = if self.kind == Kind::Binary { "binary" } else { "hex" };
        let no_key = || KeyError::NoKey { bits: self.size.saturating_mul(8), format };
        let key = match self.kind {
            Kind::Binary => Some(bytes),
            Kind::Hex => hex_key(&bytes),
            Kind::Pbkdf2 => Some(pbkdf2(&bytes)),
            Kind::Sha512 => Some(Zeroizing::new(HashAlg::Sha512.digest(&[&bytes]).to_vec())),
        };
        let mut key = key.ok_or_else(no_key)?;
        if matches!(self.kind, Kind::Pbkdf2 | Kind::Sha512) {
            key.truncate(self.size);
        }
        if key.len() == self.size { Ok(FileKey(key)) } else { Err(no_key()) }
    }

    fn read(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let (from, file) = match &self.source {
            Source::File(path) => (path.clone(), File::open(path)),
            Source::Descriptor(number) => {
                // A copy, by its name: the number is the caller's.
                let path = Path::new("/proc/self/fd").join(number.to_string());
                let file = File::open(&path).and_then(|file| Ok(File::from(dup(file.as_fd())?)));
                (path, file)
            }
        };
        let failed = |source| KeyError::Read { from: from.clone(), source };
        let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
        file.map_err(failed)?.take(MAX_PASSPHRASE).read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }
}

/// Hexadecimal digits up to the first white space, `0x` before them or not.
fn hex_key(bytes: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let text = bytes.split(u8::is_ascii_whitespace).next()?;
    let digits = text.strip_prefix(b"0x").unwrap_or(text);
    hex::decode(digits).map(Zeroizing::new).ok()
}

/// PBKDF2 of PKCS #5 with HMAC-SHA-512, the salt `swtpm` and 1000 rounds: its first block of 64 bytes.
fn pbkdf2(passphrase: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut round = hmac(HashAlg::Sha512, passphrase, &[b"swtpm", &1u32.to_be_bytes()]);
    let mut out = Zeroizing::new(round.to_vec());
    for _ in 1..1000 {
        round = hmac(HashAlg::Sha512, passphrase, &[&round]);
        for (sum, byte) in out.iter_mut().zip(round.iter()) {
            *sum ^= byte;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(dir: &tempfile::TempDir, bytes: &[u8]) -> String {
        let path = dir.path().join("key");
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    #[test]
    fn keys_are_read_as_swtpm_reads_them() {
        let dir = tempfile::tempdir().unwrap();
        let load = |bytes: &[u8], options: &str| {
            let path = file(&dir, bytes);
            options.replace('@', &path).parse::<KeyOptions>().unwrap().load().map(|k| hex::encode(k.expose()))
        };
        let digits = "000102030405060708090a0b0c0d0e0f";
        assert_eq!(load(digits.as_bytes(), "@").unwrap(), digits);
        assert_eq!(load(format!("0x{digits}\n").as_bytes(), "file=@").unwrap(), digits);
        assert_eq!(load(digits.as_bytes(), "file=@,format=hex,mode=aes-cbc").unwrap(), digits);
        assert_eq!(load(&[7; 16], "file=@,format=binary").unwrap(), "07".repeat(16));
        assert_eq!(load(&[7; 32], "mode=aes-256-cbc,format=binary,file=@").unwrap(), "07".repeat(32));
        // Computed with another implementation.
        assert_eq!(
            load(b"passphrase", "pwdfile=@,mode=aes-256-cbc").unwrap(),
            "b3bf8d524dbd024cca06eb6e75f96ff1db6b109ffc23e5e9e2079f2ed4522903"
        );
        assert_eq!(load(b"passphrase", "pwdfile=@,kdf=sha512").unwrap(), "33c2e05b6113e8d17fb08429de1cc1d5");
        for (bytes, options) in [
            (&b""[..], "file=@"),
            (b"00", "file=@"),
            (digits.as_bytes(), "file=@,mode=aes-256-cbc"),
            (b"zz0102030405060708090a0b0c0d0e0f", "file=@"),
            (&[7; 17], "file=@,format=binary"),
        ] {
            assert!(matches!(load(bytes, options), Err(KeyError::NoKey { .. })), "{options}");
        }
        assert!(matches!("file=/nowhere".parse::<KeyOptions>().unwrap().load(), Err(KeyError::Read { .. })));
    }

    #[test]
    fn options_that_swtpm_does_not_take_are_refused() {
        for (text, expected) in [
            ("file=a,what=b", "none of the options"),
            ("mode=aes-cbc", "one source"),
            ("file=a,pwdfile=b", "one source"),
            ("file=a,file=b", "one source"),
            ("file=a,mode=aes-512-cbc", "aes-256-cbc"),
            ("file=a,format=base64", "binary"),
            ("pwdfile=a,kdf=md5", "pbkdf2"),
            ("fd=x", "numbers"),
            ("file=a,b", "none of the options"),
        ] {
            let error = text.parse::<KeyOptions>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
