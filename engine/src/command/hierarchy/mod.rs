//! Hierarchy commands (Part 3, chapter 24).

mod change_eps;
mod change_pps;
mod clear;
mod clear_control;
mod create_primary;
mod hierarchy_change_auth;
mod hierarchy_control;
mod read_only_control;
mod set_primary_policy;

pub use change_eps::change_eps;
pub use change_pps::change_pps;
pub use clear::clear;
pub use clear_control::clear_control;
pub use create_primary::create_primary;
pub use hierarchy_change_auth::hierarchy_change_auth;
pub use hierarchy_control::hierarchy_control;
pub use read_only_control::{is_refused_in_read_only_mode, read_only_control};
pub use set_primary_policy::{policy, set_primary_policy};
