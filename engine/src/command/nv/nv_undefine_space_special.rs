//! `TPM2_NV_UndefineSpaceSpecial` (Part 3, 31.5).

use crate::command::{Context, Output, parameters};
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::TpmaNv;

/// Removes an index that only its policy deletes, with its policy in the role ADMIN and with the platform's authorization.
///
/// # Errors
/// `TPM_RC_ATTRIBUTES` for an index without `TPMA_NV_POLICY_DELETE`.
pub fn nv_undefine_space_special(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let () = parameters(r)?;
    let handle = cx.handle(0)?;
    if !cx.state.nv_index(handle)?.public.attributes.has(TpmaNv::POLICY_DELETE) {
        return Err(ResponseCode::ATTRIBUTES.handle(1));
    }
    cx.state.remove_nv_index(handle);
    // Its authorization value is gone with it; the response is authorized without.
    cx.sessions.forget(handle);
    Ok(Output::none())
}

#[cfg(test)]
mod tests {
    use crate::command::nv::testing::{INDEX, define, policy_for, public};
    use crate::testing::objects::start_policy;
    use crate::testing::{TestTpm, code, command_bytes};
    use vtpm_protocol::codec::Encode;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{TpmCc, TpmHandle, TpmNt, TpmSe, TpmaNv, TpmaSession, TpmsNvPublic};

    const PLATFORM: TpmaNv = TpmaNv(TpmaNv::PP_READ.0 | TpmaNv::PP_WRITE.0 | TpmaNv::PLATFORM_CREATE.0);

    fn with_policy(attributes: TpmaNv) -> TpmsNvPublic {
        TpmsNvPublic {
            auth_policy: policy_for(TpmCc::NV_UNDEFINE_SPACE_SPECIAL),
            ..public(INDEX, attributes, 8)
        }
    }

    fn undefine(tpm: &mut TestTpm, policy: Option<TpmCc>) -> Result<(), ResponseCode> {
        let mut area = match policy {
            None => (TpmHandle::RS_PW, 0u16, 0u8, 0u16).to_bytes(),
            Some(code) => {
                let session = start_policy(tpm, TpmSe::POLICY);
                tpm.run(TpmCc::POLICY_COMMAND_CODE, &[session], &code).unwrap();
                (session, 0u16, TpmaSession::CONTINUE_SESSION, 0u16).to_bytes()
            }
        };
        (TpmHandle::RS_PW, 0u16, 0u8, 0u16).encode(&mut area);
        let handles = [INDEX, TpmHandle::PLATFORM];
        match code(&tpm.raw(&command_bytes(TpmCc::NV_UNDEFINE_SPACE_SPECIAL, &handles, &area, &[]))) {
            ResponseCode::SUCCESS => Ok(()),
            rc => Err(rc),
        }
    }

    #[test]
    fn the_policy_and_the_platform_together_delete() {
        let mut tpm = TestTpm::started();
        let public = with_policy((PLATFORM | TpmaNv::POLICY_DELETE).with_nt(TpmNt::Counter));
        define(&mut tpm, TpmHandle::PLATFORM, b"", public).unwrap();
        tpm.run_with(TpmCc::NV_INCREMENT, &[TpmHandle::PLATFORM, INDEX], &[b""], &()).map(|_| ()).unwrap();
        assert_eq!(undefine(&mut tpm, None), Err(ResponseCode::AUTH_TYPE.session(1)));
        assert_eq!(
            undefine(&mut tpm, Some(TpmCc::NV_UNDEFINE_SPACE)),
            Err(ResponseCode::POLICY_FAIL.session(1))
        );
        assert_eq!(undefine(&mut tpm, Some(TpmCc::NV_UNDEFINE_SPACE_SPECIAL)), Ok(()));
        assert!(tpm.state().nv.is_empty());
        // What it counted is remembered.
        assert_eq!(tpm.state().permanent.max_counter, 1);
        let gone = Err(ResponseCode::HANDLE.handle(1));
        assert_eq!(undefine(&mut tpm, Some(TpmCc::NV_UNDEFINE_SPACE_SPECIAL)), gone);
    }

    #[test]
    fn the_ordinary_way_does_not_delete_it() {
        let mut tpm = TestTpm::started();
        define(&mut tpm, TpmHandle::PLATFORM, b"", with_policy(PLATFORM | TpmaNv::POLICY_DELETE)).unwrap();
        let handles = [TpmHandle::PLATFORM, INDEX];
        let rc = tpm.run_with(TpmCc::NV_UNDEFINE_SPACE, &handles, &[b""], &()).unwrap_err();
        assert_eq!(rc, ResponseCode::ATTRIBUTES.handle(2));
    }

    #[test]
    fn an_index_that_can_be_deleted_otherwise_is_not_deleted_this_way() {
        let mut tpm = TestTpm::started();
        define(&mut tpm, TpmHandle::PLATFORM, b"", with_policy(PLATFORM)).unwrap();
        let rc = undefine(&mut tpm, Some(TpmCc::NV_UNDEFINE_SPACE_SPECIAL));
        assert_eq!(rc, Err(ResponseCode::ATTRIBUTES.handle(1)));
    }

    #[test]
    fn without_a_policy_it_stays_for_good() {
        let mut tpm = TestTpm::started();
        let public = public(INDEX, PLATFORM | TpmaNv::POLICY_DELETE, 8);
        define(&mut tpm, TpmHandle::PLATFORM, b"", public).unwrap();
        let rc = undefine(&mut tpm, Some(TpmCc::NV_UNDEFINE_SPACE_SPECIAL));
        assert_eq!(rc, Err(ResponseCode::AUTH_UNAVAILABLE.session(1)));
    }

    #[test]
    fn it_takes_an_index_and_the_platform() {
        let mut tpm = TestTpm::started();
        define(&mut tpm, TpmHandle::PLATFORM, b"", with_policy(PLATFORM | TpmaNv::POLICY_DELETE)).unwrap();
        let mut rc = |handles: [TpmHandle; 2]| {
            tpm.run_with(TpmCc::NV_UNDEFINE_SPACE_SPECIAL, &handles, &[b"", b""], &()).unwrap_err()
        };
        assert_eq!(rc([INDEX, TpmHandle::OWNER]), ResponseCode::VALUE.handle(2));
        assert_eq!(rc([TpmHandle::OWNER, TpmHandle::PLATFORM]), ResponseCode::VALUE.handle(1));
    }
}
