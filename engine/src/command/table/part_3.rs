//! What Part 3 says of each command, written down a second time from its tables: a row that gives a handle less than its role, or lets a
//! session encrypt what it must not, is seen here.

use super::{COMMANDS, attributes, is_vendor};
use crate::command::Role;
use vtpm_protocol::tpm::{TpmCc, TpmCc as CC};

/// Code, `TPMA_CC`, the role of each handle (user, admin, dup, or none), and what sessions may do: decrypt the first parameter, encrypt the
/// first of the response, or that there are none.
#[rustfmt::skip] // A row is a line.
const PART_3: &[(TpmCc, u32, &str, &str)] = &[
    (CC::NV_UNDEFINE_SPACE_SPECIAL, 0x0440011f, "AU", ""),
    (CC::EVICT_CONTROL, 0x04400120, "U-", ""),
    (CC::HIERARCHY_CONTROL, 0x02c00121, "U", ""),
    (CC::NV_UNDEFINE_SPACE, 0x04400122, "U-", ""),
    (CC::CHANGE_EPS, 0x02c00124, "U", ""),
    (CC::CHANGE_PPS, 0x02c00125, "U", ""),
    (CC::CLEAR, 0x02c00126, "U", ""),
    (CC::CLEAR_CONTROL, 0x02400127, "U", ""),
    (CC::CLOCK_SET, 0x02400128, "U", ""),
    (CC::HIERARCHY_CHANGE_AUTH, 0x02400129, "U", "D"),
    (CC::NV_DEFINE_SPACE, 0x0240012a, "U", "D"),
    (CC::PCR_ALLOCATE, 0x0240012b, "U", ""),
    (CC::PCR_SET_AUTH_POLICY, 0x0240012c, "U", "D"),
    (CC::PP_COMMANDS, 0x0240012d, "U", ""),
    (CC::SET_PRIMARY_POLICY, 0x0240012e, "U", "D"),
    (CC::CLOCK_RATE_ADJUST, 0x02000130, "U", ""),
    (CC::CREATE_PRIMARY, 0x12000131, "U", "DE"),
    (CC::NV_GLOBAL_WRITE_LOCK, 0x02400132, "U", ""),
    (CC::GET_COMMAND_AUDIT_DIGEST, 0x04400133, "UU", "DE"),
    (CC::NV_INCREMENT, 0x04400134, "U-", ""),
    (CC::NV_SET_BITS, 0x04400135, "U-", ""),
    (CC::NV_EXTEND, 0x04400136, "U-", "D"),
    (CC::NV_WRITE, 0x04400137, "U-", "D"),
    (CC::NV_WRITE_LOCK, 0x04400138, "U-", ""),
    (CC::DICTIONARY_ATTACK_LOCK_RESET, 0x02400139, "U", ""),
    (CC::DICTIONARY_ATTACK_PARAMETERS, 0x0240013a, "U", ""),
    (CC::NV_CHANGE_AUTH, 0x0240013b, "A", "D"),
    (CC::PCR_EVENT, 0x0240013c, "U", "D"),
    (CC::PCR_RESET, 0x0240013d, "U", ""),
    (CC::SEQUENCE_COMPLETE, 0x0300013e, "U", "DE"),
    (CC::SET_ALGORITHM_SET, 0x0240013f, "U", ""),
    (CC::SET_COMMAND_CODE_AUDIT_STATUS, 0x02400140, "U", ""),
    (CC::INCREMENTAL_SELF_TEST, 0x00400142, "", ""),
    (CC::SELF_TEST, 0x00400143, "", ""),
    (CC::STARTUP, 0x00400144, "", "N"),
    (CC::SHUTDOWN, 0x00400145, "", ""),
    (CC::STIR_RANDOM, 0x00400146, "", "D"),
    (CC::ACTIVATE_CREDENTIAL, 0x04000147, "AU", "DE"),
    (CC::CERTIFY, 0x04000148, "AU", "DE"),
    (CC::POLICY_NV, 0x06000149, "U--", "D"),
    (CC::CERTIFY_CREATION, 0x0400014a, "U-", "DE"),
    (CC::DUPLICATE, 0x0400014b, "D-", "DE"),
    (CC::GET_TIME, 0x0400014c, "UU", "DE"),
    (CC::GET_SESSION_AUDIT_DIGEST, 0x0600014d, "UU-", "DE"),
    (CC::NV_READ, 0x0400014e, "U-", "E"),
    (CC::NV_READ_LOCK, 0x0440014f, "U-", ""),
    (CC::OBJECT_CHANGE_AUTH, 0x04000150, "A-", "DE"),
    (CC::POLICY_SECRET, 0x04000151, "U-", "DE"),
    (CC::REWRAP, 0x04000152, "U-", "DE"),
    (CC::CREATE, 0x02000153, "U", "DE"),
    (CC::ECDH_ZGEN, 0x02000154, "U", "DE"),
    (CC::HMAC, 0x02000155, "U", "DE"),
    (CC::IMPORT, 0x02000156, "U", "DE"),
    (CC::LOAD, 0x12000157, "U", "DE"),
    (CC::QUOTE, 0x02000158, "U", "DE"),
    (CC::RSA_DECRYPT, 0x02000159, "U", "DE"),
    (CC::HMAC_START, 0x1200015b, "U", "D"),
    (CC::SEQUENCE_UPDATE, 0x0200015c, "U", "D"),
    (CC::SIGN, 0x0200015d, "U", "D"),
    (CC::UNSEAL, 0x0200015e, "U", "E"),
    (CC::POLICY_SIGNED, 0x04000160, "--", "DE"),
    (CC::CONTEXT_LOAD, 0x10000161, "", "N"),
    (CC::CONTEXT_SAVE, 0x02000162, "-", "N"),
    (CC::ECDH_KEY_GEN, 0x02000163, "-", "E"),
    (CC::ENCRYPT_DECRYPT, 0x02000164, "U", "E"),
    (CC::FLUSH_CONTEXT, 0x00000165, "", "N"),
    (CC::LOAD_EXTERNAL, 0x10000167, "", "DE"),
    (CC::MAKE_CREDENTIAL, 0x02000168, "-", "DE"),
    (CC::NV_READ_PUBLIC, 0x02000169, "-", "E"),
    (CC::POLICY_AUTHORIZE, 0x0200016a, "-", "D"),
    (CC::POLICY_AUTH_VALUE, 0x0200016b, "-", ""),
    (CC::POLICY_COMMAND_CODE, 0x0200016c, "-", ""),
    (CC::POLICY_COUNTER_TIMER, 0x0200016d, "-", "D"),
    (CC::POLICY_CP_HASH, 0x0200016e, "-", "D"),
    (CC::POLICY_LOCALITY, 0x0200016f, "-", ""),
    (CC::POLICY_NAME_HASH, 0x02000170, "-", "D"),
    (CC::POLICY_OR, 0x02000171, "-", ""),
    (CC::POLICY_TICKET, 0x02000172, "-", "D"),
    (CC::READ_PUBLIC, 0x02000173, "-", "E"),
    (CC::RSA_ENCRYPT, 0x02000174, "-", "DE"),
    (CC::START_AUTH_SESSION, 0x14000176, "--", "DE"),
    (CC::VERIFY_SIGNATURE, 0x02000177, "-", "D"),
    (CC::ECC_PARAMETERS, 0x00000178, "", ""),
    (CC::GET_CAPABILITY, 0x0000017a, "", ""),
    (CC::GET_RANDOM, 0x0000017b, "", "E"),
    (CC::GET_TEST_RESULT, 0x0000017c, "", "E"),
    (CC::HASH, 0x0000017d, "", "DE"),
    (CC::PCR_READ, 0x0000017e, "", ""),
    (CC::POLICY_PCR, 0x0200017f, "-", "D"),
    (CC::POLICY_RESTART, 0x02000180, "-", ""),
    (CC::READ_CLOCK, 0x00000181, "", ""),
    (CC::PCR_EXTEND, 0x02400182, "U", ""),
    (CC::PCR_SET_AUTH_VALUE, 0x02000183, "U", "D"),
    (CC::NV_CERTIFY, 0x06000184, "UU-", "DE"),
    (CC::EVENT_SEQUENCE_COMPLETE, 0x05400185, "UU", "D"),
    (CC::HASH_SEQUENCE_START, 0x10000186, "", "D"),
    (CC::POLICY_PHYSICAL_PRESENCE, 0x02000187, "-", ""),
    (CC::POLICY_DUPLICATION_SELECT, 0x02000188, "-", "D"),
    (CC::POLICY_GET_DIGEST, 0x02000189, "-", "E"),
    (CC::TEST_PARMS, 0x0000018a, "", ""),
    (CC::COMMIT, 0x0200018b, "U", "DE"),
    (CC::POLICY_PASSWORD, 0x0200018c, "-", ""),
    (CC::ZGEN_2PHASE, 0x0200018d, "U", "DE"),
    (CC::EC_EPHEMERAL, 0x0000018e, "", "E"),
    (CC::POLICY_NV_WRITTEN, 0x0200018f, "-", ""),
    (CC::POLICY_TEMPLATE, 0x02000190, "-", "D"),
    (CC::CREATE_LOADED, 0x12000191, "U", "DE"),
    (CC::POLICY_AUTHORIZE_NV, 0x06000192, "U--", ""),
    (CC::ENCRYPT_DECRYPT2, 0x02000193, "U", "DE"),
    (CC::POLICY_AC_SEND_SELECT, 0x02000196, "-", "D"),
    (CC::CERTIFY_X509, 0x04000197, "AU", "DE"),
    (CC::ACT_SET_TIMEOUT, 0x02000198, "U", ""),
    (CC::ECC_ENCRYPT, 0x02000199, "-", "DE"),
    (CC::ECC_DECRYPT, 0x0200019a, "U", "DE"),
    (CC::POLICY_CAPABILITY, 0x0200019b, "-", "D"),
    (CC::POLICY_PARAMETERS, 0x0200019c, "-", "D"),
    (CC::NV_DEFINE_SPACE2, 0x0240019d, "U", "D"),
    (CC::NV_READ_PUBLIC2, 0x0200019e, "-", "E"),
    (CC::READ_ONLY_CONTROL, 0x024001a0, "U", ""),
    (CC::POLICY_TRANSPORT_SPDM, 0x020001a1, "-", "D"),
];

#[test]
fn a_command_s_attributes_and_roles_are_those_of_part_3() {
    let ours: Vec<_> = COMMANDS.iter().filter(|c| !is_vendor(c.code)).collect();
    assert_eq!((ours.len(), PART_3.len()), (120, 120));
    for (command, &(code, bits, roles, sessions)) in ours.into_iter().zip(PART_3) {
        assert_eq!(command.code, code);
        assert_eq!(format!("{:08x}", attributes(command).0), format!("{bits:08x}"), "{code:?}");
        let told: String = command
            .handles
            .iter()
            .map(|h| match h.role {
                Role::None => '-',
                Role::User => 'U',
                Role::Admin => 'A',
                Role::Dup => 'D',
            })
            .collect();
        assert_eq!(told, roles, "{code:?}");
        let flags =
            [(command.flags.decrypt, 'D'), (command.flags.encrypt, 'E'), (!command.flags.sessions, 'N')];
        let told: String = flags.into_iter().filter(|(on, _)| *on).map(|(_, letter)| letter).collect();
        assert_eq!(told, sessions, "{code:?}");
    }
}
