//! What came of migrations, seen from either end: counted when a step is durable, from where the instance stood and where it stands.

use vtpm_protocol::instance::{InstanceState, LoggedStep, MigrationSide};

use super::Counter;

/// Something that happens once to a migration, at one end of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Outcome {
    /// The source lock was engaged; at the destination: a slot was made.
    Started,
    /// It was called off before it began: the ticket is dead.
    Disarmed,
    /// The instance lives at the destination. The source has its receipt and has destroyed what it kept.
    Live,
    /// It will never live at the destination. The source has its receipt and lives again.
    Void,
    /// The source lives again without a receipt, since its machine ran and its policy is to be available.
    MachineRan,
    /// The instance was deleted before it was settled.
    Deleted,
}

/// The words for them.
const OUTCOMES: [(Outcome, &str); 6] = [
    (Outcome::Started, "started"),
    (Outcome::Disarmed, "disarmed"),
    (Outcome::Live, "live"),
    (Outcome::Void, "void"),
    (Outcome::MachineRan, "machine-ran"),
    (Outcome::Deleted, "deleted"),
];

/// What was counted at either end.
#[derive(Default)]
pub struct Migrations {
    source: [Counter; OUTCOMES.len()],
    destination: [Counter; OUTCOMES.len()],
}

/// What a durable step makes of a migration: `before` is where the instance stood, nowhere if it was made by it, and `after` where it stands
/// unless it was destroyed. `None` is for steps that decide nothing.
fn outcome(
    step: LoggedStep,
    before: Option<InstanceState>,
    after: Option<InstanceState>,
) -> Option<(MigrationSide, Outcome)> {
    use InstanceState as S;
    use MigrationSide::{Destination, Source};
    Some(match (before, after) {
        (None, Some(_)) => (Destination, Outcome::Started),
        (Some(S::Live | S::Imported), Some(after)) if after.is_source_locked() => (Source, Outcome::Started),
        (Some(S::Live), Some(S::Live)) if step == LoggedStep::Abort => (Source, Outcome::Disarmed),
        (Some(before), Some(S::Live)) if before.is_source_locked() => match step {
            LoggedStep::MachineRuns => (Source, Outcome::MachineRan),
            _ => (Source, Outcome::Void),
        },
        (Some(before), None) if before.is_source_locked() => match step {
            LoggedStep::Commit => (Source, Outcome::Live),
            _ => (Source, Outcome::Deleted),
        },
        (Some(S::Imported), Some(S::Live)) => (Destination, Outcome::Live),
        (Some(S::DestinationLocked | S::DestinationKeyed | S::Importing | S::Imported), Some(S::Void)) => {
            (Destination, Outcome::Void)
        }
        (Some(S::DestinationLocked | S::DestinationKeyed | S::Importing | S::Imported), None) => {
            (Destination, Outcome::Deleted)
        }
        _ => return None,
    })
}

impl Migrations {
    /// Counts a durable step of a migration, and with it what it decided.
    pub fn count(&self, step: LoggedStep, before: Option<InstanceState>, after: Option<InstanceState>) {
        let Some((side, outcome)) = outcome(step, before, after) else { return };
        if let Some(counter) = self.of(side).get(outcome as usize) {
            counter.count();
        }
    }

    const fn of(&self, side: MigrationSide) -> &[Counter; OUTCOMES.len()] {
        match side {
            MigrationSide::Source => &self.source,
            MigrationSide::Destination => &self.destination,
        }
    }

    /// Every side and outcome that can be, with how often it was.
    pub(super) fn rows(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        let ends = [MigrationSide::Source, MigrationSide::Destination];
        ends.into_iter().flat_map(|side| {
            let of_source = |outcome| matches!(outcome, Outcome::Disarmed | Outcome::MachineRan);
            let there = move |outcome| side == MigrationSide::Source || !of_source(outcome);
            let counted = OUTCOMES.iter().zip(self.of(side)).filter(move |((outcome, _), _)| there(*outcome));
            counted.map(move |((_, word), counter)| (side.as_str(), *word, counter.get()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use InstanceState as S;

    #[test]
    fn each_end_of_a_migration_is_counted_once_in_each_outcome() {
        let counted = Migrations::default();
        // A source that moves on, one that comes back, one whose machine ran, one that was only armed, one that was deleted.
        for (step, before, after) in [
            (LoggedStep::Arm, Some(S::Live), Some(S::Live)),
            (LoggedStep::Lock, Some(S::Live), Some(S::SourceLocked)),
            (LoggedStep::GetKey, Some(S::SourceLocked), Some(S::SourceKeyed)),
            (LoggedStep::GetData, Some(S::SourceKeyed), Some(S::Exporting)),
            (LoggedStep::GetData, Some(S::Exporting), Some(S::Exported)),
            (LoggedStep::Commit, Some(S::Exported), None),
            (LoggedStep::Lock, Some(S::Imported), Some(S::SourceLocked)),
            (LoggedStep::Abort, Some(S::Exporting), Some(S::Live)),
            (LoggedStep::MachineRuns, Some(S::Exported), Some(S::Live)),
            (LoggedStep::Abort, Some(S::Live), Some(S::Live)),
            (LoggedStep::Delete, Some(S::Exported), None),
            (LoggedStep::Prepare, None, Some(S::DestinationLocked)),
            (LoggedStep::SetKey, Some(S::DestinationLocked), Some(S::DestinationKeyed)),
            (LoggedStep::Reset, Some(S::Importing), Some(S::DestinationLocked)),
            (LoggedStep::Unlock, Some(S::Importing), Some(S::Imported)),
            (LoggedStep::FirstCommand, Some(S::Imported), Some(S::Live)),
            (LoggedStep::Abort, Some(S::Importing), Some(S::Void)),
            (LoggedStep::Delete, Some(S::Void), None),
            (LoggedStep::Delete, Some(S::DestinationKeyed), None),
            (LoggedStep::Delete, Some(S::Live), None),
        ] {
            counted.count(step, before, after);
        }
        let rows: Vec<_> = counted.rows().collect();
        assert_eq!(
            rows,
            [
                ("source", "started", 2),
                ("source", "disarmed", 1),
                ("source", "live", 1),
                ("source", "void", 1),
                ("source", "machine-ran", 1),
                ("source", "deleted", 1),
                ("destination", "started", 1),
                ("destination", "live", 1),
                ("destination", "void", 1),
                ("destination", "deleted", 1),
            ]
        );
        assert!(OUTCOMES.iter().enumerate().all(|(place, (outcome, _))| *outcome as usize == place));
    }
}
