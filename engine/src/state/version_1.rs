//! Version 1 of the records, as release 0.1.0 wrote them. The structures here do not change; what later versions added gets its value
//! where they are converted.

use super::save::Record;
use super::version_2::{Hierarchy2, Permanent2};
use super::{
    Act, Apart, CLOCK_NOMINAL, CommandAudit, Commitments, DictionaryAttack, NvIndex, Object, OrderlyState,
    PcrBank, PcrBanks, Permanent, Policy, SavedContexts, SelfTest, Sequence, Session, SessionFlags,
    StateClear, StateReset, Volatile, all_allocated,
};
use std::sync::Arc;
use vtpm_protocol::codec::{Decode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::structure;
use vtpm_protocol::tpm::{
    PCR_BANK_COUNT, PCR_COUNT, PublicId, Secret2b, Tpm2bAuth, Tpm2bDigest, Tpm2bName, Tpm2bNonce, TpmCc,
    TpmHandle, TpmSe, TpmaLocality, TpmiAlgHash, Tpml, TpmsPcrSelection, TpmtSymDef,
};

structure! {
    struct Permanent1 {
        owner: Hierarchy2,
        endorsement: Hierarchy2,
        platform: Hierarchy2,
        lockout_auth: Tpm2bAuth,
        lockout_policy: Policy,
        disable_clear: bool,
        da: DictionaryAttack1,
        orderly: OrderlyState,
        reset_count: u32,
        total_reset_count: u64,
        clock: u64,
        max_counter: u64,
        pcr_banks: Tpml<TpmiAlgHash, PCR_BANK_COUNT>,
    }
}

structure! {
    struct DictionaryAttack1 {
        failed_tries: u32,
        max_tries: u32,
        recovery_time: u32,
        lockout_recovery: u32,
        lockout_auth_enabled: bool,
        self_heal_timer: u64,
        lockout_timer: u64,
    }
}

impl From<DictionaryAttack1> for DictionaryAttack {
    fn from(v: DictionaryAttack1) -> Self {
        Self {
            failed_tries: v.failed_tries,
            max_tries: v.max_tries,
            recovery_time: v.recovery_time,
            lockout_recovery: v.lockout_recovery,
            lockout_auth_enabled: v.lockout_auth_enabled,
            self_heal_timer: v.self_heal_timer,
            lockout_timer: v.lockout_timer,
            used: false,
        }
    }
}

impl Record for Permanent {
    fn capacity(&self) -> usize {
        4096
    }

    fn decode_version_1(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        let v = Permanent1::decode(r)?;
        Ok(Self {
            owner: v.owner.into(),
            endorsement: v.endorsement.into(),
            platform: v.platform.into(),
            lockout_auth: v.lockout_auth,
            lockout_policy: v.lockout_policy,
            disable_clear: v.disable_clear,
            da: v.da.into(),
            orderly: v.orderly,
            reset_count: v.reset_count,
            total_reset_count: v.total_reset_count,
            clock: v.clock,
            max_counter: v.max_counter,
            // All banks were whole, and there was no command to change that.
            pcr_allocation: all_allocated(),
            pcr_policy: Policy::default(),
            algorithm_set: 0,
            pp_commands: Tpml(vec![TpmCc::PP_COMMANDS]),
            command_audit: CommandAudit::manufactured(),
        })
    }

    fn decode_version_2(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        Permanent2::decode(r).map(Into::into)
    }
}

structure! {
    struct StateClear1 {
        sh_enable: bool,
        eh_enable: bool,
        ph_enable_nv: bool,
        platform_auth: Tpm2bAuth,
        platform_policy: Policy,
    }
}

structure! {
    struct StateReset1 {
        null_seed: Secret2b<64>,
        null_proof: Secret2b<64>,
        clear_count: u32,
        object_context_id: u64,
        contexts: SavedContexts,
        restart_count: u32,
        pcr_counter: u32,
    }
}

structure! {
    struct PcrBank1 {
        hash: TpmiAlgHash,
        values: Tpml<Arc<Tpm2bDigest>, 24>,
    }
}

impl From<PcrBank1> for PcrBank {
    fn from(v: PcrBank1) -> Self {
        Self { allocated: TpmsPcrSelection::of(v.hash.0, 0..PCR_COUNT), values: v.values }
    }
}

structure! {
    struct Volatile1 {
        started: bool,
        ph_enable: bool,
        orderly: bool,
        startup_locality: u8,
        state_clear: StateClear1,
        state_reset: StateReset1,
        pcrs: Tpml<PcrBank1, PCR_BANK_COUNT>,
        exclusive_audit_session: TpmHandle,
        time: u64,
        clock_base: u64,
        clock_safe: bool,
        time_epoch: u32,
        self_test: SelfTest,
    }
}

impl From<StateClear1> for StateClear {
    fn from(v: StateClear1) -> Self {
        Self {
            sh_enable: v.sh_enable,
            eh_enable: v.eh_enable,
            ph_enable_nv: v.ph_enable_nv,
            platform_auth: v.platform_auth,
            platform_policy: v.platform_policy,
            read_only: false,
            pcr_auth: Tpm2bAuth::empty(),
        }
    }
}

impl From<StateReset1> for StateReset {
    fn from(v: StateReset1) -> Self {
        Self {
            commitments: Commitments::from_secret(v.null_proof.expose()),
            null_seed: v.null_seed,
            null_proof: v.null_proof,
            clear_count: v.clear_count,
            object_context_id: v.object_context_id,
            contexts: v.contexts,
            restart_count: v.restart_count,
            pcr_counter: v.pcr_counter,
            command_audit_digest: Tpm2bDigest::empty(),
        }
    }
}

impl Record for Volatile {
    fn capacity(&self) -> usize {
        1536
    }

    fn decode_version_1(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        let v = Volatile1::decode(r)?;
        let bank = |bank: PcrBank1| PcrBank::from(bank).checked().map(Arc::new);
        let banks: Vec<_> = v.pcrs.0.into_iter().map(bank).collect::<Result<_, _>>()?;
        let pcrs = Apart::within(PcrBanks(banks));
        Ok(Self {
            started: v.started,
            ph_enable: v.ph_enable,
            orderly: v.orderly,
            startup_locality: v.startup_locality,
            hcrtm: false,
            hcrtm_values: Tpml::default(),
            state_clear: v.state_clear.into(),
            state_reset: v.state_reset.into(),
            pcrs,
            pcr_reconfigured: false,
            exclusive_audit_session: v.exclusive_audit_session,
            time: v.time,
            clock_base: v.clock_base,
            clock_safe: v.clock_safe,
            time_epoch: v.time_epoch,
            clock_rate: CLOCK_NOMINAL,
            // There is more to test now.
            self_test: if v.self_test == SelfTest::Failed { SelfTest::Failed } else { SelfTest::NotRun },
            tested: Tpml::default(),
            established: false,
            // There was none.
            act: Act::default(),
        })
    }
}

/// Twelve flags, a byte each.
struct SessionFlags1([bool; 12]);

impl Decode for SessionFlags1 {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        let mut flags = [false; 12];
        for flag in &mut flags {
            *flag = bool::decode(r)?;
        }
        Ok(Self(flags))
    }
}

impl From<SessionFlags1> for SessionFlags {
    fn from(SessionFlags1(flags): SessionFlags1) -> Self {
        let [
            is_bound,
            is_da_bound,
            is_lockout_bound,
            is_auth_value_needed,
            is_password_needed,
            is_pp_required,
            is_audit,
            is_cp_hash_defined,
            is_name_hash_defined,
            is_template_hash_defined,
            check_nv_written,
            nv_written_state,
        ] = flags;
        Self {
            is_bound,
            is_da_bound,
            is_lockout_bound,
            is_auth_value_needed,
            is_password_needed,
            is_pp_required,
            is_audit,
            is_cp_hash_defined,
            is_name_hash_defined,
            is_template_hash_defined,
            check_nv_written,
            nv_written_state,
            is_parameters_hash_defined: false,
            check_secure_channel: false,
        }
    }
}

impl Record for Session {
    fn capacity(&self) -> usize {
        1024
    }

    fn decode_version_1(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        let (kind, symmetric, auth_hash): (TpmSe, TpmtSymDef, TpmiAlgHash) = Decode::decode(r)?;
        let (session_key, nonce_tpm): (Secret2b<64>, Tpm2bNonce) = Decode::decode(r)?;
        let flags = SessionFlags1::decode(r)?.into();
        let (bound_entity, bound_auth): (Tpm2bName, Tpm2bDigest) = Decode::decode(r)?;
        let (audit_digest, policy_digest, cp_hash): (Tpm2bDigest, Tpm2bDigest, Tpm2bDigest) =
            Decode::decode(r)?;
        let (command_code, command_locality): (TpmCc, TpmaLocality) = Decode::decode(r)?;
        let (pcr_counter, start_time, timeout, epoch): (u32, u64, u64, u32) = Decode::decode(r)?;
        Ok(Self {
            kind,
            symmetric,
            auth_hash,
            session_key,
            nonce_tpm,
            flags,
            bound_entity,
            bound_auth,
            audit_digest,
            policy_digest,
            cp_hash,
            command_code,
            command_locality,
            pcr_counter,
            start_time,
            timeout,
            epoch,
        })
    }
}

impl Record for PcrBank {
    fn capacity(&self) -> usize {
        2048
    }

    /// They were in the volatile record.
    fn decode_version_1(_: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        Err(ResponseCode::TYPE)
    }
}

impl Record for NvIndex {
    fn capacity(&self) -> usize {
        self.data.len().saturating_add(512)
    }

    /// As it is now.
    fn decode_version_1(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        Self::decode(r)
    }
}

impl Record for Object {
    fn capacity(&self) -> usize {
        let unique = match &self.public.unique {
            PublicId::Rsa(n) => n.len(),
            _ => 0,
        };
        let sensitive = self.sensitive.as_ref().map_or(0, |s| s.sensitive.expose().len());
        unique.saturating_add(sensitive).saturating_add(768)
    }

    /// As it is now.
    fn decode_version_1(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        Self::decode(r)
    }
}

impl Record for Sequence {
    fn capacity(&self) -> usize {
        4096
    }

    /// There were none.
    fn decode_version_1(_: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        Err(ResponseCode::TYPE)
    }
}
