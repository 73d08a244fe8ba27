//! Enhanced authorization commands (Part 3, chapter 23).

mod policy_auth_value;
mod policy_command_code;
mod policy_get_digest;
mod policy_pcr;

pub use policy_auth_value::policy_auth_value;
pub use policy_command_code::policy_command_code;
pub use policy_get_digest::policy_get_digest;
pub use policy_pcr::policy_pcr;

use crate::alg::{digest_2b, hash_of};
use crate::state::Session;

/// `policyDigest = H(policyDigest || parts…)`, with the hash of the session.
fn extend(session: &mut Session, parts: &[&[u8]]) {
    let mut all = vec![session.policy_digest.as_slice()];
    all.extend_from_slice(parts);
    let digest = hash_of(session.auth_hash).digest(&all);
    session.policy_digest = digest_2b(&digest);
}
