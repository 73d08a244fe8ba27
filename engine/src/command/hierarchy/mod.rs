//! Hierarchy commands (Part 3, chapter 24).

mod clear;
mod create_primary;
mod hierarchy_change_auth;

pub use clear::clear;
pub use create_primary::create_primary;
pub use hierarchy_change_auth::hierarchy_change_auth;
