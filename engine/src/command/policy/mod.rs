//! Enhanced authorization commands (Part 3, chapter 23).

mod authorization;
mod bind;
mod operation;
mod policy_ac_send_select;
mod policy_auth_value;
mod policy_authorize;
mod policy_authorize_nv;
mod policy_capability;
mod policy_command_code;
mod policy_counter_timer;
mod policy_cp_hash;
mod policy_duplication_select;
mod policy_get_digest;
mod policy_locality;
mod policy_name_hash;
mod policy_nv;
mod policy_nv_written;
mod policy_or;
mod policy_parameters;
mod policy_password;
mod policy_pcr;
mod policy_physical_presence;
mod policy_secret;
mod policy_signed;
mod policy_template;
mod policy_ticket;
mod policy_transport_spdm;
#[cfg(test)]
mod testing;

pub use authorization::Terms;
pub use policy_ac_send_select::policy_ac_send_select;
pub use policy_auth_value::policy_auth_value;
pub use policy_authorize::policy_authorize;
pub use policy_authorize_nv::policy_authorize_nv;
pub use policy_capability::policy_capability;
pub use policy_command_code::policy_command_code;
pub use policy_counter_timer::policy_counter_timer;
pub use policy_cp_hash::policy_cp_hash;
pub use policy_duplication_select::policy_duplication_select;
pub use policy_get_digest::policy_get_digest;
pub use policy_locality::policy_locality;
pub use policy_name_hash::policy_name_hash;
pub use policy_nv::policy_nv;
pub use policy_nv_written::policy_nv_written;
pub use policy_or::policy_or;
pub use policy_parameters::policy_parameters;
pub use policy_password::policy_password;
pub use policy_pcr::policy_pcr;
pub use policy_physical_presence::policy_physical_presence;
pub use policy_secret::policy_secret;
pub use policy_signed::policy_signed;
pub use policy_template::policy_template;
pub use policy_ticket::policy_ticket;
pub use policy_transport_spdm::policy_transport_spdm;

use crate::alg::{digest_2b, hash_of};
use crate::state::Session;
use vtpm_protocol::tpm::{Tpm2bDigest, TpmSe, hash_size};

/// `policyDigest = H(policyDigest || parts…)`, with the hash of the session.
fn extend(session: &mut Session, parts: &[&[u8]]) {
    let mut all = vec![session.policy_digest.as_slice()];
    all.extend_from_slice(parts);
    let digest = hash_of(session.auth_hash).digest(&all);
    session.policy_digest = digest_2b(&digest);
}

/// `policyDigest = H(policyDigest || commandCode || name)`, then `H(policyDigest || policyRef)`: Part 3, 23.2.3.
fn update(session: &mut Session, code: &[u8], name: &[u8], policy_ref: &[u8]) {
    extend(session, &[code, name]);
    extend(session, &[policy_ref]);
}

/// Sets the digest to zero, as alternatives do that stand for all that came before them.
fn clear_digest(session: &mut Session) {
    session.policy_digest = Tpm2bDigest::new(vec![0; digest_size(session)]).unwrap_or_default();
}

/// The size of a digest of the session's hash.
fn digest_size(session: &Session) -> usize {
    hash_size(session.auth_hash.0).unwrap_or_default()
}

/// A trial session computes the digest of a policy and checks nothing.
fn is_trial(session: &Session) -> bool {
    session.kind == TpmSe::TRIAL
}
