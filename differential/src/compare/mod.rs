//! What must be equal in two answers: response codes always, and of the responses whatever the specification leaves no choice in.

mod capability;
mod fields;
mod layout;

use crate::bytes::{OURS, Pair, THEIRS};
use crate::client::{Call, Edit, Reply};
use fields::Cursor;

pub use layout::layout;

/// What differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The response codes: theirs, ours.
    Code(u32, u32),
    /// A field of the response, by name, as texts: theirs, ours.
    Field(String, String, String),
}

/// Compares two successful responses field by field.
pub fn replies(call: &Call, replies: &Pair<Reply>) -> Vec<What> {
    let mut found = Vec::new();
    let mut differs = |name: &str, theirs: String, ours: String| {
        if theirs != ours {
            found.push(What::Field(name.to_owned(), theirs, ours));
        }
    };
    for (side, who) in [(THEIRS, "swtpm's"), (OURS, "our")] {
        for fault in &replies[side].faults {
            // A wrong client made the request, so that it cannot tell what the answer should be.
            if call.mutation.is_empty() {
                differs("response", format!("{who} answer: {fault}"), String::new());
            }
        }
    }
    if call.edits.iter().any(|e| matches!(e, Edit::Put(6, _))) {
        // It was another command.
        return found;
    }
    let text = |side: usize| format!("{:?}", replies[side].sessions);
    differs("sessions", text(THEIRS), text(OURS));
    let mut cursors = [Cursor::new(&replies[THEIRS].params), Cursor::new(&replies[OURS].params)];
    for (name, field) in layout(call.code) {
        fields::compare(*field, name, call, &mut cursors, &mut found);
    }
    if cursors.iter().any(|c| !c.rest().is_empty()) {
        let [theirs, ours] = cursors.map(|c| hex::encode(c.rest()));
        found.push(What::Field("more than the command returns".into(), theirs, ours));
    }
    found
}
