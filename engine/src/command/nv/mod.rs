//! Non-volatile storage (Part 3, chapter 31).

mod nv_define_space;
mod nv_extend;
mod nv_increment;
mod nv_read;
mod nv_read_public;
mod nv_set_bits;
mod nv_undefine_space;
mod nv_write;
#[cfg(test)]
pub mod testing;

pub use nv_define_space::nv_define_space;
pub use nv_extend::nv_extend;
pub use nv_increment::nv_increment;
pub use nv_read::nv_read;
pub use nv_read_public::nv_read_public;
pub use nv_set_bits::nv_set_bits;
pub use nv_undefine_space::nv_undefine_space;
pub use nv_write::nv_write;
