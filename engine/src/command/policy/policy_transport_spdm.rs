//! `TPM2_PolicyTransportSPDM` (Part 3, 23.25).

use super::extend;
use super::policy_authorize::name_alg;
use crate::alg::hash_of;
use crate::command::{Context, Output, parameters};
use vtpm_protocol::codec::{Encode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Tpm2bName, TpmCc};

/// The policy needs that the command comes over a secure channel (SPDM), of certain keys of its ends where their Names are given. There is
/// no such channel to this TPM: the check fails with `TPM_RC_CHANNEL`.
///
/// # Errors
/// `TPM_RC_VALUE` when the policy asks for a channel already; `TPM_RC_SIZE`, `TPM_RC_HASH` for what is neither empty nor the Name of a key.
pub fn policy_transport_spdm(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (requester, tpm): (Tpm2bName, Tpm2bName) = parameters(r)?;
    let handle = cx.handle(0)?;
    let session = cx.state.session_mut(handle)?;
    if session.flags.check_secure_channel {
        return Err(ResponseCode::VALUE);
    }
    for (name, n) in [(&requester, 1), (&tpm, 2)] {
        if !name.is_empty() {
            name_alg(name).map_err(|e| e.parameter(n))?;
        }
    }
    let code = TpmCc::POLICY_TRANSPORT_SPDM.to_bytes();
    if requester.is_empty() && tpm.is_empty() {
        extend(session, &[&code]);
    } else {
        let keys = hash_of(session.auth_hash).digest(&[&(requester, tpm).to_bytes()]);
        extend(session, &[&code, &keys]);
    }
    session.flags.check_secure_channel = true;
    Ok(Output::none())
}

#[cfg(test)]
mod tests {
    use crate::command::policy::testing::{START, authorize_owner, both, digest, hash, policy, start_policy};
    use crate::testing::TestTpm;
    use vtpm_protocol::codec::Encode;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{Tpm2bName, TpmCc, TpmSe};

    const CODE: TpmCc = TpmCc::POLICY_TRANSPORT_SPDM;

    fn name(first: u8) -> Vec<u8> {
        [&[0, 0x0b][..], &[first; 32]].concat()
    }

    #[test]
    fn the_digest_is_that_of_the_formula_with_and_without_names() {
        let mut tpm = TestTpm::started();
        for (requester, own) in [(name(1), name(2)), (name(1), vec![]), (vec![], name(2)), (vec![], vec![])] {
            let (session, trial) = both(&mut tpm);
            for session in [session, trial] {
                let input = (Tpm2bName::new(&*requester).unwrap(), Tpm2bName::new(&*own).unwrap());
                policy(&mut tpm, CODE, session, &input).unwrap();
                let keys = match (requester.len() + own.len()) as u16 {
                    0 => vec![],
                    _ => hash(&[
                        &(requester.len() as u16).to_be_bytes(),
                        &requester,
                        &(own.len() as u16).to_be_bytes(),
                        &own,
                    ]),
                };
                assert_eq!(digest(&mut tpm, session), hash(&[&START, &CODE.to_bytes(), &keys]));
                assert_eq!(policy(&mut tpm, CODE, session, &input), Err(ResponseCode::VALUE));
            }
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let mut tpm = TestTpm::started();
        let (session, _) = both(&mut tpm);
        for (bad, expected) in [
            (vec![0], ResponseCode::SIZE),
            (vec![0, 0x0b], ResponseCode::SIZE),
            (name(1)[..33].to_vec(), ResponseCode::SIZE),
            (vec![0x40, 0, 0, 1], ResponseCode::HASH),
        ] {
            let (bad, good) = (Tpm2bName::new(bad).unwrap(), Tpm2bName::new(name(1)).unwrap());
            let result = policy(&mut tpm, CODE, session, &(&bad, &good));
            assert_eq!(result, Err(expected.parameter(1)));
            let result = policy(&mut tpm, CODE, session, &(&good, &bad));
            assert_eq!(result, Err(expected.parameter(2)));
        }
    }

    #[test]
    fn such_a_policy_authorizes_nothing_here() {
        let mut tpm = TestTpm::started();
        let session = start_policy(&mut tpm, TpmSe::POLICY);
        policy(&mut tpm, CODE, session, &(Tpm2bName::empty(), Tpm2bName::empty())).unwrap();
        assert_eq!(authorize_owner(&mut tpm, session), Err(ResponseCode::CHANNEL.session(1)));
    }
}
