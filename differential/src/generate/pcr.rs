//! PCRs.

use super::{Generator, templates};
use crate::bytes::Bytes;
use crate::client::crypto::Alg;
use crate::world::World;
use vtpm_protocol::tpm::{TpmCc as C, TpmHandle as H};

pub const GENERATORS: &[Generator] = &[
    (10, C::PCR_EXTEND, extend),
    (6, C::PCR_EVENT, event),
    (8, C::PCR_READ, read),
    (4, C::PCR_RESET, reset),
    (1, C::PCR_ALLOCATE, allocate),
    (2, C::PCR_SET_AUTH_POLICY, set_policy),
    (2, C::PCR_SET_AUTH_VALUE, set_auth),
];

/// A `TPML_PCR_SELECTION`.
pub fn selection(w: &mut World) -> Vec<u8> {
    let n = w.rng.pick(&[0usize, 1, 1, 1, 2, 2, 3]);
    let mut out = (n as u32).to_be_bytes().to_vec();
    for _ in 0..n {
        out.extend(templates::any_hash(w).0.to_be_bytes());
        out.push(3);
        let bits: [u8; 3] = match w.rng.below(4) {
            0 => [1 << w.rng.below(8), 0, 0],
            1 => [0xff, 0, 0],
            2 => [0, 0, 1 << w.rng.below(8)],
            _ => [w.rng.draw() as u8, w.rng.draw() as u8, w.rng.draw() as u8],
        };
        out.extend(bits);
    }
    out
}

fn any_pcr(w: &mut World) -> u32 {
    if w.rng.chance(10) {
        H::NULL.0
    } else if w.rng.chance(30) {
        16
    } else if w.rng.chance(25) {
        23
    } else {
        w.rng.below(24) as u32
    }
}

fn digests(w: &mut World) -> Vec<u8> {
    let n = w.rng.pick(&[0usize, 1, 1, 1, 2, 3, 4]);
    let mut out = (n as u32).to_be_bytes().to_vec();
    for _ in 0..n {
        let alg = templates::any_hash(w);
        out.extend(alg.0.to_be_bytes());
        out.extend(w.rng.bytes(Alg(alg.0).size()));
    }
    out
}

fn extend(w: &mut World) {
    let n = any_pcr(w);
    let pcr = w.model.pcr(n);
    let params = digests(w);
    let call = w.call(C::PCR_EXTEND, &[&pcr], Bytes::same(&params));
    w.run(call);
}

fn event(w: &mut World) {
    let n = any_pcr(w);
    let pcr = w.model.pcr(n);
    let size = w.rng.pick(&[0, 1, 32, 300, 1024]);
    let data = w.rng.bytes(size);
    let call = w.call(C::PCR_EVENT, &[&pcr], Bytes::new().b2(&data));
    w.run(call);
}

fn read(w: &mut World) {
    let selection = selection(w);
    let call = w.call(C::PCR_READ, &[], Bytes::same(&selection));
    w.run(call);
}

fn reset(w: &mut World) {
    let n = any_pcr(w);
    let pcr = w.model.pcr(n);
    let call = w.call(C::PCR_RESET, &[&pcr], Bytes::new());
    w.run(call);
}

fn allocate(w: &mut World) {
    let platform = w.model.permanent(H::PLATFORM);
    // Mostly what there is already: an allocation of all PCRs.
    let n = w.rng.between(1, 4);
    let mut list = (n as u32).to_be_bytes().to_vec();
    for alg in [4u16, 0xb, 0xc, 0xd].iter().take(n) {
        list.extend(alg.to_be_bytes());
        list.push(3);
        list.extend(if w.rng.chance(80) { [0xff; 3] } else { [w.rng.draw() as u8; 3] });
    }
    let call = w.call(C::PCR_ALLOCATE, &[&platform], Bytes::same(&list));
    w.run(call);
}

fn set_policy(w: &mut World) {
    let platform = w.model.permanent(H::PLATFORM);
    let alg = templates::any_hash(w);
    let policy = if w.rng.chance(70) { w.rng.bytes(Alg(alg.0).size()) } else { vec![] };
    let alg = if policy.is_empty() { 0x10 } else { alg.0 };
    let n = any_pcr(w);
    let call = w.call(C::PCR_SET_AUTH_POLICY, &[&platform], Bytes::new().b2(&policy).u16(alg).u32(n));
    w.run(call);
}

fn set_auth(w: &mut World) {
    let n = any_pcr(w);
    let pcr = w.model.pcr(n);
    let auth = super::object::any_auth(w);
    let mut call = w.call(C::PCR_SET_AUTH_VALUE, &[&pcr], Bytes::new().b2(&auth));
    call.new_auth = Some(crate::effects::trimmed(&auth));
    w.run(call);
}
