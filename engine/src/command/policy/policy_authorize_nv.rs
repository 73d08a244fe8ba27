//! `TPM2_PolicyAuthorizeNV` (Part 3, 23.22).

use super::{clear_digest, digest_size, extend, is_trial};
use crate::command::{Context, Output, parameters};
use crate::crypto::ct_eq;
use crate::nv;
use vtpm_protocol::codec::{Decode, Encode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{TpmCc, TpmiAlgHash};

/// The policy so far is the one that an NV index holds, as a `TPMT_HA`; from here on it is the index that counts.
///
/// # Errors
/// `TPM_RC_NV_LOCKED`, `TPM_RC_NV_AUTHORIZATION`, `TPM_RC_NV_UNINITIALIZED`, see [`nv::check_read`]; `TPM_RC_HASH` for an index with another hash
/// than the session's, `TPM_RC_INSUFFICIENT` for one that is too small; `TPM_RC_VALUE` for one with another policy.
pub fn policy_authorize_nv(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let () = parameters(r)?;
    let (auth, nv_index, handle) = (cx.handle(0)?, cx.handle(1)?, cx.handle(2)?);
    let session = cx.state.session(handle)?;
    if !is_trial(session) {
        nv::check_read(cx.state, auth, nv_index)?;
        let mut data = Reader::new(&cx.state.nv_index(nv_index)?.data);
        let alg = TpmiAlgHash::decode(&mut data)?;
        let approved = data.take(vtpm_protocol::tpm::hash_size(alg.0).ok_or(ResponseCode::HASH)?)?;
        if alg != session.auth_hash || approved.len() != digest_size(session) {
            return Err(ResponseCode::HASH);
        }
        if !ct_eq(approved, &session.policy_digest) {
            return Err(ResponseCode::VALUE);
        }
    }
    let name = cx.state.name(nv_index)?;
    let session = cx.state.session_mut(handle)?;
    clear_digest(session);
    extend(session, &[&TpmCc::POLICY_AUTHORIZE_NV.to_bytes(), &name]);
    Ok(Output::none())
}

#[cfg(test)]
mod tests {
    use crate::command::nv::testing::{INDEX, OPEN, define, public, set_attribute, write};
    use crate::command::policy::testing::{START, both, digest, hash, policy};
    use crate::testing::TestTpm;
    use vtpm_protocol::codec::Encode;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::*;

    const OWNER: TpmHandle = TpmHandle::OWNER;

    fn holding(attributes: TpmaNv, alg: TpmAlgId, policy: &[u8]) -> TestTpm {
        let mut tpm = TestTpm::started();
        let data = [&alg.to_bytes()[..], policy].concat();
        define(&mut tpm, OWNER, b"", public(INDEX, attributes, data.len() as u16)).unwrap();
        write(&mut tpm, OWNER, b"", &data, 0).unwrap();
        tpm
    }

    fn run(tpm: &mut TestTpm, auth: TpmHandle, session: TpmHandle) -> Result<(), ResponseCode> {
        tpm.run_with(TpmCc::POLICY_AUTHORIZE_NV, &[auth, INDEX, session], &[b""], &()).map(drop)
    }

    #[test]
    fn the_policy_that_the_index_holds_becomes_that_of_the_index() {
        let approved = hash(&[&START, &TpmCc::POLICY_AUTH_VALUE.to_bytes()]);
        // What follows the digest does not matter.
        for more in [&b""[..], b"more"] {
            let mut tpm = holding(OPEN, TpmAlgId::SHA256, &[&approved, more].concat());
            let (session, trial) = both(&mut tpm);
            assert_eq!(run(&mut tpm, OWNER, session), Err(ResponseCode::VALUE));
            policy(&mut tpm, TpmCc::POLICY_AUTH_VALUE, session, &()).unwrap();
            let name = tpm.state().name(INDEX).unwrap();
            let expected = hash(&[&START, &TpmCc::POLICY_AUTHORIZE_NV.to_bytes(), &name]);
            for session in [session, trial] {
                assert_eq!(run(&mut tpm, INDEX, session), Ok(()));
                assert_eq!(digest(&mut tpm, session), expected);
            }
            assert!(tpm.state().session(session).unwrap().flags.is_auth_value_needed);
        }
    }

    #[test]
    fn an_index_that_holds_no_policy_of_the_session_s_hash_is_refused() {
        for (alg, policy, expected) in [
            (TpmAlgId::SHA256, &START[..31], ResponseCode::INSUFFICIENT),
            (TpmAlgId::SHA1, &START[..20], ResponseCode::HASH),
            (TpmAlgId::NULL, &START, ResponseCode::HASH),
            (TpmAlgId::AES, &START, ResponseCode::HASH),
            (TpmAlgId::SHA256, &[1; 32], ResponseCode::VALUE),
        ] {
            let mut tpm = holding(OPEN, alg, policy);
            let (session, trial) = both(&mut tpm);
            assert_eq!(run(&mut tpm, OWNER, session), Err(expected));
            assert_eq!(run(&mut tpm, OWNER, trial), Ok(()));
        }
    }

    #[test]
    fn who_may_not_read_the_index_gets_no_policy_from_it() {
        let mut tpm = holding(OPEN & !TpmaNv::OWNER_READ, TpmAlgId::SHA256, &START);
        let (session, trial) = both(&mut tpm);
        assert_eq!(run(&mut tpm, OWNER, session), Err(ResponseCode::NV_AUTHORIZATION));
        assert_eq!(run(&mut tpm, OWNER, trial), Ok(()));
        let handles = [INDEX, INDEX, session];
        let result = tpm.run(TpmCc::POLICY_AUTHORIZE_NV, &handles, &()).map(drop);
        assert_eq!(result, Err(ResponseCode::AUTH_MISSING));
        set_attribute(&mut tpm, TpmaNv::READ_LOCKED, true);
        assert_eq!(run(&mut tpm, INDEX, session), Err(ResponseCode::NV_LOCKED));
        let mut tpm = TestTpm::started();
        define(&mut tpm, OWNER, b"", public(INDEX, OPEN, 34)).unwrap();
        let (session, _) = both(&mut tpm);
        assert_eq!(run(&mut tpm, OWNER, session), Err(ResponseCode::NV_UNINITIALIZED));
    }
}
