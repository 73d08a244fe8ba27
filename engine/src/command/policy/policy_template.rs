//! `TPM2_PolicyTemplate` (Part 3, 23.21).

use super::bind::Binding;
use crate::command::{Context, Output};
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::TpmCc;

const BINDING: Binding = Binding {
    code: TpmCc::POLICY_TEMPLATE,
    flag: |flags| &mut flags.is_template_hash_defined,
    may_repeat: true,
    other_before_size: true,
};

/// The policy is for the creation of objects with a certain template, given by its hash.
///
/// # Errors
/// Those of [`Binding::run`]; the same templateHash may come again.
pub fn policy_template(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    BINDING.run(cx, r)
}
