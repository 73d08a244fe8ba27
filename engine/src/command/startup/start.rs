//! `TPM2_Startup` (Part 3, 9.3; Part 1, "TPM Reset", "TPM Restart", "TPM Resume").

use super::StartupType;
use crate::command::{Context, Output, parameters};
use crate::execute::da;
use crate::state::{
    Commitments, OrderlyState, PcrBanks, SavedContexts, StateClear, is_saved_pcr, random_secret,
};
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{PCR_COUNT, Tpm2bDigest, TpmSu};

/// Starts the TPM after `_TPM_Init`: anew (Reset), anew with sessions and the null hierarchy kept (Restart), or where it left
/// off (Resume).
///
/// # Errors
/// `TPM_RC_INITIALIZE` when it has been started; `TPM_RC_LOCALITY` for another locality than 0 or 3, or for STATE from another one than
/// the Startup before; `TPM_RC_VALUE` for an unknown type, for STATE without a `TPM2_Shutdown(STATE)` before it, and for STATE with an H-CRTM
/// where the Startup before had none, or the other way round.
pub fn startup(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (StartupType(kind),) = parameters(r)?;
    let volatile = &cx.state.volatile;
    if volatile.started {
        return Err(ResponseCode::INITIALIZE);
    }
    if cx.locality != 0 && cx.locality != 3 {
        return Err(ResponseCode::LOCALITY);
    }
    // What an H-CRTM measured stands in PCR 0 instead of the locality.
    let hcrtm = !volatile.hcrtm_values.0.is_empty();
    let locality = if hcrtm { 0 } else { cx.locality };
    let saved = cx.state.permanent.orderly;
    let resume = match kind {
        TpmSu::CLEAR => false,
        TpmSu::STATE if saved == OrderlyState::State => {
            if volatile.hcrtm != hcrtm {
                return Err(ResponseCode::VALUE.parameter(1));
            }
            if volatile.startup_locality != locality {
                return Err(ResponseCode::LOCALITY);
            }
            true
        }
        _ => return Err(ResponseCode::VALUE.parameter(1)),
    };
    if resume {
        count_restart(cx);
    } else {
        cx.state.volatile_mut().state_clear = StateClear::default();
        if saved == OrderlyState::State { restart(cx) } else { reset(cx) }
    }
    start_pcrs(cx, locality, resume);
    cx.state.start_act(cx.now, resume);
    let volatile = cx.state.volatile_mut();
    volatile.started = true;
    volatile.ph_enable = true;
    volatile.orderly = saved != OrderlyState::None;
    volatile.startup_locality = locality;
    volatile.hcrtm = hcrtm;
    if !resume {
        cx.state.start_nv_indices(saved);
    }
    cx.state.permanent_mut().orderly = OrderlyState::None;
    da::start(cx.state, cx.now, saved != OrderlyState::None);
    Ok(Output::none())
}

fn start_pcrs(cx: &mut Context<'_>, locality: u8, resume: bool) {
    let old = resume.then(|| cx.state.volatile.pcrs.clone());
    let pcrs = PcrBanks::startup(&cx.state.permanent.pcr_allocation, locality, old.as_deref());
    let volatile = cx.state.volatile_mut();
    *volatile.pcrs = pcrs;
    volatile.pcr_reconfigured = false;
    if resume {
        volatile.hcrtm_values.0.clear();
    } else {
        cx.state.take_hcrtm();
    }
    // Saved sessions live on, but not all the PCRs that their policies checked.
    for pcr in (0..PCR_COUNT).filter(|&pcr| !(resume && is_saved_pcr(pcr))) {
        cx.state.pcr_changed(pcr);
    }
}

fn reset(cx: &mut Context<'_>) {
    let mut fill = |out: &mut [u8]| cx.env.fill_random(out);
    let (null_seed, null_proof) = (random_secret(&mut fill), random_secret(&mut fill));
    let commitments = Commitments::fresh(&mut fill);
    let group = &mut cx.state.volatile_mut().state_reset;
    group.null_seed = null_seed;
    group.null_proof = null_proof;
    group.clear_count = 0;
    group.object_context_id = 0;
    group.contexts = SavedContexts::default();
    group.restart_count = 0;
    group.pcr_counter = 0;
    group.command_audit_digest = Tpm2bDigest::empty();
    group.commitments = commitments;
    let permanent = cx.state.permanent_mut();
    permanent.reset_count = permanent.reset_count.wrapping_add(1);
    permanent.total_reset_count = permanent.total_reset_count.saturating_add(1);
}

fn restart(cx: &mut Context<'_>) {
    let group = &mut cx.state.volatile_mut().state_reset;
    group.clear_count = group.clear_count.wrapping_add(1);
    count_restart(cx);
}

fn count_restart(cx: &mut Context<'_>) {
    let group = &mut cx.state.volatile_mut().state_reset;
    group.restart_count = group.restart_count.wrapping_add(1);
}

#[cfg(test)]
mod tests {
    use crate::testing::TestTpm;
    use crate::testing::objects::{create_primary, ecc_storage_key, start_policy};
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{Tpm2bAuth, Tpm2bEvent, TpmAlgId, TpmCc, TpmHandle, TpmSe, TpmSu};

    #[test]
    fn nothing_runs_before_startup_and_startup_runs_once() {
        let mut tpm = TestTpm::manufactured();
        assert_eq!(tpm.run(TpmCc::GET_RANDOM, &[], &8u16), Err(ResponseCode::INITIALIZE));
        assert_eq!(tpm.run(TpmCc::STARTUP, &[], &TpmSu(2)), Err(ResponseCode::VALUE.parameter(1)));
        assert!(tpm.run(TpmCc::STARTUP, &[], &TpmSu::CLEAR).is_ok());
        assert_eq!(tpm.run(TpmCc::STARTUP, &[], &TpmSu::CLEAR), Err(ResponseCode::INITIALIZE));
    }

    #[test]
    fn a_resume_needs_a_saved_state_that_nothing_voided() {
        let mut tpm = TestTpm::started();
        tpm.init();
        assert_eq!(tpm.run(TpmCc::STARTUP, &[], &TpmSu::STATE), Err(ResponseCode::VALUE.parameter(1)));
        assert!(tpm.run(TpmCc::STARTUP, &[], &TpmSu::CLEAR).is_ok());
        let null_seed = tpm.state().volatile.state_reset.null_seed.expose().to_vec();
        assert!(tpm.run(TpmCc::SHUTDOWN, &[], &TpmSu::STATE).is_ok());
        tpm.init();
        assert!(tpm.run(TpmCc::STARTUP, &[], &TpmSu::STATE).is_ok());
        assert_eq!(tpm.state().volatile.state_reset.null_seed.expose(), null_seed);
        assert_eq!(tpm.state().volatile.state_reset.restart_count, 1);
        tpm.init();
        assert!(tpm.run(TpmCc::STARTUP, &[], &TpmSu::CLEAR).is_ok());
        assert_ne!(tpm.state().volatile.state_reset.null_seed.expose(), null_seed);
    }

    #[test]
    fn the_type_is_looked_at_before_the_locality() {
        let mut tpm = TestTpm::manufactured();
        for (kind, expected) in [
            (TpmSu(2), ResponseCode::VALUE.parameter(1)),
            (TpmSu::CLEAR, ResponseCode::LOCALITY),
            (TpmSu::STATE, ResponseCode::LOCALITY),
        ] {
            for locality in [1, 2, 4] {
                tpm.locality = locality;
                assert_eq!(tpm.run(TpmCc::STARTUP, &[], &kind), Err(expected));
            }
        }
    }

    #[test]
    fn a_resume_comes_from_the_locality_of_the_start() {
        let mut tpm = TestTpm::started();
        tpm.run(TpmCc::SHUTDOWN, &[], &TpmSu::STATE).unwrap();
        tpm.init();
        tpm.locality = 3;
        assert_eq!(tpm.run(TpmCc::STARTUP, &[], &TpmSu::STATE), Err(ResponseCode::LOCALITY));
        tpm.locality = 1;
        assert_eq!(tpm.run(TpmCc::STARTUP, &[], &TpmSu::CLEAR), Err(ResponseCode::LOCALITY));
        tpm.locality = 0;
        assert!(tpm.run(TpmCc::STARTUP, &[], &TpmSu::STATE).is_ok());
    }

    /// What a start keeps: read from the TPM after everything was changed before it.
    #[derive(PartialEq, Eq, Debug)]
    struct Kept {
        orderly: bool,
        counts: (u32, u32, u32),
        null_seed: bool,
        owner_disabled: bool,
        platform_auth: bool,
        owner_auth: bool,
        static_pcr: bool,
        debug_pcr: bool,
        saved_session: bool,
        loaded: usize,
    }

    fn kept_after(shutdown: Option<TpmSu>, kind: TpmSu) -> Kept {
        let mut tpm = TestTpm::started();
        let (owner, platform) = (TpmHandle::OWNER, TpmHandle::PLATFORM);
        start_policy(&mut tpm, TpmSe::POLICY);
        let saved = start_policy(&mut tpm, TpmSe::POLICY);
        tpm.run(TpmCc::CONTEXT_SAVE, &[saved], &()).unwrap();
        create_primary(&mut tpm, TpmHandle::NULL, ecc_storage_key()).unwrap();
        for by in [owner, platform] {
            tpm.run_with(TpmCc::HIERARCHY_CHANGE_AUTH, &[by], &[b""], &Tpm2bAuth::new(*b"pw").unwrap())
                .unwrap();
        }
        tpm.run_with(TpmCc::HIERARCHY_CONTROL, &[platform], &[b"pw"], &(owner, false)).unwrap();
        for pcr in [7, 16] {
            let event = Tpm2bEvent::new(*b"event").unwrap();
            tpm.run_with(TpmCc::PCR_EVENT, &[TpmHandle(pcr)], &[b""], &event).unwrap();
        }
        let null_seed = tpm.state().volatile.state_reset.null_seed.expose().to_vec();
        if let Some(shutdown) = shutdown {
            tpm.run(TpmCc::SHUTDOWN, &[], &shutdown).unwrap();
        }
        tpm.init();
        tpm.run(TpmCc::STARTUP, &[], &kind).unwrap();
        let state = tpm.state();
        let group = &state.volatile.state_reset;
        let changed = |pcr| state.volatile.pcrs.get(TpmAlgId::SHA256, pcr).unwrap().as_slice() != [0; 32];
        Kept {
            orderly: state.volatile.orderly,
            counts: (state.permanent.reset_count, group.restart_count, group.clear_count),
            null_seed: group.null_seed.expose() == null_seed,
            owner_disabled: !state.hierarchy_enabled(owner),
            platform_auth: !state.auth_value(platform).unwrap().is_empty(),
            owner_auth: !state.auth_value(owner).unwrap().is_empty(),
            static_pcr: changed(7),
            debug_pcr: changed(16),
            saved_session: state.saved_session(saved.index()).is_some(),
            loaded: state.transient.len() + state.sessions.len(),
        }
    }

    #[test]
    fn reset_restart_and_resume_keep_what_part_1_says() {
        let reset = |orderly| Kept {
            orderly,
            counts: (2, 0, 0),
            null_seed: false,
            owner_disabled: false,
            platform_auth: false,
            owner_auth: true,
            static_pcr: false,
            debug_pcr: false,
            saved_session: false,
            loaded: 0,
        };
        assert_eq!(kept_after(None, TpmSu::CLEAR), reset(false));
        assert_eq!(kept_after(Some(TpmSu::CLEAR), TpmSu::CLEAR), reset(true));
        let restart = Kept { counts: (1, 1, 1), null_seed: true, saved_session: true, ..reset(true) };
        assert_eq!(kept_after(Some(TpmSu::STATE), TpmSu::CLEAR), restart);
        let resume = Kept {
            counts: (1, 1, 0),
            owner_disabled: true,
            platform_auth: true,
            static_pcr: true,
            ..Kept { null_seed: true, saved_session: true, ..reset(true) }
        };
        assert_eq!(kept_after(Some(TpmSu::STATE), TpmSu::STATE), resume);
    }

    #[test]
    fn nothing_resumes_what_was_not_saved() {
        for shutdown in [None, Some(TpmSu::CLEAR)] {
            let mut tpm = TestTpm::started();
            if let Some(shutdown) = shutdown {
                tpm.run(TpmCc::SHUTDOWN, &[], &shutdown).unwrap();
            }
            tpm.init();
            assert_eq!(tpm.run(TpmCc::STARTUP, &[], &TpmSu::STATE), Err(ResponseCode::VALUE.parameter(1)));
            tpm.run(TpmCc::STARTUP, &[], &TpmSu::CLEAR).unwrap();
        }
    }

    #[test]
    fn policies_on_pcrs_that_were_checked_before_a_restart_are_void_after_it() {
        let mut tpm = TestTpm::started();
        for kind in [TpmSu::CLEAR, TpmSu::STATE] {
            let before = tpm.state().volatile.state_reset.pcr_counter;
            tpm.run(TpmCc::SHUTDOWN, &[], &TpmSu::STATE).unwrap();
            tpm.init();
            tpm.run(TpmCc::STARTUP, &[], &kind).unwrap();
            assert_ne!(tpm.state().volatile.state_reset.pcr_counter, before);
        }
    }

    #[test]
    fn pcrs_start_as_the_pc_client_profile_has_it() {
        let mut tpm = TestTpm::manufactured();
        tpm.locality = 3;
        assert!(tpm.run(TpmCc::STARTUP, &[], &TpmSu::CLEAR).is_ok());
        let mut pcr = |n| tpm.state().volatile.pcrs.get(TpmAlgId::SHA256, n).unwrap().to_vec();
        assert_eq!(pcr(0), [[0; 31].as_slice(), &[3]].concat());
        assert_eq!(pcr(1), [0; 32]);
        assert_eq!(pcr(16), [0; 32]);
        assert_eq!(pcr(17), [0xff; 32]);
        assert_eq!(pcr(22), [0xff; 32]);
        assert_eq!(pcr(23), [0; 32]);
    }
}
