//! What the tests of the policy commands share.

use crate::crypto::HashAlg;
use crate::state::Policy;
use crate::testing::TestTpm;
use crate::testing::objects::run_with_policy;
pub use crate::testing::objects::start_policy;
use vtpm_protocol::codec::{Encode, decode_exact};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::*;

/// A policy digest to which nothing was added.
pub const START: [u8; 32] = [0; 32];

/// SHA-256 over the parts.
pub fn hash(parts: &[&[u8]]) -> Vec<u8> {
    HashAlg::Sha256.digest(parts).to_vec()
}

/// `H(H(digest || code || name) || policyRef)`.
pub fn updated(digest: &[u8], code: TpmCc, name: &[u8], policy_ref: &[u8]) -> Vec<u8> {
    hash(&[&hash(&[digest, &code.to_bytes(), name]), policy_ref])
}

/// A `TPM2B_DIGEST`, nonce or policyRef.
pub fn b2(bytes: &[u8]) -> Tpm2bDigest {
    Tpm2bDigest::new(bytes).unwrap()
}

/// The policy digest of a session.
pub fn digest(tpm: &mut TestTpm, session: TpmHandle) -> Vec<u8> {
    let out = tpm.run(TpmCc::POLICY_GET_DIGEST, &[session], &()).unwrap();
    decode_exact::<Tpm2bDigest>(&out).unwrap().to_vec()
}

/// A policy and a trial session, and no other than these.
pub fn both(tpm: &mut TestTpm) -> (TpmHandle, TpmHandle) {
    let old: Vec<_> = tpm.state().sessions.iter().map(|(&slot, s)| s.handle(slot)).collect();
    old.into_iter().for_each(|session| crate::testing::objects::flush(tpm, session));
    (start_policy(tpm, TpmSe::POLICY), start_policy(tpm, TpmSe::TRIAL))
}

/// A policy command without authorization and response.
pub fn policy(
    tpm: &mut TestTpm,
    code: TpmCc,
    session: TpmHandle,
    parameters: &dyn Encode,
) -> Result<(), ResponseCode> {
    tpm.run(code, &[session], parameters).map(|out| assert!(out.is_empty()))
}

/// Makes the policy of `session` that of the owner, and uses the session for a command of the owner.
pub fn authorize_owner(tpm: &mut TestTpm, session: TpmHandle) -> Result<Vec<u8>, ResponseCode> {
    let digest = b2(&digest(tpm, session));
    tpm.state().permanent_mut().owner.policy = Policy { alg: TpmAlgId::SHA256, digest };
    tpm.resave();
    let code = TpmCc::HIERARCHY_CHANGE_AUTH;
    run_with_policy(tpm, code, &[TpmHandle::OWNER], session, &b2(b"new"))
}

/// What the commands that authorize return.
pub type Authorized = (Vec<u8>, TpmtTk);

/// Decodes timeout and ticket.
pub fn authorized(out: &[u8]) -> Authorized {
    let (timeout, ticket): (Tpm2b<8>, TpmtTk) = decode_exact(out).unwrap();
    (timeout.to_vec(), ticket)
}

/// The newest nonce of a session.
pub fn nonce(tpm: &mut TestTpm, session: TpmHandle) -> Tpm2bNonce {
    tpm.state().session(session).unwrap().nonce_tpm.clone()
}

/// `TPM2_PolicySecret` by an entity with the empty authorization value.
pub fn policy_secret(
    tpm: &mut TestTpm,
    entity: TpmHandle,
    session: TpmHandle,
    parameters: &dyn Encode,
) -> Result<Authorized, ResponseCode> {
    tpm.run_with(TpmCc::POLICY_SECRET, &[entity, session], &[b""], parameters)
        .map(|(_, out)| authorized(&out))
}
