//! Duplication: objects imported that are the same on both sides, objects that leave with their policy, and what one side made imported by both.

use super::{Generator, object, policy, templates};
use crate::bytes::{Bytes, SIDES, b2, both, nth_2b};
use crate::client::crypto::Alg;
use crate::client::{Auth, Entity, attr};
use crate::generate::policy::{Recipe, Step};
use crate::model::{Blob, Object};
use crate::world::World;
use vtpm_protocol::tpm::{TpmAlgId as A, TpmCc as C, TpmHandle as H, TpmaObject as O};

pub const GENERATORS: &[Generator] =
    &[(10, C::IMPORT, import_known), (10, C::DUPLICATE, duplicate), (4, C::REWRAP, rewrap)];

fn null_cipher() -> Vec<u8> {
    vec![0, 0x10]
}

/// Imports what stands in the open: no wrapper at all.
fn import_known(w: &mut World) {
    let Some(parent) = object::any_parent(w) else { return };
    let auth = object::any_auth(w);
    let (t, sensitive) =
        if w.rng.chance(35) { templates::known_parent(w) } else { templates::known(w, &auth) };
    let auth = if t.attributes.has(O::RESTRICTED | O::DECRYPT) { vec![] } else { auth };
    let blob = b2(&sensitive);
    let wrapped = w.rng.chance(20);
    let (key, inner) =
        if wrapped { (w.rng.bytes(16), templates::aes_cfb(128)) } else { (vec![], null_cipher()) };
    let blob = if wrapped { inner_wrapper(&key, &t, &sensitive) } else { blob };
    let params = Bytes::new().b2(&key).b2(&t.bytes()).b2(&blob).b2(&[]).raw(&inner);
    let call = w.call(C::IMPORT, &[&parent.entity], params);
    let Some(reply) = w.run(call) else { return };
    let blob = Blob {
        parent: parent.entity.name.clone(),
        hierarchy: parent.hierarchy,
        private: reply.b2(0),
        public: both(t.bytes()),
        auth: crate::effects::trimmed(&auth),
        recipe: None,
    };
    w.model.blobs.push(blob.clone());
    object::load(w, &parent, &blob);
}

/// Part 1, "Inner Duplication Wrapper": integrity and sensitive area, encrypted.
fn inner_wrapper(key: &[u8], t: &templates::Template, sensitive: &[u8]) -> Vec<u8> {
    let alg = Alg(t.name_alg.0);
    let name = object::name_of(&t.bytes());
    let sensitive = b2(sensitive);
    let mut all = [b2(&alg.hash(&[&sensitive, &name])), sensitive].concat();
    cfb(key, &mut all);
    all
}

fn cfb(key: &[u8], data: &mut [u8]) {
    use aes::cipher::{Block, BlockCipherEncrypt, KeyInit};
    let Ok(cipher) = aes::Aes128::new_from_slice(key) else { return };
    let mut feedback = Block::<aes::Aes128>::default();
    for chunk in data.chunks_mut(16) {
        cipher.encrypt_block(&mut feedback);
        chunk.iter_mut().zip(feedback.iter_mut()).for_each(|(d, f)| {
            *d ^= *f;
            *f = *d;
        });
    }
}

/// An object that may be duplicated, with the policy that allows it.
fn duplicable(w: &mut World) -> Option<(Object, Recipe)> {
    let fits = |o: &Object| {
        !o.public_only
            && !o.attributes().any(O::FIXED_PARENT)
            && o.recipe.as_ref().is_some_and(|r| r.steps.contains(&Step::CommandCode(C::DUPLICATE.0)))
    };
    let there = w.model.objects_that(fits);
    if w.rng.chance(60)
        && let Some(o) = w.rng.choose(&there)
        && let Some(r) = o.recipe.clone()
    {
        return Some((o, r));
    }
    let parent = object::any_parent(w)?;
    let mut t = match w.rng.below(3) {
        0 => templates::signing(w),
        1 => templates::sealed(w),
        _ => templates::decrypting(w),
    };
    t.attributes = t.attributes.with(O::ENCRYPTED_DUPLICATION, w.rng.chance(20) && !parent.has(O::FIXED_TPM));
    let recipe = policy::for_command(w, t.name_alg, C::DUPLICATE);
    t.policy.clone_from(&recipe.digest);
    let data = if t.attributes.has(O::SENSITIVE_DATA_ORIGIN) { vec![] } else { w.rng.bytes(24) };
    let params = Bytes::new().b2(&[b2(b""), b2(&data)].concat()).b2(&t.bytes()).b2(&[]).u32(0);
    let call = w.call(C::CREATE, &[&parent.entity], params);
    let reply = w.run(call)?;
    let blob = Blob {
        parent: parent.entity.name.clone(),
        hierarchy: parent.hierarchy,
        private: reply.b2(0),
        public: reply.b2(1),
        auth: vec![],
        recipe: Some(recipe.clone()),
    };
    let o = object::load(w, &parent, &blob)?;
    Some((o, recipe))
}

/// A parent that is the same on both sides, loaded or imported now.
fn same_parent(w: &mut World) -> Option<Object> {
    let same = |o: &Object| o.is_parent() && o.entity.name[0] == o.entity.name[1];
    let there = w.model.objects_that(same);
    if let Some(o) = w.rng.choose(&there) {
        return Some(o);
    }
    let root = w.model.objects_that(|o| o.is_parent() && !o.is_transient()).first().cloned()?;
    let (t, sensitive) = templates::known_parent(w);
    let params = Bytes::new().b2(&[]).b2(&t.bytes()).b2(&b2(&sensitive)).b2(&[]).raw(&null_cipher());
    let call = w.call(C::IMPORT, &[&root.entity], params);
    let reply = w.run(call)?;
    let blob = Blob {
        parent: root.entity.name.clone(),
        hierarchy: root.hierarchy,
        private: reply.b2(0),
        public: both(t.bytes()),
        auth: vec![],
        recipe: None,
    };
    object::load(w, &root, &blob)
}

fn duplicate(w: &mut World) {
    let Some((o, recipe)) = duplicable(w) else { return };
    let parent = if w.rng.chance(25) { None } else { same_parent(w) };
    let null = Entity::of_handle(H::NULL.0, b"");
    let new_parent = parent.as_ref().map_or(&null, |p| &p.entity).clone();
    let (key, cipher) = match w.rng.below(4) {
        0 => (w.rng.bytes(16), templates::aes_cfb(128)),
        1 => (vec![], templates::aes_cfb(128)),
        _ => (vec![], null_cipher()),
    };
    let Some(n) = policy::satisfied(w, &recipe) else { return };
    let params = Bytes::new().b2(&key).raw(&cipher);
    let mut call = w.call(C::DUPLICATE, &[&o.entity, &new_parent], params);
    call.auths = vec![Auth::Session(n, attr::CONTINUE)];
    let Some(reply) = w.run(call) else { return };
    let key = if key.is_empty() { reply.b2(0) } else { both(key) };
    // What each side gave away, both take in.
    let Some(parent) = parent else { return };
    for side in SIDES {
        let params = Bytes::new()
            .b2(&key[side])
            .b2(&o.public[side])
            .b2(&reply.b2(1)[side])
            .b2(&reply.b2(2)[side])
            .raw(&cipher);
        let call = w.call(C::IMPORT, &[&parent.entity], params);
        let Some(imported) = w.run(call) else { continue };
        let blob = Blob {
            parent: parent.entity.name.clone(),
            hierarchy: parent.hierarchy,
            private: imported.b2(0),
            public: both(o.public[side].clone()),
            auth: o.entity.auth.clone(),
            recipe: Some(recipe.clone()),
        };
        object::load(w, &parent, &blob);
    }
}

/// Duplicated to one parent, and on to another.
fn rewrap(w: &mut World) {
    let Some((o, recipe)) = duplicable(w) else { return };
    let Some(parent) = same_parent(w) else { return };
    let Some(n) = policy::satisfied(w, &recipe) else { return };
    let params = Bytes::new().b2(&[]).raw(&null_cipher());
    let mut call = w.call(C::DUPLICATE, &[&o.entity, &parent.entity], params);
    call.auths = vec![Auth::Session(n, attr::CONTINUE)];
    let Some(reply) = w.run(call) else { return };
    let parents = w.model.objects_that(|p| p.is_parent() && p.alg() == A::ECC);
    let Some(to) = w.rng.choose(&parents) else { return };
    let params = Bytes::new().b2_each(&reply.b2(1)).b2_each(&o.entity.name).b2_each(&reply.b2(2));
    let call = w.call(C::REWRAP, &[&parent.entity, &to.entity], params);
    let Some(rewrapped) = w.run(call) else { return };
    let seed = SIDES.map(|s| nth_2b(&rewrapped.params.0[s], 1));
    let params =
        Bytes::new().b2(&[]).b2_each(&o.public).b2_each(&rewrapped.b2(0)).b2_each(&seed).raw(&null_cipher());
    let call = w.call(C::IMPORT, &[&to.entity], params);
    w.run(call);
}
