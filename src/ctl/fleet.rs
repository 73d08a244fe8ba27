//! `vtpmctl fleet-key`: the storage key that hosts share.

use std::path::Path;
use std::time::SystemTime;

use pem_rfc7468::LineEnding;
use vtpm_protocol::codec::{Encode, decode_exact};
use vtpm_protocol::instance::{FLEET_KEY_LABEL, FleetKey, KeyRole, MAX_FLEET_KEY};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::Tpm2bName;
use zeroize::Zeroizing;

use super::args::FleetKeyCommand;
use super::files::Sink;
use super::trust::{read_identity, read_small};
use super::{Ctl, CtlError, Result};
use crate::migration::client::ClientError;
use crate::trust::{VerifiedIdentity, identity};

impl Ctl {
    pub(super) fn fleet(&self, command: FleetKeyCommand) -> Result<()> {
        match command {
            FleetKeyCommand::Create => {
                self.no_fleet_key()?;
                self.client.create_fleet_key()?;
                self.out.fleet_key("created", &self.fleet_key()?);
            }
            FleetKeyCommand::Duplicate { to, output } => {
                self.fleet_key()?;
                let other = read_identity(&to)?;
                self.trusted(&other)?;
                let made = match self.client.duplicate_fleet_key(&other) {
                    Err(ClientError::NoStorageKey) => return Err(CtlError::ForeignFleetKey(to)),
                    other => other?,
                };
                let bytes = Zeroizing::new(made.to_bytes());
                let text = pem_rfc7468::encode_string(FLEET_KEY_LABEL, LineEnding::LF, &bytes);
                let text = Zeroizing::new(text.unwrap_or_default());
                Sink::create(&output)?.put(text.as_bytes())?;
                self.out.done_unless_stdout("fleet key", "duplicated", &output);
            }
            FleetKeyCommand::Import { file } => {
                self.no_fleet_key()?;
                let key = read_fleet_key(&file)?;
                let origin = identity::verify(key.identity.clone())
                    .map_err(|source| CtlError::Identity { path: file.clone(), source })?;
                self.trusted(&origin)?;
                // What the other host vouches for is the key that is in the file.
                let certified = origin.key(KeyRole::Fleet).map(Encode::to_bytes);
                if certified.as_deref() != Some(&*key.public) {
                    return Err(CtlError::FleetKey(file));
                }
                match self.client.import_fleet_key(&key) {
                    Err(ClientError::NoStorageKey) => return Err(CtlError::ForeignFleetKey(file)),
                    other => other?,
                }
                self.out.fleet_key("imported", &self.fleet_key()?);
            }
            FleetKeyCommand::Show => self.out.fleet_key("here", &self.fleet_key()?),
            FleetKeyCommand::Remove => match self.client.remove_fleet_key() {
                Err(ClientError::Refused { code, .. }) if code.is(ResponseCode::HANDLE) => {
                    return Err(CtlError::NoFleetKey);
                }
                other => {
                    other?;
                    self.out.done("fleet key", "removed");
                }
            },
        }
        Ok(())
    }

    /// The Name of the fleet key.
    pub(super) fn fleet_key(&self) -> Result<Tpm2bName> {
        self.client.fleet_key()?.map(|(_, name)| name).ok_or(CtlError::NoFleetKey)
    }

    fn no_fleet_key(&self) -> Result<()> {
        if self.client.fleet_key()?.is_some() { Err(CtlError::FleetKeyExists) } else { Ok(()) }
    }

    fn trusted(&self, other: &VerifiedIdentity) -> Result<()> {
        let peers = self.client.peers()?;
        other
            .recognize(&peers, SystemTime::now())
            .map(drop)
            .map_err(|source| CtlError::Untrusted { fingerprint: other.fingerprint(), source })
    }
}

fn read_fleet_key(path: &Path) -> Result<FleetKey> {
    let none = || CtlError::FleetKey(path.to_owned());
    let text = Zeroizing::new(read_small(path)?);
    let (label, bytes) = pem_rfc7468::decode_vec(&text).map_err(|_| none())?;
    let bytes = Zeroizing::new(bytes);
    if label != FLEET_KEY_LABEL || bytes.len() > MAX_FLEET_KEY {
        return Err(none());
    }
    decode_exact(&bytes).map_err(|_| none())
}
