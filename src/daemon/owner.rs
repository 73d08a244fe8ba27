//! The file with the root's owner authorization, which only its user reads: one line of hexadecimal digits.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Its name in the state directory.
pub const OWNER_AUTH_FILE: &str = "root.auth";
/// Bytes of a fresh authorization value.
const SIZE: usize = 32;
/// More than any authorization value takes in hexadecimal digits.
const MAX_FILE: u64 = 256;

/// Why there is no owner authorization.
#[derive(Debug, thiserror::Error)]
pub enum OwnerAuthError {
    /// The file cannot be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write {}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Others may read the file.
    #[error("{} can be read by others than its owner (mode {mode:o}); chmod 600 it", .path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The content is not what it should be.
    #[error("{} holds no authorization value of 1 to 64 bytes in hexadecimal digits", .0.display())]
    Content(PathBuf),
    /// The system has no randomness.
    #[error("the system gives no randomness")]
    Randomness,
}

/// The owner authorization of the root.
pub struct OwnerAuth(Zeroizing<Vec<u8>>);

impl OwnerAuth {
    /// A fresh random one.
    ///
    /// # Errors
    /// [`OwnerAuthError::Randomness`].
    pub fn random() -> Result<Self, OwnerAuthError> {
        let mut bytes = Zeroizing::new(vec![0; SIZE]);
        getrandom::fill(&mut bytes).map_err(|_| OwnerAuthError::Randomness)?;
        // Trailing zeros are no part of an authorization value.
        if let Some(last) = bytes.last_mut() {
            *last |= 1;
        }
        Ok(Self(bytes))
    }

    /// Where it is kept beside a database.
    #[must_use]
    pub fn path(state_dir: &Path) -> PathBuf {
        state_dir.join(OWNER_AUTH_FILE)
    }

    /// Reads it from the state directory.
    ///
    /// # Errors
    /// [`OwnerAuthError`].
    pub fn load(state_dir: &Path) -> Result<Self, OwnerAuthError> {
        Self::read(&Self::path(state_dir))
    }

    /// Reads it from a file.
    ///
    /// # Errors
    /// [`OwnerAuthError`]; `Mode` when group or others may read or write it.
    pub fn read(path: &Path) -> Result<Self, OwnerAuthError> {
        let failed = |source| OwnerAuthError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(OwnerAuthError::Mode { path: path.to_owned(), mode });
        }
        let mut text = Zeroizing::new(String::new());
        file.take(MAX_FILE).read_to_string(&mut text).map_err(failed)?;
        match hex::decode(text.trim()) {
            Ok(bytes) if (1..=64).contains(&bytes.len()) => Ok(Self(Zeroizing::new(bytes))),
            _ => Err(OwnerAuthError::Content(path.to_owned())),
        }
    }

    /// Writes it into the state directory, durably, in place of an earlier one.
    ///
    /// # Errors
    /// [`OwnerAuthError::Write`].
    pub fn store(&self, state_dir: &Path) -> Result<(), OwnerAuthError> {
        let path = Self::path(state_dir);
        let new = state_dir.join(".root.auth.new");
        let write = || -> io::Result<()> {
            match fs::remove_file(&new) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            let mut line = Zeroizing::new(hex::encode(&*self.0));
            line.push('\n');
            file.write_all(line.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(state_dir)?.sync_all()
        };
        write().map_err(|source| OwnerAuthError::Write { path: path.clone(), source })
    }

    /// The bytes.
    #[must_use]
    pub fn into_bytes(self) -> Zeroizing<Vec<u8>> {
        self.0
    }

    /// The bytes, for use beside others.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_is_stored_is_loaded_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let auth = OwnerAuth::random().unwrap();
        auth.store(dir.path()).unwrap();
        auth.store(dir.path()).unwrap();
        assert!(OwnerAuth::load(dir.path()).unwrap().expose() == auth.expose());
        let path = OwnerAuth::path(dir.path());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(OwnerAuth::load(dir.path()), Err(OwnerAuthError::Mode { mode: 0o640, .. })));
    }

    #[test]
    fn anything_but_hexadecimal_digits_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = OwnerAuth::path(dir.path());
        for text in ["", "\n", "xyz", "abc", &"00".repeat(65)] {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            assert!(matches!(OwnerAuth::load(dir.path()), Err(OwnerAuthError::Content(_))), "{text:?}");
        }
    }
}
