//! `TPM2_SetPrimaryPolicy` (Part 3, 24.3).

use crate::command::{Context, Output, parameters};
use crate::state::Policy;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Tpm2bDigest, TpmHandle, TpmiAlgHashOrNull, hash_size};

/// Sets the policy of a hierarchy, of the lockout or of the countdown timer; an empty one with the null algorithm takes it away.
///
/// # Errors
/// `TPM_RC_SIZE` for a policy that is not as long as a digest of the algorithm.
pub fn set_primary_policy(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let policy = policy(parameters(r)?)?;
    match cx.handle(0)? {
        TpmHandle::OWNER => cx.state.permanent_mut().owner.policy = policy,
        TpmHandle::ENDORSEMENT => cx.state.permanent_mut().endorsement.policy = policy,
        TpmHandle::LOCKOUT => cx.state.permanent_mut().lockout_policy = policy,
        TpmHandle::PLATFORM => cx.state.volatile_mut().state_clear.platform_policy = policy,
        TpmHandle::ACT_0 => cx.state.volatile_mut().act.policy = policy,
        _ => return Err(ResponseCode::VALUE.handle(1)),
    }
    Ok(Output::none())
}

/// A policy as the first two parameters of a command give it.
///
/// # Errors
/// `TPM_RC_SIZE` when they do not fit each other.
pub fn policy(
    (digest, TpmiAlgHashOrNull(alg)): (Tpm2bDigest, TpmiAlgHashOrNull),
) -> Result<Policy, ResponseCode> {
    if digest.len() != hash_size(alg).unwrap_or(0) {
        return Err(ResponseCode::SIZE.parameter(1));
    }
    Ok(Policy { alg, digest })
}

#[cfg(test)]
mod tests {
    use crate::testing::TestTpm;
    use crate::testing::objects::{run_with_policy, start_policy};
    use vtpm_protocol::codec::Encode;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{Tpm2bAuth, Tpm2bDigest, TpmAlgId, TpmCc, TpmHandle, TpmSe, TpmSu};

    const HIERARCHIES: [TpmHandle; 4] =
        [TpmHandle::OWNER, TpmHandle::ENDORSEMENT, TpmHandle::PLATFORM, TpmHandle::LOCKOUT];
    const ALL: [TpmHandle; 5] =
        [TpmHandle::OWNER, TpmHandle::ENDORSEMENT, TpmHandle::PLATFORM, TpmHandle::LOCKOUT, TpmHandle::ACT_0];

    fn set(tpm: &mut TestTpm, handle: TpmHandle, digest: &[u8], alg: TpmAlgId) -> Result<(), ResponseCode> {
        let input = (Tpm2bDigest::new(digest).unwrap(), alg);
        tpm.run_with(TpmCc::SET_PRIMARY_POLICY, &[handle], &[b""], &input).map(drop)
    }

    /// `PolicyCommandCode(HierarchyChangeAuth)`, extended by hand.
    fn policy() -> Vec<u8> {
        let (cc, what) = (TpmCc::POLICY_COMMAND_CODE.to_bytes(), TpmCc::HIERARCHY_CHANGE_AUTH.to_bytes());
        crate::crypto::HashAlg::Sha256.digest(&[&[0; 32], &cc, &what]).to_vec()
    }

    #[test]
    fn each_hierarchy_is_authorized_by_its_policy() {
        for handle in HIERARCHIES {
            let mut tpm = TestTpm::started();
            let session = start_policy(&mut tpm, TpmSe::POLICY);
            let change = |tpm: &mut TestTpm| {
                tpm.run(TpmCc::POLICY_COMMAND_CODE, &[session], &TpmCc::HIERARCHY_CHANGE_AUTH).unwrap();
                let new = Tpm2bAuth::new(*b"new").unwrap();
                run_with_policy(tpm, TpmCc::HIERARCHY_CHANGE_AUTH, &[handle], session, &new).map(drop)
            };
            assert_eq!(change(&mut tpm), Err(ResponseCode::AUTH_UNAVAILABLE), "{handle:?}");
            tpm.run(TpmCc::POLICY_RESTART, &[session], &()).unwrap();
            set(&mut tpm, handle, &policy(), TpmAlgId::SHA256).unwrap();
            change(&mut tpm).unwrap();
            assert_eq!(tpm.state().auth_value(handle).unwrap().expose(), b"new");
        }
    }

    #[test]
    fn one_can_be_taken_away_and_those_of_platform_and_timer_end_with_the_boot() {
        let mut tpm = TestTpm::started();
        for handle in ALL {
            set(&mut tpm, handle, &policy(), TpmAlgId::SHA256).unwrap();
        }
        tpm.init();
        tpm.run(TpmCc::STARTUP, &[], &TpmSu::CLEAR).unwrap();
        for handle in ALL {
            let kept = tpm.state().policy(handle).unwrap().alg == TpmAlgId::SHA256;
            assert_eq!(kept, !matches!(handle, TpmHandle::PLATFORM | TpmHandle::ACT_0));
            set(&mut tpm, handle, b"", TpmAlgId::NULL).unwrap();
            assert!(tpm.state().policy(handle).unwrap().digest.is_empty());
        }
    }

    #[test]
    fn a_policy_is_as_long_as_its_algorithm_says() {
        let mut tpm = TestTpm::started();
        for (size, alg) in [
            (0, TpmAlgId::SHA256),
            (31, TpmAlgId::SHA256),
            (33, TpmAlgId::SHA256),
            (32, TpmAlgId::SHA1),
            (1, TpmAlgId::NULL),
        ] {
            let refused = set(&mut tpm, TpmHandle::OWNER, &vec![1; size], alg);
            assert_eq!(refused, Err(ResponseCode::SIZE.parameter(1)), "{size} {alg:?}");
        }
        assert_eq!(
            set(&mut tpm, TpmHandle::OWNER, &[1; 32], TpmAlgId::AES),
            Err(ResponseCode::HASH.parameter(2))
        );
        for handle in [TpmHandle::NULL, TpmHandle(TpmHandle::ACT_0.0 + 1), TpmHandle::ACT_F] {
            assert_eq!(set(&mut tpm, handle, b"", TpmAlgId::NULL), Err(ResponseCode::VALUE.handle(1)));
        }
    }
}
