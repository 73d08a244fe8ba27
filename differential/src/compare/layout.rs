//! The response parameters of each command, as Part 3's tables have them.

use vtpm_protocol::tpm::TpmCc as C;

/// How a field is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// A number of so many bytes that must be equal.
    Number(usize),
    /// A number of so many bytes that need not.
    AnyNumber(usize),
    /// A `TPM2B` that must be equal.
    Equal,
    /// A `TPM2B` that must be equal when what it is made of is; else of equal size.
    Known,
    /// A `TPM2B` that must be equal unless the command was made wrong.
    Message,
    /// A `TPM2B` of equal size.
    Random,
    /// A `TPM2B` that each may fill as it likes.
    Any,
    /// `TPM2B_PUBLIC` with a unique part that must be equal when what it is made of is.
    Public,
    /// `TPM2B_CREATION_DATA` and the digest of it.
    Creation,
    /// A ticket.
    Ticket,
    /// `TPMT_SIGNATURE` of known data.
    Signature,
    /// `TPMT_SIGNATURE` of an attestation.
    AttestSignature,
    /// `TPM2B_ATTEST`.
    Attest,
    /// `TPMS_CONTEXT`.
    Context,
    /// `TPMI_YES_NO` and `TPMS_CAPABILITY_DATA`.
    Capability,
    /// All that is left, which must be equal when what it is made of is.
    Rest,
}

use Field as F;

/// The fields of a command's response.
#[rustfmt::skip] // A command is a line, as far as it goes.
pub fn layout(code: u32) -> &'static [(&'static str, Field)] {
    match C(code) {
        C::CREATE_PRIMARY => &[("outPublic", F::Public), ("creation", F::Creation),
            ("creationTicket", F::Ticket), ("name", F::Known)],
        C::CREATE => &[("outPrivate", F::Random), ("outPublic", F::Public), ("creation", F::Creation),
            ("creationTicket", F::Ticket)],
        C::CREATE_LOADED => &[("outPrivate", F::Random), ("outPublic", F::Public), ("name", F::Known)],
        C::LOAD | C::LOAD_EXTERNAL => &[("name", F::Known)],
        C::READ_PUBLIC => &[("outPublic", F::Public), ("name", F::Known), ("qualifiedName", F::Random)],
        C::ACTIVATE_CREDENTIAL => &[("certInfo", F::Message)],
        C::MAKE_CREDENTIAL => &[("credentialBlob", F::Random), ("secret", F::Random)],
        C::UNSEAL => &[("outData", F::Equal)],
        C::OBJECT_CHANGE_AUTH | C::IMPORT => &[("outPrivate", F::Random)],
        C::DUPLICATE => &[("encryptionKeyOut", F::Random), ("duplicate", F::Random), ("outSymSeed", F::Random)],
        C::REWRAP => &[("outDuplicate", F::Random), ("outSymSeed", F::Random)],
        C::RSA_ENCRYPT => &[("outData", F::Random)],
        C::RSA_DECRYPT => &[("message", F::Message)],
        C::ECDH_KEY_GEN => &[("zPoint", F::Random), ("pubPoint", F::Random)],
        C::ECDH_ZGEN => &[("outPoint", F::Known)],
        C::ECC_PARAMETERS => &[("parameters", F::Rest)],
        C::ZGEN_2PHASE => &[("outZ1", F::Random), ("outZ2", F::Random)],
        C::COMMIT => &[("K", F::Random), ("L", F::Random), ("E", F::Random), ("counter", F::Number(2))],
        C::EC_EPHEMERAL => &[("Q", F::Random), ("counter", F::Number(2))],
        C::ENCRYPT_DECRYPT | C::ENCRYPT_DECRYPT2 => &[("outData", F::Known), ("ivOut", F::Known)],
        C::HASH => &[("outHash", F::Equal), ("validation", F::Ticket)],
        C::HMAC => &[("outHMAC", F::Known)],
        C::GET_RANDOM => &[("randomBytes", F::Random)],
        C::SEQUENCE_COMPLETE => &[("result", F::Known), ("validation", F::Ticket)],
        C::EVENT_SEQUENCE_COMPLETE | C::PCR_EVENT => &[("results", F::Rest)],
        C::CERTIFY | C::CERTIFY_CREATION | C::QUOTE | C::GET_SESSION_AUDIT_DIGEST | C::GET_COMMAND_AUDIT_DIGEST
            | C::GET_TIME | C::NV_CERTIFY => &[("attest", F::Attest), ("signature", F::AttestSignature)],
        C::CERTIFY_X509 => &[("addedToCertificate", F::Any), ("tbsDigest", F::Random), ("signature", F::AttestSignature)],
        C::VERIFY_SIGNATURE => &[("validation", F::Ticket)],
        C::SIGN => &[("signature", F::Signature)],
        C::PCR_READ => &[("pcrUpdateCounter", F::Number(4)), ("values", F::Rest)],
        C::PCR_ALLOCATE => &[("allocationSuccess", F::Number(1)), ("maxPCR", F::Number(4)),
            ("sizeNeeded", F::Number(4)), ("sizeAvailable", F::AnyNumber(4))],
        C::POLICY_SIGNED | C::POLICY_SECRET => &[("timeout", F::Random), ("policyTicket", F::Ticket)],
        C::POLICY_GET_DIGEST => &[("policyDigest", F::Known)],
        C::START_AUTH_SESSION => &[("nonceTPM", F::Random)],
        C::CONTEXT_SAVE => &[("context", F::Context)],
        C::READ_CLOCK => &[("time", F::AnyNumber(8)), ("clock", F::AnyNumber(8)), ("resetCount", F::Number(4)),
            ("restartCount", F::Number(4)), ("safe", F::Number(1))],
        C::GET_TEST_RESULT => &[("outData", F::Any), ("testResult", F::Number(4))],
        C::INCREMENTAL_SELF_TEST => &[("toDoList", F::Rest)],
        C::NV_READ => &[("data", F::Equal)],
        C::NV_READ_PUBLIC => &[("nvPublic", F::Equal), ("nvName", F::Equal)],
        C::GET_CAPABILITY => &[("capability", F::Capability)],
        _ => &[],
    }
}
