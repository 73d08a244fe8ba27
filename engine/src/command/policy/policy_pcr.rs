//! `TPM2_PolicyPCR` (Part 3, 23.7).

use super::extend;
use crate::alg::hash_of;
use crate::command::{Context, Output, parameters};
use crate::crypto::ct_eq;
use crate::pcr::selection_digest;
use vtpm_protocol::codec::{Encode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Tpm2bDigest, TpmCc, TpmSe, TpmlPcrSelection};

/// The policy needs certain values in PCRs: those of now, or in a trial session those whose digest is given.
///
/// # Errors
/// `TPM_RC_VALUE` when the digest given is not that of the PCRs, `TPM_RC_PCR_CHANGED` when they have changed since an earlier
/// `TPM2_PolicyPCR` in the session.
pub fn policy_pcr(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (given, selection): (Tpm2bDigest, TpmlPcrSelection) = parameters(r)?;
    let handle = cx.handle(0)?;
    let session = cx.state.session(handle)?;
    let (normalised, current) = selection_digest(cx.state, hash_of(session.auth_hash), &selection);
    let counter = cx.state.volatile.state_reset.pcr_counter;
    let trial = session.kind == TpmSe::TRIAL;
    if !trial {
        if session.pcr_counter != 0 && session.pcr_counter != counter {
            return Err(ResponseCode::PCR_CHANGED);
        }
        if !given.is_empty() && !ct_eq(&given, &current) {
            return Err(ResponseCode::VALUE.parameter(1));
        }
    }
    let digest = if trial && !given.is_empty() { given.as_slice() } else { current.as_slice() };
    let session = cx.state.session_mut(handle)?;
    extend(session, &[&TpmCc::POLICY_PCR.to_bytes(), &normalised.to_bytes(), digest]);
    if !trial {
        session.pcr_counter = counter;
    }
    Ok(Output::none())
}

#[cfg(test)]
mod tests {
    use crate::command::policy::testing::*;
    use crate::crypto::HashAlg;
    use crate::pcr::selection_digest;
    use crate::testing::{Raw, TestTpm};
    use vtpm_protocol::codec::Encode;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::*;

    fn select(pcrs: &[u32]) -> TpmlPcrSelection {
        Tpml(vec![TpmsPcrSelection::of(TpmAlgId::SHA256, pcrs.iter().copied())])
    }

    fn extend(tpm: &mut TestTpm, pcr: u32) {
        let event = Tpm2bEvent::new(*b"event").unwrap();
        tpm.run_with(TpmCc::PCR_EVENT, &[TpmHandle(pcr)], &[b""], &event).unwrap();
    }

    /// A TPM that has measured something.
    fn measured() -> TestTpm {
        let mut tpm = TestTpm::started();
        extend(&mut tpm, 0);
        tpm
    }

    fn policy_pcr(
        tpm: &mut TestTpm,
        session: TpmHandle,
        given: &[u8],
        selection: &TpmlPcrSelection,
    ) -> Result<(), ResponseCode> {
        policy(tpm, TpmCc::POLICY_PCR, session, &(b2(given), selection))
    }

    fn expected(selection: &TpmlPcrSelection, pcrs: &[u8]) -> Vec<u8> {
        hash(&[&START, &TpmCc::POLICY_PCR.to_bytes(), &selection.to_bytes(), pcrs])
    }

    #[test]
    fn the_digest_is_that_of_the_formula_with_the_values_of_now() {
        let mut tpm = measured();
        let selection = select(&[0, 16]);
        let current = selection_digest(tpm.state(), HashAlg::Sha256, &selection).1.to_vec();
        for given in [&b""[..], &current] {
            let (session, trial) = both(&mut tpm);
            for session in [session, trial] {
                policy_pcr(&mut tpm, session, given, &selection).unwrap();
                assert_eq!(digest(&mut tpm, session), expected(&selection, &current));
            }
        }
    }

    #[test]
    fn other_values_are_refused_but_in_a_trial() {
        let mut tpm = measured();
        let (session, trial) = both(&mut tpm);
        for given in [&[7; 32][..], &[7; 20], &[7]] {
            let rc = policy_pcr(&mut tpm, session, given, &select(&[0]));
            assert_eq!(rc, Err(ResponseCode::VALUE.parameter(1)));
        }
        assert_eq!(digest(&mut tpm, session), START);
        policy_pcr(&mut tpm, trial, &[7; 32], &select(&[0])).unwrap();
        assert_eq!(digest(&mut tpm, trial), expected(&select(&[0]), &[7; 32]));
    }

    #[test]
    fn a_pcr_that_changes_ends_the_policy_but_not_a_trial() {
        let mut tpm = measured();
        let (session, trial) = both(&mut tpm);
        let all = select(&[0, 16]);
        for session in [session, trial] {
            policy_pcr(&mut tpm, session, b"", &all).unwrap();
        }
        // One that does not count.
        extend(&mut tpm, 16);
        policy_pcr(&mut tpm, session, b"", &all).unwrap();
        // One that was not selected counts, too.
        extend(&mut tpm, 1);
        assert_eq!(policy_pcr(&mut tpm, session, b"", &all), Err(ResponseCode::PCR_CHANGED));
        policy_pcr(&mut tpm, trial, b"", &all).unwrap();
        assert_eq!(authorize_owner(&mut tpm, session), Err(ResponseCode::PCR_CHANGED));
        tpm.run(TpmCc::POLICY_RESTART, &[session], &()).unwrap();
        policy_pcr(&mut tpm, session, b"", &all).unwrap();
        authorize_owner(&mut tpm, session).unwrap();
    }

    #[test]
    fn a_selection_is_of_banks_and_pcrs_that_can_be() {
        let mut tpm = TestTpm::started();
        let (session, _) = both(&mut tpm);
        let mut rc = |selection: &[u8]| {
            let bytes = [&[0, 0], selection].concat();
            policy(&mut tpm, TpmCc::POLICY_PCR, session, &Raw(&bytes)).unwrap_err()
        };
        assert_eq!(rc(&[0, 0, 0, 1, 0, 0x13, 3, 0, 0, 0]), ResponseCode::HASH.parameter(2));
        assert_eq!(rc(&[0, 0, 0, 1, 0, 0x0b, 4, 0, 0, 0, 0]), ResponseCode::VALUE.parameter(2));
        assert_eq!(rc(&[0, 0, 0, 1, 0, 0x0b, 2, 0, 0]), ResponseCode::VALUE.parameter(2));
        assert_eq!(rc(&[0, 0, 0, 17]), ResponseCode::SIZE.parameter(2));
    }
}
