//! `TPM2_NV_Extend` (Part 3, 31.9).

use crate::alg::hash_of;
use crate::command::{Context, Output, parameters};
use crate::crypto::Digest;
use crate::nv;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Tpm2bMaxNvBuffer, TpmNt, TpmaNv};

/// Extends an index as a PCR is extended, with its name algorithm: `new = H(old || data)`. One that was not written begins with zeros.
///
/// # Errors
/// `TPM_RC_NV_LOCKED` and `TPM_RC_NV_AUTHORIZATION`, see [`nv::check_write`]; `TPM_RC_ATTRIBUTES` for an index of another type.
pub fn nv_extend(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (data,): (Tpm2bMaxNvBuffer,) = parameters(r)?;
    let (auth, handle) = (cx.handle(0)?, cx.handle(1)?);
    cx.state.check_read_only(cx.state.nv_index(handle)?.public.attributes)?;
    nv::check_write(cx.state, auth, handle)?;
    let index = cx.state.nv_index(handle)?;
    if index.public.attributes.nt()? != TpmNt::Extend {
        return Err(ResponseCode::ATTRIBUTES.handle(2));
    }
    let alg = hash_of(index.public.name_alg);
    let zeros = Digest::zero(alg);
    let written = index.public.attributes.has(TpmaNv::WRITTEN);
    let old = if written { index.data.as_slice() } else { zeros.as_slice() };
    let new = alg.digest(&[old, &data]);
    cx.state.nv_index_mut(handle)?.write(0, &new)?;
    Ok(Output::none())
}

#[cfg(test)]
mod tests {
    use crate::command::nv::testing::{INDEX, OPEN, define, public, read, write};
    use crate::crypto::HashAlg;
    use crate::testing::TestTpm;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{Tpm2bMaxNvBuffer, TpmCc, TpmHandle, TpmNt};

    const OWNER: TpmHandle = TpmHandle::OWNER;

    fn extend(tpm: &mut TestTpm, data: &[u8]) -> Result<(), ResponseCode> {
        let data = Tpm2bMaxNvBuffer::new(data).unwrap();
        tpm.run_with(TpmCc::NV_EXTEND, &[OWNER, INDEX], &[b""], &data).map(|_| ())
    }

    #[test]
    fn an_index_is_extended_from_zeros_on() {
        let mut tpm = TestTpm::started();
        define(&mut tpm, OWNER, b"", public(INDEX, OPEN.with_nt(TpmNt::Extend), 32)).unwrap();
        extend(&mut tpm, b"one").unwrap();
        let first = HashAlg::Sha256.digest(&[&[0; 32], b"one"]);
        assert_eq!(read(&mut tpm, OWNER, b"", 32, 0).unwrap(), first.as_slice());
        extend(&mut tpm, &[2; 1024]).unwrap();
        let second = HashAlg::Sha256.digest(&[&first, &[2; 1024]]);
        assert_eq!(read(&mut tpm, OWNER, b"", 32, 0).unwrap(), second.as_slice());
        assert_eq!(write(&mut tpm, OWNER, b"", &[0; 32], 0), Err(ResponseCode::ATTRIBUTES));
    }

    #[test]
    fn other_indices_are_not_extended() {
        let mut tpm = TestTpm::started();
        define(&mut tpm, OWNER, b"", public(INDEX, OPEN, 32)).unwrap();
        assert_eq!(extend(&mut tpm, b"one"), Err(ResponseCode::ATTRIBUTES.handle(2)));
        let rc = tpm.run_with(TpmCc::NV_EXTEND, &[OWNER, INDEX], &[b""], &1025u16).unwrap_err();
        assert_eq!(rc, ResponseCode::SIZE.parameter(1));
    }
}
