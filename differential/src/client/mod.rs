//! A TPM's client that does the same on both sides: it knows handles, Names and nonces of each, makes the HMACs, and checks those that come back.

mod commands;
#[path = "../../../engine/tests/sessions/crypto.rs"]
#[allow(
    missing_docs,
    dead_code,
    reason = "the client's cryptography of the engine's own tests, which use all of it"
)]
pub mod crypto;
mod wire;

pub use commands::{Shape, shape};
pub use wire::{Reply, Sent, build, read};

use crate::bytes::{Bytes, Pair, both};
use crypto::{Alg, Symmetric};
use std::collections::BTreeMap;

/// Something with a handle, a Name and an authorization value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entity {
    /// The handle.
    pub handle: Pair<u32>,
    /// The Name.
    pub name: Pair<Vec<u8>>,
    /// The authorization value.
    pub auth: Vec<u8>,
}

impl Entity {
    /// What is its own Name: a permanent handle, a PCR, a session.
    pub fn of_handle(handle: u32, auth: &[u8]) -> Self {
        Self { handle: both(handle), name: both(handle.to_be_bytes().to_vec()), auth: auth.to_vec() }
    }

    /// As [`Self::of_handle`], where the sides may differ.
    pub fn of_handles(handle: Pair<u32>) -> Self {
        Self { handle, name: handle.map(|h| h.to_be_bytes().to_vec()), auth: vec![] }
    }
}

/// What a session is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `TPM_SE_HMAC`.
    Hmac = 0,
    /// `TPM_SE_POLICY`.
    Policy = 1,
    /// `TPM_SE_TRIAL`.
    Trial = 3,
}

/// The client's side of a session.
#[derive(Clone, Debug)]
pub struct Session {
    /// Its handle.
    pub handle: Pair<u32>,
    /// What it is for.
    pub kind: Kind,
    /// Its hash.
    pub alg: Alg,
    /// Its cipher of parameter encryption.
    pub symmetric: Symmetric,
    /// The session key.
    pub key: Pair<Vec<u8>>,
    /// The last nonce of the TPM.
    pub nonce_tpm: Pair<Vec<u8>>,
    /// Name and authorization value of the entity that it is bound to.
    pub bound: Option<(Pair<Vec<u8>>, Vec<u8>)>,
    /// A policy session whose policy wants the authorization value.
    pub auth_value_needed: bool,
    /// A policy session whose policy wants the password in the clear.
    pub password_needed: bool,
    /// Nothing went into its policy digest that differs from side to side.
    pub same_policy: bool,
    /// It has been used for audit.
    pub audited: bool,
}

impl Session {
    /// Whether it is a policy session, a trial one or not.
    pub fn is_policy(&self) -> bool {
        self.kind != Kind::Hmac
    }

    fn includes_auth(&self, side: usize, entity: &Entity) -> bool {
        if self.is_policy() {
            return self.auth_value_needed;
        }
        !self
            .bound
            .as_ref()
            .is_some_and(|(name, auth)| name[side] == entity.name[side] && *auth == entity.auth)
    }
}

/// The sessions by numbers of our own.
pub type Sessions = BTreeMap<u32, Session>;

/// Session attributes.
pub mod attr {
    /// `continueSession`
    pub const CONTINUE: u8 = 1;
    /// `auditExclusive`
    pub const EXCLUSIVE: u8 = 2;
    /// `auditReset`
    pub const RESET: u8 = 4;
    /// `decrypt`
    pub const DECRYPT: u8 = 0x20;
    /// `encrypt`
    pub const ENCRYPT: u8 = 0x40;
    /// `audit`
    pub const AUDIT: u8 = 0x80;
}

/// One entry of the authorization area.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// A password.
    Password(Vec<u8>),
    /// A session by our number, with attributes.
    Session(u32, u8),
}

/// A change of the bytes of a command after they are put together, the same on both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Overwrites bytes.
    Put(usize, Vec<u8>),
    /// Flips bits of one byte, which may differ from side to side.
    Flip(usize, u8),
    /// Removes bytes.
    Cut(usize, usize),
    /// Inserts bytes.
    Insert(usize, Vec<u8>),
}

impl Edit {
    /// Does it, as far as there are bytes.
    pub fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Put(at, new) => bytes.iter_mut().skip(*at).zip(new).for_each(|(b, n)| *b = *n),
            Self::Flip(at, bits) => bytes.iter_mut().skip(*at).take(1).for_each(|b| *b ^= bits),
            Self::Cut(at, n) => drop(bytes.drain((*at).min(bytes.len())..(at + n).min(bytes.len()))),
            Self::Insert(at, new) => {
                drop(bytes.splice((*at).min(bytes.len())..(*at).min(bytes.len()), new.clone()))
            }
        }
    }
}

/// A command for both sides. The first `authorized` of the handles take the first entries of `auths`.
#[derive(Clone, Debug, Default)]
pub struct Call {
    /// The command code.
    pub code: u32,
    /// The handles.
    pub handles: Vec<Entity>,
    /// How many of the handles need authorization.
    pub authorized: usize,
    /// The authorization area.
    pub auths: Vec<Auth>,
    /// The parameters.
    pub params: Bytes,
    /// The response has a handle.
    pub returns_handle: bool,
    /// What the authorization value of the first handle is after the command, where it changes it.
    pub new_auth: Option<Vec<u8>>,
    /// Changes of the whole command, header included, after HMACs were made.
    pub edits: Vec<Edit>,
    /// What was changed to make it wrong, for those who read and for the table of accepted differences; empty for a good command.
    pub mutation: String,
    /// The results do not depend on what the sides made up at random.
    pub known: bool,
}
