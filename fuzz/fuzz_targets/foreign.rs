//! States of libtpms, sound and not: the reader answers with an error or with something that it understood.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vtpm_engine::foreign::Foreign;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(foreign) = Foreign::read(bytes) {
        assert!(foreign.nv_indices().is_sorted() && foreign.persistent_objects().is_sorted());
        assert!(foreign.notes().iter().all(|note| !note.to_string().is_empty()));
    }
});
