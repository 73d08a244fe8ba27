//! `TPM2_Hash` (Part 3, 15.4).

use crate::alg::{digest_2b, hash_of};
use crate::command::{Context, Output, parameters};
use crate::ticket;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{
    TPM_GENERATED, Tpm2bMaxBuffer, TpmHandle, TpmSt, TpmiAlgHash, TpmiRhHierarchy, TpmtTk,
};

/// Hashes data, and proves with a ticket that the digest can be signed by a restricted key. The ticket is a NULL ticket for the null
/// hierarchy and for data that could pass for a structure of the TPM.
///
/// # Errors
/// Those of the parameters.
pub fn hash(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (data, alg, hierarchy): (Tpm2bMaxBuffer, TpmiAlgHash, TpmiRhHierarchy) = parameters(r)?;
    let digest = hash_of(alg).digest(&[&data]);
    // Here the data is complete, so that less than the magic is as safe as anything else.
    let is_safe = !data.starts_with(&TPM_GENERATED.to_be_bytes());
    let validation = if hierarchy.0 == TpmHandle::NULL || !is_safe {
        TpmtTk::null(TpmSt::HASHCHECK)
    } else {
        ticket::hash_check(cx.state, hierarchy.0, alg.0, &digest)
    };
    Ok(Output::of(&(digest_2b(&digest), validation)))
}

#[cfg(test)]
mod tests {
    use crate::crypto::HashAlg;
    use crate::testing::TestTpm;
    use crate::ticket;
    use vtpm_protocol::codec::decode_exact;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{Tpm2bDigest, Tpm2bMaxBuffer, TpmAlgId, TpmCc, TpmHandle, TpmSt, TpmtTk};

    fn hash(
        tpm: &mut TestTpm,
        data: &[u8],
        hierarchy: TpmHandle,
    ) -> Result<(Tpm2bDigest, TpmtTk), ResponseCode> {
        let parameters = (Tpm2bMaxBuffer::new(data).unwrap(), TpmAlgId::SHA384, hierarchy);
        tpm.run(TpmCc::HASH, &[], &parameters).map(|out| decode_exact(&out).unwrap())
    }

    #[test]
    fn the_ticket_is_that_of_the_digest() {
        let mut tpm = TestTpm::started();
        for data in [&b""[..], b"abc", b"abcd", &[7; 1024]] {
            let (digest, validation) = hash(&mut tpm, data, TpmHandle::OWNER).unwrap();
            assert_eq!(digest.as_slice(), HashAlg::Sha384.digest(&[data]).as_slice());
            let expected = ticket::hash_check(tpm.state(), TpmHandle::OWNER, TpmAlgId::SHA384, &digest);
            assert!(ticket::is_same(&validation, &expected) && !validation.is_null());
        }
    }

    #[test]
    fn data_that_looks_like_a_structure_of_the_tpm_gets_no_ticket() {
        let mut tpm = TestTpm::started();
        for data in [&b"\xffTCG"[..], b"\xffTCG\x80\x18"] {
            let (digest, validation) = hash(&mut tpm, data, TpmHandle::OWNER).unwrap();
            assert_eq!(digest.len(), 48);
            assert_eq!(validation, TpmtTk::null(TpmSt::HASHCHECK));
        }
        let (_, validation) = hash(&mut tpm, b"\xffTC", TpmHandle::OWNER).unwrap();
        assert!(!validation.is_null());
        let (_, validation) = hash(&mut tpm, b"abc", TpmHandle::NULL).unwrap();
        assert_eq!(validation, TpmtTk::null(TpmSt::HASHCHECK));
    }

    #[test]
    fn refuses_more_than_a_buffer_other_hashes_and_other_hierarchies() {
        let mut tpm = TestTpm::started();
        for size in [1025u16, u16::MAX] {
            assert_eq!(tpm.run(TpmCc::HASH, &[], &size).unwrap_err(), ResponseCode::SIZE.parameter(1));
        }
        let rc = tpm.run(TpmCc::HASH, &[], &(0u16, TpmAlgId::NULL, TpmHandle::OWNER)).unwrap_err();
        assert_eq!(rc, ResponseCode::HASH.parameter(2));
        assert_eq!(hash(&mut tpm, b"", TpmHandle::LOCKOUT), Err(ResponseCode::VALUE.parameter(3)));
    }
}
