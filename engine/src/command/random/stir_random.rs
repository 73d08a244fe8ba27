//! `TPM2_StirRandom` (Part 3, 16.2).

use crate::command::{Context, Output, parameters};
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::Tpm2b;

/// Takes additional entropy. Randomness comes from the host's generator, which a guest must not be able to influence
/// and need not feed, so that the data is checked and dropped.
///
/// # Errors
/// Those of the parameters: more than 128 bytes are `TPM_RC_SIZE`.
pub fn stir_random(_cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (_,): (Tpm2b<128>,) = parameters(r)?;
    Ok(Output::none())
}

#[cfg(test)]
mod tests {
    use crate::testing::TestTpm;
    use vtpm_protocol::rc::ResponseCode;

    #[test]
    fn takes_up_to_128_bytes() {
        let mut tpm = TestTpm::started();
        let mut command = vec![0x80, 1, 0, 0, 0, 140, 0, 0, 1, 0x46, 0, 128];
        command.resize(140, 7);
        tpm.ok(&command);
        let mut command = vec![0x80, 1, 0, 0, 0, 141, 0, 0, 1, 0x46, 0, 129];
        command.resize(141, 7);
        assert_eq!(tpm.rc(&command), ResponseCode::SIZE.parameter(1));
    }
}
