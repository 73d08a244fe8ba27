//! `TPM2_PCR_Reset` (Part 3, 22.8).

use crate::command::{Context, Output, parameters};
use crate::pcr;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;

/// Resets a PCR to zeros in all banks.
///
/// # Errors
/// `TPM_RC_LOCALITY` when the locality of the command may not reset the PCR, as none may for those of the static root of trust.
pub fn pcr_reset(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let () = parameters(r)?;
    let pcr = cx.handle(0)?;
    pcr::check_reset(pcr, cx.locality)?;
    cx.state.reset_pcr(pcr);
    Ok(Output::none())
}

#[cfg(test)]
mod tests {
    use crate::testing::TestTpm;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{TpmAlgId, TpmCc, TpmHandle};

    fn reset(tpm: &mut TestTpm, pcr: u32) -> Result<(), ResponseCode> {
        tpm.run_with(TpmCc::PCR_RESET, &[TpmHandle(pcr)], &[b""], &()).map(|_| ())
    }

    #[test]
    fn pcrs_are_reset_from_their_localities_only() {
        for (pcr, allowed) in [
            (0u32, 0u8),
            (15, 0),
            (16, 0x0f),
            // Locality 4 resets by a dynamic launch.
            (17, 0),
            (18, 0),
            (19, 0),
            (20, 0x04),
            (21, 0x04),
            (22, 0x04),
            (23, 0x0f),
        ] {
            for locality in 0..5u8 {
                let mut tpm = TestTpm::started();
                tpm.locality = locality;
                let expected =
                    if allowed & (1 << locality) != 0 { Ok(()) } else { Err(ResponseCode::LOCALITY) };
                assert_eq!(reset(&mut tpm, pcr), expected, "PCR {pcr} at locality {locality}");
            }
        }
    }

    #[test]
    fn a_reset_pcr_is_zero_in_all_banks() {
        let mut tpm = TestTpm::started();
        tpm.locality = 2;
        let counter = tpm.state().volatile.state_reset.pcr_counter;
        reset(&mut tpm, 20).unwrap();
        for (alg, size) in [(TpmAlgId::SHA1, 20), (TpmAlgId::SHA512, 64)] {
            assert_eq!(tpm.state().volatile.pcrs.get(alg, 20).unwrap().as_slice(), vec![0; size]);
        }
        assert_eq!(tpm.state().volatile.state_reset.pcr_counter, counter + 1);
        assert_eq!(reset(&mut tpm, 24), Err(ResponseCode::VALUE.handle(1)));
        assert_eq!(reset(&mut tpm, TpmHandle::NULL.0), Err(ResponseCode::VALUE.handle(1)));
    }
}
