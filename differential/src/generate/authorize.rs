//! Authorizations: passwords, HMAC sessions bound and salted, policy sessions, and sessions for encryption and audit.

use super::{policy, session};
use crate::client::crypto::Symmetric;
use crate::client::{Auth, Call, Kind, attr, shape};
use crate::world::World;
use vtpm_protocol::tpm::TpmCc;

/// The plain passwords.
pub fn simply(call: &mut Call) {
    let passwords = call.handles.iter().take(call.authorized).map(|e| Auth::Password(e.auth.clone()));
    call.auths = passwords.collect();
}

/// Whatever the generator likes.
pub fn complete(w: &mut World, call: &mut Call) {
    simply(call);
    let flags = shape(TpmCc(call.code));
    if flags.no_sessions {
        return;
    }
    for i in 0..call.authorized {
        let entity = call.handles[i].clone();
        let only = [TpmCc::DUPLICATE, TpmCc::NV_CHANGE_AUTH, TpmCc::NV_UNDEFINE_SPACE_SPECIAL];
        let policy_only = only.contains(&TpmCc(call.code)) && i == 0;
        let recipe = w.model.recipe(entity.handle).filter(|r| r.fits(call.code));
        if let Some(recipe) = recipe
            && (policy_only || w.rng.chance(35))
        {
            if let Some(n) = policy::satisfied(w, &recipe) {
                call.auths[i] = Auth::Session(n, continued(w, 60));
            }
        } else if w.rng.chance(30)
            && let Some(n) = session::any(w, Kind::Hmac, Some(&entity))
            && !uses(call, n)
        {
            call.auths[i] = Auth::Session(n, continued(w, 90));
        }
    }
    if call.auths.len() < 3
        && w.rng.chance(12)
        && let Some(n) = session::any(w, Kind::Hmac, None)
        && !uses(call, n)
    {
        call.auths.push(Auth::Session(n, continued(w, 90)));
    }
    // A session that was flushed to make room for another is not the one that was meant.
    let gone = |a: &Auth| matches!(a, Auth::Session(n, _) if !w.model.sessions.contains_key(n));
    if call.auths.iter().any(gone) {
        simply(call);
    }
    let sessions = &w.model.sessions;
    let mut taken = 0;
    for i in 0..call.auths.len() {
        let Auth::Session(n, attributes) = call.auths[i] else { continue };
        let Some(s) = sessions.get(&n) else { continue };
        let mut attributes = attributes;
        let extra = i >= call.authorized;
        let cipher = s.symmetric != Symmetric::Null;
        for (possible, bit) in [
            (flags.decrypt && cipher, attr::DECRYPT),
            (flags.encrypt && cipher, attr::ENCRYPT),
            (s.kind == Kind::Hmac, attr::AUDIT),
        ] {
            if possible && taken & bit == 0 && w.rng.chance(if extra { 60 } else { 25 }) {
                attributes |= bit;
                taken |= bit;
            }
        }
        if attributes & attr::AUDIT != 0 && w.rng.chance(15) {
            attributes |= if w.rng.chance(50) { attr::RESET } else { attr::EXCLUSIVE };
        }
        call.auths[i] = Auth::Session(n, attributes);
    }
    // A session that does nothing is an error; it is made on purpose elsewhere.
    let authorized = call.authorized;
    let idle = |i: usize, a: &Auth| {
        i >= authorized && matches!(a, Auth::Session(_, bits) if bits & !attr::CONTINUE == 0)
    };
    let auths: Vec<Auth> = std::mem::take(&mut call.auths);
    call.auths = auths.into_iter().enumerate().filter(|(i, a)| !idle(*i, a)).map(|(_, a)| a).collect();
}

fn uses(call: &Call, session: u32) -> bool {
    call.auths.iter().any(|a| matches!(a, Auth::Session(n, _) if *n == session))
}

fn continued(w: &mut World, percent: usize) -> u8 {
    if w.rng.chance(percent) { attr::CONTINUE } else { 0 }
}
