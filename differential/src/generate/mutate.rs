//! Good commands made wrong: one thing is changed, the same on both sides, so that what is checked first shows.

use crate::accepted::when::BEFORE_BYTES_THAT_DIFFER;
use crate::bytes::{OURS, THEIRS};
use crate::client::{Auth, Call, Edit, Entity, attr};
use crate::world::World;
use vtpm_protocol::tpm::TpmHandle;

/// Handles that exist or not, of every type.
const HANDLES: [u32; 26] = [
    0,
    16,
    23,
    24,
    0x0100_0000,
    0x0150_0001,
    0x01ff_ffff,
    0x0200_0000,
    0x0200_0001,
    0x02ff_ffff,
    0x0300_0000,
    0x0300_0001,
    0x4000_0000,
    0x4000_0001,
    0x4000_0007,
    0x4000_0009,
    0x4000_000a,
    0x4000_000b,
    0x4000_000c,
    0x4000_000d,
    0x8000_0000,
    0x8000_0001,
    0x8000_0006,
    0x8100_0000,
    0x8180_0000,
    0xffff_ffff,
];

/// Algorithms and near misses.
const ALGS: [u16; 34] = [
    0x00, 0x01, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x0a, 0x0b, 0x0c, 0x0d, 0x10, 0x12, 0x13, 0x14, 0x15,
    0x16, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x20, 0x22, 0x23, 0x25, 0x26, 0x40, 0x43, 0x44, 0x7fff,
];

/// Changes one thing.
pub fn spoil(w: &mut World, call: &mut Call) {
    let choice = w.rng.below(100);
    call.mutation = match choice {
        0..=44 => parameters(w, call),
        45..=64 => handle(w, call),
        65..=84 => authorization(w, call),
        _ => bytes(w, call),
    }
    .unwrap_or_default();
}

/// Whether a flipped bit of a command that only passwords authorize may have made an algorithm id that only one side knows.
fn flips_to_disputed(w: &World, call: &Call, edit: &Edit) -> bool {
    let Edit::Flip(at, bits) = edit else { return false };
    let password = |a: &Auth| if let Auth::Password(p) = a { 9 + p.len() } else { 0 };
    let behind_auths = area(call) + 4 + call.auths.iter().map(password).sum::<usize>();
    let Some(i) = at.checked_sub(behind_auths) else { return false };
    let mut params = call.params.0[OURS].clone();
    Edit::Flip(i, *bits).apply(&mut params);
    disputed(w, params.get(i.saturating_sub(1)..params.len().min(i + 2)).unwrap_or_default())
}

/// Whether an algorithm id that only one side knows could stand here now.
fn disputed(w: &World, bytes: &[u8]) -> bool {
    bytes.windows(2).any(|b| {
        let n = u16::from_be_bytes([b[0], b[1]]);
        w.common.disputed_algs.contains(&n)
            || w.common.disputed_curves.contains(&n)
            || w.common.disputed_rsa_bits.contains(&n)
            || w.common.disputed_aes_bits.contains(&n)
    })
}

fn parameters(w: &mut World, call: &mut Call) -> Option<String> {
    let before = call.params.clone();
    let len = call.params.0[THEIRS].len();
    let rng = &mut w.rng;
    // Structure stands in front, content behind.
    let at = rng.below(len.max(1)).min(rng.below(len.max(1)));
    let edit = match rng.below(12) {
        0 => Edit::Cut(len - rng.between(1, 4).min(len), 4),
        1 => Edit::Insert(len, vec![0; rng.between(1, 3)]),
        2 => Edit::Insert(at, rng.bytes(1)),
        3 => Edit::Cut(at, 1),
        4 | 5 => Edit::Put(at, rng.pick(&ALGS).to_be_bytes().to_vec()),
        6 => Edit::Put(at, rng.pick(&HANDLES).to_be_bytes().to_vec()),
        7 => Edit::Put(
            at,
            [0u16, 1, 2, 16, 20, 32, 64, 65, 128, 256, 1024, 1025, 2048, 0xffff][rng.below(14)]
                .to_be_bytes()
                .to_vec(),
        ),
        8 => Edit::Put(at, vec![rng.draw() as u8]),
        _ => Edit::Flip(at, 1 << rng.below(8)),
    };
    for side in &mut call.params.0 {
        edit.apply(side);
    }
    // What did nothing on one side only compares nothing.
    let idle = [THEIRS, OURS].map(|s| call.params.0[s] == before.0[s]);
    if idle[THEIRS] != idle[OURS] {
        call.params = before;
        return None;
    }
    // What moves must not end up in what is each side's own.
    let moves = matches!(edit, Edit::Cut(..) | Edit::Insert(..));
    let tail = [THEIRS, OURS].map(|s| before.0[s].get(at..).unwrap_or_default().to_vec());
    let differs = |i: usize| call.params.0[THEIRS].get(i) != call.params.0[OURS].get(i);
    let near = at.saturating_sub(1)..at + 3;
    let dispute = disputed(
        w,
        call.params.0[OURS].get(near.start..near.end.min(call.params.0[OURS].len())).unwrap_or_default(),
    );
    let named = [THEIRS, OURS].map(|s| crate::bytes::u32_at(&call.params.0[s], 0));
    if is_ambiguous(w, named[OURS], named[THEIRS]) {
        call.params = before;
        return None;
    }
    if call.params == before
        || dispute
        || moves && at < len && tail[THEIRS] != tail[OURS]
        || (len > 0 && differs(at) && !matches!(edit, Edit::Flip(..)))
    {
        call.params = before;
        return None;
    }
    let remark =
        if tail[THEIRS] == tail[OURS] { String::new() } else { format!(" {BEFORE_BYTES_THAT_DIFFER}") };
    Some(format!(" with parameters changed: {edit:?}{remark}"))
}

/// Whether a handle of an object is given that is another object on the other side.
fn is_ambiguous(w: &World, ours: u32, theirs: u32) -> bool {
    let m = &w.model;
    let mut pairs =
        m.objects.iter().map(|o| o.entity.handle).chain(m.sequences.iter().map(|s| s.entity.handle));
    pairs.any(|p| (p[OURS] == ours) != (p[THEIRS] == theirs))
}

fn is_known(w: &World, entity: &Entity) -> bool {
    w.model.objects.iter().any(|o| o.entity.handle == entity.handle)
        || w.model.sequences.iter().any(|s| s.entity.handle == entity.handle)
}

fn any_entity(w: &mut World) -> Entity {
    let m = &w.model;
    let mut all: Vec<Entity> = m.objects.iter().map(|o| o.entity.clone()).collect();
    all.extend(m.nv.iter().map(|n| n.entity.clone()));
    all.extend(m.sessions.values().map(|s| Entity::of_handles(s.handle)));
    all.extend(m.sequences.iter().map(|s| s.entity.clone()));
    for h in
        [TpmHandle::OWNER, TpmHandle::ENDORSEMENT, TpmHandle::PLATFORM, TpmHandle::LOCKOUT, TpmHandle::NULL]
    {
        all.push(m.permanent(h));
    }
    w.rng.pick(&all)
}

fn handle(w: &mut World, call: &mut Call) -> Option<String> {
    if call.handles.is_empty() {
        return None;
    }
    let i = w.rng.below(call.handles.len());
    let entity = if w.rng.chance(50) { any_entity(w) } else { Entity::of_handle(w.rng.pick(&HANDLES), b"") };
    // Slots are numbered by each TPM as it likes.
    if matches!(entity.handle[OURS], 0x8000_0000..=0x8000_0002) && !is_known(w, &entity) {
        return None;
    }
    if entity.handle == call.handles[i].handle || is_ambiguous(w, entity.handle[OURS], entity.handle[THEIRS])
    {
        return None;
    }
    let old = std::mem::replace(&mut call.handles[i], entity);
    if let Some(Auth::Password(password)) = call.auths.get_mut(i).filter(|_| i < call.authorized)
        && *password == old.auth
        && w.rng.chance(70)
    {
        password.clone_from(&call.handles[i].auth);
    }
    Some(format!(
        " with handle {} changed from {:#x} to {:#x}",
        i + 1,
        old.handle[OURS],
        call.handles[i].handle[OURS]
    ))
}

fn authorization(w: &mut World, call: &mut Call) -> Option<String> {
    let before = call.auths.clone();
    let what = match w.rng.below(9) {
        0 if !call.auths.is_empty() => {
            call.auths.pop();
            "one authorization less"
        }
        1 => {
            call.auths.push(Auth::Password(vec![]));
            "one password more"
        }
        2 => {
            let n = w.rng.choose(&w.model.loaded_sessions())?;
            let bits = w.rng.draw() as u8 & 0xe7;
            call.auths.push(Auth::Session(n, bits));
            "one session more"
        }
        3 if call.authorized > 0 => {
            let wrong = w.rng.bytes(4);
            call.auths[0] = Auth::Password(wrong);
            "a wrong password"
        }
        4 | 5 if call.authorized > 0 => {
            let n = w.rng.choose(&w.model.loaded_sessions())?;
            let i = w.rng.below(call.authorized);
            call.auths[i] = Auth::Session(n, attr::CONTINUE);
            "another session"
        }
        6 if !call.auths.is_empty() => {
            let i = w.rng.below(call.auths.len());
            let first = call.auths[i].clone();
            call.auths.push(first);
            "an authorization twice"
        }
        _ => {
            let bit = 1 << w.rng.below(8);
            let session = call.auths.iter_mut().find_map(|a| match a {
                Auth::Session(_, bits) => Some(bits),
                Auth::Password(_) => None,
            })?;
            *session ^= bit;
            "a session attribute"
        }
    };
    // Known to be accepted by libtpms, after which the sides are no longer the same: rarely.
    let unseen = |a: &Auth| matches!(a, Auth::Session(_, bits) if bits & attr::AUDIT == 0 && bits & (attr::RESET | attr::EXCLUSIVE) != 0);
    if call.auths.iter().any(unseen) && w.rng.chance(80) {
        call.auths = before;
        return None;
    }
    (call.auths != before).then(|| format!(" with {what} changed"))
}

/// Where the handles end.
fn area(call: &Call) -> usize {
    10 + 4 * call.handles.len()
}

fn bytes(w: &mut World, call: &mut Call) -> Option<String> {
    let start = area(call);
    // Behind the handle of a session stands what is each side's own.
    let plain = call.auths.iter().all(|a| matches!(a, Auth::Password(_)));
    let rng = &mut w.rng;
    let edit = match rng.below(8) {
        0 if plain => Edit::Put(0, rng.pick(&[[0x80, 1], [0x80, 2], [0, 0xc4], [0x80, 3], [0, 0]]).to_vec()),
        1 => Edit::Put(6, [&[0, 0], &[1u8, (0x1f + rng.below(0x80)) as u8][..]].concat()),
        2 => Edit::Cut(start.saturating_sub(rng.below(4)), 4096),
        3 if !call.auths.is_empty() => Edit::Flip(start + 3, 1 << rng.below(6)),
        4 if !call.auths.is_empty() => Edit::Put(start + 4, rng.pick(&HANDLES).to_be_bytes().to_vec()),
        5 | 6 if !call.auths.is_empty() && plain => Edit::Flip(start + 4 + rng.below(12), 1 << rng.below(8)),
        _ if plain => Edit::Insert(start, rng.bytes(1)),
        _ => return None,
    };
    if flips_to_disputed(w, call, &edit) {
        return None;
    }
    if let Edit::Put(6, code) = &edit {
        if call.handles.iter().any(|e| e.handle[THEIRS] != e.handle[OURS]) {
            return None;
        }
        // Not to a command whose effects nobody could follow.
        let code = u32::from_be_bytes([code[0], code[1], code[2], code[3]]);
        if w.common.ours_only.contains(&code) || code == call.code || forbidden(code) {
            return None;
        }
        if !w.common.commands.contains(&code)
            && vtpm_engine::command::table::find(vtpm_protocol::tpm::TpmCc(code)).is_none()
            && theirs_only(code)
        {
            return None;
        }
    }
    call.edits.push(edit.clone());
    Some(format!(" with bytes changed: {edit:?}"))
}

/// Commands that change too much by accident.
fn forbidden(code: u32) -> bool {
    [0x121, 0x124, 0x125, 0x126, 0x144, 0x145, 0x162, 0x165].contains(&code)
}

/// Commands of libtpms that we may not have, at least not yet.
fn theirs_only(code: u32) -> bool {
    (0x11f..=0x19a).contains(&code)
}
