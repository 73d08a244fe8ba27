//! The directory in which one of these programs keeps its TPM: vtpmd's database with a root and one instance.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::error::{SwtpmError, file};
use super::suboptions::SubOptions;
use crate::config::Config;
use crate::daemon::{DaemonError, OwnerAuth, Single, init_with};
use crate::host_key::{HostKey, HostKeyError};

const NAMES: &[&str] = &["dir", "mode", "backend-uri", "lock", "backup", "fsync"];
/// What swtpm calls its state of a TPM 2.0.
const FOREIGN: &str = "tpm2-00.permall";
/// What a host key is derived for from the key of the command line.
const PURPOSE: &str = "swtpm --key";

/// Where the state is.
pub(super) struct StateDir {
    config: Config,
    mode: Option<u32>,
}

impl StateDir {
    /// What the value of `--tpmstate` says.
    pub(super) fn parse(text: &str) -> Result<Self, SwtpmError> {
        let sub = SubOptions::parse("--tpmstate", NAMES, text)?;
        if sub.flag("backup")? {
            return Err(sub.unsupported("backup", "the database keeps its own journal"));
        }
        // Both are always so.
        let (_lock, _fsync) = (sub.flag("lock")?, sub.flag("fsync")?);
        let place = match (sub.text("dir"), sub.text("backend-uri")) {
            (Some(dir), _) => Self::new(dir),
            (None, Some(uri)) => Self::from_uri(uri)?,
            (None, None) => return Err(sub.needs("dir= or backend-uri= is needed")),
        };
        Ok(Self { mode: sub.mode("mode")?, ..place })
    }

    /// A directory as `dir://` or plainly.
    pub(super) fn from_uri(uri: &str) -> Result<Self, SwtpmError> {
        match uri.split_once("://") {
            Some(("dir", dir)) => Ok(Self::new(dir)),
            Some(_) => Err(SwtpmError::Unsupported {
                option: format!("the state {uri}"),
                reason: "a state is a directory, dir://",
            }),
            None => Ok(Self::new(uri)),
        }
    }

    fn new(dir: impl Into<PathBuf>) -> Self {
        let state_dir: PathBuf = dir.into();
        // Not what the environment of some service says: the key belongs to this directory.
        let host_key = Some(state_dir.join("host.key"));
        let runtime_dir = state_dir.join("run");
        Self { config: Config { state_dir, runtime_dir, host_key, ..Config::default() }, mode: None }
    }

    /// The directory.
    pub(super) fn path(&self) -> &Path {
        &self.config.state_dir
    }

    /// Where the raw TPM socket of the root is.
    pub(super) fn runtime_dir(&self) -> &Path {
        &self.config.runtime_dir
    }

    /// The length of the state in bytes, if there is one.
    pub(super) fn size(&self) -> Option<u64> {
        fs::metadata(self.config.database()).ok().map(|found| found.len())
    }

    /// Refuses a directory that holds the state of swtpm itself.
    pub(super) fn check_foreign(&self) -> Result<(), SwtpmError> {
        if self.size().is_none() && self.path().join(FOREIGN).exists() {
            return Err(SwtpmError::ForeignState(self.path().to_owned()));
        }
        Ok(())
    }

    /// Removes the state, if there is one.
    pub(super) fn remove(&self) -> Result<(), SwtpmError> {
        let database = self.config.database();
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
        let foreign = || key.map(|key| HostKey::from_foreign(PURPOSE, key));
        if self.size().is_none() {
            init_with(&self.config, |source| match foreign() {
                Some(key) => Ok(key),
                None => Ok(source.load_or_create()?),
            })?;
        }
        let host_key = match foreign() {
            Some(key) => key,
            None => match self.config.host_key_source().load() {
                Err(HostKeyError::Missing { .. }) => {
                    return Err(SwtpmError::KeyNeeded(self.path().to_owned()));
                }
                loaded => loaded.map_err(DaemonError::from)?,
            },
        };
        let single = Single::open(&self.config, &host_key)?;
        if let Some(mode) = self.mode {
            let database = self.config.database();
            fs::set_permissions(&database, fs::Permissions::from_mode(mode))
                .map_err(file("change the mode of", database))?;
        }
        Ok(single)
    }
}
