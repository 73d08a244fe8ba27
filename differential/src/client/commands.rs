//! What a client has to know of each command (Part 3's tables): how many handles need authorization, whether the first parameter and the first
//! response parameter are `TPM2B`s, whether a handle comes back. Written down here once more, and not taken from the engine, whose table is under test.

use vtpm_protocol::tpm::TpmCc as C;

/// What is true of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Shape {
    /// The handles that need authorization, which come first.
    pub authorized: usize,
    /// The first parameter may be encrypted.
    pub decrypt: bool,
    /// The first response parameter may be encrypted.
    pub encrypt: bool,
    /// The response has a handle.
    pub returns_handle: bool,
    /// It takes no session of any kind.
    pub no_sessions: bool,
}

/// The shape of a command.
#[rustfmt::skip] // As few lines as there are kinds.
pub fn shape(code: C) -> Shape {
    let authorized = match code {
        C::CERTIFY | C::ACTIVATE_CREDENTIAL | C::GET_TIME | C::GET_SESSION_AUDIT_DIGEST | C::GET_COMMAND_AUDIT_DIGEST
        | C::NV_CERTIFY | C::EVENT_SEQUENCE_COMPLETE | C::NV_UNDEFINE_SPACE_SPECIAL | C::CERTIFY_X509 => 2,
        C::STARTUP | C::SHUTDOWN | C::SELF_TEST | C::INCREMENTAL_SELF_TEST | C::GET_TEST_RESULT | C::START_AUTH_SESSION
        | C::POLICY_RESTART | C::LOAD_EXTERNAL | C::READ_PUBLIC | C::MAKE_CREDENTIAL | C::RSA_ENCRYPT | C::ECDH_KEY_GEN
        | C::ECC_PARAMETERS | C::ECC_ENCRYPT | C::EC_EPHEMERAL | C::HASH | C::GET_RANDOM | C::STIR_RANDOM | C::HASH_SEQUENCE_START
        | C::VERIFY_SIGNATURE | C::PCR_READ | C::POLICY_SIGNED | C::POLICY_TICKET | C::POLICY_OR | C::POLICY_PCR | C::POLICY_LOCALITY
        | C::POLICY_COUNTER_TIMER | C::POLICY_COMMAND_CODE | C::POLICY_PHYSICAL_PRESENCE | C::POLICY_CP_HASH | C::POLICY_NAME_HASH
        | C::POLICY_DUPLICATION_SELECT | C::POLICY_AUTHORIZE | C::POLICY_AUTH_VALUE | C::POLICY_PASSWORD | C::POLICY_GET_DIGEST
        | C::POLICY_NV_WRITTEN | C::POLICY_TEMPLATE | C::POLICY_CAPABILITY | C::POLICY_PARAMETERS | C::POLICY_AC_SEND_SELECT
        | C::POLICY_TRANSPORT_SPDM | C::CONTEXT_SAVE | C::CONTEXT_LOAD | C::FLUSH_CONTEXT | C::READ_CLOCK | C::GET_CAPABILITY
        | C::TEST_PARMS | C::NV_READ_PUBLIC | C::NV_READ_PUBLIC2 => 0,
        _ => 1,
    };
    let decrypt = matches!(code,
        C::START_AUTH_SESSION | C::CREATE | C::LOAD | C::LOAD_EXTERNAL | C::ACTIVATE_CREDENTIAL | C::MAKE_CREDENTIAL | C::OBJECT_CHANGE_AUTH
        | C::CREATE_LOADED | C::CREATE_PRIMARY | C::DUPLICATE | C::REWRAP | C::IMPORT | C::RSA_ENCRYPT | C::RSA_DECRYPT | C::ECDH_ZGEN
        | C::ZGEN_2PHASE | C::ECC_ENCRYPT | C::ECC_DECRYPT | C::ENCRYPT_DECRYPT2 | C::HASH | C::HMAC | C::STIR_RANDOM | C::HMAC_START | C::HASH_SEQUENCE_START
        | C::SEQUENCE_UPDATE | C::SEQUENCE_COMPLETE | C::EVENT_SEQUENCE_COMPLETE | C::CERTIFY | C::CERTIFY_CREATION | C::QUOTE
        | C::GET_SESSION_AUDIT_DIGEST | C::GET_COMMAND_AUDIT_DIGEST | C::GET_TIME | C::CERTIFY_X509 | C::COMMIT | C::VERIFY_SIGNATURE | C::SIGN
        | C::PCR_EVENT | C::PCR_SET_AUTH_POLICY | C::PCR_SET_AUTH_VALUE | C::POLICY_SIGNED | C::POLICY_SECRET | C::POLICY_TICKET
        | C::POLICY_PCR | C::POLICY_NV | C::POLICY_COUNTER_TIMER | C::POLICY_CP_HASH | C::POLICY_NAME_HASH | C::POLICY_DUPLICATION_SELECT
        | C::POLICY_AUTHORIZE | C::POLICY_TEMPLATE | C::POLICY_CAPABILITY | C::POLICY_PARAMETERS | C::POLICY_AC_SEND_SELECT | C::POLICY_TRANSPORT_SPDM
        | C::SET_PRIMARY_POLICY | C::HIERARCHY_CHANGE_AUTH | C::NV_DEFINE_SPACE | C::NV_DEFINE_SPACE2
        | C::NV_WRITE | C::NV_EXTEND | C::NV_CHANGE_AUTH | C::NV_CERTIFY);
    let encrypt = matches!(code,
        C::START_AUTH_SESSION | C::CREATE | C::LOAD | C::LOAD_EXTERNAL | C::READ_PUBLIC | C::ACTIVATE_CREDENTIAL | C::MAKE_CREDENTIAL
        | C::UNSEAL | C::OBJECT_CHANGE_AUTH | C::CREATE_LOADED | C::CREATE_PRIMARY | C::DUPLICATE | C::REWRAP | C::IMPORT | C::RSA_ENCRYPT
        | C::RSA_DECRYPT | C::ECDH_KEY_GEN | C::ECDH_ZGEN | C::ZGEN_2PHASE | C::ECC_ENCRYPT | C::ECC_DECRYPT | C::ENCRYPT_DECRYPT | C::ENCRYPT_DECRYPT2
        | C::HASH | C::HMAC | C::GET_RANDOM | C::SEQUENCE_COMPLETE | C::CERTIFY | C::CERTIFY_CREATION | C::QUOTE | C::GET_SESSION_AUDIT_DIGEST | C::GET_COMMAND_AUDIT_DIGEST
        | C::GET_TIME | C::CERTIFY_X509 | C::COMMIT | C::EC_EPHEMERAL | C::POLICY_SIGNED | C::POLICY_SECRET | C::POLICY_GET_DIGEST
        | C::GET_TEST_RESULT | C::NV_READ | C::NV_READ_PUBLIC | C::NV_READ_PUBLIC2 | C::NV_CERTIFY);
    let returns_handle = matches!(code,
        C::START_AUTH_SESSION | C::LOAD | C::LOAD_EXTERNAL | C::CREATE_LOADED | C::CREATE_PRIMARY | C::CONTEXT_LOAD
        | C::HMAC_START | C::HASH_SEQUENCE_START);
    let no_sessions = matches!(code, C::STARTUP | C::CONTEXT_LOAD | C::CONTEXT_SAVE | C::FLUSH_CONTEXT);
    Shape { authorized, decrypt, encrypt, returns_handle, no_sessions }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vtpm_engine::command::{Role, table};

    #[test]
    fn the_engine_says_the_same_of_every_command_of_the_library() {
        for row in table::COMMANDS.iter().filter(|r| !table::is_vendor(r.code)) {
            let engines = Shape {
                authorized: row.handles.iter().filter(|h| h.role != Role::None).count(),
                decrypt: row.flags.decrypt,
                encrypt: row.flags.encrypt,
                returns_handle: row.flags.r_handle,
                no_sessions: !row.flags.sessions,
            };
            assert_eq!(shape(row.code), engines, "{:?}", row.code);
        }
    }
}
