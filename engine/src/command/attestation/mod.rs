//! Attestation commands (Part 3, chapter 18; Part 1, "Attestation").

mod quote;

pub use quote::quote;

use crate::alg;
use crate::command::{Context, EnvRandom};
use crate::crypto::{HashAlg, kdfa};
use crate::signing;
use crate::state::{Object, State};
use vtpm_protocol::codec::Encode;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{
    Attested, Scheme, Tpm2bAttest, Tpm2bData, TpmHandle, TpmsAttest, TpmsClockInfo, TpmtSignature,
};

/// The firmware version of `TPM_PT_FIRMWARE_VERSION_1` and `_2`: the release of the engine, as major, minor, patch and zero.
pub const FIRMWARE_VERSION: u64 = 0x0000_0002_0000_0000;

/// The hash of the obfuscation where the signing key has none of its own.
const OBFUSCATION_HASH: HashAlg = HashAlg::Sha256;

/// Builds the attestation structure around `attested`, and signs its digest with `key` and a scheme that was selected for it.
///
/// # Errors
/// Those of [`signing::sign`].
fn attest(
    cx: &mut Context<'_>,
    key: &Object,
    scheme: Scheme,
    extra_data: Tpm2bData,
    attested: Attested,
) -> Result<(Tpm2bAttest, TpmtSignature), ResponseCode> {
    let (clock_info, firmware_version) = clock_and_firmware(cx.state, key, cx.now);
    let qualified_signer = key.qualified_name.clone();
    let attest = TpmsAttest { qualified_signer, extra_data, clock_info, firmware_version, attested };
    let bytes = attest.to_bytes();
    let digest = alg::hash_alg(scheme.hash).ok_or(ResponseCode::SCHEME)?.digest(&[&bytes]);
    let signature = signing::sign(key, scheme, &digest, &mut EnvRandom(cx.env))?;
    Ok((Tpm2bAttest::new(bytes)?, signature))
}

/// The clock and the firmware version as this key may attest them. What would tell one TPM from another, reset and restart counts and
/// the version, is shifted by a secret amount for keys that are neither in the endorsement nor in the platform
/// hierarchy; the amount is the same for every attestation by the same key, so that changes show.
fn clock_and_firmware(state: &State, key: &Object, now: u64) -> (TpmsClockInfo, u64) {
    let clock = state.clock_info(now);
    if matches!(key.hierarchy, TpmHandle::ENDORSEMENT | TpmHandle::PLATFORM) {
        return (clock, FIRMWARE_VERSION);
    }
    let alg = key.name_alg().unwrap_or(OBFUSCATION_HASH);
    let proof = state.proof(TpmHandle::OWNER).expose();
    let stream = kdfa(alg, proof, b"OBFUSCATE", &key.qualified_name, &[], 128);
    let number = |range: core::ops::Range<usize>| {
        stream.get(range).unwrap_or_default().iter().fold(0u64, |n, byte| n << 8 | u64::from(*byte))
    };
    let half = |range| u32::try_from(number(range)).unwrap_or_default();
    let clock = TpmsClockInfo {
        reset_count: clock.reset_count.wrapping_add(half(8..12)),
        restart_count: clock.restart_count.wrapping_add(half(12..16)),
        ..clock
    };
    (clock, FIRMWARE_VERSION.wrapping_add(number(0..8)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_firmware_version_is_that_of_this_release() {
        let version = |part: &str| part.parse::<u64>().unwrap();
        let major = version(env!("CARGO_PKG_VERSION_MAJOR"));
        let minor = version(env!("CARGO_PKG_VERSION_MINOR"));
        let patch = version(env!("CARGO_PKG_VERSION_PATCH"));
        assert_eq!(FIRMWARE_VERSION, major << 48 | minor << 32 | patch << 16);
    }
}
