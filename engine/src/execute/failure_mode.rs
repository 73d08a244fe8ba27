//! Failure mode (Part 3, 10.1): what the TPM still answers when its cryptography does not work.

use super::header;
use crate::command::capability::failure_properties;
use vtpm_protocol::codec::{Decode, Encode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{
    HEADER_SIZE, Tpm2bMaxBuffer, TpmCap, TpmCc, TpmPt, TpmSt, TpmsCapabilityData, TpmsTaggedProperty,
};

/// The response to `TPM2_GetTestResult`, and to `TPM2_GetCapability` where it asks who made the TPM; both without sessions. Nothing else is
/// answered, not even that a command is malformed.
///
/// # Errors
/// `TPM_RC_FAILURE` for everything else.
pub fn response(bytes: &[u8]) -> Result<Vec<u8>, ResponseCode> {
    let parameters = match header(bytes) {
        Ok((TpmSt::NO_SESSIONS, TpmCc::GET_TEST_RESULT, r)) if r.is_empty() => test_result(),
        Ok((TpmSt::NO_SESSIONS, TpmCc::GET_CAPABILITY, r)) => capability(r)?,
        _ => return Err(ResponseCode::FAILURE),
    };
    let size = u32::try_from(parameters.len().saturating_add(HEADER_SIZE)).unwrap_or(u32::MAX);
    let mut response = (TpmSt::NO_SESSIONS, size, ResponseCode::SUCCESS.value()).to_bytes();
    response.extend_from_slice(&parameters);
    Ok(response)
}

fn test_result() -> Vec<u8> {
    (Tpm2bMaxBuffer::empty(), ResponseCode::FAILURE.value()).to_bytes()
}

/// At most one property, from manufacturer to firmware version.
fn capability(mut r: Reader<'_>) -> Result<Vec<u8>, ResponseCode> {
    let (capability, first, count) =
        <(TpmCap, TpmPt, u32)>::decode(&mut r).map_err(|_| ResponseCode::FAILURE)?;
    if capability != TpmCap::TPM_PROPERTIES || !r.is_empty() {
        return Err(ResponseCode::FAILURE);
    }
    let mut rest = failure_properties().into_iter().filter(|p| p.0 >= first).peekable();
    let told: Vec<TpmsTaggedProperty> = rest
        .by_ref()
        .take(usize::from(count != 0))
        .map(|(property, value)| TpmsTaggedProperty { property, value })
        .collect();
    let more = rest.peek().is_some();
    Ok((more, TpmsCapabilityData::TpmProperties(told)).to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::SelfTest;
    use crate::testing::{TestTpm, code, command_bytes};

    fn failed() -> TestTpm {
        let mut tpm = TestTpm::started();
        tpm.state().volatile_mut().self_test = SelfTest::Failed;
        tpm.resave();
        tpm
    }

    fn ask(tpm: &mut TestTpm, first: u32, count: u32) -> (bool, Vec<TpmsTaggedProperty>) {
        let out = tpm.run(TpmCc::GET_CAPABILITY, &[], &(TpmCap::TPM_PROPERTIES, first, count)).unwrap();
        let mut r = Reader::new(&out);
        let (more, cap): (bool, TpmCap) = Decode::decode(&mut r).unwrap();
        assert_eq!(cap, TpmCap::TPM_PROPERTIES);
        let list: vtpm_protocol::tpm::Tpml<TpmsTaggedProperty, 4> = Decode::decode(&mut r).unwrap();
        assert!(r.is_empty());
        (more, list.0)
    }

    #[test]
    fn it_tells_who_made_the_tpm_one_property_at_a_time() {
        let mut tpm = failed();
        let mut told = Vec::new();
        let mut next = 0;
        loop {
            let (more, list) = ask(&mut tpm, next, 100);
            assert_eq!(list.len(), 1);
            next = list[0].property.0 + 1;
            told.push(list[0].property);
            if !more {
                break;
            }
        }
        let expected: Vec<TpmPt> = (TpmPt::MANUFACTURER.0..=TpmPt::FIRMWARE_VERSION_2.0).map(TpmPt).collect();
        assert_eq!(told, expected);
        assert_eq!(ask(&mut tpm, 0, 0), (true, vec![]));
        assert_eq!(ask(&mut tpm, TpmPt::INPUT_BUFFER.0, 1), (false, vec![]));
        // As it does when it works.
        let (_, list) = ask(&mut tpm, TpmPt::MANUFACTURER.0, 1);
        let mut working = TestTpm::started();
        assert_eq!(ask(&mut working, TpmPt::MANUFACTURER.0, 1).1, list);
    }

    #[test]
    fn it_tells_that_it_failed() {
        let out = failed().run(TpmCc::GET_TEST_RESULT, &[], &()).unwrap();
        assert_eq!(out, (0u16, ResponseCode::FAILURE.value()).to_bytes());
    }

    #[test]
    fn everything_else_fails_malformed_or_not() {
        let mut tpm = failed();
        let properties = (TpmCap::TPM_PROPERTIES, TpmPt::MANUFACTURER, 1u32).to_bytes();
        let good = command_bytes(TpmCc::GET_CAPABILITY, &[], &[], &properties);
        assert_eq!(code(&tpm.raw(&good)), ResponseCode::SUCCESS);
        for length in 0..good.len() {
            assert_eq!(tpm.rc(&good[..length]), ResponseCode::FAILURE, "{length}");
        }
        let algs = (TpmCap::ALGS, 0u32, 1u32).to_bytes();
        for other in [
            command_bytes(TpmCc::GET_CAPABILITY, &[], &[], &algs),
            command_bytes(TpmCc::GET_CAPABILITY, &[], &[], &[properties.as_slice(), &[0]].concat()),
            command_bytes(TpmCc::GET_CAPABILITY, &[], &[], &properties[..11]),
            command_bytes(TpmCc::GET_TEST_RESULT, &[], &[], &[0]),
            command_bytes(TpmCc::READ_CLOCK, &[], &[], &[]),
            command_bytes(TpmCc(0xffff), &[], &[], &[]),
            [&[0xff, 0xff], &good[2..]].concat(),
        ] {
            assert_eq!(tpm.rc(&other), ResponseCode::FAILURE, "{other:02x?}");
        }
    }
}
