//! `TPM2_PCR_Event` (Part 3, 22.3).

use crate::alg::{hash_alg, hash_id};
use crate::command::{Context, Output, parameters};
use crate::crypto::HashAlg;
use crate::pcr;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{PCR_BANK_ALGS, Tpm2bEvent, TpmHandle, Tpml, TpmlDigestValues, TpmtHa};

/// Hashes data with every hash algorithm, extends the PCR in every allocated bank with the digest, and returns the digests. With the null
/// handle nothing is extended.
///
/// # Errors
/// `TPM_RC_LOCALITY` when the locality of the command may not extend the PCR; those of the parameters.
pub fn pcr_event(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (data,): (Tpm2bEvent,) = parameters(r)?;
    let pcr = cx.handle(0)?;
    if pcr != TpmHandle::NULL {
        pcr::check_extend(pcr, cx.locality)?;
    }
    let digest = |alg: HashAlg| TpmtHa { hash_alg: hash_id(alg), digest: alg.digest(&[&data]).to_vec() };
    let digests: TpmlDigestValues =
        Tpml(PCR_BANK_ALGS.iter().filter_map(|&id| hash_alg(id)).map(digest).collect());
    if pcr != TpmHandle::NULL {
        for entry in &digests.0 {
            cx.state.extend_pcr(pcr, entry.hash_alg, &entry.digest);
        }
    }
    Ok(Output::of(&digests))
}

#[cfg(test)]
mod tests {
    use crate::crypto::HashAlg;
    use crate::testing::TestTpm;
    use vtpm_protocol::codec::decode_exact;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{Tpm2bEvent, TpmAlgId, TpmCc, TpmHandle, TpmlDigestValues};

    #[test]
    fn hashes_with_every_algorithm_and_extends_every_bank() {
        let mut tpm = TestTpm::started();
        let counter = tpm.state().volatile.state_reset.pcr_counter;
        let data = Tpm2bEvent::new(*b"event").unwrap();
        let (_, out) = tpm.run_with(TpmCc::PCR_EVENT, &[TpmHandle(5)], &[b""], &data).unwrap();
        let digests: TpmlDigestValues = decode_exact(&out).unwrap();
        let algs: Vec<TpmAlgId> = digests.0.iter().map(|d| d.hash_alg).collect();
        assert_eq!(algs, [TpmAlgId::SHA1, TpmAlgId::SHA256, TpmAlgId::SHA384, TpmAlgId::SHA512]);
        assert_eq!(digests.0[3].digest, HashAlg::Sha512.digest(&[b"event"]).as_slice());
        let expected = HashAlg::Sha512.digest(&[&[0; 64], &digests.0[3].digest]);
        assert_eq!(
            tpm.state().volatile.pcrs.get(TpmAlgId::SHA512, 5).unwrap().as_slice(),
            expected.as_slice()
        );
        assert_eq!(tpm.state().volatile.state_reset.pcr_counter, counter + 4);
    }

    #[test]
    fn the_null_handle_only_hashes() {
        let mut tpm = TestTpm::started();
        let commits = tpm.env.commits;
        let (_, out) =
            tpm.run_with(TpmCc::PCR_EVENT, &[TpmHandle::NULL], &[b""], &Tpm2bEvent::empty()).unwrap();
        let digests: TpmlDigestValues = decode_exact(&out).unwrap();
        assert_eq!(digests.0[0].digest, HashAlg::Sha1.digest(&[]).as_slice());
        assert_eq!(tpm.env.commits, commits);
    }

    #[test]
    fn takes_1024_bytes_and_no_more() {
        let mut tpm = TestTpm::started();
        let data = Tpm2bEvent::new(vec![1; 1024]).unwrap();
        assert!(tpm.run_with(TpmCc::PCR_EVENT, &[TpmHandle(0)], &[b""], &data).is_ok());
        for size in [1025u16, u16::MAX] {
            let rc = tpm.run_with(TpmCc::PCR_EVENT, &[TpmHandle(0)], &[b""], &size).unwrap_err();
            assert_eq!(rc, ResponseCode::SIZE.parameter(1));
        }
    }

    #[test]
    fn a_pcr_of_another_locality_is_refused() {
        let mut tpm = TestTpm::started();
        let rc = tpm.run_with(TpmCc::PCR_EVENT, &[TpmHandle(17)], &[b""], &Tpm2bEvent::empty()).unwrap_err();
        assert_eq!(rc, ResponseCode::LOCALITY);
    }
}
