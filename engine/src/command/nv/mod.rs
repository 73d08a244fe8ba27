//! Non-volatile storage (Part 3, chapter 31).

mod nv_change_auth;
mod nv_define_space;
mod nv_define_space2;
mod nv_extend;
mod nv_global_write_lock;
mod nv_increment;
mod nv_read;
mod nv_read_lock;
mod nv_read_public;
mod nv_read_public2;
mod nv_set_bits;
mod nv_undefine_space;
mod nv_undefine_space_special;
mod nv_write;
mod nv_write_lock;
#[cfg(test)]
mod pin_tests;
#[cfg(test)]
mod refusals;
#[cfg(test)]
pub mod testing;

pub use nv_change_auth::nv_change_auth;
pub use nv_define_space::nv_define_space;
pub use nv_define_space2::nv_define_space2;
pub use nv_extend::nv_extend;
pub use nv_global_write_lock::nv_global_write_lock;
pub use nv_increment::nv_increment;
pub use nv_read::nv_read;
pub use nv_read_lock::nv_read_lock;
pub use nv_read_public::nv_read_public;
pub use nv_read_public2::nv_read_public2;
pub use nv_set_bits::nv_set_bits;
pub use nv_undefine_space::nv_undefine_space;
pub use nv_undefine_space_special::nv_undefine_space_special;
pub use nv_write::nv_write;
pub use nv_write_lock::nv_write_lock;
