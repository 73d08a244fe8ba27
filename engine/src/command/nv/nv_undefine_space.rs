//! `TPM2_NV_UndefineSpace` (Part 3, 31.4).

use crate::command::{Context, Output, parameters};
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{TpmHandle, TpmaNv};

/// Removes an index. The platform may remove those of the owner, not the other way round.
///
/// # Errors
/// `TPM_RC_ATTRIBUTES` for an index that only its policy deletes; `TPM_RC_NV_AUTHORIZATION` when the owner authorized and the platform defined it.
pub fn nv_undefine_space(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let () = parameters(r)?;
    let (auth, handle) = (cx.handle(0)?, cx.handle(1)?);
    let attributes = cx.state.nv_index(handle)?.public.attributes;
    if attributes.has(TpmaNv::POLICY_DELETE) {
        return Err(ResponseCode::ATTRIBUTES.handle(2));
    }
    if auth == TpmHandle::OWNER && attributes.has(TpmaNv::PLATFORM_CREATE) {
        return Err(ResponseCode::NV_AUTHORIZATION);
    }
    cx.state.remove_nv_index(handle);
    Ok(Output::none())
}

#[cfg(test)]
mod tests {
    use crate::command::nv::testing::{INDEX, OPEN, define, public, set_attribute};
    use crate::testing::TestTpm;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{TpmCc, TpmHandle, TpmaNv};

    fn undefine(tpm: &mut TestTpm, auth: TpmHandle) -> Result<(), ResponseCode> {
        tpm.run_with(TpmCc::NV_UNDEFINE_SPACE, &[auth, INDEX], &[b""], &()).map(|_| ())
    }

    #[test]
    fn a_removed_index_is_gone() {
        let mut tpm = TestTpm::started();
        define(&mut tpm, TpmHandle::OWNER, b"pw", public(INDEX, OPEN, 8)).unwrap();
        undefine(&mut tpm, TpmHandle::OWNER).unwrap();
        assert_eq!(undefine(&mut tpm, TpmHandle::OWNER), Err(ResponseCode::HANDLE.handle(2)));
    }

    #[test]
    fn the_platform_removes_those_of_the_owner_but_not_the_other_way_round() {
        let mut tpm = TestTpm::started();
        define(&mut tpm, TpmHandle::OWNER, b"", public(INDEX, OPEN, 8)).unwrap();
        undefine(&mut tpm, TpmHandle::PLATFORM).unwrap();
        let attributes = OPEN | TpmaNv::PLATFORM_CREATE;
        define(&mut tpm, TpmHandle::PLATFORM, b"", public(INDEX, attributes, 8)).unwrap();
        assert_eq!(undefine(&mut tpm, TpmHandle::OWNER), Err(ResponseCode::NV_AUTHORIZATION));
        undefine(&mut tpm, TpmHandle::PLATFORM).unwrap();
    }

    #[test]
    fn an_index_that_its_policy_protects_stays() {
        let mut tpm = TestTpm::started();
        let attributes = OPEN | TpmaNv::PLATFORM_CREATE;
        define(&mut tpm, TpmHandle::PLATFORM, b"", public(INDEX, attributes, 8)).unwrap();
        set_attribute(&mut tpm, TpmaNv::POLICY_DELETE, true);
        assert_eq!(undefine(&mut tpm, TpmHandle::PLATFORM), Err(ResponseCode::ATTRIBUTES.handle(2)));
    }

    #[test]
    fn an_index_of_a_disabled_hierarchy_is_not_seen() {
        let mut tpm = TestTpm::started();
        define(&mut tpm, TpmHandle::OWNER, b"", public(INDEX, OPEN, 8)).unwrap();
        tpm.state().volatile_mut().state_clear.sh_enable = false;
        tpm.resave();
        assert_eq!(undefine(&mut tpm, TpmHandle::PLATFORM), Err(ResponseCode::HANDLE.handle(2)));
        assert_eq!(undefine(&mut tpm, TpmHandle::OWNER), Err(ResponseCode::HIERARCHY.handle(1)));
    }
}
