//! `TPM2_GetRandom` (Part 3, 16.1).

use crate::command::{Context, Output, parameters};
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{MAX_DIGEST_SIZE, Tpm2bDigest};

/// Returns as many random bytes as asked for, at most those of the largest digest.
///
/// # Errors
/// Those of the parameters.
pub fn get_random(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (requested,): (u16,) = parameters(r)?;
    let mut bytes = vec![0; usize::from(requested).min(MAX_DIGEST_SIZE)];
    cx.env.fill_random(&mut bytes);
    Ok(Output::of(&Tpm2bDigest::new(bytes)?))
}

#[cfg(test)]
mod tests {
    use crate::testing::TestTpm;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::TpmCc;

    #[test]
    fn asks_beyond_the_largest_digest_are_cut() {
        let mut tpm = TestTpm::started();
        let out = tpm.ok(&[0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x7b, 0xff, 0xff]);
        assert_eq!(out.len(), 10 + 2 + 64);
        assert_ne!(out, tpm.ok(&[0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x7b, 0xff, 0xff]));
        assert_eq!(tpm.ok(&[0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x7b, 0, 0])[10..], [0, 0]);
    }

    #[test]
    fn takes_one_number() {
        let mut tpm = TestTpm::started();
        assert_eq!(tpm.run(TpmCc::GET_RANDOM, &[], &8u8), Err(ResponseCode::INSUFFICIENT.parameter(1)));
        assert_eq!(tpm.run(TpmCc::GET_RANDOM, &[], &(8u16, 0u8)), Err(ResponseCode::SIZE));
        assert_eq!(tpm.run(TpmCc::GET_RANDOM, &[], &8u16).unwrap().len(), 2 + 8);
    }
}
