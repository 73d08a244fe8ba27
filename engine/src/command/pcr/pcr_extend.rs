//! `TPM2_PCR_Extend` (Part 3, 22.2).

use crate::command::{Context, Output, parameters};
use crate::pcr;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{TpmHandle, TpmlDigestValues};

/// Extends a PCR with a digest in each bank that the list names, where that bank is allocated. The null handle changes nothing.
///
/// # Errors
/// `TPM_RC_LOCALITY` when the locality of the command may not extend the PCR; those of the parameters.
pub fn pcr_extend(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (digests,): (TpmlDigestValues,) = parameters(r)?;
    let pcr = cx.handle(0)?;
    if pcr == TpmHandle::NULL {
        return Ok(Output::none());
    }
    pcr::check_extend(pcr, cx.locality)?;
    for entry in &digests.0 {
        cx.state.extend_pcr(pcr, entry.hash_alg, &entry.digest);
    }
    Ok(Output::none())
}

#[cfg(test)]
mod tests {
    use crate::crypto::HashAlg;
    use crate::testing::{TestTpm, command_bytes};
    use vtpm_protocol::codec::Encode;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{TpmAlgId, TpmCc, TpmHandle, TpmSu, Tpml, TpmlDigestValues, TpmtHa};

    fn digest(alg: TpmAlgId, size: usize) -> TpmtHa {
        TpmtHa { hash_alg: alg, digest: vec![0xab; size] }
    }

    fn extend(tpm: &mut TestTpm, pcr: TpmHandle, digests: &TpmlDigestValues) -> Result<(), ResponseCode> {
        tpm.run_with(TpmCc::PCR_EXTEND, &[pcr], &[b""], digests).map(|_| ())
    }

    #[test]
    fn extends_the_named_banks_and_no_other() {
        let mut tpm = TestTpm::started();
        let counter = tpm.state().volatile.state_reset.pcr_counter;
        let list = Tpml(vec![digest(TpmAlgId::SHA1, 20), digest(TpmAlgId::SHA256, 32)]);
        extend(&mut tpm, TpmHandle(7), &list).unwrap();
        let expected = HashAlg::Sha256.digest(&[&[0; 32], &[0xab; 32]]);
        let volatile = &tpm.state().volatile;
        assert_eq!(volatile.pcrs.get(TpmAlgId::SHA256, 7).unwrap().as_slice(), expected.as_slice());
        assert_ne!(volatile.pcrs.get(TpmAlgId::SHA1, 7).unwrap().as_slice(), [0; 20]);
        assert_eq!(volatile.pcrs.get(TpmAlgId::SHA384, 7).unwrap().as_slice(), [0; 48]);
        assert_eq!(volatile.state_reset.pcr_counter, counter + 2);
    }

    #[test]
    fn the_same_bank_twice_is_extended_twice() {
        let mut tpm = TestTpm::started();
        let one = digest(TpmAlgId::SHA1, 20);
        extend(&mut tpm, TpmHandle(7), &Tpml(vec![one.clone(), one])).unwrap();
        let first = HashAlg::Sha1.digest(&[&[0; 20], &[0xab; 20]]);
        let second = HashAlg::Sha1.digest(&[&first, &[0xab; 20]]);
        assert_eq!(tpm.state().volatile.pcrs.get(TpmAlgId::SHA1, 7).unwrap().as_slice(), second.as_slice());
    }

    #[test]
    fn the_null_handle_changes_nothing() {
        let mut tpm = TestTpm::started();
        let commits = tpm.env.commits;
        extend(&mut tpm, TpmHandle::NULL, &Tpml(vec![digest(TpmAlgId::SHA1, 20)])).unwrap();
        assert_eq!(tpm.env.commits, commits);
    }

    #[test]
    fn dynamic_pcrs_are_extended_from_their_localities_only() {
        let list = Tpml(vec![digest(TpmAlgId::SHA1, 20)]);
        for (pcr, allowed) in
            [(15, 0x1f), (16, 0x1f), (17, 0x1c), (18, 0x1c), (19, 0x0c), (20, 0x0e), (21, 4), (22, 4)]
        {
            for locality in 0..5u8 {
                let mut tpm = TestTpm::started();
                tpm.locality = locality;
                let result = extend(&mut tpm, TpmHandle(pcr), &list);
                let expected =
                    if allowed & (1 << locality) != 0 { Ok(()) } else { Err(ResponseCode::LOCALITY) };
                assert_eq!(result, expected, "PCR {pcr} at locality {locality}");
            }
        }
    }

    #[test]
    fn debug_and_application_pcrs_leave_the_counter_alone() {
        let mut tpm = TestTpm::started();
        // Each of the twenty others counted when it began.
        assert_eq!(tpm.state().volatile.state_reset.pcr_counter, 20);
        for pcr in [16, 23] {
            extend(&mut tpm, TpmHandle(pcr), &Tpml(vec![digest(TpmAlgId::SHA1, 20)])).unwrap();
        }
        assert_eq!(tpm.state().volatile.state_reset.pcr_counter, 20);
    }

    #[test]
    fn refuses_what_is_no_pcr_no_authorization_and_no_list() {
        let mut tpm = TestTpm::started();
        let list = Tpml(vec![digest(TpmAlgId::SHA1, 20)]);
        assert_eq!(extend(&mut tpm, TpmHandle(24), &list), Err(ResponseCode::VALUE.handle(1)));
        assert_eq!(
            tpm.run(TpmCc::PCR_EXTEND, &[TpmHandle(0)], &list).unwrap_err(),
            ResponseCode::AUTH_MISSING
        );
        assert_eq!(
            tpm.run_with(TpmCc::PCR_EXTEND, &[TpmHandle(0)], &[b"x"], &list).unwrap_err(),
            ResponseCode::BAD_AUTH.session(1)
        );
        assert_eq!(
            tpm.run_with(TpmCc::PCR_EXTEND, &[TpmHandle(0)], &[b""], &5u32).unwrap_err(),
            ResponseCode::SIZE.parameter(1)
        );
        let short = digest(TpmAlgId::SHA256, 31);
        assert_eq!(
            extend(&mut tpm, TpmHandle(0), &Tpml(vec![short])),
            Err(ResponseCode::INSUFFICIENT.parameter(1))
        );
    }

    #[test]
    fn an_extend_of_a_pcr_that_was_saved_voids_a_shutdown() {
        let mut tpm = TestTpm::started();
        tpm.run(TpmCc::SHUTDOWN, &[], &TpmSu::STATE).unwrap();
        for pcr in [16, 23] {
            extend(&mut tpm, TpmHandle(pcr), &Tpml(vec![digest(TpmAlgId::SHA1, 20)])).unwrap();
        }
        tpm.init();
        tpm.run(TpmCc::STARTUP, &[], &TpmSu::STATE).unwrap();
        tpm.run(TpmCc::SHUTDOWN, &[], &TpmSu::STATE).unwrap();
        extend(&mut tpm, TpmHandle(0), &Tpml(vec![digest(TpmAlgId::SHA1, 20)])).unwrap();
        tpm.init();
        assert_eq!(tpm.run(TpmCc::STARTUP, &[], &TpmSu::STATE), Err(ResponseCode::VALUE.parameter(1)));
    }

    #[test]
    fn an_extend_that_is_not_durable_did_not_happen() {
        let mut tpm = TestTpm::started();
        tpm.env.fail_commits = true;
        let list = Tpml(vec![digest(TpmAlgId::SHA1, 20)]);
        assert_eq!(extend(&mut tpm, TpmHandle(0), &list), Err(ResponseCode::NV_UNAVAILABLE));
        assert_eq!(tpm.state().volatile.pcrs.get(TpmAlgId::SHA1, 0).unwrap().as_slice(), [0; 20]);
    }

    #[test]
    fn a_command_cut_anywhere_is_refused() {
        let mut tpm = TestTpm::started();
        let area = [&TpmHandle::RS_PW.to_bytes()[..], &[0, 0, 0, 0, 0]].concat();
        let list = TpmlDigestValues::to_bytes(&Tpml(vec![digest(TpmAlgId::SHA1, 20)]));
        let whole = command_bytes(TpmCc::PCR_EXTEND, &[TpmHandle(1)], &area, &list);
        for length in 10..whole.len() {
            let mut cut = whole[..length].to_vec();
            cut[2..6].copy_from_slice(&u32::try_from(length).unwrap().to_be_bytes());
            assert_ne!(tpm.rc(&cut), ResponseCode::SUCCESS);
        }
        tpm.ok(&whole);
    }
}
