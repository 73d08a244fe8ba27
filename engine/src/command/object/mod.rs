//! Object commands (Part 3, chapter 12).

mod create;
mod load;
mod load_external;
mod read_public;
mod unseal;

pub use create::create;
pub use load::load;
pub use load_external::load_external;
pub use read_public::read_public;
pub use unseal::unseal;
