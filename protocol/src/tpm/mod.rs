//! TPM 2.0 Library, Part 2: Structures.

mod attributes;
mod constants;
mod ecc;
mod keys;
mod lists;
mod nv;
mod signatures;
mod sized;
mod structures;

pub use attributes::*;
pub use constants::*;
pub use ecc::*;
pub use keys::*;
pub use lists::*;
pub use nv::*;
pub use signatures::*;
pub use sized::*;
pub use structures::*;
