//! Response codes as a label: one value for each code that the specification names, whatever handle, session or parameter it blames, and one for
//! all others.

use std::sync::LazyLock;

use vtpm_protocol::rc::ResponseCode;

/// The label of what has no name.
pub(super) const OTHER: &str = "other";

/// The places of the codes, and their names.
struct Results {
    /// By the number of the code, without what it blames.
    places: Box<[u8]>,
    names: Vec<&'static str>,
}

/// Response codes have twelve bits.
const CODES: u32 = 0x1000;

static RESULTS: LazyLock<Results> = LazyLock::new(|| {
    let mut names = vec![OTHER];
    let place = |code| {
        let code = ResponseCode::from_value(code);
        let name = code.name().filter(|_| code == code.base())?;
        names.push(name);
        u8::try_from(names.len().saturating_sub(1)).ok()
    };
    let places = (0..CODES).map(place).map(|place| place.unwrap_or(0)).collect();
    Results { places, names }
});

/// How many labels there are.
pub(super) fn count() -> usize {
    RESULTS.names.len()
}

/// The names, each at the place of its code.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    RESULTS.names.iter().copied()
}

/// The place of a code.
pub(super) fn place(code: ResponseCode) -> usize {
    let number = usize::try_from(code.base().value()).unwrap_or(usize::MAX);
    RESULTS.places.get(number).copied().unwrap_or(0).into()
}

/// The label of a code.
#[cfg(test)]
fn label(code: ResponseCode) -> &'static str {
    RESULTS.names.get(place(code)).copied().unwrap_or(OTHER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_code_blames_makes_no_label() {
        for code in [
            ResponseCode::VALUE,
            ResponseCode::VALUE.handle(2),
            ResponseCode::VALUE.session(7),
            ResponseCode::VALUE.parameter(15),
        ] {
            assert_eq!(label(code), "VALUE", "{code}");
        }
        assert_eq!(label(ResponseCode::SUCCESS), "SUCCESS");
        assert_eq!(label(ResponseCode::BAD_TAG), "BAD_TAG");
        assert_eq!(label(ResponseCode::INITIALIZE), "INITIALIZE");
        assert_eq!(label(ResponseCode::RETRY), "RETRY");
        assert_eq!(label(ResponseCode::NV_UNAVAILABLE), "NV_UNAVAILABLE");
    }

    #[test]
    fn every_number_has_one_of_few_labels_and_every_name_is_one() {
        let mut seen = std::collections::BTreeSet::new();
        for number in (0..=0xffff).chain([0x8028_0001, u32::MAX]) {
            let code = ResponseCode::from_value(number);
            let expected = if number < CODES { code.name().unwrap_or(OTHER) } else { OTHER };
            if number < CODES {
                assert_eq!(label(code), expected, "{number:#x}");
            }
            seen.insert(label(code));
        }
        assert_eq!(seen.len(), count());
        assert_eq!(names().collect::<std::collections::BTreeSet<_>>(), seen);
        assert!((90..150).contains(&count()), "{}", count());
    }
}
