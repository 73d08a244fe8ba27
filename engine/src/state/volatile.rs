//! What belongs to this boot (Part 1, "TPM Reset, Restart, Resume").

use super::act::Act;
use super::commit::Commitments;
use super::hierarchy::Policy;
use super::pcr::PcrBanks;
use core::ops::{Deref, DerefMut};
use vtpm_protocol::codec::{Decode, Encode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::structure;
use vtpm_protocol::tpm::{
    MAX_ALG_LIST_SIZE, PCR_BANK_COUNT, Secret2b, Tpm2bAuth, Tpm2bDigest, TpmAlgId, TpmHandle, Tpml, TpmtHa,
};

/// The nominal rate of the clocks.
pub const CLOCK_NOMINAL: u32 = 30_000;

/// The number of sessions that may be active, loaded and saved: `MAX_ACTIVE_SESSIONS`.
pub const MAX_ACTIVE_SESSIONS: usize = 64;

structure! {
    /// STATE_CLEAR_DATA: reset by every `Startup(CLEAR)`, kept by a Resume.
    #[derive(Clone)]
    pub struct StateClear {
        /// The storage hierarchy is enabled.
        pub sh_enable: bool,
        /// The endorsement hierarchy is enabled.
        pub eh_enable: bool,
        /// NV indices of the platform are accessible.
        pub ph_enable_nv: bool,
        /// platformAuth.
        pub platform_auth: Tpm2bAuth,
        /// platformPolicy.
        pub platform_policy: Policy,
        /// What would change the TPM lastingly is refused: `TPM2_ReadOnlyControl`.
        pub read_only: bool,
        /// The authorization value of the PCRs that can have one.
        pub pcr_auth: Tpm2bAuth,
    }
}

impl Default for StateClear {
    fn default() -> Self {
        Self {
            sh_enable: true,
            eh_enable: true,
            ph_enable_nv: true,
            platform_auth: Tpm2bAuth::empty(),
            platform_policy: Policy::default(),
            read_only: false,
            pcr_auth: Tpm2bAuth::empty(),
        }
    }
}

structure! {
    /// STATE_RESET_DATA: reset by a TPM Reset, kept by Restart and Resume.
    #[derive(Clone)]
    pub struct StateReset {
        /// The seed of the null hierarchy.
        pub null_seed: Secret2b<64>,
        /// The proof of the null hierarchy.
        pub null_proof: Secret2b<64>,
        /// `TPM Restart` count, part of the proof of stClear contexts.
        pub clear_count: u32,
        /// The next sequence number of an object context.
        pub object_context_id: u64,
        /// Saved and loaded sessions.
        pub contexts: SavedContexts,
        /// Restarts and Resumes since the last TPM Reset.
        pub restart_count: u32,
        /// Incremented whenever a PCR changes that counts.
        pub pcr_counter: u32,
        /// The command audit digest; empty when nothing was audited since it was reported.
        pub command_audit_digest: Tpm2bDigest,
        /// Ephemeral values that are promised.
        pub commitments: Commitments,
    }
}

/// What is known of the self-test since `_TPM_Init`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SelfTest {
    /// It was not run.
    NotRun,
    /// All algorithms were tested and work.
    Passed,
    /// A test failed: the TPM is in Failure mode.
    Failed,
}

impl Encode for SelfTest {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(match self {
            Self::NotRun => 0,
            Self::Passed => 1,
            Self::Failed => 2,
        });
    }
}

impl Decode for SelfTest {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        match u8::decode(r)? {
            0 => Ok(Self::NotRun),
            1 => Ok(Self::Passed),
            2 => Ok(Self::Failed),
            _ => Err(ResponseCode::VALUE),
        }
    }
}

/// The session context array of Part 1, "Session Context Management": for every active session slot 0 for free, 1 to 3 stand for
/// loaded, else the number of its saved context.
#[derive(Clone)]
pub struct SavedContexts {
    /// By slot: 0 free, [`Self::LOADED`] loaded, else the context counter at which it was saved.
    pub slots: Vec<u64>,
    /// The counter for saved contexts.
    pub counter: u64,
}

impl SavedContexts {
    /// Marks a slot whose session is loaded.
    pub const LOADED: u64 = 1;
    /// The first value of the counter, above the marks.
    pub const FIRST: u64 = 2;

    /// Frees the slots of loaded sessions: those are gone.
    pub fn forget_loaded(&mut self) {
        for slot in self.slots.iter_mut().filter(|slot| **slot == Self::LOADED) {
            *slot = 0;
        }
    }
}

impl Default for SavedContexts {
    fn default() -> Self {
        Self { slots: vec![0; MAX_ACTIVE_SESSIONS], counter: Self::FIRST }
    }
}

impl Encode for SavedContexts {
    fn encode(&self, out: &mut Vec<u8>) {
        let Self { slots, counter } = self;
        slots.iter().for_each(|s| s.encode(out));
        counter.encode(out);
    }
}

impl Decode for SavedContexts {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        let slots = (0..MAX_ACTIVE_SESSIONS).map(|_| u64::decode(r)).collect::<Result<_, _>>()?;
        Ok(Self { slots, counter: u64::decode(r)? })
    }
}

/// A part of a structure that has records of its own and is not in that of the structure.
#[derive(Clone, Default)]
pub struct Apart<T> {
    part: T,
    /// It was read from the record of the structure, where it once was: there are no others of it until they are written along with the
    /// structure's.
    pub(super) within: bool,
}

impl<T> Apart<T> {
    /// One that has records of its own, or will have them with the next commit.
    pub const fn new(part: T) -> Self {
        Self { part, within: false }
    }

    /// One that came out of the record of the structure.
    pub(super) const fn within(part: T) -> Self {
        Self { part, within: true }
    }
}

impl<T> Deref for Apart<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.part
    }
}

impl<T> DerefMut for Apart<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.part
    }
}

impl<T> Encode for Apart<T> {
    fn encode(&self, _out: &mut Vec<u8>) {}
}

impl<T: Default> Decode for Apart<T> {
    fn decode(_r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        Ok(Self::new(T::default()))
    }
}

structure! {
    /// The volatile state.
    #[derive(Clone)]
    pub struct Volatile {
        /// `TPM2_Startup` has succeeded since `_TPM_Init`.
        pub started: bool,
        /// The platform hierarchy is enabled; set by every Startup.
        pub ph_enable: bool,
        /// A `TPM2_Shutdown` came before the last Startup: `TPMA_STARTUP_CLEAR.orderly`.
        pub orderly: bool,
        /// The locality of the last `Startup(CLEAR)`, 0 or 3.
        pub startup_locality: u8,
        /// An H-CRTM came before the last Startup.
        pub hcrtm: bool,
        /// What an H-CRTM since `_TPM_Init` made of PCR 0, by bank; empty without one. Startup takes it.
        pub hcrtm_values: Tpml<TpmtHa, PCR_BANK_COUNT>,
        /// The reset group that a Resume keeps.
        pub state_clear: StateClear,
        /// The reset group that a Restart keeps, too.
        pub state_reset: StateReset,
        /// The PCRs, each bank in a record of its own.
        pub pcrs: Apart<PcrBanks>,
        /// `TPM2_PCR_Allocate` has run since Startup, so that the next one cannot be a Resume.
        pub pcr_reconfigured: bool,
        /// The exclusive audit session, or `TPM_RH_UNASSIGNED`.
        pub exclusive_audit_session: TpmHandle,
        /// Milliseconds since `_TPM_Init`, as of `clock_base`.
        pub time: u64,
        /// The environment's time at which `time` and the permanent part's clock stood where they stand.
        pub clock_base: u64,
        /// Clock has not gone back.
        pub clock_safe: bool,
        /// Changes whenever Time may have jumped, so that policy time-outs do not survive it.
        pub time_epoch: u32,
        /// How many real milliseconds, times [`CLOCK_NOMINAL`], make one of both clocks: see `TPM2_ClockRateAdjust`.
        pub clock_rate: u32,
        /// The self-test since `_TPM_Init`.
        pub self_test: SelfTest,
        /// The algorithms that were tested since `_TPM_Init`, in ascending order.
        pub tested: Tpml<TpmAlgId, MAX_ALG_LIST_SIZE>,
        /// A dynamic launch was begun since this was last reset: the bit `tpmEstablishment` of the hardware interface.
        pub established: bool,
        /// The countdown timer.
        pub act: Act,
    }
}
