//! Hash, HMAC and event sequences (Part 3, chapter 17).

mod event_sequence_complete;
mod hash_sequence_start;
mod mac_start;
mod sequence_complete;
mod sequence_update;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use event_sequence_complete::event_sequence_complete;
pub use hash_sequence_start::hash_sequence_start;
pub use mac_start::mac_start;
pub use sequence_complete::sequence_complete;
pub use sequence_update::sequence_update;
