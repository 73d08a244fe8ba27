//! What is there on both sides, as far as the generator needs to know it to make good commands. The TPMs know the rest; a model that is wrong makes
//! commands that fail on both.

use crate::bytes::{Bytes, Pair, THEIRS, u16_at, u32_at};
use crate::client::{Entity, Session, Sessions};
use crate::generate::policy::Recipe;
use std::collections::BTreeMap;
use vtpm_protocol::tpm::{TpmAlgId, TpmHandle, TpmaNv, TpmaObject};

/// An object that is loaded or persistent.
#[derive(Clone, Debug)]
pub struct Object {
    /// Handle, Name, authorization value.
    pub entity: Entity,
    /// `TPMT_PUBLIC`.
    pub public: Pair<Vec<u8>>,
    /// How its policy is satisfied, where it has one.
    pub recipe: Option<Recipe>,
    /// The hierarchy.
    pub hierarchy: u32,
    /// Only the public part is loaded.
    pub public_only: bool,
    /// Made by `TPM2_LoadExternal`.
    pub external: bool,
}

impl Object {
    /// Its type.
    pub fn alg(&self) -> TpmAlgId {
        TpmAlgId(u16_at(&self.public[THEIRS], 0))
    }

    /// Its attributes.
    pub fn attributes(&self) -> TpmaObject {
        TpmaObject(u32_at(&self.public[THEIRS], 4))
    }

    /// Whether all of these are set.
    pub fn has(&self, attributes: TpmaObject) -> bool {
        self.attributes().has(attributes)
    }

    /// The algorithm-specific parameters and what follows them.
    pub fn parms(&self, side: usize) -> &[u8] {
        let policy = usize::from(u16_at(&self.public[side], 8));
        self.public[side].get(10 + policy..).unwrap_or_default()
    }

    /// Whether it can have children.
    pub fn is_parent(&self) -> bool {
        self.has(TpmaObject::RESTRICTED | TpmaObject::DECRYPT)
            && !self.public_only
            && !self.external
            && self.alg() != TpmAlgId::KEYEDHASH
    }

    /// Whether it is a key with a private part that signs.
    pub fn signs(&self) -> bool {
        self.has(TpmaObject::SIGN_ENCRYPT) && !self.public_only && self.alg() != TpmAlgId::SYMCIPHER
    }

    /// Whether it is transient.
    pub fn is_transient(&self) -> bool {
        self.entity.handle[THEIRS] >> 24 == 0x80
    }
}

/// What can be loaded below a parent.
#[derive(Clone, Debug)]
pub struct Blob {
    /// The parent's Name.
    pub parent: Pair<Vec<u8>>,
    /// The parent's hierarchy.
    pub hierarchy: u32,
    /// `TPM2B_PRIVATE` without its size.
    pub private: Pair<Vec<u8>>,
    /// `TPMT_PUBLIC`.
    pub public: Pair<Vec<u8>>,
    /// The authorization value.
    pub auth: Vec<u8>,
    /// See [`Object::recipe`].
    pub recipe: Option<Recipe>,
}

/// An NV index.
#[derive(Clone, Debug)]
pub struct Nv {
    /// Handle, Name, authorization value.
    pub entity: Entity,
    /// The attributes when it was defined.
    pub attributes: TpmaNv,
    /// Bytes of data.
    pub size: u16,
    /// See [`Object::recipe`].
    pub recipe: Option<Recipe>,
    /// The Name may be another by now.
    pub stale: bool,
}

/// A hash, HMAC or event sequence.
#[derive(Clone, Debug)]
pub struct Sequence {
    /// Handle and authorization value; the Name is empty.
    pub entity: Entity,
    /// What it gives is the same on both sides.
    pub known: bool,
    /// An event sequence: no hash algorithm.
    pub event: bool,
}

/// A context that was saved.
#[derive(Clone, Debug)]
pub enum Saved {
    /// Of an object.
    Object(Box<Object>, Bytes),
    /// Of a session, which has this number in [`Model::sessions`].
    Session(u32, Bytes),
    /// Of a sequence.
    Sequence(Sequence, Bytes),
}

/// All of it.
#[derive(Clone, Debug)]
pub struct Model {
    /// Authorization values and policies of permanent handles.
    pub permanent: BTreeMap<u32, (Vec<u8>, Option<Recipe>)>,
    /// Objects that can be used.
    pub objects: Vec<Object>,
    /// Objects that can be loaded.
    pub blobs: Vec<Blob>,
    /// NV indices.
    pub nv: Vec<Nv>,
    /// Sequences.
    pub sequences: Vec<Sequence>,
    /// Sessions, loaded or saved.
    pub sessions: Sessions,
    /// The numbers of the sessions that are saved and not loaded.
    pub away: Vec<u32>,
    /// Saved contexts.
    pub saved: Vec<Saved>,
    /// The authorization values of PCRs that have one.
    pub pcr_auth: BTreeMap<u32, Vec<u8>>,
    /// The parameters of the last `TPM2_PCR_Allocate`, which waits for a reset.
    pub allocation: Option<Bytes>,
    /// The number of the next session.
    pub next_session: u32,
    /// Policies that were made before, for reuse.
    pub recipes: Vec<Recipe>,
}

impl Default for Model {
    fn default() -> Self {
        let permanent = [
            TpmHandle::OWNER,
            TpmHandle::ENDORSEMENT,
            TpmHandle::PLATFORM,
            TpmHandle::LOCKOUT,
            TpmHandle::NULL,
        ];
        Self {
            permanent: permanent.map(|h| (h.0, (vec![], None))).into(),
            objects: vec![],
            blobs: vec![],
            nv: vec![],
            sequences: vec![],
            sessions: Sessions::new(),
            away: vec![],
            saved: vec![],
            pcr_auth: BTreeMap::new(),
            allocation: None,
            next_session: 0,
            recipes: vec![],
        }
    }
}

impl Model {
    /// A permanent handle with its authorization value.
    pub fn permanent(&self, handle: TpmHandle) -> Entity {
        let auth = self.permanent.get(&handle.0).map_or(vec![], |(auth, _)| auth.clone());
        Entity::of_handle(handle.0, &auth)
    }

    /// A PCR with its authorization value.
    pub fn pcr(&self, n: u32) -> Entity {
        Entity::of_handle(n, self.pcr_auth.get(&n).map_or(&[], |a| a))
    }

    /// Adds a session and returns its number.
    pub fn add_session(&mut self, session: Session) -> u32 {
        self.next_session += 1;
        self.sessions.insert(self.next_session, session);
        self.next_session
    }

    /// How the policy of an entity is satisfied.
    pub fn recipe(&self, handle: Pair<u32>) -> Option<Recipe> {
        let theirs = handle[THEIRS];
        let object = self.objects.iter().find(|o| o.entity.handle == handle).and_then(|o| o.recipe.clone());
        let nv = || self.nv.iter().find(|n| n.entity.handle == handle).and_then(|n| n.recipe.clone());
        let permanent = || self.permanent.get(&theirs).and_then(|(_, r)| r.clone());
        object.or_else(nv).or_else(permanent)
    }

    /// Objects that fit.
    pub fn objects_that(&self, fits: impl Fn(&Object) -> bool) -> Vec<Object> {
        self.objects.iter().filter(|o| fits(o)).cloned().collect()
    }

    /// The number of loaded objects and sequences.
    pub fn loaded_objects(&self) -> usize {
        self.objects.iter().filter(|o| o.is_transient()).count() + self.sequences.len()
    }

    /// The numbers of the sessions that are loaded.
    pub fn loaded_sessions(&self) -> Vec<u32> {
        self.sessions.keys().copied().filter(|n| !self.away.contains(n)).collect()
    }

    /// What is gone with the power.
    pub fn powered_off(&mut self) {
        self.objects.retain(|o| !o.is_transient());
        self.sequences.clear();
        self.allocation = None;
        let away = std::mem::take(&mut self.away);
        self.sessions.retain(|n, _| away.contains(n));
        self.away = away;
        self.nv.iter_mut().for_each(|n| n.stale = true);
    }
}
