//! Where one of these programs keeps its TPM: in a directory with vtpmd's database, a root and one instance in it, or all of that in one file or
//! on one block device.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{SwtpmError, file};
use super::suboptions::SubOptions;
use crate::config::Config;
use crate::daemon::{DaemonError, OwnerAuth, Single, init_with};
use crate::host_key::{HostKey, HostKeyError};
use crate::store::Container;

const NAMES: &[&str] = &["dir", "mode", "backend-uri", "lock", "backup", "fsync"];
/// What swtpm calls its state of a TPM 2.0 in a directory.
const FOREIGN: &str = "tpm2-00.permall";
/// How its state in one file begins, as the two orders of bytes have it.
const FOREIGN_FILE: [&[u8]; 2] = [b"nilmptws", b"swtpmlin"];
/// What a host key is derived for from the key of the command line.
const PURPOSE: &str = "swtpm --key";
/// Of a file that is made, unless another is said.
const FILE_MODE: u32 = 0o600;
/// What others may do with a file.
const OTHERS: u32 = 0o007;

/// Where the state is.
pub(super) struct StatePlace {
    kind: Kind,
    mode: Option<u32>,
}

enum Kind {
    Directory(Box<Config>),
    File {
        path: PathBuf,
        /// Somebody else has made it.
        existed: bool,
    },
}

impl StatePlace {
    /// What the value of `--tpmstate` says.
    pub(super) fn parse(text: &str) -> Result<Self, SwtpmError> {
        let sub = SubOptions::parse("--tpmstate", NAMES, text)?;
        if sub.flag("backup")? {
            return Err(sub.unsupported("backup", "the database keeps its own journal"));
        }
        // Both are always so.
        let (_lock, _fsync) = (sub.flag("lock")?, sub.flag("fsync")?);
        let place = match (sub.text("dir"), sub.text("backend-uri")) {
            (Some(dir), _) => Self::directory(dir),
            (None, Some(uri)) => Self::from_uri(uri)?,
            (None, None) => return Err(sub.needs("dir= or backend-uri= is needed")),
        };
        Ok(Self { mode: sub.mode("mode")?, ..place })
    }

    /// A directory as `dir://`, or a file or block device as `file://`.
    fn from_uri(uri: &str) -> Result<Self, SwtpmError> {
        match uri.split_once("://") {
            Some(("dir", dir)) if !dir.is_empty() => Ok(Self::directory(dir)),
            Some(("file", path)) if !path.is_empty() => {
                let path = PathBuf::from(path);
                let existed = path.exists();
                Ok(Self { kind: Kind::File { path, existed }, mode: None })
            }
            _ => Err(SwtpmError::Unsupported {
                option: format!("the state {uri}"),
                reason: "a state is dir:// and a directory, or file:// and a file or block device",
            }),
        }
    }

    /// As `swtpm_setup` is told: an URI, or a directory plainly.
    pub(super) fn from_argument(argument: &str) -> Result<Self, SwtpmError> {
        if argument.contains("://") { Self::from_uri(argument) } else { Ok(Self::directory(argument)) }
    }

    /// A directory.
    pub(super) fn directory(dir: impl Into<PathBuf>) -> Self {
        let state_dir: PathBuf = dir.into();
        // Not what the environment of some service says: the key belongs to this directory.
        let host_key = Some(state_dir.join("host.key"));
        let runtime_dir = state_dir.join("run");
        let config = Config { state_dir, runtime_dir, host_key, ..Config::default() };
        Self { kind: Kind::Directory(config.into()), mode: None }
    }

    /// The directory, file or device.
    pub(super) fn path(&self) -> &Path {
        match &self.kind {
            Kind::Directory(config) => &config.state_dir,
            Kind::File { path, .. } => path,
        }
    }

    /// Where the raw TPM socket of the root is, if there is a place for it.
    pub(super) fn runtime_dir(&self) -> Option<&Path> {
        match &self.kind {
            Kind::Directory(config) => Some(&config.runtime_dir),
            Kind::File { .. } => None,
        }
    }

    /// The length of the state in bytes, if there is one.
    pub(super) fn size(&self) -> Result<Option<u64>, SwtpmError> {
        match &self.kind {
            Kind::Directory(config) => Ok(fs::metadata(config.database()).ok().map(|found| found.len())),
            Kind::File { path, .. } => Ok(Container::look(path).map_err(DaemonError::from)?.size),
        }
    }

    /// Refuses a directory that is not there, also for a file.
    pub(super) fn check_directory(&self) -> Result<(), SwtpmError> {
        let directory = match &self.kind {
            Kind::Directory(config) => &config.state_dir,
            Kind::File { path, .. } => match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => return Ok(()),
            },
        };
        match fs::metadata(directory) {
            Ok(found) if found.is_dir() => Ok(()),
            Ok(_) => Err(file("use", directory)(io::ErrorKind::NotADirectory.into())),
            Err(error) => Err(file("use", directory)(error)),
        }
    }

    /// Refuses a place that holds the state of swtpm itself, and a file or device with anything in it that is no state.
    pub(super) fn check_foreign(&self) -> Result<(), SwtpmError> {
        match &self.kind {
            Kind::Directory(_) if self.size()?.is_none() && self.path().join(FOREIGN).exists() => {
                Err(SwtpmError::ForeignState(self.path().to_owned()))
            }
            Kind::Directory(_) => Ok(()),
            Kind::File { path, .. } => {
                let found = Container::look(path).map_err(DaemonError::from)?;
                if found.size.is_some() || found.start.iter().all(|&byte| byte == 0) {
                    Ok(())
                } else if FOREIGN_FILE.iter().any(|magic| found.start.starts_with(magic)) {
                    Err(SwtpmError::ForeignState(path.clone()))
                } else {
                    Err(SwtpmError::NotBlank(path.clone()))
                }
            }
        }
    }

    /// Removes the state, if there is one.
    pub(super) fn remove(&self) -> Result<(), SwtpmError> {
        let config = match &self.kind {
            Kind::Directory(config) => config,
            Kind::File { path, .. } if !path.exists() => return Ok(()),
            Kind::File { path, existed: false } => {
                return fs::remove_file(path).map_err(file("remove", path));
            }
            Kind::File { .. } => {
                let container = self.container()?;
                return Ok(container.clear().map_err(DaemonError::from)?);
            }
        };
        let database = config.database();
        let beside = |end: &str| {
            let mut name = database.clone().into_os_string();
            name.push(end);
            PathBuf::from(name)
        };
        let all = [
            database.clone(),
            beside("-wal"),
            beside("-shm"),
            beside("-journal"),
            OwnerAuth::path(self.path()),
            self.path().join("host.key"),
        ];
        for path in all {
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(file("remove", path)(e)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Opens the state; makes it when there is none. `key` protects it in the place of a host key beside it.
    pub(super) fn open(&self, key: Option<&[u8]>) -> Result<Single, SwtpmError> {
        self.check_foreign()?;
        match &self.kind {
            Kind::Directory(config) => self.open_directory(config, key),
            Kind::File { .. } => self.open_file(key),
        }
    }

    fn open_directory(&self, config: &Config, key: Option<&[u8]>) -> Result<Single, SwtpmError> {
        if self.size()?.is_none() {
            init_with(config, |source| match key {
                Some(key) => Ok(HostKey::from_foreign(PURPOSE, key)),
                None => Ok(source.load_or_create()?),
            })?;
        }
        let host_key = match key {
            Some(key) => HostKey::from_foreign(PURPOSE, key),
            None => match config.host_key_source().load() {
                Err(HostKeyError::Missing { .. }) => {
                    return Err(SwtpmError::KeyNeeded(self.path().to_owned()));
                }
                loaded => loaded.map_err(DaemonError::from)?,
            },
        };
        let single = Single::open(config, &host_key)?;
        self.apply_mode(&config.database())?;
        Ok(single)
    }

    fn open_file(&self, key: Option<&[u8]>) -> Result<Single, SwtpmError> {
        let foreign = key.map(|key| HostKey::from_foreign(PURPOSE, key));
        let container = self.container()?;
        let has_store = container.has_store();
        if !has_store {
            container.prepare(foreign.is_none()).map_err(DaemonError::from)?;
        }
        let host_key = foreign.or_else(|| container.host_key());
        let host_key = host_key.ok_or_else(|| SwtpmError::KeyNeeded(self.path().to_owned()))?;
        if !has_store {
            Single::make_in(&container, &host_key)?;
        }
        let single = Single::open_in(&container, &host_key)?;
        // A device belongs to the system.
        if let Some(found) = fs::metadata(self.path()).ok().filter(fs::Metadata::is_file) {
            self.apply_mode(self.path())?;
            if key.is_none() && self.mode.is_none() && found.mode() & OTHERS != 0 {
                log::warn!("{} has the TPM's secrets, and everybody may open it", self.path().display());
            }
        }
        Ok(single)
    }

    fn container(&self) -> Result<Arc<Container>, SwtpmError> {
        Ok(Container::open(self.path(), self.mode.unwrap_or(FILE_MODE)).map_err(DaemonError::from)?)
    }

    fn apply_mode(&self, path: &Path) -> Result<(), SwtpmError> {
        let Some(mode) = self.mode else { return Ok(()) };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(file("change the mode of", path))
    }
}
