//! Symmetric primitives (Part 3, chapter 15).

mod hash;

pub use hash::hash;
