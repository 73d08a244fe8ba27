//! AddPeer, RemovePeer, ListPeers, GetIdentity, GetMigrationLog, GetReceipt: whom the processing instance trusts, what it shows of itself, and what it
//! has done.

use super::tree;
use crate::command::{Context, Output, parameters};
use crate::entity::object_name;
use crate::secret::is_asymmetric;
use vtpm_protocol::codec::{Reader, decode_exact};
use vtpm_protocol::instance::{
    CERTIFICATE_INDEX, GetMigrationLogIn, GetReceiptIn, ListPeersIn, PeerEntry, PeerKind, RemovePeerIn,
};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Tpm2b, TpmHandle, TpmaNv, TpmaObject, TpmtPublic};

/// Whether a key signs nothing but what its TPM made, and stays there: what an attestation key must be.
#[must_use]
pub fn is_attestation_key(public: &TpmtPublic) -> bool {
    let wanted = TpmaObject::RESTRICTED | TpmaObject::SIGN_ENCRYPT | TpmaObject::FIXED_TPM;
    is_asymmetric(public)
        && public.attributes.has(wanted)
        && !public.attributes.has(TpmaObject::DECRYPT)
        && !object_name(public).is_empty()
}

/// AddPeer.
///
/// # Errors
/// `TPM_RC_SIZE` for a credential or address that is missing or too many, `TPM_RC_ATTRIBUTES` for a key that is no attestation key, both
/// blaming parameter 1; those of decoding a key; those of the tree.
pub fn add_peer(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (entry,): (PeerEntry,) = parameters(r)?;
    match entry.kind {
        PeerKind::Pinned => {
            let public: TpmtPublic = decode_exact(&entry.credential).map_err(|e| e.parameter(1))?;
            if !is_attestation_key(&public) {
                return Err(ResponseCode::ATTRIBUTES.parameter(1));
            }
        }
        PeerKind::Authority if entry.credential.is_empty() => return Err(ResponseCode::SIZE.parameter(1)),
        PeerKind::Authority => {}
        PeerKind::Address if !entry.credential.is_empty() || entry.address.is_empty() => {
            return Err(ResponseCode::SIZE.parameter(1));
        }
        PeerKind::Address => {}
    }
    tree(cx)?.add_peer(&entry)?;
    Ok(Output::none())
}

/// RemovePeer.
///
/// # Errors
/// Those of the parameters and of the tree.
pub fn remove_peer(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (input,): (RemovePeerIn,) = parameters(r)?;
    tree(cx)?.remove_peer(&input.label)?;
    Ok(Output::none())
}

/// ListPeers.
///
/// # Errors
/// Those of the parameters and of the tree.
pub fn list_peers(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (input,): (ListPeersIn,) = parameters(r)?;
    Ok(Output::of(&tree(cx)?.list_peers(&input)?))
}

/// GetMigrationLog.
///
/// # Errors
/// Those of the parameters and of the tree.
pub fn get_migration_log(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (input,): (GetMigrationLogIn,) = parameters(r)?;
    Ok(Output::of(&tree(cx)?.migration_log(&input)?))
}

/// GetReceipt.
///
/// # Errors
/// Those of the parameters and of the tree.
pub fn get_receipt(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (input,): (GetReceiptIn,) = parameters(r)?;
    Ok(Output::of(&tree(cx)?.kept_receipt(&input)?))
}

/// GetIdentity: what the tree keeps, with the certificate in NV as it is now.
///
/// # Errors
/// Those of the parameters and of the tree.
pub fn get_identity(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let () = parameters(r)?;
    let mut identity = tree(cx)?.identity()?;
    let certificate = cx.state.nv_index(TpmHandle(CERTIFICATE_INDEX)).ok();
    let certificate = certificate.filter(|index| index.public.attributes.has(TpmaNv::WRITTEN));
    identity.certificate =
        certificate.and_then(|index| Tpm2b::new(index.data.as_slice()).ok()).unwrap_or_default();
    Ok(Output::of(&identity))
}
