//! The migration log, and the receipts of what is gone, from the client's side.

use vtpm_protocol::instance::{
    GetMigrationLogIn, GetMigrationLogOut, GetReceiptIn, GetReceiptOut, LogEntry, MigrationId, Uuid, cc,
};
use vtpm_protocol::rc::ResponseCode;

use super::{Client, ClientError, Result, Transport};

impl<T: Transport> Client<T> {
    /// GetReceipt: the receipt of a migration whose instance is gone from here, where one is kept.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn kept_receipt(&self, migration_id: MigrationId) -> Result<Option<GetReceiptOut>> {
        match self.on_self(cc::GET_RECEIPT, &GetReceiptIn { migration_id }) {
            Err(ClientError::Refused { code, .. }) if code.is(ResponseCode::VALUE) => Ok(None),
            other => other.map(Some),
        }
    }

    /// The last migration of the instance with that UUID, or of all that the log has, the newest first; with as many GetMigrationLog as
    /// it takes.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn migration_log(&self, uuid: Option<Uuid>) -> Result<Vec<LogEntry>> {
        let uuid = uuid.unwrap_or(Uuid([0; 16]));
        let mut all = Vec::new();
        loop {
            let first = u32::try_from(all.len()).unwrap_or(u32::MAX);
            let input = GetMigrationLogIn { uuid, first, count: u32::MAX };
            let page: GetMigrationLogOut = self.on_self(cc::GET_MIGRATION_LOG, &input)?;
            let more = page.more && !page.entries.is_empty();
            all.extend(page.entries);
            if !more {
                return Ok(all);
            }
        }
    }
}
