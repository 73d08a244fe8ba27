//! Sessions: started plain, bound, salted; found again; flushed.

use super::Generator;
use crate::bytes::{Bytes, Pair, SIDES, b2, both};
use crate::client::crypto::{Alg, SHA1, SHA256, SHA384, SHA512, Symmetric};
use crate::client::{Entity, Kind, Session};
use crate::model::Object;
use crate::world::World;
use vtpm_protocol::tpm::{TpmAlgId as A, TpmCc as C, TpmHandle, TpmaObject};

pub const GENERATORS: &[Generator] =
    &[(14, C::START_AUTH_SESSION, start_any), (4, C::POLICY_RESTART, restart)];

/// Makes room for one more session.
fn room(w: &mut World) {
    let loaded = w.model.loaded_sessions();
    if loaded.len() >= 3 && w.rng.chance(97) {
        let n = w.rng.pick(&loaded);
        if let Some(handle) = w.model.sessions.get(&n).map(|s| s.handle) {
            w.flush(handle);
        }
    }
}

/// A session of a kind, perhaps a new one, perhaps bound to an entity.
pub fn any(w: &mut World, kind: Kind, for_entity: Option<&Entity>) -> Option<u32> {
    let there: Vec<u32> = w.model.loaded_sessions();
    let fits: Vec<u32> =
        there.into_iter().filter(|n| w.model.sessions.get(n).is_some_and(|s| s.kind == kind)).collect();
    if w.rng.chance(75)
        && let Some(n) = w.rng.choose(&fits)
    {
        return Some(n);
    }
    let bind = for_entity.filter(|_| w.rng.chance(30)).cloned();
    start(w, kind, bind)
}

fn hash(w: &mut World) -> Alg {
    let all: Vec<Alg> =
        [SHA256, SHA256, SHA1, SHA384, SHA512].into_iter().filter(|a| w.common.algs.contains(&a.0)).collect();
    w.rng.pick(&all)
}

fn symmetric(w: &mut World) -> Symmetric {
    match w.rng.below(8) {
        0..=3 => Symmetric::Null,
        4 | 5 => Symmetric::Aes(128),
        6 => {
            let sizes: Vec<u16> = w.common.aes_bits.iter().copied().collect();
            Symmetric::Aes(w.rng.pick(&sizes))
        }
        _ => Symmetric::Xor(hash(w)),
    }
}

/// A salt, and it encrypted, for each side.
type Salt = (Pair<Vec<u8>>, Pair<Vec<u8>>);

fn salt(w: &mut World, key: &Object) -> Option<Salt> {
    match key.alg() {
        A::RSA => {
            let salt = w.rng.bytes(20);
            let parms = key.parms(0);
            let at = if crate::bytes::u16_at(parms, 0) == A::NULL.0 { 2 } else { 6 };
            let own = A(crate::bytes::u16_at(parms, at)) == A::OAEP;
            let hash = if own {
                crate::bytes::u16_at(parms, at + 2)
            } else {
                crate::bytes::u16_at(&key.public[0], 2)
            };
            let name_alg = Alg(hash);
            let encrypted = SIDES.map(|s| {
                let modulus = crate::bytes::nth_2b(
                    key.public[s].get(key.public[s].len() - 258..).unwrap_or_default(),
                    0,
                );
                rsa_public_operation(&modulus, &name_alg.oaep(b"SECRET\0", &salt, 256))
            });
            let [a, b] = encrypted;
            Some((both(salt), [a?, b?]))
        }
        A::ECC => {
            let name_alg = Alg(crate::bytes::u16_at(&key.public[0], 2));
            let ephemeral = w.rng.draw() as u8;
            let pairs = SIDES.map(|s| {
                let point = key.public[s].get(key.public[s].len() - 68..)?;
                let (x, y) = (crate::bytes::nth_2b(point, 0), crate::bytes::nth_2b(point, 1));
                ecdh_salt(name_alg, ephemeral, &x, &y)
            });
            let [a, b] = pairs;
            let ((sa, ea), (sb, eb)) = (a?, b?);
            Some(([sa, sb], [ea, eb]))
        }
        _ => None,
    }
}

fn rsa_public_operation(modulus: &[u8], block: &[u8]) -> Option<Vec<u8>> {
    use crypto_bigint::BoxedUint;
    let number = |bytes: &[u8]| BoxedUint::from_be_slice(bytes, 2048).ok();
    let key = rsa::RsaPublicKey::new(number(modulus)?, BoxedUint::from(65537u32)).ok()?;
    Some(rsa::hazmat::rsa_encrypt(&key, &number(block)?).ok()?.to_be_bytes().to_vec())
}

fn ecdh_salt(name_alg: Alg, ephemeral: u8, x: &[u8], y: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let secret = p256::SecretKey::from_slice(&crate::known_keys::scalar(ephemeral, 32)).ok()?;
    let public = p256::PublicKey::from_sec1_bytes(&[&[4], x, y].concat()).ok()?;
    let shared = p256::ecdh::diffie_hellman(secret.to_nonzero_scalar(), public.as_affine());
    let own = secret.public_key().to_sec1_bytes();
    let (own_x, own_y) = own.get(1..)?.split_at_checked(32)?;
    let salt = name_alg.kdfe(shared.raw_secret_bytes(), "SECRET", own_x, x);
    Some((salt, [b2(own_x), b2(own_y)].concat()))
}

fn salt_keys(w: &World) -> Vec<Object> {
    w.model.objects_that(|o| {
        let p256 = o.parms(0).get(4..6) == Some(&[0, 3]) || o.parms(0).get(8..10) == Some(&[0, 3]);
        o.has(TpmaObject::DECRYPT)
            && !o.has(TpmaObject::SIGN_ENCRYPT)
            && !o.public_only
            && (o.alg() == A::RSA && o.public[0].len() > 258 && o.parms(0).windows(2).any(|b| b == [8, 0])
                || o.alg() == A::ECC && p256)
    })
}

/// Starts a session of a kind.
pub fn start(w: &mut World, kind: Kind, bind: Option<Entity>) -> Option<u32> {
    room(w);
    let alg = hash(w);
    let symmetric = symmetric(w);
    let key = if w.rng.chance(15) { w.rng.choose(&salt_keys(w)) } else { None };
    let salted = key.and_then(|k| salt(w, &k).map(|s| (k, s)));
    start_with(w, kind, bind, alg, symmetric, salted)
}

/// A policy or trial session of a hash, neither bound nor salted.
pub fn plain(w: &mut World, kind: Kind, alg: Alg) -> Option<u32> {
    room(w);
    let symmetric = if kind == Kind::Trial { Symmetric::Null } else { symmetric(w) };
    start_with(w, kind, None, alg, symmetric, None)
}

fn start_with(
    w: &mut World,
    kind: Kind,
    bind: Option<Entity>,
    alg: Alg,
    symmetric: Symmetric,
    salted: Option<(Object, Salt)>,
) -> Option<u32> {
    let null = Entity::of_handle(TpmHandle::NULL.0, b"");
    let size = if w.rng.chance(80) { alg.size() } else { w.rng.between(16, alg.size()) };
    let nonce = w.rng.bytes(size);
    let (salt_key, salt, encrypted) = match salted {
        Some((key, (salt, encrypted))) => (key.entity, salt, encrypted),
        None => (null.clone(), both(vec![]), both(vec![])),
    };
    let bound_to = bind.clone().unwrap_or(null);
    let params =
        Bytes::new().b2(&nonce).b2_each(&encrypted).u8(kind as u8).raw(&symmetric.bytes()).u16(alg.0);
    let call = w.call(C::START_AUTH_SESSION, &[&salt_key, &bound_to], params);
    let reply = w.run(call)?;
    let nonce_tpm = reply.b2(0);
    let key = SIDES.map(|s| {
        let secret = [bound_to.auth.clone(), salt[s].clone()].concat();
        if bind.is_none() && salt[s].is_empty() {
            vec![]
        } else {
            alg.kdfa(&secret, "ATH", &nonce_tpm[s], &nonce, alg.size() * 8)
        }
    });
    Some(w.model.add_session(Session {
        handle: reply.handle,
        kind,
        alg,
        symmetric,
        key,
        nonce_tpm,
        bound: bind.filter(|_| kind == Kind::Hmac).map(|b| (b.name, b.auth)),
        auth_value_needed: false,
        password_needed: false,
        same_policy: true,
        audited: false,
    }))
}

fn start_any(w: &mut World) {
    let kind = w.rng.pick(&[Kind::Hmac, Kind::Hmac, Kind::Policy, Kind::Trial]);
    let object = w.rng.choose(&w.model.objects);
    let bind = if w.rng.chance(30) { object.map(|o| o.entity) } else { None };
    let n = start(w, kind, bind);
    if n.is_some() && w.rng.chance(10) {
        super::context::save_session(w, n.unwrap_or_default());
    }
}

fn restart(w: &mut World) {
    let sessions = w.model.loaded_sessions();
    let Some(n) = w.rng.choose(&sessions) else { return };
    let Some(handle) = w.model.sessions.get(&n).map(|s| s.handle) else { return };
    let call = w.call(C::POLICY_RESTART, &[&Entity::of_handles(handle)], Bytes::new());
    w.run(call);
}
