//! NV indices of every type.

use super::{Generator, object, policy, signing, templates};
use crate::bytes::{Bytes, b2};
use crate::client::Entity;
use crate::client::crypto::Alg;
use crate::model::Nv;
use crate::world::World;
use vtpm_protocol::tpm::{TpmCc as C, TpmHandle as H, TpmNt, TpmaNv as N};

pub const GENERATORS: &[Generator] = &[
    (14, C::NV_DEFINE_SPACE, define_any),
    (8, C::NV_READ_PUBLIC, read_public),
    (22, C::NV_WRITE, write),
    (16, C::NV_READ, read),
    (8, C::NV_INCREMENT, |w| change(w, C::NV_INCREMENT, TpmNt::Counter)),
    (8, C::NV_SET_BITS, |w| change(w, C::NV_SET_BITS, TpmNt::Bits)),
    (8, C::NV_EXTEND, |w| change(w, C::NV_EXTEND, TpmNt::Extend)),
    (4, C::NV_WRITE_LOCK, |w| lock(w, C::NV_WRITE_LOCK)),
    (4, C::NV_READ_LOCK, |w| lock(w, C::NV_READ_LOCK)),
    (1, C::NV_GLOBAL_WRITE_LOCK, global_lock),
    (4, C::NV_CHANGE_AUTH, change_auth),
    (6, C::NV_CERTIFY, certify),
    (4, C::NV_UNDEFINE_SPACE, undefine),
    (2, C::NV_UNDEFINE_SPACE_SPECIAL, undefine_special),
];

/// How many indices there are at most, so that they are used more than once.
const MANY: usize = 8;

fn attributes(w: &mut World) -> N {
    let nt = w.rng.pick(&[
        TpmNt::Ordinary,
        TpmNt::Ordinary,
        TpmNt::Ordinary,
        TpmNt::Counter,
        TpmNt::Bits,
        TpmNt::Extend,
        TpmNt::PinFail,
        TpmNt::PinPass,
    ]);
    let mut bits = N(0).with_nt(nt);
    let pin = matches!(nt, TpmNt::PinFail | TpmNt::PinPass);
    for (bit, percent) in [
        (N::OWNER_WRITE, 60),
        (N::AUTH_WRITE, if pin { 3 } else { 60 }),
        (N::PP_WRITE, 20),
        (N::POLICY_WRITE, 15),
        (N::OWNER_READ, 60),
        (N::AUTH_READ, 70),
        (N::PP_READ, 20),
        (N::POLICY_READ, 15),
        (N::NO_DA, if nt == TpmNt::PinFail { 97 } else { 85 }),
        (N::ORDERLY, 15),
        (N::CLEAR_ST_CLEAR, if nt == TpmNt::Counter { 2 } else { 10 }),
        (N::WRITE_ST_CLEAR, 25),
        (N::READ_ST_CLEAR, 25),
        (N::WRITE_DEFINE, 10),
        (N::GLOBAL_LOCK, 10),
        (N::WRITE_ALL, 6),
        (N::POLICY_DELETE, 3),
        (N::PLATFORM_CREATE, 15),
    ] {
        bits = bits.with(bit, w.rng.chance(percent));
    }
    if w.rng.chance(90) && !bits.any(N::OWNER_WRITE | N::AUTH_WRITE | N::PP_WRITE | N::POLICY_WRITE) {
        bits = bits | N::OWNER_WRITE;
    }
    if w.rng.chance(90) && !bits.any(N::OWNER_READ | N::AUTH_READ | N::PP_READ | N::POLICY_READ) {
        bits = bits | N::OWNER_READ;
    }
    bits
}

fn define_any(w: &mut World) {
    if w.model.nv.len() >= MANY {
        return undefine(w);
    }
    let bits = attributes(w);
    let size = match bits.nt() {
        Ok(TpmNt::Ordinary) => w.rng.pick(&[0u16, 1, 8, 8, 32, 32, 34, 34, 64, 64, 64, 300, 1024, 2048]),
        Ok(TpmNt::Extend) => 0,
        _ => 8,
    };
    let special = bits.has(N::POLICY_DELETE).then_some(C::NV_UNDEFINE_SPACE_SPECIAL);
    define(w, bits, size, special);
}

fn define(w: &mut World, bits: N, size: u16, policy_for: Option<C>) -> Option<Nv> {
    let name_alg = templates::any_hash(w);
    let size = if bits.nt() == Ok(TpmNt::Extend) { Alg(name_alg.0).size() as u16 } else { size };
    let auth = object::any_auth(w);
    let wants_policy = bits.any(N::POLICY_READ | N::POLICY_WRITE | N::POLICY_DELETE);
    let recipe = match policy_for {
        Some(code) => Some(policy::for_command(w, name_alg, code)),
        None if wants_policy || w.rng.chance(10) => policy::recipe(w, name_alg),
        None => None,
    };
    let digest = recipe.map_or(vec![], |r| r.digest);
    let index = 0x0150_0000 + w.rng.below(10) as u32;
    let public = [
        &index.to_be_bytes()[..],
        &name_alg.0.to_be_bytes(),
        &bits.0.to_be_bytes(),
        &b2(&digest),
        &size.to_be_bytes(),
    ];
    let by_platform = bits.has(N::PLATFORM_CREATE) != w.rng.chance(4);
    let authority = w.model.permanent(if by_platform { H::PLATFORM } else { H::OWNER });
    let params = Bytes::new().b2(&auth).b2(&public.concat());
    let call = w.call(C::NV_DEFINE_SPACE, &[&authority], params);
    w.run(call)?;
    w.model.nv.last().cloned()
}

/// The index with the Name that it has now; `None` when it is gone.
pub fn fresh(w: &mut World, index: &Nv) -> Option<Nv> {
    let mut index = index.clone();
    if index.stale {
        let call = w.call(C::NV_READ_PUBLIC, &[&index.entity], Bytes::new());
        let reply = w.send(&call)?;
        index.entity.name = reply.b2(1);
        index.attributes = N(crate::bytes::u32_at(&reply.b2(0)[0], 6));
        index.stale = false;
        if let Some(n) = w.model.nv.iter_mut().find(|n| n.entity.handle == index.entity.handle) {
            *n = index.clone();
        }
    }
    Some(index)
}

fn any(w: &mut World, fits: impl Fn(&Nv) -> bool) -> Option<Nv> {
    let all: Vec<Nv> = w.model.nv.iter().filter(|n| fits(n)).cloned().collect();
    let index = w.rng.choose(&all)?;
    fresh(w, &index)
}

/// Who may write, or read; mostly.
pub fn authority(w: &mut World, index: &Nv, write: bool) -> Entity {
    let bits = index.attributes;
    let (pp, owner, own) = if write {
        (N::PP_WRITE, N::OWNER_WRITE, N::AUTH_WRITE | N::POLICY_WRITE)
    } else {
        (N::PP_READ, N::OWNER_READ, N::AUTH_READ | N::POLICY_READ)
    };
    let mut who = Vec::new();
    if bits.has(owner) {
        who.push(w.model.permanent(H::OWNER));
    }
    if bits.has(pp) {
        who.push(w.model.permanent(H::PLATFORM));
    }
    if bits.any(own) || w.rng.chance(3) {
        who.push(index.entity.clone());
    }
    w.rng.choose(&who).unwrap_or_else(|| w.model.permanent(H::OWNER))
}

fn of_type(n: &Nv, nt: TpmNt) -> bool {
    n.attributes.nt() == Ok(nt)
}

fn write(w: &mut World) {
    let nt = w.rng.pick(&[TpmNt::Ordinary, TpmNt::Ordinary, TpmNt::Ordinary, TpmNt::PinFail, TpmNt::PinPass]);
    let Some(index) = any(w, |n| of_type(n, nt)) else { return };
    let size = usize::from(index.size);
    let (offset, data) = if nt == TpmNt::Ordinary {
        let offset = if w.rng.chance(60) { 0 } else { w.rng.below(size + 1) };
        let room = (size - offset).min(1024);
        let n = if w.rng.chance(50) { room } else { w.rng.below(room + 1) };
        let n = if w.rng.chance(95) { n } else { n + 1 };
        (offset, w.rng.bytes(n))
    } else {
        let count = w.rng.pick(&[0u32, 0, 1, 2]);
        let limit = w.rng.pick(&[0u32, 1, 3, 5]);
        (0, [count.to_be_bytes(), limit.to_be_bytes()].concat())
    };
    write_at(w, &index, offset as u16, &data);
}

fn write_at(w: &mut World, index: &Nv, offset: u16, data: &[u8]) -> bool {
    let who = authority(w, index, true);
    let params = Bytes::new().b2(data).u16(offset);
    let call = w.call(C::NV_WRITE, &[&who, &index.entity], params);
    w.run(call).is_some()
}

fn read(w: &mut World) {
    let Some(index) = any(w, |_| true) else { return };
    let size = usize::from(index.size);
    let offset = if w.rng.chance(70) { 0 } else { w.rng.below(size + 1) };
    let n = if w.rng.chance(80) { (size - offset).min(1024) } else { w.rng.below(size + 3) };
    let who = authority(w, &index, false);
    let params = Bytes::new().u16(n as u16).u16(offset as u16);
    let call = w.call(C::NV_READ, &[&who, &index.entity], params);
    w.run(call);
}

fn read_public(w: &mut World) {
    let Some(index) = any(w, |_| true) else { return };
    let call = w.call(C::NV_READ_PUBLIC, &[&index.entity], Bytes::new());
    w.run(call);
}

fn change(w: &mut World, code: C, nt: TpmNt) {
    let fitting = w.rng.chance(92);
    let Some(index) = any(w, |n| !fitting || of_type(n, nt)) else { return };
    let who = authority(w, &index, true);
    let params = match code {
        C::NV_SET_BITS => Bytes::new().u64(1 << w.rng.below(64)),
        C::NV_EXTEND => {
            let n = w.rng.below(80);
            Bytes::new().b2(&w.rng.bytes(n))
        }
        _ => Bytes::new(),
    };
    let call = w.call(code, &[&who, &index.entity], params);
    w.run(call);
}

fn lock(w: &mut World, code: C) {
    let possible =
        if code == C::NV_WRITE_LOCK { N::WRITE_ST_CLEAR | N::WRITE_DEFINE } else { N::READ_ST_CLEAR };
    let fitting = w.rng.chance(80);
    let Some(index) = any(w, |n| !fitting || n.attributes.any(possible)) else { return };
    let who = authority(w, &index, code == C::NV_WRITE_LOCK);
    let call = w.call(code, &[&who, &index.entity], Bytes::new());
    w.run(call);
}

fn global_lock(w: &mut World) {
    let handle = w.rng.pick(&[H::OWNER, H::PLATFORM]);
    let entity = w.model.permanent(handle);
    let call = w.call(C::NV_GLOBAL_WRITE_LOCK, &[&entity], Bytes::new());
    w.run(call);
}

fn change_auth(w: &mut World) {
    let fits = |n: &Nv| {
        n.recipe.as_ref().is_some_and(|r| r.steps == [policy::Step::CommandCode(C::NV_CHANGE_AUTH.0)])
    };
    let with_policy = w.rng.chance(80);
    let index = match any(w, |n| !with_policy || fits(n)) {
        Some(index) => index,
        None => {
            let bits = N::OWNER_READ | N::OWNER_WRITE | N::AUTH_READ | N::NO_DA;
            let new = define(w, bits, 16, Some(C::NV_CHANGE_AUTH));
            let Some(index) = new.and_then(|n| fresh(w, &n)) else { return };
            index
        }
    };
    let auth = object::any_auth(w);
    let mut call = w.call(C::NV_CHANGE_AUTH, &[&index.entity], Bytes::new().b2(&auth));
    call.new_auth = Some(crate::effects::trimmed(&auth));
    w.run(call);
}

fn certify(w: &mut World) {
    let Some(index) = any(w, |_| true) else { return };
    let who = authority(w, &index, false);
    let Some((key, scheme)) = signing::attesting(w) else { return };
    let size = usize::from(index.size);
    let whole = w.rng.chance(30);
    let n = if whole { 0 } else { size.min(w.rng.below(64)) };
    let data = w.rng.bytes(8);
    let params = Bytes::new().b2(&data).raw(&scheme).u16(n as u16).u16(0);
    let call = w.call(C::NV_CERTIFY, &[&key, &who, &index.entity], params);
    w.run(call);
}

fn undefine(w: &mut World) {
    let Some(index) = any(w, |_| true) else { return };
    let by_platform = index.attributes.has(N::PLATFORM_CREATE) != w.rng.chance(4);
    let authority = w.model.permanent(if by_platform { H::PLATFORM } else { H::OWNER });
    let call = w.call(C::NV_UNDEFINE_SPACE, &[&authority, &index.entity], Bytes::new());
    w.run(call);
}

/// An index that only a policy deletes is made, and deleted.
fn undefine_special(w: &mut World) {
    let bits = N::POLICY_DELETE | N::PLATFORM_CREATE | N::NO_DA | N::PP_READ | N::PP_WRITE;
    let index = match any(w, |n| n.attributes.has(N::POLICY_DELETE)) {
        Some(index) => index,
        None => match define(w, bits, 8, Some(C::NV_UNDEFINE_SPACE_SPECIAL)).and_then(|i| fresh(w, &i)) {
            Some(index) => index,
            None => return,
        },
    };
    let platform = w.model.permanent(H::PLATFORM);
    let call = w.call(C::NV_UNDEFINE_SPACE_SPECIAL, &[&index.entity, &platform], Bytes::new());
    w.run(call);
}

/// A new index that holds this.
pub fn holding(w: &mut World, content: &[u8]) -> Option<Nv> {
    if w.model.nv.len() >= MANY {
        undefine(w);
    }
    let bits = N::OWNER_READ | N::OWNER_WRITE | N::AUTH_READ | N::NO_DA;
    let index = define(w, bits, content.len() as u16, None)?;
    let index = fresh(w, &index)?;
    write_at(w, &index, 0, content);
    fresh(w, &Nv { stale: true, ..index })
}
