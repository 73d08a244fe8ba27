//! Attribute structures of Part 2, chapter 8.

use crate::codec::{Decode, Encode, Reader};
use crate::rc::ResponseCode;
use core::ops::{BitAnd, BitOr, Not};

macro_rules! attributes {
    ($(#[$m:meta])* $name:ident : $repr:ty, reserved $reserved:expr; { $($bit:ident = $v:expr),* $(,)? }) => {
        $(#[$m])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
        pub struct $name(pub $repr);

        impl $name {
            $(
                #[doc = concat!("`", stringify!($bit), "`")]
                pub const $bit: Self = Self($v);
            )*

            /// Bits that must be clear.
            pub const RESERVED: $repr = $reserved;

            /// Whether all bits of `other` are set.
            #[must_use]
            pub const fn has(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// Whether any bit of `other` is set.
            #[must_use]
            pub const fn any(self, other: Self) -> bool {
                self.0 & other.0 != 0
            }

            /// With the bits of `other` set or cleared.
            #[must_use]
            pub const fn with(self, other: Self, on: bool) -> Self {
                if on { Self(self.0 | other.0) } else { Self(self.0 & !other.0) }
            }
        }

        impl BitOr for $name {
            type Output = Self;
            fn bitor(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
        }

        impl BitAnd for $name {
            type Output = Self;
            fn bitand(self, other: Self) -> Self {
                Self(self.0 & other.0)
            }
        }

        impl Not for $name {
            type Output = Self;
            fn not(self) -> Self {
                Self(!self.0)
            }
        }

        impl Encode for $name {
            fn encode(&self, out: &mut Vec<u8>) {
                self.0.encode(out);
            }
        }

        impl Decode for $name {
            fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
                let bits = <$repr>::decode(r)?;
                if Self(bits).any(Self(Self::RESERVED)) {
                    return Err(ResponseCode::RESERVED_BITS);
                }
                Ok(Self(bits))
            }
        }
    };
}

attributes! {
    /// `TPMA_OBJECT`, 8.3.
    TpmaObject: u32, reserved 0xfff0_f009; {
        FIXED_TPM = 1 << 1, ST_CLEAR = 1 << 2, FIXED_PARENT = 1 << 4, SENSITIVE_DATA_ORIGIN = 1 << 5,
        USER_WITH_AUTH = 1 << 6, ADMIN_WITH_POLICY = 1 << 7, FIRMWARE_LIMITED = 1 << 8, SVN_LIMITED = 1 << 9,
        NO_DA = 1 << 10, ENCRYPTED_DUPLICATION = 1 << 11, RESTRICTED = 1 << 16, DECRYPT = 1 << 17,
        SIGN_ENCRYPT = 1 << 18, X509_SIGN = 1 << 19,
    }
}

attributes! {
    /// `TPMA_SESSION`, 8.4.
    TpmaSession: u8, reserved 0x18; {
        CONTINUE_SESSION = 1 << 0, AUDIT_EXCLUSIVE = 1 << 1, AUDIT_RESET = 1 << 2, DECRYPT = 1 << 5,
        ENCRYPT = 1 << 6, AUDIT = 1 << 7,
    }
}

attributes! {
    /// `TPMA_LOCALITY`, 8.5. Values from 32 on are the extended localities, one each.
    TpmaLocality: u8, reserved 0; {
        ZERO = 1 << 0, ONE = 1 << 1, TWO = 1 << 2, THREE = 1 << 3, FOUR = 1 << 4,
    }
}

attributes! {
    /// `TPMA_PERMANENT`, 8.6.
    TpmaPermanent: u32, reserved 0; {
        OWNER_AUTH_SET = 1 << 0, ENDORSEMENT_AUTH_SET = 1 << 1, LOCKOUT_AUTH_SET = 1 << 2, DISABLE_CLEAR = 1 << 8,
        IN_LOCKOUT = 1 << 9, TPM_GENERATED_EPS = 1 << 10,
    }
}

attributes! {
    /// `TPMA_STARTUP_CLEAR`, 8.7.
    TpmaStartupClear: u32, reserved 0; {
        PH_ENABLE = 1 << 0, SH_ENABLE = 1 << 1, EH_ENABLE = 1 << 2, PH_ENABLE_NV = 1 << 3, READ_ONLY = 1 << 4,
        ORDERLY = 1 << 31,
    }
}

attributes! {
    /// `TPMA_MEMORY`, 8.8.
    TpmaMemory: u32, reserved 0; {
        SHARED_RAM = 1 << 0, SHARED_NV = 1 << 1, OBJECT_COPIED_TO_RAM = 1 << 2,
    }
}

attributes! {
    /// `TPMA_ALGORITHM`, 8.2.
    TpmaAlgorithm: u32, reserved 0xffff_f8f0; {
        ASYMMETRIC = 1 << 0, SYMMETRIC = 1 << 1, HASH = 1 << 2, OBJECT = 1 << 3, SIGNING = 1 << 8,
        ENCRYPTING = 1 << 9, METHOD = 1 << 10,
    }
}

attributes! {
    /// `TPMA_CC`, 8.9. The command index is in bits 0 to 15, the number of handles in bits 25 to 27.
    TpmaCc: u32, reserved 0; {
        NV = 1 << 22, EXTENSIVE = 1 << 23, FLUSHED = 1 << 24, R_HANDLE = 1 << 28, V = 1 << 29,
    }
}

attributes! {
    /// `TPMA_ACT`, 8.12.
    TpmaAct: u32, reserved 0xffff_fffc; { SIGNALED = 1 << 0, PRESERVE_SIGNALED = 1 << 1 }
}

attributes! {
    /// `TPMA_X509_KEY_USAGE`, 8.11: the bits of the X.509 extension, the first one highest.
    TpmaX509KeyUsage: u32, reserved 0x007f_ffff; {
        DIGITAL_SIGNATURE = 1 << 31, NONREPUDIATION = 1 << 30, KEY_ENCIPHERMENT = 1 << 29, DATA_ENCIPHERMENT = 1 << 28,
        KEY_AGREEMENT = 1 << 27, KEY_CERT_SIGN = 1 << 26, CRL_SIGN = 1 << 25, ENCIPHER_ONLY = 1 << 24,
        DECIPHER_ONLY = 1 << 23,
    }
}

attributes! {
    /// `TPMA_NV`, 13.4.
    TpmaNv: u32, reserved 0x01f0_0300; {
        PP_WRITE = 1 << 0, OWNER_WRITE = 1 << 1, AUTH_WRITE = 1 << 2, POLICY_WRITE = 1 << 3,
        POLICY_DELETE = 1 << 10, WRITE_LOCKED = 1 << 11, WRITE_ALL = 1 << 12, WRITE_DEFINE = 1 << 13,
        WRITE_ST_CLEAR = 1 << 14, GLOBAL_LOCK = 1 << 15, PP_READ = 1 << 16, OWNER_READ = 1 << 17,
        AUTH_READ = 1 << 18, POLICY_READ = 1 << 19, NO_DA = 1 << 25, ORDERLY = 1 << 26, CLEAR_ST_CLEAR = 1 << 27,
        READ_LOCKED = 1 << 28, WRITTEN = 1 << 29, PLATFORM_CREATE = 1 << 30, READ_ST_CLEAR = 1 << 31,
    }
}

attributes! {
    /// `TPMA_NV_EXP`: bits 0 to 31 are those of `TPMA_NV`.
    TpmaNvExp: u64, reserved 0xffff_fff8_01f0_0300; {
        EXTERNAL_NV_ENCRYPTION = 1 << 32, EXTERNAL_NV_INTEGRITY = 1 << 33, EXTERNAL_NV_ANTIROLLBACK = 1 << 34,
    }
}

/// `TPM_NT`, 13.3: bits 4 to 7 of `TPMA_NV`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TpmNt {
    /// Plain data.
    Ordinary,
    /// A counter that only goes up.
    Counter,
    /// 64 bits that can only be set.
    Bits,
    /// A digest that is extended.
    Extend,
    /// A PIN that fails after a number of wrong tries.
    PinFail,
    /// A PIN that works a number of times.
    PinPass,
}

impl TpmaNv {
    /// The index type.
    ///
    /// # Errors
    /// `TPM_RC_ATTRIBUTES` for a type the specification does not know.
    pub fn nt(self) -> Result<TpmNt, ResponseCode> {
        match (self.0 >> 4) & 0xf {
            0 => Ok(TpmNt::Ordinary),
            1 => Ok(TpmNt::Counter),
            2 => Ok(TpmNt::Bits),
            4 => Ok(TpmNt::Extend),
            8 => Ok(TpmNt::PinFail),
            9 => Ok(TpmNt::PinPass),
            _ => Err(ResponseCode::ATTRIBUTES),
        }
    }

    /// With the index type set.
    #[must_use]
    pub const fn with_nt(self, nt: TpmNt) -> Self {
        let bits = match nt {
            TpmNt::Ordinary => 0,
            TpmNt::Counter => 1,
            TpmNt::Bits => 2,
            TpmNt::Extend => 4,
            TpmNt::PinFail => 8,
            TpmNt::PinPass => 9,
        };
        Self((self.0 & !0xf0) | (bits << 4))
    }
}

impl TpmaLocality {
    /// The bit, or the extended value, of a locality number; `None` for 5 to 31, which do not exist.
    #[must_use]
    pub const fn of(locality: u8) -> Option<Self> {
        match locality {
            0..=4 => Some(Self(1 << locality)),
            32..=255 => Some(Self(locality)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::decode_exact;

    #[test]
    fn reserved_bits_are_refused() {
        assert_eq!(decode_exact::<TpmaObject>(&[0, 0, 0, 1]), Err(ResponseCode::RESERVED_BITS));
        assert_eq!(decode_exact::<TpmaSession>(&[0x18]), Err(ResponseCode::RESERVED_BITS));
        assert_eq!(decode_exact::<TpmaObject>(&[0, 3, 4, 0x72]).map(|a| a.0), Ok(0x0003_0472));
    }

    #[test]
    fn the_index_type_stands_in_bits_4_to_7() {
        assert_eq!(TpmaNv(0x0004_0014).nt(), Ok(TpmNt::Counter));
        assert_eq!(TpmaNv(0x30).nt(), Err(ResponseCode::ATTRIBUTES));
        assert_eq!(TpmaNv(0).with_nt(TpmNt::PinPass).nt(), Ok(TpmNt::PinPass));
    }
}
