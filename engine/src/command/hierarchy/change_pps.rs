//! `TPM2_ChangePPS` (Part 3, 24.4).

use crate::command::{Context, Output, parameters};
use crate::state::{Hierarchy, Policy};
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::TpmHandle;

/// A new seed and proof of the platform hierarchy: its objects are gone, and so are its policy and that of the PCRs. NV indices
/// stay.
///
/// # Errors
/// Those of the parameters.
pub fn change_pps(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let () = parameters(r)?;
    let mut fill = |out: &mut [u8]| cx.env.fill_random(out);
    let state = &mut *cx.state;
    let permanent = state.permanent_mut();
    permanent.platform = Hierarchy::generate(&mut fill);
    permanent.pcr_policy = Policy::default();
    state.volatile_mut().state_clear.platform_policy = Policy::default();
    state.remove_objects_of(TpmHandle::PLATFORM);
    Ok(Output::none())
}

#[cfg(test)]
mod tests {
    use crate::command::nv::testing::{INDEX, OPEN, define, public};
    use crate::testing::TestTpm;
    use crate::testing::objects::{create_primary, ecc_storage_key};
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{Tpm2bDigest, TpmAlgId, TpmCc, TpmHandle, TpmaNv};

    fn change(tpm: &mut TestTpm, by: TpmHandle) -> Result<(), ResponseCode> {
        tpm.run_with(TpmCc::CHANGE_PPS, &[by], &[b""], &()).map(drop)
    }

    #[test]
    fn the_platforms_objects_go_and_the_rest_stays() {
        let mut tpm = TestTpm::started();
        let platform_index = TpmHandle(INDEX.0 + 1);
        define(&mut tpm, TpmHandle::OWNER, b"", public(INDEX, OPEN, 8)).unwrap();
        let attributes = OPEN | TpmaNv::PLATFORM_CREATE;
        define(&mut tpm, TpmHandle::PLATFORM, b"", public(platform_index, attributes, 8)).unwrap();
        let primary = |tpm: &mut TestTpm, by| create_primary(tpm, by, ecc_storage_key()).unwrap();
        let (ours, owners) = (primary(&mut tpm, TpmHandle::PLATFORM), primary(&mut tpm, TpmHandle::OWNER));
        for (by, key, at) in
            [(TpmHandle::PLATFORM, &ours, 0x8180_0000), (TpmHandle::OWNER, &owners, 0x8100_0000)]
        {
            tpm.run_with(TpmCc::EVICT_CONTROL, &[by, key.handle], &[b""], &TpmHandle(at)).unwrap();
        }
        let policy = (Tpm2bDigest::new([7; 32]).unwrap(), TpmAlgId::SHA256);
        tpm.run_with(TpmCc::SET_PRIMARY_POLICY, &[TpmHandle::PLATFORM], &[b""], &policy).unwrap();
        let pcr = (&policy.0, policy.1, TpmHandle(20));
        tpm.run_with(TpmCc::PCR_SET_AUTH_POLICY, &[TpmHandle::PLATFORM], &[b""], &pcr).unwrap();
        let proof = tpm.state().permanent.platform.proof.expose().to_vec();

        change(&mut tpm, TpmHandle::PLATFORM).unwrap();
        let state = tpm.state();
        assert_ne!(state.permanent.platform.proof.expose(), proof);
        assert_eq!(state.nv.keys().copied().collect::<Vec<_>>(), [INDEX.0, platform_index.0]);
        assert_eq!(state.transient.keys().copied().collect::<Vec<_>>(), [owners.handle.0]);
        assert_eq!(state.persistent.keys().copied().collect::<Vec<_>>(), [0x8100_0000]);
        for with_policy in [TpmHandle::PLATFORM, TpmHandle(20)] {
            assert_eq!(state.policy(with_policy).unwrap().alg, TpmAlgId::NULL);
        }
        // The seed is another one.
        assert!(primary(&mut tpm, TpmHandle::PLATFORM).public.unique != ours.public.unique);
        assert!(primary(&mut tpm, TpmHandle::OWNER).public.unique == owners.public.unique);
    }

    #[test]
    fn only_the_platform_may() {
        let mut tpm = TestTpm::started();
        for by in [TpmHandle::OWNER, TpmHandle::ENDORSEMENT, TpmHandle::LOCKOUT, TpmHandle::NULL] {
            assert_eq!(change(&mut tpm, by), Err(ResponseCode::VALUE.handle(1)));
        }
        let unauthorized = tpm.run(TpmCc::CHANGE_PPS, &[TpmHandle::PLATFORM], &());
        assert_eq!(unauthorized, Err(ResponseCode::AUTH_MISSING));
    }
}
