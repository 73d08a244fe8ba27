//! `TPM2_Commit` (Part 3, 19.2; Part 1, C.4.2).

use super::{curve_of, point_2b, private_value, scheme_of};
use crate::alg::hash_alg;
use crate::command::{Context, Output, parameters};
use crate::crypto::{CryptoError, Point, ecc};
use crate::secret::point;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{
    Sized2b, Tpm2bEccParameter, Tpm2bEccPoint, Tpm2bSensitiveData, TpmAlgId, TpmsEccPoint,
};

/// The first half of an anonymous signature with an ECDAA key (handle 1, USER): with a value *r* that only this command's counter leads to,
/// `K = d P2`, `L = r P2` and `E = r P1`, where the x coordinate of `P2` is the hash of `s2`. Without `P1` and `P2`, `E` is `r G`.
///
/// # Errors
/// For handle 1 `TPM_RC_KEY` for a key that is not ECC, `TPM_RC_SCHEME` for one whose scheme is not ECDAA, `TPM_RC_HASH` for one without a
/// name algorithm; `TPM_RC_SIZE` (parameter 3) when one of `s2` and `y2` is missing; `TPM_RC_ECC_POINT` (parameters 1 and 2) for a point that
/// is not on the curve; `TPM_RC_NO_RESULT`.
pub fn commit(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (Sized2b(p1), s2, y2): (Tpm2bEccPoint, Tpm2bSensitiveData, Tpm2bEccParameter) = parameters(r)?;
    let key = cx.state.object(cx.handle(0)?)?.clone();
    let curve = curve_of(&key)?;
    if scheme_of(&key) != TpmAlgId::ECDAA {
        return Err(ResponseCode::SCHEME.handle(1));
    }
    if s2.is_empty() != y2.is_empty() {
        return Err(ResponseCode::SIZE.parameter(3));
    }
    let p2 = if s2.is_empty() {
        None
    } else {
        let alg = hash_alg(key.public.name_alg).ok_or(ResponseCode::HASH.handle(1))?;
        let x = ecc::modulo_p(curve, &alg.digest(&[s2.expose()]));
        let p2 = Point { x, y: y2.to_vec() };
        if !ecc::is_on_curve(curve, &p2) {
            return Err(ResponseCode::ECC_POINT.parameter(2));
        }
        Some(p2)
    };
    let p1 = if p1 == TpmsEccPoint::default() {
        None
    } else {
        let p1 = point(&p1);
        if !ecc::is_on_curve(curve, &p1) {
            return Err(ResponseCode::ECC_POINT.parameter(1));
        }
        Some(p1)
    };
    let commitments = &mut cx.state.volatile_mut().state_reset.commitments;
    let promised = commitments.next(curve, &key.name);
    let multiply = |d: &[u8], p: &Point| ecc::multiply(curve, d, p).map_err(no_result);
    let (k, l) = match &p2 {
        Some(p2) => (multiply(private_value(&key)?, p2)?, multiply(&promised, p2)?),
        None => Default::default(),
    };
    let e = match (&p1, &p2) {
        (Some(p1), _) => multiply(&promised, p1)?,
        (None, None) => ecc::public_of(curve, &promised).map_err(no_result)?,
        (None, Some(_)) => Point::default(),
    };
    let counter = commitments.commit();
    Ok(Output::of(&(point_2b(&k)?, point_2b(&l)?, point_2b(&e)?, counter)))
}

/// The points were checked; a private value out of range no loaded key has.
fn no_result(_: CryptoError) -> ResponseCode {
    ResponseCode::NO_RESULT
}

#[cfg(test)]
mod tests;
