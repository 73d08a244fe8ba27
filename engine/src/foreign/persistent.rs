//! The structures of a state before its NV memory: constants, PERSISTENT_DATA, ORDERLY_DATA, STATE_RESET_DATA, STATE_CLEAR_DATA.

use super::format::{Kind, Stop, block, counted, flag, needed_block};
use super::{Foreign, ForeignError, MAX_STATE, Note, Suspended, commands, nvram};
use crate::alg::hash_alg;
use crate::command::misc::may_need_presence;
use crate::command::table;
use crate::state::{
    Derivation, DictionaryAttack, Hierarchy, MAX_PP_COMMANDS, OrderlyState, Policy, SeedCompat, StateClear,
};
use std::collections::BTreeSet;
use vtpm_protocol::codec::{Decode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{
    PCR_BANK_ALGS, Secret2b, Tpm2bAuth, Tpm2bDigest, TpmAlgId, TpmCc, TpmiAlgHash, Tpml, TpmlPcrSelection,
    TpmsPcrSelection, hash_size,
};

const ALL: Kind = Kind { magic: 0xab36_4723, known: 4 };
const CONSTANTS: Kind = Kind { magic: 0xc9ea_6431, known: 3 };
const PERSISTENT: Kind = Kind { magic: 0x1221_3443, known: 5 };
const PCR_POLICY: Kind = Kind { magic: 0x176b_e626, known: 2 };
const ORDERLY: Kind = Kind { magic: 0x5665_7887, known: 2 };
const DRBG: Kind = Kind { magic: 0x6fe8_3ea1, known: 2 };
const RESET: Kind = Kind { magic: 0x0110_2332, known: 4 };
const CLEAR: Kind = Kind { magic: 0x9889_7667, known: 2 };
const PCR_SAVE: Kind = Kind { magic: 0x7372_eabc, known: 2 };
const PCR_AUTH: Kind = Kind { magic: 0x6be8_2eaf, known: 2 };

/// Constants of the build that are looked at at most.
const MAX_CONSTANTS: u32 = 1024;
/// `NUM_STATIC_PCR`.
const STATIC_PCRS: u16 = 16;

/// PERSISTENT_DATA.
pub struct Persistent {
    pub owner: Hierarchy,
    pub endorsement: Hierarchy,
    pub platform: Hierarchy,
    pub lockout_auth: Tpm2bAuth,
    pub lockout_policy: Policy,
    pub disable_clear: bool,
    /// Without timers.
    pub da: DictionaryAttack,
    pub end: End,
    pub reset_count: u32,
    pub total_reset_count: u64,
    pub pcr_allocation: TpmlPcrSelection,
    pub pcr_policy: Policy,
    pub algorithm_set: u32,
    pub pp_commands: Vec<TpmCc>,
    pub audit_alg: TpmiAlgHash,
    pub audit_counter: u64,
    pub audit_commands: Vec<TpmCc>,
}

/// How the last boot ended.
#[derive(Clone, Copy)]
pub struct End {
    pub orderly: OrderlyState,
    /// An H-CRTM came before the Startup of that boot.
    pub hcrtm: bool,
    /// The locality of that Startup.
    pub locality: u8,
}

/// ORDERLY_DATA. Times are in milliseconds; the timers and `time` count from the start of the process that wrote them.
pub struct OrderlyData {
    pub clock: u64,
    pub clock_safe: bool,
    pub timers: Option<Timers>,
}

/// When the timers of dictionary attack protection were set last, by `time`.
pub struct Timers {
    pub self_heal: u64,
    pub lockout: u64,
    pub time: u64,
}

/// STATE_RESET_DATA, without what belongs to saved contexts and to commitments.
pub struct ResetData {
    pub null_seed: Secret2b<64>,
    pub null_proof: Secret2b<64>,
    pub clear_count: u32,
    pub object_context_id: u64,
    pub audit_digest: Tpm2bDigest,
    pub restart_count: u32,
    pub pcr_counter: u32,
}

/// Reads one structure, and names it where it is wrong.
fn named<'a, T>(
    r: &mut Reader<'a>,
    what: &'static str,
    f: impl FnOnce(&mut Reader<'a>) -> Result<T, Stop>,
) -> Result<T, ForeignError> {
    f(r).map_err(|stop| stop.in_structure(what))
}

impl Foreign {
    /// Reads a `PERSISTENT_ALL` of libtpms. Nothing may follow it.
    ///
    /// # Errors
    /// [`ForeignError`].
    pub fn read(bytes: &[u8]) -> Result<Self, ForeignError> {
        if bytes.len() > MAX_STATE {
            return Err(ForeignError::TooLong(bytes.len()));
        }
        let mut r = Reader::new(bytes);
        let r = &mut r;
        let version = match ALL.header(r) {
            Err(Stop::Damaged(_)) => return Err(ForeignError::NotLibtpms),
            header => header.map_err(|stop| stop.in_structure("header"))?,
        };
        let mut notes = Vec::new();
        if version >= 4 {
            notes.extend(named(r, "profile", profile)?);
        }
        named(r, "list of constants", constants)?;
        let persistent = named(r, "permanent data", |r| persistent(r, &mut notes))?;
        let orderly = named(r, "clocks", orderly)?;
        // Until version 3 they were always there.
        let is_suspended = persistent.end.orderly == OrderlyState::State;
        let mut suspended = None;
        if version < 3 || is_suspended {
            let reset = named(r, "data of the last reset", reset)?;
            let (clear, pcrs) = named(r, "data of the last start", clear)?;
            suspended = is_suspended.then_some(Suspended { reset, clear, pcrs });
        }
        let ram = named(r, "orderly NV data", nvram::ram)?;
        let (indices, objects, max_counter) = named(r, "NV memory", |r| nvram::user(r, ram, &mut notes))?;
        named(r, "end", |r| {
            ALL.end(r, version)?;
            if u32::decode(r)? != ALL.magic {
                return Err(ResponseCode::BAD_TAG.into());
            }
            Ok(r.clone().finish()?)
        })?;
        if is_suspended {
            notes.push(Note::Suspended);
        }
        Ok(Self { persistent, orderly, suspended, indices, objects, max_counter, notes })
    }
}

/// The profile, JSON with a terminating zero. The ones that libtpms comes with restrict nothing but what is old.
fn profile(r: &mut Reader<'_>) -> Result<Option<Note>, Stop> {
    let text = r.sized(usize::from(u16::MAX))?;
    let text = text.strip_suffix(&[0]).unwrap_or(text);
    let text = core::str::from_utf8(text).map_err(|_| ResponseCode::VALUE)?;
    let name =
        text.split_once("\"Name\":\"").and_then(|(_, rest)| rest.split_once('"')).map_or("", |(n, _)| n);
    let is_plain = text.is_empty() || matches!(name, "null" | "default-v1" | "default-v2");
    Ok((!is_plain).then(|| Note::Profile(name.to_owned())))
}

fn constants(r: &mut Reader<'_>) -> Result<(), Stop> {
    let version = CONSTANTS.header(r)?;
    let count = u32::decode(r)?;
    if count > MAX_CONSTANTS {
        return Err(ResponseCode::SIZE.into());
    }
    for _ in 0..count {
        u32::decode(r)?;
    }
    CONSTANTS.end(r, version)
}

fn policy(alg: TpmAlgId, digest: Tpm2bDigest) -> Result<Policy, Stop> {
    match hash_alg(alg) {
        Some(hash) if digest.len() == hash.digest_size() => Ok(Policy { alg, digest }),
        _ if digest.is_empty() => Ok(Policy::default()),
        _ => Err(ResponseCode::HASH.into()),
    }
}

fn compat(r: &mut Reader<'_>) -> Result<SeedCompat, Stop> {
    match u8::decode(r)? {
        0 => Ok(SeedCompat::Original),
        1 => Ok(SeedCompat::PrimeAdjustFix),
        level => Err(Stop::TooNew(u16::from(level), 1)),
    }
}

fn persistent(r: &mut Reader<'_>, notes: &mut Vec<Note>) -> Result<Persistent, Stop> {
    let version = PERSISTENT.header(r)?;
    let disable_clear = flag(r)?;
    let (owner_alg, endorsement_alg, lockout_alg): (TpmAlgId, TpmAlgId, TpmAlgId) = Decode::decode(r)?;
    let (owner_policy, endorsement_policy, lockout_policy) = Decode::decode(r)?;
    let (owner_auth, endorsement_auth, lockout_auth) = Decode::decode(r)?;
    let (endorsement_seed, owner_seed, platform_seed) = Decode::decode(r)?;
    let (platform_proof, owner_proof, endorsement_proof) = Decode::decode(r)?;
    let (total_reset_count, reset_count): (u64, u32) = Decode::decode(r)?;
    let pcr_policy = match block(r)? {
        Some(mut r) => one_pcr_policy(&mut r)?,
        None => Policy::default(),
    };
    let pcr_allocation = allocation(r, notes)?;
    let pp = r.sized(64)?;
    let (failed_tries, max_tries, recovery_time, lockout_recovery): (u32, u32, u32, u32) = Decode::decode(r)?;
    let lockout_auth_enabled = flag(r)?;
    let (end, used) = end_of_boot(u16::decode(r)?);
    let audited = r.sized(64)?;
    let (audit_alg, audit_counter, algorithm_set): (TpmiAlgHash, u64, u32) = Decode::decode(r)?;
    let _firmware: (u32, u32) = Decode::decode(r)?;
    // timeEpoch, of which the size depends on the build.
    let epoch = usize::from(u8::decode(r)?);
    if epoch != 4 && epoch != 8 {
        return Err(ResponseCode::SIZE.into());
    }
    r.take(epoch)?;
    let (mut endorsement_compat, mut owner_compat, mut platform_compat) =
        (SeedCompat::Original, SeedCompat::Original, SeedCompat::Original);
    if version >= 2
        && let Some(mut r) = block(r)?
        && version >= 3
    {
        // The allocation of the boot that is over.
        allocation(&mut r, &mut Vec::new())?;
        let next = block(&mut r)?;
        if version >= 4 {
            let mut r = next.ok_or(Stop::Damaged(ResponseCode::SIZE))?;
            (endorsement_compat, owner_compat, platform_compat) =
                (compat(&mut r)?, compat(&mut r)?, compat(&mut r)?);
            block(&mut r)?;
        }
    }
    let (pp_commands, audit_commands) = (presence(pp, version, notes), audit(audited, version, notes));
    Ok(Persistent {
        owner: hierarchy(
            owner_auth,
            policy(owner_alg, owner_policy)?,
            owner_seed,
            owner_proof,
            owner_compat,
        )?,
        endorsement: hierarchy(
            endorsement_auth,
            policy(endorsement_alg, endorsement_policy)?,
            endorsement_seed,
            endorsement_proof,
            endorsement_compat,
        )?,
        platform: hierarchy(
            Tpm2bAuth::empty(),
            Policy::default(),
            platform_seed,
            platform_proof,
            platform_compat,
        )?,
        lockout_auth: Tpm2bAuth::without_trailing_zeros(&lockout_auth),
        lockout_policy: policy(lockout_alg, lockout_policy)?,
        disable_clear,
        da: DictionaryAttack {
            failed_tries,
            max_tries,
            recovery_time,
            lockout_recovery,
            lockout_auth_enabled,
            self_heal_timer: 0,
            lockout_timer: 0,
            used,
        },
        end,
        reset_count,
        total_reset_count,
        pcr_allocation,
        pcr_policy,
        algorithm_set,
        pp_commands,
        audit_alg,
        audit_counter,
        audit_commands,
    })
}

/// The least bytes of a seed or proof: libtpms has 64, and had 32.
const MIN_SECRET: usize = 32;

fn hierarchy(
    auth: Tpm2bAuth,
    policy: Policy,
    seed: Secret2b<64>,
    proof: Secret2b<64>,
    compat: SeedCompat,
) -> Result<Hierarchy, Stop> {
    if seed.len() < MIN_SECRET || proof.len() < MIN_SECRET {
        return Err(ForeignError::Unusable("a hierarchy has no seed or no proof").into());
    }
    let auth = auth.without_trailing_zeros();
    Ok(Hierarchy { auth, policy, seed, proof, derivation: Derivation::Libtpms(compat) })
}

fn one_pcr_policy(r: &mut Reader<'_>) -> Result<Policy, Stop> {
    let mut policies = PCR_POLICY.read(r, |r, _| {
        counted(r, 1, |r| {
            let (alg, digest) = Decode::decode(r)?;
            policy(alg, digest)
        })
    })?;
    Ok(policies.pop().unwrap_or_default())
}

/// A `TPML_PCR_SELECTION`, whatever its hashes.
fn allocation(r: &mut Reader<'_>, notes: &mut Vec<Note>) -> Result<TpmlPcrSelection, Stop> {
    let mut banks = PCR_BANK_ALGS.map(|hash| TpmsPcrSelection::of(hash, []));
    let count = u32::decode(r)?;
    if count > 16 {
        return Err(ResponseCode::SIZE.into());
    }
    for _ in 0..count {
        let hash = TpmAlgId::decode(r)?;
        let size = usize::from(u8::decode(r)?);
        let select = r.take(size)?;
        match banks.iter_mut().find(|bank| bank.hash == hash) {
            Some(bank) if size == bank.select.len() => bank.select.copy_from_slice(select),
            Some(_) => return Err(ResponseCode::SIZE.into()),
            None if select.iter().all(|byte| *byte == 0) => {}
            None => notes.push(Note::PcrBank(hash.0)),
        }
    }
    Ok(Tpml(banks.to_vec()))
}

/// `orderlyState`, and whether something protected was used in a boot that ended without a Shutdown.
fn end_of_boot(value: u16) -> (End, bool) {
    const HCRTM: u16 = 0x8000;
    const LOCALITY_3: u16 = 0x4000;
    const DA_USED: u16 = 0xfffe;
    let orderly = match value & !(HCRTM | LOCALITY_3) {
        0 => OrderlyState::Clear,
        1 => OrderlyState::State,
        _ => OrderlyState::None,
    };
    let is_orderly = orderly != OrderlyState::None;
    let end = End {
        orderly,
        hcrtm: is_orderly && value & HCRTM != 0,
        locality: if is_orderly && value & LOCALITY_3 != 0 { 3 } else { 0 },
    };
    (end, value == DA_USED)
}

fn presence(bits: &[u8], version: u16, notes: &mut Vec<Note>) -> Vec<TpmCc> {
    let (listed, _) = commands::listed(bits, version);
    let (can, cannot): (BTreeSet<TpmCc>, BTreeSet<TpmCc>) =
        listed.into_iter().partition(|code| may_need_presence(*code));
    notes.extend(cannot.into_iter().filter(|code| *code != TpmCc::PP_COMMANDS).map(Note::Presence));
    let mut list: BTreeSet<TpmCc> = can.into_iter().take(MAX_PP_COMMANDS.saturating_sub(1)).collect();
    list.insert(TpmCc::PP_COMMANDS);
    list.into_iter().collect()
}

fn audit(bits: &[u8], version: u16, notes: &mut Vec<Note>) -> Vec<TpmCc> {
    let (listed, unknown) = commands::listed(bits, version);
    let (known, missing): (BTreeSet<TpmCc>, BTreeSet<TpmCc>) =
        listed.into_iter().partition(|code| table::find(*code).is_some_and(|_| !table::is_vendor(*code)));
    notes.extend(missing.into_iter().map(Note::Audit));
    if unknown > 0 {
        notes.push(Note::UnknownCommands(unknown));
    }
    let mut list = known;
    list.remove(&TpmCc::SHUTDOWN);
    list.insert(TpmCc::SET_COMMAND_CODE_AUDIT_STATUS);
    list.into_iter().collect()
}

fn orderly(r: &mut Reader<'_>) -> Result<OrderlyData, Stop> {
    ORDERLY.read(r, |r, _| {
        let clock = u64::decode(r)?;
        let clock_safe = flag(r)?;
        DRBG.read(r, |r, _| {
            let _: (u64, u32) = Decode::decode(r)?;
            r.sized(64)?;
            counted(r, 4, |r| Ok(u32::decode(r)?)).map(drop)
        })?;
        let timers = match block(r)? {
            Some(mut r) => {
                let (self_heal, lockout, time) = Decode::decode(&mut r)?;
                Some(Timers { self_heal, lockout, time })
            }
            None => None,
        };
        Ok(OrderlyData { clock, clock_safe, timers })
    })
}

fn reset(r: &mut Reader<'_>) -> Result<ResetData, Stop> {
    let version = RESET.header(r)?;
    let (null_proof, null_seed) = Decode::decode(r)?;
    let (clear_count, object_context_id): (u32, u64) = Decode::decode(r)?;
    // The context array. What is saved in it is not taken over.
    let sessions = u16::decode(r)?;
    let each = if version >= 4 { 2 } else { 1 };
    r.take(usize::from(sessions).saturating_mul(each))?;
    if version >= 4 {
        u16::decode(r)?;
    }
    let _counter = u64::decode(r)?;
    let (audit_digest, restart_count, pcr_counter) = Decode::decode(r)?;
    // Commitments.
    block(r)?;
    if version >= 2 {
        if version >= 3 {
            // The null hierarchy gives primary objects of this boot only; of what kind its seed is does not matter any more.
            let mut r = needed_block(r)?;
            compat(&mut r)?;
            block(&mut r)?;
        } else {
            block(r)?;
        }
    }
    Ok(ResetData {
        null_seed,
        null_proof,
        clear_count,
        object_context_id,
        audit_digest,
        restart_count,
        pcr_counter,
    })
}

type SavedPcrs = Vec<(TpmAlgId, Vec<Tpm2bDigest>)>;

fn clear(r: &mut Reader<'_>) -> Result<(StateClear, SavedPcrs), Stop> {
    CLEAR.read(r, |r, _| {
        let (sh_enable, eh_enable, ph_enable_nv) = (flag(r)?, flag(r)?, flag(r)?);
        let (alg, digest, platform_auth) = Decode::decode(r)?;
        let platform_policy = policy(alg, digest)?;
        let pcrs = PCR_SAVE.read(r, |r, _| saved_pcrs(r))?;
        let mut pcr_auth = PCR_AUTH.read(r, |r, _| counted(r, 1, |r| Ok(Tpm2bAuth::decode(r)?)))?;
        let state = StateClear {
            sh_enable,
            eh_enable,
            ph_enable_nv,
            platform_auth,
            platform_policy,
            read_only: false,
            pcr_auth: pcr_auth.pop().unwrap_or_default(),
        };
        Ok((state, pcrs))
    })
}

fn saved_pcrs(r: &mut Reader<'_>) -> Result<SavedPcrs, Stop> {
    if u16::decode(r)? != STATIC_PCRS {
        return Err(ResponseCode::SIZE.into());
    }
    let mut banks = Vec::new();
    loop {
        let alg = TpmAlgId::decode(r)?;
        if alg == TpmAlgId::NULL {
            return Ok(banks);
        }
        let bytes = r.sized(usize::from(u16::MAX))?;
        let size = hash_size(alg).ok_or(ResponseCode::HASH)?;
        if bytes.len() != size.saturating_mul(usize::from(STATIC_PCRS)) {
            return Err(ResponseCode::SIZE.into());
        }
        let values = bytes.chunks(size).map(Tpm2bDigest::new).collect::<Result<_, _>>()?;
        banks.push((alg, values));
    }
}
