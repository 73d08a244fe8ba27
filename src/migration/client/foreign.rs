//! ImportForeignState, from the client's side.

use vtpm_protocol::instance::{ForeignFormat, ImportForeignStateIn, cc};
use vtpm_protocol::tpm::Tpm2b;
use zeroize::Zeroizing;

use super::{Client, Result, Transport};
use crate::migration::session::MigrationDigest;

impl<T: Transport> Client<T> {
    /// ImportForeignState with the state of a libtpms TPM, into a fresh instance whose initial digest this is.
    ///
    /// # Errors
    /// [`ClientError`](super::ClientError).
    pub fn import_libtpms(
        &self,
        instance: u32,
        digest: &MigrationDigest,
        state: Zeroizing<Vec<u8>>,
    ) -> Result<()> {
        let digest = Tpm2b::new(*digest.as_bytes()).unwrap_or_default();
        let input = ImportForeignStateIn { digest, format: ForeignFormat::Libtpms, state };
        self.on_instance(cc::IMPORT_FOREIGN_STATE, instance, &input)
    }
}
