//! Session commands (Part 3, chapter 11).

mod policy_restart;
mod start_auth_session;

pub use policy_restart::policy_restart;
pub use start_auth_session::start_auth_session;
