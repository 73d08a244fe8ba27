//! `vtpmctl import-swtpm` with Debian's swtpm as the source: what it kept goes on here, and is used here.

#[allow(dead_code)]
#[path = "../common/mod.rs"]
mod common;

mod chip;
mod primaries;
mod source;
