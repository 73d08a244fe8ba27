//! `TPM2_Clear` (Part 3, 24.6).

use crate::command::{Context, Output, parameters};
use crate::state::{Derivation, DictionaryAttack, Policy, random_secret};
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Tpm2bAuth, TpmHandle, TpmaNv};

/// Removes all that belongs to the owner: a new storage seed and new proofs of owner and endorsement hierarchy, their objects and the owner's
/// NV indices gone, authorization values and policies empty, both hierarchies enabled, Clock and its counts at zero, dictionary
/// attack protection as in a new TPM. The endorsement seed stays, and so do the platform's things.
///
/// Other TPMs set clearCount to zero, too, which Part 3 does not ask for. It is not shown to anybody, and if it could repeat, objects with
/// stClear of the platform and null hierarchies that ended with a Restart would come back from their contexts.
///
/// # Errors
/// `TPM_RC_DISABLED` when it was disabled.
pub fn clear(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let () = parameters(r)?;
    if cx.state.permanent.disable_clear {
        return Err(ResponseCode::DISABLED);
    }
    let mut fill = |out: &mut [u8]| cx.env.fill_random(out);
    let (seed, owner_proof) = (random_secret(&mut fill), random_secret(&mut fill));
    let endorsement_proof = random_secret(&mut fill);
    let state = &mut *cx.state;

    // Both clocks stand on one base; only Clock begins anew.
    state.rebase_clock(cx.now);
    let permanent = state.permanent_mut();
    permanent.owner.seed = seed;
    permanent.owner.derivation = Derivation::Own;
    permanent.owner.proof = owner_proof;
    permanent.endorsement.proof = endorsement_proof;
    for hierarchy in [&mut permanent.owner, &mut permanent.endorsement] {
        hierarchy.auth = Tpm2bAuth::empty();
        hierarchy.policy = Policy::default();
    }
    permanent.lockout_auth = Tpm2bAuth::empty();
    permanent.lockout_policy = Policy::default();
    permanent.da = DictionaryAttack { used: permanent.da.used, ..DictionaryAttack::manufactured() };
    permanent.clock = 0;
    permanent.reset_count = 0;
    permanent.command_audit.counter = 0;

    let volatile = state.volatile_mut();
    volatile.state_clear.sh_enable = true;
    volatile.state_clear.eh_enable = true;
    volatile.state_clear.pcr_auth = Tpm2bAuth::empty();
    volatile.clock_safe = true;
    volatile.state_reset.restart_count = 0;

    state.remove_objects_of(TpmHandle::OWNER);
    state.remove_objects_of(TpmHandle::ENDORSEMENT);
    state.remove_nv_indices(|public| !public.attributes.has(TpmaNv::PLATFORM_CREATE));
    // Policies on PCRs that were checked before must be checked again.
    state.count_pcr_change();
    Ok(Output::none())
}

#[cfg(test)]
mod tests {
    use crate::command::nv::testing::{INDEX, OPEN, define, public};
    use crate::state::{Computed, Object, ObjectFlags};
    use crate::testing::TestTpm;
    use std::sync::Arc;
    use vtpm_protocol::codec::{Encode, decode_exact};
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{
        PublicId, PublicParms, Scheme, Tpm2bAuth, Tpm2bDigest, Tpm2bName, TpmAlgId, TpmCc, TpmHandle, TpmNt,
        TpmaNv, TpmaObject, TpmsTimeInfo, TpmtPublic,
    };

    fn clear(tpm: &mut TestTpm, auth: TpmHandle, password: &[u8]) -> Result<(), ResponseCode> {
        tpm.run_with(TpmCc::CLEAR, &[auth], &[password], &()).map(|_| ())
    }

    fn object(hierarchy: TpmHandle) -> Arc<Object> {
        let public = TpmtPublic {
            name_alg: TpmAlgId::SHA256,
            attributes: TpmaObject::default(),
            auth_policy: Tpm2bDigest::empty(),
            parms: PublicParms::KeyedHash { scheme: Scheme::NULL },
            unique: PublicId::Digest(Tpm2bDigest::empty()),
        };
        let flags = ObjectFlags { public_only: true, ..ObjectFlags::default() };
        Arc::new(Object {
            name: crate::entity::object_name(&public),
            public,
            sensitive: None,
            qualified_name: Tpm2bName::empty(),
            hierarchy,
            flags,
            computed: Computed::default(),
        })
    }

    #[test]
    fn seed_and_proofs_change_but_those_of_others_stay() {
        let mut tpm = TestTpm::started();
        let secrets = |tpm: &mut TestTpm| {
            [TpmHandle::OWNER, TpmHandle::ENDORSEMENT, TpmHandle::PLATFORM, TpmHandle::NULL]
                .map(|h| (tpm.state().seed(h).expose().to_vec(), tpm.state().proof(h).expose().to_vec()))
        };
        let before = secrets(&mut tpm);
        clear(&mut tpm, TpmHandle::LOCKOUT, b"").unwrap();
        let after = secrets(&mut tpm);
        assert!(before[0].0 != after[0].0 && before[0].1 != after[0].1);
        assert!(before[1].0 == after[1].0 && before[1].1 != after[1].1);
        assert!(before[2] == after[2] && before[3] == after[3]);
        assert_eq!((after[0].0.len(), after[1].1.len()), (64, 64));
    }

    #[test]
    fn authorizations_are_empty_after_it() {
        let mut tpm = TestTpm::started();
        let all = [TpmHandle::OWNER, TpmHandle::ENDORSEMENT, TpmHandle::LOCKOUT, TpmHandle::PLATFORM];
        for handle in all {
            let new = Tpm2bAuth::new(*b"pw").unwrap();
            tpm.run_with(TpmCc::HIERARCHY_CHANGE_AUTH, &[handle], &[b""], &new).map(|_| ()).unwrap();
        }
        assert_eq!(clear(&mut tpm, TpmHandle::LOCKOUT, b""), Err(ResponseCode::AUTH_FAIL.session(1)));
        assert_eq!(clear(&mut tpm, TpmHandle::LOCKOUT, b"pw"), Err(ResponseCode::LOCKOUT));
        clear(&mut tpm, TpmHandle::PLATFORM, b"pw").unwrap();
        for handle in &all[..3] {
            assert!(tpm.state().auth_value(*handle).unwrap().is_empty());
        }
        assert_eq!(tpm.state().auth_value(TpmHandle::PLATFORM).unwrap().expose(), b"pw");
        // And lockoutAuth works again.
        clear(&mut tpm, TpmHandle::LOCKOUT, b"").unwrap();
    }

    #[test]
    fn the_owners_things_go_and_the_platforms_stay() {
        let mut tpm = TestTpm::started();
        let platform = TpmHandle(INDEX.0 + 1);
        define(&mut tpm, TpmHandle::OWNER, b"", public(INDEX, OPEN.with_nt(TpmNt::Counter), 8)).unwrap();
        tpm.run_with(TpmCc::NV_INCREMENT, &[INDEX, INDEX], &[b""], &()).map(|_| ()).unwrap();
        let attributes = OPEN | TpmaNv::PLATFORM_CREATE;
        define(&mut tpm, TpmHandle::PLATFORM, b"", public(platform, attributes, 8)).unwrap();
        let state = tpm.state();
        for (i, hierarchy) in [TpmHandle::OWNER, TpmHandle::ENDORSEMENT, TpmHandle::PLATFORM, TpmHandle::NULL]
            .into_iter()
            .enumerate()
        {
            let i = u32::try_from(i).unwrap();
            state.transient.insert(0x8000_0000 + i, object(hierarchy));
            if hierarchy != TpmHandle::NULL {
                state.persistent.insert(0x8180_0000 + i, object(hierarchy));
            }
        }
        tpm.resave();
        clear(&mut tpm, TpmHandle::LOCKOUT, b"").unwrap();
        let state = tpm.state();
        assert_eq!(state.nv.keys().copied().collect::<Vec<_>>(), [platform.0]);
        assert_eq!(state.transient.keys().copied().collect::<Vec<_>>(), [0x8000_0002, 0x8000_0003]);
        assert_eq!(state.persistent.keys().copied().collect::<Vec<_>>(), [0x8180_0002]);
        assert_eq!(state.permanent.max_counter, 1);
    }

    #[test]
    fn clock_begins_anew_and_time_goes_on() {
        let mut tpm = TestTpm::started();
        tpm.env.now += 700;
        clear(&mut tpm, TpmHandle::LOCKOUT, b"").unwrap();
        tpm.env.now += 5;
        let out = tpm.run(TpmCc::READ_CLOCK, &[], &()).unwrap();
        let info: TpmsTimeInfo = decode_exact(&out).unwrap();
        assert_eq!((info.time, info.clock_info.clock), (705, 5));
        assert_eq!((info.clock_info.reset_count, info.clock_info.restart_count), (0, 0));
        assert!(info.clock_info.safe);
    }

    #[test]
    fn policies_on_pcrs_are_to_be_checked_again() {
        let mut tpm = TestTpm::started();
        let before = tpm.state().volatile.state_reset.pcr_counter;
        clear(&mut tpm, TpmHandle::LOCKOUT, b"").unwrap();
        assert_eq!(tpm.state().volatile.state_reset.pcr_counter, before + 1);
    }

    #[test]
    fn refuses_when_disabled_and_to_others() {
        let mut tpm = TestTpm::started();
        assert_eq!(clear(&mut tpm, TpmHandle::OWNER, b""), Err(ResponseCode::VALUE.handle(1)));
        assert_eq!(
            tpm.run(TpmCc::CLEAR, &[TpmHandle::LOCKOUT], &()).unwrap_err(),
            ResponseCode::AUTH_MISSING
        );
        tpm.state().permanent_mut().disable_clear = true;
        tpm.resave();
        for auth in [TpmHandle::LOCKOUT, TpmHandle::PLATFORM] {
            assert_eq!(clear(&mut tpm, auth, b""), Err(ResponseCode::DISABLED));
        }
        let trailing = tpm.run_with(TpmCc::CLEAR, &[TpmHandle::LOCKOUT], &[b""], &0u8.to_bytes()[0]);
        assert_eq!(trailing.unwrap_err(), ResponseCode::SIZE);
    }
}
