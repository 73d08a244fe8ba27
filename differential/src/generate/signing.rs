//! Signatures: made, verified where they were made, and verified by the other side.

use super::{Generator, object, templates};
use crate::bytes::{Bytes, Pair, SIDES, THEIRS, both, u16_at};
use crate::client::Entity;
use crate::client::crypto::Alg;
use crate::model::Object;
use crate::world::World;
use vtpm_protocol::tpm::{TpmAlgId as A, TpmCc as C, TpmHandle as H, TpmaObject as O};

pub const GENERATORS: &[Generator] = &[(24, C::SIGN, sign_any), (12, C::VERIFY_SIGNATURE, cross_check)];

/// The null ticket of a hash check.
pub fn no_ticket() -> Vec<u8> {
    [&[0x80, 0x24][..], &H::NULL.0.to_be_bytes(), &[0, 0]].concat()
}

/// The scheme of a key, as its public area has it: null, or scheme and hash.
fn own_scheme(key: &Object) -> Option<(A, A)> {
    let parms = key.parms(THEIRS);
    let at = match key.alg() {
        A::KEYEDHASH => 0,
        // Past a null symmetric algorithm.
        _ => 2,
    };
    let scheme = A(u16_at(parms, at));
    (scheme != A::NULL).then(|| (scheme, A(u16_at(parms, at + 2))))
}

/// A scheme to sign with that fits a key, and its hash.
pub fn scheme_for(w: &mut World, key: &Object) -> (Vec<u8>, A) {
    if let Some((scheme, hash)) = own_scheme(key) {
        let null = w.rng.chance(50);
        let count: &[u8] = if scheme == A::ECDAA { &[0, 0] } else { &[] };
        let named = [&scheme.0.to_be_bytes()[..], &hash.0.to_be_bytes(), count].concat();
        return (if null && scheme != A::ECDAA { vec![0, 0x10] } else { named }, hash);
    }
    let hash = templates::any_hash(w);
    let schemes: &[A] = match key.alg() {
        A::RSA => &[A::RSASSA, A::RSAPSS],
        A::ECC => &[A::ECDSA, A::ECDSA, A::ECSCHNORR],
        _ => &[A::HMAC],
    };
    let schemes: Vec<A> = schemes.iter().copied().filter(|a| w.common.algs.contains(&a.0)).collect();
    let scheme = w.rng.choose(&schemes).unwrap_or(A::NULL);
    ([scheme.0.to_be_bytes(), hash.0.to_be_bytes()].concat(), hash)
}

/// A signature of a digest of each side.
pub fn sign(w: &mut World, key: &Object, digest: &Pair<Vec<u8>>, scheme: &[u8]) -> Option<Pair<Vec<u8>>> {
    let params = Bytes::new().b2_each(digest).raw(scheme).raw(&no_ticket());
    let call = w.call(C::SIGN, &[&key.entity], params);
    w.run(call).map(|r| r.params.0)
}

/// A key that signs, made or loaded where there is none.
pub fn any_key(w: &mut World) -> Option<Object> {
    let keys = w.model.objects_that(Object::signs);
    if keys.is_empty() || w.rng.chance(15) {
        return object::load_known(w).filter(Object::signs);
    }
    w.rng.choose(&keys)
}

/// A key for attestations with a scheme, or no key.
pub fn attesting(w: &mut World) -> Option<(Entity, Vec<u8>)> {
    if w.rng.chance(10) {
        return Some((Entity::of_handle(H::NULL.0, b""), vec![0, 0x10]));
    }
    let key = any_key(w)?;
    let (scheme, _) = scheme_for(w, &key);
    Some((key.entity, scheme))
}

fn sign_any(w: &mut World) {
    let Some(key) = any_key(w) else { return };
    let (scheme, hash) = scheme_for(w, &key);
    let size = Alg(hash.0).size();
    let digest = w.rng.bytes(size);
    if key.has(O::RESTRICTED) {
        return sign_restricted(w, &key, &scheme, hash);
    }
    let Some(signature) = sign(w, &key, &both(digest.clone()), &scheme) else { return };
    verify(w, &key, &digest, &signature);
}

/// With a ticket of a hash that the TPM made itself.
fn sign_restricted(w: &mut World, key: &Object, scheme: &[u8], hash: A) {
    let size = w.rng.between(0, 40);
    let mut data = w.rng.bytes(size);
    if w.rng.chance(10) {
        data = [&[0xff, b'T', b'C', b'G'][..], &data].concat();
    }
    let params = Bytes::new().b2(&data).u16(hash.0).u32(w.rng.pick(&[H::OWNER, H::NULL, H::ENDORSEMENT]).0);
    let call = w.call(C::HASH, &[], params);
    let Some(reply) = w.run(call) else { return };
    let digest = reply.b2(0);
    let ticket = SIDES.map(|s| reply.params.0[s].get(2 + digest[s].len()..).unwrap_or_default().to_vec());
    let params = Bytes::new().b2_each(&digest).raw(scheme).each(&ticket);
    let call = w.call(C::SIGN, &[&key.entity], params);
    let Some(reply) = w.run(call) else { return };
    verify(w, key, &digest[THEIRS], &reply.params.0);
}

fn verify(w: &mut World, key: &Object, digest: &[u8], signature: &Pair<Vec<u8>>) {
    let params = Bytes::new().b2(digest).each(signature);
    let call = w.call(C::VERIFY_SIGNATURE, &[&key.entity], params);
    w.run(call);
}

/// What each side signed is verified by both, with the public key of that side.
fn cross_check(w: &mut World) {
    let keys =
        w.model.objects_that(|o| o.signs() && matches!(o.alg(), A::RSA | A::ECC) && !o.has(O::RESTRICTED));
    let key = match w.rng.choose(&keys) {
        Some(key) => key,
        None => match object::load_known(w).filter(|o| o.signs() && o.alg() != A::KEYEDHASH) {
            Some(key) => key,
            None => return,
        },
    };
    let (scheme, hash) = scheme_for(w, &key);
    let size = Alg(hash.0).size();
    let digest = w.rng.bytes(size);
    let Some(signature) = sign(w, &key, &both(digest.clone()), &scheme) else { return };
    for side in SIDES {
        let Some(public) = object::load_public(w, &key.public[side]) else { return };
        verify(w, &public, &digest, &both(signature[side].clone()));
        w.flush(public.entity.handle);
    }
}
