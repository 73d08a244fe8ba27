//! What survives `_TPM_Init`.

use super::hierarchy::{Hierarchy, Policy};
use vtpm_protocol::codec::{Decode, Encode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::structure;
use vtpm_protocol::tpm::{Tpm2bAuth, TpmAlgId, TpmCc, TpmiAlgHash, Tpml, TpmlCc, TpmlPcrSelection};

/// Room for the commands that need physical presence; fewer can.
pub const MAX_PP_COMMANDS: usize = 32;

/// How the last boot ended (Part 3, 9.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OrderlyState {
    /// Without `TPM2_Shutdown`, or a command came after it.
    None,
    /// `TPM2_Shutdown(CLEAR)`.
    Clear,
    /// `TPM2_Shutdown(STATE)`.
    State,
}

impl Encode for OrderlyState {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(match self {
            Self::None => 0,
            Self::Clear => 1,
            Self::State => 2,
        });
    }
}

impl Decode for OrderlyState {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        match u8::decode(r)? {
            0 => Ok(Self::None),
            1 => Ok(Self::Clear),
            2 => Ok(Self::State),
            _ => Err(ResponseCode::VALUE),
        }
    }
}

structure! {
    /// Dictionary attack protection (Part 1, "Dictionary Attack Protection").
    #[derive(Clone)]
    pub struct DictionaryAttack {
        /// Failures counted so far.
        pub failed_tries: u32,
        /// Failures at which the lockout begins.
        pub max_tries: u32,
        /// Seconds after which one failure is forgotten; 0 for no counting.
        pub recovery_time: u32,
        /// Seconds after which a failed lockoutAuth may be tried again; 0 for the next TPM Reset.
        pub lockout_recovery: u32,
        /// Whether lockoutAuth may be used.
        pub lockout_auth_enabled: bool,
        /// The TPM's time (milliseconds of Clock) at which the self-heal timer was last set. `TPM2_ClockSet` moves it along with Clock.
        pub self_heal_timer: u64,
        /// The same for the recovery of lockoutAuth.
        pub lockout_timer: u64,
        /// Something protected was authorized since the last Startup or Shutdown: should the boot end without a Shutdown, a failure may
        /// have gone uncounted.
        pub used: bool,
    }
}

structure! {
    /// Command audit (Part 1, "Command Audit"). Its digest is in [`super::StateReset`].
    #[derive(Clone)]
    pub struct CommandAudit {
        /// The hash of the digest.
        pub alg: TpmiAlgHash,
        /// How many digests were begun since manufacture or `TPM2_Clear`.
        pub counter: u64,
        /// The audited commands, ascending.
        pub commands: TpmlCc,
    }
}

impl CommandAudit {
    /// That of a new TPM: the hash of saved contexts, and the one command that is always audited.
    #[must_use]
    pub fn manufactured() -> Self {
        let commands = Tpml(vec![TpmCc::SET_COMMAND_CODE_AUDIT_STATUS]);
        Self { alg: TpmiAlgHash(TpmAlgId::SHA512), counter: 0, commands }
    }

    /// Whether a command is audited.
    #[must_use]
    pub fn is_audited(&self, code: TpmCc) -> bool {
        self.commands.0.binary_search(&code).is_ok()
    }
}

structure! {
    /// The permanent state.
    #[derive(Clone)]
    pub struct Permanent {
        /// The owner (storage) hierarchy.
        pub owner: Hierarchy,
        /// The endorsement hierarchy.
        pub endorsement: Hierarchy,
        /// Seed and proof of the platform hierarchy.
        pub platform: Hierarchy,
        /// lockoutAuth.
        pub lockout_auth: Tpm2bAuth,
        /// Its policy.
        pub lockout_policy: Policy,
        /// `TPM2_Clear` is disabled.
        pub disable_clear: bool,
        /// Dictionary attack protection.
        pub da: DictionaryAttack,
        /// How the last boot ended.
        pub orderly: OrderlyState,
        /// TPM Resets since manufacture or `TPM2_Clear`.
        pub reset_count: u32,
        /// TPM Resets since manufacture.
        pub total_reset_count: u64,
        /// Clock in milliseconds, as of `clock_base` of the volatile part.
        pub clock: u64,
        /// The highest count that a deleted NV counter had.
        pub max_counter: u64,
        /// The PCRs of the next boot, for every bank.
        pub pcr_allocation: TpmlPcrSelection,
        /// The policy of the PCRs that can have one.
        pub pcr_policy: Policy,
        /// What `TPM2_SetAlgorithmSet` said last.
        pub algorithm_set: u32,
        /// The commands that need physical presence when the platform authorizes them, in ascending order.
        pub pp_commands: Tpml<TpmCc, MAX_PP_COMMANDS>,
        /// Command audit.
        pub command_audit: CommandAudit,
    }
}

impl DictionaryAttack {
    /// The values of a new TPM and after `TPM2_Clear`: 32 tries, one forgotten every two hours, lockoutAuth again after a day.
    #[must_use]
    pub const fn manufactured() -> Self {
        Self {
            failed_tries: 0,
            max_tries: 32,
            recovery_time: 7200,
            lockout_recovery: 86_400,
            lockout_auth_enabled: true,
            self_heal_timer: 0,
            lockout_timer: 0,
            used: false,
        }
    }
}
