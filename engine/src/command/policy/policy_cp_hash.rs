//! `TPM2_PolicyCpHash` (Part 3, 23.10).

use super::bind::Binding;
use crate::command::{Context, Output};
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::TpmCc;

const BINDING: Binding = Binding {
    code: TpmCc::POLICY_CP_HASH,
    flag: |flags| &mut flags.is_cp_hash_defined,
    may_repeat: true,
    other_before_size: false,
};

/// The policy is for one command with its handles and parameters, given by the hash over all of them.
///
/// # Errors
/// Those of [`Binding::run`]; the same cpHash may come again.
pub fn policy_cp_hash(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    BINDING.run(cx, r)
}
