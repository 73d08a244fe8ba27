//! The way of a command through the engine: header, handles, sessions, parameters, handler, response, durable commit.

mod audit;
mod auth;
pub mod da;
mod failure_mode;
mod handles;
mod parameter_encryption;
mod policy;
mod response;

pub use auth::{AuthFailure, SessionUse, Sessions, bound_auth, cp_hash};
pub use handles::{is_act_handle, is_session_handle, is_transient_handle};

use crate::command::hierarchy::is_refused_in_read_only_mode;
use crate::command::{Command, Context, table};
use crate::env::Environment;
use crate::state::{NvIndex, OrderlyState, SelfTest, State};
use std::sync::Arc;
use vtpm_protocol::codec::{Decode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{HEADER_SIZE, TpmCc, TpmSt};

/// A command that did not succeed: its code, and what must be remembered in spite of it.
pub struct Failure {
    /// The code of the response.
    rc: ResponseCode,
    /// A failed authorization that counts.
    counted: Option<AuthFailure>,
    /// PIN indices as authorizations that succeeded before left them.
    pins: Vec<(u32, Arc<NvIndex>)>,
    /// The cryptography failed its test.
    test_failed: bool,
}

impl Failure {
    /// A failed authorization.
    fn of(rc: ResponseCode, counted: Option<AuthFailure>) -> Self {
        Self { rc, counted, pins: Vec::new(), test_failed: false }
    }
}

impl From<ResponseCode> for Failure {
    fn from(rc: ResponseCode) -> Self {
        Self::of(rc, None)
    }
}

/// Executes one command against `state`. What it changed is durable when this returns; when it could not be made so, the state
/// is as before and the response is `TPM_RC_NV_UNAVAILABLE`.
pub fn execute(state: &mut State, env: &mut dyn Environment, locality: u8, command: &[u8]) -> Vec<u8> {
    let now = env.now_ms();
    let before = state.clone();
    state.observe_time(now);
    state.notice_act(now);
    da::self_heal(state, now);
    match process(state, env, locality, now, command) {
        Ok(response) => {
            let changes = state.changes_since(&before);
            if changes.is_empty() || env.commit(changes, &response).is_ok() {
                return response;
            }
            *state = before;
            response::error(ResponseCode::NV_UNAVAILABLE)
        }
        Err(Failure { rc, counted, pins, test_failed }) => {
            *state = before.clone();
            let response = response::error(rc);
            state.nv.extend(pins);
            if test_failed {
                state.volatile_mut().self_test = SelfTest::Failed;
            }
            if let Some(failure) = counted {
                state.observe_time(now);
                da::self_heal(state, now);
                failure.count(state, now);
            }
            let changes = state.changes_since(&before);
            // Kept in memory even if it cannot be made durable: a full disk must not give free guesses.
            if changes.is_empty() || env.commit(changes, &response).is_ok() {
                response
            } else {
                response::error(ResponseCode::NV_UNAVAILABLE)
            }
        }
    }
}

/// The code of a command, for logs and statistics; `None` when there are not enough bytes.
#[must_use]
pub fn command_code(command: &[u8]) -> Option<TpmCc> {
    let mut r = Reader::new(command);
    r.take(6).ok()?;
    TpmCc::decode(&mut r).ok()
}

fn header(bytes: &[u8]) -> Result<(TpmSt, TpmCc, Reader<'_>), ResponseCode> {
    let mut r = Reader::new(bytes);
    let tag = TpmSt::decode(&mut r).map_err(|_| ResponseCode::BAD_TAG)?;
    if tag != TpmSt::SESSIONS && tag != TpmSt::NO_SESSIONS {
        return Err(ResponseCode::BAD_TAG);
    }
    let size = u32::decode(&mut r).map_err(|_| ResponseCode::COMMAND_SIZE)?;
    if usize::try_from(size) != Ok(bytes.len()) || bytes.len() < HEADER_SIZE {
        return Err(ResponseCode::COMMAND_SIZE);
    }
    let code = TpmCc::decode(&mut r).map_err(|_| ResponseCode::COMMAND_SIZE)?;
    Ok((tag, code, r))
}

fn process(
    state: &mut State,
    env: &mut dyn Environment,
    locality: u8,
    now: u64,
    bytes: &[u8],
) -> Result<Vec<u8>, Failure> {
    if state.volatile.self_test == SelfTest::Failed {
        return Ok(failure_mode::response(bytes)?);
    }
    let (tag, code, mut r) = header(bytes)?;
    let command = find(code, env)?;
    if state.volatile.started == (code == TpmCc::STARTUP) {
        return Err(ResponseCode::INITIALIZE.into());
    }
    if state.volatile.state_clear.read_only && is_refused_in_read_only_mode(code) {
        return Err(ResponseCode::READ_ONLY.into());
    }
    let handles = handles::decode(state, command, &mut r)?;
    let before = (state.permanent.orderly != OrderlyState::None).then(|| state.clone());
    let mut cx = Context {
        state,
        env,
        locality,
        now,
        handles,
        sessions: Sessions::default(),
        command,
        test_failed: false,
    };
    let response = run(&mut cx, tag, r).map_err(|failure| Failure {
        // A PIN that was right counts as used, whatever becomes of the command.
        pins: core::mem::take(&mut cx.sessions.pins),
        test_failed: cx.test_failed,
        ..failure
    })?;

    // A command after TPM2_Shutdown makes the shutdown void, if it changed anything that was saved (Part 3, 9.4). What is flushed does not,
    // as in libtpms; but there a Resume brings a saved session back, and here it stays away.
    if !matches!(code, TpmCc::SHUTDOWN | TpmCc::STARTUP | TpmCc::FLUSH_CONTEXT)
        && let Some(before) = before
        && (cx.state.orderly_data_differs(&before) || cx.state.saved_differs(&before))
    {
        cx.state.permanent_mut().orderly = OrderlyState::None;
    }
    Ok(response)
}

/// From the authorization area to the response.
fn run(cx: &mut Context<'_>, tag: TpmSt, mut r: Reader<'_>) -> Result<Vec<u8>, Failure> {
    let mut plain;
    let mut parameters = if tag == TpmSt::SESSIONS {
        let size = usize::try_from(u32::decode(&mut r).map_err(|_| ResponseCode::AUTHSIZE)?)
            .map_err(|_| ResponseCode::AUTHSIZE)?;
        if size < auth::SMALLEST_AREA || size > r.remaining() {
            return Err(ResponseCode::AUTHSIZE.into());
        }
        let area = r.take(size)?;
        auth::check(cx, area, r.peek_rest())?;
        plain = zeroize::Zeroizing::new(r.take_rest().to_vec());
        parameter_encryption::decrypt_command(cx, &mut plain)?;
        Reader::new(&plain)
    } else {
        auth::check_none(cx, r.peek_rest())?;
        r
    };

    let mut output = (cx.command.run)(cx, &mut parameters)?;
    Ok(response::success(cx, tag, &mut output)?)
}

/// The row of a command. Instance commands exist only where there is a tree.
fn find(code: TpmCc, env: &mut dyn Environment) -> Result<&'static Command, ResponseCode> {
    let command = table::find(code).ok_or(ResponseCode::COMMAND_CODE)?;
    if table::is_vendor(code) && env.instances().is_none() {
        return Err(ResponseCode::COMMAND_CODE);
    }
    Ok(command)
}

#[cfg(test)]
mod tests;
