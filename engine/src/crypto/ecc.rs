//! Elliptic curves: keys, points and what is agreed with them; [signatures](signature) and [two-phase key exchange](exchange).
//!
//! Numbers are big-endian byte strings. What comes out is as long as the field (coordinates) or the order
//! (scalars, signatures); what goes in may be shorter or have leading zeros, as a `TPM2B` of Part 2 may.
//! Each function takes the curve as a [`Curve`] and leaves its work to a generic function over the curve's type,
//! so that another curve costs one arm in `on_curve!`. Multiplication by a secret takes the same time for every secret, as the
//! crates of the curves have it; only verification, which knows no secret, is allowed not to.

use crypto_bigint::{BoxedUint, NonZero};
use p256::elliptic_curve::group::Curve as _;
use p256::elliptic_curve::ops::Reduce;
use p256::elliptic_curve::point::AffineCoordinates;
use p256::elliptic_curve::{
    AffinePoint, CurveArithmetic, FieldBytes, Group, NonZeroScalar, ProjectivePoint, Scalar,
};
use zeroize::{Zeroize, Zeroizing};

use super::CryptoError;
use super::rng::RandomSource;

pub mod exchange;
mod parameters;
pub mod signature;

pub use parameters::CurveParameters;
pub use signature::{
    ec_schnorr_sign, ec_schnorr_verify, ecdaa_sign, ecdsa_sign, ecdsa_verify, sm2_sign, sm2_verify,
};

/// A curve that the engine implements.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum Curve {
    /// NIST P-192, `TPM_ECC_NIST_P192`.
    NistP192,
    /// NIST P-224, `TPM_ECC_NIST_P224`.
    NistP224,
    /// NIST P-256, `TPM_ECC_NIST_P256`.
    NistP256,
    /// NIST P-384, `TPM_ECC_NIST_P384`.
    NistP384,
    /// NIST P-521, `TPM_ECC_NIST_P521`.
    NistP521,
    /// The curve that GB/T 32918.5 recommends, `TPM_ECC_SM2_P256`.
    Sm2P256,
}

/// Evaluates `$body` with the type `$c` bound to the curve's own type.
macro_rules! on_curve {
    (@arm $t:ty, $c:ident => $body:expr) => {{
        type $c = $t;
        $body
    }};
    ($curve:expr, $c:ident => $body:expr) => {
        match $curve {
            $crate::crypto::ecc::Curve::NistP192 => on_curve!(@arm p192::NistP192, $c => $body),
            $crate::crypto::ecc::Curve::NistP224 => on_curve!(@arm p224::NistP224, $c => $body),
            $crate::crypto::ecc::Curve::NistP256 => on_curve!(@arm p256::NistP256, $c => $body),
            $crate::crypto::ecc::Curve::NistP384 => on_curve!(@arm p384::NistP384, $c => $body),
            $crate::crypto::ecc::Curve::NistP521 => on_curve!(@arm p521::NistP521, $c => $body),
            $crate::crypto::ecc::Curve::Sm2P256 => on_curve!(@arm sm2::Sm2, $c => $body),
        }
    };
}
pub(crate) use on_curve;

/// A point that is not the point at infinity, by its coordinates. Points that this module returns have
/// coordinates of the field's length and are on their curve; others are checked wherever they are used.
#[derive(Clone, PartialEq, Eq, Debug, Default, Hash)]
pub struct Point {
    /// The x coordinate.
    pub x: Vec<u8>,
    /// The y coordinate.
    pub y: Vec<u8>,
}

impl Curve {
    /// Every curve.
    pub const ALL: &[Curve] = &[
        Curve::NistP192,
        Curve::NistP224,
        Curve::NistP256,
        Curve::NistP384,
        Curve::NistP521,
        Curve::Sm2P256,
    ];

    /// The number of bytes of a coordinate.
    #[must_use]
    pub const fn field_size(self) -> usize {
        self.parameters().p.len()
    }

    /// The number of bytes of a private value and of each half of a signature.
    #[must_use]
    pub const fn order_size(self) -> usize {
        self.parameters().n.len()
    }
}

/// Makes a key pair: the private value and the public point.
///
/// The private value is `(c mod (n - 1)) + 1`, where `c` is what [`order_size`](Curve::order_size)` + 8` bytes
/// drawn from `rng` in one request are as a big-endian number (FIPS 186-5, A.2.1). Primary keys depend on this
/// procedure: it is frozen.
pub fn generate(curve: Curve, rng: &mut dyn RandomSource) -> (Zeroizing<Vec<u8>>, Point) {
    let d = draw_private(curve, rng);
    // What was drawn is in range, and so has a point.
    let point = public_of(curve, &d).unwrap_or_default();
    (d, point)
}

/// Draws a private value as [`generate`] does, without its point.
pub fn draw_private(curve: Curve, rng: &mut dyn RandomSource) -> Zeroizing<Vec<u8>> {
    let mut drawn = Zeroizing::new(vec![0; curve.order_size().saturating_add(8)]);
    rng.fill(&mut drawn);
    let order = BoxedUint::from_be_slice_vartime(curve.parameters().n);
    let one = BoxedUint::one_with_precision(order.bits_precision());
    let mut d = Zeroizing::new(one.clone());
    if let Some(modulus) = NonZero::new(order.wrapping_sub(&one)).into_option() {
        let drawn = Zeroizing::new(BoxedUint::from_be_slice_vartime(&drawn));
        let rest = Zeroizing::new(drawn.rem(&modulus));
        d.wrapping_add_assign(&*rest);
    }
    let bytes = Zeroizing::new(d.to_be_bytes());
    let excess = bytes.len().saturating_sub(curve.order_size());
    Zeroizing::new(bytes.get(excess..).unwrap_or_default().to_vec())
}

/// The public point of a private value.
///
/// # Errors
///
/// [`CryptoError::Scalar`] if `d` is not between 1 and `n - 1`.
pub fn public_of(curve: Curve, d: &[u8]) -> Result<Point, CryptoError> {
    on_curve!(curve, C => {
        let d = read_private::<C>(d)?;
        Ok(write_point::<C>(&ProjectivePoint::<C>::from(multiply_generator::<C>(&d))))
    })
}

/// Whether `d` is a private value of the curve: between 1 and `n - 1`.
#[must_use]
pub fn is_private(curve: Curve, d: &[u8]) -> bool {
    on_curve!(curve, C => read_private::<C>(d).is_ok())
}

/// Whether the point is on the curve. The point at infinity has no coordinates, so it never is; the pair (0, 0)
/// that some write for it is not on the curve either.
#[must_use]
pub fn is_on_curve(curve: Curve, point: &Point) -> bool {
    on_curve!(curve, C => read_point::<C>(point).is_ok())
}

/// Multiplies a point by a private value; this is also the one step of ECDH, whose shared secret Z is the x
/// coordinate.
///
/// # Errors
///
/// [`CryptoError::Point`] if the point is not on the curve, [`CryptoError::Scalar`] if `d` is not between 1 and
/// `n - 1`.
#[expect(clippy::arithmetic_side_effects, reason = "operations of the group and its scalars do not overflow")]
pub fn multiply(curve: Curve, d: &[u8], point: &Point) -> Result<Point, CryptoError> {
    on_curve!(curve, C => {
        let point = read_point::<C>(point)?;
        let d = read_private::<C>(d)?;
        Ok(write_point::<C>(&(ProjectivePoint::<C>::from(point) * **d)))
    })
}

/// ECDH (SP 800-56A, 5.7.1.2): the x coordinate of the shared point, of the field's length.
///
/// # Errors
///
/// Those of [`multiply`].
pub fn ecdh(curve: Curve, d: &[u8], point: &Point) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
    let mut shared = multiply(curve, d, point)?;
    shared.y.zeroize();
    Ok(Zeroizing::new(shared.x))
}

/// A number of any size modulo the field's prime, of the field's length.
#[must_use]
pub fn modulo_p(curve: Curve, number: &[u8]) -> Vec<u8> {
    let size = curve.field_size();
    let p = BoxedUint::from_be_slice_vartime(curve.parameters().p);
    let rest = NonZero::new(p)
        .into_option()
        .map(|p| BoxedUint::from_be_slice_vartime(number).rem_vartime(&p).to_be_bytes())
        .unwrap_or_default();
    let mut out = vec![0; size];
    for (to, from) in out.iter_mut().rev().zip(rest.iter().rev()) {
        *to = *from;
    }
    out
}

/// The leftmost bytes of a digest, as many as the order has, or all of a shorter one behind zeros. (The bits that
/// the order of P-521 is short of whole bytes matter to no digest that is implemented.)
fn digest_field<C: CurveArithmetic>(digest: &[u8]) -> FieldBytes<C> {
    let mut out = FieldBytes::<C>::default();
    let used = digest.len().min(out.len());
    let start = out.len().saturating_sub(used);
    for (to, from) in out.iter_mut().skip(start).zip(digest) {
        *to = *from;
    }
    out
}

/// The number that a field element's bytes are, modulo the order.
fn reduce<C: CurveArithmetic>(bytes: &FieldBytes<C>) -> Scalar<C> {
    <Scalar<C> as Reduce<FieldBytes<C>>>::reduce(bytes)
}

/// The x coordinate of a point, modulo the order.
fn reduced_x<C: CurveArithmetic>(point: &AffinePoint<C>) -> Scalar<C> {
    reduce::<C>(&point.x())
}

/// A number of any length as a field element's bytes, if its significant bytes fit.
fn field<C: CurveArithmetic>(number: &[u8]) -> Option<FieldBytes<C>> {
    let mut out = FieldBytes::<C>::default();
    let excess = number.len().saturating_sub(out.len());
    let (high, low) = number.split_at_checked(excess)?;
    if high.iter().any(|byte| *byte != 0) {
        return None;
    }
    let start = out.len().checked_sub(low.len())?;
    out.get_mut(start..)?.copy_from_slice(low);
    Some(out)
}

fn read_private<C: CurveArithmetic>(d: &[u8]) -> Result<Zeroizing<NonZeroScalar<C>>, CryptoError> {
    let mut bytes = field::<C>(d).ok_or(CryptoError::Scalar)?;
    let scalar = NonZeroScalar::<C>::from_repr(bytes).into_option();
    bytes.as_mut_slice().zeroize();
    scalar.map(Zeroizing::new).ok_or(CryptoError::Scalar)
}

fn read_point<C: CurveArithmetic>(point: &Point) -> Result<AffinePoint<C>, CryptoError> {
    let (x, y) = field::<C>(&point.x).zip(field::<C>(&point.y)).ok_or(CryptoError::Point)?;
    AffinePoint::<C>::from_coordinates(&x, &y).into_option().ok_or(CryptoError::Point)
}

fn write_point<C: CurveArithmetic>(point: &ProjectivePoint<C>) -> Point {
    let point = point.to_affine();
    Point { x: point.x().to_vec(), y: point.y().to_vec() }
}

fn multiply_generator<C: CurveArithmetic>(scalar: &NonZeroScalar<C>) -> AffinePoint<C> {
    ProjectivePoint::<C>::mul_by_generator(scalar).to_affine()
}

#[cfg(test)]
pub(crate) mod tests;
