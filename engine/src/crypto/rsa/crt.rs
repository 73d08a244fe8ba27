//! The private operation by the Chinese remainder theorem (RFC 8017, 5.1.2, for two primes).

use crypto_bigint::{BoxedUint, ConcatenatingMul, Limb, NonZero, Odd, Word};
use zeroize::Zeroizing;

use crate::crypto::CryptoError;
use crate::crypto::montgomery::{Modulus, Words, multiply, zero};

/// What a private key of two factors computes with.
pub(super) struct Crt {
    p: Factor,
    q: Factor,
    /// The inverse of q modulo p.
    q_inverse: Words,
}

struct Factor {
    modulus: Modulus,
    /// `2^(3 bits)` modulo it, which puts into Montgomery form what a reduction has divided by `2^bits`.
    cube: Words,
    /// The inverse of the public exponent modulo the factor less 1.
    exponent: Words,
}

impl Crt {
    /// For two odd factors of as many words; `e` is odd and not 1.
    ///
    /// # Errors
    ///
    /// [`CryptoError::Binding`] if the exponent has no inverse, or the factors have a common divisor.
    pub(super) fn new(p: &BoxedUint, q: &BoxedUint, e: u32) -> Result<Crt, CryptoError> {
        let (p_odd, p, q) = (odd(p)?, Factor::new(p, e)?, Factor::new(q, e)?);
        let bits = p_odd.bits_precision();
        let q_mod_p = p.modulus.reduced(&p.form(q.modulus.words()));
        let q_mod_p = Zeroizing::new(BoxedUint::from_words_with_precision(q_mod_p.iter().copied(), bits));
        let inverse = q_mod_p.invert_odd_mod(&p_odd).into_option().ok_or(CryptoError::Binding)?;
        let q_inverse = Zeroizing::new(Zeroizing::new(inverse).as_words().to_vec());
        Ok(Crt { p, q, q_inverse })
    }

    /// The first of the two factors, the lowest word first.
    pub(super) fn p(&self) -> &[Word] {
        self.p.modulus.words()
    }

    /// `number`, below the product of the factors and of twice their words, to the power of the private exponent.
    pub(super) fn power(&self, number: &[Word]) -> Words {
        let by_p = self.p.power(number);
        let by_q = self.q.modulus.reduced(&self.q.power(number));
        // Their difference in Montgomery form times a number as it is: a number as it is.
        let difference = self.p.modulus.subtract(&by_p, &self.p.form(&by_q));
        let times = self.p.modulus.multiply(&difference, &self.q_inverse);
        let mut out = zero(number.len());
        multiply(&times, self.q.modulus.words(), &mut out);
        let mut carry = false;
        for (i, out) in out.iter_mut().enumerate() {
            (*out, carry) = out.carrying_add(by_q.get(i).copied().unwrap_or(0), carry);
        }
        out
    }
}

impl Factor {
    fn new(factor: &BoxedUint, e: u32) -> Result<Factor, CryptoError> {
        let exponent = exponent(factor, e)?;
        let modulus = Modulus::new(factor.as_words());
        let square = modulus.square_of_radix();
        let cube = modulus.multiply(&square, &square);
        Ok(Factor { modulus, cube, exponent })
    }

    /// Modulo the factor, in Montgomery form.
    fn form(&self, number: &[Word]) -> Words {
        self.modulus.multiply(&self.modulus.reduced(number), &self.cube)
    }

    /// To the power of the private exponent, in Montgomery form.
    fn power(&self, number: &[Word]) -> Words {
        self.modulus.power(&self.form(number), &self.exponent)
    }
}

fn odd(number: &BoxedUint) -> Result<Zeroizing<Odd<BoxedUint>>, CryptoError> {
    Odd::new(number.clone()).into_option().map(Zeroizing::new).ok_or(CryptoError::Binding)
}

/// The inverse of `e` modulo `factor - 1`, in as many words as `factor` has. It is `(k (factor - 1) + 1) / e`, where `k` is what
/// makes this a whole number: modulo `e`, the negative inverse of `factor - 1`.
fn exponent(factor: &BoxedUint, e: u32) -> Result<Words, CryptoError> {
    let one = BoxedUint::one_with_precision(factor.bits_precision());
    let even = Zeroizing::new(factor.wrapping_sub(&one));
    let divisor = NonZero::new(Limb::from(e)).into_option().ok_or(CryptoError::Exponent)?;
    let modulus = Odd::new(BoxedUint::from(Limb::from(e))).into_option().ok_or(CryptoError::Exponent)?;
    let rest = Zeroizing::new(BoxedUint::from(even.rem_limb(divisor)));
    let inverse = Zeroizing::new(rest.invert_odd_mod(&modulus).into_option().ok_or(CryptoError::Binding)?);
    let k = Zeroizing::new(modulus.as_ref().wrapping_sub(&*inverse));
    let multiple = Zeroizing::new(even.concatenating_mul(&*k));
    let multiple = Zeroizing::new(multiple.wrapping_add(&one));
    let quotient = Zeroizing::new(multiple.div_rem_limb(divisor).0);
    // The quotient is below `factor`.
    Ok(Zeroizing::new(quotient.as_words().iter().copied().take(factor.as_words().len()).collect()))
}
