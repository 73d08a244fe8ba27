//! Key exchange with a static and an ephemeral key on each side, C(2, 2): MQV and that of SM2. The unified model, which is
//! ECDH twice, needs [`multiply`](super::multiply) only.

use p256::elliptic_curve::point::AffineCoordinates;
use p256::elliptic_curve::{AffinePoint, CurveArithmetic, Group, ProjectivePoint, Scalar};
use zeroize::Zeroizing;

use super::{Curve, Point, multiply_generator, on_curve, read_point, read_private, reduce, write_point};
use crate::crypto::CryptoError;

/// The keys of an exchange as one side has them.
#[derive(Clone, Copy)]
pub struct Keys<'a> {
    /// Our static private value.
    pub own_static: &'a [u8],
    /// Our ephemeral private value.
    pub own_ephemeral: &'a [u8],
    /// The other side's static public point.
    pub static_public: &'a Point,
    /// The other side's ephemeral public point.
    pub ephemeral_public: &'a Point,
}

/// Full MQV (SP 800-56A revision 3, 5.7.2.3.1): the shared point. With `x` for the associate value of an ephemeral point, that is
/// `(e + x(E) s) (E' + x(E') S')`.
///
/// # Errors
///
/// [`CryptoError::Point`] if a point is not on the curve, [`CryptoError::Scalar`] if a private value is not between 1 and `n - 1`,
/// [`CryptoError::Exhausted`] if the shared point is the one at infinity.
#[expect(clippy::arithmetic_side_effects, reason = "operations of the group and its scalars do not overflow")]
pub fn mqv(curve: Curve, keys: Keys<'_>) -> Result<Point, CryptoError> {
    // Half the bits of the order, rounded up.
    let width = curve.parameters().key_bits.div_ceil(2);
    on_curve!(curve, C => {
        let (s, e) = (read_private::<C>(keys.own_static)?, read_private::<C>(keys.own_ephemeral)?);
        let their_static = ProjectivePoint::<C>::from(read_point::<C>(keys.static_public)?);
        let their_ephemeral = read_point::<C>(keys.ephemeral_public)?;
        let own = associate_value::<C>(&multiply_generator::<C>(&e), width);
        let secret = Zeroizing::new(**e + own * **s);
        let theirs = associate_value::<C>(&their_ephemeral, width);
        finish::<C>((ProjectivePoint::<C>::from(their_ephemeral) + their_static * theirs) * *secret)
    })
}

/// The exchange of SM2 (GB/T 32918.3, 6.1, step 7): the shared point `(s + x(E) e) (S' + x(E') E')`. Deriving a key from it is left to
/// the caller.
///
/// # Errors
///
/// As [`mqv`].
#[expect(clippy::arithmetic_side_effects, reason = "operations of the group and its scalars do not overflow")]
pub fn sm2(curve: Curve, keys: Keys<'_>) -> Result<Point, CryptoError> {
    let width = curve.parameters().key_bits.div_ceil(2).saturating_sub(1);
    on_curve!(curve, C => {
        let (s, e) = (read_private::<C>(keys.own_static)?, read_private::<C>(keys.own_ephemeral)?);
        let their_static = ProjectivePoint::<C>::from(read_point::<C>(keys.static_public)?);
        let their_ephemeral = read_point::<C>(keys.ephemeral_public)?;
        let own = associate_value::<C>(&multiply_generator::<C>(&e), width);
        let secret = Zeroizing::new(**s + own * **e);
        let theirs = associate_value::<C>(&their_ephemeral, width);
        finish::<C>((their_static + ProjectivePoint::<C>::from(their_ephemeral) * theirs) * *secret)
    })
}

fn finish<C: CurveArithmetic>(shared: ProjectivePoint<C>) -> Result<Point, CryptoError> {
    if bool::from(shared.is_identity()) { Err(CryptoError::Exhausted) } else { Ok(write_point::<C>(&shared)) }
}

/// The lowest `width` bits of the x coordinate, with a one set above them: less than the order, as `width` is about half its bits.
#[expect(clippy::arithmetic_side_effects, reason = "a remainder is less than eight")]
fn associate_value<C: CurveArithmetic>(point: &AffinePoint<C>, width: u16) -> Scalar<C> {
    let mut x = point.x();
    let (whole, bit) = (usize::from(width / 8), width % 8);
    for (i, byte) in x.iter_mut().rev().enumerate().skip(whole) {
        *byte = if i == whole { (*byte & ((1 << bit) - 1)) | (1 << bit) } else { 0 };
    }
    reduce::<C>(&x)
}
