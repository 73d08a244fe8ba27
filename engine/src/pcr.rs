//! PCRs (Part 1, "Platform Configuration Registers"; PC Client Platform TPM Profile, 4.6): who may change which, and digests of
//! selections.

use crate::alg::hash_of;
use crate::crypto::{Digest, HashAlg, Hasher};
use crate::state::{HCRTM_PCR, State, is_dynamic_pcr, is_saved_pcr};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{
    PCR_COUNT, Tpm2bDigest, TpmAlgId, TpmHandle, TpmPtPcr, TpmiAlgHash, Tpml, TpmlDigest, TpmlPcrSelection,
    TpmsPcrSelection, TpmtHa,
};

/// The most digests that one `TPM2_PCR_Read` returns: the cap of `TPML_DIGEST`.
const MAX_READ: usize = 8;

/// The PCR that a dynamic launch extends.
pub const DRTM_PCR: u32 = 17;
/// The locality of an H-CRTM, as it stands in PCR 0 before it is extended.
const HCRTM_LOCALITY: u8 = 4;

/// Bit `n` stands for locality `n`.
const ALL: u8 = 0x1f;

/// The localities that may reset a PCR.
const fn reset_localities(pcr: u32) -> u8 {
    match pcr {
        16 | 23 => 0x0f,
        17..=19 => 0x10,
        20..=22 => 0x14,
        _ => 0,
    }
}

/// The localities that may extend a PCR.
const fn extend_localities(pcr: u32) -> u8 {
    match pcr {
        17 | 18 => 0x1c,
        19 => 0x0c,
        20 => 0x0e,
        21 | 22 => 0x04,
        _ => ALL,
    }
}

/// Whether a change of a PCR leaves `pcrUpdateCounter` as it is, so that it does not void policies on other PCRs.
const fn is_no_increment(pcr: u32) -> bool {
    matches!(pcr, 16 | 21..=23)
}

const fn allows(localities: u8, locality: u8) -> bool {
    locality < 5 && localities & (1 << locality) != 0
}

/// Whether `pcr` may be extended from `locality`.
///
/// # Errors
/// `TPM_RC_LOCALITY` when not.
pub fn check_extend(pcr: TpmHandle, locality: u8) -> Result<(), ResponseCode> {
    if allows(extend_localities(pcr.0), locality) { Ok(()) } else { Err(ResponseCode::LOCALITY) }
}

/// Whether `TPM2_PCR_Reset` may reset `pcr` from `locality`. Locality 4 is that of the hardware, which resets by a dynamic launch.
///
/// # Errors
/// `TPM_RC_LOCALITY` when not.
pub fn check_reset(pcr: TpmHandle, locality: u8) -> Result<(), ResponseCode> {
    let allowed = locality != 4 && allows(reset_localities(pcr.0), locality);
    if allowed { Ok(()) } else { Err(ResponseCode::LOCALITY) }
}

/// Whether a PCR belongs to the one group that can have an authorization value and a policy: those of the dynamic OS, as in libtpms 0.9.
#[must_use]
pub const fn has_authorization(pcr: TpmHandle) -> bool {
    matches!(pcr.0, 20..=22)
}

/// The PCRs that have a property; `None` for a property that does not exist.
#[must_use]
pub fn with_property(property: TpmPtPcr) -> Option<TpmsPcrSelection> {
    let has: &dyn Fn(u32) -> bool = match property {
        TpmPtPcr::SAVE => &is_saved_pcr,
        TpmPtPcr::EXTEND_L0 => &|pcr| allows(extend_localities(pcr), 0),
        TpmPtPcr::RESET_L0 => &|pcr| allows(reset_localities(pcr), 0),
        TpmPtPcr::EXTEND_L1 => &|pcr| allows(extend_localities(pcr), 1),
        TpmPtPcr::RESET_L1 => &|pcr| allows(reset_localities(pcr), 1),
        TpmPtPcr::EXTEND_L2 => &|pcr| allows(extend_localities(pcr), 2),
        TpmPtPcr::RESET_L2 => &|pcr| allows(reset_localities(pcr), 2),
        TpmPtPcr::EXTEND_L3 => &|pcr| allows(extend_localities(pcr), 3),
        TpmPtPcr::RESET_L3 => &|pcr| allows(reset_localities(pcr), 3),
        TpmPtPcr::EXTEND_L4 => &|pcr| allows(extend_localities(pcr), 4),
        TpmPtPcr::RESET_L4 => &|pcr| allows(reset_localities(pcr), 4),
        TpmPtPcr::DRTM_RESET => &is_dynamic_pcr,
        TpmPtPcr::NO_INCREMENT => &is_no_increment,
        TpmPtPcr::POLICY | TpmPtPcr::AUTH => &|pcr| has_authorization(TpmHandle(pcr)),
        _ => return None,
    };
    Some(TpmsPcrSelection::of(TpmAlgId::NULL, (0..PCR_COUNT).filter(|&pcr| has(pcr))))
}

/// A selection without the PCRs that are not allocated.
fn filtered(state: &State, selection: &TpmsPcrSelection) -> TpmsPcrSelection {
    let pcrs = &state.volatile.pcrs;
    TpmsPcrSelection::of(
        selection.hash,
        selection.pcrs().filter(|&pcr| pcrs.get(selection.hash, pcr).is_some()),
    )
}

/// The digest with `alg` of the selected PCRs, in the order of the list and within each entry by number, and the selection without PCRs
/// that do not exist, as it goes into attestations, creation data and policies (Part 1, "Digest of selected PCR").
#[must_use]
pub fn selection_digest(
    state: &State,
    alg: HashAlg,
    selection: &TpmlPcrSelection,
) -> (TpmlPcrSelection, Digest) {
    let mut hasher = Hasher::new(alg);
    let mut out = TpmlPcrSelection::default();
    for entry in &selection.0 {
        let entry = filtered(state, entry);
        for value in entry.pcrs().filter_map(|pcr| state.volatile.pcrs.get(entry.hash, pcr)) {
            hasher.update(value);
        }
        out.0.push(entry);
    }
    (out, hasher.finish())
}

/// The values of as many of the selected PCRs as one response takes, and which these are.
#[must_use]
pub fn read(state: &State, selection: &TpmlPcrSelection) -> (TpmlPcrSelection, TpmlDigest) {
    let mut out = TpmlPcrSelection::default();
    let mut values = TpmlDigest::default();
    for entry in &selection.0 {
        let mut read = TpmsPcrSelection::of(entry.hash, []);
        for pcr in entry.pcrs() {
            if let Some(value) =
                state.volatile.pcrs.get(entry.hash, pcr).filter(|_| values.0.len() < MAX_READ)
            {
                values.0.push(value.clone());
                read.set(pcr);
            }
        }
        out.0.push(read);
    }
    (out, values)
}

impl State {
    /// Counts a change of `pcr`, for policies that refer to PCRs. The counter never shows 0, which in a policy session says that
    /// no PCRs were checked.
    pub fn pcr_changed(&mut self, pcr: u32) {
        if !is_no_increment(pcr) {
            self.count_pcr_change();
        }
    }

    /// As a change of a PCR that counts: what else makes policies on PCRs void.
    pub fn count_pcr_change(&mut self) {
        let counter = &mut self.volatile_mut().state_reset.pcr_counter;
        *counter = counter.wrapping_add(1).max(1);
    }

    /// Extends a PCR in one bank: `new = H(old || digest)`. A bank that is not allocated is left out silently.
    pub fn extend_pcr(&mut self, pcr: TpmHandle, bank: TpmAlgId, digest: &[u8]) {
        let Some(value) = self.volatile_mut().pcrs.get_mut(bank, pcr.0) else { return };
        let new = hash_of(TpmiAlgHash(bank)).digest(&[value, digest]);
        *value = crate::alg::digest_2b(&new);
        self.pcr_changed(pcr.0);
    }

    /// Resets a PCR to zeros in all banks.
    pub fn reset_pcr(&mut self, pcr: TpmHandle) {
        self.zero_pcr(pcr.0);
        self.pcr_changed(pcr.0);
    }

    fn zero_pcr(&mut self, pcr: u32) {
        let banks: Vec<TpmAlgId> = self.volatile.pcrs.hashes().collect();
        for bank in banks {
            if let Some(value) = self.volatile_mut().pcrs.get_mut(bank, pcr) {
                *value = Tpm2bDigest::new(vec![0; value.len()]).unwrap_or_default();
            }
        }
    }

    /// What a dynamic launch does: resets its PCRs, extends the first of them with the measurement, and counts as a Restart (Part 1,
    /// "Dynamic Root of Trust Measurement").
    pub fn dynamic_launch(&mut self, digests: &[TpmtHa]) {
        for pcr in (0..PCR_COUNT).filter(|&pcr| is_dynamic_pcr(pcr)) {
            self.zero_pcr(pcr);
        }
        for digest in digests {
            self.extend_pcr(TpmHandle(DRTM_PCR), digest.hash_alg, &digest.digest);
        }
        let restart_count = &mut self.volatile_mut().state_reset.restart_count;
        *restart_count = restart_count.wrapping_add(1);
    }

    /// What a measurement before Startup will make of PCR 0 (Part 1, "H-CRTM before TPM2_Startup()").
    pub fn measure_hcrtm(&mut self, digests: &[TpmtHa]) {
        let value = |d: &TpmtHa| {
            let mut begin = vec![0; d.digest.len()];
            if let Some(last) = begin.last_mut() {
                *last = HCRTM_LOCALITY;
            }
            let digest = hash_of(TpmiAlgHash(d.hash_alg)).digest(&[&begin, &d.digest]).to_vec();
            TpmtHa { hash_alg: d.hash_alg, digest }
        };
        self.volatile_mut().hcrtm_values = Tpml(digests.iter().map(value).collect());
    }

    /// Puts what an H-CRTM measured into PCR 0.
    pub fn take_hcrtm(&mut self) {
        let volatile = self.volatile_mut();
        for value in core::mem::take(&mut volatile.hcrtm_values).0 {
            if let Some(pcr) = volatile.pcrs.get_mut(value.hash_alg, HCRTM_PCR) {
                *pcr = Tpm2bDigest::new(value.digest).unwrap_or_default();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestTpm;
    use vtpm_protocol::tpm::Tpml;

    #[test]
    fn a_selection_is_hashed_in_its_own_order_and_without_banks_that_are_not_there() {
        let mut tpm = TestTpm::started();
        let (pcr0, pcr17) = ([0; 32], [0xff; 32]);
        let select = |pcrs: &[u32]| TpmsPcrSelection::of(TpmAlgId::SHA256, pcrs.iter().copied());
        let list = Tpml(vec![select(&[17]), select(&[0]), TpmsPcrSelection::of(TpmAlgId::SHA1, [1])]);
        let (out, digest) = selection_digest(tpm.state(), HashAlg::Sha256, &list);
        assert_eq!(out, list);
        assert_eq!(digest, HashAlg::Sha256.digest(&[&pcr17, &pcr0, &[0; 20]]));

        tpm.state().volatile_mut().pcrs.0.remove(0);
        let (out, digest) = selection_digest(tpm.state(), HashAlg::Sha1, &list);
        assert_eq!(out.0.get(2), Some(&TpmsPcrSelection::of(TpmAlgId::SHA1, [])));
        assert_eq!(digest, HashAlg::Sha1.digest(&[&pcr17, &pcr0]));
    }

    #[test]
    fn no_selection_has_the_digest_of_nothing() {
        let mut tpm = TestTpm::started();
        let (out, digest) = selection_digest(tpm.state(), HashAlg::Sha384, &Tpml(vec![]));
        assert_eq!((out.0.len(), digest), (0, HashAlg::Sha384.digest(&[])));
    }

    #[test]
    fn the_counter_passes_over_zero() {
        let mut tpm = TestTpm::started();
        tpm.state().volatile_mut().state_reset.pcr_counter = u32::MAX;
        tpm.state().count_pcr_change();
        assert_eq!(tpm.state().volatile.state_reset.pcr_counter, 1);
    }
}
