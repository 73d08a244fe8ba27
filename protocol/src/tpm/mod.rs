//! TPM 2.0 Library, Part 2: Structures.

mod attributes;
mod constants;
mod ecc;
mod lists;
mod nv;
mod public;
mod schemes;
mod sensitive;
mod signatures;
mod sized;
mod structures;
mod symmetric;

pub use attributes::*;
pub use constants::*;
pub use ecc::*;
pub use lists::*;
pub use nv::*;
pub use public::*;
pub use schemes::*;
pub use sensitive::*;
pub use signatures::*;
pub use sized::*;
pub use structures::*;
pub use symmetric::*;
