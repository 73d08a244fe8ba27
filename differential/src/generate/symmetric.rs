//! Hashes, HMACs and ciphers.

use super::{Generator, object, templates};
use crate::bytes::{Bytes, u16_at};
use crate::model::Object;
use crate::world::World;
use vtpm_protocol::tpm::{TpmAlgId as A, TpmCc as C, TpmHandle as H, TpmaObject as O};

pub const GENERATORS: &[Generator] = &[
    (6, C::HASH, hash),
    (8, C::HMAC, hmac),
    (5, C::ENCRYPT_DECRYPT, |w| cipher(w, C::ENCRYPT_DECRYPT)),
    (7, C::ENCRYPT_DECRYPT2, |w| cipher(w, C::ENCRYPT_DECRYPT2)),
];

fn data(w: &mut World) -> Vec<u8> {
    let n = w.rng.pick(&[0, 1, 16, 32, 48, 100, 1024]);
    w.rng.bytes(n)
}

fn hash(w: &mut World) {
    let data = data(w);
    let alg = templates::any_hash(w);
    let hierarchy = w.rng.pick(&[H::OWNER, H::NULL, H::ENDORSEMENT, H::PLATFORM]);
    let call = w.call(C::HASH, &[], Bytes::new().b2(&data).u16(alg.0).u32(hierarchy.0));
    w.run(call);
}

/// A key of a type, or another one now and then.
fn key(w: &mut World, fits: impl Fn(&Object) -> bool) -> Option<Object> {
    let keys = w.model.objects_that(|o| fits(o) && !o.public_only);
    if keys.is_empty() {
        return object::load_known(w);
    }
    w.rng.choose(&keys)
}

/// An HMAC key.
pub fn hmac_key(w: &mut World) -> Option<Object> {
    key(w, |o| o.alg() == A::KEYEDHASH && o.has(O::SIGN_ENCRYPT))
}

fn hmac(w: &mut World) {
    let Some(key) = hmac_key(w) else { return };
    let data = data(w);
    let own = A(u16_at(key.parms(0), 2));
    let alg = match w.rng.below(3) {
        0 => A::NULL,
        1 => own,
        _ => templates::any_hash(w),
    };
    let call = w.call(C::HMAC, &[&key.entity], Bytes::new().b2(&data).u16(alg.0));
    w.run(call);
}

fn cipher(w: &mut World, code: C) {
    let Some(key) = key(w, |o| o.alg() == A::SYMCIPHER && !o.has(O::RESTRICTED)) else { return };
    let data = data(w);
    let own = A(u16_at(key.parms(0), 4));
    let modes = [A::NULL, own, own, A::CFB, A::CTR, A::OFB, A::CBC, A::ECB];
    let modes: Vec<A> = modes.into_iter().filter(|a| w.common.algs.contains(&a.0) || *a == A::NULL).collect();
    let mode = w.rng.pick(&modes);
    let effective = if mode == A::NULL { own } else { mode };
    let size = if w.rng.chance(92) { if effective == A::ECB { 0 } else { 16 } } else { w.rng.below(18) };
    let iv = w.rng.bytes(size);
    let decrypt = w.rng.below(2) as u8;
    let params = if code == C::ENCRYPT_DECRYPT2 {
        Bytes::new().b2(&data).u8(decrypt).u16(mode.0).b2(&iv)
    } else {
        Bytes::new().u8(decrypt).u16(mode.0).b2(&iv).b2(&data)
    };
    let call = w.call(code, &[&key.entity], params);
    w.run(call);
}
