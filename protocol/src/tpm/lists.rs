//! `TPML` types and the PCR selection (Part 2, 10.6 and 10.9).

use super::constants::{MAX_ALG_LIST_SIZE, MAX_CAP_CC, PCR_COUNT, PCR_SELECT_SIZE, TpmAlgId, TpmCc};
use super::sized::Tpm2bDigest;
use crate::codec::{Decode, Encode, Reader};
use crate::rc::ResponseCode;

/// A list of at most `MAX` entries with a 32-bit count.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tpml<T, const MAX: usize>(pub Vec<T>);

impl<T, const MAX: usize> Default for Tpml<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Encode, const MAX: usize> Encode for Tpml<T, MAX> {
    fn encode(&self, out: &mut Vec<u8>) {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX).encode(out);
        for entry in &self.0 {
            entry.encode(out);
        }
    }
}

impl<T: Decode, const MAX: usize> Decode for Tpml<T, MAX> {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        let count = usize::try_from(u32::decode(r)?).map_err(|_| ResponseCode::SIZE)?;
        if count > MAX {
            return Err(ResponseCode::SIZE);
        }
        (0..count).map(|_| T::decode(r)).collect::<Result<_, _>>().map(Self)
    }
}

/// The implemented hash algorithms, ascending. Not all of them have PCR banks: see [`PCR_BANK_ALGS`].
pub const HASH_ALGS: &[TpmAlgId] = &[
    TpmAlgId::SHA1,
    TpmAlgId::SHA256,
    TpmAlgId::SHA384,
    TpmAlgId::SHA512,
    TpmAlgId::SM3_256,
    TpmAlgId::SHA3_256,
    TpmAlgId::SHA3_384,
    TpmAlgId::SHA3_512,
];

/// The number of PCR banks that can be allocated, and so of entries in a list that has one for each bank: what Part 2 calls
/// `HASH_COUNT` in `TPML_PCR_SELECTION` and `TPML_DIGEST_VALUES`.
pub const PCR_BANK_COUNT: usize = 4;

/// The hash algorithms that a PCR bank may have, in the order in which lists name them. A bank of another implemented hash may be named
/// wherever a bank is, and is treated as one that is not allocated.
pub const PCR_BANK_ALGS: [TpmAlgId; PCR_BANK_COUNT] =
    [TpmAlgId::SHA1, TpmAlgId::SHA256, TpmAlgId::SHA384, TpmAlgId::SHA512];

/// The digest size of an implemented hash, in bytes.
#[must_use]
pub const fn hash_size(alg: TpmAlgId) -> Option<usize> {
    match alg {
        TpmAlgId::SHA1 => Some(20),
        TpmAlgId::SHA256 | TpmAlgId::SHA3_256 | TpmAlgId::SM3_256 => Some(32),
        TpmAlgId::SHA384 | TpmAlgId::SHA3_384 => Some(48),
        TpmAlgId::SHA512 | TpmAlgId::SHA3_512 => Some(64),
        _ => None,
    }
}

/// `TPMI_ALG_HASH`, 9.27: an implemented hash algorithm.
///
/// # Errors
/// `TPM_RC_HASH` for any other.
pub fn decode_hash_alg(r: &mut Reader<'_>) -> Result<TpmAlgId, ResponseCode> {
    let alg = TpmAlgId::decode(r)?;
    hash_size(alg).map(|_| alg).ok_or(ResponseCode::HASH)
}

/// `TPMI_ALG_HASH+`: as [`decode_hash_alg`], or `TPM_ALG_NULL`.
///
/// # Errors
/// `TPM_RC_HASH` for any other.
pub fn decode_hash_alg_or_null(r: &mut Reader<'_>) -> Result<TpmAlgId, ResponseCode> {
    let alg = TpmAlgId::decode(r)?;
    if alg == TpmAlgId::NULL { Ok(alg) } else { hash_size(alg).map(|_| alg).ok_or(ResponseCode::HASH) }
}

/// `TPMI_ALG_HASH` as a type, for structures and parameters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash)]
pub struct TpmiAlgHash(pub TpmAlgId);

impl Encode for TpmiAlgHash {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }
}

impl Decode for TpmiAlgHash {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        decode_hash_alg(r).map(Self)
    }
}

/// `TPMI_ALG_HASH+` as a type.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct TpmiAlgHashOrNull(pub TpmAlgId);

impl Encode for TpmiAlgHashOrNull {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }
}

impl Decode for TpmiAlgHashOrNull {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        decode_hash_alg_or_null(r).map(Self)
    }
}

/// `TPMS_PCR_SELECTION`, 10.6.2: PCRs of one bank.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TpmsPcrSelection {
    /// The bank.
    pub hash: TpmAlgId,
    /// The bitmap as it came, 3 bytes or (from the wire) up to 3.
    pub select: [u8; PCR_SELECT_SIZE],
}

impl TpmsPcrSelection {
    /// A selection of the given PCR numbers; numbers from 24 on are ignored.
    #[must_use]
    pub fn of(hash: TpmAlgId, pcrs: impl IntoIterator<Item = u32>) -> Self {
        let mut selection = Self { hash, select: [0; PCR_SELECT_SIZE] };
        for pcr in pcrs {
            selection.set(pcr);
        }
        selection
    }

    /// Adds a PCR.
    pub fn set(&mut self, pcr: u32) {
        if let Some(byte) = usize::try_from(pcr / 8).ok().and_then(|i| self.select.get_mut(i)) {
            *byte |= 1 << (pcr % 8);
        }
    }

    /// Whether a PCR is selected.
    #[must_use]
    pub fn contains(&self, pcr: u32) -> bool {
        usize::try_from(pcr / 8)
            .ok()
            .and_then(|i| self.select.get(i))
            .is_some_and(|b| b & (1 << (pcr % 8)) != 0)
    }

    /// The selected PCRs in ascending order.
    pub fn pcrs(&self) -> impl Iterator<Item = u32> + '_ {
        (0..PCR_COUNT).filter(|&p| self.contains(p))
    }
}

impl Encode for TpmsPcrSelection {
    fn encode(&self, out: &mut Vec<u8>) {
        self.hash.encode(out);
        out.push(3);
        self.select.encode(out);
    }
}

impl Decode for TpmsPcrSelection {
    /// The size must be `PCR_SELECT_MIN` to `PCR_SELECT_MAX`, here both 3, as the PC Client profile has it.
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        let hash = decode_hash_alg(r)?;
        if usize::from(u8::decode(r)?) != PCR_SELECT_SIZE {
            return Err(ResponseCode::VALUE);
        }
        Ok(Self { hash, select: r.array()? })
    }
}

/// `TPML_PCR_SELECTION`, 10.9.7.
pub type TpmlPcrSelection = Tpml<TpmsPcrSelection, PCR_BANK_COUNT>;

/// `TPML_CC`, 10.9.1.
pub type TpmlCc = Tpml<TpmCc, MAX_CAP_CC>;

/// `TPML_ALG`, 10.9.3.
pub type TpmlAlg = Tpml<TpmAlgId, MAX_ALG_LIST_SIZE>;

/// `TPML_DIGEST`, 10.9.5.
pub type TpmlDigest = Tpml<Tpm2bDigest, 8>;

/// `TPMT_HA`, 10.3.2: an algorithm and a digest of its size.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TpmtHa {
    /// The algorithm; `TPM_ALG_NULL` with an empty digest in some structures.
    pub hash_alg: TpmAlgId,
    /// As many bytes as the algorithm has.
    pub digest: Vec<u8>,
}

impl Encode for TpmtHa {
    fn encode(&self, out: &mut Vec<u8>) {
        self.hash_alg.encode(out);
        out.extend_from_slice(&self.digest);
    }
}

impl Decode for TpmtHa {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        let hash_alg = decode_hash_alg(r)?;
        let digest = r.take(hash_size(hash_alg).ok_or(ResponseCode::HASH)?)?.to_vec();
        Ok(Self { hash_alg, digest })
    }
}

/// `TPML_DIGEST_VALUES`, 10.9.6.
pub type TpmlDigestValues = Tpml<TpmtHa, PCR_BANK_COUNT>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::decode_exact;

    #[test]
    fn a_list_longer_than_its_cap_is_refused_before_entries_are_read() {
        assert_eq!(decode_exact::<TpmlDigest>(&[0, 0, 0, 9]), Err(ResponseCode::SIZE));
        assert_eq!(decode_exact::<TpmlDigest>(&[0, 0, 0, 1, 0]), Err(ResponseCode::INSUFFICIENT));
    }

    #[test]
    fn a_pcr_selection_names_its_pcrs() {
        let s: TpmsPcrSelection = decode_exact(&[0, 0x0b, 3, 0x81, 0, 0x80]).unwrap();
        assert_eq!(s.pcrs().collect::<Vec<_>>(), [0, 7, 23]);
        assert_eq!(TpmsPcrSelection::of(TpmAlgId::SHA256, [0, 7, 23]), s);
        assert_eq!(decode_exact::<TpmsPcrSelection>(&[0, 0x0b, 2, 0, 0]), Err(ResponseCode::VALUE));
        assert_eq!(decode_exact::<TpmsPcrSelection>(&[0, 0x99, 3, 0, 0, 0]), Err(ResponseCode::HASH));
    }

    #[test]
    fn a_digest_has_the_size_of_its_algorithm() {
        assert_eq!(decode_exact::<TpmtHa>(&[0, 4, 1]), Err(ResponseCode::INSUFFICIENT));
        let mut ok = vec![0, 4];
        ok.resize(22, 9);
        assert!(decode_exact::<TpmtHa>(&ok).is_ok());
    }
}
