//! Random number generator commands (Part 3, chapter 16).

mod get_random;
mod stir_random;

pub use get_random::get_random;
pub use stir_random::stir_random;
