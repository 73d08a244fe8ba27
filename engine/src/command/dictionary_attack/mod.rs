//! Dictionary attack functions (Part 3, chapter 25).

mod dictionary_attack_lock_reset;
mod dictionary_attack_parameters;

pub use dictionary_attack_lock_reset::dictionary_attack_lock_reset;
pub use dictionary_attack_parameters::dictionary_attack_parameters;

#[cfg(test)]
mod tests;
