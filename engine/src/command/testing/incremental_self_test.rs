//! `TPM2_IncrementalSelfTest` (Part 3, 10.3).

use super::known_answers::{self, tests_of};
use super::self_test::{fail, finish};
use crate::command::capability::implemented_algorithms;
use crate::command::{Context, EnvRandom, Output, parameters};
use crate::state::State;
use std::collections::BTreeSet;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{TpmAlgId, Tpml, TpmlAlg};

/// Tests the algorithms of the list at once, and returns those that were not tested yet since `_TPM_Init`.
///
/// # Errors
/// `TPM_RC_VALUE` for an algorithm that is not implemented; `TPM_RC_FAILURE` as `TPM2_SelfTest`.
pub fn incremental_self_test(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (wanted,): (TpmlAlg,) = parameters(r)?;
    let implemented: BTreeSet<TpmAlgId> = implemented_algorithms().map(|a| a.alg).collect();
    if !wanted.0.iter().all(|alg| implemented.contains(alg)) {
        return Err(ResponseCode::VALUE.parameter(1));
    }
    for &alg in &wanted.0 {
        if let Err(name) = known_answers::run(tests_of(alg), &mut EnvRandom(cx.env)) {
            return Err(fail(cx, name));
        }
    }
    finish(cx.state, wanted.0);
    Ok(Output::of(&to_do(cx.state)))
}

/// The algorithms that have a test and were not tested yet, in ascending order.
pub fn to_do(state: &State) -> TpmlAlg {
    let tested = &state.volatile.tested.0;
    let untested = implemented_algorithms().map(|a| a.alg).filter(|alg| !tested.contains(alg));
    Tpml(untested.filter(|&alg| tests_of(alg).next().is_some()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::SelfTest;
    use crate::testing::{TestTpm, code, command_bytes};
    use vtpm_protocol::codec::{Encode, decode_exact};
    use vtpm_protocol::tpm::TpmCc;

    fn test(tpm: &mut TestTpm, algs: &[TpmAlgId]) -> Result<Vec<TpmAlgId>, ResponseCode> {
        let list: TpmlAlg = Tpml(algs.to_vec());
        let out = tpm.run(TpmCc::INCREMENTAL_SELF_TEST, &[], &list)?;
        Ok(decode_exact::<TpmlAlg>(&out).unwrap().0)
    }

    fn result(tpm: &mut TestTpm) -> ResponseCode {
        let out = tpm.run(TpmCc::GET_TEST_RESULT, &[], &()).unwrap();
        ResponseCode::from_value(u32::from_be_bytes(out[2..].try_into().unwrap()))
    }

    #[test]
    fn what_is_tested_leaves_the_list_until_all_is() {
        let mut tpm = TestTpm::started();
        let all = test(&mut tpm, &[]).unwrap();
        assert!(all.contains(&TpmAlgId::SHA256) && all.contains(&TpmAlgId::RSA));
        let rest = test(&mut tpm, &[TpmAlgId::SHA256, TpmAlgId::SHA1]).unwrap();
        let expected: Vec<_> =
            all.iter().copied().filter(|a| !matches!(*a, TpmAlgId::SHA256 | TpmAlgId::SHA1)).collect();
        assert_eq!(rest, expected);
        assert_eq!(result(&mut tpm), ResponseCode::NEEDS_TEST);
        assert_eq!(test(&mut tpm, &rest), Ok(vec![]));
        assert_eq!(
            (result(&mut tpm), tpm.state().volatile.self_test),
            (ResponseCode::SUCCESS, SelfTest::Passed)
        );
        // Again is allowed, and a boot forgets.
        assert_eq!(test(&mut tpm, &[TpmAlgId::SHA1]), Ok(vec![]));
        tpm.init();
        tpm.run(TpmCc::STARTUP, &[], &vtpm_protocol::tpm::TpmSu::CLEAR).unwrap();
        assert_eq!(test(&mut tpm, &[]), Ok(all));
    }

    #[test]
    fn a_self_test_leaves_nothing_to_do() {
        let mut tpm = TestTpm::started();
        tpm.run(TpmCc::SELF_TEST, &[], &false).unwrap();
        assert_eq!(test(&mut tpm, &[]), Ok(vec![]));
    }

    #[test]
    fn an_algorithm_that_is_not_there_is_refused_and_nothing_is_tested() {
        let mut tpm = TestTpm::started();
        let all = test(&mut tpm, &[]).unwrap();
        for unknown in [TpmAlgId::ERROR, TpmAlgId::NULL, TpmAlgId::SM4, TpmAlgId(0xffff)] {
            let refused = test(&mut tpm, &[TpmAlgId::SHA256, unknown]);
            assert_eq!(refused, Err(ResponseCode::VALUE.parameter(1)), "{unknown:?}");
        }
        assert_eq!(test(&mut tpm, &[]), Ok(all));
        let rc = tpm.run(TpmCc::INCREMENTAL_SELF_TEST, &[], &65u32).unwrap_err();
        assert_eq!(rc, ResponseCode::SIZE.parameter(1));
    }

    #[test]
    fn a_test_that_fails_puts_the_tpm_into_failure_mode() {
        let mut tpm = TestTpm::started();
        known_answers::BROKEN.set(true);
        let list: TpmlAlg = Tpml(vec![TpmAlgId::SHA256]);
        let command = command_bytes(TpmCc::INCREMENTAL_SELF_TEST, &[], &[], &list.to_bytes());
        let response = tpm.tpm.execute(&mut tpm.env, 0, &command);
        known_answers::BROKEN.set(false);
        assert_eq!(code(&response), ResponseCode::FAILURE);
        assert_eq!(tpm.state().volatile.self_test, SelfTest::Failed);
    }
}
