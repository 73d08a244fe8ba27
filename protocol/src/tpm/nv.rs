//! Public areas of NV indices (Part 2, chapter 13).

use super::attributes::{TpmaNv, TpmaNvExp};
use super::constants::{MAX_NV_INDEX_SIZE, TpmHandle, TpmHt};
use super::lists::TpmiAlgHash;
use super::sized::{Sized2b, Tpm2bDigest};
use crate::codec::{Decode, Encode, Reader};
use crate::rc::ResponseCode;

/// `TPMS_NV_PUBLIC`, 13.5.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TpmsNvPublic {
    /// The index's handle.
    pub nv_index: TpmHandle,
    /// The hash of its Name, and of an extend index.
    pub name_alg: TpmiAlgHash,
    /// What it is and who may do what with it.
    pub attributes: TpmaNv,
    /// The policy, or the Empty Buffer.
    pub auth_policy: Tpm2bDigest,
    /// Bytes of data.
    pub data_size: u16,
}

impl Encode for TpmsNvPublic {
    fn encode(&self, out: &mut Vec<u8>) {
        let Self { nv_index, name_alg, attributes, auth_policy, data_size } = self;
        (nv_index, name_alg, attributes, auth_policy, data_size).encode(out);
    }
}

impl Decode for TpmsNvPublic {
    /// `TPM_RC_VALUE` for a handle outside `TPMI_RH_NV_LEGACY_INDEX`, before anything behind it is looked at; `TPM_RC_SIZE` for more than
    /// `MAX_NV_INDEX_SIZE` bytes of data.
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        Ok(Self {
            nv_index: index_of_type(r, TpmHt::NV_INDEX)?,
            name_alg: Decode::decode(r)?,
            attributes: Decode::decode(r)?,
            auth_policy: Decode::decode(r)?,
            data_size: data_size(r)?,
        })
    }
}

fn index_of_type(r: &mut Reader<'_>, ht: TpmHt) -> Result<TpmHandle, ResponseCode> {
    let handle = TpmHandle::decode(r)?;
    if handle.handle_type() == ht { Ok(handle) } else { Err(ResponseCode::VALUE) }
}

fn data_size(r: &mut Reader<'_>) -> Result<u16, ResponseCode> {
    let size = u16::decode(r)?;
    if usize::from(size) > MAX_NV_INDEX_SIZE { Err(ResponseCode::SIZE) } else { Ok(size) }
}

/// `TPM2B_NV_PUBLIC`, 13.6.
pub type Tpm2bNvPublic = Sized2b<TpmsNvPublic>;

/// `TPMS_NV_PUBLIC_EXP_ATTR`: an index outside the TPM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TpmsNvPublicExpAttr {
    /// The index's handle, of type `TPM_HT_EXTERNAL_NV`.
    pub nv_index: TpmHandle,
    /// The hash of its Name, and of an extend index.
    pub name_alg: TpmiAlgHash,
    /// What it is, who may do what with it, and what protects it outside.
    pub attributes: TpmaNvExp,
    /// The policy, or the Empty Buffer.
    pub auth_policy: Tpm2bDigest,
    /// Bytes of data.
    pub data_size: u16,
}

impl Encode for TpmsNvPublicExpAttr {
    fn encode(&self, out: &mut Vec<u8>) {
        let Self { nv_index, name_alg, attributes, auth_policy, data_size } = self;
        (nv_index, name_alg, attributes, auth_policy, data_size).encode(out);
    }
}

impl Decode for TpmsNvPublicExpAttr {
    /// As [`TpmsNvPublic`], with a handle of `TPMI_RH_NV_EXP_INDEX`.
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        Ok(Self {
            nv_index: index_of_type(r, TpmHt::EXTERNAL_NV)?,
            name_alg: Decode::decode(r)?,
            attributes: Decode::decode(r)?,
            auth_policy: Decode::decode(r)?,
            data_size: data_size(r)?,
        })
    }
}

/// `TPMT_NV_PUBLIC_2`: a public area with the type of its handle in front.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TpmtNvPublic2 {
    /// An index in the TPM.
    NvIndex(TpmsNvPublic),
    /// One outside the TPM.
    ExternalNv(TpmsNvPublicExpAttr),
    /// One of the manufacturer. Version 184 gives it the public area of an ordinary index, handle range included.
    PermanentNv(TpmsNvPublic),
}

impl Encode for TpmtNvPublic2 {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::NvIndex(public) => (TpmHt::NV_INDEX, public).encode(out),
            Self::ExternalNv(public) => (TpmHt::EXTERNAL_NV, public).encode(out),
            Self::PermanentNv(public) => (TpmHt::PERMANENT_NV, public).encode(out),
        }
    }
}

impl Decode for TpmtNvPublic2 {
    /// `TPM_RC_SELECTOR` for any other type.
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        match TpmHt::decode(r)? {
            TpmHt::NV_INDEX => Decode::decode(r).map(Self::NvIndex),
            TpmHt::EXTERNAL_NV => Decode::decode(r).map(Self::ExternalNv),
            TpmHt::PERMANENT_NV => Decode::decode(r).map(Self::PermanentNv),
            _ => Err(ResponseCode::SELECTOR),
        }
    }
}

/// `TPM2B_NV_PUBLIC_2`.
pub type Tpm2bNvPublic2 = Sized2b<TpmtNvPublic2>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::decode_exact;
    use crate::tpm::TpmAlgId;

    fn external(attributes: u64, data_size: u16) -> Vec<u8> {
        (TpmHt::EXTERNAL_NV, TpmHandle(0x1100_0001), TpmAlgId::SHA256, attributes, 0u16, data_size).to_bytes()
    }

    #[test]
    fn the_type_in_front_says_what_follows() {
        let legacy = (TpmHandle(0x0100_0001), TpmAlgId::SHA256, 0x0004_0004u32, 0u16, 8u16).to_bytes();
        for ht in [1u8, 0x12] {
            let bytes = [&[ht], &legacy[..]].concat();
            assert_eq!(decode_exact::<TpmtNvPublic2>(&bytes).unwrap().to_bytes(), bytes);
        }
        let bytes = external(0x7_0004_0004, 8);
        assert_eq!(decode_exact::<TpmtNvPublic2>(&bytes).unwrap().to_bytes(), bytes);
        for ht in [0u8, 2, 0x10, 0x13, 0xff] {
            let bytes = [&[ht], &legacy[..]].concat();
            assert_eq!(decode_exact::<TpmtNvPublic2>(&bytes), Err(ResponseCode::SELECTOR));
        }
    }

    #[test]
    fn a_handle_of_another_type_is_told_first() {
        for (ht, handle) in
            [(1u8, 0x1100_0001u32), (0x11, 0x0100_0001), (0x12, 0x1200_0001), (0x12, 0x1100_0001)]
        {
            let bytes = (ht, handle, 0u16, u32::MAX).to_bytes();
            assert_eq!(decode_exact::<TpmtNvPublic2>(&bytes), Err(ResponseCode::VALUE));
        }
    }

    #[test]
    fn reserved_bits_and_sizes_are_checked() {
        for bit in [8, 9, 20, 24, 35, 63] {
            let bytes = external(1 << bit, 8);
            assert_eq!(decode_exact::<TpmtNvPublic2>(&bytes), Err(ResponseCode::RESERVED_BITS), "{bit}");
        }
        assert_eq!(decode_exact::<TpmtNvPublic2>(&external(0, 2049)), Err(ResponseCode::SIZE));
        assert!(decode_exact::<TpmtNvPublic2>(&external(0, 2048)).is_ok());
    }
}
