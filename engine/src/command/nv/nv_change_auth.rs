//! `TPM2_NV_ChangeAuth` (Part 3, 31.15).

use crate::alg::hash_of;
use crate::command::{Context, Output, parameters};
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::Tpm2bAuth;

/// Gives an index another authorization value. Only its policy allows it, the role is ADMIN. The response is authorized with the new value.
///
/// # Errors
/// `TPM_RC_SIZE` for a value that is longer than a digest of the name algorithm.
pub fn nv_change_auth(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (new,): (Tpm2bAuth,) = parameters(r)?;
    let handle = cx.handle(0)?;
    let new = new.without_trailing_zeros();
    if new.len() > hash_of(cx.state.nv_index(handle)?.public.name_alg).digest_size() {
        return Err(ResponseCode::SIZE.parameter(1));
    }
    cx.state.nv_index_mut(handle)?.auth = new;
    Ok(Output::none())
}

#[cfg(test)]
mod tests {
    use crate::command::nv::testing::{INDEX, OPEN, define, policy_for, public, write};
    use crate::testing::TestTpm;
    use crate::testing::objects::{run_with_policy, start_policy};
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{Tpm2bAuth, TpmCc, TpmHandle, TpmSe};

    fn with_policy() -> TestTpm {
        let mut tpm = TestTpm::started();
        let mut public = public(INDEX, OPEN, 8);
        public.auth_policy = policy_for(TpmCc::NV_CHANGE_AUTH);
        define(&mut tpm, TpmHandle::OWNER, b"old", public).unwrap();
        tpm
    }

    fn change(tpm: &mut TestTpm, code: Option<TpmCc>, new: &[u8]) -> Result<(), ResponseCode> {
        let session = start_policy(tpm, TpmSe::POLICY);
        if let Some(code) = code {
            tpm.run(TpmCc::POLICY_COMMAND_CODE, &[session], &code).unwrap();
        }
        let new = Tpm2bAuth::new(new).unwrap();
        run_with_policy(tpm, TpmCc::NV_CHANGE_AUTH, &[INDEX], session, &new).map(|_| ())
    }

    #[test]
    fn the_new_value_authorizes_and_the_old_one_no_longer() {
        let mut tpm = with_policy();
        change(&mut tpm, Some(TpmCc::NV_CHANGE_AUTH), b"new\0\0").unwrap();
        assert_eq!(write(&mut tpm, INDEX, b"old", &[1], 0), Err(ResponseCode::AUTH_FAIL.session(1)));
        assert_eq!(write(&mut tpm, INDEX, b"new", &[1], 0), Ok(()));
    }

    #[test]
    fn nothing_but_the_policy_for_this_command_serves() {
        let mut tpm = with_policy();
        let new = Tpm2bAuth::new(*b"new").unwrap();
        let rc = tpm.run_with(TpmCc::NV_CHANGE_AUTH, &[INDEX], &[b"old"], &new).unwrap_err();
        assert_eq!(rc, ResponseCode::AUTH_TYPE.session(1));
        for other in [None, Some(TpmCc::NV_WRITE)] {
            assert_eq!(change(&mut tpm, other, b"new"), Err(ResponseCode::POLICY_FAIL.session(1)));
        }
        let rc = tpm.run(TpmCc::NV_CHANGE_AUTH, &[INDEX], &new).unwrap_err();
        assert_eq!(rc, ResponseCode::AUTH_MISSING);
    }

    #[test]
    fn an_index_without_a_policy_keeps_its_value() {
        let mut tpm = TestTpm::started();
        define(&mut tpm, TpmHandle::OWNER, b"old", public(INDEX, OPEN, 8)).unwrap();
        let refused = Err(ResponseCode::AUTH_UNAVAILABLE.session(1));
        assert_eq!(change(&mut tpm, Some(TpmCc::NV_CHANGE_AUTH), b"new"), refused);
    }

    #[test]
    fn a_value_fits_the_name_algorithm() {
        let mut tpm = with_policy();
        let rc = change(&mut tpm, Some(TpmCc::NV_CHANGE_AUTH), &[7; 33]);
        assert_eq!(rc, Err(ResponseCode::SIZE.parameter(1)));
        let mut padded = vec![7; 32];
        padded.resize(64, 0);
        assert_eq!(change(&mut tpm, Some(TpmCc::NV_CHANGE_AUTH), &padded), Ok(()));
        assert_eq!(tpm.state().nv_index(INDEX).unwrap().auth.len(), 32);
    }
}
