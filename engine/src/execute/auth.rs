//! The authorization area of a command (Part 1, "Authorizations and Acknowledgments"; Part 3, 5.6).

use super::{Failure, OrderlyState, da, handles, is_act_handle, policy};
use crate::alg::hash_of;
use crate::command::{Context, Role};
use crate::crypto::{Digest, HashAlg, ct_eq, hmac};
use crate::pcr::has_authorization;
use crate::state::{NvIndex, Session, State};
use std::sync::Arc;
use vtpm_protocol::codec::{Decode, Encode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{
    Tpm2bAuth, Tpm2bNonce, TpmAlgId, TpmHandle, TpmHt, TpmNt, TpmSe, TpmaNv, TpmaObject, TpmaSession,
    TpmsAuthCommand, TpmtSymDef,
};
use zeroize::Zeroizing;

/// The smallest authorization area: a handle, two empty buffers, the attributes.
pub const SMALLEST_AREA: usize = 9;
/// `MAX_SESSION_NUM`: sessions in one command.
const MAX_SESSIONS: usize = 3;

/// One session of a command.
pub struct SessionUse {
    /// The session, or `TPM_RS_PW`.
    pub handle: TpmHandle,
    /// The caller's nonce.
    pub nonce_caller: Tpm2bNonce,
    /// The attributes as they came; for the response as they are after the command.
    pub attributes: TpmaSession,
    /// The HMAC or password.
    pub input: Tpm2bAuth,
    /// The entity that it authorizes.
    pub associated: Option<TpmHandle>,
    /// The entity's authorization value is part of the HMAC key.
    pub include_auth: bool,
}

/// The sessions of a command in their order.
#[derive(Default)]
pub struct Sessions {
    /// In the order of the authorization area.
    pub entries: Vec<SessionUse>,
    /// The cpHash with the hash of the audit session, where there is one.
    pub(super) audit_cp_hash: Digest,
    /// For an audited command the hash of command audit, and the cpHash with it.
    pub(super) command_audit: Option<(HashAlg, Digest)>,
    /// A sequence that the command ends. It is there until the response has been authorized with its authorization value.
    pub ends_sequence: Option<TpmHandle>,
    /// PIN indices as the authorizations of this command left them.
    pub(super) pins: Vec<(u32, Arc<NvIndex>)>,
}

impl Sessions {
    fn with(&self, attribute: TpmaSession) -> Option<(u32, &SessionUse)> {
        (1u32..).zip(&self.entries).find(|(_, e)| e.attributes.has(attribute))
    }

    /// The session that decrypts the first command parameter, and its number from 1.
    #[must_use]
    pub fn decrypt(&self) -> Option<(u32, &SessionUse)> {
        self.with(TpmaSession::DECRYPT)
    }

    /// The session that encrypts the first response parameter.
    #[must_use]
    pub fn encrypt(&self) -> Option<(u32, &SessionUse)> {
        self.with(TpmaSession::ENCRYPT)
    }

    /// The audit session.
    #[must_use]
    pub fn audit(&self) -> Option<(u32, &SessionUse)> {
        self.with(TpmaSession::AUDIT)
    }

    /// An entity that a session authorized is gone or has another authorization: the response is authorized without it.
    pub fn forget(&mut self, handle: TpmHandle) {
        for entry in self.entries.iter_mut().filter(|e| e.associated == Some(handle)) {
            entry.associated = None;
        }
    }
}

/// A failed authorization that is counted, even though the command changes nothing else.
pub struct AuthFailure {
    lockout: bool,
    tries: bool,
    pin_fail: Option<TpmHandle>,
}

impl AuthFailure {
    /// Counts it.
    pub fn count(&self, state: &mut State, now: u64) {
        if self.lockout {
            da::count_lockout(state, now);
        }
        if self.tries {
            da::count_failure(state, now);
        }
        if let Some(handle) = self.pin_fail
            && let Ok(index) = state.nv_index_mut(handle)
        {
            index.count_pin(|count| count.saturating_add(1));
        }
        state.permanent_mut().orderly = OrderlyState::None;
    }
}

/// Checks a command without an authorization area.
///
/// # Errors
/// `TPM_RC_AUTH_MISSING` when a handle needs authorization.
pub fn check_none(cx: &mut Context<'_>, parameters: &[u8]) -> Result<(), ResponseCode> {
    if cx.command.handles.iter().any(|h| h.role != Role::None) {
        return Err(ResponseCode::AUTH_MISSING);
    }
    super::audit::begin(cx, parameters)?;
    match cx.command.middle {
        Some(middle) => middle(cx),
        None => Ok(()),
    }
}

/// Checks the authorization area against the handles; `parameters` are the bytes of the parameter area as they came.
///
/// # Errors
/// The response code with the number of the session, and a failure that is to be counted.
pub fn check(cx: &mut Context<'_>, area: &[u8], parameters: &[u8]) -> Result<(), Failure> {
    if !cx.command.flags.sessions {
        return Err(ResponseCode::AUTH_CONTEXT.into());
    }
    cx.sessions = retrieve(cx, area)?;
    for (i, spec) in cx.command.handles.iter().enumerate() {
        if spec.role == Role::None {
            continue;
        }
        let handle = cx.handle(i)?;
        let entry = cx.sessions.entries.get_mut(i).ok_or(ResponseCode::AUTH_MISSING)?;
        entry.associated = Some(handle);
    }
    super::audit::begin(cx, parameters)?;
    for i in 0..cx.sessions.entries.len() {
        let n = u32::try_from(i).unwrap_or(u32::MAX).saturating_add(1);
        check_one(cx, i, parameters).map_err(|failure| Failure { rc: failure.rc.session(n), ..failure })?;
        // The figures of the instance commands check the target after the first authorization.
        if i == 0
            && let Some(middle) = cx.command.middle
        {
            middle(cx)?;
        }
    }
    Ok(())
}

/// Decodes the area and checks what does not depend on the handles.
fn retrieve(cx: &Context<'_>, area: &[u8]) -> Result<Sessions, ResponseCode> {
    let mut r = Reader::new(area);
    let mut sessions = Sessions::default();
    while !r.is_empty() {
        let i = sessions.entries.len();
        let n = u32::try_from(i).unwrap_or(u32::MAX).saturating_add(1);
        if i == MAX_SESSIONS {
            return Err(ResponseCode::SIZE.session(n));
        }
        // Of an entry that is wrong in several ways, what is told is that its handle is.
        if !TpmHandle::decode(&mut r.clone()).map_or(true, is_session_handle) {
            return Err(ResponseCode::VALUE.session(n));
        }
        let entry = TpmsAuthCommand::decode(&mut r).map_err(|e| e.session(n))?;
        check_entry(cx, &sessions, &entry, n)?;
        sessions.entries.push(SessionUse {
            handle: entry.session_handle,
            nonce_caller: entry.nonce,
            attributes: entry.session_attributes,
            input: entry.hmac,
            associated: None,
            include_auth: false,
        });
    }
    Ok(sessions)
}

/// `TPMI_SH_AUTH_SESSION`, with the handle of passwords.
fn is_session_handle(handle: TpmHandle) -> bool {
    handle == TpmHandle::RS_PW || handles::is_session_handle(handle)
}

fn check_entry(
    cx: &Context<'_>,
    earlier: &Sessions,
    entry: &TpmsAuthCommand,
    n: u32,
) -> Result<(), ResponseCode> {
    let attributes = entry.session_attributes;
    let uses = TpmaSession::DECRYPT | TpmaSession::ENCRYPT | TpmaSession::AUDIT;
    if entry.session_handle == TpmHandle::RS_PW {
        if attributes.any(uses | TpmaSession::AUDIT_EXCLUSIVE | TpmaSession::AUDIT_RESET) {
            return Err(ResponseCode::ATTRIBUTES.session(n));
        }
        if !entry.nonce.is_empty() {
            return Err(ResponseCode::NONCE.session(n));
        }
        return Ok(());
    }
    let ht = entry.session_handle.handle_type();
    let reference =
        ResponseCode::from_value(ResponseCode::REFERENCE_S0.value().saturating_add(n.saturating_sub(1)));
    let session = cx.state.session(entry.session_handle).map_err(|_| reference)?;
    if session.is_policy() != (ht == TpmHt::POLICY_SESSION) {
        return Err(ResponseCode::HANDLE.session(n));
    }
    if earlier.entries.iter().any(|e| e.handle == entry.session_handle) {
        return Err(ResponseCode::HANDLE.session(n));
    }
    for (attribute, allowed, taken) in [
        (TpmaSession::DECRYPT, cx.command.flags.decrypt, earlier.decrypt().is_some()),
        (TpmaSession::ENCRYPT, cx.command.flags.encrypt, earlier.encrypt().is_some()),
    ] {
        if attributes.has(attribute) {
            if !allowed || taken {
                return Err(ResponseCode::ATTRIBUTES.session(n));
            }
            if session.symmetric == TpmtSymDef::Null {
                return Err(ResponseCode::SYMMETRIC.session(n));
            }
        }
    }
    if attributes.has(TpmaSession::AUDIT) {
        if earlier.audit().is_some() || session.is_policy() {
            return Err(ResponseCode::ATTRIBUTES.session(n));
        }
        if session.flags.is_audit
            && attributes.has(TpmaSession::AUDIT_EXCLUSIVE)
            && !attributes.has(TpmaSession::AUDIT_RESET)
            && cx.state.volatile.exclusive_audit_session != entry.session_handle
        {
            return Err(ResponseCode::EXCLUSIVE);
        }
    } else if attributes.any(TpmaSession::AUDIT_EXCLUSIVE | TpmaSession::AUDIT_RESET) {
        return Err(ResponseCode::ATTRIBUTES.session(n));
    }
    Ok(())
}

fn check_one(cx: &mut Context<'_>, i: usize, parameters: &[u8]) -> Result<(), Failure> {
    let entry = cx.sessions.entries.get(i).ok_or(ResponseCode::FAILURE)?;
    let session =
        if entry.handle == TpmHandle::RS_PW { None } else { Some(cx.state.session(entry.handle)?.clone()) };
    if let Some(session) = &session {
        if session.kind == TpmSe::TRIAL {
            return Err(ResponseCode::ATTRIBUTES.into());
        }
        if session.flags.is_da_bound {
            da::check_locked_out(cx.state, session.flags.is_lockout_bound)?;
        }
    }
    let Some(entity) = entry.associated else {
        let uses = TpmaSession::DECRYPT | TpmaSession::ENCRYPT | TpmaSession::AUDIT;
        let Some(session) = session else { return Err(ResponseCode::HANDLE.into()) };
        if !entry.attributes.any(uses) {
            return Err(ResponseCode::ATTRIBUTES.into());
        }
        return check_hmac(cx, i, &session, parameters);
    };
    // For commands of the platform only (Part 1, "Physical Presence").
    if entity == TpmHandle::PLATFORM
        && cx.state.permanent.pp_commands.0.contains(&cx.command.code)
        && !cx.env.is_physically_present()
    {
        return Err(ResponseCode::PP.into());
    }
    let include_auth = match &session {
        None => true,
        Some(s) if s.is_policy() => s.flags.is_auth_value_needed || s.flags.is_password_needed,
        Some(s) => !is_bound_to(cx.state, s, entity),
    };
    if include_auth && !cx.state.is_da_exempt(entity) {
        da::check_locked_out(cx.state, entity == TpmHandle::LOCKOUT)?;
    }
    if let Some(entry) = cx.sessions.entries.get_mut(i) {
        entry.include_auth = include_auth;
    }
    let role = cx.command.handles.get(i).map_or(Role::None, |h| h.role);
    let result = match &session {
        Some(s) if s.is_policy() => {
            if !policy_available(cx, role, entity)? {
                return Err(ResponseCode::AUTH_UNAVAILABLE.into());
            }
            policy::check(cx, s, entity, role, parameters)?;
            if s.flags.is_password_needed {
                check_password(cx, i, entity, Some(s))
            } else {
                check_hmac(cx, i, s, parameters)
            }
        }
        other => {
            if policy_required(cx.state, role, entity)? {
                return Err(ResponseCode::AUTH_TYPE.into());
            }
            if !auth_value_available(cx, role, entity)? {
                return Err(ResponseCode::AUTH_UNAVAILABLE.into());
            }
            match other {
                Some(s) => check_hmac(cx, i, s, parameters),
                None => check_password(cx, i, entity, None),
            }
        }
    };
    if result.is_ok() && include_auth && entity.handle_type() == TpmHt::NV_INDEX {
        count_pin_success(cx, entity)?;
    }
    result
}

/// A PIN Fail index forgets failures after a success, a PIN Pass index counts it (Part 1, "PIN Fail", "PIN Pass").
fn count_pin_success(cx: &mut Context<'_>, handle: TpmHandle) -> Result<(), ResponseCode> {
    let index = cx.state.nv_index(handle)?;
    if !index.public.attributes.has(TpmaNv::WRITTEN) {
        return Ok(());
    }
    match index.public.attributes.nt()? {
        TpmNt::PinFail => cx.state.nv_index_mut(handle)?.count_pin(|_| 0),
        TpmNt::PinPass => cx.state.nv_index_mut(handle)?.count_pin(|count| count.saturating_add(1)),
        _ => return Ok(()),
    }
    let counted = cx.state.nv_index(handle)?.clone();
    cx.sessions.pins.push((handle.0, counted));
    Ok(())
}

fn is_bound_to(state: &State, session: &Session, entity: TpmHandle) -> bool {
    session.flags.is_bound
        && state.name(entity).is_ok_and(|n| n == session.bound_entity)
        && state.auth_value(entity).is_ok_and(|a| ct_eq(&bound_auth(session, &a), &session.bound_auth))
}

/// What a session remembers of the authorization value of the entity to which it is bound.
#[must_use]
pub fn bound_auth(session: &Session, auth: &Tpm2bAuth) -> Digest {
    hash_of(session.auth_hash).digest(&[b"bound", auth.expose()])
}

/// DUP always, ADMIN mostly, and nothing else, takes a policy session only.
pub(super) fn policy_required(state: &State, role: Role, entity: TpmHandle) -> Result<bool, ResponseCode> {
    Ok(match role {
        Role::Dup => true,
        Role::Admin => match entity.handle_type() {
            TpmHt::TRANSIENT | TpmHt::PERSISTENT => state.object(entity)?.has(TpmaObject::ADMIN_WITH_POLICY),
            _ => true,
        },
        // A PCR with a policy changes under this policy only.
        Role::User => entity.handle_type() == TpmHt::PCR && state.policy(entity)?.alg != TpmAlgId::NULL,
        Role::None => false,
    })
}

fn auth_value_available(cx: &Context<'_>, role: Role, entity: TpmHandle) -> Result<bool, ResponseCode> {
    Ok(match entity.handle_type() {
        // That of the platform, as long as the platform may do anything.
        TpmHt::PERMANENT if is_act_handle(entity) => cx.state.volatile.ph_enable,
        TpmHt::PERMANENT | TpmHt::PCR => true,
        TpmHt::TRANSIENT | TpmHt::PERSISTENT => {
            let object = cx.state.object(entity)?;
            if object.sensitive.is_none() {
                cx.command.flags.public_key_authorizes
            } else {
                object.has(TpmaObject::USER_WITH_AUTH)
                    || (role == Role::Admin && !object.has(TpmaObject::ADMIN_WITH_POLICY))
            }
        }
        TpmHt::NV_INDEX => {
            let index = cx.state.nv_index(entity)?;
            let attributes = index.public.attributes;
            if cx.command.flags.nv_write {
                attributes.has(TpmaNv::AUTH_WRITE)
            } else {
                match attributes.nt()? {
                    TpmNt::PinFail | TpmNt::PinPass => {
                        attributes.has(TpmaNv::WRITTEN)
                            && index.pin().is_some_and(|(count, limit)| count < limit)
                    }
                    _ => attributes.has(TpmaNv::AUTH_READ),
                }
            }
        }
        _ => false,
    })
}

fn policy_available(cx: &Context<'_>, role: Role, entity: TpmHandle) -> Result<bool, ResponseCode> {
    Ok(match entity.handle_type() {
        TpmHt::PERMANENT => entity != TpmHandle::NULL && !cx.state.policy(entity)?.digest.is_empty(),
        // Those of the group that can have one, whether it is set or not.
        TpmHt::PCR => has_authorization(entity),
        // A sequence has no policy, not even an empty one.
        TpmHt::TRANSIENT | TpmHt::PERSISTENT => {
            cx.state.sequence(entity).is_none() && cx.state.object(entity)?.sensitive.is_some()
        }
        TpmHt::NV_INDEX => {
            let public = &cx.state.nv_index(entity)?.public;
            !public.auth_policy.is_empty()
                && (policy_required(cx.state, role, entity)?
                    || public.attributes.has(if cx.command.flags.nv_write {
                        TpmaNv::POLICY_WRITE
                    } else {
                        TpmaNv::POLICY_READ
                    }))
        }
        _ => false,
    })
}

/// `session` is that of a policy with `TPM2_PolicyPassword`, `None` for `TPM_RS_PW`.
fn check_password(
    cx: &Context<'_>,
    i: usize,
    entity: TpmHandle,
    session: Option<&Session>,
) -> Result<(), Failure> {
    let entry = cx.sessions.entries.get(i).ok_or(ResponseCode::FAILURE)?;
    let expected = cx.state.auth_value(entity)?;
    if ct_eq(entry.input.without_trailing_zeros().expose(), expected.expose()) {
        return Ok(());
    }
    Err(failure(cx.state, entity, session.map(|s| (s, entry.include_auth))))
}

fn check_hmac(cx: &Context<'_>, i: usize, session: &Session, parameters: &[u8]) -> Result<(), Failure> {
    let entry = cx.sessions.entries.get(i).ok_or(ResponseCode::FAILURE)?;
    let expected = command_hmac(cx, i, entry, session, parameters)?;
    if ct_eq(entry.input.expose(), &expected) {
        return Ok(());
    }
    Err(failure(cx.state, entry.associated.unwrap_or(TpmHandle::NULL), Some((session, entry.include_auth))))
}

/// `TPM_RC_BAD_AUTH` where failures do not count, `TPM_RC_AUTH_FAIL` where they do.
fn failure(state: &State, entity: TpmHandle, session: Option<(&Session, bool)>) -> Failure {
    let pin_fail = state
        .nv_index(entity)
        .is_ok_and(|i| {
            i.public.attributes.nt() == Ok(TpmNt::PinFail) && i.public.attributes.has(TpmaNv::WRITTEN)
        })
        .then_some(entity);
    let (da_bound, lockout_bound, include_auth) = match session {
        None => (false, false, true),
        Some((s, include_auth)) => (s.flags.is_da_bound, s.flags.is_lockout_bound, include_auth),
    };
    let pin_fail = pin_fail.filter(|_| include_auth);
    if !da_bound && (state.is_da_exempt(entity) || !include_auth) {
        let counted = pin_fail.map(|h| AuthFailure { lockout: false, tries: false, pin_fail: Some(h) });
        return Failure::of(ResponseCode::BAD_AUTH, counted);
    }
    let lockout = lockout_bound || entity == TpmHandle::LOCKOUT;
    Failure::of(ResponseCode::AUTH_FAIL, Some(AuthFailure { lockout, tries: !lockout, pin_fail }))
}

/// `cpHash = H(commandCode || Name1 || Name2 || Name3 || parameters)`.
///
/// # Errors
/// `TPM_RC_HANDLE` when a handle's entity is gone.
pub fn cp_hash(cx: &Context<'_>, alg: HashAlg, parameters: &[u8]) -> Result<Digest, ResponseCode> {
    let mut data = cx.command.code.to_bytes();
    for &handle in &cx.handles {
        data.extend_from_slice(&cx.state.name(handle)?);
    }
    Ok(alg.digest(&[&data, parameters]))
}

/// `rpHash = H(responseCode || commandCode || parameters)`.
pub(super) fn rp_hash(cx: &Context<'_>, alg: HashAlg, parameters: &[u8]) -> Digest {
    alg.digest(&[&ResponseCode::SUCCESS.value().to_be_bytes(), &cx.command.code.to_bytes(), parameters])
}

fn hmac_key(cx: &Context<'_>, entry: &SessionUse, session: &Session) -> Zeroizing<Vec<u8>> {
    let mut key = Zeroizing::new(Vec::with_capacity(128));
    key.extend_from_slice(session.session_key.expose());
    if entry.include_auth
        && let Some(auth) = entry.associated.and_then(|h| cx.state.auth_value(h).ok())
    {
        key.extend_from_slice(auth.expose());
    }
    key
}

/// The HMAC that a command must carry; empty where neither side has a key.
fn command_hmac(
    cx: &Context<'_>,
    i: usize,
    entry: &SessionUse,
    session: &Session,
    parameters: &[u8],
) -> Result<Digest, ResponseCode> {
    let key = hmac_key(cx, entry, session);
    if key.is_empty() && entry.input.is_empty() {
        return Ok(Digest::EMPTY);
    }
    let alg = hash_of(session.auth_hash);
    // The first session authenticates the nonces of the others that encrypt, lest they be taken away on the way.
    let other_nonce = |other: Option<(u32, &SessionUse)>| -> Result<Tpm2bNonce, ResponseCode> {
        match other {
            Some((_, e)) if i == 0 && entry.associated.is_some() && e.handle != entry.handle => {
                Ok(cx.state.session(e.handle)?.nonce_tpm.clone())
            }
            _ => Ok(Tpm2bNonce::empty()),
        }
    };
    let decrypt = cx.sessions.decrypt();
    let nonce_decrypt = other_nonce(decrypt)?;
    let encrypt = cx.sessions.encrypt().filter(|(n, _)| decrypt.is_none_or(|(d, _)| d != *n));
    let nonce_encrypt = other_nonce(encrypt)?;
    Ok(hmac(
        alg,
        &key,
        &[
            &cp_hash(cx, alg, parameters)?,
            &entry.nonce_caller,
            &session.nonce_tpm,
            &nonce_decrypt,
            &nonce_encrypt,
            &[entry.attributes.0],
        ],
    ))
}

/// Gives every session of the command a new nonce of the TPM.
///
/// # Errors
/// `TPM_RC_FAILURE` when a session is gone.
pub fn roll_nonces(cx: &mut Context<'_>) -> Result<(), ResponseCode> {
    for entry in cx.sessions.entries.iter().filter(|e| e.handle != TpmHandle::RS_PW) {
        let session = cx.state.session_mut(entry.handle)?;
        let mut nonce = vec![0; session.nonce_tpm.len()];
        cx.env.fill_random(&mut nonce);
        session.nonce_tpm = Tpm2bNonce::new(nonce)?;
    }
    Ok(())
}

/// Appends the response authorization area and ends sessions that do not continue.
///
/// # Errors
/// `TPM_RC_FAILURE` when a session is gone.
pub fn encode_responses(
    cx: &mut Context<'_>,
    parameters: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ResponseCode> {
    for i in 0..cx.sessions.entries.len() {
        let Some(entry) = cx.sessions.entries.get(i) else { break };
        if entry.handle == TpmHandle::RS_PW {
            let attributes = entry.attributes.with(TpmaSession::CONTINUE_SESSION, true);
            (Tpm2bNonce::empty(), attributes, Tpm2bNonce::empty()).encode(out);
            continue;
        }
        let (handle, attributes) = (entry.handle, entry.attributes);
        let session = cx.state.session(handle)?;
        let key = hmac_key(cx, entry, session);
        let alg = hash_of(session.auth_hash);
        let password = session.is_policy() && session.flags.is_password_needed;
        let mac = if password || (key.is_empty() && entry.input.is_empty()) {
            Digest::EMPTY
        } else {
            let rp = rp_hash(cx, alg, parameters);
            hmac(alg, &key, &[&rp, &session.nonce_tpm, &entry.nonce_caller, &[attributes.0]])
        };
        (&session.nonce_tpm, attributes, crate::alg::digest_2b(&mac)).encode(out);
        let is_policy = session.is_policy();
        if !attributes.has(TpmaSession::CONTINUE_SESSION) {
            cx.state.flush_session(handle);
        } else if is_policy {
            let (time, epoch) = (cx.state.time(cx.now), cx.state.volatile.time_epoch);
            let session = cx.state.session_mut(handle)?;
            session.reset_policy();
            // It has a new nonce, and what is authorized for this nonce counts from now (Part 3, 23.3).
            (session.start_time, session.epoch) = (time, epoch);
        }
    }
    Ok(())
}
