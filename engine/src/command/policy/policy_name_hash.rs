//! `TPM2_PolicyNameHash` (Part 3, 23.12).

use super::bind::Binding;
use crate::command::{Context, Output};
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::TpmCc;

const BINDING: Binding = Binding {
    code: TpmCc::POLICY_NAME_HASH,
    flag: |flags| &mut flags.is_name_hash_defined,
    may_repeat: false,
    other_before_size: false,
};

/// The policy is for certain entities: those whose Names, in the order of the handles, have this hash.
///
/// # Errors
/// Those of [`Binding::run`].
pub fn policy_name_hash(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    BINDING.run(cx, r)
}
