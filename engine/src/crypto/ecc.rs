//! Elliptic curves: keys, ECDSA, ECDH and EC-Schnorr.
//!
//! Numbers are big-endian byte strings. What comes out is as long as the field (coordinates) or the order
//! (scalars, signatures); what goes in may be shorter or have leading zeros, as a `TPM2B` of Part 2 may.
//! Each function takes the curve as a [`Curve`] and leaves its work to a generic function over the curve's type,
//! so that another curve costs one arm in `on_curve!`.

use ::ecdsa::{Signature, hazmat};
use crypto_bigint::{BoxedUint, NonZero};
use p256::NistP256;
use p256::elliptic_curve::ff::{Field, PrimeField};
use p256::elliptic_curve::group::Curve as _;
use p256::elliptic_curve::ops::{MulByGeneratorVartime, Reduce};
use p256::elliptic_curve::point::AffineCoordinates;
use p256::elliptic_curve::{
    AffinePoint, CurveArithmetic, FieldBytes, NonZeroScalar, ProjectivePoint, Scalar,
};
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

use super::CryptoError;
use super::hash::HashAlg;
use super::rng::RandomSource;

/// A curve that the engine implements.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum Curve {
    /// NIST P-256, `TPM_ECC_NIST_P256`.
    NistP256,
}

/// Evaluates `$body` with the type `$c` bound to the curve's own type.
macro_rules! on_curve {
    ($curve:expr, $c:ident => $body:expr) => {
        match $curve {
            Curve::NistP256 => {
                type $c = NistP256;
                $body
            }
        }
    };
}

/// A point that is not the point at infinity, by its coordinates. Points that this module returns have
/// coordinates of the field's length and are on their curve; others are checked wherever they are used.
#[derive(Clone, PartialEq, Eq, Debug, Default, Hash)]
pub struct Point {
    /// The x coordinate.
    pub x: Vec<u8>,
    /// The y coordinate.
    pub y: Vec<u8>,
}

/// The constants of a curve, as `TPM2_ECC_Parameters` reports them: big-endian, of the field's (or order's) length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CurveParameters {
    /// The bits of a key.
    pub key_bits: u16,
    /// The prime of the field.
    pub p: &'static [u8],
    /// The linear coefficient.
    pub a: &'static [u8],
    /// The constant coefficient.
    pub b: &'static [u8],
    /// The x coordinate of the generator.
    pub gx: &'static [u8],
    /// The y coordinate of the generator.
    pub gy: &'static [u8],
    /// The order of the generator.
    pub n: &'static [u8],
    /// The cofactor.
    pub h: &'static [u8],
}

mod p256_constants {
    //! SP 800-186, 3.2.1.3.

    pub(super) const P: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    ];
    pub(super) const A: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfc,
    ];
    pub(super) const B: [u8; 32] = [
        0x5a, 0xc6, 0x35, 0xd8, 0xaa, 0x3a, 0x93, 0xe7, 0xb3, 0xeb, 0xbd, 0x55, 0x76, 0x98, 0x86, 0xbc, 0x65,
        0x1d, 0x06, 0xb0, 0xcc, 0x53, 0xb0, 0xf6, 0x3b, 0xce, 0x3c, 0x3e, 0x27, 0xd2, 0x60, 0x4b,
    ];
    pub(super) const GX: [u8; 32] = [
        0x6b, 0x17, 0xd1, 0xf2, 0xe1, 0x2c, 0x42, 0x47, 0xf8, 0xbc, 0xe6, 0xe5, 0x63, 0xa4, 0x40, 0xf2, 0x77,
        0x03, 0x7d, 0x81, 0x2d, 0xeb, 0x33, 0xa0, 0xf4, 0xa1, 0x39, 0x45, 0xd8, 0x98, 0xc2, 0x96,
    ];
    pub(super) const GY: [u8; 32] = [
        0x4f, 0xe3, 0x42, 0xe2, 0xfe, 0x1a, 0x7f, 0x9b, 0x8e, 0xe7, 0xeb, 0x4a, 0x7c, 0x0f, 0x9e, 0x16, 0x2b,
        0xce, 0x33, 0x57, 0x6b, 0x31, 0x5e, 0xce, 0xcb, 0xb6, 0x40, 0x68, 0x37, 0xbf, 0x51, 0xf5,
    ];
    pub(super) const N: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc,
        0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
}

impl Curve {
    /// Every curve.
    pub const ALL: &[Curve] = &[Curve::NistP256];

    /// The constants of the curve.
    pub const fn parameters(self) -> CurveParameters {
        match self {
            Curve::NistP256 => CurveParameters {
                key_bits: 256,
                p: &p256_constants::P,
                a: &p256_constants::A,
                b: &p256_constants::B,
                gx: &p256_constants::GX,
                gy: &p256_constants::GY,
                n: &p256_constants::N,
                h: &[1],
            },
        }
    }

    /// The number of bytes of a coordinate.
    pub const fn field_size(self) -> usize {
        self.parameters().p.len()
    }

    /// The number of bytes of a private value and of each half of a signature.
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

fn draw_private(curve: Curve, rng: &mut dyn RandomSource) -> Zeroizing<Vec<u8>> {
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

/// Whether the point is on the curve. The point at infinity has no coordinates, so it never is; the pair (0, 0)
/// that some write for it is not on the curve either.
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

/// Signs with ECDSA: `r` and `s`, each of the order's length. Of a digest longer than the order its leftmost bits
/// count (FIPS 186-5, 6.4.1).
///
/// The ephemeral value is that of RFC 6979, 3.6, with as many bytes from `rng` as the order has as additional data:
/// it is random as TPM 2.0 wants it, and it never repeats for another message even if `rng` does.
///
/// # Errors
///
/// [`CryptoError::Scalar`] if `d` is not between 1 and `n - 1`.
pub fn ecdsa_sign(
    curve: Curve,
    d: &[u8],
    digest: &[u8],
    rng: &mut dyn RandomSource,
) -> Result<(Vec<u8>, Vec<u8>), CryptoError> {
    let mut additional = Zeroizing::new(vec![0; curve.order_size()]);
    rng.fill(&mut additional);
    on_curve!(curve, C => {
        let d = read_private::<C>(d)?;
        let digest = digest_field::<C>(digest);
        let (signature, _) = hazmat::sign_prehashed_rfc6979::<C, Sha256>(&d, &digest, &additional);
        let (r, s) = signature.split_bytes();
        Ok((r.to_vec(), s.to_vec()))
    })
}

/// Whether `r` and `s` are an ECDSA signature over `digest`. Malformed input is not a signature.
pub fn ecdsa_verify(curve: Curve, public: &Point, digest: &[u8], r: &[u8], s: &[u8]) -> bool {
    on_curve!(curve, C => {
        let (Ok(public), Some(r), Some(s)) = (read_point::<C>(public), field::<C>(r), field::<C>(s)) else {
            return false;
        };
        // Refuses an r or s that is zero or not below the order.
        let Ok(signature) = Signature::<C>::from_scalars(r, s) else {
            return false;
        };
        let digest = digest_field::<C>(digest);
        hazmat::verify_prehashed::<C>(&ProjectivePoint::<C>::from(public), &digest, &signature).is_ok()
    })
}

/// How often [`ec_schnorr_sign`] may draw; a draw is unusable once in 2^32 on P-256.
const MAX_SCHNORR_DRAWS: u32 = 64;

/// Signs with the EC-Schnorr scheme of Part 1, C.4.3: with an ephemeral key pair `(k, R)`, `r` is
/// `H(x_R || digest)` cut to the order's length, and `s = k + r d mod n`. An `r` that is zero or not below the order
/// is thrown away with its `k`, so that it means the same to a verifier that reduces and to one that does not.
///
/// # Errors
///
/// [`CryptoError::Scalar`] if `d` is not between 1 and `n - 1`; [`CryptoError::Exhausted`] if `rng` is broken.
#[expect(clippy::arithmetic_side_effects, reason = "operations of the group and its scalars do not overflow")]
pub fn ec_schnorr_sign(
    curve: Curve,
    d: &[u8],
    alg: HashAlg,
    digest: &[u8],
    rng: &mut dyn RandomSource,
) -> Result<(Vec<u8>, Vec<u8>), CryptoError> {
    on_curve!(curve, C => {
        let d = read_private::<C>(d)?;
        for _ in 0..MAX_SCHNORR_DRAWS {
            let k = read_private::<C>(&draw_private(curve, rng))?;
            let commitment = multiply_generator::<C>(&k);
            let challenge = schnorr_challenge::<C>(alg, &commitment, digest);
            let Some(r) = Scalar::<C>::from_repr(challenge).into_option() else {
                continue;
            };
            let s = Zeroizing::new(**k + r * **d);
            if !bool::from(r.is_zero() | s.is_zero()) {
                return Ok((r.to_repr().to_vec(), s.to_repr().to_vec()));
            }
        }
        Err(CryptoError::Exhausted)
    })
}

/// Whether `r` and `s` are an EC-Schnorr signature over `digest`. Malformed input is not a signature.
#[expect(clippy::arithmetic_side_effects, reason = "operations of the group and its scalars do not overflow")]
pub fn ec_schnorr_verify(
    curve: Curve,
    public: &Point,
    alg: HashAlg,
    digest: &[u8],
    r: &[u8],
    s: &[u8],
) -> bool {
    on_curve!(curve, C => {
        let (Ok(public), Ok(r), Ok(s)) =
            (read_point::<C>(public), read_private::<C>(r), read_private::<C>(s))
        else {
            return false;
        };
        let commitment = ProjectivePoint::<C>::mul_by_generator_and_mul_add_vartime(
            &s,
            &-**r,
            &ProjectivePoint::<C>::from(public),
        );
        let commitment = commitment.to_affine();
        // The point at infinity has no x coordinate to hash.
        if commitment == AffinePoint::<C>::default() {
            return false;
        }
        let challenge = schnorr_challenge::<C>(alg, &commitment, digest);
        **r == <Scalar<C> as Reduce<FieldBytes<C>>>::reduce(&challenge)
    })
}

/// `H(x_R || digest)`, cut to the length of the order, as a field element's bytes.
fn schnorr_challenge<C: CurveArithmetic>(
    alg: HashAlg,
    commitment: &AffinePoint<C>,
    digest: &[u8],
) -> FieldBytes<C> {
    digest_field::<C>(&alg.digest(&[commitment.x().as_ref(), digest]))
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
    use p256::elliptic_curve::Group;
    ProjectivePoint::<C>::mul_by_generator(scalar).to_affine()
}

#[cfg(test)]
mod tests;
