//! RSA encryption, Diffie-Hellman, ephemeral keys.

use super::{Generator, object, templates};
use crate::bytes::{Bytes, SIDES, b2, nth_2b, u16_at};
use crate::known_keys;
use crate::model::Object;
use crate::world::World;
use vtpm_protocol::tpm::{TpmAlgId as A, TpmCc as C, TpmaObject as O};

pub const GENERATORS: &[Generator] = &[
    (6, C::RSA_ENCRYPT, rsa),
    (5, C::ECDH_KEY_GEN, key_gen),
    (6, C::ECDH_ZGEN, z_gen),
    (3, C::EC_EPHEMERAL, ephemeral),
    (3, C::ZGEN_2PHASE, two_phase),
    (4, C::COMMIT, commit),
];

fn key(w: &mut World, alg: A, use_bits: O) -> Option<Object> {
    let keys = w.model.objects_that(|o| o.alg() == alg && o.has(use_bits));
    if keys.is_empty() || w.rng.chance(30) {
        let new = object::load_known(w)?;
        return (new.alg() == alg).then_some(new);
    }
    w.rng.choose(&keys)
}

/// Encrypts with one scheme and decrypts again.
fn rsa(w: &mut World) {
    let Some(key) = key(w, A::RSA, O::DECRYPT) else { return };
    let scheme = templates::rsa_encryption_scheme(w);
    let n = w.rng.pick(&[0, 1, 20, 32, 64, 117, 128, 256]);
    let message = w.rng.bytes(n);
    let label: &[u8] = w.rng.pick(&[&b""[..], b"", b"label\0", b"label"]);
    let params = Bytes::new().b2(&message).raw(&scheme).b2(label);
    let call = w.call(C::RSA_ENCRYPT, &[&key.entity], params);
    let Some(reply) = w.run(call) else { return };
    let params = Bytes::new().b2_each(&reply.b2(0)).raw(&scheme).b2(label);
    let call = w.call(C::RSA_DECRYPT, &[&key.entity], params);
    w.run(call);
}

fn key_gen(w: &mut World) {
    let Some(key) = key(w, A::ECC, O::DECRYPT) else { return };
    let call = w.call(C::ECDH_KEY_GEN, &[&key.entity], Bytes::new());
    let Some(reply) = w.run(call) else { return };
    // The point that it made leads to the same secret.
    let call = w.call(C::ECDH_ZGEN, &[&key.entity], Bytes::new().b2_each(&reply.b2(1)));
    w.run(call);
}

fn curve(key: &Object) -> u16 {
    // After a null or AES cipher and a scheme.
    let parms = key.parms(0);
    let at = if u16_at(parms, 0) == A::NULL.0 { 2 } else { 6 };
    let scheme = A(u16_at(parms, at));
    u16_at(parms, at + if scheme == A::NULL { 2 } else { 4 + if scheme == A::ECDAA { 2 } else { 0 } })
}

/// A point of a curve that this client computes on.
fn point(w: &mut World, curve: u16) -> Option<Vec<u8>> {
    let size = if curve == 4 { 48 } else { 32 };
    let (x, y) = known_keys::point(curve, &known_keys::scalar(w.rng.below(60) as u8, size))?;
    let mut all = [b2(&x), b2(&y)].concat();
    if w.rng.chance(8) {
        let at = w.rng.below(all.len());
        all[at] ^= 1;
    }
    Some(all)
}

fn z_gen(w: &mut World) {
    let Some(key) = key(w, A::ECC, O::DECRYPT) else { return };
    let Some(point) = point(w, curve(&key)) else { return };
    let call = w.call(C::ECDH_ZGEN, &[&key.entity], Bytes::new().b2(&point));
    w.run(call);
}

fn ephemeral(w: &mut World) {
    let curve = templates::any_curve(w);
    let call = w.call(C::EC_EPHEMERAL, &[], Bytes::new().u16(curve));
    w.run(call);
}

fn two_phase(w: &mut World) {
    let keys = w
        .model
        .objects_that(|o| o.alg() == A::ECC && o.has(O::DECRYPT) && !o.has(O::RESTRICTED) && !o.public_only);
    let Some(key) = w.rng.choose(&keys).or_else(|| key(w, A::ECC, O::DECRYPT)) else { return };
    let curve = curve(&key);
    let call = w.call(C::EC_EPHEMERAL, &[], Bytes::new().u16(curve));
    let Some(reply) = w.run(call) else { return };
    let counter = SIDES.map(|s| {
        let q = nth_2b(&reply.params.0[s], 0).len();
        reply.params.0[s].get(2 + q..).unwrap_or_default().to_vec()
    });
    let Some(static_point) = point(w, curve) else { return };
    let Some(other) = point(w, curve) else { return };
    let scheme = w.rng.pick(&[A::ECDH, A::ECDH, A::ECMQV, A::SM2, A::ECDSA]);
    let params = Bytes::new().b2(&static_point).b2(&other).u16(scheme.0).each(&counter);
    let call = w.call(C::ZGEN_2PHASE, &[&key.entity], params);
    w.run(call);
}

/// Commit, and a signature with what it left.
fn commit(w: &mut World) {
    let keys =
        w.model.objects_that(|o| o.alg() == A::ECC && o.signs() && u16_at(o.parms(0), 2) == A::ECDAA.0);
    let keys = if keys.is_empty() { w.model.objects_that(|o| o.alg() == A::ECC && o.signs()) } else { keys };
    let Some(key) = w.rng.choose(&keys) else { return };
    let p1 = if w.rng.chance(50) { point(w, curve(&key)) } else { None }.unwrap_or(vec![0; 4]);
    let call = w.call(C::COMMIT, &[&key.entity], Bytes::new().b2(&p1).b2(&[]).b2(&[]));
    let Some(reply) = w.run(call) else { return };
    let counter =
        SIDES.map(|s| reply.params.0[s].get(reply.params.0[s].len() - 2..).unwrap_or_default().to_vec());
    let hash = u16_at(key.parms(0), 4);
    if A(u16_at(key.parms(0), 2)) != A::ECDAA {
        return;
    }
    let size = crate::client::crypto::Alg(hash).size();
    let digest = w.rng.bytes(size);
    let params =
        Bytes::new().b2(&digest).u16(A::ECDAA.0).u16(hash).each(&counter).raw(&super::signing::no_ticket());
    let call = w.call(C::SIGN, &[&key.entity], params);
    w.run(call);
}
