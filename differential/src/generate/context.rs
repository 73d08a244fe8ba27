//! Contexts: saved, loaded, loaded twice, flushed, damaged; and persistent objects.

use super::{Generator, object};
use crate::bytes::Bytes;
use crate::client::Entity;
use crate::model::Saved;
use crate::world::World;
use vtpm_protocol::tpm::{TpmCc as C, TpmHandle as H};

pub const GENERATORS: &[Generator] = &[
    (6, C::CONTEXT_SAVE, save_object),
    (6, C::CONTEXT_SAVE, save_any_session),
    (12, C::CONTEXT_LOAD, load),
    (4, C::FLUSH_CONTEXT, flush),
    (5, C::EVICT_CONTROL, evict),
];

fn keep(w: &mut World, saved: Saved) {
    w.model.saved.push(saved);
    if w.model.saved.len() > 12 {
        w.model.saved.remove(0);
    }
}

fn save(w: &mut World, entity: &Entity) -> Option<Bytes> {
    let call = w.call(C::CONTEXT_SAVE, &[entity], Bytes::new());
    w.run(call).map(|r| r.params)
}

fn save_object(w: &mut World) {
    let sequences = w.model.sequences.clone();
    if w.rng.chance(30)
        && let Some(s) = w.rng.choose(&sequences)
    {
        if let Some(context) = save(w, &s.entity) {
            keep(w, Saved::Sequence(s, context));
        }
        return;
    }
    let objects = w.model.objects_that(|o| o.is_transient() || o.entity.handle[0] & 7 == 3);
    let Some(o) = w.rng.choose(&objects) else { return };
    if let Some(context) = save(w, &o.entity) {
        keep(w, Saved::Object(Box::new(o), context));
    }
}

fn save_any_session(w: &mut World) {
    let sessions = w.model.loaded_sessions();
    if let Some(n) = w.rng.choose(&sessions) {
        save_session(w, n);
    }
}

/// Saves a session, which is then no longer loaded.
pub fn save_session(w: &mut World, n: u32) {
    let Some(handle) = w.model.sessions.get(&n).map(|s| s.handle) else { return };
    if let Some(context) = save(w, &Entity::of_handles(handle)) {
        w.model.away.push(n);
        keep(w, Saved::Session(n, context));
    }
}

fn load(w: &mut World) {
    let saved = w.model.saved.clone();
    let Some(one) = w.rng.choose(&saved) else { return };
    let context = match &one {
        Saved::Object(_, c) | Saved::Sequence(_, c) | Saved::Session(_, c) => c.clone(),
    };
    if matches!(one, Saved::Object(..) | Saved::Sequence(..)) {
        object::room(w);
    }
    let call = w.call(C::CONTEXT_LOAD, &[], context);
    let Some(reply) = w.run(call) else { return };
    match one {
        Saved::Object(o, _) => {
            let entity = Entity { handle: reply.handle, ..o.entity.clone() };
            w.model.objects.push(crate::model::Object { entity, ..*o });
        }
        Saved::Sequence(s, _) => {
            let entity = Entity { handle: reply.handle, ..s.entity.clone() };
            w.model.sequences.push(crate::model::Sequence { entity, ..s });
        }
        Saved::Session(n, _) => w.model.away.retain(|a| *a != n),
    }
}

fn flush(w: &mut World) {
    let mut handles: Vec<_> = w.model.objects.iter().map(|o| o.entity.handle).collect();
    handles.extend(w.model.sessions.values().map(|s| s.handle));
    handles.extend(w.model.sequences.iter().map(|s| s.entity.handle));
    let Some(handle) = w.rng.choose(&handles) else { return };
    let call = w.call(C::FLUSH_CONTEXT, &[], Bytes::new().handle(handle));
    w.run(call);
}

fn evict(w: &mut World) {
    let objects = w.model.objects.clone();
    let Some(o) = w.rng.choose(&objects) else { return };
    let hierarchy = w.rng.pick(&[H::OWNER, H::OWNER, H::PLATFORM]);
    let entity = w.model.permanent(hierarchy);
    let root = o.entity.handle[0] == 0x8100_0001;
    if root && w.rng.chance(80) {
        return;
    }
    let n = w.rng.below(4) as u32;
    let target = if o.is_transient() {
        crate::bytes::both(w.rng.pick(&[0x8100_0002, 0x8180_0000, 0x8100_0002]) + n)
    } else {
        o.entity.handle
    };
    let call = w.call(C::EVICT_CONTROL, &[&entity, &o.entity], Bytes::new().handle(target));
    w.run(call);
}
