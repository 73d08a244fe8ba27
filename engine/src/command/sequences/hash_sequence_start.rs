//! `TPM2_HashSequenceStart` (Part 3, 17.4).

use crate::alg::hash_alg;
use crate::command::{Context, Output, parameters};
use crate::crypto::Hasher;
use crate::state::{Running, Sequence};
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Tpm2bAuth, TpmiAlgHashOrNull};

/// Starts a hash, or with a null algorithm an event, and returns the handle of the sequence, to which the caller gives an authorization
/// value.
///
/// # Errors
/// `TPM_RC_OBJECT_MEMORY` when there is no free slot.
pub fn hash_sequence_start(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (auth, alg): (Tpm2bAuth, TpmiAlgHashOrNull) = parameters(r)?;
    let running = match hash_alg(alg.0) {
        Some(alg) => Running::Hash { hasher: Hasher::new(alg), safe: None },
        None => Running::event(),
    };
    let handle = cx.state.insert_sequence(Sequence::new(&auth, running))?;
    Ok(Output::with_handle(handle, &()))
}

#[cfg(test)]
mod tests {
    use crate::testing::TestTpm;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{TpmAlgId, TpmCc};

    #[test]
    fn other_algorithms_and_longer_authorization_values_are_refused() {
        let mut tpm = TestTpm::started();
        let mut rc =
            |parameters: (u16, TpmAlgId)| tpm.run(TpmCc::HASH_SEQUENCE_START, &[], &parameters).unwrap_err();
        assert_eq!(rc((0, TpmAlgId::AES)), ResponseCode::HASH.parameter(2));
        assert_eq!(rc((65, TpmAlgId::SHA256)), ResponseCode::SIZE.parameter(1));
    }
}
