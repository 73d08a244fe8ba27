//! `TPM2_GetCommandAuditDigest` (Part 3, 18.6).

use super::{Signer, attest};
use crate::alg::{digest_2b, hash_of};
use crate::command::{Context, Output, parameters};
use vtpm_protocol::codec::{Encode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Attested, Tpm2bData, Tpm2bDigest, TpmtSigScheme};

/// Signs the command audit digest, its counter, and the digest of the codes of the audited commands. Once it is signed, the next audited
/// command begins a new digest.
///
/// # Errors
/// Those of [`Signer::new`] and [`attest`].
pub fn get_command_audit_digest(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (qualifying_data, TpmtSigScheme(requested)): (Tpm2bData, _) = parameters(r)?;
    let signer = Signer::new(cx, 1, requested, 2)?;
    let audit = &cx.state.permanent.command_audit;
    let codes: Vec<u8> = audit.commands.0.iter().flat_map(Encode::to_bytes).collect();
    let attested = Attested::CommandAudit {
        audit_counter: audit.counter,
        digest_alg: audit.alg.0,
        audit_digest: cx.state.volatile.state_reset.command_audit_digest.clone(),
        command_digest: digest_2b(&hash_of(audit.alg).digest(&[&codes])),
    };
    let output = attest(cx, &signer, qualifying_data, attested)?;
    if !signer.is_null() {
        cx.state.volatile_mut().state_reset.command_audit_digest = Tpm2bDigest::empty();
    }
    Ok(Output::of(&output))
}

#[cfg(test)]
mod tests {
    use crate::command::attestation::testing::*;
    use crate::crypto::HashAlg;
    use crate::signing::test_keys::*;
    use crate::testing::{TestTpm, command_bytes};
    use vtpm_protocol::codec::Encode;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::*;

    const ADMIN: TpmHandle = TpmHandle::ENDORSEMENT;
    const SET: TpmCc = TpmCc::SET_COMMAND_CODE_AUDIT_STATUS;

    struct Bench {
        tpm: TestTpm,
        key: TpmHandle,
    }

    impl Bench {
        fn new() -> Self {
            let mut tpm = TestTpm::started();
            let key = load(&mut tpm, ecc(ECDSA));
            Self { tpm, key }
        }

        fn report_to(&mut self, key: TpmHandle) -> Result<Attestation, ResponseCode> {
            let input = (nonce(), TpmtSigScheme(Scheme::NULL));
            let auth = if key == TpmHandle::NULL { b"".as_slice() } else { AUTH };
            attestation(&mut self.tpm, TpmCc::GET_COMMAND_AUDIT_DIGEST, &[ADMIN, key], &[b"", auth], &input)
        }

        /// Counter and digest.
        fn report(&mut self, key: TpmHandle) -> (u64, Vec<u8>) {
            match self.report_to(key).unwrap().attest.attested {
                Attested::CommandAudit { audit_counter, audit_digest, .. } => {
                    (audit_counter, audit_digest.to_vec())
                }
                other => panic!("{other:?}"),
            }
        }

        /// Parameters of the command.
        fn set(&mut self, alg: TpmAlgId, set: &[TpmCc]) -> Vec<u8> {
            let parameters = (alg, Tpml::<_, 254>(set.to_vec()), 0u32).to_bytes();
            self.tpm.run_with(SET, &[TpmHandle::OWNER], &[b""], &Raw(&parameters)).unwrap();
            parameters
        }
    }

    struct Raw<'a>(&'a [u8]);
    impl Encode for Raw<'_> {
        fn encode(&self, out: &mut Vec<u8>) {
            out.extend_from_slice(self.0);
        }
    }

    /// `digestNew = H(digestOld || cpHash || rpHash)`.
    fn extend(
        alg: HashAlg,
        old: &[u8],
        code: TpmCc,
        names: &[u8],
        parameters: &[u8],
        response: &[u8],
    ) -> Vec<u8> {
        let cp = alg.digest(&[&code.to_bytes(), names, parameters]);
        let rp = alg.digest(&[&[0; 4], &code.to_bytes(), response]);
        alg.digest(&[old, &cp, &rp]).to_vec()
    }

    #[test]
    fn the_digest_holds_audited_commands_and_their_responses() {
        let mut b = Bench::new();
        assert_eq!(b.report(b.key), (0, vec![]), "nothing was audited");
        let owner = TpmHandle::OWNER.to_bytes();
        let sha512 = HashAlg::Sha512;
        let parameters = b.set(TpmAlgId::NULL, &[TpmCc::READ_CLOCK, TpmCc::GET_RANDOM]);
        let mut expected = extend(sha512, &[0; 64], SET, &owner, &parameters, &[]);
        let clock = b.tpm.run(TpmCc::READ_CLOCK, &[], &()).unwrap();
        expected = extend(sha512, &expected, TpmCc::READ_CLOCK, &[], &[], &clock);
        let random = b.tpm.run(TpmCc::GET_RANDOM, &[], &8u16).unwrap();
        expected = extend(sha512, &expected, TpmCc::GET_RANDOM, &[], &[0, 8], &random);
        // Neither a command that is not audited counts, nor one that fails.
        b.tpm.run(TpmCc::STIR_RANDOM, &[], &0u16).unwrap();
        assert!(b.tpm.run(TpmCc::GET_RANDOM, &[], &()).is_err());

        let out = b.report_to(b.key).unwrap();
        let key = b.key;
        out.check(&mut b.tpm, key, &nonce());
        let codes: Vec<u8> =
            [SET, TpmCc::GET_RANDOM, TpmCc::READ_CLOCK].iter().flat_map(Encode::to_bytes).collect();
        let digest = |d: &[u8]| Tpm2bDigest::new(d).unwrap();
        let expected = Attested::CommandAudit {
            audit_counter: 1,
            digest_alg: TpmAlgId::SHA512,
            audit_digest: digest(&expected),
            command_digest: digest(&sha512.digest(&[&codes])),
        };
        assert_eq!(out.attest.attested, expected);
    }

    #[test]
    fn a_signed_report_begins_a_new_digest_and_an_unsigned_one_does_not() {
        let mut b = Bench::new();
        b.set(TpmAlgId::NULL, &[TpmCc::READ_CLOCK]);
        let first = b.report(TpmHandle::NULL);
        assert_eq!((first.0, first.1.len()), (1, 64));
        assert_eq!(b.report(TpmHandle::NULL), first);
        assert_eq!(b.report(b.key), first);
        assert_eq!(b.report(b.key), (1, vec![]));
        let clock = b.tpm.run(TpmCc::READ_CLOCK, &[], &()).unwrap();
        let new = extend(HashAlg::Sha512, &[0; 64], TpmCc::READ_CLOCK, &[], &[], &clock);
        assert_eq!(b.report(b.key), (2, new));
    }

    #[test]
    fn the_report_is_audited_after_it_has_begun_a_new_digest() {
        let mut b = Bench::new();
        let code = TpmCc::GET_COMMAND_AUDIT_DIGEST;
        b.set(TpmAlgId::NULL, &[code]);
        let input = (nonce(), TpmtSigScheme(Scheme::NULL));
        let handles = [ADMIN, b.key];
        let (_, response) = b.tpm.run_with(code, &handles, &[b"", AUTH], &input).unwrap();
        let names = [ADMIN.to_bytes(), b.tpm.state().name(b.key).unwrap().to_vec()].concat();
        let digest = extend(HashAlg::Sha512, &[0; 64], code, &names, &input.to_bytes(), &response);
        assert_eq!(b.report(TpmHandle::NULL), (2, digest));
    }

    #[test]
    fn another_hash_ends_the_digest_without_being_in_the_next() {
        let mut b = Bench::new();
        b.set(TpmAlgId::NULL, &[TpmCc::READ_CLOCK]);
        b.set(TpmAlgId::SHA256, &[]);
        assert_eq!(b.report(TpmHandle::NULL), (1, vec![]));
        let clock = b.tpm.run(TpmCc::READ_CLOCK, &[], &()).unwrap();
        let new = extend(HashAlg::Sha256, &[0; 32], TpmCc::READ_CLOCK, &[], &[], &clock);
        assert_eq!(b.report(b.key), (2, new));
    }

    #[test]
    fn the_digest_ends_with_a_reset_and_survives_restart_resume_and_clear() {
        let mut b = Bench::new();
        b.set(TpmAlgId::NULL, &[TpmCc::READ_CLOCK]);
        let first = b.report(TpmHandle::NULL);
        b.tpm.run_with(TpmCc::CLEAR, &[TpmHandle::PLATFORM], &[b""], &()).unwrap();
        // But the counter begins anew.
        let first = (first.0 - 1, first.1);
        assert_eq!(b.report(TpmHandle::NULL), first);
        for kind in [TpmSu::STATE, TpmSu::CLEAR] {
            b.tpm.run(TpmCc::SHUTDOWN, &[], &TpmSu::STATE).unwrap();
            b.tpm.init();
            b.tpm.run(TpmCc::STARTUP, &[], &kind).unwrap();
            assert_eq!(b.report(TpmHandle::NULL), first, "{kind:?}");
        }
        b.tpm.init();
        b.tpm.run(TpmCc::STARTUP, &[], &TpmSu::CLEAR).unwrap();
        assert_eq!(b.report(TpmHandle::NULL), (first.0, vec![]));
        b.tpm.run(TpmCc::READ_CLOCK, &[], &()).unwrap();
        assert_eq!(b.report(TpmHandle::NULL).0, first.0 + 1);
    }

    #[test]
    fn the_counter_is_a_property() {
        let mut b = Bench::new();
        b.tpm.state().permanent_mut().command_audit.counter = 0x1_0000_0001;
        b.tpm.resave();
        b.set(TpmAlgId::NULL, &[]);
        let input = (TpmCap::TPM_PROPERTIES, TpmPt::AUDIT_COUNTER_0, 2u32);
        let out = b.tpm.run(TpmCc::GET_CAPABILITY, &[], &input).unwrap();
        assert_eq!(out[9..], [0, 0, 2, 0x13, 0, 0, 0, 1, 0, 0, 2, 0x14, 0, 0, 0, 2]);
    }

    #[test]
    fn encrypted_parameters_are_audited_as_they_travel() {
        let mut b = Bench::new();
        b.set(TpmAlgId::NULL, &[TpmCc::GET_RANDOM]);
        b.report(b.key);
        let symmetric = TpmtSymDef::Aes { key_bits: 128, mode: TpmAlgId::CFB };
        let nonce = Tpm2bNonce::new(vec![7; 16]).unwrap();
        let input = (&nonce, 0u16, TpmSe::HMAC, symmetric, TpmAlgId::SHA256);
        b.tpm.run(TpmCc::START_AUTH_SESSION, &[TpmHandle::NULL; 2], &input).unwrap();
        let attributes = TpmaSession::ENCRYPT | TpmaSession::CONTINUE_SESSION;
        let area = (TpmHandle(0x0200_0000), 0u16, attributes, 0u16).to_bytes();
        let response = b.tpm.ok(&command_bytes(TpmCc::GET_RANDOM, &[], &area, &[0, 8]));
        let digest = extend(HashAlg::Sha512, &[0; 64], TpmCc::GET_RANDOM, &[], &[0, 8], &response[14..24]);
        assert_eq!(b.report(b.key), (2, digest));
    }

    #[test]
    fn keys_that_do_not_sign_and_schemes_that_do_not_fit_are_refused() {
        let mut b = Bench::new();
        let storage = load(&mut b.tpm, without(ecc(Scheme::NULL), TpmaObject::SIGN_ENCRYPT));
        assert_eq!(b.report_to(storage).map(drop), Err(ResponseCode::KEY.handle(2)));
        let no_scheme = load(&mut b.tpm, rsa(Scheme::NULL));
        assert_eq!(b.report_to(no_scheme).map(drop), Err(ResponseCode::SCHEME.parameter(2)));
        let input = (nonce(), TpmtSigScheme(ECDSA));
        let handles = [ADMIN, b.key];
        let rc = b.tpm.run_with(TpmCc::GET_COMMAND_AUDIT_DIGEST, &handles, &[b"no", AUTH], &input);
        assert_eq!(rc.map(drop), Err(ResponseCode::BAD_AUTH.session(1)));
    }
}
