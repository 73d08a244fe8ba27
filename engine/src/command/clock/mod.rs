//! Clocks and timers (Part 3, chapter 29).

mod act_set_timeout;
mod clock_rate_adjust;
mod clock_set;
mod read_clock;

pub use act_set_timeout::act_set_timeout;
pub use clock_rate_adjust::clock_rate_adjust;
pub use clock_set::clock_set;
pub use read_clock::read_clock;
