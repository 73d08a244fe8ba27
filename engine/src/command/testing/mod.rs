//! Testing (Part 3, chapter 10).

mod get_test_result;
mod known_answers;
mod self_test;
mod test_parms;

pub use get_test_result::get_test_result;
pub use self_test::self_test;
pub use test_parms::test_parms;
