//! `TPM2_Quote` (Part 3, 18.4).

use super::{Signer, attest};
use crate::alg::digest_2b;
use crate::command::{Context, Output, parameters};
use crate::pcr::selection_digest;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Attested, Tpm2bData, TpmlPcrSelection, TpmtSigScheme};

/// Signs the digest of selected PCRs, together with the caller's data, the clock and the Qualified Name of the signing key.
///
/// # Errors
/// Those of [`Signer::new`] and [`attest`]; `TPM_RC_SCHEME` for the null handle, which has no hash to digest PCRs with.
pub fn quote(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (qualifying_data, TpmtSigScheme(requested), selection): (Tpm2bData, _, TpmlPcrSelection) =
        parameters(r)?;
    let signer = Signer::new(cx, 0, requested, 2)?;
    let alg = signer.hash().ok_or(ResponseCode::SCHEME.parameter(2))?;
    let (pcr_select, digest) = selection_digest(cx.state, alg, &selection);
    let attested = Attested::Quote { pcr_select, pcr_digest: digest_2b(&digest) };
    Ok(Output::of(&attest(cx, &signer, qualifying_data, attested)?))
}

#[cfg(test)]
mod tests {
    use crate::alg::hash_alg;
    use crate::command::attestation::FIRMWARE_VERSION;
    use crate::signing::test_keys::*;
    use crate::signing::verify;
    use crate::testing::TestTpm;
    use vtpm_protocol::codec::decode_exact;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::*;

    const ECDSA: Scheme = Scheme::new(TpmAlgId::ECDSA, TpmAlgId::SHA256);

    fn select(pcrs: &[u32]) -> TpmlPcrSelection {
        Tpml(vec![TpmsPcrSelection::of(TpmAlgId::SHA256, pcrs.iter().copied())])
    }

    fn quote(
        tpm: &mut TestTpm,
        key: TpmHandle,
        scheme: Scheme,
        pcrs: &[u32],
    ) -> Result<(TpmsAttest, Tpm2bAttest, TpmtSignature), ResponseCode> {
        let nonce = Tpm2bData::new(b"nonce".to_vec()).unwrap();
        let input = (nonce, TpmtSigScheme(scheme), select(pcrs));
        let (_, out) = tpm.run_with(TpmCc::QUOTE, &[key], &[AUTH], &input)?;
        let (bytes, signature): (Tpm2bAttest, _) = decode_exact(&out).unwrap();
        Ok((decode_exact(&bytes).unwrap(), bytes, signature))
    }

    #[test]
    fn a_quote_carries_the_caller_s_data_the_pcrs_the_clock_and_the_signer() {
        let mut tpm = TestTpm::started();
        tpm.env.now += 1234;
        for key in [
            ecc(ECDSA),
            rsa(Scheme::new(TpmAlgId::RSAPSS, TpmAlgId::SHA512)),
            keyed_hash(Scheme::new(TpmAlgId::HMAC, TpmAlgId::SHA1)),
        ] {
            let key = load(&mut tpm, in_hierarchy(restricted(key), TpmHandle::ENDORSEMENT));
            let (attest, bytes, signature) = quote(&mut tpm, key, Scheme::NULL, &[0, 17]).unwrap();
            let hash = match &signature {
                TpmtSignature::Rsa { hash, .. } | TpmtSignature::Ecc { hash, .. } => *hash,
                TpmtSignature::Hmac(mac) => mac.hash_alg,
                TpmtSignature::Null => panic!("no signature"),
            };
            let alg = hash_alg(hash).unwrap();
            let pcr_digest = alg.digest(&[&[0; 32], &[0xff; 32]]).to_vec();
            let now = tpm.env.now;
            let object = tpm.state().object(key).unwrap().clone();
            assert_eq!(
                attest,
                TpmsAttest {
                    qualified_signer: object.qualified_name.clone(),
                    extra_data: Tpm2bData::new(b"nonce".to_vec()).unwrap(),
                    clock_info: tpm.state().clock_info(now),
                    firmware_version: FIRMWARE_VERSION,
                    attested: Attested::Quote {
                        pcr_select: select(&[0, 17]),
                        pcr_digest: Tpm2bDigest::new(pcr_digest).unwrap(),
                    },
                }
            );
            assert_eq!(attest.clock_info.clock, 1234);
            assert_eq!(bytes[..4], [0xff, b'T', b'C', b'G']);
            let digest = Tpm2bDigest::new(alg.digest(&[&bytes]).to_vec()).unwrap();
            assert_eq!(verify(&object, &digest, &signature), Ok(()));
        }
    }

    #[test]
    fn keys_of_the_owner_see_counts_and_version_shifted_by_an_amount_of_their_own() {
        let mut tpm = TestTpm::started();
        let mut infos = Vec::new();
        for hierarchy in [TpmHandle::OWNER, TpmHandle::NULL, TpmHandle::PLATFORM] {
            let key = load(&mut tpm, in_hierarchy(ecc(ECDSA), hierarchy));
            let attest = quote(&mut tpm, key, Scheme::NULL, &[]).unwrap().0;
            infos.push((key, attest));
        }
        let plain = &infos[2].1;
        assert_eq!((plain.clock_info.reset_count, plain.firmware_version), (1, FIRMWARE_VERSION));
        for (key, shifted) in &infos[..2] {
            assert_eq!(shifted.clock_info.clock, plain.clock_info.clock);
            assert_ne!(shifted.clock_info.reset_count, plain.clock_info.reset_count);
            assert_ne!(shifted.clock_info.restart_count, plain.clock_info.restart_count);
            assert_ne!(shifted.firmware_version, plain.firmware_version);
            // The same amount again: one more reset shows as one more reset.
            tpm.state().permanent_mut().reset_count += 1;
            tpm.resave();
            let later = quote(&mut tpm, *key, Scheme::NULL, &[]).unwrap().0;
            tpm.state().permanent_mut().reset_count -= 1;
            tpm.resave();
            let expected = shifted.clock_info.reset_count.wrapping_add(1);
            assert_eq!(later.clock_info.reset_count, expected);
            assert_eq!(later.firmware_version, shifted.firmware_version);
        }
        assert_ne!(infos[0].1.firmware_version, infos[1].1.firmware_version);
    }

    #[test]
    fn the_caller_s_scheme_serves_a_key_without_one() {
        let mut tpm = TestTpm::started();
        let key = load(&mut tpm, ecc(Scheme::NULL));
        let scheme = Err(ResponseCode::SCHEME.parameter(2));
        assert_eq!(quote(&mut tpm, key, Scheme::NULL, &[]).map(drop), scheme);
        assert_eq!(
            quote(&mut tpm, key, Scheme::new(TpmAlgId::RSASSA, TpmAlgId::SHA256), &[]).map(drop),
            scheme
        );
        let sha384 = Scheme::new(TpmAlgId::ECDSA, TpmAlgId::SHA384);
        let attested = quote(&mut tpm, key, sha384, &[1]).unwrap().0.attested;
        assert!(matches!(attested, Attested::Quote { pcr_digest, .. } if pcr_digest.len() == 48));
    }

    #[test]
    fn what_does_not_sign_does_not_quote() {
        let mut tpm = TestTpm::started();
        let storage = load(&mut tpm, without(ecc(ECDSA), TpmaObject::SIGN_ENCRYPT));
        let cipher = load(&mut tpm, symmetric());
        for key in [storage, cipher] {
            assert_eq!(quote(&mut tpm, key, ECDSA, &[]).map(drop), Err(ResponseCode::KEY.handle(1)));
        }
        let input = (Tpm2bData::empty(), TpmtSigScheme(ECDSA), select(&[0]));
        let result = tpm.run_with(TpmCc::QUOTE, &[TpmHandle::NULL], &[b""], &input);
        assert_eq!(result.map(drop), Err(ResponseCode::SCHEME.parameter(2)));
        let result = tpm.run(TpmCc::QUOTE, &[TpmHandle::NULL], &input);
        assert_eq!(result.map(drop), Err(ResponseCode::AUTH_MISSING));
    }
}
