//! Programs in the place of swtpm's, for what calls those: `swtpm` with one TPM in one process, `swtpm_setup` and `swtpm_ioctl`.
//! `docs/swtpm.md` says what each option does here.
//!
//! They are called by programs. So option names, exit statuses, what goes to standard output and the result codes in messages are
//! those of swtpm; what only people read is worded here.

mod error;
pub mod ioctl;
mod key;
mod options;
mod process;
mod seccomp;
pub mod setup;
pub mod socket;
mod state;
mod suboptions;

use vtpm_protocol::tpm::RSA_KEY_BITS;

/// What follows the name of a program that is asked for its version.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A member list of JSON, of texts that need no escapes.
fn json_list<'a>(members: impl IntoIterator<Item = &'a str>) -> String {
    members.into_iter().map(|m| format!("\"{m}\"")).collect::<Vec<_>>().join(", ")
}

/// What `--print-capabilities` calls the lengths of RSA keys that there are.
fn rsa_features(prefix: &str, least: u16) -> Vec<String> {
    let mut sizes: Vec<u16> = RSA_KEY_BITS.iter().copied().filter(|&bits| bits >= least).collect();
    sizes.sort_unstable();
    sizes.into_iter().map(|bits| format!("{prefix}{bits}")).collect()
}
