//! PCR values.

use vtpm_protocol::codec::{Decode, Encode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::structure;
use vtpm_protocol::tpm::{PCR_BANK_COUNT, PCR_COUNT, Tpm2bDigest, TpmAlgId, TpmiAlgHash, Tpml, hash_size};

structure! {
    /// One bank: an allocated hash and its 24 values.
    #[derive(Clone)]
    pub struct PcrBank {
        /// The hash.
        pub hash: TpmiAlgHash,
        /// The values by PCR number, each of the hash's size.
        pub values: Tpml<Tpm2bDigest, 24>,
    }
}

/// The allocated banks.
#[derive(Clone, Default)]
pub struct PcrBanks(pub Tpml<PcrBank, PCR_BANK_COUNT>);

impl PcrBanks {
    /// The value of a PCR; `None` when its bank is not allocated or the number is too high.
    #[must_use]
    pub fn get(&self, hash: TpmAlgId, pcr: u32) -> Option<&Tpm2bDigest> {
        let bank = self.0.0.iter().find(|b| b.hash.0 == hash)?;
        bank.values.0.get(usize::try_from(pcr).ok()?)
    }

    /// As [`Self::get`], for changing.
    pub fn get_mut(&mut self, hash: TpmAlgId, pcr: u32) -> Option<&mut Tpm2bDigest> {
        let bank = self.0.0.iter_mut().find(|b| b.hash.0 == hash)?;
        bank.values.0.get_mut(usize::try_from(pcr).ok()?)
    }

    /// The values after Startup: those of `resumed` where a Resume keeps them, else the initial ones. The locality of
    /// `Startup(CLEAR)` stands in the last byte of PCR 0.
    #[must_use]
    pub fn startup(hashes: &[TpmAlgId], locality: u8, resumed: Option<&Self>) -> Self {
        let bank = |&hash: &TpmAlgId| {
            let size = hash_size(hash).unwrap_or_default();
            let value = |pcr| {
                if let Some(kept) = resumed.filter(|_| is_saved(pcr)).and_then(|r| r.get(hash, pcr)) {
                    return kept.clone();
                }
                let mut bytes = vec![initial_byte(pcr); size];
                if pcr == 0
                    && let Some(last) = bytes.last_mut()
                {
                    *last = locality;
                }
                Tpm2bDigest::new(bytes).unwrap_or_default()
            };
            PcrBank { hash: TpmiAlgHash(hash), values: Tpml((0..PCR_COUNT).map(value).collect()) }
        };
        Self(Tpml(hashes.iter().map(bank).collect()))
    }

    /// The allocated hashes.
    pub fn hashes(&self) -> impl Iterator<Item = TpmAlgId> + '_ {
        self.0.0.iter().map(|b| b.hash.0)
    }
}

impl Encode for PcrBanks {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }
}

impl Decode for PcrBanks {
    /// Every bank has as many values as there are PCRs, or none before the first Startup, each of the hash's size.
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        let banks = Tpml::<PcrBank, PCR_BANK_COUNT>::decode(r)?;
        let count = usize::try_from(PCR_COUNT).unwrap_or_default();
        for bank in &banks.0 {
            let size = hash_size(bank.hash.0).ok_or(ResponseCode::HASH)?;
            if bank.values.0.len() != count || bank.values.0.iter().any(|v| v.len() != size) {
                return Err(ResponseCode::SIZE);
            }
        }
        Ok(Self(banks))
    }
}

/// Whether `TPM2_Shutdown(STATE)` keeps a PCR: those of the static root of trust (PC Client profile, 4.6.1).
#[must_use]
pub const fn is_saved(pcr: u32) -> bool {
    pcr <= 15
}

/// With what the bytes of a PCR are filled at Startup: ones for those that only a dynamic launch resets to zero.
const fn initial_byte(pcr: u32) -> u8 {
    if pcr >= 17 && pcr <= 22 { 0xff } else { 0 }
}
