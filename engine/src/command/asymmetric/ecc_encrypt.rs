//! `TPM2_ECC_Encrypt` (Part 3, 14.8; Part 1, C.8).

use super::{check_value, curve_of, mask, point_2b, public_point, select_kdf};
use crate::alg::digest_2b;
use crate::command::{Context, EnvRandom, Output, parameters};
use crate::crypto::ecc;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Tpm2bMaxBuffer, TpmtKdfScheme};

/// Encrypts to a public key (handle 1, no authorization): `C1` is the public point of an ephemeral key, `C2` the data XORed with what KDF2 makes of
/// the point *P2* that both keys share, and `C3` the hash of *P2*'s x coordinate, the data and *P2*'s y coordinate.
///
/// # Errors
/// `TPM_RC_KEY` (handle 1) for a key that is not ECC; `TPM_RC_SCHEME` (parameter 2) for another scheme than the key's, or for none, and without a
/// number for one that is not KDF2; `TPM_RC_NO_RESULT` for a key whose point is not on its curve, as only one without a Name can be.
pub fn ecc_encrypt(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (plain_text, TpmtKdfScheme(requested)): (Tpm2bMaxBuffer, TpmtKdfScheme) = parameters(r)?;
    let key = cx.state.object(cx.handle(0)?)?;
    let curve = curve_of(key)?;
    let alg = select_kdf(key, requested).map_err(|e| e.parameter(2))??;
    let public = public_point(key)?;
    let (d, c1) = ecc::generate(curve, &mut EnvRandom(cx.env));
    let shared = ecc::multiply(curve, &d, &public).map_err(|_| ResponseCode::NO_RESULT)?;
    let c3 = check_value(alg, &shared, &plain_text);
    let c2 = Tpm2bMaxBuffer::new(mask(alg, &shared, &plain_text))?;
    Ok(Output::of(&(point_2b(&c1)?, c2, digest_2b(&c3))))
}

#[cfg(test)]
mod tests;
