//! `TPM2_ZGen_2Phase` (Part 3, 14.7).

use super::{check_exchange_key, curve_of, point_2b, private_value, scheme_of};
use crate::command::{Context, Output, parameters};
use crate::crypto::ecc::{self, exchange};
use crate::crypto::{CryptoError, Point};
use crate::secret::point;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Sized2b, Tpm2bEccPoint, TpmAlgId, TpmiEccKeyExchange};

/// Agrees on points with another party, both with a static and an ephemeral key: ours are a key (handle 1, USER) and what
/// `TPM2_EC_Ephemeral` promised under `counter`, which is used up. ECDH gives two points, MQV and SM2 give one and leave the second empty.
///
/// # Errors
/// `TPM_RC_KEY` (handle 1) for a key that is not ECC, `TPM_RC_ATTRIBUTES` (handle 1) for one that does not decrypt or is restricted,
/// `TPM_RC_SCHEME` (parameter 3) for a scheme that is not the key's, `TPM_RC_ECC_POINT` (parameters 1 and 2) for a point that is not on the
/// curve, `TPM_RC_VALUE` (parameter 4) for a counter without a commitment, `TPM_RC_NO_RESULT` when the points lead to infinity.
pub fn z_gen_2phase(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    type Parameters = (Tpm2bEccPoint, Tpm2bEccPoint, TpmiEccKeyExchange, u16);
    let (Sized2b(qs), Sized2b(qe), TpmiEccKeyExchange(scheme), counter): Parameters = parameters(r)?;
    let key = cx.state.object(cx.handle(0)?)?.clone();
    let curve = curve_of(&key)?;
    check_exchange_key(&key)?;
    if ![scheme, TpmAlgId::NULL].contains(&scheme_of(&key)) {
        return Err(ResponseCode::SCHEME.parameter(3));
    }
    let (static_public, ephemeral_public) = (point(&qs), point(&qe));
    if !ecc::is_on_curve(curve, &static_public) {
        return Err(ResponseCode::ECC_POINT.parameter(1));
    }
    if !ecc::is_on_curve(curve, &ephemeral_public) {
        return Err(ResponseCode::ECC_POINT.parameter(2));
    }
    let commitments = &mut cx.state.volatile_mut().state_reset.commitments;
    let own_ephemeral = commitments.promised(counter, curve, &[]).ok_or(ResponseCode::VALUE.parameter(4))?;
    commitments.end(counter);
    let own_static = private_value(&key)?;
    let keys = exchange::Keys {
        own_static,
        own_ephemeral: &own_ephemeral,
        static_public: &static_public,
        ephemeral_public: &ephemeral_public,
    };
    let (first, second) = match scheme {
        TpmAlgId::ECDH => (
            ecc::multiply(curve, own_static, &static_public).map_err(no_result)?,
            ecc::multiply(curve, &own_ephemeral, &ephemeral_public).map_err(no_result)?,
        ),
        TpmAlgId::ECMQV => (exchange::mqv(curve, keys).map_err(no_result)?, Point::default()),
        TpmAlgId::SM2 => (exchange::sm2(curve, keys).map_err(no_result)?, Point::default()),
        _ => return Err(ResponseCode::SCHEME.parameter(3)),
    };
    Ok(Output::of(&(point_2b(&first)?, point_2b(&second)?)))
}

/// The points were checked, so what remains is a private value out of range, which no loaded key has, or infinity.
fn no_result(e: CryptoError) -> ResponseCode {
    if e == CryptoError::Scalar { ResponseCode::KEY.handle(1) } else { ResponseCode::NO_RESULT }
}

#[cfg(test)]
mod tests;
