//! `TPM_RC`: the response codes of Part 2, 6.6.

use core::fmt;

/// A response code, with the number of the handle, session or parameter it blames where it blames one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[must_use]
pub struct ResponseCode(u32);

const VER1: u32 = 0x100;
const FMT1: u32 = 0x080;
const WARN: u32 = 0x900;
/// `TPM_RC_P`: the error is in a parameter.
const PARAMETER: u32 = 0x040;
/// `TPM_RC_S`: the error is in a session.
const SESSION: u32 = 0x800;

macro_rules! codes {
    ($($name:ident = $value:expr;)*) => {
        impl ResponseCode {
            $(#[doc = concat!("`TPM_RC_", stringify!($name), "`")]
            pub const $name: Self = Self($value);)*

            /// The specification's name of the base code, without `TPM_RC_`.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                match self.base() {
                    $(Self::$name => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    SUCCESS = 0x000;
    BAD_TAG = 0x01e;

    INITIALIZE = VER1;
    FAILURE = VER1 + 0x001;
    SEQUENCE = VER1 + 0x003;
    PRIVATE = VER1 + 0x00b;
    HMAC = VER1 + 0x019;
    DISABLED = VER1 + 0x020;
    EXCLUSIVE = VER1 + 0x021;
    AUTH_TYPE = VER1 + 0x024;
    AUTH_MISSING = VER1 + 0x025;
    POLICY = VER1 + 0x026;
    PCR = VER1 + 0x027;
    PCR_CHANGED = VER1 + 0x028;
    UPGRADE = VER1 + 0x02d;
    TOO_MANY_CONTEXTS = VER1 + 0x02e;
    AUTH_UNAVAILABLE = VER1 + 0x02f;
    REBOOT = VER1 + 0x030;
    UNBALANCED = VER1 + 0x031;
    COMMAND_SIZE = VER1 + 0x042;
    COMMAND_CODE = VER1 + 0x043;
    AUTHSIZE = VER1 + 0x044;
    AUTH_CONTEXT = VER1 + 0x045;
    NV_RANGE = VER1 + 0x046;
    NV_SIZE = VER1 + 0x047;
    NV_LOCKED = VER1 + 0x048;
    NV_AUTHORIZATION = VER1 + 0x049;
    NV_UNINITIALIZED = VER1 + 0x04a;
    NV_SPACE = VER1 + 0x04b;
    NV_DEFINED = VER1 + 0x04c;
    BAD_CONTEXT = VER1 + 0x050;
    CPHASH = VER1 + 0x051;
    PARENT = VER1 + 0x052;
    NEEDS_TEST = VER1 + 0x053;
    NO_RESULT = VER1 + 0x054;
    SENSITIVE = VER1 + 0x055;
    READ_ONLY = VER1 + 0x056;

    ASYMMETRIC = FMT1 + 0x001;
    ATTRIBUTES = FMT1 + 0x002;
    HASH = FMT1 + 0x003;
    VALUE = FMT1 + 0x004;
    HIERARCHY = FMT1 + 0x005;
    KEY_SIZE = FMT1 + 0x007;
    MGF = FMT1 + 0x008;
    MODE = FMT1 + 0x009;
    TYPE = FMT1 + 0x00a;
    HANDLE = FMT1 + 0x00b;
    KDF = FMT1 + 0x00c;
    RANGE = FMT1 + 0x00d;
    AUTH_FAIL = FMT1 + 0x00e;
    NONCE = FMT1 + 0x00f;
    PP = FMT1 + 0x010;
    SCHEME = FMT1 + 0x012;
    SIZE = FMT1 + 0x015;
    SYMMETRIC = FMT1 + 0x016;
    TAG = FMT1 + 0x017;
    SELECTOR = FMT1 + 0x018;
    INSUFFICIENT = FMT1 + 0x01a;
    SIGNATURE = FMT1 + 0x01b;
    KEY = FMT1 + 0x01c;
    POLICY_FAIL = FMT1 + 0x01d;
    INTEGRITY = FMT1 + 0x01f;
    TICKET = FMT1 + 0x020;
    RESERVED_BITS = FMT1 + 0x021;
    BAD_AUTH = FMT1 + 0x022;
    EXPIRED = FMT1 + 0x023;
    POLICY_CC = FMT1 + 0x024;
    BINDING = FMT1 + 0x025;
    CURVE = FMT1 + 0x026;
    ECC_POINT = FMT1 + 0x027;
    FW_LIMITED = FMT1 + 0x028;
    SVN_LIMITED = FMT1 + 0x029;
    CHANNEL = FMT1 + 0x030;
    CHANNEL_KEY = FMT1 + 0x031;

    CONTEXT_GAP = WARN + 0x001;
    OBJECT_MEMORY = WARN + 0x002;
    SESSION_MEMORY = WARN + 0x003;
    MEMORY = WARN + 0x004;
    SESSION_HANDLES = WARN + 0x005;
    OBJECT_HANDLES = WARN + 0x006;
    LOCALITY = WARN + 0x007;
    YIELDED = WARN + 0x008;
    CANCELED = WARN + 0x009;
    TESTING = WARN + 0x00a;
    REFERENCE_H0 = WARN + 0x010;
    REFERENCE_H1 = WARN + 0x011;
    REFERENCE_H2 = WARN + 0x012;
    REFERENCE_H3 = WARN + 0x013;
    REFERENCE_H4 = WARN + 0x014;
    REFERENCE_H5 = WARN + 0x015;
    REFERENCE_H6 = WARN + 0x016;
    REFERENCE_S0 = WARN + 0x018;
    REFERENCE_S1 = WARN + 0x019;
    REFERENCE_S2 = WARN + 0x01a;
    REFERENCE_S3 = WARN + 0x01b;
    REFERENCE_S4 = WARN + 0x01c;
    REFERENCE_S5 = WARN + 0x01d;
    REFERENCE_S6 = WARN + 0x01e;
    NV_RATE = WARN + 0x020;
    LOCKOUT = WARN + 0x021;
    RETRY = WARN + 0x022;
    NV_UNAVAILABLE = WARN + 0x023;
}

impl ResponseCode {
    /// The number as it stands in a response header.
    #[must_use]
    pub const fn value(self) -> u32 {
        self.0
    }

    /// From the number in a response header.
    pub const fn from_value(value: u32) -> Self {
        Self(value)
    }

    const fn is_format_one(self) -> bool {
        self.0 & FMT1 != 0
    }

    /// The code without the handle, session or parameter it blames.
    pub const fn base(self) -> Self {
        if self.is_format_one() { Self(self.0 & 0x0bf) } else { self }
    }

    /// Whether two codes are the same but for what they blame.
    #[must_use]
    pub fn is(self, other: Self) -> bool {
        self.base() == other.base()
    }

    /// Blames parameter `n`, counted from 1. Codes of format zero carry no number and stay as they are, as does
    /// one that already blames something.
    pub const fn parameter(self, n: u32) -> Self {
        if self.blames() { self } else { Self(self.0 | PARAMETER | ((n & 0xf) << 8)) }
    }

    /// Blames handle `n`, counted from 1.
    pub const fn handle(self, n: u32) -> Self {
        if self.blames() { self } else { Self(self.0 | ((n & 0x7) << 8)) }
    }

    /// Blames session `n`, counted from 1.
    pub const fn session(self, n: u32) -> Self {
        if self.blames() { self } else { Self(self.0 | SESSION | ((n & 0x7) << 8)) }
    }

    /// True for a code that must be left as it is: format zero, or already numbered.
    const fn blames(self) -> bool {
        !self.is_format_one() || self.0 & 0xf40 != 0
    }
}

impl fmt::Display for ResponseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "TPM_RC_{name} (0x{:03x})", self.0)?,
            None => write!(f, "TPM_RC 0x{:03x}", self.0)?,
        }
        if self.is_format_one() && self.0 & 0xf40 != 0 {
            let n = (self.0 >> 8) & 0xf;
            if self.0 & PARAMETER != 0 {
                write!(f, ", parameter {n}")?;
            } else if self.0 & SESSION != 0 {
                write!(f, ", session {}", n & 7)?;
            } else {
                write!(f, ", handle {n}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for ResponseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl core::error::Error for ResponseCode {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_part_2() {
        assert_eq!(ResponseCode::AUTH_FAIL.session(1).value(), 0x98e);
        assert_eq!(ResponseCode::VALUE.parameter(2).value(), 0x2c4);
        assert_eq!(ResponseCode::HANDLE.handle(1).value(), 0x18b);
        assert_eq!(ResponseCode::LOCKOUT.value(), 0x921);
        assert_eq!(ResponseCode::RETRY.value(), 0x922);
        assert_eq!(ResponseCode::COMMAND_CODE.value(), 0x143);
        assert_eq!(ResponseCode::INITIALIZE.value(), 0x100);
    }

    #[test]
    fn only_an_unnumbered_format_one_code_takes_a_number() {
        assert_eq!(ResponseCode::RETRY.parameter(1), ResponseCode::RETRY);
        assert_eq!(ResponseCode::VALUE.handle(2).parameter(1), ResponseCode::VALUE.handle(2));
        assert!(ResponseCode::VALUE.handle(2).is(ResponseCode::VALUE));
        assert_eq!(ResponseCode::AUTH_FAIL.session(1).to_string(), "TPM_RC_AUTH_FAIL (0x98e), session 1");
    }
}
