//! The deferred checks of a policy session when it authorizes (Part 1, "Policy Authorizations"; Part 3, 23.1).

use super::auth::cp_hash;
use crate::alg::hash_of;
use crate::command::{Context, Role};
use crate::crypto::ct_eq;
use crate::state::Session;
use vtpm_protocol::codec::{Encode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{TpmCc, TpmHandle, TpmHt, TpmaLocality, TpmaNv};

/// Checks that `session` authorizes this command for `entity` in `role`.
///
/// # Errors
/// `TPM_RC_MODE`, `TPM_RC_PCR_CHANGED`, `TPM_RC_POLICY_FAIL`, `TPM_RC_EXPIRED`, `TPM_RC_POLICY_CC`, `TPM_RC_LOCALITY`, `TPM_RC_PP`,
/// `TPM_RC_CHANNEL`.
pub fn check(
    cx: &mut Context<'_>,
    session: &Session,
    entity: TpmHandle,
    role: Role,
    parameters: &[u8],
) -> Result<(), ResponseCode> {
    // Otherwise an authorization by policy would be taken for one by the value, which the policy that is built asks for.
    if cx.command.code == TpmCc::POLICY_SECRET
        && !session.flags.is_password_needed
        && !session.flags.is_auth_value_needed
    {
        return Err(ResponseCode::MODE);
    }
    let volatile = &cx.state.volatile;
    if session.pcr_counter != 0 && session.pcr_counter != volatile.state_reset.pcr_counter {
        return Err(ResponseCode::PCR_CHANGED);
    }
    let policy = cx.state.policy(entity)?;
    if !ct_eq(&session.policy_digest, &policy.digest) || policy.alg != session.auth_hash_id() {
        return Err(ResponseCode::POLICY_FAIL);
    }
    if session.timeout != 0
        && (session.timeout < cx.state.time(cx.now) || session.epoch != volatile.time_epoch)
    {
        return Err(ResponseCode::EXPIRED);
    }
    if session.command_code.0 != 0 {
        if session.command_code != cx.command.code {
            return Err(ResponseCode::POLICY_CC);
        }
    } else if matches!(role, Role::Admin | Role::Dup) {
        return Err(ResponseCode::POLICY_FAIL);
    }
    check_locality(session.command_locality, cx.locality)?;
    if session.flags.is_pp_required && !cx.env.is_physically_present() {
        return Err(ResponseCode::PP);
    }
    check_hashes(cx, session, parameters)?;
    if session.flags.check_nv_written {
        if entity.handle_type() != TpmHt::NV_INDEX {
            return Err(ResponseCode::POLICY_FAIL);
        }
        let written = cx.state.nv_index(entity)?.public.attributes.has(TpmaNv::WRITTEN);
        if written != session.flags.nv_written_state {
            return Err(ResponseCode::POLICY_FAIL);
        }
    }
    // No command comes over a secure channel.
    if session.flags.check_secure_channel { Err(ResponseCode::CHANNEL) } else { Ok(()) }
}

fn check_locality(allowed: TpmaLocality, locality: u8) -> Result<(), ResponseCode> {
    if allowed.0 == 0 {
        return Ok(());
    }
    let fits = match TpmaLocality::of(locality) {
        Some(bit) if locality < 5 => allowed.0 < 32 && allowed.has(bit),
        Some(value) => allowed == value,
        None => false,
    };
    if fits { Ok(()) } else { Err(ResponseCode::LOCALITY) }
}

fn has_template(code: TpmCc) -> bool {
    matches!(code, TpmCc::CREATE | TpmCc::CREATE_PRIMARY | TpmCc::CREATE_LOADED)
}

fn check_hashes(cx: &Context<'_>, session: &Session, parameters: &[u8]) -> Result<(), ResponseCode> {
    if session.cp_hash.is_empty() {
        return Ok(());
    }
    let alg = hash_of(session.auth_hash);
    let actual = if session.flags.is_cp_hash_defined {
        cp_hash(cx, alg, parameters)?
    } else if session.flags.is_name_hash_defined {
        let names = cx.handles.iter().map(|&h| cx.state.name(h)).collect::<Result<Vec<_>, _>>()?;
        alg.digest(&[&names.iter().flat_map(|n| n.iter().copied()).collect::<Vec<_>>()])
    } else if session.flags.is_parameters_hash_defined {
        alg.digest(&[&cx.command.code.to_bytes(), parameters])
    } else if session.flags.is_template_hash_defined && has_template(cx.command.code) {
        // The template is the second parameter of the commands that create, a TPM2B after the TPM2B of the sensitive data.
        let mut r = Reader::new(parameters);
        let max = usize::from(u16::MAX);
        r.sized(max).map_err(|_| ResponseCode::POLICY_FAIL)?;
        alg.digest(&[r.sized(max).map_err(|_| ResponseCode::POLICY_FAIL)?])
    } else {
        return Err(ResponseCode::POLICY_FAIL);
    };
    if ct_eq(&actual, &session.cp_hash) { Ok(()) } else { Err(ResponseCode::POLICY_FAIL) }
}
