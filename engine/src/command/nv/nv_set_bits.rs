//! `TPM2_NV_SetBits` (Part 3, 31.10).

use crate::command::{Context, Output, parameters};
use crate::nv;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::TpmNt;

/// Sets bits of a bit field; those that are set stay so. A field that was not written begins with none.
///
/// # Errors
/// `TPM_RC_NV_LOCKED` and `TPM_RC_NV_AUTHORIZATION`, see [`nv::check_write`]; `TPM_RC_ATTRIBUTES` for an index that is no bit field.
pub fn nv_set_bits(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (bits,): (u64,) = parameters(r)?;
    let (auth, handle) = (cx.handle(0)?, cx.handle(1)?);
    cx.state.check_read_only(cx.state.nv_index(handle)?.public.attributes)?;
    nv::check_write(cx.state, auth, handle)?;
    let index = cx.state.nv_index(handle)?;
    if index.public.attributes.nt()? != TpmNt::Bits {
        return Err(ResponseCode::ATTRIBUTES.handle(2));
    }
    let new = index.value().unwrap_or(0) | bits;
    cx.state.nv_index_mut(handle)?.write(0, &new.to_be_bytes())?;
    Ok(Output::none())
}

#[cfg(test)]
mod tests {
    use crate::command::nv::testing::{INDEX, OPEN, define, public, read, write};
    use crate::testing::TestTpm;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{TpmCc, TpmHandle, TpmNt};

    const OWNER: TpmHandle = TpmHandle::OWNER;

    fn set(tpm: &mut TestTpm, bits: u64) -> Result<(), ResponseCode> {
        tpm.run_with(TpmCc::NV_SET_BITS, &[OWNER, INDEX], &[b""], &bits).map(|_| ())
    }

    #[test]
    fn bits_are_set_and_never_cleared() {
        let mut tpm = TestTpm::started();
        define(&mut tpm, OWNER, b"", public(INDEX, OPEN.with_nt(TpmNt::Bits), 8)).unwrap();
        // Setting none is a write, and begins with none set.
        set(&mut tpm, 0).unwrap();
        assert_eq!(read(&mut tpm, OWNER, b"", 8, 0).unwrap(), [0; 8]);
        set(&mut tpm, 0x8000_0000_0000_0001).unwrap();
        set(&mut tpm, 6).unwrap();
        assert_eq!(read(&mut tpm, OWNER, b"", 8, 0).unwrap(), [0x80, 0, 0, 0, 0, 0, 0, 7]);
        assert_eq!(write(&mut tpm, OWNER, b"", &[0; 8], 0), Err(ResponseCode::ATTRIBUTES));
    }

    #[test]
    fn other_indices_have_no_bits_to_set() {
        let mut tpm = TestTpm::started();
        define(&mut tpm, OWNER, b"", public(INDEX, OPEN, 8)).unwrap();
        assert_eq!(set(&mut tpm, 1), Err(ResponseCode::ATTRIBUTES.handle(2)));
    }
}
