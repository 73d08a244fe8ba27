//! `TPM2_GetSessionAuditDigest` (Part 3, 18.5).

use super::{Signer, attest};
use crate::command::{Context, Output, parameters};
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Attested, Tpm2bData, TpmtSigScheme};

/// Signs the audit digest of a session, and whether it is the exclusive audit session.
///
/// # Errors
/// Those of [`Signer::new`] and [`attest`]; `TPM_RC_TYPE` for a session that has not audited anything.
pub fn get_session_audit_digest(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (qualifying_data, TpmtSigScheme(requested)): (Tpm2bData, _) = parameters(r)?;
    let signer = Signer::new(cx, 1, requested, 2)?;
    let handle = cx.handle(2)?;
    let session = cx.state.session(handle)?;
    if !session.flags.is_audit {
        return Err(ResponseCode::TYPE.handle(3));
    }
    let attested = Attested::SessionAudit {
        exclusive_session: cx.state.volatile.exclusive_audit_session == handle,
        session_digest: session.audit_digest.clone(),
    };
    Ok(Output::of(&attest(cx, &signer, qualifying_data, attested)?))
}

#[cfg(test)]
mod tests {
    use crate::command::attestation::testing::*;
    use crate::crypto::HashAlg;
    use crate::signing::test_keys::*;
    use crate::testing::objects::start_policy;
    use crate::testing::{TestTpm, command_bytes};
    use vtpm_protocol::codec::Encode;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::*;

    const ADMIN: TpmHandle = TpmHandle::ENDORSEMENT;

    fn session(tpm: &mut TestTpm) -> TpmHandle {
        let nonce = Tpm2bNonce::new(vec![7; 16]).unwrap();
        let input = (nonce, 0u16, TpmSe::HMAC, TpmAlgId::NULL, TpmAlgId::SHA256);
        let out = tpm.run(TpmCc::START_AUTH_SESSION, &[TpmHandle::NULL; 2], &input).unwrap();
        TpmHandle(u32::from_be_bytes(out[..4].try_into().unwrap()))
    }

    /// Reads the clock in an audit session without a key, whose HMACs are empty; returns the parameters of the response.
    fn audited_read_clock(tpm: &mut TestTpm, session: TpmHandle, attributes: TpmaSession) -> Vec<u8> {
        let area = (session, 0u16, attributes, 0u16).to_bytes();
        let response = tpm.ok(&command_bytes(TpmCc::READ_CLOCK, &[], &area, &[]));
        let size = u32::from_be_bytes(response[10..14].try_into().unwrap()) as usize;
        response[14..14 + size].to_vec()
    }

    fn digest(tpm: &mut TestTpm, key: TpmHandle, session: TpmHandle) -> Result<Attestation, ResponseCode> {
        let input = (nonce(), TpmtSigScheme(Scheme::NULL));
        let auth = if key == TpmHandle::NULL { b"".as_slice() } else { AUTH };
        let handles = [ADMIN, key, session];
        attestation(tpm, TpmCc::GET_SESSION_AUDIT_DIGEST, &handles, &[b"", auth], &input)
    }

    const AUDIT: TpmaSession = TpmaSession(TpmaSession::AUDIT.0 | TpmaSession::CONTINUE_SESSION.0);

    #[test]
    fn the_digest_is_that_of_the_commands_in_the_session() {
        let mut tpm = TestTpm::started();
        let key = load(&mut tpm, in_hierarchy(ecc(ECDSA), ADMIN));
        let session = session(&mut tpm);
        let mut expected = vec![0; 32];
        for n in 0..3 {
            let parameters = audited_read_clock(&mut tpm, session, AUDIT);
            let cp = HashAlg::Sha256.digest(&[&TpmCc::READ_CLOCK.to_bytes()]);
            let rp = HashAlg::Sha256.digest(&[&[0; 4], &TpmCc::READ_CLOCK.to_bytes(), &parameters]);
            expected = HashAlg::Sha256.digest(&[&expected, &cp, &rp]).to_vec();
            let out = digest(&mut tpm, key, session).unwrap();
            out.check(&mut tpm, key, &nonce());
            let session_digest = Tpm2bDigest::new(expected.clone()).unwrap();
            // The command before this one was in the session, unless it was the report of the digest before.
            let exclusive_session = n == 0;
            assert_eq!(out.attest.attested, Attested::SessionAudit { exclusive_session, session_digest });
        }
    }

    #[test]
    fn a_session_that_does_not_audit_has_no_digest() {
        let mut tpm = TestTpm::started();
        let key = load(&mut tpm, ecc(ECDSA));
        let session = session(&mut tpm);
        let rc = digest(&mut tpm, key, session).map(drop);
        assert_eq!(rc, Err(ResponseCode::TYPE.handle(3)));
        let policy = start_policy(&mut tpm, TpmSe::POLICY);
        assert_eq!(digest(&mut tpm, key, policy).map(drop), Err(ResponseCode::VALUE.handle(3)));
        let gone = TpmHandle(0x0200_0002);
        assert_eq!(digest(&mut tpm, key, gone).map(drop), Err(ResponseCode::REFERENCE_H2));
        let none = TpmHandle(0x0200_1000);
        assert_eq!(digest(&mut tpm, key, none).map(drop), Err(ResponseCode::VALUE.handle(3)));
    }

    #[test]
    fn signer_scheme_and_privacy_administrator_are_checked() {
        let mut tpm = TestTpm::started();
        let session = session(&mut tpm);
        audited_read_clock(&mut tpm, session, AUDIT);
        let out = digest(&mut tpm, TpmHandle::NULL, session).unwrap();
        assert_eq!(out.signature, TpmtSignature::Null);
        let storage = load(&mut tpm, without(ecc(Scheme::NULL), TpmaObject::SIGN_ENCRYPT));
        assert_eq!(digest(&mut tpm, storage, session).map(drop), Err(ResponseCode::KEY.handle(2)));
        let no_scheme = load(&mut tpm, rsa(Scheme::NULL));
        let rc = digest(&mut tpm, no_scheme, session).map(drop);
        assert_eq!(rc, Err(ResponseCode::SCHEME.parameter(2)));
        let input = (nonce(), TpmtSigScheme(ECDSA));
        let mut run = |handles: [TpmHandle; 3], passwords: &[&[u8]]| {
            tpm.run_with(TpmCc::GET_SESSION_AUDIT_DIGEST, &handles, passwords, &input).map(drop)
        };
        assert_eq!(run([ADMIN, no_scheme, session], &[b""]), Err(ResponseCode::AUTH_MISSING));
        let wrong = run([ADMIN, no_scheme, session], &[b"no", AUTH]);
        assert_eq!(wrong, Err(ResponseCode::BAD_AUTH.session(1)));
        let platform = run([TpmHandle::PLATFORM, no_scheme, session], &[b"", AUTH]);
        assert_eq!(platform, Err(ResponseCode::VALUE.handle(1)));
    }
}
