//! The blinding of private operations: what is raised to the private exponent is the input times `r^e`, and the result is multiplied by
//! the inverse of `r`, so that whoever chooses inputs does not choose what is computed with.
//!
//! To find an inverse takes as long as half of the operation. The pair is therefore kept with the loaded key and squared for the next
//! operation, and made anew after [`USES`] of them. `r` comes from a stream under a key made of the prime and the input, so that
//! an operation needs no random source; who does not know the prime cannot foresee it. What comes out is the same for every `r`.

use crypto_bigint::{BoxedUint, Word};
use zeroize::Zeroizing;

use super::{Arithmetic, RsaPublic};
use crate::crypto::montgomery::{Modulus, Words};
use crate::crypto::{CryptoError, HashAlg, KdfaStream, RandomSource};

/// How many operations one `r` serves, with its squares.
const USES: u32 = 32;

/// What one operation is blinded with.
#[derive(Clone)]
pub(super) struct Blinding {
    /// `r^e`, in Montgomery form.
    factor: Words,
    /// The inverse of `r`, in Montgomery form.
    inverse: Words,
    /// Operations left, this one included.
    left: u32,
}

impl Blinding {
    /// A fresh one, for an operation with `block`.
    ///
    /// # Errors
    ///
    /// [`CryptoError::Fault`] if `r` has no inverse: of a key of two primes it always has one.
    pub(super) fn new(public: &RsaPublic, key: &[u8], block: &[u8]) -> Result<Blinding, CryptoError> {
        let Arithmetic { n, radix } = public.arithmetic();
        let mut bytes = Zeroizing::new(vec![0; public.size]);
        KdfaStream::new(HashAlg::Sha256, key, b"BLINDING", block).fill(&mut bytes);
        // Below the modulus, whose highest bit is set.
        if let Some(first) = bytes.first_mut() {
            *first &= 0x7f;
        }
        let bits = public.n.bits_precision();
        let r = Zeroizing::new(BoxedUint::from_be_slice(&bytes, bits).map_err(|_| CryptoError::Fault)?);
        let inverse = r.invert_odd_mod(&public.n).into_option().ok_or(CryptoError::Fault)?;
        let inverse = n.multiply(Zeroizing::new(inverse).as_words(), radix);
        let factor = n.power_public(&n.multiply(r.as_words(), radix), public.e);
        Ok(Blinding { factor, inverse, left: USES })
    }

    /// That of the next operation; `None` when it is time for another `r`.
    pub(super) fn next(mut self, public: &RsaPublic) -> Option<Blinding> {
        self.left = self.left.checked_sub(1).filter(|left| *left > 0)?;
        let Arithmetic { n, .. } = public.arithmetic();
        n.square_repeatedly(&mut self.factor, 1);
        n.square_repeatedly(&mut self.inverse, 1);
        Some(self)
    }

    /// The input, blinded.
    pub(super) fn apply(&self, n: &Modulus, number: &[Word]) -> Words {
        n.multiply(number, &self.factor)
    }

    /// The result, no longer blinded.
    pub(super) fn remove(&self, n: &Modulus, number: &[Word]) -> Words {
        n.multiply(number, &self.inverse)
    }
}
