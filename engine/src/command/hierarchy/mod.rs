//! Hierarchy commands (Part 3, chapter 24).

mod create_primary;

pub use create_primary::create_primary;
