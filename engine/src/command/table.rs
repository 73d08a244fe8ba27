//! The one table of commands. Dispatch, `TPM2_GetCapability` and audit defaults are read from it.

use super::{Command, Flags, HandleKind as K, HandleSpec, Role};
use super::{
    attestation, capability, clock, context, duplication, hierarchy, instance, nv, object, pcr, policy,
    random, session, signature, startup, symmetric, testing,
};
use vtpm_protocol::instance::cc;
use vtpm_protocol::tpm::{TpmCc, TpmaCc};

const fn h(kind: K, role: Role) -> HandleSpec {
    HandleSpec { kind, role }
}

/// Most rows: no check between the authorizations.
const fn row(code: TpmCc, handles: &'static [HandleSpec], flags: Flags, run: super::Handler) -> Command {
    Command { code, handles, flags, run, middle: None }
}

const N: Flags = Flags::NONE;
const NV: Flags = Flags { nv: true, ..N };

/// Owner authorization, then the target.
const ON_INSTANCE: &[HandleSpec] = &[h(K::Owner, Role::User), h(K::Instance, Role::None)];
/// Owner authorization, that of storage key S, then the target.
const WITH_STORAGE_KEY: &[HandleSpec] =
    &[h(K::Owner, Role::User), h(K::Object, Role::User), h(K::Instance, Role::None)];

/// An instance command: the target is checked after owner authorization and before anything else.
const fn instance_row(
    code: TpmCc,
    handles: &'static [HandleSpec],
    flags: Flags,
    run: super::Handler,
) -> Command {
    Command { code, handles, flags, run, middle: Some(instance::check_descendant) }
}

/// All commands, in ascending order of their codes, vendor commands last.
pub static COMMANDS: &[Command] = &[
    row(
        TpmCc::EVICT_CONTROL,
        &[h(K::Provision, Role::User), h(K::Object, Role::None)],
        Flags { nv: true, ..N },
        context::evict_control,
    ),
    row(
        TpmCc::NV_UNDEFINE_SPACE,
        &[h(K::Provision, Role::User), h(K::NvIndex, Role::None)],
        NV,
        nv::nv_undefine_space,
    ),
    row(TpmCc::CLEAR, &[h(K::Clear, Role::User)], Flags { nv: true, extensive: true, ..N }, hierarchy::clear),
    row(
        TpmCc::HIERARCHY_CHANGE_AUTH,
        &[h(K::HierarchyAuth, Role::User)],
        Flags { nv: true, decrypt: true, ..N },
        hierarchy::hierarchy_change_auth,
    ),
    row(
        TpmCc::NV_DEFINE_SPACE,
        &[h(K::Provision, Role::User)],
        Flags { nv: true, decrypt: true, ..N },
        nv::nv_define_space,
    ),
    row(
        TpmCc::CREATE_PRIMARY,
        &[h(K::HierarchyOrNull, Role::User)],
        Flags { r_handle: true, decrypt: true, encrypt: true, ..N },
        hierarchy::create_primary,
    ),
    row(
        TpmCc::NV_INCREMENT,
        &[h(K::NvAuth, Role::User), h(K::NvIndex, Role::None)],
        Flags { nv: true, nv_write: true, ..N },
        nv::nv_increment,
    ),
    row(
        TpmCc::NV_SET_BITS,
        &[h(K::NvAuth, Role::User), h(K::NvIndex, Role::None)],
        Flags { nv: true, nv_write: true, ..N },
        nv::nv_set_bits,
    ),
    row(
        TpmCc::NV_EXTEND,
        &[h(K::NvAuth, Role::User), h(K::NvIndex, Role::None)],
        Flags { nv: true, nv_write: true, decrypt: true, ..N },
        nv::nv_extend,
    ),
    row(
        TpmCc::NV_WRITE,
        &[h(K::NvAuth, Role::User), h(K::NvIndex, Role::None)],
        Flags { nv: true, nv_write: true, decrypt: true, ..N },
        nv::nv_write,
    ),
    row(
        TpmCc::PCR_EVENT,
        &[h(K::PcrOrNull, Role::User)],
        Flags { nv: true, decrypt: true, ..N },
        pcr::pcr_event,
    ),
    row(TpmCc::PCR_RESET, &[h(K::Pcr, Role::User)], NV, pcr::pcr_reset),
    row(TpmCc::SELF_TEST, &[], NV, testing::self_test),
    row(TpmCc::STARTUP, &[], Flags { nv: true, sessions: false, ..N }, startup::startup),
    row(TpmCc::SHUTDOWN, &[], Flags { nv: true, ..N }, startup::shutdown),
    row(TpmCc::STIR_RANDOM, &[], Flags { nv: true, decrypt: true, ..N }, random::stir_random),
    row(
        TpmCc::DUPLICATE,
        &[h(K::Object, Role::Dup), h(K::ObjectOrNull, Role::None)],
        Flags { decrypt: true, encrypt: true, ..N },
        duplication::duplicate,
    ),
    row(
        TpmCc::NV_READ,
        &[h(K::NvAuth, Role::User), h(K::NvIndex, Role::None)],
        Flags { nv_read: true, encrypt: true, ..N },
        nv::nv_read,
    ),
    row(
        TpmCc::CREATE,
        &[h(K::Object, Role::User)],
        Flags { decrypt: true, encrypt: true, ..N },
        object::create,
    ),
    row(
        TpmCc::IMPORT,
        &[h(K::Object, Role::User)],
        Flags { decrypt: true, encrypt: true, ..N },
        duplication::import,
    ),
    row(
        TpmCc::LOAD,
        &[h(K::Object, Role::User)],
        Flags { r_handle: true, decrypt: true, encrypt: true, ..N },
        object::load,
    ),
    row(
        TpmCc::QUOTE,
        &[h(K::ObjectOrNull, Role::User)],
        Flags { decrypt: true, encrypt: true, ..N },
        attestation::quote,
    ),
    row(TpmCc::SIGN, &[h(K::Object, Role::User)], Flags { decrypt: true, ..N }, signature::sign),
    row(TpmCc::UNSEAL, &[h(K::Object, Role::User)], Flags { encrypt: true, ..N }, object::unseal),
    row(TpmCc::CONTEXT_LOAD, &[], Flags { sessions: false, r_handle: true, ..N }, context::context_load),
    row(
        TpmCc::CONTEXT_SAVE,
        &[h(K::Context, Role::None)],
        Flags { sessions: false, ..N },
        context::context_save,
    ),
    row(TpmCc::FLUSH_CONTEXT, &[], Flags { sessions: false, ..N }, context::flush_context),
    row(
        TpmCc::LOAD_EXTERNAL,
        &[],
        Flags { r_handle: true, decrypt: true, encrypt: true, ..N },
        object::load_external,
    ),
    row(
        TpmCc::NV_READ_PUBLIC,
        &[h(K::NvIndex, Role::None)],
        Flags { encrypt: true, ..N },
        nv::nv_read_public,
    ),
    row(TpmCc::POLICY_AUTH_VALUE, &[h(K::PolicySession, Role::None)], N, policy::policy_auth_value),
    row(TpmCc::POLICY_COMMAND_CODE, &[h(K::PolicySession, Role::None)], N, policy::policy_command_code),
    row(TpmCc::READ_PUBLIC, &[h(K::Object, Role::None)], Flags { encrypt: true, ..N }, object::read_public),
    row(
        TpmCc::START_AUTH_SESSION,
        &[h(K::ObjectOrNull, Role::None), h(K::EntityOrNull, Role::None)],
        Flags { r_handle: true, decrypt: true, encrypt: true, ..N },
        session::start_auth_session,
    ),
    row(
        TpmCc::VERIFY_SIGNATURE,
        &[h(K::Object, Role::None)],
        Flags { decrypt: true, ..N },
        signature::verify_signature,
    ),
    row(TpmCc::GET_CAPABILITY, &[], N, capability::get_capability),
    row(TpmCc::GET_RANDOM, &[], Flags { encrypt: true, ..N }, random::get_random),
    row(TpmCc::GET_TEST_RESULT, &[], Flags { encrypt: true, ..N }, testing::get_test_result),
    row(TpmCc::HASH, &[], Flags { decrypt: true, encrypt: true, ..N }, symmetric::hash),
    row(TpmCc::PCR_READ, &[], N, pcr::pcr_read),
    row(
        TpmCc::POLICY_PCR,
        &[h(K::PolicySession, Role::None)],
        Flags { decrypt: true, ..N },
        policy::policy_pcr,
    ),
    row(TpmCc::POLICY_RESTART, &[h(K::PolicySession, Role::None)], N, session::policy_restart),
    row(TpmCc::READ_CLOCK, &[], N, clock::read_clock),
    row(TpmCc::PCR_EXTEND, &[h(K::PcrOrNull, Role::User)], NV, pcr::pcr_extend),
    row(
        TpmCc::POLICY_GET_DIGEST,
        &[h(K::PolicySession, Role::None)],
        Flags { encrypt: true, ..N },
        policy::policy_get_digest,
    ),
    instance_row(cc::CREATE_INSTANCE, ON_INSTANCE, NV, instance::create_instance),
    instance_row(cc::LOCK_INSTANCE, ON_INSTANCE, NV, instance::lock_instance),
    instance_row(
        cc::GET_INSTANCE_KEY,
        WITH_STORAGE_KEY,
        Flags { encrypt: true, public_key_authorizes: true, ..NV },
        instance::get_instance_key,
    ),
    instance_row(cc::GET_INSTANCE_CAPABILITY, ON_INSTANCE, N, instance::get_instance_capability),
    instance_row(cc::GET_INSTANCE_DATA, ON_INSTANCE, NV, instance::get_instance_data),
    instance_row(cc::DELETE_INSTANCE, ON_INSTANCE, NV, instance::delete_instance),
    instance_row(
        cc::SET_INSTANCE_KEY,
        WITH_STORAGE_KEY,
        Flags { decrypt: true, ..NV },
        instance::set_instance_key,
    ),
    instance_row(cc::SET_INSTANCE_DATA, ON_INSTANCE, NV, instance::set_instance_data),
    instance_row(cc::UNLOCK_INSTANCE, ON_INSTANCE, Flags { decrypt: true, ..NV }, instance::unlock_instance),
    instance_row(cc::LIST_INSTANCES, ON_INSTANCE, N, instance::list_instances),
    instance_row(cc::GET_INSTANCE_INFO, ON_INSTANCE, N, instance::get_instance_info),
    instance_row(
        cc::ABORT_MIGRATION,
        ON_INSTANCE,
        Flags { decrypt: true, encrypt: true, ..NV },
        instance::abort_migration,
    ),
    instance_row(
        cc::COMMIT_MIGRATION,
        ON_INSTANCE,
        Flags { decrypt: true, encrypt: true, ..NV },
        instance::commit_migration,
    ),
    instance_row(cc::ARM_INSTANCE, ON_INSTANCE, NV, instance::arm_instance),
    instance_row(cc::RESET_INSTANCE, ON_INSTANCE, NV, instance::reset_instance),
];

/// The row of a code.
#[must_use]
pub fn find(code: TpmCc) -> Option<&'static Command> {
    COMMANDS.binary_search_by_key(&code, |c| c.code).ok().and_then(|i| COMMANDS.get(i))
}

/// Whether a code has the V bit.
#[must_use]
pub const fn is_vendor(code: TpmCc) -> bool {
    code.0 & TpmaCc::V.0 != 0
}

/// `TPMA_CC` of a row (Part 2, 8.9).
#[must_use]
pub fn attributes(command: &Command) -> TpmaCc {
    let handles = u32::try_from(command.handles.len()).unwrap_or_default() << 25;
    let mut bits = TpmaCc((command.code.0 & 0xffff) | handles);
    for (on, bit) in [
        (command.flags.nv, TpmaCc::NV),
        (command.flags.extensive, TpmaCc::EXTENSIVE),
        (command.flags.flushed, TpmaCc::FLUSHED),
        (command.flags.r_handle, TpmaCc::R_HANDLE),
        (is_vendor(command.code), TpmaCc::V),
    ] {
        bits = bits.with(bit, on);
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_ascend_so_that_binary_search_finds_them() {
        assert!(COMMANDS.is_sorted_by(|a, b| a.code < b.code));
    }

    #[test]
    fn authorized_handles_come_first() {
        for c in COMMANDS {
            let roles: Vec<bool> = c.handles.iter().map(|h| h.role != Role::None).collect();
            assert!(roles.is_sorted_by(|a, b| a >= b), "{:?}", c.code);
        }
    }
}
