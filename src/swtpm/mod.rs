//! Programs in the place of swtpm's, for what calls those: `swtpm` with one TPM in one process, `swtpm_setup` and `swtpm_ioctl`.
//! `docs/swtpm.md` says what each option does here.
//!
//! They are called by programs. So option names, exit statuses, what goes to standard output and the result codes in messages are
//! those of swtpm; what only people read is worded here.

pub mod ioctl;
mod options;
