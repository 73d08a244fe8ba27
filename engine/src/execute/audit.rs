//! What audit keeps of a command: the digests of audit sessions and of command audit (Part 1, "Session Audit", "Command Audit").

use super::auth::{cp_hash, rp_hash};
use crate::alg::{digest_2b, hash_of};
use crate::command::Context;
use crate::crypto::Digest;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{TpmHandle, TpmaSession};

/// Takes the cpHashes for the audit session and for command audit, before the command changes the Names of its handles.
///
/// # Errors
/// `TPM_RC_HANDLE` when a handle's entity is gone.
pub fn begin(cx: &mut Context<'_>, parameters: &[u8]) -> Result<(), ResponseCode> {
    if let Some((_, entry)) = cx.sessions.audit() {
        let alg = hash_of(cx.state.session(entry.handle)?.auth_hash);
        cx.sessions.audit_cp_hash = cp_hash(cx, alg, parameters)?;
    }
    let audit = &cx.state.permanent.command_audit;
    if audit.is_audited(cx.command.code) {
        let alg = hash_of(audit.alg);
        cx.sessions.command_audit = Some((alg, cp_hash(cx, alg, parameters)?));
    }
    Ok(())
}

/// Extends the digest of the audit session and keeps track of exclusiveness.
///
/// # Errors
/// `TPM_RC_FAILURE` when the session is gone.
pub fn extend_session(cx: &mut Context<'_>, parameters: &[u8]) -> Result<(), ResponseCode> {
    let Some((n, entry)) = cx.sessions.audit() else {
        if cx.command.flags.sessions && cx.state.volatile.exclusive_audit_session != TpmHandle::UNASSIGNED {
            cx.state.volatile_mut().exclusive_audit_session = TpmHandle::UNASSIGNED;
        }
        return Ok(());
    };
    let (handle, reset) = (entry.handle, entry.attributes.has(TpmaSession::AUDIT_RESET));
    let session = cx.state.session(handle)?;
    let alg = hash_of(session.auth_hash);
    let fresh = !session.flags.is_audit || reset;
    let old =
        if fresh { Digest::zero(alg) } else { Digest::from_slice(&session.audit_digest).unwrap_or_default() };
    let new = alg.digest(&[&old, &cx.sessions.audit_cp_hash, &rp_hash(cx, alg, parameters)]);
    let session = cx.state.session_mut(handle)?;
    session.flags.is_audit = true;
    // An audit session is bound no longer: from its next use on, authorization values count again.
    session.flags.is_bound &= !fresh;
    session.audit_digest = digest_2b(&new);
    let exclusive = if fresh {
        cx.state.volatile_mut().exclusive_audit_session = handle;
        true
    } else if cx.state.volatile.exclusive_audit_session == handle {
        true
    } else {
        cx.state.volatile_mut().exclusive_audit_session = TpmHandle::UNASSIGNED;
        false
    };
    let index = usize::try_from(n).unwrap_or(1).saturating_sub(1);
    if let Some(entry) = cx.sessions.entries.get_mut(index) {
        entry.attributes = entry.attributes.with(TpmaSession::AUDIT_EXCLUSIVE, exclusive);
    }
    Ok(())
}

/// Extends the command audit digest by an audited command that succeeded (Part 1, "Command Audit"). The first one after a report of the
/// digest begins a new one, which the counter tells. The command that changed the hash leaves no digest.
pub fn extend_command(cx: &mut Context<'_>, parameters: &[u8]) {
    let Some((alg, cp_hash)) = cx.sessions.command_audit.take() else { return };
    if alg != hash_of(cx.state.permanent.command_audit.alg) {
        return;
    }
    let rp_hash = rp_hash(cx, alg, parameters);
    let old = &cx.state.volatile.state_reset.command_audit_digest;
    let begins = old.is_empty();
    let old = if begins { Digest::zero(alg) } else { Digest::from_slice(old).unwrap_or_default() };
    let new = alg.digest(&[&old, &cp_hash, &rp_hash]);
    cx.state.volatile_mut().state_reset.command_audit_digest = digest_2b(&new);
    if begins {
        let audit = &mut cx.state.permanent_mut().command_audit;
        audit.counter = audit.counter.saturating_add(1);
    }
}
