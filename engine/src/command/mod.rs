//! What a command is: a row of the [`table`], with its handles, attributes and handler.

// The chapters of Part 3 in their order. 27 (field upgrade) and 32 (attached components) have no command here.

// 9: start-up and shutdown.
pub mod startup;
// 10: self-tests, and which parameters are supported.
pub mod testing;
// 11: sessions begin, and policies anew.
pub mod session;
// 12: objects are made and loaded; credentials for them.
pub mod object;
// 13: objects move from parent to parent.
pub mod duplication;
// 14 and 19: RSA and ECC encryption, key exchange, commitments.
pub mod asymmetric;
// 15: ciphers, hashes and MACs in one go.
pub mod symmetric;
// 16: random numbers.
pub mod random;
// 17: hashes and MACs in several commands.
pub mod sequences;
// 18: signed statements about what is in the TPM.
pub mod attestation;
// 20: signatures are made and verified.
pub mod signature;
// 21: which commands are audited.
pub mod audit;
// 22: PCRs.
pub mod pcr;
// 23: what a policy session asserts.
pub mod policy;
// 24: hierarchies, their primary objects and authorizations.
pub mod hierarchy;
// 25: the lockout.
pub mod dictionary_attack;
// 26: physical presence and the set of algorithms.
pub mod misc;
// 28: contexts are saved and loaded, objects made persistent.
pub mod context;
// 29 and 33: clocks and timers.
pub mod clock;
// 30: what there is in this TPM.
pub mod capability;
// 31: NV indices.
pub mod nv;
// Our own: the TPMs of the tree below this one.
pub mod instance;

pub mod table;

#[cfg(test)]
mod damaged;
#[cfg(test)]
mod whole;

use crate::crypto::RandomSource;
use crate::env::Environment;
use crate::execute::Sessions;
use crate::state::State;
use vtpm_protocol::codec::{Decode, Encode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{TpmCc, TpmHandle};

/// Which handles a position of the handle area takes: the interface types of Part 2, chapter 9.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HandleKind {
    /// `TPMI_DH_OBJECT`: transient or persistent.
    Object,
    /// `TPMI_DH_OBJECT+`: also `TPM_RH_NULL`.
    ObjectOrNull,
    /// `TPMI_DH_PARENT+`: an object, or a hierarchy with its primary seed, null included.
    ParentOrNull,
    /// `TPMI_DH_ENTITY`: whatever can be authorized.
    Entity,
    /// `TPMI_DH_ENTITY+`: whatever can be authorized, or null.
    EntityOrNull,
    /// `TPMI_DH_PCR`.
    Pcr,
    /// `TPMI_DH_PCR+`: also `TPM_RH_NULL`.
    PcrOrNull,
    /// `TPMI_SH_HMAC`.
    HmacSession,
    /// `TPMI_SH_POLICY`.
    PolicySession,
    /// `TPMI_DH_CONTEXT`: an object or session that is saved.
    Context,
    /// `TPMI_RH_HIERARCHY+`: owner, endorsement, platform, null.
    HierarchyOrNull,
    /// `TPMI_RH_BASE_HIERARCHY`: owner, endorsement, platform.
    BaseHierarchy,
    /// `TPMI_RH_ACT`: an authenticated countdown timer, of which there is one.
    Act,
    /// `TPMI_RH_HIERARCHY_AUTH`: owner, endorsement, platform, lockout.
    HierarchyAuth,
    /// `TPMI_RH_HIERARCHY_POLICY`: owner, endorsement, platform, lockout, or an authenticated countdown timer.
    HierarchyPolicy,
    /// `TPMI_RH_PROVISION`: owner or platform.
    Provision,
    /// `TPMI_RH_CLEAR`: lockout or platform.
    Clear,
    /// `TPMI_RH_OWNER`.
    Owner,
    /// `TPMI_RH_PLATFORM`.
    Platform,
    /// `TPMI_RH_ENDORSEMENT`.
    Endorsement,
    /// `TPMI_RH_LOCKOUT`.
    Lockout,
    /// `TPMI_RH_NV_AUTH`: owner, platform, or an NV index.
    NvAuth,
    /// `TPMI_RH_NV_INDEX`.
    NvIndex,
    /// An instance of the tree; our own.
    Instance,
}

/// The authorization role of a handle (Part 1, "Authorization Roles").
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// No authorization.
    None,
    /// USER.
    User,
    /// ADMIN.
    Admin,
    /// DUP.
    Dup,
}

/// One handle of a command.
#[derive(Clone, Copy, Debug)]
pub struct HandleSpec {
    /// What it may be.
    pub kind: HandleKind,
    /// How it is authorized.
    pub role: Role,
}

/// A handler: reads the parameters and does the work.
pub type Handler = fn(&mut Context<'_>, &mut Reader<'_>) -> Result<Output, ResponseCode>;

/// A check between the authorization of the first handle and that of the second.
pub type MiddleCheck = fn(&mut Context<'_>) -> Result<(), ResponseCode>;

/// One row of the command table.
pub struct Command {
    /// The code.
    pub code: TpmCc,
    /// The handles.
    pub handles: &'static [HandleSpec],
    /// What is true of it.
    pub flags: Flags,
    /// The handler.
    pub run: Handler,
    /// See [`MiddleCheck`].
    pub middle: Option<MiddleCheck>,
}

/// What is true of a command; the defaults are those of most.
#[derive(Clone, Copy, Debug)]
pub struct Flags {
    /// `TPMA_CC.nv`: it may write NV.
    pub nv: bool,
    /// `TPMA_CC.extensive`.
    pub extensive: bool,
    /// `TPMA_CC.flushed`.
    pub flushed: bool,
    /// It returns a handle.
    pub r_handle: bool,
    /// The first parameter is a `TPM2B` and may be encrypted.
    pub decrypt: bool,
    /// The first response parameter is a `TPM2B` and may be encrypted.
    pub encrypt: bool,
    /// It may have sessions.
    pub sessions: bool,
    /// It writes to the NV index that it names (Part 1, "NV Index authorization").
    pub nv_write: bool,
    /// The key that it names may be a public key; its authorization value is then the Empty Buffer.
    pub public_key_authorizes: bool,
}

impl Flags {
    /// Nothing special, sessions allowed.
    pub const NONE: Self = Self {
        nv: false,
        extensive: false,
        flushed: false,
        r_handle: false,
        decrypt: false,
        encrypt: false,
        sessions: true,
        nv_write: false,
        public_key_authorizes: false,
    };
}

/// What a handler returns: a handle where the command has one, and the response parameters.
pub struct Output {
    /// The handle.
    pub handle: Option<TpmHandle>,
    /// The parameters.
    pub parameters: Vec<u8>,
}

impl Output {
    /// Nothing but success.
    #[must_use]
    pub const fn none() -> Self {
        Self { handle: None, parameters: Vec::new() }
    }

    /// Parameters.
    pub fn of(parameters: &impl Encode) -> Self {
        Self { handle: None, parameters: parameters.to_bytes() }
    }

    /// A handle and parameters.
    pub fn with_handle(handle: TpmHandle, parameters: &impl Encode) -> Self {
        Self { handle: Some(handle), parameters: parameters.to_bytes() }
    }
}

/// What a handler works with. All it changes is in `state`, which is dropped when it fails.
pub struct Context<'a> {
    /// The state, to be changed freely.
    pub state: &'a mut State,
    /// The world.
    pub env: &'a mut dyn Environment,
    /// The locality of the command.
    pub locality: u8,
    /// The environment's time at which the command began, in milliseconds.
    pub now: u64,
    /// The handles in order.
    pub handles: Vec<TpmHandle>,
    /// The sessions of the command, after their check.
    pub sessions: Sessions,
    /// The command's row.
    pub command: &'static Command,
    /// A test of the cryptography failed, which is remembered although the command fails.
    pub test_failed: bool,
}

impl Context<'_> {
    /// Handle `n`, counted from 0. The handle area is decoded before any handler runs; a handler that asks for a handle
    /// that its row does not have gets `TPM_RC_FAILURE`.
    ///
    /// # Errors
    /// See above.
    pub fn handle(&self, n: usize) -> Result<TpmHandle, ResponseCode> {
        self.handles.get(n).copied().ok_or(ResponseCode::FAILURE)
    }

    /// Random bytes.
    pub fn random<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        self.env.fill_random(&mut out);
        out
    }
}

/// The environment as a source of randomness for [`crate::crypto`].
pub struct EnvRandom<'a>(pub &'a mut dyn Environment);

impl RandomSource for EnvRandom<'_> {
    fn fill(&mut self, out: &mut [u8]) {
        self.0.fill_random(out);
    }

    fn is_canceled(&mut self) -> bool {
        self.0.is_canceled()
    }
}

/// A source of other bytes than the environment's, such as the stream of a primary seed, that can be called off all the same.
pub struct Cancelable<'a, S> {
    /// Where the bytes come from.
    pub source: S,
    /// Who calls it off.
    pub env: &'a mut dyn Environment,
}

impl<S: RandomSource> RandomSource for Cancelable<'_, S> {
    fn fill(&mut self, out: &mut [u8]) {
        self.source.fill(out);
    }

    fn is_canceled(&mut self) -> bool {
        self.env.is_canceled()
    }
}

/// Command parameters: decoded in order, errors numbered, nothing left over.
pub trait Parameters: Sized {
    /// Decodes all.
    ///
    /// # Errors
    /// What decoding says with the number of the parameter; `TPM_RC_SIZE` for bytes too many.
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode>;
}

/// Decodes the parameters of a command; see [`Parameters`].
///
/// # Errors
/// As [`Parameters::decode`].
pub fn parameters<T: Parameters>(r: &mut Reader<'_>) -> Result<T, ResponseCode> {
    let all = T::decode(r)?;
    if r.is_empty() { Ok(all) } else { Err(ResponseCode::SIZE) }
}

macro_rules! parameter_tuples {
    ($(($($n:ident = $i:literal),*))*) => {$(
        impl<$($n: Decode),*> Parameters for ($($n,)*) {
            fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
                let _ = &r;
                Ok(($($n::decode(r).map_err(|e| e.parameter($i))?,)*))
            }
        }
    )*};
}
parameter_tuples! {
    () (A = 1) (A = 1, B = 2) (A = 1, B = 2, C = 3) (A = 1, B = 2, C = 3, D = 4) (A = 1, B = 2, C = 3, D = 4, E = 5)
    (A = 1, B = 2, C = 3, D = 4, E = 5, F = 6)
}
