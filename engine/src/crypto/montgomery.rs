//! Squares in Montgomery form. What `crypto_bigint` does not have is that a square takes half the products of a product; of
//! raising to 65537, sixteen in seventeen steps are squares.

use crypto_bigint::{WideWord, Word};

/// A modulus, odd.
pub(super) struct Modulus<'a> {
    n: &'a [Word],
    /// `-1 / n` modulo the size of a word.
    inverse: Word,
}

impl<'a> Modulus<'a> {
    pub(super) fn new(n: &'a [Word]) -> Self {
        let lowest = n.first().copied().unwrap_or(1);
        // Each step doubles the bits that are right; of an odd number three are to begin with.
        let inverse = (0..5).fold(lowest, |inverse, _| {
            inverse.wrapping_mul(Word::wrapping_sub(2, lowest.wrapping_mul(inverse)))
        });
        Self { n, inverse: inverse.wrapping_neg() }
    }

    /// Squares `number`, which is below the modulus and of as many words, so many times. The time does not depend on it.
    pub(super) fn square_repeatedly(&self, number: &mut [Word], times: u32) {
        let mut product = zeroize::Zeroizing::new(vec![0; number.len().saturating_mul(2)]);
        for _ in 0..times {
            square(number, &mut product);
            self.reduce(&mut product, number);
        }
    }

    /// Doubles `number`, which is below the modulus and of as many words, where `choice` is 1, and not where it is 0. The time depends on neither.
    fn double_if(&self, number: &mut [Word], choice: Word) {
        let choice = choice.wrapping_neg();
        let (mut shifted, mut borrow): (Word, Word) = (0, 0);
        let mut doubled = zeroize::Zeroizing::new(vec![(0, 0); number.len()]);
        for ((word, &n), (twice, less)) in number.iter().zip(self.n).zip(doubled.iter_mut()) {
            *twice = (*word << 1) | shifted;
            shifted = *word >> (Word::BITS - 1);
            let (low, high) = halves(wide(*twice).wrapping_sub(wide(n)).wrapping_sub(wide(borrow)));
            *less = low;
            borrow = high & 1;
        }
        let keep = (shifted.wrapping_sub(borrow) >> (Word::BITS - 1)).wrapping_neg();
        for (word, &(twice, less)) in number.iter_mut().zip(&*doubled) {
            let result = less ^ (keep & (less ^ twice));
            *word ^= choice & (*word ^ result);
        }
    }

    /// 2 to the power of `exponent`, in Montgomery form; `one` is 1 in that form. The time depends on the length of the modulus only.
    pub(super) fn power_of_two(&self, one: &[Word], exponent: &[Word]) -> zeroize::Zeroizing<Vec<Word>> {
        let mut result = zeroize::Zeroizing::new(one.to_vec());
        let mut product = zeroize::Zeroizing::new(vec![0; one.len().saturating_mul(2)]);
        for &word in exponent.iter().rev() {
            for bit in (0..Word::BITS).rev() {
                square(&result, &mut product);
                self.reduce(&mut product, &mut result);
                self.double_if(&mut result, word.wrapping_shr(bit) & 1);
            }
        }
        result
    }

    /// `product / 2^(bits of the modulus)`, modulo it.
    fn reduce(&self, product: &mut [Word], out: &mut [Word]) {
        let mut rest = product;
        let mut above: Word = 0;
        for _ in 0..self.n.len() {
            let factor = rest.first().copied().unwrap_or(0).wrapping_mul(self.inverse);
            let carry = add_multiple(rest, self.n, factor);
            if let Some(word) = rest.get_mut(self.n.len()) {
                (*word, above) = halves(wide(*word).wrapping_add(wide(carry)).wrapping_add(wide(above)));
            }
            // The lowest word is zero now.
            rest = rest.get_mut(1..).unwrap_or_default();
        }
        let mut borrow: Word = 0;
        for ((out, &word), &n) in out.iter_mut().zip(&*rest).zip(self.n) {
            let (low, high) = halves(wide(word).wrapping_sub(wide(n)).wrapping_sub(wide(borrow)));
            *out = low;
            borrow = high & 1;
        }
        // All ones when there was nothing to subtract.
        let keep = above.wrapping_sub(borrow) >> (Word::BITS - 1);
        let keep = keep.wrapping_neg();
        for (out, &word) in out.iter_mut().zip(&*rest) {
            *out ^= keep & (*out ^ word);
        }
    }
}

fn wide(word: Word) -> WideWord {
    WideWord::from(word)
}

/// The lower and the higher word.
#[expect(clippy::cast_possible_truncation, reason = "the two halves, each whole")]
const fn halves(number: WideWord) -> (Word, Word) {
    (number as Word, (number >> Word::BITS) as Word)
}

/// Adds `factor` times `number` to the front of `to`; returns what goes beyond.
fn add_multiple(to: &mut [Word], number: &[Word], factor: Word) -> Word {
    let mut carry = 0;
    for (to, &word) in to.iter_mut().zip(number) {
        // At most (B - 1)^2 + 2 (B - 1), which is B^2 - 1.
        let sum = wide(factor).wrapping_mul(wide(word)).wrapping_add(wide(*to)).wrapping_add(wide(carry));
        (*to, carry) = halves(sum);
    }
    carry
}

/// The square of `number`, in twice as many words.
fn square(number: &[Word], out: &mut [Word]) {
    out.fill(0);
    // The products of two different words, each once: a row for each word and those above it.
    let (mut above, mut row) = (number, out.get_mut(1..).unwrap_or_default());
    while let Some((&word, rest)) = above.split_first() {
        let carry = add_multiple(row, rest, word);
        if let Some(top) = row.get_mut(rest.len()) {
            *top = carry;
        }
        row = row.get_mut(2..).unwrap_or_default();
        above = rest;
    }
    // Twice these, and the squares of the words.
    let (mut shifted, mut carry): (Word, Word) = (0, 0);
    for (pair, &word) in out.chunks_exact_mut(2).zip(number) {
        let (low, high) = halves(wide(word).wrapping_mul(wide(word)));
        for (out, part) in pair.iter_mut().zip([low, high]) {
            let doubled = (*out << 1) | shifted;
            shifted = *out >> (Word::BITS - 1);
            (*out, carry) = halves(wide(doubled).wrapping_add(wide(part)).wrapping_add(wide(carry)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{HashAlg, KdfaStream, RandomSource};
    use crypto_bigint::modular::{BoxedMontyForm, BoxedMontyParams};
    use crypto_bigint::{BoxedUint, Odd};

    #[test]
    fn squares_are_those_of_crypto_bigint() {
        let mut stream = KdfaStream::new(HashAlg::Sha256, b"squares", b"TEST", b"");
        for bits in [64, 128, 1024, 2048] {
            let mut number = |first: u8, last: u8| {
                let mut bytes = vec![0; bits as usize / 8];
                stream.fill(&mut bytes);
                bytes[0] |= first;
                *bytes.last_mut().unwrap() |= last;
                BoxedUint::from_be_slice(&bytes, bits).unwrap()
            };
            // One with few bits set, and one with all: where carries are.
            let mut moduli: Vec<BoxedUint> = (0..8).map(|_| number(0x80, 1)).collect();
            moduli.push(BoxedUint::max(bits));
            moduli.push(
                BoxedUint::one_with_precision(bits)
                    .wrapping_add(BoxedUint::max(bits).shr(1))
                    .bitor(&BoxedUint::one_with_precision(bits)),
            );
            for n in moduli {
                let params = BoxedMontyParams::new_vartime(Odd::new(n.clone()).unwrap());
                let one = BoxedUint::one_with_precision(bits);
                let numbers = [
                    BoxedUint::zero_with_precision(bits),
                    one.clone(),
                    n.wrapping_sub(&one),
                    number(0, 0),
                    number(0, 0),
                ];
                for x in numbers {
                    let x = x.rem(n.as_nz_vartime().unwrap());
                    let mut expected = BoxedMontyForm::from_montgomery(x.clone(), &params);
                    for times in 1..4 {
                        expected = expected.square();
                        let mut words = x.as_words().to_vec();
                        Modulus::new(n.as_words()).square_repeatedly(&mut words, times);
                        assert_eq!(words, expected.as_montgomery().as_words());
                    }
                    let two = one.wrapping_add(&one).rem(n.as_nz_vartime().unwrap());
                    let power = BoxedMontyForm::new(two, &params).pow(&x);
                    let one = BoxedMontyForm::one(&params);
                    let modulus = Modulus::new(n.as_words());
                    let words = modulus.power_of_two(one.as_montgomery().as_words(), x.as_words());
                    assert_eq!(words.as_slice(), power.as_montgomery().as_words());
                }
            }
        }
    }
}
