//! `vtpmd init`: a state directory with a host key, a database with the root instance, and the root's owner authorization.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::{DaemonError, OwnerAuth};
use crate::config::{Config, HostKeySource};
use crate::host_key::HostKey;
use crate::store::Store;
use crate::tree::{RootOptions, Tree};

/// Makes a state. The database gets its name when all else is done and durable, so that an `init` that was killed can be run again,
/// and one that is through cannot.
///
/// # Errors
/// [`DaemonError`]; `Initialised` when there is a database.
pub fn init(config: &Config) -> Result<(), DaemonError> {
    init_with(config, |source| Ok(source.load_or_create()?))
}

/// As [`init`], with a host key that the caller may have from elsewhere than the configuration says.
pub(crate) fn init_with(
    config: &Config,
    host_key: impl FnOnce(HostKeySource) -> Result<HostKey, DaemonError>,
) -> Result<(), DaemonError> {
    config.make_state_dir()?;
    let database = config.database();
    if database.exists() {
        return Err(DaemonError::Initialised(database));
    }
    let host_key = host_key(config.host_key_source())?;
    let owner = OwnerAuth::random()?;
    owner.store(&config.state_dir)?;

    let unfinished = database.with_extension("new");
    let made = |source| DaemonError::Make { path: database.clone(), source };
    remove_unfinished(&unfinished).map_err(made)?;
    let store = Arc::new(Store::create(&unfinished, &host_key)?);
    Tree::init(store.clone(), RootOptions::new(owner.into_bytes()))?;
    // The log does not go along to the other name.
    store.consolidate()?;
    if let Some(store) = Arc::into_inner(store) {
        store.close();
    }
    fs::rename(&unfinished, &database)
        .and_then(|()| remove_unfinished(&unfinished))
        .and_then(|()| File::open(&config.state_dir)?.sync_all())
        .map_err(made)
}

/// Removes what an interrupted `init` left: the database and the files that go with it.
fn remove_unfinished(database: &Path) -> io::Result<()> {
    let (Some(dir), Some(name)) = (database.parent(), database.file_name().and_then(|n| n.to_str())) else {
        return Ok(());
    };
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|n| n.starts_with(name)) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
