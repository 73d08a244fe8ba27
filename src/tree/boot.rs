//! The boot of the host in which the instances were used last.
//!
//! Machines do not outlive their host. What TPMs keep of a machine's boot (PCRs, sessions) may be older after a loss of power than what was
//! acknowledged, and belongs to machines that are gone: when the host was started anew, every TPM is owed a
//! `_TPM_Init` before it executes a command.

use zeroize::Zeroizing;

use super::persistence::{Ops, Stored, name};
use super::{Tree, TreeError};
use crate::store::Batch;

/// Where Linux names its boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The name of this boot.
pub(super) fn of_this_host() -> Option<Vec<u8>> {
    match std::fs::read(BOOT_ID) {
        Ok(id) => Some(id.trim_ascii().to_vec()),
        Err(error) => {
            log::warn!("{BOOT_ID} cannot be read ({error}); whether the host was started anew is not known");
            None
        }
    }
}

/// Notes `boot`. If it is another one than the last, all instances but the root, which is reset at every start anyway, are owed a
/// reset, durably and in the same batch.
pub(super) fn observe(tree: &Tree, boot: Option<&[u8]>) -> Result<(), TreeError> {
    let Some(boot) = boot else { return Ok(()) };
    let root = tree.root();
    let known = Stored::read(&*tree.persistence, root.id())?.boot;
    if known.as_ref().is_some_and(|known| known.as_slice() == boot) {
        return Ok(());
    }
    let mut list = Vec::new();
    if known.is_some() {
        for instance in tree.topology().values().filter(|i| i.handle() != root.handle()) {
            let mut ops = Ops::new(instance.id());
            ops.put(name::RESET, Zeroizing::new(vec![1]));
            list.append(&mut ops.list);
        }
        log::info!("the host was started anew; the TPMs are reset before they are used");
    }
    let mut ops = Ops::new(root.id());
    ops.put(name::BOOT, Zeroizing::new(boot.to_vec()));
    list.append(&mut ops.list);
    Ok(tree.persistence.commit(Batch::new(list))?)
}
