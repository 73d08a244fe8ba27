//! Hash, HMAC and event sequences.

use super::{Generator, object, symmetric, templates};
use crate::bytes::{Bytes, OURS, THEIRS, both};
use crate::client::Entity;
use crate::effects::trimmed;
use crate::model::Sequence;
use crate::world::World;
use vtpm_protocol::tpm::{TpmAlgId as A, TpmCc as C, TpmHandle as H};

pub const GENERATORS: &[Generator] = &[
    (6, C::HASH_SEQUENCE_START, start_hash),
    (4, C::HMAC_START, start_hmac),
    (10, C::SEQUENCE_UPDATE, update),
    (8, C::SEQUENCE_COMPLETE, complete),
    (5, C::EVENT_SEQUENCE_COMPLETE, complete_event),
];

fn started(w: &mut World, handle: crate::bytes::Pair<u32>, auth: &[u8], known: bool, event: bool) {
    let entity = Entity { handle, name: both(vec![]), auth: trimmed(auth) };
    w.model.sequences.push(Sequence { entity, known, event });
}

fn start_hash(w: &mut World) {
    object::room(w);
    let auth = object::any_auth(w);
    let event = w.rng.chance(35);
    let alg = if event { A::NULL } else { templates::any_hash(w) };
    let call = w.call(C::HASH_SEQUENCE_START, &[], Bytes::new().b2(&auth).u16(alg.0));
    if let Some(reply) = w.run(call) {
        started(w, reply.handle, &auth, true, event);
    }
}

fn start_hmac(w: &mut World) {
    let Some(key) = symmetric::hmac_key(w) else { return };
    object::room(w);
    let auth = object::any_auth(w);
    let alg = if w.rng.chance(50) { A::NULL } else { templates::any_hash(w) };
    let call = w.call(C::HMAC_START, &[&key.entity], Bytes::new().b2(&auth).u16(alg.0));
    if let Some(reply) = w.run(call) {
        let known = key.entity.name[THEIRS] == key.entity.name[OURS];
        started(w, reply.handle, &auth, known, false);
    }
}

fn any(w: &mut World, event: Option<bool>) -> Option<Sequence> {
    let all: Vec<Sequence> =
        w.model.sequences.iter().filter(|s| event.is_none_or(|e| s.event == e)).cloned().collect();
    if all.is_empty() {
        start_hash(w);
        return None;
    }
    w.rng.choose(&all)
}

fn data(w: &mut World) -> Vec<u8> {
    let n = w.rng.pick(&[0, 1, 63, 64, 65, 128, 500, 1024]);
    let mut data = w.rng.bytes(n);
    if n > 4 && w.rng.chance(5) {
        data[..4].copy_from_slice(&[0xff, b'T', b'C', b'G']);
    }
    data
}

fn update(w: &mut World) {
    let Some(s) = any(w, None) else { return };
    let data = data(w);
    let call = w.call(C::SEQUENCE_UPDATE, &[&s.entity], Bytes::new().b2(&data));
    w.run(call);
}

fn complete(w: &mut World) {
    let wrong = w.rng.chance(5);
    let Some(s) = any(w, Some(wrong)) else { return };
    let data = data(w);
    let hierarchy = w.rng.pick(&[H::OWNER, H::NULL, H::PLATFORM]);
    let call = w.call(C::SEQUENCE_COMPLETE, &[&s.entity], Bytes::new().b2(&data).u32(hierarchy.0));
    w.run(call);
}

fn complete_event(w: &mut World) {
    let wrong = w.rng.chance(5);
    let Some(s) = any(w, Some(!wrong)) else { return };
    let data = data(w);
    let n = w.rng.pick(&[H::NULL.0, 0, 5, 16, 23]);
    let pcr = w.model.pcr(n);
    let call = w.call(C::EVENT_SEQUENCE_COMPLETE, &[&pcr, &s.entity], Bytes::new().b2(&data));
    w.run(call);
}
