//! `TPM2_PolicyCapability` (Part 3, 23.23).

use super::is_trial;
use super::operation::{Comparison, Operation};
use crate::command::capability::property_data;
use crate::command::{Context, Output, parameters};
use vtpm_protocol::codec::{Encode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Tpm2bDigest, TpmCap, TpmCc};

/// The policy needs that what `TPM2_GetCapability` tells of one property compares so with an operand, now. What there is not is equal to
/// nothing.
///
/// # Errors
/// `TPM_RC_VALUE` of parameter 4 for a capability without properties, `TPM_RC_VALUE` or `TPM_RC_HANDLE` of parameter 5 for a property that
/// does not fit it; `TPM_RC_VALUE` for an offset beyond the data, `TPM_RC_SIZE` for an operand that reaches beyond it; `TPM_RC_POLICY`
/// when the comparison does not hold.
pub fn policy_capability(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (operand, offset, operation, capability, property): (Tpm2bDigest, u16, Operation, TpmCap, u32) =
        parameters(r)?;
    let handle = cx.handle(0)?;
    let comparison = Comparison { operand, offset, operation };
    if !is_trial(cx.state.session(handle)?) {
        match property_data(cx, capability, property, 4)? {
            None if operation.is_not_equal() => {}
            None => return Err(ResponseCode::POLICY),
            Some(data) => {
                if usize::from(offset) > data.len() {
                    return Err(ResponseCode::VALUE.parameter(2));
                }
                comparison.check(comparison.of(&data).ok_or(ResponseCode::SIZE.parameter(1))?)?;
            }
        }
    }
    let more = (capability, property).to_bytes();
    comparison.extend(cx.state.session_mut(handle)?, TpmCc::POLICY_CAPABILITY, &more, &[]);
    Ok(Output::none())
}

#[cfg(test)]
mod tests {
    use crate::command::policy::testing::{START, b2, both, digest, hash, policy, start_policy};
    use crate::testing::TestTpm;
    use vtpm_protocol::codec::Encode;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::*;

    const CODE: TpmCc = TpmCc::POLICY_CAPABILITY;

    #[test]
    fn the_digest_is_that_of_the_formula_also_in_a_trial() {
        let mut tpm = TestTpm::started();
        let (session, trial) = both(&mut tpm);
        let property = TpmPt::FAMILY_INDICATOR;
        let data = [&property.to_bytes()[..], b"2.0\0"].concat();
        let input = (b2(&data[1..]), 1u16, TpmEo::EQ, TpmCap::TPM_PROPERTIES, property);
        let arguments = hash(&[
            &data[1..],
            &1u16.to_bytes(),
            &[0, 0],
            &TpmCap::TPM_PROPERTIES.to_bytes(),
            &property.to_bytes(),
        ]);
        for session in [session, trial] {
            policy(&mut tpm, CODE, session, &input).unwrap();
            assert_eq!(digest(&mut tpm, session), hash(&[&START, &CODE.to_bytes(), &arguments]));
        }
    }

    #[test]
    fn one_entry_of_every_list_can_be_compared() {
        let mut tpm = TestTpm::started();
        let session = start_policy(&mut tpm, TpmSe::POLICY);
        let pcr_0 = TpmHandle(0);
        for (capability, property, expected) in [
            (TpmCap::ALGS, u32::from(TpmAlgId::SHA256.0), vec![0, 0x0b, 0, 0, 0, 4]),
            (TpmCap::HANDLES, TpmHandle::OWNER.0, TpmHandle::OWNER.to_bytes()),
            (TpmCap::HANDLES, pcr_0.0, pcr_0.to_bytes()),
            (TpmCap::HANDLES, 0x0200_0000, vec![2, 0, 0, 0]),
            (TpmCap::COMMANDS, CODE.0, vec![0x02, 0, 0x01, 0x9b]),
            (TpmCap::TPM_PROPERTIES, TpmPt::LEVEL.0, vec![0, 0, 1, 1, 0, 0, 0, 0]),
            (TpmCap::PCR_PROPERTIES, TpmPtPcr::RESET_L0.0, vec![0, 0, 0, 2, 3, 0, 0, 0x81]),
            (TpmCap::ECC_CURVES, u32::from(TpmEccCurve::NIST_P256.0), vec![0, 3]),
            (TpmCap::AUTH_POLICIES, TpmHandle::OWNER.0, vec![0x40, 0, 0, 1, 0, 0x10]),
            (TpmCap::ACT, TpmHandle::ACT_0.0, vec![0x40, 0, 1, 0x10, 0, 0, 0, 0, 0, 0, 0, 0]),
        ] {
            let rc = |tpm: &mut TestTpm, operand: &[u8], operation: TpmEo| {
                policy(tpm, CODE, session, &(b2(operand), 0u16, operation, capability, property))
            };
            let what = format!("{capability:?} {property:x}");
            assert_eq!(rc(&mut tpm, &expected, TpmEo::EQ), Ok(()), "{what}");
            assert_eq!(rc(&mut tpm, &expected, TpmEo::NEQ), Err(ResponseCode::POLICY), "{what}");
            let longer = [&expected[..], &[0]].concat();
            assert_eq!(rc(&mut tpm, &longer, TpmEo::EQ), Err(ResponseCode::SIZE.parameter(1)), "{what}");
            let beyond = (b2(b""), expected.len() as u16 + 1, TpmEo::EQ, capability, property);
            let result = policy(&mut tpm, CODE, session, &beyond);
            assert_eq!(result, Err(ResponseCode::VALUE.parameter(2)), "{what}");
        }
    }

    #[test]
    fn what_there_is_not_differs_from_everything() {
        let mut tpm = TestTpm::started();
        let session = start_policy(&mut tpm, TpmSe::POLICY);
        for (capability, property) in [
            (TpmCap::ALGS, 0x7fffu32),
            (TpmCap::ALGS, 0x0001_000b),
            (TpmCap::HANDLES, 0x8000_0001),
            (TpmCap::HANDLES, 0x0100_0000),
            (TpmCap::HANDLES, TpmHandle::UNASSIGNED.0),
            (TpmCap::HANDLES, 0x0200_0001),
            (TpmCap::HANDLES, 0x0300_0000),
            (TpmCap::COMMANDS, 0x0fff),
            (TpmCap::TPM_PROPERTIES, 0),
            (TpmCap::PCR_PROPERTIES, 0x10),
            (TpmCap::ECC_CURVES, 0x10),
            (TpmCap::AUTH_POLICIES, TpmHandle::NULL.0),
            (TpmCap::ACT, TpmHandle::ACT_0.0 + 1),
            (TpmCap::ACT, TpmHandle::ACT_F.0),
        ] {
            for operation in [TpmEo::EQ, TpmEo::NEQ, TpmEo::UNSIGNED_GE, TpmEo::BITCLEAR] {
                let input = (b2(b""), 0u16, operation, capability, property);
                let expected = if operation == TpmEo::NEQ { Ok(()) } else { Err(ResponseCode::POLICY) };
                let result = policy(&mut tpm, CODE, session, &input);
                assert_eq!(result, expected, "{capability:?} {property:x} {operation:?}");
            }
        }
    }

    #[test]
    fn capabilities_without_properties_are_refused_but_not_in_a_trial() {
        let mut tpm = TestTpm::started();
        let (session, trial) = both(&mut tpm);
        for (capability, property, expected) in [
            (TpmCap::PCRS, 0u32, ResponseCode::VALUE.parameter(4)),
            (TpmCap::VENDOR_PROPERTY, 0, ResponseCode::VALUE.parameter(4)),
            (TpmCap::PUB_KEYS, 0, ResponseCode::VALUE.parameter(4)),
            (TpmCap::SPDM_SESSION_INFO, 0, ResponseCode::VALUE.parameter(4)),
            (TpmCap(0x77), 0, ResponseCode::VALUE.parameter(4)),
            (TpmCap::HANDLES, 0x5000_0000, ResponseCode::HANDLE.parameter(5)),
            (TpmCap::AUTH_POLICIES, 0x8100_0000, ResponseCode::VALUE.parameter(5)),
            (TpmCap::ACT, 0x4000_0000, ResponseCode::VALUE.parameter(5)),
        ] {
            let input = (b2(b""), 0u16, TpmEo::NEQ, capability, property);
            assert_eq!(policy(&mut tpm, CODE, session, &input), Err(expected));
            // Any 32 bits are a TPM_CAP to a trial.
            assert_eq!(policy(&mut tpm, CODE, trial, &input), Ok(()));
        }
    }
}
