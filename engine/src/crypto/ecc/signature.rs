//! Signatures: ECDSA, EC-Schnorr, SM2 and ECDAA. Each is a pair of numbers `r` and `s`, as long as the order.
//!
//! The ephemeral value of a signature is drawn from a [`KdfaStream`] under the private key, over fresh random bytes and the digest. So it is random,
//! as TPM 2.0 wants it, nobody without the key can know it even if the random bytes are known, and it does not repeat for
//! another message even if they do.

use p256::elliptic_curve::ff::{Field, PrimeField};
use p256::elliptic_curve::group::Curve as _;
use p256::elliptic_curve::ops::MulByGeneratorVartime;
use p256::elliptic_curve::point::AffineCoordinates;
use p256::elliptic_curve::{
    AffinePoint, CurveArithmetic, FieldBytes, NonZeroScalar, ProjectivePoint, Scalar,
};
use zeroize::Zeroizing;

use super::{
    Curve, Point, digest_field, draw_private, multiply_generator, on_curve, read_point, read_private, reduce,
    reduced_x,
};
use crate::crypto::CryptoError;
use crate::crypto::hash::HashAlg;
use crate::crypto::kdf::KdfaStream;
use crate::crypto::rng::RandomSource;

/// `r` and `s`.
pub type Pair = (Vec<u8>, Vec<u8>);

/// How often a signature may draw; a draw of EC-Schnorr is unusable once in 2^32 on P-256, those of the others never in practice.
const MAX_DRAWS: u32 = 64;

/// Where the ephemeral values of one signature come from.
fn ephemeral_source<C: CurveArithmetic>(
    d: &NonZeroScalar<C>,
    digest: &[u8],
    rng: &mut dyn RandomSource,
) -> KdfaStream {
    let key = Zeroizing::new(d.to_repr().to_vec());
    let mut fresh = Zeroizing::new(vec![0; key.len()]);
    rng.fill(&mut fresh);
    KdfaStream::new(HashAlg::Sha512, &key, b"EC signature", &[fresh.as_slice(), digest].concat())
}

/// Draws until `attempt` gives a pair without a zero in it.
fn sign_with<C: CurveArithmetic>(
    curve: Curve,
    source: &mut dyn RandomSource,
    mut attempt: impl FnMut(&NonZeroScalar<C>, &AffinePoint<C>) -> Option<(Scalar<C>, Scalar<C>)>,
) -> Result<Pair, CryptoError> {
    for _ in 0..MAX_DRAWS {
        let k = read_private::<C>(&draw_private(curve, source))?;
        let commitment = multiply_generator::<C>(&k);
        match attempt(&k, &commitment) {
            Some((r, s)) if !bool::from(r.is_zero() | s.is_zero()) => {
                return Ok((r.to_repr().to_vec(), s.to_repr().to_vec()));
            }
            _ => {}
        }
    }
    Err(CryptoError::Exhausted)
}

/// Public key, `r` and `s` for a verification, if all three are what they must be.
fn read_signature<C: CurveArithmetic>(
    public: &Point,
    r: &[u8],
    s: &[u8],
) -> Option<(AffinePoint<C>, Scalar<C>, Scalar<C>)> {
    Some((read_point::<C>(public).ok()?, **read_private::<C>(r).ok()?, **read_private::<C>(s).ok()?))
}

/// `a G + b Q`, unless that is the point at infinity. Not in constant time.
fn sum<C: CurveArithmetic>(a: &Scalar<C>, b: &Scalar<C>, q: &AffinePoint<C>) -> Option<AffinePoint<C>> {
    let q = ProjectivePoint::<C>::from(*q);
    let point = ProjectivePoint::<C>::mul_by_generator_and_mul_add_vartime(a, b, &q).to_affine();
    // The point at infinity has no x coordinate.
    (point != AffinePoint::<C>::default()).then_some(point)
}

/// Signs with ECDSA (FIPS 186-5, 6.4.1). Of a digest longer than the order its leftmost bits count.
///
/// # Errors
///
/// [`CryptoError::Scalar`] if `d` is not between 1 and `n - 1`.
#[expect(clippy::arithmetic_side_effects, reason = "operations of the group and its scalars do not overflow")]
pub fn ecdsa_sign(
    curve: Curve,
    d: &[u8],
    digest: &[u8],
    rng: &mut dyn RandomSource,
) -> Result<Pair, CryptoError> {
    on_curve!(curve, C => {
        let d = read_private::<C>(d)?;
        let e = reduce::<C>(&digest_field::<C>(digest));
        sign_with::<C>(curve, &mut ephemeral_source::<C>(&d, digest, rng), |k, commitment| {
            let r = reduced_x::<C>(commitment);
            let inverse = Zeroizing::new(Field::invert(&**k).into_option()?);
            let sum = Zeroizing::new(e + r * **d);
            Some((r, *inverse * *sum))
        })
    })
}

/// Whether `r` and `s` are an ECDSA signature over `digest`. Malformed input is not a signature.
#[expect(clippy::arithmetic_side_effects, reason = "operations of the group and its scalars do not overflow")]
#[must_use]
pub fn ecdsa_verify(curve: Curve, public: &Point, digest: &[u8], r: &[u8], s: &[u8]) -> bool {
    on_curve!(curve, C => {
        let Some((public, r, s)) = read_signature::<C>(public, r, s) else { return false };
        let Some(w) = Field::invert(&s).into_option() else { return false };
        let e = reduce::<C>(&digest_field::<C>(digest));
        sum::<C>(&(e * w), &(r * w), &public).is_some_and(|point| reduced_x::<C>(&point) == r)
    })
}

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
) -> Result<Pair, CryptoError> {
    on_curve!(curve, C => {
        let d = read_private::<C>(d)?;
        sign_with::<C>(curve, &mut ephemeral_source::<C>(&d, digest, rng), |k, commitment| {
            let r = Scalar::<C>::from_repr(schnorr_challenge::<C>(alg, commitment, digest)).into_option()?;
            Some((r, **k + r * **d))
        })
    })
}

/// Whether `r` and `s` are an EC-Schnorr signature over `digest`. Malformed input is not a signature.
#[must_use]
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
        let Some((public, r, s)) = read_signature::<C>(public, r, s) else { return false };
        sum::<C>(&s, &-r, &public)
            .is_some_and(|commitment| r == reduce::<C>(&schnorr_challenge::<C>(alg, &commitment, digest)))
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

/// Signs with the SM2 scheme of GB/T 32918.2 what the standard calls *e*: that `digest` covers the hash of the signer's
/// identity (*Z*) is the business of whoever made it. All of the digest counts, as a number modulo the order.
///
/// # Errors
///
/// [`CryptoError::Scalar`] if `d` is not between 1 and `n - 1`, or is `n - 1`, with which nothing can be signed.
#[expect(clippy::arithmetic_side_effects, reason = "operations of the group and its scalars do not overflow")]
pub fn sm2_sign(
    curve: Curve,
    d: &[u8],
    digest: &[u8],
    rng: &mut dyn RandomSource,
) -> Result<Pair, CryptoError> {
    on_curve!(curve, C => {
        let d = read_private::<C>(d)?;
        let e = number_modulo_order::<C>(digest);
        let inverse = Field::invert(&(**d + Scalar::<C>::ONE)).into_option().map(Zeroizing::new);
        let inverse = inverse.ok_or(CryptoError::Scalar)?;
        sign_with::<C>(curve, &mut ephemeral_source::<C>(&d, digest, rng), |k, commitment| {
            let r = e + reduced_x::<C>(commitment);
            if bool::from((r + **k).is_zero()) {
                return None;
            }
            let difference = Zeroizing::new(**k - r * **d);
            Some((r, *inverse * *difference))
        })
    })
}

/// Whether `r` and `s` are an SM2 signature over `digest`; see [`sm2_sign`]. Malformed input is not a signature.
#[must_use]
#[expect(clippy::arithmetic_side_effects, reason = "operations of the group and its scalars do not overflow")]
pub fn sm2_verify(curve: Curve, public: &Point, digest: &[u8], r: &[u8], s: &[u8]) -> bool {
    on_curve!(curve, C => {
        let Some((public, r, s)) = read_signature::<C>(public, r, s) else { return false };
        let t = r + s;
        if bool::from(t.is_zero()) {
            return false;
        }
        sum::<C>(&s, &t, &public)
            .is_some_and(|point| number_modulo_order::<C>(digest) + reduced_x::<C>(&point) == r)
    })
}

/// A number of any length modulo the order.
#[expect(clippy::arithmetic_side_effects, reason = "operations of scalars do not overflow")]
fn number_modulo_order<C: CurveArithmetic>(number: &[u8]) -> Scalar<C> {
    let base = Scalar::<C>::from(256);
    number.iter().fold(Scalar::<C>::ZERO, |sum, byte| sum * base + Scalar::<C>::from(u64::from(*byte)))
}

/// The second half of an ECDAA signature (Part 1, C.4.2): with a random nonce `k` and the value `committed` from
/// `TPM2_Commit`, `s = committed + H(k || digest) d mod n`. Returned are `k`, without leading zeros, as it was hashed, and `s`.
///
/// # Errors
///
/// [`CryptoError::Scalar`] if `d` or `committed` is not between 1 and `n - 1`; [`CryptoError::Exhausted`] if `rng` is broken.
#[expect(clippy::arithmetic_side_effects, reason = "operations of the group and its scalars do not overflow")]
pub fn ecdaa_sign(
    curve: Curve,
    d: &[u8],
    committed: &[u8],
    alg: HashAlg,
    digest: &[u8],
    rng: &mut dyn RandomSource,
) -> Result<Pair, CryptoError> {
    on_curve!(curve, C => {
        let d = read_private::<C>(d)?;
        let committed = read_private::<C>(committed)?;
        for _ in 0..MAX_DRAWS {
            let nonce = draw_private(curve, rng);
            let zeros = nonce.iter().take_while(|byte| **byte == 0).count();
            let nonce = nonce.get(zeros..).unwrap_or_default();
            let t = number_modulo_order::<C>(&alg.digest(&[nonce, digest]));
            let s = **committed + t * **d;
            if !bool::from(t.is_zero() | s.is_zero()) {
                return Ok((nonce.to_vec(), s.to_repr().to_vec()));
            }
        }
        Err(CryptoError::Exhausted)
    })
}
