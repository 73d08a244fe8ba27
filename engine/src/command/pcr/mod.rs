//! Integrity collection, PCR (Part 3, chapter 22).

mod pcr_allocate;
mod pcr_event;
mod pcr_extend;
mod pcr_read;
mod pcr_reset;
mod pcr_set_auth_policy;
mod pcr_set_auth_value;

pub use pcr_allocate::pcr_allocate;
pub use pcr_event::pcr_event;
pub use pcr_extend::pcr_extend;
pub use pcr_read::pcr_read;
pub use pcr_reset::pcr_reset;
pub use pcr_set_auth_policy::pcr_set_auth_policy;
pub use pcr_set_auth_value::pcr_set_auth_value;
