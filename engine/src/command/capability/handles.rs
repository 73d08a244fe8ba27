//! `TPM_CAP_HANDLES` and `TPM_CAP_AUTH_POLICIES`.

use super::page;
use crate::state::{Policy, State};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{PCR_COUNT, TpmHandle, TpmHt, TpmsTaggedPolicy, TpmtHa};

/// The permanent handles that commands take, in ascending order.
const PERMANENT: [TpmHandle; 8] = [
    TpmHandle::OWNER,
    TpmHandle::NULL,
    TpmHandle::RS_PW,
    TpmHandle::LOCKOUT,
    TpmHandle::ENDORSEMENT,
    TpmHandle::PLATFORM,
    TpmHandle::PLATFORM_NV,
    TpmHandle::ACT_0,
];

/// Those with a policy.
const WITH_POLICY: [TpmHandle; 5] =
    [TpmHandle::OWNER, TpmHandle::LOCKOUT, TpmHandle::ENDORSEMENT, TpmHandle::PLATFORM, TpmHandle::ACT_0];

/// The handles of the type of `first`, from `first` on.
///
/// # Errors
/// `TPM_RC_HANDLE` for a type that does not exist.
pub fn handles(
    state: &State,
    first: TpmHandle,
    count: usize,
) -> Result<(Vec<TpmHandle>, bool), ResponseCode> {
    let of_map = |keys: Vec<u32>| page(keys.into_iter().map(TpmHandle), |h| *h, first, count);
    Ok(match first.handle_type() {
        TpmHt::PCR => page((0..PCR_COUNT).map(TpmHandle), |h| *h, first, count),
        TpmHt::NV_INDEX => of_map(state.nv.keys().copied().collect()),
        TpmHt::PERSISTENT => of_map(state.persistent.keys().copied().collect()),
        TpmHt::TRANSIENT => of_map(state.transient_handles()),
        TpmHt::PERMANENT => page(PERMANENT, |h| *h, first, count),
        // Loaded sessions, each with the type that it has.
        TpmHt::HMAC_SESSION => page(
            state.sessions.iter().map(|(&slot, session)| session.handle(slot)),
            |h| h.index(),
            first.index(),
            count,
        ),
        // Saved sessions; which type they have stands in their contexts only.
        TpmHt::POLICY_SESSION => page(
            (0u32..)
                .zip(&state.volatile.state_reset.contexts.slots)
                .filter(|(slot, _)| state.saved_session(*slot).is_some())
                .map(|(slot, _)| TpmHandle::new(TpmHt::HMAC_SESSION, slot))
                .collect::<Vec<_>>(),
            |h| h.index(),
            first.index(),
            count,
        ),
        _ => return Err(ResponseCode::HANDLE),
    })
}

/// The policies of permanent handles, from `first` on; `TPM_ALG_NULL` for those that have none.
///
/// # Errors
/// `TPM_RC_VALUE` for another type of handle.
pub fn policies(
    state: &State,
    first: TpmHandle,
    count: usize,
) -> Result<(Vec<TpmsTaggedPolicy>, bool), ResponseCode> {
    if first.handle_type() != TpmHt::PERMANENT {
        return Err(ResponseCode::VALUE);
    }
    let policy = |handle| {
        let Policy { alg, digest } = state.policy(handle).unwrap_or_default();
        TpmsTaggedPolicy { handle, policy: TpmtHa { hash_alg: alg, digest: digest.to_vec() } }
    };
    Ok(page(WITH_POLICY.map(policy), |p| p.handle, first, count))
}
