//! `TPM2_PCR_Read` (Part 3, 22.4).

use crate::command::{Context, Output, parameters};
use crate::pcr;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::TpmlPcrSelection;

/// Returns the values of the selected PCRs, at most eight, with the selection of those returned and the PCR update counter. PCRs of
/// banks that are not allocated are left out.
///
/// # Errors
/// Those of the parameters.
pub fn pcr_read(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (selection,): (TpmlPcrSelection,) = parameters(r)?;
    let (selection, values) = pcr::read(cx.state, &selection);
    Ok(Output::of(&(cx.state.volatile.state_reset.pcr_counter, selection, values)))
}

#[cfg(test)]
mod tests {
    use crate::testing::TestTpm;
    use vtpm_protocol::codec::{Encode, decode_exact};
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{
        TpmAlgId, TpmCc, TpmHandle, Tpml, TpmlDigest, TpmlDigestValues, TpmlPcrSelection, TpmsPcrSelection,
        TpmtHa,
    };

    fn read(tpm: &mut TestTpm, selection: &TpmlPcrSelection) -> (u32, TpmlPcrSelection, TpmlDigest) {
        decode_exact(&tpm.run(TpmCc::PCR_READ, &[], selection).unwrap()).unwrap()
    }

    #[test]
    fn one_response_has_eight_values_and_says_which() {
        let mut tpm = TestTpm::started();
        let sha1 = TpmsPcrSelection::of(TpmAlgId::SHA1, [3, 17]);
        let all = TpmsPcrSelection::of(TpmAlgId::SHA256, 0..24);
        let last = TpmsPcrSelection::of(TpmAlgId::SHA512, [0]);
        let (counter, selection, values) = read(&mut tpm, &Tpml(vec![sha1.clone(), all, last]));
        assert_eq!(counter, 20);
        let six = TpmsPcrSelection::of(TpmAlgId::SHA256, 0..6);
        assert_eq!(selection.0, [sha1, six, TpmsPcrSelection::of(TpmAlgId::SHA512, [])]);
        let sizes: Vec<usize> = values.0.iter().map(|v| v.len()).collect();
        assert_eq!(sizes, [20, 20, 32, 32, 32, 32, 32, 32]);
        assert_eq!(values.0[1].as_slice(), [0xff; 20]);
    }

    #[test]
    fn nothing_selected_is_nothing_read() {
        let mut tpm = TestTpm::started();
        let (_, selection, values) = read(&mut tpm, &Tpml(vec![]));
        assert!(selection.0.is_empty() && values.0.is_empty());
    }

    #[test]
    fn a_hash_that_no_bank_has_is_a_bank_that_is_not_allocated() {
        let mut tpm = TestTpm::started();
        let list = Tpml(vec![
            TpmsPcrSelection::of(TpmAlgId::SHA3_256, [0, 1]),
            TpmsPcrSelection::of(TpmAlgId::SM3_256, [7]),
        ]);
        let out = tpm.run(TpmCc::PCR_READ, &[], &(list as TpmlPcrSelection)).unwrap();
        let (_, selection, values): (u32, TpmlPcrSelection, TpmlDigest) = decode_exact(&out).unwrap();
        assert!(selection.0.iter().all(|s| s.pcrs().next().is_none()) && values.0.is_empty());
        let digests = Tpml(vec![TpmtHa { hash_alg: TpmAlgId::SHA3_256, digest: vec![1; 32] }]);
        let before = tpm.state().volatile.state_reset.pcr_counter;
        tpm.run_with(TpmCc::PCR_EXTEND, &[TpmHandle(0)], &[b""], &(digests as TpmlDigestValues)).unwrap();
        assert_eq!(tpm.state().volatile.state_reset.pcr_counter, before);
    }

    #[test]
    fn refuses_selections_of_other_sizes_banks_and_lengths() {
        let mut tpm = TestTpm::started();
        let mut rc = |bytes: &[u8]| {
            struct Raw<'a>(&'a [u8]);
            impl Encode for Raw<'_> {
                fn encode(&self, out: &mut Vec<u8>) {
                    out.extend_from_slice(self.0);
                }
            }
            tpm.run(TpmCc::PCR_READ, &[], &Raw(bytes)).unwrap_err()
        };
        assert_eq!(rc(&[0, 0, 0, 1, 0, 0x0b, 0xff, 0, 0, 0]), ResponseCode::VALUE.parameter(1));
        assert_eq!(rc(&[0, 0, 0, 1, 0, 0x0b, 4, 0, 0, 0, 0]), ResponseCode::VALUE.parameter(1));
        assert_eq!(rc(&[0, 0, 0, 1, 0, 0x13, 3, 0, 0, 0]), ResponseCode::HASH.parameter(1));
        assert_eq!(rc(&[0, 0, 0, 1, 0, 0x0b, 3, 0, 0]), ResponseCode::INSUFFICIENT.parameter(1));
        assert_eq!(rc(&[0xff, 0xff, 0xff, 0xff]), ResponseCode::SIZE.parameter(1));
        assert_eq!(rc(&[0, 0, 0, 0, 7]), ResponseCode::SIZE);
    }
}
