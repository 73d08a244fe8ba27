//! Start-up commands (Part 3, chapter 9).

mod shutdown;
mod start;

pub use shutdown::shutdown;
pub use start::startup;

use vtpm_protocol::codec::{Decode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::TpmSu;

/// `TPM_SU` as a parameter: one of the two that there are.
struct StartupType(TpmSu);

impl Decode for StartupType {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        match TpmSu::decode(r)? {
            kind @ (TpmSu::CLEAR | TpmSu::STATE) => Ok(Self(kind)),
            _ => Err(ResponseCode::VALUE),
        }
    }
}
