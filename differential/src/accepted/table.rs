//! The table.

use super::{Accepted, Codes, Pattern};
use Codes::{Any, In, Is, Like};
use Pattern::{Code, Field};
use vtpm_protocol::rc::ResponseCode as Rc;
use vtpm_protocol::tpm::TpmCc as C;

const fn accepted(commands: &'static [C], what: Pattern, reason: &'static str) -> Accepted {
    Accepted { commands, mutation: "", what, reason, rare: false }
}

const fn spoilt(mutation: &'static str, what: Pattern, reason: &'static str) -> Accepted {
    Accepted { commands: &[], mutation, what, reason, rare: false }
}

const fn capability(name: &'static str, reason: &'static str) -> Accepted {
    accepted(&[C::GET_CAPABILITY], Field(name), reason)
}

const fn rare(entry: Accepted) -> Accepted {
    Accepted { rare: true, ..entry }
}

const MAKER: &str = "who made it, and which version of the specification it follows";
const ROOM: &str = "how much there is room for";
const NO_TIMER: &str = "libtpms has no countdown timer";
const NOT_IN_09: &str = "libtpms 0.9 has not got it yet";

/// What may differ between swtpm (0.7.1 with libtpms 0.9.2, as Debian 12 has them) and our engine, and why.
pub const TABLE: &[Accepted] = &[
    spoilt(
        "changed",
        Code(In(&[0x95, 0x9a]), Is(0x144)),
        "an authorization area of a wrong size: Part 1 has TPM_RC_AUTHSIZE for it, libtpms SIZE and INSUFFICIENT",
    ),
    spoilt(
        "bytes changed",
        Code(Is(0x84), Is(0x1e)),
        "a tag that is none: Part 3 has TPM_RC_BAD_TAG; libtpms answers VALUE unless the number is some other structure's tag",
    ),
    accepted(
        &[C::GET_TEST_RESULT],
        Field("testResult"),
        "Part 3, 10.4: NEEDS_TEST as long as nothing was tested; libtpms has no such state",
    ),
    capability("TPM_PROPERTIES 0x102", MAKER),
    capability("TPM_PROPERTIES 0x103", MAKER),
    capability("TPM_PROPERTIES 0x104", MAKER),
    capability("TPM_PROPERTIES 0x105", MAKER),
    capability("TPM_PROPERTIES 0x106", MAKER),
    capability("TPM_PROPERTIES 0x107", MAKER),
    capability("TPM_PROPERTIES 0x10b", MAKER),
    capability("TPM_PROPERTIES 0x10c", MAKER),
    capability("TPM_PROPERTIES 0x10f", ROOM),
    capability("TPM_PROPERTIES 0x118", "what its memory is like"),
    capability("TPM_PROPERTIES 0x119", "how often the clock is saved"),
    capability("TPM_PROPERTIES 0x121", ROOM),
    capability("TPM_PROPERTIES 0x122", ROOM),
    capability("TPM_PROPERTIES 0x123", MAKER),
    capability("TPM_PROPERTIES 0x125", MAKER),
    capability("TPM_PROPERTIES 0x126", MAKER),
    capability("TPM_PROPERTIES 0x127", MAKER),
    capability("TPM_PROPERTIES 0x129", "how many commands there are"),
    capability("TPM_PROPERTIES 0x12a", "how many commands there are"),
    capability("TPM_PROPERTIES 0x209", ROOM),
    capability("TPM_PROPERTIES 0x20b", ROOM),
    capability("TPM_PROPERTIES 0x20d", NOT_IN_09),
    capability("ALGS 0x12", NOT_IN_09),
    capability("ALGS 0x27", NOT_IN_09),
    capability("ALGS 0x28", NOT_IN_09),
    capability("ALGS 0x29", NOT_IN_09),
    capability("HANDLES 0x40000110", NO_TIMER),
    rare(capability("AUTH_POLICIES 0x40000110", NO_TIMER)),
    rare(capability("ACT 0x40000110", NO_TIMER)),
    capability("ECC_CURVES 0x10", "BN curves have no maintained implementation in Rust"),
    capability("ECC_CURVES 0x11", "BN curves have no maintained implementation in Rust"),
    accepted(
        &[C::READ_CLOCK],
        Field("safe"),
        "our clock is saved with each command, so that no higher value can have been reported after an unorderly shutdown",
    ),
    accepted(
        &[],
        Field("attest.safe"),
        "our clock is saved with each command, so that no higher value can have been reported after an unorderly shutdown",
    ),
    rare(spoilt(
        "changed",
        Code(Is(0), Is(0xa5)),
        "a modulus that is not the prime's: Import in libtpms leaves that to Load",
    )),
    accepted(
        &[C::INCREMENTAL_SELF_TEST],
        Field("toDoList"),
        "what has been tested already is each TPM's own affair",
    ),
    accepted(
        &[C::CERTIFY_X509],
        Code(Any, Any),
        "which of several faults is told first; libtpms 0.10 has the command no more",
    ),
    accepted(
        &[],
        Code(Is(0x902), Any),
        "in libtpms a persistent object takes the room of a transient one while a command works with it",
    ),
    spoilt(
        "changed",
        Code(Any, In(&[0x982, 0xa82, 0xb82])),
        "Part 2, 8.4: auditReset and auditExclusive only with audit, TPM_RC_ATTRIBUTES; libtpms takes no notice",
    ),
    accepted(
        &[C::RSA_DECRYPT, C::RSA_ENCRYPT, C::ZGEN_2PHASE],
        Code(Is(0x101), Any),
        "OpenSSL's failure, which libtpms passes on",
    ),
    rare(Accepted {
        commands: &[C::GET_CAPABILITY],
        ..spoilt(
            "changed",
            Field("ALGS *"),
            "a property beyond 16 bits, of which libtpms looks at the low half only",
        )
    }),
    rare(Accepted {
        commands: &[C::GET_CAPABILITY],
        ..spoilt(
            "changed",
            Field("HANDLES 0x8*"),
            "the numbers of transient objects are each TPM's own affair",
        )
    }),
    rare(accepted(
        &[],
        Field("signature.r"),
        "the nonce of ECDAA, which libtpms writes as short as it comes",
    )),
    rare(accepted(
        &[C::POLICY_NV, C::POLICY_COUNTER_TIMER],
        Code(In(&[0, 0x126]), In(&[0, 0x126])),
        "negative numbers are compared the wrong way round in libtpms 0.9",
    )),
    rare(Accepted {
        commands: &[C::SEQUENCE_UPDATE],
        ..spoilt(
            "changed",
            Code(Is(0x1c9), Is(0x189)),
            "a handle that libtpms 0.9 calls a parameter, and 0.10 no more",
        )
    }),
    accepted(
        &[C::POLICY_TEMPLATE],
        Code(Is(0x1c4), Is(0x151)),
        "another template than before: CPHASH in the newer reference",
    ),
    rare(accepted(
        &[C::PCR_READ],
        Field("pcrUpdateCounter"),
        "libtpms forgets what a dynamic launch changed after Shutdown(STATE); here the counter goes on",
    )),
    rare(accepted(
        &[C::EC_EPHEMERAL, C::COMMIT],
        Field("counter"),
        "libtpms forgets the commits after Shutdown(STATE); here the counter goes on",
    )),
    rare(capability(
        "TPM_PROPERTIES 0x20e",
        "an unorderly end counts in libtpms also when the command failed that used something protected: see findings",
    )),
    rare(spoilt(
        "changed",
        Code(Like(Rc::SIZE), Like(Rc::INSUFFICIENT)),
        "with RSA keys of 4096 bits some structures may be longer than in libtpms 0.9",
    )),
    rare(spoilt(
        "changed",
        Code(Like(Rc::INSUFFICIENT), Like(Rc::SIZE)),
        "without BN_P638 coordinates are shorter than in libtpms",
    )),
    rare(accepted(&[C::NV_DEFINE_SPACE], Code(Is(0x14b), Is(0)), ROOM)),
    rare(accepted(
        &[],
        Code(In(&[0, 0xa5]), Is(0x2c4)),
        "Part 2, 12.2.3.5: an RSA exponent is a prime above 2; libtpms takes even ones in public keys",
    )),
    accepted(
        &[C::ENCRYPT_DECRYPT, C::ENCRYPT_DECRYPT2],
        Field("ivOut"),
        "after a part of a block: zeros in the reference, the rest of the key stream in libtpms",
    ),
    accepted(
        &[C::IMPORT],
        Code(In(&[0x3d5, 0x3da]), Is(0x3df)),
        "an inner wrapper that a wrong key opens is always INTEGRITY, so that nothing is told of what it decrypts to",
    ),
    rare(accepted(
        &[C::CLOCK_SET],
        Code(In(&[0, 0x1c4]), In(&[0, 0x1c4])),
        "our clock is saved with each command and goes on after an unorderly end, so that it may be ahead of the time that is set",
    )),
    rare(Accepted {
        commands: &[],
        ..spoilt(
            "changed",
            Code(Like(Rc::RESERVED_BITS), Any),
            "attributes of objects that libtpms 0.9 has not got yet: firmwareLimited, svnLimited, x509sign",
        )
    }),
    rare(Accepted {
        commands: &[C::GET_CAPABILITY],
        ..spoilt(
            "changed",
            Field("ECC_CURVES *"),
            "a property beyond 16 bits, of which libtpms looks at the low half only",
        )
    }),
    rare(capability("TPM_PROPERTIES 0x20f", "lockout as Windows wants it")),
    rare(capability("TPM_PROPERTIES 0x210", "lockout as Windows wants it")),
    rare(capability("TPM_PROPERTIES 0x211", "lockout as Windows wants it")),
    rare(accepted(
        &[],
        Code(Is(0x101), Is(0x12f)),
        "libtpms goes into failure mode where a session authorizes a key of which only the public part is there",
    )),
    capability("TPM_PROPERTIES 0x12f", NOT_IN_09),
    capability("TPM_PROPERTIES 0x130", NOT_IN_09),
    accepted(&[C::GET_CAPABILITY], Field("moreData"), "a list that has entries of one side only"),
];

/// Commands that swtpm's process does not survive in some cases, so that there is nothing to compare: libtpms 0.9.2 ends where
/// `TPM2_CertifyX509` is given no signing key, and where `TPM2_Import` is given an RSA key of 3,072 bits in an inner wrapper.
pub const ORACLE_DIES_OF: &[C] = &[C::CERTIFY_X509, C::IMPORT];
