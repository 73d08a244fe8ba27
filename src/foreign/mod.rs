//! The state directories and files of other vTPMs, as far as they have nothing to do with the TPM itself: swtpm's files, their encryption, its lock.

pub mod key;
mod linear;
pub mod swtpm;

pub use key::{FileKey, KeyError, KeyOptions};
pub use swtpm::{StateDir, SwtpmError};
