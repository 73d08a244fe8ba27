//! `TPM2_EC_Ephemeral` (Part 3, 19.3).

use super::point_2b;
use crate::command::{Context, Output, parameters};
use crate::crypto::ecc;
use crate::secret;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::TpmiEccCurve;

/// Makes an ephemeral key for `TPM2_ZGen_2Phase`: returns its public point, and the counter under which that command finds the private
/// value again.
///
/// # Errors
/// `TPM_RC_CURVE` for a curve that is not implemented.
pub fn ec_ephemeral(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (TpmiEccCurve(id),): (TpmiEccCurve,) = parameters(r)?;
    let curve = secret::curve(id).ok_or(ResponseCode::CURVE.parameter(1))?;
    let commitments = &mut cx.state.volatile_mut().state_reset.commitments;
    let q = ecc::public_of(curve, &commitments.next(curve, &[])).map_err(|_| ResponseCode::NO_RESULT)?;
    let counter = commitments.commit();
    Ok(Output::of(&(point_2b(&q)?, counter)))
}

#[cfg(test)]
mod tests {
    use crate::command::asymmetric::testing::ephemeral;
    use crate::crypto::ecc;
    use crate::secret;
    use crate::testing::TestTpm;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::*;

    #[test]
    fn every_key_is_new_and_on_the_curve() {
        let mut tpm = TestTpm::started();
        for (i, curve) in (0u16..).zip(ECC_CURVES) {
            let (q, counter) = ephemeral(&mut tpm, curve);
            assert_eq!(counter, 2 * i);
            assert!(ecc::is_on_curve(secret::curve(curve).unwrap(), &secret::point(&q.0)));
            let (other, counter) = ephemeral(&mut tpm, curve);
            assert_eq!(counter, 2 * i + 1);
            assert_ne!(q, other);
        }
    }

    #[test]
    fn counters_begin_anew_with_a_reset_and_go_on_after_a_restart() {
        let mut tpm = TestTpm::started();
        let curve = TpmEccCurve::NIST_P256;
        let (first, _) = ephemeral(&mut tpm, curve);
        let boot = |tpm: &mut TestTpm, end, start| {
            tpm.run(TpmCc::SHUTDOWN, &[], &end).unwrap();
            tpm.init();
            tpm.run(TpmCc::STARTUP, &[], &start).unwrap();
        };
        boot(&mut tpm, TpmSu::STATE, TpmSu::STATE);
        assert_eq!(ephemeral(&mut tpm, curve).1, 1);
        boot(&mut tpm, TpmSu::STATE, TpmSu::CLEAR);
        assert_eq!(ephemeral(&mut tpm, curve).1, 2);
        boot(&mut tpm, TpmSu::CLEAR, TpmSu::CLEAR);
        let (again, counter) = ephemeral(&mut tpm, curve);
        assert_eq!(counter, 0);
        assert_ne!(first, again);
    }

    #[test]
    fn an_unknown_curve_is_refused() {
        let mut tpm = TestTpm::started();
        for curve in [TpmEccCurve::NONE, TpmEccCurve::BN_P256] {
            let result = tpm.run(TpmCc::EC_EPHEMERAL, &[], &curve);
            assert_eq!(result, Err(ResponseCode::CURVE.parameter(1)));
        }
    }
}
