//! Instances that the store has and the tree has not: what the store has of them, or of what they are children of, does not hold together.
//! They are shown as children of the root, and can be deleted.

use vtpm_protocol::instance::{InstanceAttributes, InstanceName, InstanceState, InstanceSummary, Uuid};

use super::{Tree, handle_of};
use crate::store::{InstanceId, StoreError};

/// One of them.
pub(super) struct LeftOut {
    pub(super) id: InstanceId,
    /// Another one that is left out is its child.
    pub(super) has_children: bool,
    /// What its row says, which nobody vouches for.
    pub(super) summary: InstanceSummary,
}

impl Tree {
    /// All of them. There are none as long as nothing is damaged.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) fn left_out(&self) -> Result<Vec<LeftOut>, StoreError> {
        let damaged = self.persistence.damaged()?;
        if damaged.is_empty() {
            return Ok(Vec::new());
        }
        // One that is being made is in the store before it is in the tree.
        let _births = self.births();
        let rows = self.persistence.instances()?;
        let known = self.topology();
        let has_children = |id| rows.iter().any(|row| row.parent == Some(id));
        let orphans = rows.iter().filter(|row| !known.contains_key(&row.handle));
        let orphans = orphans.map(|row| (row.id, Some(row.name.as_str()), Some(row.uuid)));
        let damaged = damaged.iter().map(|damaged| (damaged.id, damaged.name.as_deref(), damaged.uuid));
        let all = damaged.chain(orphans);
        Ok(all.filter_map(|(id, name, uuid)| left_out(id, has_children(id), name, uuid)).collect())
    }
}

/// `None` for a number that no handle was ever made of.
fn left_out(
    id: InstanceId,
    has_children: bool,
    name: Option<&str>,
    uuid: Option<[u8; 16]>,
) -> Option<LeftOut> {
    let name = name.and_then(|name| InstanceName::new(name).ok());
    let summary = InstanceSummary {
        instance: handle_of(id.0)?,
        uuid: Uuid(uuid.unwrap_or_default()),
        state: InstanceState::Damaged,
        attributes: InstanceAttributes::default(),
        name: name.or_else(|| InstanceName::new(&format!("damaged-{}", id.0)).ok())?,
    };
    Some(LeftOut { id, has_children, summary })
}
