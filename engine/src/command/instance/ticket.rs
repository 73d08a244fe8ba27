//! Migration tickets: CreateInstance signs them, LockInstance and ArmInstance verify them before the tree hears of them.

use crate::alg::{digest_2b, hash_alg};
use crate::command::Context;
use crate::crypto::{ct_eq, hmac, kdf};
use crate::entity::object_name;
use crate::object::load;
use crate::secret::is_asymmetric;
use crate::signing::{self, is_signing_key, select_scheme};
use crate::state::{Object, State};
use std::sync::Arc;
use vtpm_protocol::codec::{Encode, decode_exact};
use vtpm_protocol::instance::MigrationTicket;
use vtpm_protocol::instance::migration::MAX_TICKET;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{
    PublicParms, Scheme, Tpm2b, TpmAlgId, TpmHandle, TpmaObject, TpmtHa, TpmtPublic, TpmtSignature,
};
use zeroize::Zeroizing;

/// The label, without its terminating zero, of the HMAC key that follows from storage key S.
const LABEL: &[u8] = b"TICKET";

/// A ticket whose signature is genuine. Only [`verify`] makes one. Whether the signer is one that the processing instance trusts is
/// for the tree to judge.
pub struct VerifiedTicket {
    ticket: MigrationTicket,
    authority: TicketAuthority,
}

/// Who vouches for a ticket.
pub enum TicketAuthority {
    /// Somebody who has storage key S with its private part, as the processing instance has.
    StorageKey,
    /// The holder of this key, whose Name the second field is.
    Signer(Box<TpmtPublic>, Vec<u8>),
}

impl VerifiedTicket {
    /// The ticket.
    #[must_use]
    pub fn ticket(&self) -> &MigrationTicket {
        &self.ticket
    }

    /// Who vouches for it.
    #[must_use]
    pub fn authority(&self) -> &TicketAuthority {
        &self.authority
    }

    /// The ticket, for good.
    #[must_use]
    pub fn into_ticket(self) -> MigrationTicket {
        self.ticket
    }
}

/// What is wrong with the signature of a ticket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TicketFault {
    /// There is none.
    #[error("the ticket is not signed")]
    Unsigned,
    /// Signer or signature do not decode, or do not go with each other.
    #[error("the signature of the ticket, or the key that it names, is malformed")]
    Malformed,
    /// The signature is of a scheme or hash that is not accepted, or not that of the key.
    #[error("the ticket is signed in a way that is not accepted")]
    Scheme,
    /// The signature is of other bytes or of another key.
    #[error("the signature of the ticket is not genuine")]
    Forged,
    /// The ticket is authenticated with a storage key that is not here.
    #[error("the ticket is authenticated with a storage key that is not here with its private part")]
    NoStorageKey,
}

/// Signs with the object at `signer`, the second handle of the command, or leaves the ticket unsigned when that is `TPM_RH_NULL`. Storage key
/// S itself authenticates it with HMAC.
///
/// # Errors
/// `TPM_RC_KEY`, `TPM_RC_ATTRIBUTES`, `TPM_RC_SCHEME` blaming handle 2, for a key that cannot; `TPM_RC_SIZE` for a ticket that would be longer
/// than [`MAX_TICKET`].
pub(super) fn sign(
    cx: &mut Context<'_>,
    signer: TpmHandle,
    certificate: &Tpm2b<1536>,
    ticket: &mut MigrationTicket,
) -> Result<(), ResponseCode> {
    ticket.certificate = certificate.clone();
    if signer != TpmHandle::NULL {
        let key = cx.state.object(signer)?.clone();
        let signature = if key.is_storage_key() {
            if key.name != ticket.storage_name {
                return Err(ResponseCode::KEY.handle(2));
            }
            TpmtSignature::Hmac(authenticate(&key, ticket).ok_or(ResponseCode::KEY.handle(2))?)
        } else {
            sign_with(cx, &key, ticket).map_err(|e| e.handle(2))?
        };
        ticket.signature = Tpm2b::new(signature.to_bytes())?;
    }
    if ticket.to_bytes().len() > MAX_TICKET { Err(ResponseCode::SIZE) } else { Ok(()) }
}

fn sign_with(
    cx: &mut Context<'_>,
    key: &Object,
    ticket: &mut MigrationTicket,
) -> Result<TpmtSignature, ResponseCode> {
    if !is_asymmetric(&key.public) || !is_signing_key(key) {
        return Err(ResponseCode::KEY);
    }
    if key.has(TpmaObject::X509_SIGN) {
        return Err(ResponseCode::ATTRIBUTES);
    }
    let scheme = select_scheme(key, Scheme::NULL)?;
    if !is_accepted(scheme.scheme, scheme.hash) {
        return Err(ResponseCode::SCHEME);
    }
    let alg = hash_alg(scheme.hash).ok_or(ResponseCode::SCHEME)?;
    ticket.signer = Tpm2b::new(key.public.to_bytes())?;
    let digest = alg.digest(&[&ticket.signed_bytes()]);
    signing::sign(cx, key, scheme, digest.as_slice())
}

/// The schemes and hashes of a ticket's signature.
fn is_accepted(scheme: TpmAlgId, hash: TpmAlgId) -> bool {
    matches!(scheme, TpmAlgId::ECDSA | TpmAlgId::RSASSA | TpmAlgId::RSAPSS)
        && hash_alg(hash).is_some_and(|alg| alg.digest_size() >= 32)
}

/// The HMAC of S, with its own name algorithm; `None` without its private part.
fn authenticate(key: &Object, ticket: &MigrationTicket) -> Option<TpmtHa> {
    if !is_asymmetric(&key.public) || !key.is_storage_key() {
        return None;
    }
    let alg = hash_alg(key.public.name_alg)?;
    let seed = key.sensitive.as_ref()?.seed_value.expose();
    if seed.is_empty() {
        return None;
    }
    let bits = u32::try_from(alg.digest_size()).ok()?.checked_mul(8)?;
    let mac_key: Zeroizing<Vec<u8>> = kdf::kdfa(alg, seed, LABEL, &key.name, &[], bits);
    let digest = hmac(alg, &mac_key, &[&ticket.signed_bytes()]).to_vec();
    Some(TpmtHa { hash_alg: key.public.name_alg, digest })
}

/// Checks who made a ticket.
///
/// # Errors
/// [`TicketFault`].
pub(super) fn verify(state: &State, ticket: MigrationTicket) -> Result<VerifiedTicket, TicketFault> {
    if ticket.signature.is_empty() {
        return Err(TicketFault::Unsigned);
    }
    let signature: TpmtSignature = decode_exact(&ticket.signature).map_err(|_| TicketFault::Malformed)?;
    let authority = match (ticket.signer.is_empty(), &signature) {
        (true, TpmtSignature::Hmac(mac)) => {
            let key = holder(state, &ticket.storage_name).ok_or(TicketFault::NoStorageKey)?;
            let expected = authenticate(key, &ticket).ok_or(TicketFault::NoStorageKey)?;
            if mac.hash_alg != expected.hash_alg || !ct_eq(&mac.digest, &expected.digest) {
                return Err(TicketFault::Forged);
            }
            TicketAuthority::StorageKey
        }
        (false, TpmtSignature::Rsa { .. } | TpmtSignature::Ecc { .. }) => {
            let public: TpmtPublic = decode_exact(&ticket.signer).map_err(|_| TicketFault::Malformed)?;
            if !is_asymmetric(&public) || public.to_bytes() != *ticket.signer {
                return Err(TicketFault::Malformed);
            }
            check_signature(&public, &ticket.signed_bytes(), &signature)?;
            let name = object_name(&public).to_vec();
            TicketAuthority::Signer(Box::new(public), name)
        }
        _ => return Err(TicketFault::Malformed),
    };
    Ok(VerifiedTicket { ticket, authority })
}

/// The persistent object of that Name with its private part.
fn holder<'a>(state: &'a State, name: &[u8]) -> Option<&'a Arc<Object>> {
    state.persistent.values().find(|key| *key.name == *name && key.sensitive.is_some())
}

/// The signature is the key's, over the hash of `data`, in a way that tickets may be signed.
fn check_signature(public: &TpmtPublic, data: &[u8], signature: &TpmtSignature) -> Result<(), TicketFault> {
    let own = match public.parms {
        PublicParms::Rsa { scheme, .. } | PublicParms::Ecc { scheme, .. } => scheme,
        _ => Scheme::NULL,
    };
    let (TpmtSignature::Rsa { scheme, hash, .. } | TpmtSignature::Ecc { scheme, hash, .. }) = signature
    else {
        return Err(TicketFault::Malformed);
    };
    let is_own = own.is_null() || (own.scheme, own.hash) == (*scheme, *hash);
    let alg = hash_alg(*hash).filter(|_| is_own && is_accepted(*scheme, *hash)).ok_or(TicketFault::Scheme)?;
    let key = load::external(public.clone(), None, TpmHandle::NULL).map_err(|_| TicketFault::Malformed)?;
    signing::verify(&key, &digest_2b(&alg.digest(&[data])), signature).map_err(|_| TicketFault::Forged)
}

/// Whether an asymmetric key signed `data`, with a scheme and a hash that tickets may have: for the attestations in an identity.
#[must_use]
pub fn is_signed_by(public: &TpmtPublic, data: &[u8], signature: &TpmtSignature) -> bool {
    is_asymmetric(public) && check_signature(public, data, signature).is_ok()
}
