//! Objects: made, loaded, read, unsealed, evicted.

use super::{Generator, policy, templates};
use crate::bytes::{Bytes, b2, both, take_2b};
use crate::client::Entity;
use crate::client::crypto::Alg;
use crate::effects::trimmed;
use crate::generate::templates::Template;
use crate::model::{Blob, Object};
use crate::world::World;
use vtpm_protocol::tpm::{TpmAlgId as A, TpmCc as C, TpmHandle as H, TpmaObject as O};

pub const GENERATORS: &[Generator] = &[
    (7, C::CREATE_PRIMARY, create_primary_any),
    (20, C::CREATE, create_any),
    (18, C::LOAD, load_any),
    (24, C::LOAD_EXTERNAL, load_external_any),
    (8, C::READ_PUBLIC, read_public),
    (8, C::UNSEAL, unseal),
    (6, C::CREATE_LOADED, create_loaded),
    (5, C::OBJECT_CHANGE_AUTH, change_auth),
    (8, C::MAKE_CREDENTIAL, credential),
];

/// Makes room for one more object.
pub fn room(w: &mut World) {
    // One more, and one for a persistent key that a command works with.
    while w.model.loaded_objects() > 1 && w.rng.chance(99) {
        let objects = w.model.objects_that(Object::is_transient);
        let mut handles: Vec<_> = objects.iter().map(|o| o.entity.handle).collect();
        handles.extend(w.model.sequences.iter().map(|s| s.entity.handle));
        if let Some(handle) = w.rng.choose(&handles) {
            w.flush(handle);
        }
    }
}

/// An authorization value: short, long, empty, with zeros at its end.
pub fn any_auth(w: &mut World) -> Vec<u8> {
    match w.rng.below(10) {
        0..=5 => vec![],
        6 => b"ends in zeros\0\0".to_vec(),
        7 => {
            let n = w.rng.between(1, 34);
            w.rng.bytes(n)
        }
        _ => b"secret".to_vec(),
    }
}

/// The Name of a public area.
pub fn name_of(public: &[u8]) -> Vec<u8> {
    let alg = crate::bytes::u16_at(public, 2);
    if A(alg) == A::NULL { vec![] } else { [&alg.to_be_bytes()[..], &Alg(alg).hash(&[public])].concat() }
}

/// A persistent storage key that is always there, made quickly.
pub fn prepare(w: &mut World) {
    let template = templates::storage_root();
    if let Some(o) = create_primary(w, H::OWNER, &template, &[], &[]) {
        let owner = w.model.permanent(H::OWNER);
        let call = w.call(C::EVICT_CONTROL, &[&owner, &o.entity], Bytes::new().u32(0x8100_0001));
        w.run_good(call);
    }
}

fn any_template(w: &mut World) -> (Template, Option<policy::Recipe>) {
    let mut t = match w.rng.below(20) {
        0..=4 => templates::storage(w),
        5..=10 => templates::signing(w),
        11..=13 => templates::decrypting(w),
        14..=17 => templates::sealed(w),
        _ => templates::wild(w),
    };
    let recipe = if w.rng.chance(25) { policy::recipe(w, t.name_alg) } else { None };
    let admin = [C::CERTIFY, C::ACTIVATE_CREDENTIAL, C::OBJECT_CHANGE_AUTH];
    let recipe = if t.attributes.has(O::ADMIN_WITH_POLICY) && w.rng.chance(50) {
        let code = w.rng.pick(&admin);
        Some(policy::for_command(w, t.name_alg, code))
    } else {
        recipe
    };
    if let Some(r) = &recipe {
        t.policy.clone_from(&r.digest);
    }
    (t, recipe)
}

/// `TPM2B_SENSITIVE_CREATE`.
fn sensitive_create(auth: &[u8], data: &[u8]) -> Vec<u8> {
    b2(&[b2(auth), b2(data)].concat())
}

fn data_for(w: &mut World, t: &Template) -> Vec<u8> {
    if !templates::takes_data(t) && w.rng.chance(97) {
        return vec![];
    }
    let n = match t.alg {
        A::SYMCIPHER => 16,
        _ => w.rng.pick(&[1, 8, 16, 32, 64, 127, 128, 128, 129]),
    };
    w.rng.bytes(n)
}

fn creation_pcr(w: &mut World) -> Vec<u8> {
    if w.rng.chance(60) { vec![0; 4] } else { super::pcr::selection(w) }
}

fn create_primary(w: &mut World, hierarchy: H, t: &Template, auth: &[u8], data: &[u8]) -> Option<Object> {
    room(w);
    let parent = w.model.permanent(hierarchy);
    let size = w.rng.below(40);
    let info = w.rng.bytes(size);
    let pcr = creation_pcr(w);
    let params = Bytes::new().raw(&sensitive_create(auth, data)).b2(&t.bytes()).b2(&info).raw(&pcr);
    let call = w.call(C::CREATE_PRIMARY, &[&parent], params);
    let reply = w.run(call)?;
    let public = reply.b2(0);
    let name = [name_of(&public[0]), name_of(&public[1])];
    let object = Object {
        entity: Entity { handle: reply.handle, name, auth: trimmed(auth) },
        public,
        recipe: None,
        hierarchy: hierarchy.0,
        public_only: false,
        external: false,
    };
    w.model.objects.push(object.clone());
    Some(object)
}

fn create_primary_any(w: &mut World) {
    let hierarchy = w.rng.pick(&[H::OWNER, H::OWNER, H::ENDORSEMENT, H::PLATFORM, H::NULL]);
    let (mut t, recipe) = any_template(w);
    if w.rng.chance(70) {
        t.attributes = t.attributes | templates::FIXED;
    }
    let auth = any_auth(w);
    let data = data_for(w, &t);
    if let Some(o) = create_primary(w, hierarchy, &t, &auth, &data) {
        note_recipe(w, &o, recipe);
        if w.rng.chance(12) {
            persist(w, &o);
        }
        if w.rng.chance(20) {
            // What it is called, both remember alike.
            let call = w.call(C::READ_PUBLIC, &[&o.entity], Bytes::new());
            w.run(call);
        }
    }
}

fn note_recipe(w: &mut World, o: &Object, recipe: Option<policy::Recipe>) {
    if let Some(last) = w.model.objects.iter_mut().rev().find(|p| p.entity.handle == o.entity.handle) {
        last.recipe = recipe;
    }
}

fn persist(w: &mut World, o: &Object) {
    let n = w.rng.below(6) as u32;
    let (hierarchy, base) =
        if o.hierarchy == H::PLATFORM.0 { (H::PLATFORM, 0x8180_0000) } else { (H::OWNER, 0x8100_0002) };
    let provision = w.model.permanent(hierarchy);
    let call = w.call(C::EVICT_CONTROL, &[&provision, &o.entity], Bytes::new().u32(base + n));
    w.run(call);
}

/// A parent: of the known ones, or any.
pub fn any_parent(w: &mut World) -> Option<Object> {
    let parents = w.model.objects_that(Object::is_parent);
    w.rng.choose(&parents)
}

fn create_any(w: &mut World) {
    let Some(parent) = any_parent(w) else { return };
    let (mut t, recipe) = any_template(w);
    if parent.has(O::FIXED_TPM) {
        let fixed = w.rng.below(10);
        if fixed < 5 {
            t.attributes = t.attributes | templates::FIXED;
        } else if fixed < 7 {
            t.attributes = t.attributes | O::FIXED_PARENT;
        }
    } else if w.rng.chance(30) {
        t.attributes = t.attributes | O::FIXED_PARENT;
    }
    create(w, &parent, &t, recipe);
}

fn create(w: &mut World, parent: &Object, t: &Template, recipe: Option<policy::Recipe>) -> Option<Blob> {
    room(w);
    let auth = any_auth(w);
    let data = data_for(w, t);
    let pcr = creation_pcr(w);
    let info = w.rng.bytes(4);
    let params = Bytes::new().raw(&sensitive_create(&auth, &data)).b2(&t.bytes()).b2(&info).raw(&pcr);
    let call = w.call(C::CREATE, &[&parent.entity], params);
    let reply = w.run(call)?;
    let blob = Blob {
        parent: parent.entity.name.clone(),
        hierarchy: parent.hierarchy,
        private: reply.b2(0),
        public: reply.b2(1),
        auth: trimmed(&auth),
        recipe,
    };
    w.model.blobs.push(blob.clone());
    if w.model.blobs.len() > 24 {
        w.model.blobs.remove(0);
    }
    let rest = reply.params.0.clone().map(|p| {
        let mut rest = &p[..];
        for _ in 0..3 {
            let _ = take_2b(&mut rest);
        }
        rest.to_vec()
    });
    if w.rng.chance(50)
        && let Some(object) = load(w, parent, &blob)
    {
        super::attestation::certify_creation(w, &object, &rest);
    }
    Some(blob)
}

/// Loads below a parent.
pub fn load(w: &mut World, parent: &Object, blob: &Blob) -> Option<Object> {
    room(w);
    let params = Bytes::new().b2_each(&blob.private).b2_each(&blob.public);
    let call = w.call(C::LOAD, &[&parent.entity], params);
    let reply = w.run(call)?;
    let object = Object {
        entity: Entity { handle: reply.handle, name: reply.b2(0), auth: blob.auth.clone() },
        public: blob.public.clone(),
        recipe: blob.recipe.clone(),
        hierarchy: parent.hierarchy,
        public_only: false,
        external: false,
    };
    w.model.objects.push(object.clone());
    Some(object)
}

fn load_any(w: &mut World) {
    let blobs: Vec<Blob> = w.model.blobs.clone();
    let Some(blob) = w.rng.choose(&blobs) else { return };
    let parents = w.model.objects_that(|o| o.is_parent() && o.entity.name == blob.parent);
    let Some(parent) = w.rng.choose(&parents) else { return };
    if let Some(o) = load(w, &parent, &blob)
        && w.rng.chance(12)
    {
        persist(w, &o);
    }
}

fn load_external_any(w: &mut World) {
    if w.rng.chance(20) {
        // The public part of what one of the sides has.
        let side = w.rng.below(2);
        let objects = w.model.objects.clone();
        if let Some(o) = w.rng.choose(&objects) {
            load_public(w, &o.public[side]);
        }
        return;
    }
    load_known(w);
}

/// The public part of an object alone.
pub fn load_public(w: &mut World, public: &[u8]) -> Option<Object> {
    let hierarchy = w.rng.pick(&[H::OWNER, H::NULL, H::ENDORSEMENT, H::PLATFORM]);
    load_external(w, public, &[], hierarchy, &[])
}

/// A key that is the same on both sides.
pub fn load_known(w: &mut World) -> Option<Object> {
    let auth = any_auth(w);
    let (mut t, sensitive) = templates::known(w, &auth);
    let recipe = if w.rng.chance(20) { policy::recipe(w, t.name_alg) } else { None };
    if let Some(r) = &recipe {
        t.policy.clone_from(&r.digest);
    }
    let sensitive = if w.rng.chance(90) { sensitive } else { vec![] };
    let hierarchy = if sensitive.is_empty() && w.rng.chance(80) { H::OWNER } else { H::NULL };
    let o = load_external(w, &t.bytes(), &sensitive, hierarchy, &auth)?;
    note_recipe(w, &o, recipe);
    Some(o)
}

fn load_external(
    w: &mut World,
    public: &[u8],
    sensitive: &[u8],
    hierarchy: H,
    auth: &[u8],
) -> Option<Object> {
    room(w);
    let params = Bytes::new().b2(sensitive).b2(public).u32(hierarchy.0);
    let call = w.call(C::LOAD_EXTERNAL, &[], params);
    let reply = w.run(call)?;
    let public_only = sensitive.is_empty();
    let object = Object {
        entity: Entity {
            handle: reply.handle,
            name: reply.b2(0),
            auth: if public_only { vec![] } else { trimmed(auth) },
        },
        public: both(public.to_vec()),
        recipe: None,
        hierarchy: hierarchy.0,
        public_only,
        external: true,
    };
    w.model.objects.push(object.clone());
    Some(object)
}

fn any_object(w: &mut World) -> Option<Object> {
    let objects = w.model.objects.clone();
    w.rng.choose(&objects)
}

fn read_public(w: &mut World) {
    let Some(o) = any_object(w) else { return };
    let call = w.call(C::READ_PUBLIC, &[&o.entity], Bytes::new());
    w.run(call);
}

fn unseal(w: &mut World) {
    let is_data = |o: &Object| {
        o.alg() == A::KEYEDHASH
            && !o.attributes().any(O::SIGN_ENCRYPT | O::DECRYPT | O::RESTRICTED)
            && !o.public_only
    };
    let data = w.model.objects_that(is_data);
    let o = if data.is_empty() {
        let Some(parent) = any_parent(w) else { return };
        let mut t = templates::sealed(w);
        let recipe = if w.rng.chance(40) { policy::recipe(w, t.name_alg) } else { None };
        if let Some(r) = &recipe {
            t.policy.clone_from(&r.digest);
        }
        let Some(blob) = create(w, &parent, &t, recipe) else { return };
        load(w, &parent, &blob)
    } else if w.rng.chance(90) {
        w.rng.choose(&data)
    } else {
        any_object(w)
    };
    let Some(o) = o else { return };
    let call = w.call(C::UNSEAL, &[&o.entity], Bytes::new());
    w.run(call);
}

fn create_loaded(w: &mut World) {
    room(w);
    let auth = any_auth(w);
    let (t, recipe) = any_template(w);
    let data = data_for(w, &t);
    let hierarchies = [H::OWNER, H::NULL, H::PLATFORM, H::ENDORSEMENT];
    let parent = any_parent(w).filter(|_| w.rng.chance(60));
    let (entity, hierarchy) = match &parent {
        Some(o) => (o.entity.clone(), o.hierarchy),
        None => {
            let h = w.rng.pick(&hierarchies);
            (w.model.permanent(h), h.0)
        }
    };
    let params = Bytes::new().raw(&sensitive_create(&auth, &data)).b2(&t.bytes());
    let call = w.call(C::CREATE_LOADED, &[&entity], params);
    let Some(reply) = w.run(call) else { return };
    w.model.objects.push(Object {
        entity: Entity { handle: reply.handle, name: reply.b2(2), auth: trimmed(&auth) },
        public: reply.b2(1),
        recipe,
        hierarchy,
        public_only: false,
        external: false,
    });
}

fn change_auth(w: &mut World) {
    let children = w.model.objects_that(|o| !o.public_only && !o.external && o.is_transient());
    let Some(o) = w.rng.choose(&children) else { return };
    let blobs = w.model.blobs.clone();
    let blob = blobs.iter().find(|b| b.public == o.public);
    let parents = w.model.objects_that(|p| p.is_parent() && blob.is_none_or(|b| b.parent == p.entity.name));
    let Some(parent) = w.rng.choose(&parents) else { return };
    let auth = any_auth(w);
    let call = w.call(C::OBJECT_CHANGE_AUTH, &[&o.entity, &parent.entity], Bytes::new().b2(&auth));
    if let Some(reply) = w.run(call)
        && let Some(blob) = blob
    {
        w.model.blobs.push(Blob { private: reply.b2(0), auth: trimmed(&auth), ..blob.clone() });
    }
}

/// A credential is made for a key and activated.
fn credential(w: &mut World) {
    let keys =
        w.model.objects_that(|o| o.has(O::RESTRICTED | O::DECRYPT) && matches!(o.alg(), A::RSA | A::ECC));
    let Some(key) = (if w.rng.chance(90) { w.rng.choose(&keys) } else { any_object(w) }) else { return };
    let Some(o) = any_object(w) else { return };
    let size = w.rng.between(1, 32);
    let secret = w.rng.bytes(size);
    let params = Bytes::new().b2(&secret).b2_each(&o.entity.name);
    let call = w.call(C::MAKE_CREDENTIAL, &[&key.entity], params);
    let Some(reply) = w.run(call) else { return };
    let params = Bytes::new().b2_each(&reply.b2(0)).b2_each(&reply.b2(1));
    let call = w.call(C::ACTIVATE_CREDENTIAL, &[&o.entity, &key.entity], params);
    w.run(call);
}
