//! Without a swtpm: what is no state at all. With one: `tests/import_swtpm` of the package vtpmd.

use super::{Foreign, ForeignError, MAX_STATE, Note};
use proptest::prelude::*;
use vtpm_protocol::codec::Encode;

/// The beginning of every state.
fn header(version: u16, magic: u32, least: u16) -> Vec<u8> {
    (version, magic, least).to_bytes()
}

fn error(bytes: &[u8]) -> ForeignError {
    Foreign::read(bytes).err().unwrap()
}

#[test]
fn what_does_not_begin_as_a_state_is_called_so() {
    for bytes in [&b""[..], b"TPM", &[0; 100], &header(3, 0xab36_4724, 3)] {
        assert_eq!(error(bytes), ForeignError::NotLibtpms);
    }
    assert_eq!(error(&vec![0; MAX_STATE + 1]), ForeignError::TooLong(MAX_STATE + 1));
}

#[test]
fn a_newer_version_is_named() {
    let newer = header(9, 0xab36_4723, 5);
    assert_eq!(error(&newer), ForeignError::TooNew { what: "header", version: 5, known: 4 });
    let constants = [header(3, 0xab36_4723, 3), header(4, 0xc9ea_6431, 4)].concat();
    assert_eq!(error(&constants), ForeignError::TooNew { what: "list of constants", version: 4, known: 3 });
}

#[test]
fn a_state_that_ends_is_cut_off_where_it_ends() {
    let bytes = [header(3, 0xab36_4723, 3), header(3, 0xc9ea_6431, 1)].concat();
    assert_eq!(error(&bytes), ForeignError::CutOff("list of constants"));
    assert!(error(&bytes).to_string().contains("cut off in its list of constants"));
    let many = [&bytes[..], &u32::MAX.to_be_bytes()].concat();
    assert!(matches!(error(&many), ForeignError::Damaged { what: "list of constants", .. }));
}

#[test]
fn notes_are_sentences() {
    let note = Note::Object { handle: 0x8100_0001, why: "its curve is not implemented" };
    assert_eq!(
        note.to_string(),
        "the persistent object 0x81000001 is left out: its curve is not implemented"
    );
}

proptest! {
    #[test]
    fn nothing_makes_the_reader_fall_over(
        version in 0u16..6,
        tail in proptest::collection::vec(any::<u8>(), 0..2000),
    ) {
        let bytes = [header(version, 0xab36_4723, 1), tail].concat();
        prop_assert!(Foreign::read(&bytes).is_err());
    }
}
