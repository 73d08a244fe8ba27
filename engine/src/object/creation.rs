//! Creation data: in which circumstances an object was made (Part 2, 15.1; Part 1, "Creation Data").

use crate::alg::{digest_2b, hash_alg};
use crate::command::Context;
use crate::entity::handle_name;
use crate::pcr;
use crate::state::Object;
use crate::ticket;
use vtpm_protocol::codec::Encode;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{
    Sized2b, Tpm2bData, Tpm2bDigest, TpmAlgId, TpmHandle, TpmaLocality, TpmlPcrSelection, TpmsCreationData,
    TpmtTk,
};

/// What a command that creates returns of the creation.
pub struct Creation {
    /// The data.
    pub data: Sized2b<TpmsCreationData>,
    /// Its digest with the name algorithm of the object.
    pub hash: Tpm2bDigest,
    /// The ticket that binds it to the object.
    pub ticket: TpmtTk,
}

/// Under what an object is created.
pub enum Origin<'a> {
    /// A primary seed.
    Hierarchy(TpmHandle),
    /// A storage key.
    Parent(&'a Object),
}

/// The creation data of an object of that Name and name algorithm, as of now.
///
/// # Errors
/// `TPM_RC_HASH` for a null name algorithm.
pub fn creation(
    cx: &Context<'_>,
    origin: &Origin<'_>,
    name_alg: TpmAlgId,
    name: &[u8],
    selection: &TpmlPcrSelection,
    outside_info: Tpm2bData,
) -> Result<Creation, ResponseCode> {
    let alg = hash_alg(name_alg).ok_or(ResponseCode::HASH)?;
    let (pcr_select, pcr_digest) = pcr::selection_digest(cx.state, alg, selection);
    let (hierarchy, parent_name_alg, parent_name, parent_qualified_name) = match origin {
        Origin::Hierarchy(h) => (*h, TpmAlgId::NULL, handle_name(*h), handle_name(*h)),
        Origin::Parent(p) => (p.hierarchy, p.public.name_alg, p.name.clone(), p.qualified_name.clone()),
    };
    let data = TpmsCreationData {
        pcr_select,
        pcr_digest: digest_2b(&pcr_digest),
        locality: TpmaLocality::of(cx.locality).ok_or(ResponseCode::LOCALITY)?,
        parent_name_alg,
        parent_name,
        parent_qualified_name,
        outside_info,
    };
    let hash = digest_2b(&alg.digest(&[&data.to_bytes()]));
    let ticket = ticket::creation(cx.state, hierarchy, name, &hash);
    Ok(Creation { data: Sized2b(data), hash, ticket })
}
