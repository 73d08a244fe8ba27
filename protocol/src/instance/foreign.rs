//! ImportForeignState: a TPM that another implementation has kept so far.

use crate::codec::{Decode, Encode, Reader};
use crate::rc::ResponseCode;
use crate::tpm::Tpm2b;
use zeroize::Zeroizing;

/// The longest foreign state, in bytes.
pub const MAX_FOREIGN_STATE: usize = 256 * 1024;

/// What wrote a foreign state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ForeignFormat {
    /// `PERSISTENT_ALL` of libtpms, in plain and without swtpm's wrapping.
    Libtpms = 1,
}

/// Parameters of ImportForeignState: the initial migration digest of a fresh instance, as UnlockInstance takes it (16-bit size), the format
/// (16 bits), and the state with a 32-bit size.
pub struct ImportForeignStateIn {
    /// The initial digest.
    pub digest: Tpm2b<64>,
    /// Who wrote the state.
    pub format: ForeignFormat,
    /// The state. There are seeds and private keys in it.
    pub state: Zeroizing<Vec<u8>>,
}

impl Encode for ImportForeignStateIn {
    fn encode(&self, out: &mut Vec<u8>) {
        self.digest.encode(out);
        (self.format as u16).encode(out);
        u32::try_from(self.state.len()).unwrap_or(u32::MAX).encode(out);
        out.extend_from_slice(&self.state);
    }
}

impl Decode for ImportForeignStateIn {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        let digest = Decode::decode(r)?;
        let format = match u16::decode(r)? {
            1 => ForeignFormat::Libtpms,
            _ => return Err(ResponseCode::TYPE),
        };
        let size = usize::try_from(u32::decode(r)?).map_err(|_| ResponseCode::SIZE)?;
        if size > MAX_FOREIGN_STATE {
            return Err(ResponseCode::SIZE);
        }
        Ok(Self { digest, format, state: Zeroizing::new(r.take(size)?.to_vec()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::decode_exact;

    #[test]
    fn a_foreign_state_survives_its_bytes() {
        let input = ImportForeignStateIn {
            digest: Tpm2b::new([7; 32]).unwrap(),
            format: ForeignFormat::Libtpms,
            state: Zeroizing::new(vec![9; 70_000]),
        };
        let bytes = input.to_bytes();
        let read: ImportForeignStateIn = decode_exact(&bytes).unwrap();
        assert_eq!((read.digest, read.format, read.state), (input.digest, input.format, input.state));
        for end in [0, 1, 33, 35, 36, 39, 40, bytes.len() - 1] {
            assert!(decode_exact::<ImportForeignStateIn>(&bytes[..end]).is_err(), "{end}");
        }
        let mut other = bytes.clone();
        other[35] = 2;
        assert_eq!(decode_exact::<ImportForeignStateIn>(&other).err(), Some(ResponseCode::TYPE));
        other = bytes;
        other[36..40].copy_from_slice(&(256 * 1024 + 1u32).to_be_bytes());
        assert_eq!(decode_exact::<ImportForeignStateIn>(&other).err(), Some(ResponseCode::SIZE));
    }
}
