//! A bounds-checked reader, a writer, and the two traits that every structure of this crate implements.
//!
//! All integers are big-endian, as Part 1, "Canonicalization" has it. [`decode_exact`] is the way in for whole
//! messages: it refuses trailing bytes.

use crate::rc::ResponseCode;

/// Reads a byte string from front to back; nothing it does can go past the end.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// How many bytes are left.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// True when all has been read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// What is left, without taking it.
    #[must_use]
    pub fn peek_rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `n` bytes.
    ///
    /// # Errors
    /// `TPM_RC_INSUFFICIENT` when fewer are left.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], ResponseCode> {
        let (head, tail) = self.rest.split_at_checked(n).ok_or(ResponseCode::INSUFFICIENT)?;
        self.rest = tail;
        Ok(head)
    }

    /// All that is left.
    pub fn take_rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.rest)
    }

    /// The next `N` bytes as an array.
    ///
    /// # Errors
    /// `TPM_RC_INSUFFICIENT` when fewer are left.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], ResponseCode> {
        let (head, tail) = self.rest.split_first_chunk::<N>().ok_or(ResponseCode::INSUFFICIENT)?;
        self.rest = tail;
        Ok(*head)
    }

    /// A `TPM2B`: a 16-bit size, then as many bytes.
    ///
    /// # Errors
    /// `TPM_RC_SIZE` when the size is over `max`, `TPM_RC_INSUFFICIENT` when the bytes are not there.
    pub fn sized(&mut self, max: usize) -> Result<&'a [u8], ResponseCode> {
        let size = usize::from(u16::decode(self)?);
        if size > max {
            return Err(ResponseCode::SIZE);
        }
        self.take(size)
    }

    /// Refuses bytes that nobody read.
    ///
    /// # Errors
    /// `TPM_RC_SIZE` when bytes are left.
    pub fn finish(self) -> Result<(), ResponseCode> {
        if self.rest.is_empty() { Ok(()) } else { Err(ResponseCode::SIZE) }
    }
}

/// Appends the canonical bytes of a value.
pub trait Encode {
    /// Appends to `out`.
    fn encode(&self, out: &mut Vec<u8>);

    /// The bytes on their own.
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }
}

/// Reads a value from its canonical bytes.
pub trait Decode: Sized {
    /// Takes the value from the front of `r`.
    ///
    /// # Errors
    /// A format-zero base code (`TPM_RC_VALUE`, `TPM_RC_SIZE`, …) of Part 2; who calls adds the number of the parameter, handle or
    /// session.
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode>;
}

/// Reads one value that must fill all of `bytes`.
///
/// # Errors
/// What `T::decode` says, and `TPM_RC_SIZE` for trailing bytes.
pub fn decode_exact<T: Decode>(bytes: &[u8]) -> Result<T, ResponseCode> {
    let mut r = Reader::new(bytes);
    let value = T::decode(&mut r)?;
    r.finish()?;
    Ok(value)
}

/// Appends a `TPM2B` of `bytes`. A longer one than 65,535 bytes cannot arise from capped types; it is cut rather than
/// written with a size that lies.
pub fn encode_sized(bytes: &[u8], out: &mut Vec<u8>) {
    let size = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    size.encode(out);
    out.extend_from_slice(bytes.get(..usize::from(size)).unwrap_or_default());
}

/// Appends what `f` writes, preceded by its 16-bit size: a `TPM2B` around a structure. It is written in place, so that of a secret no second
/// copy comes to be; what is too long is cut, as in [`encode_sized`].
pub fn encode_sized_with(out: &mut Vec<u8>, f: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    0u16.encode(out);
    let start = out.len();
    f(out);
    let size = u16::try_from(out.len().saturating_sub(start)).unwrap_or(u16::MAX);
    out.truncate(start.saturating_add(usize::from(size)));
    if let Some(field) = out.get_mut(at..).and_then(|o| o.first_chunk_mut()) {
        *field = size.to_be_bytes();
    }
}

macro_rules! integers {
    ($($t:ty),*) => {$(
        impl Encode for $t {
            fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_be_bytes());
            }
        }
        impl Decode for $t {
            fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
                Ok(<$t>::from_be_bytes(r.array()?))
            }
        }
    )*};
}
integers!(u8, u16, u32, u64, i32);

impl Encode for () {
    fn encode(&self, _out: &mut Vec<u8>) {}
}

impl Decode for () {
    fn decode(_r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        Ok(())
    }
}

impl<const N: usize> Encode for [u8; N] {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
}

impl<const N: usize> Decode for [u8; N] {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        r.array()
    }
}

impl<T: Encode + ?Sized> Encode for &T {
    fn encode(&self, out: &mut Vec<u8>) {
        (**self).encode(out);
    }
}

impl<T: Encode + ?Sized> Encode for std::sync::Arc<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        (**self).encode(out);
    }
}

impl<T: Decode> Decode for std::sync::Arc<T> {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        T::decode(r).map(Self::new)
    }
}

/// `TPMI_YES_NO`: one byte, 0 or 1.
impl Encode for bool {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
}

impl Decode for bool {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        match u8::decode(r)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(ResponseCode::VALUE),
        }
    }
}

macro_rules! tuples {
    ($(($($n:ident),+))*) => {$(
        impl<$($n: Encode),+> Encode for ($($n,)+) {
            #[expect(non_snake_case, reason = "the type parameters name the fields")]
            fn encode(&self, out: &mut Vec<u8>) {
                let ($($n,)+) = self;
                $($n.encode(out);)+
            }
        }
        impl<$($n: Decode),+> Decode for ($($n,)+) {
            fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
                Ok(($($n::decode(r)?,)+))
            }
        }
    )*};
}
tuples! { (A) (A, B) (A, B, C) (A, B, C, D) (A, B, C, D, E) (A, B, C, D, E, F) }

/// Declares a structure whose canonical form is its fields in order.
#[macro_export]
macro_rules! structure {
    ($(#[$m:meta])* $vis:vis struct $name:ident { $($(#[$fm:meta])* $fvis:vis $f:ident : $t:ty),* $(,)? }) => {
        $(#[$m])*
        $vis struct $name { $($(#[$fm])* $fvis $f: $t),* }

        impl $crate::codec::Encode for $name {
            fn encode(&self, out: &mut Vec<u8>) {
                let _ = &out;
                $($crate::codec::Encode::encode(&self.$f, out);)*
            }
        }

        impl $crate::codec::Decode for $name {
            fn decode(r: &mut $crate::codec::Reader<'_>) -> Result<Self, $crate::rc::ResponseCode> {
                let _ = &r;
                Ok(Self { $($f: $crate::codec::Decode::decode(r)?),* })
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_over_the_cap_is_refused_before_the_bytes_are_looked_at() {
        assert_eq!(Reader::new(&[0xff, 0xff]).sized(64), Err(ResponseCode::SIZE));
        assert_eq!(Reader::new(&[0, 3, 1, 2]).sized(64), Err(ResponseCode::INSUFFICIENT));
        assert_eq!(Reader::new(&[0, 2, 1, 2]).sized(64), Ok(&[1u8, 2][..]));
    }

    #[test]
    fn trailing_bytes_are_refused() {
        assert_eq!(decode_exact::<u16>(&[0, 1, 2]), Err(ResponseCode::SIZE));
        assert_eq!(decode_exact::<u16>(&[0]), Err(ResponseCode::INSUFFICIENT));
        assert_eq!(decode_exact::<(u8, bool)>(&[7, 1]), Ok((7, true)));
        assert_eq!(decode_exact::<bool>(&[2]), Err(ResponseCode::VALUE));
    }

    #[test]
    fn a_tpm2b_around_a_structure_carries_its_size() {
        let mut out = vec![9];
        encode_sized_with(&mut out, |o| 0x0102_0304u32.encode(o));
        assert_eq!(out, [9, 0, 4, 1, 2, 3, 4]);
        // One in another, none, and one that is too long.
        out.clear();
        encode_sized_with(&mut out, |o| encode_sized_with(o, |_| ()));
        assert_eq!(out, [0, 2, 0, 0]);
        out.clear();
        encode_sized_with(&mut out, |o| o.resize(70_000, 7));
        assert_eq!((out.len(), &out[..3]), (2 + 65_535, &[0xff, 0xff, 7][..]));
    }
}
