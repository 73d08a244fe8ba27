//! Attestation commands (Part 3, chapter 18; Part 1, "Attestation").

mod certify;
mod certify_creation;
mod certify_x509;
mod get_command_audit_digest;
mod get_session_audit_digest;
mod get_time;
mod nv_certify;
mod quote;
#[cfg(test)]
mod refusals;
#[cfg(test)]
pub mod testing;
mod x509;

pub use certify::certify;
pub use certify_creation::certify_creation;
pub use certify_x509::certify_x509;
pub use get_command_audit_digest::get_command_audit_digest;
pub use get_session_audit_digest::get_session_audit_digest;
pub use get_time::get_time;
pub use nv_certify::nv_certify;
pub use quote::quote;

use crate::alg;
use crate::command::Context;
use crate::crypto::{HashAlg, kdfa};
use crate::entity::handle_name;
use crate::signing::{self, is_signing_key, select_scheme};
use crate::state::{Object, OrderlyState, State};
use std::sync::Arc;
use vtpm_protocol::codec::Encode;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{
    Attested, Scheme, Tpm2bAttest, Tpm2bData, Tpm2bName, TpmAlgId, TpmHandle, TpmsAttest, TpmsClockInfo,
    TpmtSignature,
};

/// The firmware version of `TPM_PT_FIRMWARE_VERSION_1` and `_2`: the release of the engine, as major, minor, patch and zero.
pub const FIRMWARE_VERSION: u64 = 0x0000_0003_0000_0000;

/// The hash of the obfuscation where the signing key has none of its own.
const OBFUSCATION_HASH: HashAlg = HashAlg::Sha256;

/// Who signs an attestation: a key with the scheme that was selected for it, or nobody.
pub(super) struct Signer {
    key: Option<(Arc<Object>, Scheme)>,
}

impl Signer {
    /// The signer in handle `n`, counted from 0, with the scheme that parameter number `parameter` asks for. For `TPM_RH_NULL` the
    /// scheme does not matter: there will be no signature.
    ///
    /// # Errors
    /// `TPM_RC_KEY` for a handle of no signing key; `TPM_RC_SCHEME` when the scheme does not fit the key, see [`select_scheme`].
    pub(super) fn new(
        cx: &Context<'_>,
        n: usize,
        requested: Scheme,
        parameter: u32,
    ) -> Result<Self, ResponseCode> {
        let handle = cx.handle(n)?;
        if handle == TpmHandle::NULL {
            return Ok(Self { key: None });
        }
        let key = cx.state.object(handle)?.clone();
        if !is_signing_key(&key) {
            let number = u32::try_from(n).unwrap_or(u32::MAX).saturating_add(1);
            return Err(ResponseCode::KEY.handle(number));
        }
        let scheme = select_scheme(&key, requested).map_err(|e| e.parameter(parameter))?;
        Ok(Self { key: Some((key, scheme)) })
    }

    /// Key and scheme.
    pub(super) fn key(&self) -> Option<&(Arc<Object>, Scheme)> {
        self.key.as_ref()
    }

    /// Nobody.
    pub(super) fn is_null(&self) -> bool {
        self.key.is_none()
    }

    /// The hash of the scheme.
    pub(super) fn hash(&self) -> Option<HashAlg> {
        self.key.as_ref().and_then(|(_, scheme)| alg::hash_alg(scheme.hash))
    }

    /// Whether nothing in the attestation may tell which key signed (Part 1, "Anonymous Signing").
    pub(super) fn is_anonymous(&self) -> bool {
        self.key.as_ref().is_some_and(|(_, scheme)| scheme.scheme == TpmAlgId::ECDAA)
    }
}

/// Builds the attestation structure around `attested`, and signs its digest, where somebody does. For an anonymous scheme the caller's
/// data is in the digest, and not in the structure.
///
/// # Errors
/// Those of [`signing::sign`].
pub(super) fn attest(
    cx: &mut Context<'_>,
    signer: &Signer,
    data: Tpm2bData,
    attested: Attested,
) -> Result<(Tpm2bAttest, TpmtSignature), ResponseCode> {
    let (qualified_signer, extra_data, digested) = match &signer.key {
        Some(_) if signer.is_anonymous() => (Tpm2bName::empty(), Tpm2bData::empty(), data),
        Some((key, _)) => (key.qualified_name.clone(), data, Tpm2bData::empty()),
        None => (handle_name(TpmHandle::NULL), data, Tpm2bData::empty()),
    };
    let key = signer.key.as_ref().map(|(key, _)| key);
    let (clock_info, firmware_version) =
        clock_and_firmware(cx.state, key.map(Arc::as_ref), &qualified_signer, cx.now);
    let attest = TpmsAttest { qualified_signer, extra_data, clock_info, firmware_version, attested };
    let bytes = attest.to_bytes();
    let signature = match &signer.key {
        None => TpmtSignature::Null,
        Some((key, scheme)) => {
            let alg = alg::hash_alg(scheme.hash).ok_or(ResponseCode::SCHEME)?;
            let mut digest = alg.digest(&[&bytes]);
            if !digested.is_empty() {
                digest = alg.digest(&[&digested, &digest]);
            }
            // As in other TPMs, what was signed about the clock makes a shutdown before it void.
            if cx.state.permanent.orderly != OrderlyState::None {
                cx.state.permanent_mut().orderly = OrderlyState::None;
            }
            signing::sign(cx, key, *scheme, &digest)?
        }
    };
    Ok((Tpm2bAttest::new(bytes)?, signature))
}

/// The clock and the firmware version as this signer may attest them. What would tell one TPM from another, reset and restart counts and
/// the version, is shifted by a secret amount for keys that are neither in the endorsement nor in the platform
/// hierarchy; the amount is the same for every attestation by the same key, so that changes show.
fn clock_and_firmware(
    state: &State,
    key: Option<&Object>,
    qualified_signer: &[u8],
    now: u64,
) -> (TpmsClockInfo, u64) {
    let clock = state.clock_info(now);
    if key.is_some_and(|k| matches!(k.hierarchy, TpmHandle::ENDORSEMENT | TpmHandle::PLATFORM)) {
        return (clock, FIRMWARE_VERSION);
    }
    let alg = key.and_then(Object::name_alg).unwrap_or(OBFUSCATION_HASH);
    let proof = state.proof(TpmHandle::OWNER).expose();
    let stream = kdfa(alg, proof, b"OBFUSCATE", qualified_signer, &[], 128);
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
