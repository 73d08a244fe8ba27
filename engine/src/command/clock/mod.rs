//! Clocks and timers (Part 3, chapter 29).

mod read_clock;

pub use read_clock::read_clock;
