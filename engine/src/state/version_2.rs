//! Version 2 of the records, as release 0.2.0 wrote them, where it differs from what is written now. The structures here do not change.

use super::permanent::MAX_PP_COMMANDS;
use super::{CommandAudit, Derivation, DictionaryAttack, Hierarchy, OrderlyState, Permanent, Policy};
use vtpm_protocol::structure;
use vtpm_protocol::tpm::{Secret2b, Tpm2bAuth, TpmCc, Tpml, TpmlPcrSelection};

structure! {
    /// A hierarchy, also of version 1: every seed was used as this engine uses it.
    pub(super) struct Hierarchy2 {
        auth: Tpm2bAuth,
        policy: Policy,
        seed: Secret2b<64>,
        proof: Secret2b<64>,
    }
}

impl From<Hierarchy2> for Hierarchy {
    fn from(v: Hierarchy2) -> Self {
        let Hierarchy2 { auth, policy, seed, proof } = v;
        Self { auth, policy, seed, proof, derivation: Derivation::Own }
    }
}

structure! {
    pub(super) struct Permanent2 {
        owner: Hierarchy2,
        endorsement: Hierarchy2,
        platform: Hierarchy2,
        lockout_auth: Tpm2bAuth,
        lockout_policy: Policy,
        disable_clear: bool,
        da: DictionaryAttack,
        orderly: OrderlyState,
        reset_count: u32,
        total_reset_count: u64,
        clock: u64,
        max_counter: u64,
        pcr_allocation: TpmlPcrSelection,
        pcr_policy: Policy,
        algorithm_set: u32,
        pp_commands: Tpml<TpmCc, MAX_PP_COMMANDS>,
        command_audit: CommandAudit,
    }
}

impl From<Permanent2> for Permanent {
    fn from(v: Permanent2) -> Self {
        Self {
            owner: v.owner.into(),
            endorsement: v.endorsement.into(),
            platform: v.platform.into(),
            lockout_auth: v.lockout_auth,
            lockout_policy: v.lockout_policy,
            disable_clear: v.disable_clear,
            da: v.da,
            orderly: v.orderly,
            reset_count: v.reset_count,
            total_reset_count: v.total_reset_count,
            clock: v.clock,
            max_counter: v.max_counter,
            pcr_allocation: v.pcr_allocation,
            pcr_policy: v.pcr_policy,
            algorithm_set: v.algorithm_set,
            pp_commands: v.pp_commands,
            command_audit: v.command_audit,
        }
    }
}
