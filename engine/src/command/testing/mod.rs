//! Testing (Part 3, chapter 10).

mod get_test_result;
mod incremental_self_test;
mod known_answers;
mod self_test;
mod test_parms;

pub use get_test_result::get_test_result;
pub use incremental_self_test::incremental_self_test;
pub use self_test::self_test;
pub use test_parms::test_parms;
