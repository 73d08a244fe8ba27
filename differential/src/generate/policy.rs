//! Policies: recipes that make a digest and satisfy it again, and every policy command on its own.

use super::{Generator, object, pcr, session, signing};
use crate::bytes::{Bytes, Pair, SIDES, THEIRS, both, nth_2b};
use crate::client::crypto::Alg;
use crate::client::{Entity, Kind};
use crate::model::Object;
use crate::world::{Replies, World};
use vtpm_protocol::tpm::{TpmAlgId as A, TpmCc as C, TpmHandle as H};

pub const GENERATORS: &[Generator] = &[
    (6, C::POLICY_GET_DIGEST, make_recipe),
    (3, C::POLICY_AUTH_VALUE, |w| single(w, Step::AuthValue)),
    (3, C::POLICY_PASSWORD, |w| single(w, Step::Password)),
    (3, C::POLICY_COMMAND_CODE, |w| {
        let code = any_code(w);
        single(w, Step::CommandCode(code));
    }),
    (3, C::POLICY_PCR, |w| {
        let selection = pcr::selection(w);
        single(w, Step::Pcr(selection));
    }),
    (3, C::POLICY_LOCALITY, |w| {
        let bits = w.rng.draw() as u8;
        single(w, Step::Locality(bits));
    }),
    (2, C::POLICY_NV_WRITTEN, |w| {
        let set = w.rng.chance(50);
        single(w, Step::NvWritten(set));
    }),
    (2, C::POLICY_PHYSICAL_PRESENCE, |w| single(w, Step::PhysicalPresence)),
    (3, C::POLICY_OR, or_any),
    (3, C::POLICY_CP_HASH, |w| hash(w, C::POLICY_CP_HASH)),
    (3, C::POLICY_NAME_HASH, |w| hash(w, C::POLICY_NAME_HASH)),
    (3, C::POLICY_TEMPLATE, |w| hash(w, C::POLICY_TEMPLATE)),
    (3, C::POLICY_DUPLICATION_SELECT, duplication_select),
    (3, C::POLICY_COUNTER_TIMER, counter_timer),
    (5, C::POLICY_SECRET, secret),
    (5, C::POLICY_SIGNED, signed),
    (4, C::POLICY_AUTHORIZE, authorize),
    (4, C::POLICY_NV, nv),
    (3, C::POLICY_AUTHORIZE_NV, authorize_nv),
];

/// A policy command with what it takes, which does the same each time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    AuthValue,
    Password,
    CommandCode(u32),
    Locality(u8),
    Pcr(Vec<u8>),
    NvWritten(bool),
    PhysicalPresence,
    /// `TPM2_PolicySecret` of a hierarchy.
    Secret(u32),
    /// `TPM2_PolicyOR` of the digest so far with others.
    Or(Vec<Vec<u8>>),
}

/// Commands that make a policy, and the digest that comes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// The hash.
    pub alg: u16,
    /// The commands.
    pub steps: Vec<Step>,
    /// The digest.
    pub digest: Vec<u8>,
}

impl Recipe {
    /// Whether a command may be authorized with it, as far as the command code goes.
    pub fn fits(&self, code: u32) -> bool {
        self.steps.iter().all(|s| !matches!(s, Step::CommandCode(c) if *c != code))
    }
}

fn any_code(w: &mut World) -> u32 {
    let codes = [
        C::DUPLICATE,
        C::UNSEAL,
        C::SIGN,
        C::NV_READ,
        C::NV_WRITE,
        C::OBJECT_CHANGE_AUTH,
        C::NV_CHANGE_AUTH,
        C::NV_UNDEFINE_SPACE_SPECIAL,
        C::ACTIVATE_CREDENTIAL,
        C::CERTIFY,
        C::RSA_DECRYPT,
        C::LOAD,
        C::CREATE,
        C(0x7ff),
    ];
    w.rng.pick(&codes).0
}

/// A policy with the hash, made anew or known from before.
pub fn recipe(w: &mut World, alg: A) -> Option<Recipe> {
    let fits: Vec<Recipe> = w.model.recipes.iter().filter(|r| r.alg == alg.0).cloned().collect();
    if w.rng.chance(60)
        && let Some(r) = w.rng.choose(&fits)
    {
        return Some(r);
    }
    let n = w.rng.between(1, 3);
    let mut steps = Vec::new();
    for _ in 0..n {
        let step = match w.rng.below(12) {
            0..=2 => Step::AuthValue,
            3 => Step::Password,
            4 => Step::CommandCode(any_code(w)),
            5 | 6 => Step::Pcr(pcr::selection(w)),
            7 => Step::Locality(w.rng.pick(&[1, 3, 0x1f])),
            8 => Step::Secret(w.rng.pick(&[H::OWNER, H::ENDORSEMENT, H::PLATFORM, H::NULL]).0),
            9 => {
                let mut list = vec![w.rng.bytes(Alg(alg.0).size())];
                list.push(vec![]);
                Step::Or(list)
            }
            10 if w.rng.chance(30) => Step::NvWritten(w.rng.chance(50)),
            _ => Step::CommandCode(C::DUPLICATE.0),
        };
        if !matches!(step, Step::CommandCode(_)) || !steps.iter().any(|s| matches!(s, Step::CommandCode(_))) {
            steps.push(step);
        }
    }
    let n = session::plain(w, Kind::Trial, Alg(alg.0))?;
    for step in &mut steps {
        if let Step::Or(list) = step {
            // One branch is what the policy is at this point.
            let last = list.len() - 1;
            list[last] = digest(w, n)?;
        }
        perform(w, n, step)?;
    }
    let digest = digest(w, n)?;
    let handle = w.model.sessions.get(&n)?.handle;
    w.flush(handle);
    let recipe = Recipe { alg: alg.0, steps, digest };
    w.model.recipes.push(recipe.clone());
    Some(recipe)
}

fn make_recipe(w: &mut World) {
    let alg = super::templates::any_hash(w);
    recipe(w, alg);
}

/// The policy that a command code alone is asked for.
pub fn for_command(w: &mut World, alg: A, code: C) -> Recipe {
    let hash = Alg(alg.0);
    let zero = vec![0; hash.size()];
    let digest = hash.hash(&[&zero, &C::POLICY_COMMAND_CODE.0.to_be_bytes(), &code.0.to_be_bytes()]);
    let recipe = Recipe { alg: alg.0, steps: vec![Step::CommandCode(code.0)], digest };
    if !w.model.recipes.contains(&recipe) {
        w.model.recipes.push(recipe.clone());
    }
    recipe
}

/// A policy session that satisfies a policy.
pub fn satisfied(w: &mut World, recipe: &Recipe) -> Option<u32> {
    let n = session::plain(w, Kind::Policy, Alg(recipe.alg))?;
    for step in &recipe.steps {
        perform(w, n, step)?;
    }
    Some(n)
}

fn entity(w: &World, session: u32) -> Option<Entity> {
    w.model.sessions.get(&session).map(|s| Entity::of_handles(s.handle))
}

fn digest(w: &mut World, session: u32) -> Option<Vec<u8>> {
    let s = entity(w, session)?;
    let call = w.call(C::POLICY_GET_DIGEST, &[&s], Bytes::new());
    // One that is another on the other side is of no use.
    w.run(call).filter(|r| r.params.is_same()).map(|r| nth_2b(&r.params.0[THEIRS], 0))
}

fn perform(w: &mut World, session: u32, step: &Step) -> Option<Replies> {
    let s = entity(w, session)?;
    let call = match step {
        Step::AuthValue => w.call(C::POLICY_AUTH_VALUE, &[&s], Bytes::new()),
        Step::Password => w.call(C::POLICY_PASSWORD, &[&s], Bytes::new()),
        Step::PhysicalPresence => w.call(C::POLICY_PHYSICAL_PRESENCE, &[&s], Bytes::new()),
        Step::CommandCode(code) => w.call(C::POLICY_COMMAND_CODE, &[&s], Bytes::new().u32(*code)),
        Step::Locality(bits) => w.call(C::POLICY_LOCALITY, &[&s], Bytes::new().u8(*bits)),
        Step::NvWritten(set) => w.call(C::POLICY_NV_WRITTEN, &[&s], Bytes::new().u8(u8::from(*set))),
        Step::Pcr(selection) => w.call(C::POLICY_PCR, &[&s], Bytes::new().b2(&[]).raw(selection)),
        Step::Secret(handle) => {
            let authority = w.model.permanent(H(*handle));
            let params = Bytes::new().b2(&[]).b2(&[]).b2(&[]).u32(0);
            w.call(C::POLICY_SECRET, &[&authority, &s], params)
        }
        Step::Or(list) => {
            let digests: Vec<u8> = list.iter().flat_map(|d| crate::bytes::b2(d)).collect();
            w.call(C::POLICY_OR, &[&s], Bytes::new().u32(list.len() as u32).raw(&digests))
        }
    };
    w.run(call)
}

/// A policy or trial session, perhaps a new one.
fn any_session(w: &mut World) -> Option<u32> {
    let kind = w.rng.pick(&[Kind::Policy, Kind::Trial]);
    session::any(w, kind, None)
}

fn check(w: &mut World, session: u32) {
    if w.rng.chance(50) {
        digest(w, session);
    }
}

fn single(w: &mut World, step: Step) {
    let Some(n) = any_session(w) else { return };
    perform(w, n, &step);
    check(w, n);
}

fn size_of(w: &World, session: u32) -> usize {
    w.model.sessions.get(&session).map_or(32, |s| s.alg.size())
}

fn or_any(w: &mut World) {
    let Some(n) = any_session(w) else { return };
    let size = size_of(w, n);
    let count = w.rng.between(1, 9);
    let mut list: Vec<Vec<u8>> = (0..count).map(|_| w.rng.bytes(size)).collect();
    if w.rng.chance(70)
        && let Some(now) = digest(w, n)
    {
        let at = w.rng.below(count);
        list[at] = now;
    }
    perform(w, n, &Step::Or(list));
    check(w, n);
}

fn hash(w: &mut World, code: C) {
    let Some(n) = any_session(w) else { return };
    let Some(s) = entity(w, n) else { return };
    let size = if w.rng.chance(90) { size_of(w, n) } else { w.rng.between(0, 64) };
    let digest = if w.rng.chance(60) { vec![7; size] } else { w.rng.bytes(size) };
    let call = w.call(code, &[&s], Bytes::new().b2(&digest));
    w.run(call);
    check(w, n);
}

fn duplication_select(w: &mut World) {
    let Some(n) = any_session(w) else { return };
    let Some(s) = entity(w, n) else { return };
    let name = |w: &mut World| {
        let objects = w.model.objects.clone();
        w.rng.choose(&objects).map_or(both(vec![]), |o| o.entity.name)
    };
    let (object, parent) = (name(w), name(w));
    let include = w.rng.below(2) as u8;
    let params = Bytes::new().b2_each(&object).b2_each(&parent).u8(include);
    let call = w.call(C::POLICY_DUPLICATION_SELECT, &[&s], params);
    w.run(call);
    check(w, n);
}

fn counter_timer(w: &mut World) {
    let Some(n) = any_session(w) else { return };
    let Some(s) = entity(w, n) else { return };
    // Places and operands for which the clocks of both say the same.
    let operation = w.rng.below(13) as u16;
    let (operand, offset) = match w.rng.below(5) {
        0 => (vec![0; 8], 0),
        1 => (vec![0xff; 8], 0),
        2 => (vec![0xff; 8], 8),
        3 => (vec![0; 4], 26),
        _ => (vec![0; 4], 20),
    };
    let params = Bytes::new().b2(&operand).u16(offset).u16(operation);
    let call = w.call(C::POLICY_COUNTER_TIMER, &[&s], params);
    w.run(call);
    check(w, n);
}

/// What `TPM2_PolicySigned` and `TPM2_PolicySecret` take: nonceTPM, cpHashA, policyRef, expiration.
struct Limits {
    nonce: Pair<Vec<u8>>,
    cp_hash: Vec<u8>,
    policy_ref: Vec<u8>,
    expiration: u32,
}

impl Limits {
    fn any(w: &mut World, session: u32) -> Self {
        let none = both(vec![]);
        let nonce = w.model.sessions.get(&session).map_or(none.clone(), |s| s.nonce_tpm.clone());
        let size = size_of(w, session);
        let long = 0u32.wrapping_sub(100_000);
        Self {
            nonce: if w.rng.chance(50) { nonce } else { none },
            cp_hash: if w.rng.chance(20) { vec![7; size] } else { vec![] },
            policy_ref: if w.rng.chance(30) { b"reference".to_vec() } else { vec![] },
            expiration: w.rng.pick(&[0, 0, 100_000, long, long, 0x7fff_ffff, 0x8000_0000]),
        }
    }

    fn params(&self) -> Bytes {
        Bytes::new().b2_each(&self.nonce).b2(&self.cp_hash).b2(&self.policy_ref).u32(self.expiration)
    }

    /// What is signed, per side, with a hash.
    fn a_hash(&self, alg: Alg) -> Pair<Vec<u8>> {
        SIDES.map(|s| {
            alg.hash(&[&self.nonce[s], &self.expiration.to_be_bytes(), &self.cp_hash, &self.policy_ref])
        })
    }
}

/// Tries a ticket on a session of the same hash.
fn ticket(w: &mut World, limits: &Limits, authority: &Entity, reply: &Replies, alg: Alg) {
    let rest = SIDES.map(|s| {
        let mut rest = &reply.params.0[s][..];
        let timeout = crate::bytes::take_2b(&mut rest).unwrap_or_default().to_vec();
        (timeout, rest.to_vec())
    });
    let [(ta, ka), (tb, kb)] = rest;
    let Some(n) = session::plain(w, Kind::Policy, alg) else { return };
    let Some(s) = entity(w, n) else { return };
    let params = Bytes::new()
        .b2_each(&[ta, tb])
        .b2(&limits.cp_hash)
        .b2(&limits.policy_ref)
        .b2_each(&authority.name)
        .each(&[ka, kb]);
    let call = w.call(C::POLICY_TICKET, &[&s], params);
    w.run(call);
    check(w, n);
}

fn secret(w: &mut World) {
    let Some(n) = any_session(w) else { return };
    let Some(s) = entity(w, n) else { return };
    let limits = Limits::any(w, n);
    let objects = w.model.objects_that(|o| !o.public_only);
    let nv = w.model.nv.clone();
    let authority = match w.rng.below(4) {
        0 => w.rng.choose(&objects).map(|o| o.entity),
        1 => w.rng.choose(&nv).and_then(|i| super::nv::fresh(w, &i).map(|i| i.entity)),
        _ => {
            let h = w.rng.pick(&[H::OWNER, H::ENDORSEMENT, H::PLATFORM, H::LOCKOUT, H::NULL]);
            Some(w.model.permanent(h))
        }
    };
    let Some(authority) = authority else { return };
    let call = w.call(C::POLICY_SECRET, &[&authority, &s], limits.params());
    let reply = w.run(call);
    check(w, n);
    let alg = w.model.sessions.get(&n).map(|s| s.alg);
    if let (Some(reply), Some(alg)) = (reply, alg)
        && w.rng.chance(60)
    {
        ticket(w, &limits, &authority, &reply, alg);
    }
}

/// A key that signs, and a signature of a digest of each side with a hash.
fn signature(w: &mut World, make: impl Fn(Alg) -> Pair<Vec<u8>>) -> Option<(Object, Pair<Vec<u8>>)> {
    let keys = w.model.objects_that(|o| o.signs() && !o.has(vtpm_protocol::tpm::TpmaObject::RESTRICTED));
    let key = match w.rng.choose(&keys) {
        Some(key) => key,
        None => object::load_known(w).filter(Object::signs)?,
    };
    let (scheme, hash) = signing::scheme_for(w, &key);
    let signature = signing::sign(w, &key, &make(Alg(hash.0)), &scheme)?;
    Some((key, signature))
}

fn signed(w: &mut World) {
    let Some(n) = any_session(w) else { return };
    let limits = Limits::any(w, n);
    let Some((key, signature)) = signature(w, |alg| limits.a_hash(alg)) else { return };
    let Some(s) = entity(w, n) else { return };
    let params = limits.params().each(&signature);
    let call = w.call(C::POLICY_SIGNED, &[&key.entity, &s], params);
    let reply = w.run(call);
    check(w, n);
    let alg = w.model.sessions.get(&n).map(|s| s.alg);
    if let (Some(reply), Some(alg)) = (reply, alg)
        && w.rng.chance(60)
    {
        ticket(w, &limits, &key.entity, &reply, alg);
    }
}

fn authorize(w: &mut World) {
    let Some(n) = any_session(w) else { return };
    let Some(approved) = digest(w, n) else { return };
    let policy_ref: &[u8] = if w.rng.chance(30) { b"ref" } else { b"" };
    let made = |alg: Alg| both(alg.hash(&[&approved, policy_ref]));
    let Some((key, signature)) = signature(w, made) else { return };
    let null = [&[0x80, 0x22][..], &H::NULL.0.to_be_bytes(), &[0, 0]].concat();
    let mut ticket = both(null);
    let alg = Alg(crate::bytes::u16_at(&signature[THEIRS], 2));
    if w.rng.chance(85) {
        let params = Bytes::new().b2(&made(alg)[THEIRS]).each(&signature);
        let call = w.call(C::VERIFY_SIGNATURE, &[&key.entity], params);
        if let Some(reply) = w.run(call) {
            ticket = reply.params.0;
        }
    }
    let Some(s) = entity(w, n) else { return };
    let params = Bytes::new().b2(&approved).b2(policy_ref).b2_each(&key.entity.name).each(&ticket);
    let call = w.call(C::POLICY_AUTHORIZE, &[&s], params);
    w.run(call);
    check(w, n);
}

fn nv(w: &mut World) {
    let Some(n) = any_session(w) else { return };
    let indices = w.model.nv.clone();
    let Some(index) = w.rng.choose(&indices) else { return };
    let Some(index) = super::nv::fresh(w, &index) else { return };
    let Some(s) = entity(w, n) else { return };
    let size = w.rng.below(9);
    let operand = if w.rng.chance(50) { vec![0; size] } else { w.rng.bytes(size) };
    let offset = w.rng.pick(&[0u16, 0, 0, 1, 4, index.size]);
    let operation = w.rng.below(13) as u16;
    let authority = super::nv::authority(w, &index, false);
    let params = Bytes::new().b2(&operand).u16(offset).u16(operation);
    let call = w.call(C::POLICY_NV, &[&authority, &index.entity, &s], params);
    w.run(call);
    check(w, n);
}

/// A policy in an NV index is made the policy of a session.
fn authorize_nv(w: &mut World) {
    let Some(n) = any_session(w) else { return };
    let Some(approved) = digest(w, n) else { return };
    let Some(alg) = w.model.sessions.get(&n).map(|s| s.alg) else { return };
    let content = [&alg.0.to_be_bytes()[..], &approved].concat();
    let Some(index) = super::nv::holding(w, &content) else { return };
    let Some(s) = entity(w, n) else { return };
    let authority = super::nv::authority(w, &index, false);
    let call = w.call(C::POLICY_AUTHORIZE_NV, &[&authority, &index.entity, &s], Bytes::new());
    w.run(call);
    check(w, n);
}
