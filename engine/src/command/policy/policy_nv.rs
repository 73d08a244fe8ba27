//! `TPM2_PolicyNV` (Part 3, 23.9).

use super::is_trial;
use super::operation::{Comparison, Operation};
use crate::command::{Context, Output, parameters};
use crate::nv;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Tpm2bDigest, TpmCc};

/// The policy needs that the data of an NV index compare so with an operand, now.
///
/// # Errors
/// `TPM_RC_NV_LOCKED`, `TPM_RC_NV_AUTHORIZATION`, `TPM_RC_NV_UNINITIALIZED`, see [`nv::check_read`]; `TPM_RC_VALUE` for an offset beyond the data,
/// `TPM_RC_SIZE` for an operand that reaches beyond it; `TPM_RC_POLICY` when the comparison does not hold.
pub fn policy_nv(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (operand, offset, operation): (Tpm2bDigest, u16, Operation) = parameters(r)?;
    let (auth, nv_index, handle) = (cx.handle(0)?, cx.handle(1)?, cx.handle(2)?);
    let comparison = Comparison { operand, offset, operation };
    if !is_trial(cx.state.session(handle)?) {
        nv::check_read(cx.state, auth, nv_index)?;
        let data = &cx.state.nv_index(nv_index)?.data;
        if usize::from(offset) > data.len() {
            return Err(ResponseCode::VALUE.parameter(2));
        }
        comparison.check(comparison.of(data).ok_or(ResponseCode::SIZE.parameter(1))?)?;
    }
    let name = cx.state.name(nv_index)?;
    comparison.extend(cx.state.session_mut(handle)?, TpmCc::POLICY_NV, &[], &name);
    Ok(Output::none())
}

#[cfg(test)]
mod tests {
    use crate::command::nv::testing::{INDEX, OPEN, define, public, set_attribute, write};
    use crate::command::policy::testing::{START, b2, both, digest, hash};
    use crate::testing::TestTpm;
    use vtpm_protocol::codec::Encode;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::*;

    const OWNER: TpmHandle = TpmHandle::OWNER;

    fn written(attributes: TpmaNv) -> TestTpm {
        let mut tpm = TestTpm::started();
        define(&mut tpm, OWNER, b"pw", public(INDEX, attributes, 4)).unwrap();
        write(&mut tpm, OWNER, b"", &[0, 1, 2, 3], 0).unwrap();
        tpm
    }

    fn run(
        tpm: &mut TestTpm,
        auth: TpmHandle,
        session: TpmHandle,
        operand: &[u8],
        offset: u16,
        operation: TpmEo,
    ) -> Result<(), ResponseCode> {
        let password: &[u8] = if auth == INDEX { b"pw" } else { b"" };
        let input = (b2(operand), offset, operation);
        tpm.run_with(TpmCc::POLICY_NV, &[auth, INDEX, session], &[password], &input).map(drop)
    }

    #[test]
    fn the_digest_is_that_of_the_formula_also_in_a_trial() {
        let mut tpm = written(OPEN);
        let (session, trial) = both(&mut tpm);
        let name = tpm.state().name(INDEX).unwrap();
        let arguments = hash(&[&[1, 2], &[0, 1], &[0, 0]]);
        let expected = hash(&[&START, &TpmCc::POLICY_NV.to_bytes(), &arguments, &name]);
        for session in [session, trial] {
            run(&mut tpm, OWNER, session, &[1, 2], 1, TpmEo::EQ).unwrap();
            assert_eq!(digest(&mut tpm, session), expected);
        }
    }

    #[test]
    fn the_data_must_compare_and_the_operand_lie_within_it() {
        let mut tpm = written(OPEN);
        let (session, trial) = both(&mut tpm);
        let mut rc = |operand: &[u8], offset, operation| {
            let trial = run(&mut tpm, INDEX, trial, operand, offset, operation);
            assert_eq!(trial, Ok(()), "a trial checks nothing");
            run(&mut tpm, INDEX, session, operand, offset, operation)
        };
        assert_eq!(rc(&[2], 2, TpmEo::EQ), Ok(()));
        assert_eq!(rc(&[2], 3, TpmEo::EQ), Err(ResponseCode::POLICY));
        assert_eq!(rc(&[0, 1, 2, 2], 0, TpmEo::UNSIGNED_GT), Ok(()));
        assert_eq!(rc(&[0, 1, 2, 3], 0, TpmEo::UNSIGNED_GT), Err(ResponseCode::POLICY));
        assert_eq!(rc(&[], 4, TpmEo::EQ), Ok(()));
        assert_eq!(rc(&[], 4, TpmEo::NEQ), Err(ResponseCode::POLICY));
        assert_eq!(rc(&[], 5, TpmEo::EQ), Err(ResponseCode::VALUE.parameter(2)));
        assert_eq!(rc(&[3, 4], 3, TpmEo::EQ), Err(ResponseCode::SIZE.parameter(1)));
        assert_eq!(rc(&[3], u16::MAX, TpmEo::EQ), Err(ResponseCode::VALUE.parameter(2)));
    }

    #[test]
    fn who_may_not_read_the_index_may_not_compare_it_either() {
        let mut tpm = written(OPEN & !TpmaNv::OWNER_READ);
        let (session, trial) = both(&mut tpm);
        let mut rc = |auth, session| run(&mut tpm, auth, session, &[0], 0, TpmEo::EQ);
        assert_eq!(rc(OWNER, session), Err(ResponseCode::NV_AUTHORIZATION));
        assert_eq!(rc(TpmHandle::PLATFORM, session), Err(ResponseCode::NV_AUTHORIZATION));
        assert_eq!(rc(OWNER, trial), Ok(()));
        assert_eq!(rc(INDEX, session), Ok(()));
        set_attribute(&mut tpm, TpmaNv::READ_LOCKED, true);
        let (session, _) = both(&mut tpm);
        let result = run(&mut tpm, INDEX, session, &[0], 0, TpmEo::EQ);
        assert_eq!(result, Err(ResponseCode::NV_LOCKED));
        let mut tpm = TestTpm::started();
        define(&mut tpm, OWNER, b"pw", public(INDEX, OPEN, 4)).unwrap();
        let (session, trial) = both(&mut tpm);
        let result = run(&mut tpm, OWNER, session, &[0], 0, TpmEo::EQ);
        assert_eq!(result, Err(ResponseCode::NV_UNINITIALIZED));
        assert_eq!(run(&mut tpm, OWNER, trial, &[0], 0, TpmEo::EQ), Ok(()));
    }

    #[test]
    fn a_missing_or_wrong_authorization_is_refused_also_in_a_trial() {
        let mut tpm = written(OPEN | TpmaNv::NO_DA);
        let (session, trial) = both(&mut tpm);
        for session in [session, trial] {
            let input = (b2(&[0]), 0u16, TpmEo::EQ);
            let handles = [INDEX, INDEX, session];
            let mut rc =
                |passwords: &[&[u8]]| tpm.run_with(TpmCc::POLICY_NV, &handles, passwords, &input).map(drop);
            assert_eq!(rc(&[b"no"]), Err(ResponseCode::BAD_AUTH.session(1)));
            assert_eq!(rc(&[]), Err(ResponseCode::AUTH_MISSING));
            let other = [TpmHandle(0x0150_0002), INDEX, session];
            let result = tpm.run_with(TpmCc::POLICY_NV, &other, &[b""], &input).map(drop);
            assert_eq!(result, Err(ResponseCode::HANDLE.handle(1)));
        }
    }
}
