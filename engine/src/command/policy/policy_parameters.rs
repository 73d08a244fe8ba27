//! `TPM2_PolicyParameters` (Part 3, 23.24).

use super::bind::Binding;
use crate::command::{Context, Output};
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::TpmCc;

const BINDING: Binding = Binding {
    code: TpmCc::POLICY_PARAMETERS,
    flag: |flags| &mut flags.is_parameters_hash_defined,
    may_repeat: false,
    other_before_size: false,
};

/// The policy is for one command with its parameters, given by the hash over its code and them, for whatever handles.
///
/// # Errors
/// Those of [`Binding::run`].
pub fn policy_parameters(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    BINDING.run(cx, r)
}
