//! `vtpmctl identity` and `vtpmctl peer`: what this host shows of itself, and whom it trusts.

use std::io::Read;
use std::path::Path;
use std::time::SystemTime;

use pem_rfc7468::LineEnding;
use rustls_pki_types::CertificateDer;
use vtpm_protocol::codec::decode_exact;
use vtpm_protocol::instance::{InstanceName, MigrationTicket, PeerAddress, PeerEntry, PeerKind, PeerRights};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Tpm2b, TpmtPublic};

use super::args::{IdentityCommand, PeerAdd, PeerCommand};
use super::files::{Sink, open};
use super::{Ctl, CtlError, Result, explained_peer};
use crate::migration::client::ClientError;
use crate::migration::source::storage_name;
use crate::trust::{self, IdentityError, VerifiedIdentity, certificate, identity, spki};

/// No identity or certificate is near this size.
const MAX_FILE: u64 = 1 << 17;

impl Ctl {
    pub(super) fn identity(&self, command: IdentityCommand) -> Result<()> {
        match command {
            IdentityCommand::Show { file } => {
                let shown = match file {
                    Some(path) => read_identity(&path)?,
                    None => self.own_identity()?,
                };
                self.out.identity(&shown);
            }
            IdentityCommand::Export { output, public_key } => {
                let own = self.own_identity()?;
                let text = if public_key {
                    let spki = spki::of_public(own.attestation()).ok_or(IdentityError::NoAttestationKey)?;
                    pem_rfc7468::encode_string("PUBLIC KEY", LineEnding::LF, &spki).unwrap_or_default()
                } else {
                    identity::to_text(own.document())
                };
                Sink::create(&output)?.put(text.as_bytes())?;
                self.out.done_unless_stdout("identity", "exported", &output);
            }
            IdentityCommand::Certify { file, remove: _ } => {
                let Some(path) = file else {
                    self.client.set_certificate(&Tpm2b::empty())?;
                    self.out.done("certificate", "removed");
                    return Ok(());
                };
                let der = read_certificate(&path)?;
                let own = self.own_identity()?;
                let of_it = webpki::EndEntityCert::try_from(&CertificateDer::from(der.as_slice()))
                    .map_err(|_| CtlError::Certificate(path.clone()))?
                    .subject_public_key_info();
                if spki::of_public(own.attestation()).as_deref() != Some(&*of_it) {
                    return Err(CtlError::ForeignCertificate(path));
                }
                let der = Tpm2b::new(der).map_err(|_| CtlError::LongCertificate(path))?;
                self.client.set_certificate(&der)?;
                self.out.done("certificate", "kept");
            }
        }
        Ok(())
    }

    fn own_identity(&self) -> Result<VerifiedIdentity> {
        let document = match self.client.identity() {
            Err(ClientError::Refused { code, .. }) if code.is(ResponseCode::NV_UNINITIALIZED) => {
                return Err(CtlError::NoIdentity);
            }
            other => other?,
        };
        Ok(identity::verify(document)?)
    }

    pub(super) fn peer(&self, command: PeerCommand) -> Result<()> {
        match command {
            PeerCommand::Add(add) => self.add_peer(&add),
            PeerCommand::List => {
                self.out.peers(&self.client.peers()?);
                Ok(())
            }
            PeerCommand::Remove { label } => {
                let name = peer_label(&label)?;
                explained_peer(self.client.remove_peer(&name), &label)?;
                self.out.done(&label, "removed");
                Ok(())
            }
        }
    }

    fn add_peer(&self, add: &PeerAdd) -> Result<()> {
        let address = PeerAddress::new(add.address.as_deref().unwrap_or_default())
            .map_err(|_| CtlError::Address(add.address.clone().unwrap_or_default()))?;
        let rights = if add.may_prepare { PeerRights::PREPARE } else { PeerRights::default() };
        let (kind, credential) = if let Some(path) = &add.identity {
            let identity = read_identity(path)?;
            if let Some(expected) = &add.fingerprint {
                let expected: String = expected.chars().filter(|c| !matches!(c, ':' | ' ')).collect();
                if !expected.eq_ignore_ascii_case(&identity.fingerprint()) {
                    return Err(CtlError::Fingerprint { found: identity.fingerprint() });
                }
            }
            (PeerKind::Pinned, identity.document().attestation.to_vec())
        } else if let Some(path) = &add.authority {
            let der = read_certificate(path)?;
            if !certificate::is_authority(&der) {
                return Err(CtlError::Certificate(path.clone()));
            }
            (PeerKind::Authority, der)
        } else {
            (PeerKind::Address, Vec::new())
        };
        let credential = Tpm2b::new(credential)
            .map_err(|_| CtlError::LongCertificate(add.authority.clone().unwrap_or_default()))?;
        let entry = PeerEntry { label: peer_label(&add.label)?, kind, rights, credential, address };
        explained_peer(self.client.add_peer(&entry), &add.label)?;
        self.out.peer(&entry);
        Ok(())
    }

    /// Why LockInstance or ArmInstance may have answered `TPM_RC_SIGNATURE`.
    pub(super) fn why_refused(&self, ticket: &MigrationTicket) -> Result<String> {
        if ticket.signature.is_empty() {
            return Ok(
                "the ticket is not signed: it is of a vtpmd up to release 0.2.0, or was made without a key"
                    .into(),
            );
        }
        if ticket.signer.is_empty() {
            return Ok("the ticket is authenticated with a storage key that is not here: `vtpmctl fleet-key` shares one".into());
        }
        let key = decode_exact::<TpmtPublic>(&ticket.signer).ok().zip(storage_name(&ticket.signer));
        let Some((key, name)) = key else { return Ok("the key that signed the ticket is none".into()) };
        let peers = self.client.peers()?;
        Ok(match trust::recognize(&peers, &key, &name, &ticket.certificate, SystemTime::now()) {
            Ok(peer) => format!(
                "the ticket names {} as its destination, but the signature is not genuine",
                peer.label
            ),
            Err(untrusted) => format!(
                "the destination, with the fingerprint {}, is not trusted here: {untrusted}; `vtpmctl peer add` makes it a peer",
                hex::encode(name)
            ),
        })
    }
}

fn peer_label(label: &str) -> Result<InstanceName> {
    InstanceName::new(label).map_err(|_| CtlError::Label(label.to_owned()))
}

pub(super) fn read_small(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = open(path)?.take(MAX_FILE).read_to_end(&mut bytes);
    read.map_err(|source| CtlError::File { path: path.to_owned(), source })?;
    Ok(bytes)
}

/// An identity document from a file, verified.
pub(super) fn read_identity(path: &Path) -> Result<VerifiedIdentity> {
    let document = identity::from_text(&read_small(path)?);
    let failed = |source| CtlError::Identity { path: path.to_owned(), source };
    identity::verify(document.map_err(failed)?).map_err(failed)
}

/// A certificate from a file, PEM or DER.
fn read_certificate(path: &Path) -> Result<Vec<u8>> {
    let bytes = read_small(path)?;
    match pem_rfc7468::decode_vec(&bytes) {
        Ok(("CERTIFICATE", der)) => Ok(der),
        Ok(_) => Err(CtlError::Certificate(path.to_owned())),
        // DER begins with a SEQUENCE.
        Err(_) if bytes.first() == Some(&0x30) => Ok(bytes),
        Err(_) => Err(CtlError::Certificate(path.to_owned())),
    }
}
