//! What a command that both did changes in the model, read off the command as it was sent.

use crate::bytes::{Pair, THEIRS, nth_2b, u16_at, u32_at};
use crate::client::Call;
use crate::model::{Nv, Object, Saved};
use crate::world::{Replies, World};
use vtpm_protocol::tpm::{TpmCc as C, TpmHandle as H, TpmaNv};

/// An authorization value as it counts: without trailing zeros.
pub fn trimmed(auth: &[u8]) -> Vec<u8> {
    auth.iter().rposition(|b| *b != 0).map_or(vec![], |last| auth[..=last].to_vec())
}

fn handle(call: &Call, n: usize) -> Pair<u32> {
    call.handles.get(n).map_or([0; 2], |e| e.handle)
}

/// Takes over what the command did.
pub fn of(w: &mut World, call: &Call, replies: &Replies) {
    let first = handle(call, 0);
    let params = call.params.0[THEIRS].clone();
    let new_auth = trimmed(&nth_2b(&params, 0));
    let model = &mut w.model;
    match C(call.code) {
        C::HIERARCHY_CHANGE_AUTH => {
            model.permanent.entry(first[THEIRS]).or_default().0 = new_auth;
        }
        C::SET_PRIMARY_POLICY => {
            let digest = nth_2b(&params, 0);
            let recipe = model.recipes.iter().find(|r| r.digest == digest).cloned();
            model.permanent.entry(first[THEIRS]).or_default().1 = recipe;
        }
        C::CLEAR => {
            for h in [H::OWNER, H::ENDORSEMENT, H::LOCKOUT] {
                model.permanent.insert(h.0, (vec![], None));
            }
            gone(w, &[H::OWNER.0, H::ENDORSEMENT.0]);
            w.model.nv.retain(|n| n.attributes.has(TpmaNv::PLATFORM_CREATE));
        }
        C::PCR_ALLOCATE => {
            let accepted = replies.params.0[THEIRS].first() == Some(&1);
            model.allocation = accepted.then(|| call.params.clone()).or(model.allocation.take());
        }
        C::CHANGE_EPS => {
            model.permanent.insert(H::ENDORSEMENT.0, (vec![], None));
            gone(w, &[H::ENDORSEMENT.0]);
        }
        C::CHANGE_PPS => {
            model.permanent.entry(H::PLATFORM.0).or_default().1 = None;
            gone(w, &[H::PLATFORM.0]);
        }
        C::HIERARCHY_CONTROL => {
            if params.get(4) == Some(&0) {
                let hierarchy = u32_at(&params, 0);
                w.model.objects.retain(|o| o.hierarchy != hierarchy || !o.is_transient());
            }
        }
        C::STARTUP => {
            if u16_at(&params, 0) == 0 {
                model.permanent.insert(H::PLATFORM.0, (vec![], None));
                model.pcr_auth.clear();
            }
        }
        C::FLUSH_CONTEXT => flushed(w, [0, 1].map(|s| u32_at(&call.params.0[s], 0))),
        C::EVICT_CONTROL => evicted(w, call),
        C::SEQUENCE_COMPLETE => model.sequences.retain(|s| s.entity.handle != first),
        C::EVENT_SEQUENCE_COMPLETE => {
            let sequence = handle(call, 1);
            model.sequences.retain(|s| s.entity.handle != sequence);
        }
        C::PCR_SET_AUTH_VALUE => {
            model.pcr_auth.insert(first[THEIRS], new_auth);
        }
        C::NV_UNDEFINE_SPACE => {
            let index = handle(call, 1);
            model.nv.retain(|n| n.entity.handle != index);
        }
        C::NV_UNDEFINE_SPACE_SPECIAL => model.nv.retain(|n| n.entity.handle != first),
        C::NV_CHANGE_AUTH => {
            if let Some(n) = model.nv.iter_mut().find(|n| n.entity.handle == first) {
                n.entity.auth = new_auth;
            }
        }
        C::NV_DEFINE_SPACE => defined(w, &params, new_auth),
        C::NV_WRITE
        | C::NV_INCREMENT
        | C::NV_EXTEND
        | C::NV_SET_BITS
        | C::NV_WRITE_LOCK
        | C::NV_READ_LOCK
        | C::NV_GLOBAL_WRITE_LOCK => model.nv.iter_mut().for_each(|n| n.stale = true),
        _ => policy(w, call),
    }
}

fn gone(w: &mut World, hierarchies: &[u32]) {
    w.model.objects.retain(|o| !hierarchies.contains(&o.hierarchy));
    w.model.blobs.retain(|b| !hierarchies.contains(&b.hierarchy));
    w.model.saved.retain(|s| !matches!(s, Saved::Object(o, _) if hierarchies.contains(&o.hierarchy)));
}

/// An object or session is gone.
pub fn flushed(w: &mut World, handle: Pair<u32>) {
    let model = &mut w.model;
    model.objects.retain(|o| o.entity.handle != handle);
    model.sequences.retain(|s| s.entity.handle != handle);
    // Of a session's handle the type does not count.
    let is_session = handle[THEIRS] >> 25 == 1;
    let same = |h: Pair<u32>| {
        h == handle || is_session && h.map(|n| n & 0x00ff_ffff) == handle.map(|n| n & 0x00ff_ffff)
    };
    let gone: Vec<u32> = model.sessions.iter().filter(|(_, s)| same(s.handle)).map(|(n, _)| *n).collect();
    model.sessions.retain(|n, _| !gone.contains(n));
    model.away.retain(|n| !gone.contains(n));
    model.saved.retain(|s| !matches!(s, Saved::Session(n, _) if gone.contains(n)));
}

fn evicted(w: &mut World, call: &Call) {
    let object = handle(call, 1);
    let persistent = [0, 1].map(|s| u32_at(&call.params.0[s], 0));
    if object[THEIRS] >> 24 == 0x81 {
        w.model.objects.retain(|o| o.entity.handle != object);
    } else if let Some(o) = w.model.objects.iter().find(|o| o.entity.handle == object).cloned() {
        let entity = crate::client::Entity { handle: persistent, ..o.entity.clone() };
        w.model.objects.push(Object { entity, ..o });
    }
}

fn defined(w: &mut World, params: &[u8], auth: Vec<u8>) {
    let public = nth_2b(params, 1);
    let index = u32_at(&public, 0);
    let policy = nth_2b(public.get(10..).unwrap_or_default(), 0);
    let size = u16_at(&public, 12 + policy.len());
    let recipe = w.model.recipes.iter().find(|r| r.digest == policy && !policy.is_empty()).cloned();
    let mut entity = crate::client::Entity::of_handle(index, &auth);
    entity.name = crate::bytes::both(vec![]);
    w.model.nv.push(Nv { entity, attributes: TpmaNv(u32_at(&public, 6)), size, recipe, stale: true });
}

/// What policy commands do to their session.
fn policy(w: &mut World, call: &Call) {
    let Some(session) = call.handles.iter().find_map(|e| {
        w.model.sessions.iter().find(|(_, s)| s.is_policy() && s.handle == e.handle).map(|(n, _)| *n)
    }) else {
        return;
    };
    let same = call.known;
    let Some(s) = w.model.sessions.get_mut(&session) else { return };
    match C(call.code) {
        C::POLICY_AUTH_VALUE => (s.auth_value_needed, s.password_needed) = (true, false),
        C::POLICY_PASSWORD => (s.auth_value_needed, s.password_needed) = (false, true),
        C::POLICY_RESTART => {
            (s.auth_value_needed, s.password_needed, s.same_policy) = (false, false, true);
        }
        C::POLICY_GET_DIGEST | C::CONTEXT_SAVE | C::START_AUTH_SESSION => {}
        _ if !same => s.same_policy = false,
        _ => {}
    }
}
