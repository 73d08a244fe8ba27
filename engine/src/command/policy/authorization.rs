//! What `TPM2_PolicySigned`, `TPM2_PolicySecret` and `TPM2_PolicyTicket` have in common (Part 3, 23.2): the terms on which an entity
//! authorizes, and the ticket that lets the authorization be used again.

use super::{digest_size, is_trial, update};
use crate::command::{Context, Output};
use crate::crypto::ct_eq;
use crate::state::{Session, State};
use crate::ticket;
use vtpm_protocol::codec::Encode;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Tpm2b, Tpm2bDigest, Tpm2bNonce, TpmCc, TpmHandle, TpmHt, TpmSt, TpmaNv, TpmtTk};

/// `TPM2B_TIMEOUT`: a `UINT64` by content.
pub type Tpm2bTimeout = Tpm2b<8>;

/// Bit of a returned timeout: the ticket ends with a TPM Reset.
const EXPIRES_ON_RESET: u64 = 1 << 63;
/// Milliseconds in a second.
const SECOND: u64 = 1000;

/// The terms of an authorization.
#[derive(Clone)]
pub struct Terms {
    /// The only command that it is for; empty for any.
    pub cp_hash: Tpm2bDigest,
    /// Says which authorization of the entity this is.
    pub policy_ref: Tpm2bNonce,
    /// The TPM's Time at which it ends, in milliseconds; 0 for never.
    pub timeout: u64,
    /// A ticket for it ends with a TPM Reset. It does when the timeout does not count from the start of a session.
    pub expires_on_reset: bool,
}

/// The parameters of a command that a caller's error is blamed on.
pub struct Blame {
    /// nonceTPM; none where the command has no nonce.
    pub nonce: u32,
    /// cpHashA.
    pub cp_hash: u32,
    /// expiration or timeout.
    pub expiration: u32,
}

/// When an authorization ends that is given for `expiration` seconds (the sign only asks for a ticket): counted from the start of the
/// session if it is bound to the session by its nonce, else a value of Time.
fn timeout(session: &Session, time: u64, expiration: i32, nonce: &[u8]) -> u64 {
    if expiration == 0 {
        return 0;
    }
    let duration = u64::from(expiration.unsigned_abs()).saturating_mul(SECOND);
    // The milliseconds of now are added, lest an absolute time of this second be over already.
    let base = if nonce.is_empty() { time.checked_rem(SECOND).unwrap_or(0) } else { session.start_time };
    base.saturating_add(duration)
}

/// The splitting of a `TPM2B_TIMEOUT` that a ticket came with.
///
/// # Errors
/// `TPM_RC_SIZE` unless it has the size of one.
pub fn read_timeout(timeout: &Tpm2bTimeout) -> Result<(u64, bool), ResponseCode> {
    let bytes: [u8; 8] = timeout.as_slice().try_into().map_err(|_| ResponseCode::SIZE)?;
    let value = u64::from_be_bytes(bytes);
    Ok((value & !EXPIRES_ON_RESET, value & EXPIRES_ON_RESET != 0))
}

/// The parameters of the commands that authorize by themselves.
const BLAME: Blame = Blame { nonce: 1, cp_hash: 2, expiration: 4 };

impl Terms {
    /// The terms of a new authorization, which the session of `handle` can take. A trial session takes any.
    ///
    /// # Errors
    /// Those of [`Terms::check`], of the parameters of `TPM2_PolicySigned` and `TPM2_PolicySecret`.
    pub fn begin(
        cx: &Context<'_>,
        handle: TpmHandle,
        nonce: &[u8],
        cp_hash: Tpm2bDigest,
        policy_ref: Tpm2bNonce,
        expiration: i32,
    ) -> Result<Self, ResponseCode> {
        let session = cx.state.session(handle)?;
        let mut terms = Self { cp_hash, policy_ref, timeout: 0, expires_on_reset: nonce.is_empty() };
        if !is_trial(session) {
            terms.timeout = timeout(session, cx.state.time(cx.now), expiration, nonce);
            terms.check(cx.state, cx.now, session, nonce, &BLAME)?;
        }
        Ok(terms)
    }

    /// Whether `session` can take the authorization.
    ///
    /// # Errors
    /// `TPM_RC_NONCE` for another session's nonce; `TPM_RC_EXPIRED`; `TPM_RC_SIZE` for a cpHash that is none; `TPM_RC_CPHASH` when the policy
    /// is for another command already.
    pub fn check(
        &self,
        state: &State,
        now: u64,
        session: &Session,
        nonce: &[u8],
        blame: &Blame,
    ) -> Result<(), ResponseCode> {
        if !nonce.is_empty() && !ct_eq(nonce, &session.nonce_tpm) {
            return Err(ResponseCode::NONCE.parameter(blame.nonce));
        }
        if self.timeout != 0 && (self.timeout < state.time(now) || session.epoch != state.volatile.time_epoch)
        {
            return Err(ResponseCode::EXPIRED.parameter(blame.expiration));
        }
        if !self.cp_hash.is_empty() {
            if self.cp_hash.len() != digest_size(session) {
                return Err(ResponseCode::SIZE.parameter(blame.cp_hash));
            }
            if !session.cp_hash.is_empty() && !ct_eq(&self.cp_hash, &session.cp_hash) {
                return Err(ResponseCode::CPHASH);
            }
        }
        Ok(())
    }

    /// Adds the authorization by the entity of this Name to the policy of `session`.
    pub fn apply(&self, session: &mut Session, code: TpmCc, name: &[u8]) {
        update(session, &code.to_bytes(), name, &self.policy_ref);
        if !self.cp_hash.is_empty() {
            session.cp_hash = self.cp_hash.clone();
            session.flags.is_cp_hash_defined = true;
        }
        if self.timeout != 0 && (session.timeout == 0 || session.timeout > self.timeout) {
            session.timeout = self.timeout;
        }
    }

    /// The response with a ticket that `entity` of this Name gave the authorization.
    pub fn ticket(&self, cx: &Context<'_>, tag: TpmSt, entity: TpmHandle, name: &[u8]) -> Output {
        let shown = Self { timeout: self.timeout & !EXPIRES_ON_RESET, ..self.clone() };
        let ticket = ticket::auth(cx.state, tag, hierarchy(cx.state, entity), &shown, name);
        let bit = if self.expires_on_reset { EXPIRES_ON_RESET } else { 0 };
        let timeout = Tpm2bTimeout::new((shown.timeout | bit).to_bytes()).unwrap_or_default();
        Output::of(&(timeout, ticket))
    }
}

/// The response without a ticket.
pub fn no_ticket(tag: TpmSt) -> Output {
    Output::of(&(Tpm2bTimeout::empty(), TpmtTk::null(tag)))
}

/// The hierarchy that an entity belongs to, whose proof makes its tickets.
fn hierarchy(state: &State, entity: TpmHandle) -> TpmHandle {
    match entity.handle_type() {
        TpmHt::TRANSIENT | TpmHt::PERSISTENT => state.object(entity).map_or(TpmHandle::NULL, |o| o.hierarchy),
        TpmHt::NV_INDEX
            if state.nv_index(entity).is_ok_and(|i| i.public.attributes.has(TpmaNv::PLATFORM_CREATE)) =>
        {
            TpmHandle::PLATFORM
        }
        _ if matches!(entity, TpmHandle::PLATFORM | TpmHandle::ENDORSEMENT | TpmHandle::NULL) => entity,
        // The owner's, lockout, PCRs and the indices of the owner.
        _ => TpmHandle::OWNER,
    }
}
