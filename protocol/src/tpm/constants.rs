//! Constants of Part 2, chapters 6 and 7: algorithm ids, command codes, structure tags, handles, capabilities, properties.

use crate::codec::{Decode, Encode, Reader};
use crate::rc::ResponseCode;
use core::fmt;

macro_rules! constants {
    ($(#[$m:meta])* $name:ident : $repr:ty { $($(#[$cm:meta])* $c:ident = $v:expr),* $(,)? }) => {
        $(#[$m])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $repr);

        impl $name {
            $(
                #[doc = concat!("`", stringify!($c), "` of Part 2.")]
                $(#[$cm])*
                pub const $c: Self = Self($v);
            )*

            /// The specification's name of the value, where it has one.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                $(if self == Self::$c { return Some(stringify!($c)); })*
                None
            }
        }

        impl Encode for $name {
            fn encode(&self, out: &mut Vec<u8>) {
                self.0.encode(out);
            }
        }

        impl Decode for $name {
            fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
                Ok(Self(<$repr>::decode(r)?))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, concat!(stringify!($name), "(0x{:x})"), self.0),
                }
            }
        }
    };
}

constants! {
    /// `TPM_ALG_ID`, 6.3.
    TpmAlgId: u16 {
        ERROR = 0x0000, RSA = 0x0001, TDES = 0x0003, SHA1 = 0x0004, HMAC = 0x0005, AES = 0x0006, MGF1 = 0x0007,
        KEYEDHASH = 0x0008, XOR = 0x000a, SHA256 = 0x000b, SHA384 = 0x000c, SHA512 = 0x000d, NULL = 0x0010,
        SM3_256 = 0x0012, SM4 = 0x0013, RSASSA = 0x0014, RSAES = 0x0015, RSAPSS = 0x0016, OAEP = 0x0017,
        ECDSA = 0x0018, ECDH = 0x0019, ECDAA = 0x001a, SM2 = 0x001b, ECSCHNORR = 0x001c, ECMQV = 0x001d,
        KDF1_SP800_56A = 0x0020, KDF2 = 0x0021, KDF1_SP800_108 = 0x0022, ECC = 0x0023, SYMCIPHER = 0x0025,
        CAMELLIA = 0x0026, SHA3_256 = 0x0027, SHA3_384 = 0x0028, SHA3_512 = 0x0029, CMAC = 0x003f, CTR = 0x0040,
        OFB = 0x0041, CBC = 0x0042, CFB = 0x0043, ECB = 0x0044,
    }
}

constants! {
    /// `TPM_ECC_CURVE`, 6.4.
    TpmEccCurve: u16 {
        NONE = 0x0000, NIST_P192 = 0x0001, NIST_P224 = 0x0002, NIST_P256 = 0x0003, NIST_P384 = 0x0004,
        NIST_P521 = 0x0005, BN_P256 = 0x0010, BN_P638 = 0x0011, SM2_P256 = 0x0020,
    }
}

constants! {
    /// `TPM_CC`, 6.5.2. Codes of vendor commands have the V bit set; ours are in `instance`.
    TpmCc: u32 {
        NV_UNDEFINE_SPACE_SPECIAL = 0x011f, EVICT_CONTROL = 0x0120, HIERARCHY_CONTROL = 0x0121,
        NV_UNDEFINE_SPACE = 0x0122, CHANGE_EPS = 0x0124, CHANGE_PPS = 0x0125, CLEAR = 0x0126, CLEAR_CONTROL = 0x0127,
        CLOCK_SET = 0x0128, HIERARCHY_CHANGE_AUTH = 0x0129, NV_DEFINE_SPACE = 0x012a, PCR_ALLOCATE = 0x012b,
        PCR_SET_AUTH_POLICY = 0x012c, PP_COMMANDS = 0x012d, SET_PRIMARY_POLICY = 0x012e, CLOCK_RATE_ADJUST = 0x0130,
        FIELD_UPGRADE_START = 0x012f, CREATE_PRIMARY = 0x0131, NV_GLOBAL_WRITE_LOCK = 0x0132, GET_COMMAND_AUDIT_DIGEST = 0x0133,
        NV_INCREMENT = 0x0134, NV_SET_BITS = 0x0135, NV_EXTEND = 0x0136, NV_WRITE = 0x0137, NV_WRITE_LOCK = 0x0138,
        DICTIONARY_ATTACK_LOCK_RESET = 0x0139, DICTIONARY_ATTACK_PARAMETERS = 0x013a, NV_CHANGE_AUTH = 0x013b,
        PCR_EVENT = 0x013c, PCR_RESET = 0x013d, SEQUENCE_COMPLETE = 0x013e, SET_ALGORITHM_SET = 0x013f,
        SET_COMMAND_CODE_AUDIT_STATUS = 0x0140, FIELD_UPGRADE_DATA = 0x0141, INCREMENTAL_SELF_TEST = 0x0142, SELF_TEST = 0x0143, STARTUP = 0x0144,
        SHUTDOWN = 0x0145, STIR_RANDOM = 0x0146, ACTIVATE_CREDENTIAL = 0x0147, CERTIFY = 0x0148, POLICY_NV = 0x0149,
        CERTIFY_CREATION = 0x014a, DUPLICATE = 0x014b, GET_TIME = 0x014c, GET_SESSION_AUDIT_DIGEST = 0x014d,
        NV_READ = 0x014e, NV_READ_LOCK = 0x014f, OBJECT_CHANGE_AUTH = 0x0150, POLICY_SECRET = 0x0151, REWRAP = 0x0152,
        CREATE = 0x0153, ECDH_ZGEN = 0x0154, HMAC = 0x0155,
        /// The code of `TPM2_HMAC`; the key's type tells which of the two it is.
        MAC = 0x0155,
        IMPORT = 0x0156, LOAD = 0x0157, QUOTE = 0x0158,
        RSA_DECRYPT = 0x0159, HMAC_START = 0x015b,
        /// The code of `TPM2_HMAC_Start`.
        MAC_START = 0x015b,
        SEQUENCE_UPDATE = 0x015c, SIGN = 0x015d, UNSEAL = 0x015e,
        POLICY_SIGNED = 0x0160, CONTEXT_LOAD = 0x0161, CONTEXT_SAVE = 0x0162, ECDH_KEY_GEN = 0x0163,
        ENCRYPT_DECRYPT = 0x0164, FLUSH_CONTEXT = 0x0165, LOAD_EXTERNAL = 0x0167, MAKE_CREDENTIAL = 0x0168,
        NV_READ_PUBLIC = 0x0169, POLICY_AUTHORIZE = 0x016a, POLICY_AUTH_VALUE = 0x016b, POLICY_COMMAND_CODE = 0x016c,
        POLICY_COUNTER_TIMER = 0x016d, POLICY_CP_HASH = 0x016e, POLICY_LOCALITY = 0x016f, POLICY_NAME_HASH = 0x0170,
        POLICY_OR = 0x0171, POLICY_TICKET = 0x0172, READ_PUBLIC = 0x0173, RSA_ENCRYPT = 0x0174,
        START_AUTH_SESSION = 0x0176, VERIFY_SIGNATURE = 0x0177, ECC_PARAMETERS = 0x0178, FIRMWARE_READ = 0x0179,
        GET_CAPABILITY = 0x017a, GET_RANDOM = 0x017b, GET_TEST_RESULT = 0x017c, HASH = 0x017d, PCR_READ = 0x017e,
        POLICY_PCR = 0x017f, POLICY_RESTART = 0x0180, READ_CLOCK = 0x0181, PCR_EXTEND = 0x0182,
        PCR_SET_AUTH_VALUE = 0x0183, NV_CERTIFY = 0x0184, EVENT_SEQUENCE_COMPLETE = 0x0185,
        HASH_SEQUENCE_START = 0x0186, POLICY_PHYSICAL_PRESENCE = 0x0187, POLICY_DUPLICATION_SELECT = 0x0188,
        POLICY_GET_DIGEST = 0x0189, TEST_PARMS = 0x018a, COMMIT = 0x018b, POLICY_PASSWORD = 0x018c,
        ZGEN_2PHASE = 0x018d, EC_EPHEMERAL = 0x018e, POLICY_NV_WRITTEN = 0x018f, POLICY_TEMPLATE = 0x0190,
        CREATE_LOADED = 0x0191, POLICY_AUTHORIZE_NV = 0x0192, ENCRYPT_DECRYPT2 = 0x0193, AC_GET_CAPABILITY = 0x0194,
        AC_SEND = 0x0195, POLICY_AC_SEND_SELECT = 0x0196, CERTIFY_X509 = 0x0197, ACT_SET_TIMEOUT = 0x0198,
        ECC_ENCRYPT = 0x0199, ECC_DECRYPT = 0x019a, POLICY_CAPABILITY = 0x019b, POLICY_PARAMETERS = 0x019c,
        NV_DEFINE_SPACE2 = 0x019d, NV_READ_PUBLIC2 = 0x019e, SET_CAPABILITY = 0x019f, READ_ONLY_CONTROL = 0x01a0,
        POLICY_TRANSPORT_SPDM = 0x01a1,
    }
}

constants! {
    /// `TPM_EO`, 6.8.
    TpmEo: u16 {
        EQ = 0x0000, NEQ = 0x0001, SIGNED_GT = 0x0002, UNSIGNED_GT = 0x0003, SIGNED_LT = 0x0004, UNSIGNED_LT = 0x0005,
        SIGNED_GE = 0x0006, UNSIGNED_GE = 0x0007, SIGNED_LE = 0x0008, UNSIGNED_LE = 0x0009, BITSET = 0x000a,
        BITCLEAR = 0x000b,
    }
}

constants! {
    /// `TPM_ST`, 6.9.
    TpmSt: u16 {
        RSP_COMMAND = 0x00c4, NULL = 0x8000, NO_SESSIONS = 0x8001, SESSIONS = 0x8002, ATTEST_NV = 0x8014,
        ATTEST_COMMAND_AUDIT = 0x8015, ATTEST_SESSION_AUDIT = 0x8016, ATTEST_CERTIFY = 0x8017, ATTEST_QUOTE = 0x8018,
        ATTEST_TIME = 0x8019, ATTEST_CREATION = 0x801a, ATTEST_NV_DIGEST = 0x801c, CREATION = 0x8021,
        VERIFIED = 0x8022, AUTH_SECRET = 0x8023, HASHCHECK = 0x8024, AUTH_SIGNED = 0x8025,
        FU_MANIFEST = 0x8029,
    }
}

constants! {
    /// `TPM_SU`, 6.10.
    TpmSu: u16 { CLEAR = 0x0000, STATE = 0x0001 }
}

constants! {
    /// `TPM_CLOCK_ADJUST`, 6.7: a signed byte.
    TpmClockAdjust: u8 {
        COARSE_SLOWER = 0xfd, MEDIUM_SLOWER = 0xfe, FINE_SLOWER = 0xff, NO_CHANGE = 0x00, FINE_FASTER = 0x01,
        MEDIUM_FASTER = 0x02, COARSE_FASTER = 0x03,
    }
}

constants! {
    /// `TPM_SE`, 6.11.
    TpmSe: u8 { HMAC = 0x00, POLICY = 0x01, TRIAL = 0x03 }
}

constants! {
    /// `TPM_CAP`, 6.12.
    TpmCap: u32 {
        ALGS = 0x0, HANDLES = 0x1, COMMANDS = 0x2, PP_COMMANDS = 0x3, AUDIT_COMMANDS = 0x4, PCRS = 0x5,
        TPM_PROPERTIES = 0x6, PCR_PROPERTIES = 0x7, ECC_CURVES = 0x8, AUTH_POLICIES = 0x9, ACT = 0xa,
        PUB_KEYS = 0xb, SPDM_SESSION_INFO = 0xc, VENDOR_PROPERTY = 0x100,
    }
}

constants! {
    /// `TPM_PT`, 6.13.
    TpmPt: u32 {
        FAMILY_INDICATOR = 0x100, LEVEL = 0x101, REVISION = 0x102, DAY_OF_YEAR = 0x103, YEAR = 0x104,
        MANUFACTURER = 0x105, VENDOR_STRING_1 = 0x106, VENDOR_STRING_2 = 0x107, VENDOR_STRING_3 = 0x108,
        VENDOR_STRING_4 = 0x109, VENDOR_TPM_TYPE = 0x10a, FIRMWARE_VERSION_1 = 0x10b, FIRMWARE_VERSION_2 = 0x10c,
        INPUT_BUFFER = 0x10d, HR_TRANSIENT_MIN = 0x10e, HR_PERSISTENT_MIN = 0x10f, HR_LOADED_MIN = 0x110,
        ACTIVE_SESSIONS_MAX = 0x111, PCR_COUNT = 0x112, PCR_SELECT_MIN = 0x113, CONTEXT_GAP_MAX = 0x114,
        NV_COUNTERS_MAX = 0x116, NV_INDEX_MAX = 0x117, MEMORY = 0x118, CLOCK_UPDATE = 0x119, CONTEXT_HASH = 0x11a,
        CONTEXT_SYM = 0x11b, CONTEXT_SYM_SIZE = 0x11c, ORDERLY_COUNT = 0x11d, MAX_COMMAND_SIZE = 0x11e,
        MAX_RESPONSE_SIZE = 0x11f, MAX_DIGEST = 0x120, MAX_OBJECT_CONTEXT = 0x121, MAX_SESSION_CONTEXT = 0x122,
        PS_FAMILY_INDICATOR = 0x123, PS_LEVEL = 0x124, PS_REVISION = 0x125, PS_DAY_OF_YEAR = 0x126, PS_YEAR = 0x127,
        SPLIT_MAX = 0x128, TOTAL_COMMANDS = 0x129, LIBRARY_COMMANDS = 0x12a, VENDOR_COMMANDS = 0x12b,
        NV_BUFFER_MAX = 0x12c, MODES = 0x12d, MAX_CAP_BUFFER = 0x12e, FIRMWARE_SVN = 0x12f,
        FIRMWARE_MAX_SVN = 0x130,
        PERMANENT = 0x200, STARTUP_CLEAR = 0x201, HR_NV_INDEX = 0x202, HR_LOADED = 0x203, HR_LOADED_AVAIL = 0x204,
        HR_ACTIVE = 0x205, HR_ACTIVE_AVAIL = 0x206, HR_TRANSIENT_AVAIL = 0x207, HR_PERSISTENT = 0x208,
        HR_PERSISTENT_AVAIL = 0x209, NV_COUNTERS = 0x20a, NV_COUNTERS_AVAIL = 0x20b, ALGORITHM_SET = 0x20c,
        LOADED_CURVES = 0x20d, LOCKOUT_COUNTER = 0x20e, MAX_AUTH_FAIL = 0x20f, LOCKOUT_INTERVAL = 0x210,
        LOCKOUT_RECOVERY = 0x211, NV_WRITE_RECOVERY = 0x212, AUDIT_COUNTER_0 = 0x213, AUDIT_COUNTER_1 = 0x214,
    }
}

constants! {
    /// `TPM_PT_PCR`, 6.14.
    TpmPtPcr: u32 {
        SAVE = 0x00, EXTEND_L0 = 0x01, RESET_L0 = 0x02, EXTEND_L1 = 0x03, RESET_L1 = 0x04, EXTEND_L2 = 0x05,
        RESET_L2 = 0x06, EXTEND_L3 = 0x07, RESET_L3 = 0x08, EXTEND_L4 = 0x09, RESET_L4 = 0x0a, NO_INCREMENT = 0x11,
        DRTM_RESET = 0x12, POLICY = 0x13, AUTH = 0x14,
    }
}

constants! {
    /// `TPM_HANDLE` and `TPM_RH`, 7.1 and 7.4.
    TpmHandle: u32 {
        OWNER = 0x4000_0001, NULL = 0x4000_0007, UNASSIGNED = 0x4000_0008, RS_PW = 0x4000_0009,
        LOCKOUT = 0x4000_000a, ENDORSEMENT = 0x4000_000b, PLATFORM = 0x4000_000c, PLATFORM_NV = 0x4000_000d,
        ACT_0 = 0x4000_0110, ACT_F = 0x4000_011f,
    }
}

constants! {
    /// `TPM_HT`, 7.2: the most significant byte of a handle.
    TpmHt: u8 {
        PCR = 0x00, NV_INDEX = 0x01,
        /// Also `TPM_HT_LOADED_SESSION`.
        HMAC_SESSION = 0x02,
        /// Also `TPM_HT_SAVED_SESSION`.
        POLICY_SESSION = 0x03,
        EXTERNAL_NV = 0x11, PERMANENT_NV = 0x12, PERMANENT = 0x40, TRANSIENT = 0x80, PERSISTENT = 0x81, AC = 0x90,
        /// Ours: an instance of the instance tree, from the range the specification leaves to vendors.
        INSTANCE = 0xa0,
    }
}

impl TpmHandle {
    /// The handle's type.
    #[must_use]
    pub const fn handle_type(self) -> TpmHt {
        let [first, ..] = self.0.to_be_bytes();
        TpmHt(first)
    }

    /// The handle without its type: the PCR's number, the session's slot and so on.
    #[must_use]
    pub const fn index(self) -> u32 {
        self.0 & 0x00ff_ffff
    }

    /// A handle of a type and an index of at most 24 bits.
    #[must_use]
    pub const fn new(handle_type: TpmHt, index: u32) -> Self {
        Self(((handle_type.0 as u32) << 24) | (index & 0x00ff_ffff))
    }
}

/// The number of PCRs in each bank, as the PC Client profile has it.
pub const PCR_COUNT: u32 = 24;
/// Bytes in a PCR selection bitmap: one bit for each PCR.
pub const PCR_SELECT_SIZE: usize = 3;
/// The greatest size of a digest of an implemented hash, in bytes.
pub const MAX_DIGEST_SIZE: usize = 64;
/// `MAX_DIGEST_BUFFER`, what a `TPM2B_MAX_BUFFER` holds.
pub const MAX_DIGEST_BUFFER: usize = 1024;
/// `MAX_NV_BUFFER_SIZE`, what one NV read or write moves.
pub const MAX_NV_BUFFER_SIZE: usize = 1024;
/// `MAX_NV_INDEX_SIZE`, the greatest data area of an NV index.
pub const MAX_NV_INDEX_SIZE: usize = 2048;
/// `TPM_MAX_DERIVATION_BITS`: the length that the KDF of derived objects is told, whatever is used of it. No object needs as much.
pub const MAX_DERIVATION_BITS: u32 = 8192;
/// `LABEL_MAX_BUFFER`, the most bytes of the label and of the context of a derivation.
pub const LABEL_MAX_BUFFER: usize = 32;
/// `MAX_SYM_DATA`, the most bytes of sealed data.
pub const MAX_SYM_DATA: usize = 128;
/// `MAX_CAP_BUFFER`, the space for the data of one `TPM2_GetCapability` response.
pub const MAX_CAP_BUFFER: usize = 1024;
/// `MAX_CAP_CC`, the most entries of a list of command codes.
pub const MAX_CAP_CC: usize = (MAX_CAP_BUFFER - 8) / 4;
/// The greatest RSA modulus, in bytes.
pub const MAX_RSA_KEY_BYTES: usize = 512;
/// The greatest coordinate of an ECC point, in bytes.
pub const MAX_ECC_KEY_BYTES: usize = 66;
/// `TPM_PT_SPLIT_MAX`, how many commitments can be outstanding.
pub const SPLIT_MAX: u16 = 128;
/// `MAX_ALG_LIST_SIZE`, the most algorithms of a `TPML_ALG`.
pub const MAX_ALG_LIST_SIZE: usize = 64;
/// `TPM_GENERATED_VALUE`, 6.2.
pub const TPM_GENERATED: u32 = 0xff54_4347;
/// The timeout of an authenticated countdown timer that stands: `TPM2_ACT_SetTimeout` with it takes the signal back.
pub const ACT_STOPPED: u32 = 0xffff_ffff;
/// `PT_GROUP`, how many properties each group of `TPM_PT` has room for.
pub const PT_GROUP: u32 = 0x100;
/// `MAX_CONTEXT_SIZE`, the most bytes of the blob of a saved context.
pub const MAX_CONTEXT_SIZE: usize = 3584;
/// `MAX_COMMAND_SIZE`, the longest command in bytes.
pub const MAX_COMMAND_SIZE: usize = 4096;
/// `MAX_RESPONSE_SIZE`, the longest response in bytes.
pub const MAX_RESPONSE_SIZE: usize = 4096;
/// Bytes of a command or response header: tag, size, code.
pub const HEADER_SIZE: usize = 10;
