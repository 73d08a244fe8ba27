//! The host key: the 32 bytes under which the store wraps the keys of its instances.
//!
//! It comes from a file that only the daemon's user reads ([`HostKey::load`], [`HostKey::load_or_create`]) or from
//! a systemd credential ([`HostKey::from_credentials`]). Both hold exactly 32 raw bytes. Whoever has the host key
//! and the database has every TPM of the host, so the two belong on different media where that can be done; a key
//! beside the database protects only copies of the database that leave the host without it.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

/// Name of the credential that systemd passes to the daemon.
pub const CREDENTIAL_NAME: &str = "vtpmd-host-key";

const KEY_BYTES: usize = 32;

/// Bits of the mode that let the group or others at a key file.
const GROUP_AND_OTHERS: u32 = 0o077;
/// systemd grants a credential to an unprivileged service with an access control list, whose mask shows as the
/// group's bits; so a credential is refused only for the bits of others.
const OTHERS: u32 = 0o007;

/// The key of the host. It has no `Debug`, is wiped when dropped, and leaves this module only as derived keys.
pub struct HostKey(Zeroizing<[u8; KEY_BYTES]>);

/// Why there is no host key.
#[derive(Debug, thiserror::Error)]
pub enum HostKeyError {
    /// The file is not there.
    #[error("there is no host key at {path}; `vtpmd init` makes one")]
    Missing {
        /// The file that was looked for.
        path: PathBuf,
    },
    /// [`HostKey::create`] found a file, which it never replaces: the state sealed under it would be lost.
    #[error("there is a host key at {path} already, and it is not replaced")]
    Exists {
        /// The file that was found.
        path: PathBuf,
    },
    /// Others than the user of the daemon can reach the key.
    #[error("the host key {path} has mode {mode:04o}: nobody but its owner may have access (chmod 600)")]
    TooOpen {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file belongs to another user, who could change it.
    #[error("the host key {path} belongs to user {owner}, neither to the user of this process nor to root")]
    ForeignOwner {
        /// The key file.
        path: PathBuf,
        /// The user id that owns it.
        owner: u32,
    },
    /// Something is there that is not a plain file.
    #[error("the host key {path} is not a regular file")]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The file has another size than a key.
    #[error("the host key {path} does not have exactly 32 bytes")]
    WrongSize {
        /// The key file.
        path: PathBuf,
    },
    /// systemd passed no credentials to this process.
    #[error(
        "no host key was passed as systemd credential {CREDENTIAL_NAME} (CREDENTIALS_DIRECTORY is not set)"
    )]
    NoCredentials,
    /// The random number generator of the system failed.
    #[error("the system gave no random bytes for a new host key")]
    Random(#[source] getrandom::Error),
    /// The file system refused something.
    #[error("cannot {action} the host key {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The key file.
        path: PathBuf,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
}

impl HostKey {
    /// Reads the key at `path`. Refuses a file that others can read or write, that another user owns, or that does
    /// not have exactly 32 bytes.
    pub fn load(path: &Path) -> Result<Self, HostKeyError> {
        read_key(path, GROUP_AND_OTHERS)
    }

    /// Reads the credential [`CREDENTIAL_NAME`] that systemd passed to this process.
    pub fn from_credentials() -> Result<Self, HostKeyError> {
        let directory = credentials_directory().ok_or(HostKeyError::NoCredentials)?;
        read_key(&Path::new(&directory).join(CREDENTIAL_NAME), OTHERS)
    }

    /// Whether systemd passed a host key to this process.
    pub fn credential_is_present() -> bool {
        credentials_directory().is_some_and(|directory| Path::new(&directory).join(CREDENTIAL_NAME).exists())
    }

    /// Makes a new random key at `path`, with mode 0600. The file is there complete and durable, or not at all;
    /// one that is there already is left alone and answered with [`HostKeyError::Exists`].
    pub fn create(path: &Path) -> Result<Self, HostKeyError> {
        let mut bytes = Zeroizing::new([0u8; KEY_BYTES]);
        getrandom::fill(bytes.as_mut_slice()).map_err(HostKeyError::Random)?;

        let directory = directory_of(path);
        let mut draft_name = draft_start(path);
        draft_name.push(format!("{}{DRAFT_END}", std::process::id()));
        let draft = directory.join(draft_name);

        let published = write_draft(&draft, &bytes).and_then(|()| {
            // A link, unlike a rename, fails when the name is taken.
            fs::hard_link(&draft, path).map_err(|source| match source.kind() {
                io::ErrorKind::AlreadyExists => HostKeyError::Exists { path: path.to_owned() },
                _ => io_error("create", path)(source),
            })
        });
        let removed = fs::remove_file(&draft);
        published?;
        removed.map_err(io_error("remove the draft of", path))?;
        File::open(directory).and_then(|d| d.sync_all()).map_err(io_error("make durable", path))?;
        Ok(Self(bytes))
    }

    /// Reads the key at `path`, or makes it when nothing is there: what `vtpmd init` does. What an earlier one left that was killed in
    /// between is removed: its drafts are keys, or even other names of this one.
    pub fn load_or_create(path: &Path) -> Result<Self, HostKeyError> {
        remove_drafts(path).map_err(io_error("remove the draft of", path))?;
        match Self::load(path) {
            Err(HostKeyError::Missing { .. }) => match Self::create(path) {
                // Somebody else was quicker; theirs counts.
                Err(HostKeyError::Exists { .. }) => Self::load(path),
                other => other,
            },
            other => other,
        }
    }

    /// A key for one `purpose` and `context`, from which neither the host key nor a key of another purpose can be
    /// computed: HMAC-SHA-256 of the purpose, its length before it, and the context.
    pub(crate) fn derive(&self, purpose: &str, context: &[u8]) -> Zeroizing<[u8; 32]> {
        keyed_hash(&self.0, purpose, &[context])
    }

    /// The host key of a state that is protected with a key of the caller's, of up to 32 bytes.
    pub(crate) fn from_foreign(purpose: &str, key: &[u8]) -> Self {
        let mut block = Zeroizing::new([0u8; KEY_BYTES]);
        block.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
        // The length keeps a short key apart from a longer one with zeros at its end.
        Self(keyed_hash(&block, purpose, &[&(key.len() as u64).to_be_bytes()]))
    }

    /// A key that is kept with the state that it protects.
    pub(crate) fn from_bytes(bytes: Zeroizing<[u8; KEY_BYTES]>) -> Self {
        Self(bytes)
    }

    #[cfg(test)]
    pub(crate) fn for_tests(byte: u8) -> Self {
        Self(Zeroizing::new([byte; KEY_BYTES]))
    }
}

/// HMAC-SHA-256 under `key` of `purpose`, its length before it, and `parts` one after the other. The caller sees to
/// it that parts of one purpose cannot be cut in two ways.
pub(crate) fn keyed_hash(key: &[u8; 32], purpose: &str, parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    // HMAC fills a short key up with zeros to a block of the hash; done here, the length cannot be wrong.
    let mut block = Zeroizing::new([0u8; 64]);
    block.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
    let mut mac = Hmac::<Sha256>::new((&*block).into());
    mac.update(&(purpose.len() as u64).to_be_bytes());
    mac.update(purpose.as_bytes());
    for part in parts {
        mac.update(part);
    }
    Zeroizing::new(mac.finalize().into_bytes().into())
}

fn credentials_directory() -> Option<OsString> {
    std::env::var_os("CREDENTIALS_DIRECTORY").filter(|directory| !directory.is_empty())
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> HostKeyError {
    let path = path.to_owned();
    move |source| HostKeyError::Io { action, path, source }
}

/// The names of drafts begin with this and end with [`DRAFT_END`]; between them is the number of the process.
fn draft_start(path: &Path) -> OsString {
    let mut start = OsString::from(".");
    start.push(path.file_name().unwrap_or_default());
    start.push(".");
    start
}

const DRAFT_END: &str = ".new";

fn remove_drafts(path: &Path) -> io::Result<()> {
    let start = draft_start(path);
    let entries = match fs::read_dir(directory_of(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let rest = name.as_bytes().strip_prefix(start.as_bytes());
        let process = rest.and_then(|rest| rest.strip_suffix(DRAFT_END.as_bytes()));
        if process.is_some_and(|digits| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn write_draft(draft: &Path, bytes: &[u8; KEY_BYTES]) -> Result<(), HostKeyError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(draft)
        .map_err(io_error("create", draft))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io_error("write", draft))
}

fn read_key(path: &Path, forbidden: u32) -> Result<HostKey, HostKeyError> {
    // O_NONBLOCK, or a pipe at that path would hold the daemon before it can be told apart from a file.
    let file =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(
            |source| match source.kind() {
                io::ErrorKind::NotFound => HostKeyError::Missing { path: path.to_owned() },
                _ => io_error("open", path)(source),
            },
        )?;
    // Asked of the open file, so that it speaks of the file that is read.
    let metadata = file.metadata().map_err(io_error("examine", path))?;
    if !metadata.is_file() {
        return Err(HostKeyError::NotAFile { path: path.to_owned() });
    }
    if metadata.mode() & forbidden != 0 {
        return Err(HostKeyError::TooOpen { path: path.to_owned(), mode: metadata.mode() & 0o7777 });
    }
    let owner = metadata.uid();
    if owner != 0 && owner != nix::unistd::geteuid().as_raw() {
        return Err(HostKeyError::ForeignOwner { path: path.to_owned(), owner });
    }
    let wrong_size = || HostKeyError::WrongSize { path: path.to_owned() };
    if metadata.len() != KEY_BYTES as u64 {
        return Err(wrong_size());
    }
    let mut bytes = Zeroizing::new([0u8; KEY_BYTES]);
    (&file).read_exact(bytes.as_mut_slice()).map_err(|source| match source.kind() {
        io::ErrorKind::UnexpectedEof => wrong_size(),
        _ => io_error("read", path)(source),
    })?;
    Ok(HostKey(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn in_directory(check: impl FnOnce(&Path)) {
        let directory = tempfile::tempdir().unwrap();
        check(&directory.path().join("host.key"));
    }

    #[test]
    fn created_key_is_read_back_and_is_private() {
        in_directory(|path| {
            let made = HostKey::load_or_create(path).unwrap();
            let read = HostKey::load_or_create(path).unwrap();
            assert_eq!(*made.0, *read.0);
            assert_ne!(*made.0, [0; 32]);
            assert_eq!(fs::metadata(path).unwrap().mode() & 0o7777, 0o600);
            assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no draft is left");
        });
    }

    #[test]
    fn drafts_of_a_killed_process_do_not_remain_nor_stand_in_the_way() {
        in_directory(|path| {
            let draft = |process: u32| path.with_file_name(format!(".host.key.{process}.new"));
            // Killed before the draft got its name; in a container the next process has the same number.
            fs::write(draft(std::process::id()), b"half a key").unwrap();
            let made = HostKey::load_or_create(path).unwrap();
            assert!(!draft(std::process::id()).exists());
            // Killed when it had its name, and was not yet rid of the other.
            fs::hard_link(path, draft(1)).unwrap();
            let other = path.with_file_name(".host.key.mine.new");
            fs::write(&other, b"not a draft").unwrap();
            assert_eq!(*HostKey::load_or_create(path).unwrap().0, *made.0);
            assert!(!draft(1).exists() && other.exists());
        });
    }

    #[test]
    fn create_leaves_an_existing_file_alone() {
        in_directory(|path| {
            fs::write(path, b"precious").unwrap();
            assert!(matches!(HostKey::create(path), Err(HostKeyError::Exists { .. })));
            assert_eq!(fs::read(path).unwrap(), b"precious");
            assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        });
    }

    #[test]
    fn refuses_a_key_that_group_or_others_reach() {
        in_directory(|path| {
            HostKey::create(path).unwrap();
            for mode in [0o640, 0o604, 0o620, 0o644] {
                fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
                assert!(
                    matches!(HostKey::load(path), Err(HostKeyError::TooOpen { mode: found, .. }) if found == mode)
                );
            }
            fs::set_permissions(path, fs::Permissions::from_mode(0o400)).unwrap();
            assert!(HostKey::load(path).is_ok());
        });
    }

    #[test]
    fn refuses_other_sizes_and_other_kinds_of_file() {
        in_directory(|path| {
            for size in [0, 31, 33, 65] {
                fs::write(path, vec![7u8; size]).unwrap();
                fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
                assert!(matches!(HostKey::load(path), Err(HostKeyError::WrongSize { .. })), "{size} bytes");
            }
            assert!(matches!(HostKey::load(path.parent().unwrap()), Err(HostKeyError::NotAFile { .. })));
            fs::remove_file(path).unwrap();
            assert!(matches!(HostKey::load(path), Err(HostKeyError::Missing { .. })));
            nix::unistd::mkfifo(path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
            assert!(matches!(HostKey::load(path), Err(HostKeyError::NotAFile { .. })));
        });
    }

    #[test]
    fn credential_may_show_the_mask_of_an_access_list_but_not_be_open_to_others() {
        in_directory(|path| {
            HostKey::create(path).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o440)).unwrap();
            assert!(read_key(path, OTHERS).is_ok());
            fs::set_permissions(path, fs::Permissions::from_mode(0o444)).unwrap();
            assert!(matches!(read_key(path, OTHERS), Err(HostKeyError::TooOpen { .. })));
        });
    }

    #[test]
    fn derived_keys_differ_by_purpose_context_and_host_key() {
        let key = HostKey::for_tests(1);
        let base = key.derive("wrap", b"a");
        assert_eq!(*base, *key.derive("wrap", b"a"));
        assert_ne!(*base, *key.derive("wrapa", b""));
        assert_ne!(*base, *key.derive("wrap", b"b"));
        assert_ne!(*base, *HostKey::for_tests(2).derive("wrap", b"a"));
    }
}
