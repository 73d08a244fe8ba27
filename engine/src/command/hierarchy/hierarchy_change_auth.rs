//! `TPM2_HierarchyChangeAuth` (Part 3, 24.8).

use crate::command::{Context, Output, parameters};
use crate::context;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Tpm2bAuth, TpmHandle};

/// Changes the authorization value of a hierarchy or of the lockout. The response is authorized with the new one.
///
/// # Errors
/// `TPM_RC_SIZE` for a value longer than a digest of the hash that protects contexts, as for every entity without a hash of its own.
pub fn hierarchy_change_auth(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (auth,): (Tpm2bAuth,) = parameters(r)?;
    let auth = auth.without_trailing_zeros();
    if auth.len() > context::HASH.digest_size() {
        return Err(ResponseCode::SIZE.parameter(1));
    }
    match cx.handle(0)? {
        TpmHandle::OWNER => cx.state.permanent_mut().owner.auth = auth,
        TpmHandle::ENDORSEMENT => cx.state.permanent_mut().endorsement.auth = auth,
        TpmHandle::LOCKOUT => cx.state.permanent_mut().lockout_auth = auth,
        TpmHandle::PLATFORM => cx.state.volatile_mut().state_clear.platform_auth = auth,
        _ => return Err(ResponseCode::VALUE.handle(1)),
    }
    Ok(Output::none())
}

#[cfg(test)]
mod tests {
    use crate::testing::TestTpm;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{Tpm2bAuth, TpmCc, TpmHandle, TpmSu};

    const ALL: [TpmHandle; 4] =
        [TpmHandle::OWNER, TpmHandle::ENDORSEMENT, TpmHandle::PLATFORM, TpmHandle::LOCKOUT];

    fn change(tpm: &mut TestTpm, handle: TpmHandle, old: &[u8], new: &[u8]) -> Result<(), ResponseCode> {
        let new = Tpm2bAuth::new(new).unwrap();
        tpm.run_with(TpmCc::HIERARCHY_CHANGE_AUTH, &[handle], &[old], &new).map(|_| ())
    }

    #[test]
    fn each_hierarchy_has_its_own_value() {
        let mut tpm = TestTpm::started();
        for (i, handle) in ALL.into_iter().enumerate() {
            let new = [b'a', u8::try_from(i).unwrap(), 0, 0];
            change(&mut tpm, handle, b"", &new).unwrap();
            assert_eq!(tpm.state().auth_value(handle).unwrap().expose(), &new[..if i == 0 { 1 } else { 2 }]);
        }
        assert_eq!(change(&mut tpm, TpmHandle::OWNER, b"", b"x"), Err(ResponseCode::BAD_AUTH.session(1)));
        change(&mut tpm, TpmHandle::OWNER, b"a", b"").unwrap();
        change(&mut tpm, TpmHandle::OWNER, b"", b"").unwrap();
    }

    #[test]
    fn that_of_the_platform_ends_with_the_boot() {
        let mut tpm = TestTpm::started();
        for handle in [TpmHandle::PLATFORM, TpmHandle::ENDORSEMENT] {
            change(&mut tpm, handle, b"", b"pw").unwrap();
        }
        tpm.init();
        tpm.run(TpmCc::STARTUP, &[], &TpmSu::CLEAR).unwrap();
        assert!(tpm.state().auth_value(TpmHandle::PLATFORM).unwrap().is_empty());
        assert_eq!(tpm.state().auth_value(TpmHandle::ENDORSEMENT).unwrap().expose(), b"pw");
    }

    #[test]
    fn values_are_as_long_as_a_digest_at_most() {
        let mut tpm = TestTpm::started();
        change(&mut tpm, TpmHandle::OWNER, b"", &[7; 64]).unwrap();
        let mut padded = vec![8; 32];
        padded.resize(64, 0);
        change(&mut tpm, TpmHandle::OWNER, &[7; 64], &padded).unwrap();
        for size in [65u16, u16::MAX] {
            let rc = tpm
                .run_with(TpmCc::HIERARCHY_CHANGE_AUTH, &[TpmHandle::OWNER], &[&[8; 32]], &size)
                .unwrap_err();
            assert_eq!(rc, ResponseCode::SIZE.parameter(1));
        }
        assert_eq!(change(&mut tpm, TpmHandle::NULL, b"", b""), Err(ResponseCode::VALUE.handle(1)));
    }
}
