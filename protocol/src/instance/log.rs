//! The migration log of a privileged instance: of each instance that it manages the steps of the last migration. GetMigrationLog.

use super::{InstanceName, LoggedStep, MigrationId, MigrationSide, Uuid, decode_list, encode_list};
use crate::codec::{Decode, Encode, Reader};
use crate::rc::ResponseCode;
use crate::structure;

/// The most migrations in the log of one instance.
pub const MAX_LOG: usize = 64;
/// The most steps of one migration in the log; of more, the first and the newest are there.
pub const MAX_LOG_STEPS: usize = 32;
/// The most bytes of entries in one response of GetMigrationLog: they fit a response of 4096 bytes.
pub const MAX_CAP_LOG_BYTES: usize = 3800;

structure! {
    /// A step, or the same step several times in a row.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct LogStep {
        /// Which.
        pub step: LoggedStep,
        /// When the first one began, in milliseconds since 1970-01-01 UTC, by the clock of the host.
        pub at_ms: u64,
        /// From there to the end of the last one, in microseconds.
        pub span_us: u64,
        /// Spent in the commands up to their commits, in microseconds.
        pub spent_us: u64,
        /// Length of the commands and of their responses, in bytes.
        pub bytes: u64,
        /// How many commands.
        pub count: u32,
    }
}

/// The last migration of one instance.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogEntry {
    /// N.
    pub migration_id: MigrationId,
    /// The instance.
    pub uuid: Uuid,
    /// Its name here.
    pub name: InstanceName,
    /// Which end of the migration is here.
    pub side: MigrationSide,
    /// What was done, the oldest first.
    pub steps: Vec<LogStep>,
}

impl Encode for LogEntry {
    fn encode(&self, out: &mut Vec<u8>) {
        (self.migration_id, self.uuid, &self.name, self.side).encode(out);
        encode_list(&self.steps, out);
    }
}

impl Decode for LogEntry {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        let migration_id = r.array()?;
        let (uuid, name, side) = Decode::decode(r)?;
        Ok(Self { migration_id, uuid, name, side, steps: decode_list(r, MAX_LOG_STEPS)? })
    }
}

structure! {
    /// Parameters of GetMigrationLog.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct GetMigrationLogIn {
        /// Of this instance only; all zeros: of all.
        pub uuid: Uuid,
        /// The position of the first entry wanted, from 0, the newest first.
        pub first: u32,
        /// How many at most.
        pub count: u32,
    }
}

/// Response parameters of GetMigrationLog.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GetMigrationLogOut {
    /// There are more.
    pub more: bool,
    /// The entries.
    pub entries: Vec<LogEntry>,
}

impl Encode for GetMigrationLogOut {
    fn encode(&self, out: &mut Vec<u8>) {
        self.more.encode(out);
        encode_list(&self.entries, out);
    }
}

impl Decode for GetMigrationLogOut {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        Ok(Self { more: bool::decode(r)?, entries: decode_list(r, MAX_LOG)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::decode_exact;

    #[test]
    fn an_entry_survives_its_bytes_and_the_longest_fits_a_response() {
        let step =
            LogStep { step: LoggedStep::GetData, at_ms: 1, span_us: 2, spent_us: 3, bytes: 4, count: 5 };
        let entry = LogEntry {
            migration_id: [1; 32],
            uuid: Uuid([2; 16]),
            name: InstanceName::new(&"n".repeat(64)).unwrap(),
            side: MigrationSide::Destination,
            steps: vec![step; MAX_LOG_STEPS],
        };
        let bytes = entry.to_bytes();
        assert!(bytes.len() <= MAX_CAP_LOG_BYTES, "{}", bytes.len());
        let out = GetMigrationLogOut { more: true, entries: vec![entry] };
        assert_eq!(decode_exact(&out.to_bytes()), Ok(out.clone()));
        let mut lies = out.to_bytes();
        lies.splice(1..5, u32::MAX.to_be_bytes());
        assert_eq!(decode_exact::<GetMigrationLogOut>(&lies), Err(ResponseCode::SIZE));
    }
}
