//! `TPM2_NV_ReadPublic` (Part 3, 31.6).

use crate::command::{Context, Output, parameters};
use crate::entity::nv_name;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::Sized2b;

/// Returns the public area and the Name of an index, to anybody.
///
/// # Errors
/// Those of the handle.
pub fn nv_read_public(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let () = parameters(r)?;
    let public = cx.state.nv_index(cx.handle(0)?)?.public.clone();
    let name = nv_name(&public);
    Ok(Output::of(&(Sized2b(public), name)))
}

#[cfg(test)]
mod tests {
    use crate::command::nv::testing::{INDEX, OPEN, define, public, write};
    use crate::crypto::HashAlg;
    use crate::testing::TestTpm;
    use vtpm_protocol::codec::{Encode, decode_exact};
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{Tpm2bName, Tpm2bNvPublic, TpmCc, TpmHandle, TpmaNv};

    #[test]
    fn the_name_is_the_digest_of_the_public_area_as_it_is_now() {
        let mut tpm = TestTpm::started();
        define(&mut tpm, TpmHandle::OWNER, b"", public(INDEX, OPEN, 8)).unwrap();
        let mut expected = public(INDEX, OPEN, 8);
        for write_first in [false, true] {
            if write_first {
                write(&mut tpm, TpmHandle::OWNER, b"", &[1; 8], 0).unwrap();
                expected.attributes = expected.attributes | TpmaNv::WRITTEN;
            }
            let out = tpm.run(TpmCc::NV_READ_PUBLIC, &[INDEX], &()).unwrap();
            let (area, name): (Tpm2bNvPublic, Tpm2bName) = decode_exact(&out).unwrap();
            assert_eq!(area.0, expected);
            let digest = HashAlg::Sha256.digest(&[&expected.to_bytes()]);
            assert_eq!(name.as_slice(), [&[0, 0x0b], digest.as_slice()].concat());
        }
    }

    #[test]
    fn an_index_that_is_not_there_is_told() {
        let mut tpm = TestTpm::started();
        assert_eq!(
            tpm.run(TpmCc::NV_READ_PUBLIC, &[INDEX], &()).unwrap_err(),
            ResponseCode::HANDLE.handle(1)
        );
        assert_eq!(
            tpm.run(TpmCc::NV_READ_PUBLIC, &[TpmHandle::OWNER], &()).unwrap_err(),
            ResponseCode::VALUE.handle(1)
        );
    }
}
