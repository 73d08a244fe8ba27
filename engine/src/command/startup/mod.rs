//! Start-up commands (Part 3, chapter 9).

mod shutdown;
mod start;

pub use shutdown::shutdown;
pub use start::startup;
