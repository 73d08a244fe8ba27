//! `TPM2_GetTime` (Part 3, 18.7).

use super::{FIRMWARE_VERSION, Signer, attest};
use crate::command::{Context, Output, parameters};
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Attested, Tpm2bData, TpmtSigScheme};

/// Signs Time, Clock, their counts and the firmware version, in plain whatever the signing key is: the privacy administrator agrees.
///
/// # Errors
/// Those of [`Signer::new`] and [`attest`].
pub fn get_time(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (qualifying_data, TpmtSigScheme(requested)): (Tpm2bData, _) = parameters(r)?;
    let signer = Signer::new(cx, 1, requested, 2)?;
    let attested = Attested::Time { time: cx.state.time_info(cx.now), firmware_version: FIRMWARE_VERSION };
    Ok(Output::of(&attest(cx, &signer, qualifying_data, attested)?))
}

#[cfg(test)]
mod tests {
    use crate::command::attestation::FIRMWARE_VERSION;
    use crate::command::attestation::testing::*;
    use crate::signing::test_keys::*;
    use crate::testing::TestTpm;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::*;

    const ADMIN: TpmHandle = TpmHandle::ENDORSEMENT;

    fn time(
        tpm: &mut TestTpm,
        handles: [TpmHandle; 2],
        passwords: &[&[u8]],
    ) -> Result<Attestation, ResponseCode> {
        let input = (nonce(), TpmtSigScheme(Scheme::NULL));
        attestation(tpm, TpmCc::GET_TIME, &handles, passwords, &input)
    }

    #[test]
    fn the_time_is_in_plain_beside_the_clock_that_is_not() {
        let mut tpm = TestTpm::started();
        tpm.env.now += 4321;
        for hierarchy in [TpmHandle::OWNER, TpmHandle::ENDORSEMENT] {
            let key = load(&mut tpm, in_hierarchy(ecc(ECDSA), hierarchy));
            let out = time(&mut tpm, [ADMIN, key], &[b"", AUTH]).unwrap();
            out.check(&mut tpm, key, &nonce());
            let now = tpm.env.now;
            let time = tpm.state().time_info(now);
            assert_eq!((time.time, time.clock_info.reset_count), (4321, 1));
            assert_eq!(out.attest.attested, Attested::Time { time, firmware_version: FIRMWARE_VERSION });
        }
    }

    #[test]
    fn the_privacy_administrator_must_agree() {
        let mut tpm = TestTpm::started();
        let key = load(&mut tpm, ecc(ECDSA));
        assert!(time(&mut tpm, [ADMIN, TpmHandle::NULL], &[b"", b""]).is_ok());
        let wrong = time(&mut tpm, [ADMIN, key], &[b"no", AUTH]).map(drop);
        assert_eq!(wrong, Err(ResponseCode::BAD_AUTH.session(1)));
        let alone = time(&mut tpm, [ADMIN, key], &[b""]).map(drop);
        assert_eq!(alone, Err(ResponseCode::AUTH_MISSING));
        let owner = time(&mut tpm, [TpmHandle::OWNER, key], &[b"", AUTH]).map(drop);
        assert_eq!(owner, Err(ResponseCode::VALUE.handle(1)));
    }

    #[test]
    fn keys_that_do_not_sign_and_schemes_that_do_not_fit_are_refused() {
        let mut tpm = TestTpm::started();
        let storage = load(&mut tpm, without(ecc(Scheme::NULL), TpmaObject::SIGN_ENCRYPT));
        let rc = time(&mut tpm, [ADMIN, storage], &[b"", AUTH]).map(drop);
        assert_eq!(rc, Err(ResponseCode::KEY.handle(2)));
        let no_scheme = load(&mut tpm, rsa(Scheme::NULL));
        let rc = time(&mut tpm, [ADMIN, no_scheme], &[b"", AUTH]).map(drop);
        assert_eq!(rc, Err(ResponseCode::SCHEME.parameter(2)));
    }
}
