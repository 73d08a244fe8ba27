//! `TPM2_NV_Read` (Part 3, 31.13).

use crate::command::{Context, Output, parameters};
use crate::nv;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{MAX_NV_BUFFER_SIZE, Tpm2bMaxNvBuffer};

/// Reads `size` bytes of an index from `offset` on.
///
/// # Errors
/// `TPM_RC_NV_LOCKED`, `TPM_RC_NV_AUTHORIZATION` and `TPM_RC_NV_UNINITIALIZED`, see [`nv::check_read`]; `TPM_RC_VALUE` for more bytes than one
/// response carries and for an offset beyond the index; `TPM_RC_NV_RANGE` for bytes beyond it.
pub fn nv_read(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (size, offset): (u16, u16) = parameters(r)?;
    let (auth, handle) = (cx.handle(0)?, cx.handle(1)?);
    nv::check_read(cx.state, auth, handle)?;
    let index = cx.state.nv_index(handle)?;
    if usize::from(size) > MAX_NV_BUFFER_SIZE {
        return Err(ResponseCode::VALUE.parameter(1));
    }
    if offset > index.public.data_size {
        return Err(ResponseCode::VALUE.parameter(2));
    }
    let bytes = index.range(offset, size).ok_or(ResponseCode::NV_RANGE)?;
    Ok(Output::of(&Tpm2bMaxNvBuffer::new(bytes)?))
}

#[cfg(test)]
mod tests {
    use crate::command::nv::testing::{INDEX, OPEN, define, public, read, set_attribute, write};
    use crate::testing::TestTpm;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{TpmCc, TpmHandle, TpmSu, TpmaNv};

    const OWNER: TpmHandle = TpmHandle::OWNER;

    fn written(attributes: TpmaNv, data: &[u8]) -> TestTpm {
        let mut tpm = TestTpm::started();
        let size = u16::try_from(data.len()).unwrap();
        define(&mut tpm, OWNER, b"pw", public(INDEX, attributes, size)).unwrap();
        write(&mut tpm, OWNER, b"", data, 0).unwrap();
        tpm
    }

    #[test]
    fn reads_what_was_written() {
        let mut tpm = written(OPEN, b"12345678");
        assert_eq!(read(&mut tpm, OWNER, b"", 8, 0).unwrap(), b"12345678");
        assert_eq!(read(&mut tpm, INDEX, b"pw", 3, 2).unwrap(), b"345");
        assert_eq!(read(&mut tpm, OWNER, b"", 0, 8).unwrap(), b"");
    }

    #[test]
    fn reads_beyond_the_index_are_refused() {
        let mut tpm = written(OPEN, b"12345678");
        assert_eq!(read(&mut tpm, OWNER, b"", 9, 0), Err(ResponseCode::NV_RANGE));
        assert_eq!(read(&mut tpm, OWNER, b"", 2, 7), Err(ResponseCode::NV_RANGE));
        assert_eq!(read(&mut tpm, OWNER, b"", 0, 9), Err(ResponseCode::VALUE.parameter(2)));
        // Offset and size whose 16-bit sum lies within the index.
        assert_eq!(read(&mut tpm, OWNER, b"", 2, u16::MAX), Err(ResponseCode::VALUE.parameter(2)));
        assert_eq!(read(&mut tpm, OWNER, b"", u16::MAX, 2), Err(ResponseCode::VALUE.parameter(1)));
        assert_eq!(read(&mut tpm, OWNER, b"", 1025, 0), Err(ResponseCode::VALUE.parameter(1)));
    }

    #[test]
    fn nothing_is_read_before_it_is_written() {
        let mut tpm = TestTpm::started();
        define(&mut tpm, OWNER, b"pw", public(INDEX, OPEN, 8)).unwrap();
        assert_eq!(read(&mut tpm, OWNER, b"", 0, 0), Err(ResponseCode::NV_UNINITIALIZED));
        // Who may not read does not learn whether it was written.
        assert_eq!(read(&mut tpm, TpmHandle::PLATFORM, b"", 0, 0), Err(ResponseCode::NV_AUTHORIZATION));
    }

    #[test]
    fn a_password_is_checked_before_it_is_told_that_nothing_was_written() {
        let mut tpm = TestTpm::started();
        define(&mut tpm, OWNER, b"pw", public(INDEX, OPEN, 8)).unwrap();
        assert_eq!(read(&mut tpm, INDEX, b"pw", 8, 0), Err(ResponseCode::NV_UNINITIALIZED));
        assert_eq!(read(&mut tpm, INDEX, b"no", 8, 0), Err(ResponseCode::AUTH_FAIL.session(1)));
        assert_eq!(tpm.state().permanent.da.failed_tries, 1);
    }

    #[test]
    fn who_may_read_stands_in_the_attributes() {
        let mut tpm = written(TpmaNv::OWNER_WRITE | TpmaNv::PP_READ, b"1");
        assert_eq!(read(&mut tpm, OWNER, b"", 1, 0), Err(ResponseCode::NV_AUTHORIZATION));
        assert_eq!(read(&mut tpm, INDEX, b"pw", 1, 0), Err(ResponseCode::AUTH_UNAVAILABLE.session(1)));
        assert_eq!(read(&mut tpm, TpmHandle::PLATFORM, b"", 1, 0).unwrap(), b"1");
    }

    #[test]
    fn a_locked_index_is_not_read_until_the_next_boot() {
        let mut tpm = written(OPEN | TpmaNv::READ_ST_CLEAR, b"1");
        set_attribute(&mut tpm, TpmaNv::READ_LOCKED, true);
        assert_eq!(read(&mut tpm, OWNER, b"", 1, 0), Err(ResponseCode::NV_LOCKED));
        tpm.init();
        tpm.run(TpmCc::STARTUP, &[], &TpmSu::CLEAR).unwrap();
        assert_eq!(read(&mut tpm, OWNER, b"", 1, 0).unwrap(), b"1");
    }

    #[test]
    fn wrong_passwords_lead_to_lockout_unless_the_index_is_exempt() {
        let mut tpm = written(OPEN, b"1");
        for _ in 0..32 {
            assert_eq!(read(&mut tpm, INDEX, b"no", 1, 0), Err(ResponseCode::AUTH_FAIL.session(1)));
        }
        assert_eq!(read(&mut tpm, INDEX, b"pw", 1, 0), Err(ResponseCode::LOCKOUT));
        assert_eq!(read(&mut tpm, OWNER, b"", 1, 0).unwrap(), b"1");

        let mut tpm = written(OPEN | TpmaNv::NO_DA, b"1");
        for _ in 0..40 {
            assert_eq!(read(&mut tpm, INDEX, b"no", 1, 0), Err(ResponseCode::BAD_AUTH.session(1)));
        }
        assert_eq!(read(&mut tpm, INDEX, b"pw", 1, 0).unwrap(), b"1");
    }
}
