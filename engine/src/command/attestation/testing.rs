//! Attestations for the tests of the commands that make them.

use super::FIRMWARE_VERSION;
use crate::alg::hash_alg;
use crate::signing::verify;
use crate::testing::TestTpm;
use vtpm_protocol::codec::{Encode, decode_exact};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::*;

/// The scheme of most tests.
pub const ECDSA: Scheme = Scheme::new(TpmAlgId::ECDSA, TpmAlgId::SHA256);

/// The caller's data in all tests.
pub fn nonce() -> Tpm2bData {
    Tpm2bData::new(*b"nonce").unwrap()
}

/// What an attestation command returned.
#[derive(Debug)]
pub struct Attestation {
    /// Decoded.
    pub attest: TpmsAttest,
    /// As they were signed.
    pub bytes: Tpm2bAttest,
    /// The signature over `bytes`.
    pub signature: TpmtSignature,
}

impl Attestation {
    /// Checks signature, signer, caller's data, and the clock and version as the key's hierarchy may show them.
    pub fn check(&self, tpm: &mut TestTpm, key: TpmHandle, data: &Tpm2bData) {
        let hash = match &self.signature {
            TpmtSignature::Rsa { hash, .. } | TpmtSignature::Ecc { hash, .. } => *hash,
            TpmtSignature::Hmac(mac) => mac.hash_alg,
            other => panic!("{other:?}"),
        };
        let digest = hash_alg(hash).unwrap().digest(&[&self.bytes]).to_vec();
        let now = tpm.env.now;
        let clock = tpm.state().clock_info(now);
        let object = tpm.state().object(key).unwrap();
        assert_eq!(verify(object, &Tpm2bDigest::new(digest).unwrap(), &self.signature), Ok(()));
        assert_eq!(self.attest.qualified_signer, object.qualified_name);
        assert_eq!(self.attest.extra_data, *data);
        assert_eq!(self.attest.clock_info.clock, clock.clock);
        assert_eq!(self.attest.clock_info.safe, clock.safe);
        let plain = matches!(object.hierarchy, TpmHandle::ENDORSEMENT | TpmHandle::PLATFORM);
        assert_eq!(self.attest.clock_info == clock, plain);
        assert_eq!(self.attest.firmware_version == FIRMWARE_VERSION, plain);
        assert_eq!(self.bytes[..4], [0xff, b'T', b'C', b'G']);
    }
}

/// Runs a command that returns an attestation.
pub fn attestation(
    tpm: &mut TestTpm,
    cc: TpmCc,
    handles: &[TpmHandle],
    passwords: &[&[u8]],
    parameters: &dyn Encode,
) -> Result<Attestation, ResponseCode> {
    let (_, out) = tpm.run_with(cc, handles, passwords, parameters)?;
    let (bytes, signature): (Tpm2bAttest, _) = decode_exact(&out).unwrap();
    Ok(Attestation { attest: decode_exact(&bytes).unwrap(), bytes, signature })
}
