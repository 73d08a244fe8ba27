//! `TPM2_NV_Write` (Part 3, 31.7).

use crate::command::{Context, Output, parameters};
use crate::nv;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Tpm2bMaxNvBuffer, TpmNt, TpmaNv};

/// Writes to an ordinary or a PIN index.
///
/// # Errors
/// `TPM_RC_NV_LOCKED` and `TPM_RC_NV_AUTHORIZATION`, see [`nv::check_write`]; `TPM_RC_ATTRIBUTES` for a counter, bit field or extend index;
/// `TPM_RC_VALUE` for an offset beyond the index; `TPM_RC_NV_RANGE` for data that reach beyond it, or do not fill one that is written as
/// a whole.
pub fn nv_write(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (data, offset): (Tpm2bMaxNvBuffer, u16) = parameters(r)?;
    let (auth, handle) = (cx.handle(0)?, cx.handle(1)?);
    cx.state.check_read_only(cx.state.nv_index(handle)?.public.attributes)?;
    nv::check_write(cx.state, auth, handle)?;
    let public = &cx.state.nv_index(handle)?.public;
    if !matches!(public.attributes.nt()?, TpmNt::Ordinary | TpmNt::PinFail | TpmNt::PinPass) {
        return Err(ResponseCode::ATTRIBUTES);
    }
    if offset > public.data_size {
        return Err(ResponseCode::VALUE.parameter(2));
    }
    if public.attributes.has(TpmaNv::WRITE_ALL) && data.len() < usize::from(public.data_size) {
        return Err(ResponseCode::NV_RANGE);
    }
    cx.state.nv_index_mut(handle)?.write(offset, &data)?;
    Ok(Output::none())
}

#[cfg(test)]
mod tests {
    use crate::command::nv::testing::{
        INDEX, OPEN, attributes, boot, define, public, read, set_attribute, write,
    };
    use crate::testing::TestTpm;
    use vtpm_protocol::codec::Encode;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{TpmCc, TpmHandle, TpmNt, TpmSu, TpmaNv};

    const OWNER: TpmHandle = TpmHandle::OWNER;

    fn defined(attributes: TpmaNv, size: u16) -> TestTpm {
        let mut tpm = TestTpm::started();
        define(&mut tpm, OWNER, b"pw", public(INDEX, attributes, size)).unwrap();
        tpm
    }

    #[test]
    fn the_first_write_changes_the_name_and_fills_the_rest() {
        let mut tpm = defined(OPEN, 8);
        let name = tpm.state().name(INDEX).unwrap();
        write(&mut tpm, OWNER, b"", &[1, 2], 3).unwrap();
        let written = tpm.state().name(INDEX).unwrap();
        assert_ne!(name, written);
        assert!(attributes(&mut tpm).has(TpmaNv::WRITTEN));
        assert_eq!(read(&mut tpm, OWNER, b"", 8, 0).unwrap(), [0xff, 0xff, 0xff, 1, 2, 0xff, 0xff, 0xff]);
        write(&mut tpm, INDEX, b"pw", &[3], 0).unwrap();
        assert_eq!(read(&mut tpm, INDEX, b"pw", 8, 0).unwrap(), [3, 0xff, 0xff, 1, 2, 0xff, 0xff, 0xff]);
        assert_eq!(tpm.state().name(INDEX).unwrap(), written);
    }

    #[test]
    fn writing_nothing_is_writing() {
        let mut tpm = defined(OPEN, 8);
        write(&mut tpm, OWNER, b"", &[], 8).unwrap();
        assert!(attributes(&mut tpm).has(TpmaNv::WRITTEN));
    }

    #[test]
    fn writes_beyond_the_index_are_refused() {
        let mut tpm = defined(OPEN, 8);
        assert_eq!(write(&mut tpm, OWNER, b"", &[0; 9], 0), Err(ResponseCode::NV_RANGE));
        assert_eq!(write(&mut tpm, OWNER, b"", &[0; 2], 7), Err(ResponseCode::NV_RANGE));
        assert_eq!(write(&mut tpm, OWNER, b"", &[0], 8), Err(ResponseCode::NV_RANGE));
        assert_eq!(write(&mut tpm, OWNER, b"", &[], 9), Err(ResponseCode::VALUE.parameter(2)));
        assert_eq!(write(&mut tpm, OWNER, b"", &[0; 2], u16::MAX), Err(ResponseCode::VALUE.parameter(2)));
        assert_eq!(write(&mut tpm, OWNER, b"", &[0; 1024], u16::MAX), Err(ResponseCode::VALUE.parameter(2)));
        assert_eq!(write(&mut tpm, OWNER, b"", &[0; 8], 0), Ok(()));
    }

    #[test]
    fn one_write_takes_1024_bytes() {
        let mut tpm = defined(OPEN, 2048);
        write(&mut tpm, OWNER, b"", &[1; 1024], 1024).unwrap();
        for size in [1025u16, u16::MAX] {
            let rc = tpm.run_with(TpmCc::NV_WRITE, &[OWNER, INDEX], &[b""], &size).unwrap_err();
            assert_eq!(rc, ResponseCode::SIZE.parameter(1));
        }
    }

    #[test]
    fn an_index_that_is_written_as_a_whole_takes_no_part() {
        let mut tpm = defined(OPEN | TpmaNv::WRITE_ALL, 8);
        assert_eq!(write(&mut tpm, OWNER, b"", &[0; 7], 0), Err(ResponseCode::NV_RANGE));
        assert_eq!(write(&mut tpm, OWNER, b"", &[0; 7], 1), Err(ResponseCode::NV_RANGE));
        assert_eq!(write(&mut tpm, OWNER, b"", &[0; 8], 0), Ok(()));
    }

    #[test]
    fn who_may_write_stands_in_the_attributes() {
        let mut tpm = defined(TpmaNv::AUTH_WRITE | TpmaNv::OWNER_READ, 8);
        assert_eq!(write(&mut tpm, OWNER, b"", &[1], 0), Err(ResponseCode::NV_AUTHORIZATION));
        assert_eq!(write(&mut tpm, TpmHandle::PLATFORM, b"", &[1], 0), Err(ResponseCode::NV_AUTHORIZATION));
        assert_eq!(write(&mut tpm, INDEX, b"no", &[1], 0), Err(ResponseCode::AUTH_FAIL.session(1)));
        assert_eq!(write(&mut tpm, INDEX, b"pw", &[1], 0), Ok(()));

        let mut tpm = defined(TpmaNv::PP_WRITE | TpmaNv::AUTH_READ, 8);
        assert_eq!(write(&mut tpm, INDEX, b"pw", &[1], 0), Err(ResponseCode::AUTH_UNAVAILABLE.session(1)));
        assert_eq!(write(&mut tpm, TpmHandle::PLATFORM, b"", &[1], 0), Ok(()));
    }

    #[test]
    fn another_index_authorizes_nothing() {
        let mut tpm = defined(OPEN, 8);
        let other = TpmHandle(INDEX.0 + 1);
        define(&mut tpm, OWNER, b"", public(other, OPEN, 8)).unwrap();
        assert_eq!(write(&mut tpm, other, b"", &[1], 0), Err(ResponseCode::NV_AUTHORIZATION));
    }

    #[test]
    fn a_locked_index_is_not_written_until_the_next_boot() {
        let mut tpm = defined(OPEN | TpmaNv::WRITE_ST_CLEAR, 8);
        write(&mut tpm, OWNER, b"", &[1], 0).unwrap();
        set_attribute(&mut tpm, TpmaNv::WRITE_LOCKED, true);
        assert_eq!(write(&mut tpm, OWNER, b"", &[2], 0), Err(ResponseCode::NV_LOCKED));
        assert_eq!(write(&mut tpm, TpmHandle::PLATFORM, b"", &[2], 0), Err(ResponseCode::NV_LOCKED));
        tpm.init();
        tpm.run(TpmCc::STARTUP, &[], &TpmSu::CLEAR).unwrap();
        assert_eq!(write(&mut tpm, OWNER, b"", &[2], 0), Ok(()));
    }

    #[test]
    fn counters_are_not_written() {
        let mut tpm = defined(OPEN.with_nt(TpmNt::Counter), 8);
        assert_eq!(write(&mut tpm, OWNER, b"", &[0; 8], 0), Err(ResponseCode::ATTRIBUTES));
    }

    #[test]
    fn data_that_lasts_until_a_restart_is_gone_for_good() {
        let mut tpm = defined(OPEN | TpmaNv::CLEAR_ST_CLEAR, 4);
        write(&mut tpm, OWNER, b"", &[1, 2, 3, 4], 0).unwrap();
        tpm.run(TpmCc::SHUTDOWN, &[], &TpmSu::STATE).unwrap();
        tpm.init();
        tpm.run(TpmCc::STARTUP, &[], &TpmSu::CLEAR).unwrap();
        assert_eq!(read(&mut tpm, OWNER, b"", 4, 0), Err(ResponseCode::NV_UNINITIALIZED));
        write(&mut tpm, OWNER, b"", &[9], 1).unwrap();
        assert_eq!(read(&mut tpm, OWNER, b"", 4, 0).unwrap(), [0xff, 9, 0xff, 0xff]);
    }

    #[test]
    fn orderly_data_survives_what_is_no_reset() {
        for attributes in [OPEN, OPEN.with_nt(TpmNt::Ordinary) | TpmaNv::WRITE_DEFINE] {
            let mut tpm = defined(attributes | TpmaNv::ORDERLY, 4);
            write(&mut tpm, OWNER, b"", &[1, 2, 3, 4], 0).unwrap();
            let locked = attributes.has(TpmaNv::WRITE_DEFINE);
            if locked {
                tpm.run_with(TpmCc::NV_WRITE_LOCK, &[OWNER, INDEX], &[b""], &()).map(|_| ()).unwrap();
            }
            for kind in [TpmSu::STATE, TpmSu::CLEAR] {
                boot(&mut tpm, Some(TpmSu::STATE), kind);
                assert_eq!(read(&mut tpm, OWNER, b"", 4, 0).unwrap(), [1, 2, 3, 4]);
                let expected = if locked { Err(ResponseCode::NV_LOCKED) } else { Ok(()) };
                assert_eq!(write(&mut tpm, OWNER, b"", &[1], 0), expected);
            }
            for shutdown in [Some(TpmSu::CLEAR), None] {
                boot(&mut tpm, shutdown, TpmSu::CLEAR);
                assert_eq!(read(&mut tpm, OWNER, b"", 4, 0), Err(ResponseCode::NV_UNINITIALIZED));
                // The lock goes with the data.
                assert_eq!(write(&mut tpm, OWNER, b"", &[9], 1), Ok(()));
                assert_eq!(read(&mut tpm, OWNER, b"", 4, 0).unwrap(), [0, 9, 0, 0]);
            }
        }
    }

    #[test]
    fn what_was_written_after_a_shutdown_is_lost_with_the_shutdown() {
        let mut tpm = defined(OPEN | TpmaNv::ORDERLY, 4);
        write(&mut tpm, OWNER, b"", &[1; 4], 0).unwrap();
        tpm.run(TpmCc::SHUTDOWN, &[], &TpmSu::STATE).unwrap();
        write(&mut tpm, OWNER, b"", &[2; 4], 0).unwrap();
        tpm.init();
        assert_eq!(tpm.run(TpmCc::STARTUP, &[], &TpmSu::STATE), Err(ResponseCode::VALUE.parameter(1)));
        tpm.run(TpmCc::STARTUP, &[], &TpmSu::CLEAR).unwrap();
        assert_eq!(read(&mut tpm, OWNER, b"", 4, 0), Err(ResponseCode::NV_UNINITIALIZED));
        assert_eq!(tpm.state().nv_index(INDEX).unwrap().data.as_slice(), [0; 4]);
    }

    #[test]
    fn a_shutdown_stays_good_when_what_lasts_without_it_changes() {
        let other = public(TpmHandle(INDEX.0 + 1), OPEN | TpmaNv::ORDERLY, 4);
        for (attributes, resumes) in [(OPEN, true), (OPEN | TpmaNv::ORDERLY, false)] {
            let mut tpm = defined(attributes | TpmaNv::WRITE_ST_CLEAR, 4);
            write(&mut tpm, OWNER, b"", &[1; 4], 0).unwrap();
            tpm.run(TpmCc::SHUTDOWN, &[], &TpmSu::STATE).unwrap();
            define(&mut tpm, OWNER, b"", other.clone()).unwrap();
            let undefine = [OWNER, other.nv_index];
            tpm.run_with(TpmCc::NV_UNDEFINE_SPACE, &undefine, &[b""], &()).map(|_| ()).unwrap();
            tpm.run_with(TpmCc::NV_WRITE_LOCK, &[OWNER, INDEX], &[b""], &()).map(|_| ()).unwrap();
            boot(&mut tpm, None, TpmSu::STATE);
            assert_eq!(write(&mut tpm, OWNER, b"", &[2; 4], 0), Err(ResponseCode::NV_LOCKED));
            boot(&mut tpm, Some(TpmSu::STATE), TpmSu::CLEAR);

            tpm.run(TpmCc::SHUTDOWN, &[], &TpmSu::STATE).unwrap();
            write(&mut tpm, OWNER, b"", &[2; 4], 0).unwrap();
            tpm.init();
            assert_eq!(tpm.run(TpmCc::STARTUP, &[], &TpmSu::STATE).is_ok(), resumes);
        }
    }

    #[test]
    fn a_restart_of_the_daemon_is_no_loss_of_power() {
        let mut tpm = defined(OPEN | TpmaNv::ORDERLY, 4);
        write(&mut tpm, OWNER, b"", &[1; 4], 0).unwrap();
        tpm.tpm = crate::tpm::Tpm::from_records(&tpm.tpm.records()).unwrap();
        assert_eq!(read(&mut tpm, OWNER, b"", 4, 0).unwrap(), [1; 4]);
    }

    #[test]
    fn bits_and_digests_that_are_orderly_begin_anew_after_a_reset() {
        for (nt, size) in [(TpmNt::Bits, 8), (TpmNt::Extend, 32)] {
            let mut tpm = defined((OPEN | TpmaNv::ORDERLY).with_nt(nt), size);
            let change = |tpm: &mut TestTpm| {
                let (cc, input) = match nt {
                    TpmNt::Bits => (TpmCc::NV_SET_BITS, 5u64.to_bytes()),
                    _ => (TpmCc::NV_EXTEND, (2u16, 7u16).to_bytes()),
                };
                struct Raw(Vec<u8>);
                impl Encode for Raw {
                    fn encode(&self, out: &mut Vec<u8>) {
                        out.extend_from_slice(&self.0);
                    }
                }
                tpm.run_with(cc, &[OWNER, INDEX], &[b""], &Raw(input)).map(|_| ()).unwrap();
                read(tpm, OWNER, b"", size, 0).unwrap()
            };
            let first = change(&mut tpm);
            for shutdown in [None, Some(TpmSu::CLEAR)] {
                change(&mut tpm);
                boot(&mut tpm, shutdown, TpmSu::CLEAR);
                assert_eq!(read(&mut tpm, OWNER, b"", size, 0), Err(ResponseCode::NV_UNINITIALIZED));
                assert_eq!(change(&mut tpm), first);
            }
        }
    }

    #[test]
    fn a_pin_fails_after_as_many_wrong_tries_as_its_limit() {
        let attributes = (TpmaNv::OWNER_WRITE | TpmaNv::OWNER_READ | TpmaNv::AUTH_READ | TpmaNv::NO_DA)
            .with_nt(TpmNt::PinFail);
        let mut tpm = defined(attributes, 8);
        assert_eq!(read(&mut tpm, INDEX, b"pw", 8, 0), Err(ResponseCode::AUTH_UNAVAILABLE.session(1)));
        write(&mut tpm, OWNER, b"", &(0u32, 2u32).to_bytes(), 0).unwrap();
        assert_eq!(read(&mut tpm, INDEX, b"no", 8, 0), Err(ResponseCode::BAD_AUTH.session(1)));
        assert_eq!(read(&mut tpm, OWNER, b"", 8, 0).unwrap(), (1u32, 2u32).to_bytes());
        assert_eq!(read(&mut tpm, INDEX, b"pw", 8, 0).unwrap(), (0u32, 2u32).to_bytes());
        assert_eq!(read(&mut tpm, INDEX, b"no", 8, 0), Err(ResponseCode::BAD_AUTH.session(1)));
        assert_eq!(read(&mut tpm, INDEX, b"no", 8, 0), Err(ResponseCode::BAD_AUTH.session(1)));
        assert_eq!(read(&mut tpm, INDEX, b"pw", 8, 0), Err(ResponseCode::AUTH_UNAVAILABLE.session(1)));
        write(&mut tpm, OWNER, b"", &0u32.to_be_bytes(), 0).unwrap();
        assert!(read(&mut tpm, INDEX, b"pw", 8, 0).is_ok());
    }

    #[test]
    fn a_pin_passes_as_often_as_its_limit() {
        let attributes =
            (TpmaNv::OWNER_WRITE | TpmaNv::OWNER_READ | TpmaNv::AUTH_READ).with_nt(TpmNt::PinPass);
        let mut tpm = defined(attributes, 8);
        write(&mut tpm, OWNER, b"", &(0u32, 2u32).to_bytes(), 0).unwrap();
        assert_eq!(read(&mut tpm, INDEX, b"pw", 8, 0).unwrap(), (1u32, 2u32).to_bytes());
        assert_eq!(read(&mut tpm, INDEX, b"pw", 8, 0).unwrap(), (2u32, 2u32).to_bytes());
        assert_eq!(read(&mut tpm, INDEX, b"pw", 8, 0), Err(ResponseCode::AUTH_UNAVAILABLE.session(1)));
    }

    #[test]
    fn a_write_that_is_not_durable_did_not_happen() {
        let mut tpm = defined(OPEN, 4);
        tpm.env.fail_commits = true;
        assert_eq!(write(&mut tpm, OWNER, b"", &[1], 0), Err(ResponseCode::NV_UNAVAILABLE));
        tpm.env.fail_commits = false;
        assert_eq!(read(&mut tpm, OWNER, b"", 1, 0), Err(ResponseCode::NV_UNINITIALIZED));
    }
}
