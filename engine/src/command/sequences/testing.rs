//! The commands of this chapter, for its tests.

use crate::signing::test_keys::AUTH;
use crate::testing::TestTpm;
use vtpm_protocol::codec::decode_exact;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::*;

/// The authorization value of all sequences, as it comes: the zeros do not count.
pub const SEQUENCE_AUTH: &[u8] = b"seq\0\0";

fn auth() -> Tpm2bAuth {
    Tpm2bAuth::new(SEQUENCE_AUTH).unwrap()
}

pub fn start_hash(tpm: &mut TestTpm, alg: TpmAlgId) -> Result<TpmHandle, ResponseCode> {
    tpm.run(TpmCc::HASH_SEQUENCE_START, &[], &(auth(), alg)).map(|out| decode_exact(&out).unwrap())
}

pub fn start_mac(tpm: &mut TestTpm, key: TpmHandle, scheme: TpmAlgId) -> Result<TpmHandle, ResponseCode> {
    let (handle, out) = tpm.run_with(TpmCc::MAC_START, &[key], &[AUTH], &(auth(), scheme))?;
    assert!(out.is_empty());
    Ok(handle.unwrap())
}

fn buffer(data: &[u8]) -> Tpm2bMaxBuffer {
    Tpm2bMaxBuffer::new(data).unwrap()
}

pub fn update(tpm: &mut TestTpm, sequence: TpmHandle, data: &[u8]) -> Result<(), ResponseCode> {
    tpm.run_with(TpmCc::SEQUENCE_UPDATE, &[sequence], &[b"seq"], &buffer(data))
        .map(|(_, out)| assert!(out.is_empty()))
}

pub fn complete(
    tpm: &mut TestTpm,
    sequence: TpmHandle,
    data: &[u8],
    hierarchy: TpmHandle,
) -> Result<(Tpm2bDigest, TpmtTk), ResponseCode> {
    let input = (buffer(data), hierarchy);
    let (_, out) = tpm.run_with(TpmCc::SEQUENCE_COMPLETE, &[sequence], &[b"seq"], &input)?;
    Ok(decode_exact(&out).unwrap())
}

pub fn complete_event(
    tpm: &mut TestTpm,
    pcr: TpmHandle,
    sequence: TpmHandle,
    data: &[u8],
) -> Result<TpmlDigestValues, ResponseCode> {
    let handles = [pcr, sequence];
    let (_, out) = tpm.run_with(TpmCc::EVENT_SEQUENCE_COMPLETE, &handles, &[b"", b"seq"], &buffer(data))?;
    Ok(decode_exact(&out).unwrap())
}
