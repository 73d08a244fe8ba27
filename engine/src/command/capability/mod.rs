//! Capability commands (Part 3, chapter 30).

mod algorithms;
mod get_capability;
mod handles;
mod properties;

pub use algorithms::implemented as implemented_algorithms;
pub use get_capability::{get_capability, property_data};
pub use properties::{Description, describe, in_failure_mode as failure_properties};

/// The entries of a list from the first that is not below `first`, at most `count`, and whether there are more. `all` is in ascending order
/// of `key`.
fn page<T, K: PartialOrd>(
    all: impl IntoIterator<Item = T>,
    key: impl Fn(&T) -> K,
    first: K,
    count: usize,
) -> (Vec<T>, bool) {
    let mut rest = all.into_iter().skip_while(|entry| key(entry) < first);
    let page: Vec<T> = rest.by_ref().take(count).collect();
    let more = rest.next().is_some();
    (page, more)
}
