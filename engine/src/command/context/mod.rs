//! Context management commands (Part 3, chapter 28).

mod context_load;
mod context_save;
mod evict_control;
mod flush_context;

pub use context_load::context_load;
pub use context_save::context_save;
pub use evict_control::evict_control;
pub use flush_context::flush_context;
