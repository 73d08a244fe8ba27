//! `vtpmctl import-swtpm`: a TPM that a swtpm has kept goes on here.

use std::path::Path;

use serde_json::json;
use vtpm_engine::foreign::Foreign;
use vtpm_protocol::instance::{CreateInstanceIn, INSTANCE_SELF, InstanceAttributes, InstanceName, Uuid};
use vtpm_protocol::tpm::Tpm2b;

use super::{Ctl, CtlError, Result, taken};
use crate::foreign::{KeyOptions, StateDir};
use crate::migration::session::MigrationDigest;

impl Ctl {
    /// Takes the TPM in a state directory of swtpm over. When it fails, there is nothing left of it here.
    pub(super) fn import_swtpm(
        &self,
        dir: &Path,
        name: Option<&str>,
        uuid: Option<uuid::Uuid>,
        key: Option<&KeyOptions>,
    ) -> Result<()> {
        let path = dir.canonicalize().map_err(|source| CtlError::File { path: dir.to_owned(), source })?;
        let last = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let name = name.unwrap_or(&last);
        let instance = InstanceName::new(name).map_err(|_| CtlError::Name(name.to_owned()))?;
        let key = key.map(KeyOptions::load).transpose()?;
        // Held until the TPM lives here.
        let dir = StateDir::open(&path)?;
        let state = dir.read(key.as_ref())?;
        // The daemon reads it once more, and is who decides; what is wrong is said here.
        let foreign =
            Foreign::read(&state).map_err(|source| CtlError::Foreign { path: path.clone(), source })?;
        let mut left_out: Vec<String> = foreign.notes().iter().map(ToString::to_string).collect();
        left_out.extend(dir.volatile_files().into_iter().map(|file| {
            format!("{file} is left out: what a running machine had in its TPM's memory does not come along")
        }));
        let (nv, persistent) = (handles(&foreign.nv_indices()), handles(&foreign.persistent_objects()));
        drop(foreign);
        let input = CreateInstanceIn {
            uuid: Uuid(*uuid.unwrap_or_else(uuid::Uuid::new_v4).as_bytes()),
            name: instance,
            attributes: InstanceAttributes::default(),
            storage_public: Tpm2b::empty(),
            certificate: Tpm2b::empty(),
        };
        let made = self.client.create(INSTANCE_SELF, &input).map_err(|e| taken(e, name))?;
        let digest = MigrationDigest::initial(&made.ticket.migration_id, input.uuid);
        if let Err(error) = self.client.import_libtpms(made.instance, &digest, state) {
            let _best_effort = self.client.delete(made.instance);
            return Err(error.into());
        }
        let json = json!({
            "name": name,
            "uuid": uuid::Uuid::from_bytes(input.uuid.0).to_string(),
            "handle": format!("0x{:08x}", made.instance),
            "nv_indices": nv,
            "persistent_objects": persistent,
            "left_out": left_out,
        });
        let mut text = format!(
            "{name}: imported, with {} NV indices and {} persistent objects\n",
            nv.len(),
            persistent.len()
        );
        text.extend(left_out.iter().map(|what| format!("note: {what}\n")));
        text +=
            &format!("No swtpm must run on {} any more: there would be two of this TPM.\n", path.display());
        self.out.print(&json, &text);
        Ok(())
    }
}

fn handles(list: &[u32]) -> Vec<String> {
    list.iter().map(|handle| format!("0x{handle:08x}")).collect()
}
