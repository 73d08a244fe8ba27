//! Command audit (Part 3, chapter 21; Part 1, "Command Audit").
//!
//! What extends the digest is in `execute/audit.rs`; `TPM2_GetCommandAuditDigest` is with the other attestations.

mod set_command_code_audit_status;

pub use set_command_code_audit_status::set_command_code_audit_status;
