//! `TPM2_PCR_SetAuthPolicy` (Part 3, 22.6).

use crate::command::hierarchy::policy;
use crate::command::{Context, Output, parameters};
use crate::pcr::has_authorization;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Tpm2bDigest, TpmiAlgHashOrNull, TpmiDhPcr};

/// Sets the policy of the PCRs to whose group `pcrNum` belongs, or takes it away. With a policy they change under this policy only.
///
/// # Errors
/// `TPM_RC_SIZE` for a policy that is not as long as a digest of the algorithm; `TPM_RC_VALUE` for a PCR that cannot have one.
pub fn pcr_set_auth_policy(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (digest, alg, TpmiDhPcr(pcr)): (Tpm2bDigest, TpmiAlgHashOrNull, TpmiDhPcr) = parameters(r)?;
    let policy = policy((digest, alg))?;
    if !has_authorization(pcr) {
        return Err(ResponseCode::VALUE.parameter(3));
    }
    cx.state.permanent_mut().pcr_policy = policy;
    Ok(Output::none())
}

#[cfg(test)]
mod tests {
    use crate::crypto::HashAlg;
    use crate::testing::TestTpm;
    use crate::testing::objects::{run_with_policy, start_policy};
    use vtpm_protocol::codec::Encode;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{Tpm2bDigest, Tpm2bEvent, TpmAlgId, TpmCc, TpmHandle, TpmSe, TpmSu};

    const PCR: TpmHandle = TpmHandle(21);

    fn set(tpm: &mut TestTpm, digest: &[u8], alg: TpmAlgId, pcr: u32) -> Result<(), ResponseCode> {
        let input = (Tpm2bDigest::new(digest).unwrap(), alg, pcr);
        tpm.run_with(TpmCc::PCR_SET_AUTH_POLICY, &[TpmHandle::PLATFORM], &[b""], &input).map(drop)
    }

    fn policy() -> Vec<u8> {
        let (cc, what) = (TpmCc::POLICY_COMMAND_CODE.to_bytes(), TpmCc::PCR_EVENT.to_bytes());
        HashAlg::Sha256.digest(&[&[0; 32], &cc, &what]).to_vec()
    }

    #[test]
    fn pcrs_with_a_policy_change_under_it_only() {
        let mut tpm = TestTpm::started();
        tpm.locality = 2;
        let event = Tpm2bEvent::new(*b"event").unwrap();
        let by_password =
            |tpm: &mut TestTpm, pcr| tpm.run_with(TpmCc::PCR_EVENT, &[pcr], &[b""], &event).map(drop);
        let session = start_policy(&mut tpm, TpmSe::POLICY);
        let by_policy = |tpm: &mut TestTpm| {
            tpm.run(TpmCc::POLICY_RESTART, &[session], &()).unwrap();
            tpm.run(TpmCc::POLICY_COMMAND_CODE, &[session], &TpmCc::PCR_EVENT).unwrap();
            run_with_policy(tpm, TpmCc::PCR_EVENT, &[PCR], session, &event).map(drop)
        };
        by_password(&mut tpm, PCR).unwrap();
        assert_eq!(by_policy(&mut tpm), Err(ResponseCode::POLICY_FAIL.session(1)));
        set(&mut tpm, &policy(), TpmAlgId::SHA256, 20).unwrap();
        assert_eq!(by_password(&mut tpm, PCR), Err(ResponseCode::AUTH_TYPE));
        by_policy(&mut tpm).unwrap();
        by_password(&mut tpm, TpmHandle(16)).unwrap();
        // It lasts, until it is taken away.
        (tpm.locality, tpm.env.now) = (0, tpm.env.now + 1);
        tpm.init();
        tpm.run(TpmCc::STARTUP, &[], &TpmSu::CLEAR).unwrap();
        tpm.locality = 2;
        assert_eq!(by_password(&mut tpm, PCR), Err(ResponseCode::AUTH_TYPE));
        set(&mut tpm, b"", TpmAlgId::NULL, 22).unwrap();
        by_password(&mut tpm, PCR).unwrap();
    }

    #[test]
    fn most_pcrs_cannot_have_one() {
        let mut tpm = TestTpm::started();
        for pcr in 0..24 {
            let expected =
                if (20..=22).contains(&pcr) { Ok(()) } else { Err(ResponseCode::VALUE.parameter(3)) };
            assert_eq!(set(&mut tpm, b"", TpmAlgId::NULL, pcr), expected, "{pcr}");
        }
        for pcr in [24, TpmHandle::NULL.0, 0x0100_0014] {
            assert_eq!(set(&mut tpm, b"", TpmAlgId::NULL, pcr), Err(ResponseCode::VALUE.parameter(3)));
        }
        assert_eq!(set(&mut tpm, &[1; 31], TpmAlgId::SHA256, 0), Err(ResponseCode::SIZE.parameter(1)));
        assert_eq!(set(&mut tpm, &[1; 32], TpmAlgId::AES, 20), Err(ResponseCode::HASH.parameter(2)));
        let rc = tpm.run_with(TpmCc::PCR_SET_AUTH_POLICY, &[TpmHandle::OWNER], &[b""], &0u8).unwrap_err();
        assert_eq!(rc, ResponseCode::VALUE.handle(1));
    }
}
