//! The table.

use super::{Accepted, Codes, Pattern, when};
use crate::client::Call;
use Codes::{Any, Failure, In, Is};
use Pattern::{Code, Field};
use vtpm_protocol::tpm::TpmCc as C;

const fn accepted(commands: &'static [C], what: Pattern, reason: &'static str) -> Accepted {
    Accepted { commands, mutation: "", when: |_| true, what, reason, rare: false }
}

/// Where the command was made wrong in a way that is told by this word.
const fn spoilt(mutation: &'static str, entry: Accepted) -> Accepted {
    Accepted { mutation, ..entry }
}

const fn only(when: fn(&Call) -> bool, entry: Accepted) -> Accepted {
    Accepted { when, ..entry }
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
        "bytes changed",
        accepted(
            &[],
            Code(In(&[0x95, 0x9a]), Is(0x144)),
            "an authorization area of a wrong size, of any command: Part 3, 5.4 has TPM_RC_AUTHSIZE for it, libtpms SIZE and INSUFFICIENT",
        ),
    ),
    spoilt(
        "bytes changed: Put(0, ",
        accepted(
            &[],
            Code(Is(0x84), Is(0x1e)),
            "a tag that is none: Part 3 has TPM_RC_BAD_TAG; libtpms answers VALUE unless the number is some other structure's tag",
        ),
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
    capability("ECC_CURVES 0x10", "BN curves have no maintained implementation in Rust"),
    capability("ECC_CURVES 0x11", "BN curves have no maintained implementation in Rust"),
    accepted(
        &[C::READ_CLOCK],
        Field("safe"),
        "our clock is saved with each command, so that no higher value can have been reported after an unorderly shutdown",
    ),
    accepted(
        &[
            C::CERTIFY,
            C::CERTIFY_CREATION,
            C::QUOTE,
            C::GET_TIME,
            C::GET_SESSION_AUDIT_DIGEST,
            C::GET_COMMAND_AUDIT_DIGEST,
            C::NV_CERTIFY,
        ],
        Field("attest.safe"),
        "our clock is saved with each command, so that no higher value can have been reported after an unorderly shutdown",
    ),
    accepted(
        &[C::INCREMENTAL_SELF_TEST],
        Field("toDoList"),
        "what has been tested already is each TPM's own affair",
    ),
    accepted(
        &[C::POLICY_TEMPLATE],
        Code(Is(0x1c4), Is(0x151)),
        "another template than before: CPHASH in the newer reference",
    ),
    rare(accepted(&[C::NV_DEFINE_SPACE], Code(Is(0x14b), Is(0)), ROOM)),
    accepted(
        &[C::ENCRYPT_DECRYPT, C::ENCRYPT_DECRYPT2],
        Field("ivOut"),
        "after a part of a block: zeros in the reference, the rest of the key stream in libtpms",
    ),
    capability("TPM_PROPERTIES 0x12f", NOT_IN_09),
    capability("TPM_PROPERTIES 0x130", NOT_IN_09),
    accepted(&[C::GET_CAPABILITY], Field("moreData"), "a list that has entries of one side only"),
    accepted(
        &[C::IMPORT],
        Code(Is(0), Is(0xa5)),
        "a modulus that is not the prime's: Import in libtpms leaves that to Load",
    ),
    accepted(
        &[C::CERTIFY_X509],
        Code(In(&[0x281, 0x192, 0x19c]), In(&[0x181, 0x292, 0x29c])),
        "libtpms 0.9 numbers the two handles the other way round than Part 3, 18.8",
    ),
    only(
        when::nobody_signs,
        accepted(
            &[C::CERTIFY_X509],
            Code(Failure, Is(0x29c)),
            "nobody signs: KEY, before anything else is looked at; libtpms 0.9 takes no notice, and ends when nothing else is wrong",
        ),
    ),
    rare(accepted(
        &[C::CERTIFY_X509],
        Code(Is(0), Is(0x3c4)),
        "key encipherment by a key that is not restricted, which Part 3, 18.8 forbids as the reference does, and libtpms 0.9 lets pass \
         (seed 20, episode 647)",
    )),
    only(
        when::works_with_persistent,
        accepted(
            &[],
            Code(Is(0x902), Any),
            "in libtpms a persistent object takes the room of a transient one while a command works with it, so that it has no room \
             whatever else there is to say",
        ),
    ),
    only(
        when::audits_without_audit,
        accepted(
            &[],
            Code(Any, In(&[0x982, 0xa82, 0xb82])),
            "Part 2, 8.4: auditReset and auditExclusive only with audit, TPM_RC_ATTRIBUTES; libtpms takes no notice and goes on to what it finds",
        ),
    ),
    accepted(
        &[C::RSA_DECRYPT, C::RSA_ENCRYPT],
        Code(Is(0x101), In(&[0x83, 0x84])),
        "padding that does not fit: OpenSSL's failure, which libtpms passes on",
    ),
    accepted(&[C::ZGEN_2PHASE], Code(Is(0x101), Is(0)), "ECMQV, which fails in libtpms"),
    rare(only(
        when::property_beyond_16_bits,
        accepted(
            &[C::GET_CAPABILITY],
            Field("ALGS *"),
            "a property beyond 16 bits, of which libtpms looks at the low half only",
        ),
    )),
    rare(only(
        when::property_beyond_16_bits,
        accepted(
            &[C::GET_CAPABILITY],
            Field("ECC_CURVES *"),
            "a property beyond 16 bits, of which libtpms looks at the low half only",
        ),
    )),
    rare(accepted(
        &[],
        Field("signature.r of ECDAA"),
        "the nonce of ECDAA, which libtpms writes as short as it comes",
    )),
    accepted(
        &[C::LOAD_EXTERNAL],
        Code(In(&[0, 0xa5]), Is(0x2c4)),
        "Part 2, 12.2.3.5: an RSA exponent is a prime above 2; libtpms takes even ones in public keys",
    ),
    accepted(
        &[C::IMPORT],
        Code(Is(0x3d5), Is(0x3df)),
        "an inner wrapper that a wrong key opens is always INTEGRITY, so that nothing is told of what it decrypts to",
    ),
    only(
        when::session_authorizes,
        accepted(
            &[],
            Code(Is(0x101), In(&[0x12f, 0x921])),
            "libtpms goes into failure mode where a session authorizes a key of which only the public part is there, whatever the lockout",
        ),
    ),
    rare(accepted(
        &[C::POLICY_SIGNED],
        Code(Is(0x5db), Is(0x5cb)),
        "a keyed hash that is no signing key: it would tell whether a guess of sealed data is right (seed 20, episode 276)",
    )),
    rare(only(
        when::limits_an_object,
        accepted(
            &[C::CREATE, C::CREATE_PRIMARY, C::CREATE_LOADED, C::LOAD, C::LOAD_EXTERNAL, C::IMPORT],
            Code(Is(0x2e1), Any),
            "firmwareLimited and svnLimited, which are reserved bits for libtpms 0.9; here it goes on to what it finds (seed 20, episodes 4 and 103)",
        ),
    )),
    rare(accepted(
        &[C::IMPORT],
        Code(Is(0), Is(0x2c4)),
        "Part 2, 12.2.3.5: an RSA exponent is a prime above 2; libtpms takes even ones in public keys (seed 21, episode 525)",
    )),
    rare(spoilt(
        "handle 1 changed",
        only(
            when::first_object_differs,
            accepted(
                &[C::VERIFY_SIGNATURE],
                Code(In(&[0, 0x2db]), In(&[0, 0x2db])),
                "the very key that made the signature, which the one side made and both verify (seed 31, episode 850)",
            ),
        ),
    )),
    rare(only(
        when::has_a_size_of_rsa_4096,
        accepted(
            &[
                C::START_AUTH_SESSION,
                C::LOAD,
                C::LOAD_EXTERNAL,
                C::VERIFY_SIGNATURE,
                C::RSA_ENCRYPT,
                C::RSA_DECRYPT,
            ],
            Code(In(&[0x1d5, 0x2d5]), In(&[0x1da, 0x2da])),
            "salts, moduli, signatures and messages may be longer here, as there are RSA keys of 4096 bits, and then are not there \
             (seed 20, episode 157; seed 21, episodes 66, 3026 and 3481; seed 31, episode 524)",
        ),
    )),
    rare(spoilt(
        "bytes changed: Put(6, [0, 0, 1, 89])",
        only(
            when::has_a_size_of_rsa_4096,
            accepted(
                &[],
                Code(Is(0x1d5), Is(0x2da)),
                "made TPM2_RSA_Decrypt, whose ciphertext may be longer here, as there are RSA keys of 4096 bits (seed 21, episode 1314)",
            ),
        ),
    )),
    rare(only(
        when::has_a_size_of_bn_p638,
        accepted(
            &[C::CREATE, C::LOAD_EXTERNAL, C::IMPORT, C::ECDH_ZGEN, C::COMMIT, C::VERIFY_SIGNATURE],
            Code(In(&[0x1da, 0x2da, 0x3da]), In(&[0x1d5, 0x2d5, 0x3d5])),
            "coordinates and numbers on a curve may be longer in libtpms, which has BN_P638, and then are not there (seed 20, episodes 185, \
             1734, 1752 and 2457; seed 21, episodes 1174 and 2385)",
        ),
    )),
    rare(accepted(
        &[C::LOAD],
        Code(Is(0x1d5), Is(0x1da)),
        "a private area may be longer here, as there are RSA keys of 4096 bits (seed 20, episode 1940)",
    )),
    rare(accepted(
        &[C::IMPORT],
        Code(Is(0x3d5), Is(0x3da)),
        "a duplicate may be longer here, as there are RSA keys of 4096 bits (seed 20, episode 621)",
    )),
    rare(accepted(
        &[C::CREATE_LOADED],
        Code(Is(0x2d5), Is(0x2da)),
        "a template may be longer here, as there are RSA keys of 4096 bits (seed 20, episode 1274)",
    )),
    rare(accepted(
        &[C::TEST_PARMS],
        Code(Is(0x1da), Is(0x1e6)),
        "BN_P256 is a curve for libtpms, which goes on to what is missing behind it (seed 20, episode 3008)",
    )),
    rare(accepted(
        &[C::LOAD_EXTERNAL],
        Code(Is(0x2c3), Is(0x2e6)),
        "BN_P256 is a curve for libtpms, which goes on to the hash of a key derivation behind it (seed 20, episode 3420)",
    )),
    rare(only(
        when::compares_signed,
        accepted(
            &[C::POLICY_NV, C::POLICY_COUNTER_TIMER],
            Code(In(&[0, 0x126]), In(&[0, 0x126])),
            "two negative numbers are compared the wrong way round in libtpms 0.9 (seed 20, episodes 1177 and 1417)",
        ),
    )),
    rare(spoilt(
        "parameters changed",
        only(
            when::compares_the_clock,
            accepted(
                &[C::POLICY_COUNTER_TIMER],
                Code(In(&[0, 0x126]), In(&[0, 0x126])),
                "what time it is, and whether our clock is safe after an unorderly end, as it is saved with each command (seed 20, episode 1528)",
            ),
        ),
    )),
    rare(accepted(
        &[C::SEQUENCE_UPDATE],
        Code(Is(0x1c9), Is(0x189)),
        "no sequence: a handle that libtpms 0.9 calls a parameter, and 0.10 no more (seed 20, episode 1350)",
    )),
    rare(accepted(
        &[C::CLOCK_SET],
        Code(Is(0), Is(0x1c4)),
        "our clock is saved with each command and goes on after an unorderly end, so that it may be ahead of the time that is set \
         (seed 20, episode 2760)",
    )),
    rare(spoilt(
        when::BEFORE_BYTES_THAT_DIFFER,
        accepted(
            &[C::CONTEXT_LOAD],
            Code(Is(0x1da), Is(0x95)),
            "the size of the context was changed, which is another one on each side (seed 20, episode 550)",
        ),
    )),
    rare(spoilt(
        when::BEFORE_BYTES_THAT_DIFFER,
        accepted(
            &[C::POLICY_DUPLICATION_SELECT],
            Code(In(&[0x1d5, 0x2d5]), In(&[0x1d5, 0x2d5])),
            "a size was changed, so that a Name that differs is read as another size (seed 21, episode 2756)",
        ),
    )),
    rare(spoilt(
        when::BEFORE_BYTES_THAT_DIFFER,
        accepted(
            &[C::ACTIVATE_CREDENTIAL],
            Code(In(&[0x95, 0x2d5, 0x2da, 0x2e7]), In(&[0x95, 0x2d5, 0x2da, 0x2e7])),
            "a size was changed, so that what each side made up at random is read as another size (seed 20, episodes 125 and 1110)",
        ),
    )),
];

/// Commands that swtpm's process does not survive in some cases, so that there is nothing to compare: libtpms 0.9.2 ends where
/// `TPM2_CertifyX509` is given no signing key, and where `TPM2_Import` is given an RSA key of 3,072 bits in an inner wrapper.
pub const ORACLE_DIES_OF: &[C] = &[C::CERTIFY_X509, C::IMPORT];
