//! Commitments: ephemeral private values that `TPM2_Commit` and `TPM2_EC_Ephemeral` promise, and `TPM2_Sign` and `TPM2_ZGen_2Phase`
//! use up (Part 1, C.2.3). They are derived from a nonce and a counter and never stored; what is stored is which of the last
//! [`SPLIT_MAX`] are not used up.

use super::hierarchy::{SEED_SIZE, random_secret};
use crate::crypto::{Curve, HashAlg, KdfaStream, ecc, kdfa};
use vtpm_protocol::structure;
use vtpm_protocol::tpm::{SPLIT_MAX, Secret2b};
use zeroize::Zeroizing;

/// Bits of the array of outstanding commitments.
const PLACES: u64 = SPLIT_MAX as u64;
/// Bytes of the array of outstanding commitments.
const ARRAY_SIZE: usize = SPLIT_MAX as usize / 8;

structure! {
    /// commitCounter, commitNonce and commitArray.
    #[derive(Clone)]
    pub struct Commitments {
        /// Commitments since the last TPM Reset.
        counter: u64,
        /// What they are derived from.
        nonce: Secret2b<64>,
        /// A bit for each that is outstanding, at its number modulo [`SPLIT_MAX`].
        array: [u8; ARRAY_SIZE],
    }
}

impl Commitments {
    /// None yet, and a fresh nonce.
    pub fn fresh(fill_random: &mut dyn FnMut(&mut [u8])) -> Self {
        Self { counter: 0, nonce: random_secret(fill_random), array: [0; ARRAY_SIZE] }
    }

    /// None yet, for a state of a release that knew none; the nonce comes from another secret of the same boot.
    #[must_use]
    pub fn from_secret(secret: &[u8]) -> Self {
        let bits = u32::try_from(SEED_SIZE).unwrap_or_default().saturating_mul(8);
        let nonce = kdfa(HashAlg::Sha512, secret, b"ECDAA Commit nonce", &[], &[], bits);
        let nonce = Secret2b::new(nonce.as_slice()).unwrap_or_default();
        Self { counter: 0, nonce, array: [0; ARRAY_SIZE] }
    }

    /// The value that the next commitment promises, between 1 and the order less one. It is not promised until [`Self::commit`].
    #[must_use]
    pub fn next(&self, curve: Curve, name: &[u8]) -> Zeroizing<Vec<u8>> {
        self.value(self.counter, curve, name)
    }

    /// The value that commitment `count` promised for a curve and the Name of a key; `None` when it is not outstanding.
    #[must_use]
    pub fn promised(&self, count: u16, curve: Curve, name: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (byte, mask) = place(count);
        if self.array.get(byte)? & mask == 0 {
            return None;
        }
        // Of the last SPLIT_MAX numbers the one with this place.
        let distance = self.counter.wrapping_sub(1).wrapping_sub(u64::from(count)) % PLACES;
        let number = self.counter.checked_sub(1)?.checked_sub(distance)?;
        let [.., high, low] = number.to_be_bytes();
        (u16::from_be_bytes([high, low]) == count).then(|| self.value(number, curve, name))
    }

    /// Promises what [`Self::next`] gave, and returns its number.
    pub fn commit(&mut self) -> u16 {
        let [.., high, low] = self.counter.to_be_bytes();
        let count = u16::from_be_bytes([high, low]);
        let (byte, mask) = place(count);
        if let Some(byte) = self.array.get_mut(byte) {
            *byte |= mask;
        }
        self.counter = self.counter.wrapping_add(1);
        count
    }

    /// Uses commitment `count` up.
    pub fn end(&mut self, count: u16) {
        let (byte, mask) = place(count);
        if let Some(byte) = self.array.get_mut(byte) {
            *byte &= !mask;
        }
    }

    fn value(&self, number: u64, curve: Curve, name: &[u8]) -> Zeroizing<Vec<u8>> {
        let context = [name, &number.to_be_bytes()].concat();
        let mut stream = KdfaStream::new(HashAlg::Sha512, self.nonce.expose(), b"ECDAA Commit", &context);
        ecc::draw_private(curve, &mut stream)
    }
}

/// Byte and bit of a commitment in the array.
fn place(count: u16) -> (usize, u8) {
    let index = count % SPLIT_MAX;
    (usize::from(index / 8), 1u8.rotate_left(u32::from(index % 8)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vtpm_protocol::codec::{Encode, decode_exact};

    const CURVE: Curve = Curve::NistP256;

    fn commitments() -> Commitments {
        Commitments::fresh(&mut |out| out.fill(7))
    }

    #[test]
    fn a_value_is_promised_once_and_stays_the_same_until_it_is_used() {
        let mut c = commitments();
        assert!(c.promised(0, CURVE, b"name").is_none());
        let value = c.next(CURVE, b"name");
        assert!(c.promised(0, CURVE, b"name").is_none());
        assert_eq!(c.commit(), 0);
        assert_eq!(c.promised(0, CURVE, b"name"), Some(value.clone()));
        assert_ne!(c.promised(0, CURVE, b"other"), Some(value.clone()));
        assert_ne!(c.next(CURVE, b"name"), value);
        assert_eq!(c.commit(), 1);
        let mut c: Commitments = decode_exact(&c.to_bytes()).unwrap();
        assert_eq!(c.promised(0, CURVE, b"name"), Some(value));
        c.end(0);
        assert!(c.promised(0, CURVE, b"name").is_none());
        assert!(c.promised(1, CURVE, b"name").is_some());
        assert!(c.promised(2, CURVE, b"name").is_none());
    }

    #[test]
    fn only_the_last_128_can_be_outstanding() {
        let mut c = commitments();
        let first = c.next(CURVE, b"");
        for count in 0..128 {
            assert_eq!(c.commit(), count);
        }
        assert_eq!(c.promised(0, CURVE, b""), Some(first.clone()));
        let next = c.next(CURVE, b"");
        assert_eq!(c.commit(), 128);
        // It has the place of the first one.
        assert!(c.promised(0, CURVE, b"").is_none());
        assert_eq!(c.promised(128, CURVE, b""), Some(next));
        assert!(c.promised(127, CURVE, b"").is_some());
        for wrong in [129, 255, 256, 128 + 128, 0x8000, u16::MAX] {
            assert!(c.promised(wrong, CURVE, b"").is_none(), "{wrong}");
        }
    }

    #[test]
    fn numbers_go_on_where_sixteen_bits_end() {
        let mut c = commitments();
        let first = c.next(CURVE, b"");
        c.counter = 0x1_0000 - 2;
        assert_eq!(c.commit(), 0xfffe);
        let last = c.next(CURVE, b"");
        assert_eq!(c.commit(), 0xffff);
        let next = c.next(CURVE, b"");
        assert_eq!(c.commit(), 0);
        assert_eq!(c.promised(0xffff, CURVE, b""), Some(last));
        assert_eq!(c.promised(0, CURVE, b""), Some(next.clone()));
        assert_ne!(next, first);
    }

    #[test]
    fn values_differ_by_nonce() {
        let other = Commitments::fresh(&mut |out| out.fill(8));
        assert_ne!(commitments().next(CURVE, b""), other.next(CURVE, b""));
        let derived = Commitments::from_secret(b"proof").next(CURVE, b"");
        assert_ne!(derived, Commitments::from_secret(b"other proof").next(CURVE, b""));
    }
}
