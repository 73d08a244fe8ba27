//! `TPM2_NV_ReadPublic2` (Part 3, 31.18).

use crate::command::{Context, Output, parameters};
use crate::entity::nv_name;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Sized2b, TpmtNvPublic2};

/// Returns the public area of an index with the type of its handle in front, and its Name, to anybody. The Name does not cover that type,
/// which is the first byte of the handle anyway, so that it is the same as that of `TPM2_NV_ReadPublic`.
///
/// # Errors
/// Those of the handle.
pub fn nv_read_public2(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let () = parameters(r)?;
    let public = cx.state.nv_index(cx.handle(0)?)?.public.clone();
    let name = nv_name(&public);
    Ok(Output::of(&(Sized2b(TpmtNvPublic2::NvIndex(public)), name)))
}

#[cfg(test)]
mod tests {
    use crate::command::nv::testing::{INDEX, OPEN, define, public};
    use crate::testing::TestTpm;
    use vtpm_protocol::codec::decode_exact;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{Tpm2bName, Tpm2bNvPublic, Tpm2bNvPublic2, TpmCc, TpmHandle, TpmtNvPublic2};

    #[test]
    fn it_returns_what_the_older_command_returns_with_the_type_in_front() {
        let mut tpm = TestTpm::started();
        define(&mut tpm, TpmHandle::OWNER, b"", public(INDEX, OPEN, 8)).unwrap();
        let old = tpm.run(TpmCc::NV_READ_PUBLIC, &[INDEX], &()).unwrap();
        let new = tpm.run(TpmCc::NV_READ_PUBLIC2, &[INDEX], &()).unwrap();
        let (old, old_name): (Tpm2bNvPublic, Tpm2bName) = decode_exact(&old).unwrap();
        assert_eq!(new[2], 1);
        let (new, name): (Tpm2bNvPublic2, Tpm2bName) = decode_exact(&new).unwrap();
        assert_eq!(new.0, TpmtNvPublic2::NvIndex(old.0));
        assert_eq!(name, old_name);
    }

    #[test]
    fn what_is_not_there_is_told() {
        let mut tpm = TestTpm::started();
        let mut rc = |handle| tpm.run(TpmCc::NV_READ_PUBLIC2, &[TpmHandle(handle)], &()).unwrap_err();
        assert_eq!(rc(INDEX.0), ResponseCode::HANDLE.handle(1));
        for handle in [0, 0x1100_0001, 0x1200_0001, 0x8100_0001, TpmHandle::OWNER.0] {
            assert_eq!(rc(handle), ResponseCode::VALUE.handle(1), "{handle:x}");
        }
    }
}
