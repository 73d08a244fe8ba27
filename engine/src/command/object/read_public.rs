//! `TPM2_ReadPublic` (Part 3, 12.4).

use crate::command::{Context, Output, parameters};
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::Sized2b;

/// Returns public area, Name and Qualified Name of a loaded object (handle 1, no authorization).
///
/// # Errors
/// `TPM_RC_SEQUENCE` for a sequence.
pub fn read_public(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let () = parameters(r)?;
    let handle = cx.handle(0)?;
    if cx.state.sequence(handle).is_some() {
        return Err(ResponseCode::SEQUENCE);
    }
    let object = cx.state.object(handle)?;
    Ok(Output::of(&(Sized2b(object.public.clone()), &object.name, &object.qualified_name)))
}

#[cfg(test)]
mod tests {
    use crate::testing::TestTpm;
    use crate::testing::objects::{create_primary, ecc_storage_key};
    use vtpm_protocol::codec::decode_exact;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{Tpm2bName, Tpm2bPublic, TpmCc, TpmHandle};

    #[test]
    fn tells_public_area_and_both_names_to_everyone() {
        let mut tpm = TestTpm::started();
        let primary = create_primary(&mut tpm, TpmHandle::OWNER, ecc_storage_key()).unwrap();
        let out = tpm.run(TpmCc::READ_PUBLIC, &[primary.handle], &()).unwrap();
        let (public, name, qualified): (Tpm2bPublic, Tpm2bName, Tpm2bName) = decode_exact(&out).unwrap();
        assert_eq!((&public.0, &name), (&primary.public, &primary.name));
        let digest = crate::crypto::HashAlg::Sha256.digest(&[&[0x40, 0, 0, 1], &name]);
        assert_eq!(qualified.as_slice(), [&[0, 0x0b], digest.as_slice()].concat());
    }

    #[test]
    fn what_is_not_loaded_has_no_public_area() {
        let mut tpm = TestTpm::started();
        let mut rc = |h| tpm.run(TpmCc::READ_PUBLIC, &[TpmHandle(h)], &()).unwrap_err();
        assert_eq!(rc(0x8000_0000), ResponseCode::REFERENCE_H0);
        assert_eq!(rc(0x8000_0002), ResponseCode::REFERENCE_H0);
        // There is no such slot: TRANSIENT_LAST.
        assert_eq!(rc(0x8000_0003), ResponseCode::VALUE.handle(1));
        assert_eq!(rc(0x8080_0000), ResponseCode::VALUE.handle(1));
        assert_eq!(rc(0x8100_0000), ResponseCode::HANDLE.handle(1));
        assert_eq!(rc(0x4000_0001), ResponseCode::VALUE.handle(1));
    }
}
