//! PCR values and their allocation.

use crate::env::RecordKey;
use std::sync::Arc;
use vtpm_protocol::codec::{Decode, Encode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{
    PCR_BANK_ALGS, PCR_COUNT, Tpm2bDigest, TpmAlgId, Tpml, TpmlPcrSelection, TpmsPcrSelection, hash_size,
};

/// The PCR that an H-CRTM measures into before Startup: `HCRTM_PCR`.
pub const HCRTM_PCR: u32 = 0;

/// One bank: which of its PCRs are allocated, and 24 values.
#[derive(Clone, PartialEq, Eq)]
pub struct PcrBank {
    /// The hash, and the PCRs that there are.
    pub allocated: TpmsPcrSelection,
    /// The values by PCR number, each of the hash's size, also of those that are not allocated.
    pub values: Tpml<Arc<Tpm2bDigest>, 24>,
}

/// The banks in the order of [`PCR_BANK_ALGS`], none before the first Startup.
#[derive(Clone, Default)]
pub struct PcrBanks(pub Vec<Arc<PcrBank>>);

/// The allocation of a new TPM: all PCRs in all banks.
#[must_use]
pub fn all_allocated() -> TpmlPcrSelection {
    Tpml(PCR_BANK_ALGS.map(|hash| TpmsPcrSelection::of(hash, 0..PCR_COUNT)).to_vec())
}

/// Whether an allocation names every bank once, in the order of [`PCR_BANK_ALGS`].
#[must_use]
pub fn is_allocation(list: &TpmlPcrSelection) -> bool {
    list.0.iter().map(|s| s.hash).eq(PCR_BANK_ALGS)
}

impl PcrBanks {
    fn bank(&self, hash: TpmAlgId, pcr: u32) -> Option<&PcrBank> {
        self.0.iter().find(|b| b.allocated.hash == hash && b.allocated.contains(pcr)).map(|b| &**b)
    }

    /// The value of a PCR; `None` when it is not allocated in that bank.
    #[must_use]
    pub fn get(&self, hash: TpmAlgId, pcr: u32) -> Option<&Tpm2bDigest> {
        self.bank(hash, pcr)?.values.0.get(usize::try_from(pcr).ok()?).map(|value| &**value)
    }

    /// As [`Self::get`], for changing.
    pub fn get_mut(&mut self, hash: TpmAlgId, pcr: u32) -> Option<&mut Tpm2bDigest> {
        let mut banks = self.0.iter_mut();
        let bank = banks.find(|b| b.allocated.hash == hash && b.allocated.contains(pcr))?;
        Arc::make_mut(bank).values.0.get_mut(usize::try_from(pcr).ok()?).map(Arc::make_mut)
    }

    /// The values after Startup: those of `resumed` where a Resume keeps them, else the initial ones. The locality of
    /// `Startup(CLEAR)` stands in the last byte of PCR 0.
    #[must_use]
    pub fn startup(allocation: &TpmlPcrSelection, locality: u8, resumed: Option<&Self>) -> Self {
        let bank = |allocated: &TpmsPcrSelection| {
            let size = hash_size(allocated.hash).unwrap_or_default();
            let value = |pcr| {
                let saved = resumed.filter(|_| is_saved(pcr)).and_then(|r| r.get(allocated.hash, pcr));
                if let Some(kept) = saved {
                    return kept.clone();
                }
                let mut bytes = vec![initial_byte(pcr); size];
                if pcr == HCRTM_PCR
                    && let Some(last) = bytes.last_mut()
                {
                    *last = locality;
                }
                Tpm2bDigest::new(bytes).unwrap_or_default()
            };
            let values = Tpml((0..PCR_COUNT).map(value).map(Arc::new).collect());
            Arc::new(PcrBank { allocated: allocated.clone(), values })
        };
        Self(allocation.0.iter().map(bank).collect())
    }

    /// What is allocated now; `TPM2_PCR_Allocate` changes the next allocation only.
    #[must_use]
    pub fn allocation(&self) -> TpmlPcrSelection {
        Tpml(self.0.iter().map(|b| b.allocated.clone()).collect())
    }

    /// The hashes of the banks, also of those without any PCR.
    pub fn hashes(&self) -> impl Iterator<Item = TpmAlgId> + '_ {
        self.0.iter().map(|b| b.allocated.hash)
    }
}

impl PcrBank {
    /// The bank, if it has as many values as there are PCRs, each of the hash's size.
    pub(super) fn checked(self) -> Result<Self, ResponseCode> {
        let count = usize::try_from(PCR_COUNT).unwrap_or_default();
        let size = hash_size(self.allocated.hash).ok_or(ResponseCode::HASH)?;
        if self.values.0.len() != count || self.values.0.iter().any(|v| v.len() != size) {
            return Err(ResponseCode::SIZE);
        }
        Ok(self)
    }

    /// The name of its record.
    pub(super) fn key(&self) -> RecordKey {
        RecordKey::Pcr(u32::from(self.allocated.hash.0))
    }
}

impl Encode for PcrBank {
    fn encode(&self, out: &mut Vec<u8>) {
        let Self { allocated, values } = self;
        (allocated, values).encode(out);
    }
}

impl Decode for PcrBank {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        let (allocated, values) = Decode::decode(r)?;
        Self { allocated, values }.checked()
    }
}

impl PcrBanks {
    /// Puts a bank that was saved apart in its place.
    ///
    /// # Errors
    /// `TPM_RC_HASH` for a bank that there cannot be.
    pub(super) fn insert(&mut self, bank: Arc<PcrBank>) -> Result<(), ResponseCode> {
        let place = |hash| PCR_BANK_ALGS.iter().position(|&alg| alg == hash);
        let hash = bank.allocated.hash;
        place(hash).ok_or(ResponseCode::HASH)?;
        self.0.retain(|b| b.allocated.hash != hash);
        self.0.push(bank);
        self.0.sort_by_key(|b| place(b.allocated.hash));
        Ok(())
    }
}

/// Whether `TPM2_Shutdown(STATE)` keeps a PCR: those of the static root of trust (PC Client profile, 4.6.1).
#[must_use]
pub const fn is_saved(pcr: u32) -> bool {
    pcr <= 15
}

/// With what the bytes of a PCR are filled at Startup: ones for those that only a dynamic launch resets to zero.
const fn initial_byte(pcr: u32) -> u8 {
    if is_dynamic(pcr) { 0xff } else { 0 }
}

/// Whether a dynamic launch resets a PCR (PC Client profile, 4.6.1).
#[must_use]
pub const fn is_dynamic(pcr: u32) -> bool {
    pcr >= 17 && pcr <= 22
}
