//! `TPM2_PolicyOR` (Part 3, 23.6).

use super::{clear_digest, extend, is_trial};
use crate::command::{Context, Output, parameters};
use crate::crypto::ct_eq;
use vtpm_protocol::codec::{Decode, Encode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{TpmCc, TpmlDigest};

/// The fewest alternatives.
const FEWEST: u32 = 2;

/// The policy so far is one of several; from here on it is the same whichever it was.
///
/// # Errors
/// `TPM_RC_SIZE` for fewer than two or more than eight alternatives, `TPM_RC_VALUE` when the policy so far is none of them.
pub fn policy_or(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (Alternatives(alternatives),) = parameters(r)?;
    let handle = cx.handle(0)?;
    let session = cx.state.session_mut(handle)?;
    if !is_trial(session) && !alternatives.0.iter().any(|d| ct_eq(d, &session.policy_digest)) {
        return Err(ResponseCode::VALUE.parameter(1));
    }
    clear_digest(session);
    let code = TpmCc::POLICY_OR.to_bytes();
    let mut parts: Vec<&[u8]> = vec![&code];
    parts.extend(alternatives.0.iter().map(|d| d.as_slice()));
    extend(session, &parts);
    Ok(Output::none())
}

/// A `TPML_DIGEST` of alternatives, which are at least two.
struct Alternatives(TpmlDigest);

impl Decode for Alternatives {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        // How many there are is checked before they are read, as with too many.
        if u32::decode(&mut r.clone())? < FEWEST {
            return Err(ResponseCode::SIZE);
        }
        TpmlDigest::decode(r).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use crate::command::policy::testing::{START, both, digest, hash, policy};
    use crate::testing::TestTpm;
    use vtpm_protocol::codec::Encode;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::*;

    fn list(digests: &[&[u8]]) -> TpmlDigest {
        Tpml(digests.iter().map(|d| Tpm2bDigest::new(*d).unwrap()).collect())
    }

    #[test]
    fn whichever_alternative_was_met_the_digest_is_that_of_all() {
        let mut tpm = TestTpm::started();
        let (session, trial) = both(&mut tpm);
        let auth_value = hash(&[&START, &TpmCc::POLICY_AUTH_VALUE.to_bytes()]);
        let expected = hash(&[&START, &TpmCc::POLICY_OR.to_bytes(), &START, &auth_value]);
        let alternatives = list(&[&START, &auth_value]);
        policy(&mut tpm, TpmCc::POLICY_OR, session, &alternatives).unwrap();
        assert_eq!(digest(&mut tpm, session), expected);
        policy(&mut tpm, TpmCc::POLICY_RESTART, session, &()).unwrap();
        policy(&mut tpm, TpmCc::POLICY_AUTH_VALUE, session, &()).unwrap();
        policy(&mut tpm, TpmCc::POLICY_OR, session, &alternatives).unwrap();
        assert_eq!(digest(&mut tpm, session), expected);
        // A trial needs to meet none of them.
        policy(&mut tpm, TpmCc::POLICY_OR, trial, &alternatives).unwrap();
        assert_eq!(digest(&mut tpm, trial), expected);
    }

    #[test]
    fn a_policy_that_is_no_alternative_is_refused() {
        let mut tpm = TestTpm::started();
        let (session, trial) = both(&mut tpm);
        let others = list(&[&[1; 32], &START[..31], &[]]);
        let refused = Err(ResponseCode::VALUE.parameter(1));
        assert_eq!(policy(&mut tpm, TpmCc::POLICY_OR, session, &others), refused);
        assert_eq!(policy(&mut tpm, TpmCc::POLICY_OR, trial, &others), Ok(()));
    }

    #[test]
    fn there_are_two_to_eight_alternatives() {
        let mut tpm = TestTpm::started();
        let (session, trial) = both(&mut tpm);
        for n in 0..=9u32 {
            let mut bytes = n.to_bytes();
            (0..n).for_each(|_| b"\0\x20".iter().chain(&START).for_each(|b| bytes.push(*b)));
            let expected = if (2..=8).contains(&n) { Ok(()) } else { Err(ResponseCode::SIZE.parameter(1)) };
            policy(&mut tpm, TpmCc::POLICY_RESTART, session, &()).unwrap();
            for session in [session, trial] {
                let command = crate::testing::command_bytes(TpmCc::POLICY_OR, &[session], &[], &bytes);
                let rc = tpm.rc(&command);
                assert_eq!(if rc == ResponseCode::SUCCESS { Ok(()) } else { Err(rc) }, expected, "{n}");
            }
        }
    }

    #[test]
    fn too_few_alternatives_are_told_before_one_that_is_cut_off() {
        let mut tpm = TestTpm::started();
        let (session, _) = both(&mut tpm);
        for (count, expected) in
            [(1u32, ResponseCode::SIZE), (2, ResponseCode::INSUFFICIENT), (9, ResponseCode::SIZE)]
        {
            let cut = [&count.to_bytes()[..], &[0, 32, 1]].concat();
            let command = crate::testing::command_bytes(TpmCc::POLICY_OR, &[session], &[], &cut);
            assert_eq!(tpm.rc(&command), expected.parameter(1), "{count}");
        }
    }
}
