//! `TPM2_ChangeEPS` (Part 3, 24.5).

use crate::command::{Context, Output, parameters};
use crate::state::Hierarchy;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::TpmHandle;

/// A new seed and proof of the endorsement hierarchy, which is as in a new TPM then: enabled, without authorization value, policy and objects.
///
/// # Errors
/// Those of the parameters.
pub fn change_eps(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let () = parameters(r)?;
    let mut fill = |out: &mut [u8]| cx.env.fill_random(out);
    cx.state.permanent_mut().endorsement = Hierarchy::generate(&mut fill);
    cx.state.volatile_mut().state_clear.eh_enable = true;
    cx.state.remove_objects_of(TpmHandle::ENDORSEMENT);
    Ok(Output::none())
}

#[cfg(test)]
mod tests {
    use crate::testing::TestTpm;
    use crate::testing::objects::{create_primary, ecc_storage_key};
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{Tpm2bAuth, Tpm2bDigest, TpmAlgId, TpmCc, TpmHandle};

    fn change(tpm: &mut TestTpm, by: TpmHandle) -> Result<(), ResponseCode> {
        tpm.run_with(TpmCc::CHANGE_EPS, &[by], &[b""], &()).map(drop)
    }

    #[test]
    fn the_endorsement_hierarchy_is_as_in_a_new_tpm() {
        let mut tpm = TestTpm::started();
        let primary = |tpm: &mut TestTpm, by| create_primary(tpm, by, ecc_storage_key()).unwrap();
        let (ours, owners) = (primary(&mut tpm, TpmHandle::ENDORSEMENT), primary(&mut tpm, TpmHandle::OWNER));
        for (key, at) in [(&ours, 0x8101_0001), (&owners, 0x8100_0001)] {
            let handles = [TpmHandle::OWNER, key.handle];
            tpm.run_with(TpmCc::EVICT_CONTROL, &handles, &[b""], &TpmHandle(at)).unwrap();
        }
        let by = [TpmHandle::ENDORSEMENT];
        let policy = (Tpm2bDigest::new([7; 32]).unwrap(), TpmAlgId::SHA256);
        tpm.run_with(TpmCc::SET_PRIMARY_POLICY, &by, &[b""], &policy).unwrap();
        let auth = Tpm2bAuth::new(*b"pw").unwrap();
        tpm.run_with(TpmCc::HIERARCHY_CHANGE_AUTH, &by, &[b""], &auth).unwrap();
        tpm.run_with(TpmCc::HIERARCHY_CONTROL, &by, &[b"pw"], &(by[0], false)).unwrap();
        let proof = tpm.state().permanent.endorsement.proof.expose().to_vec();

        change(&mut tpm, TpmHandle::PLATFORM).unwrap();
        let state = tpm.state();
        assert_ne!(state.permanent.endorsement.proof.expose(), proof);
        assert!(state.hierarchy_enabled(by[0]) && state.auth_value(by[0]).unwrap().is_empty());
        assert_eq!(state.policy(by[0]).unwrap().alg, TpmAlgId::NULL);
        assert_eq!(state.transient.keys().copied().collect::<Vec<_>>(), [owners.handle.0]);
        assert_eq!(state.persistent.keys().copied().collect::<Vec<_>>(), [0x8100_0001]);
        // The seed is another one.
        assert!(primary(&mut tpm, by[0]).public.unique != ours.public.unique);
        assert!(primary(&mut tpm, TpmHandle::OWNER).public.unique == owners.public.unique);
    }

    #[test]
    fn only_the_platform_may() {
        let mut tpm = TestTpm::started();
        for by in [TpmHandle::OWNER, TpmHandle::ENDORSEMENT, TpmHandle::LOCKOUT, TpmHandle::NULL] {
            assert_eq!(change(&mut tpm, by), Err(ResponseCode::VALUE.handle(1)));
        }
        let unauthorized = tpm.run(TpmCc::CHANGE_EPS, &[TpmHandle::PLATFORM], &());
        assert_eq!(unauthorized, Err(ResponseCode::AUTH_MISSING));
    }
}
