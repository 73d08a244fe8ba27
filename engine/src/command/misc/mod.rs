//! Miscellaneous management functions (Part 3, chapter 26).

mod pp_commands;
mod set_algorithm_set;

pub use pp_commands::{may_need_presence, pp_commands};
pub use set_algorithm_set::set_algorithm_set;
