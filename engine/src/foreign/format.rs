//! Headers and blocks, which all structures of a libtpms state have.

use super::ForeignError;
use vtpm_protocol::codec::{Decode, Reader};
use vtpm_protocol::rc::ResponseCode;

/// Why a structure could not be read.
#[derive(Debug, PartialEq, Eq)]
pub enum Stop {
    /// The bytes make no sense.
    Damaged(ResponseCode),
    /// They need a reader that knows this version, and the greatest that is known.
    TooNew(u16, u16),
    /// Something that can be said better.
    Said(ForeignError),
}

impl From<ResponseCode> for Stop {
    fn from(code: ResponseCode) -> Self {
        Self::Damaged(code)
    }
}

impl From<ForeignError> for Stop {
    fn from(error: ForeignError) -> Self {
        Self::Said(error)
    }
}

impl Stop {
    /// As an error in the structure of this name.
    pub(super) fn in_structure(self, what: &'static str) -> ForeignError {
        match self {
            Self::Damaged(ResponseCode::INSUFFICIENT) => ForeignError::CutOff(what),
            Self::Damaged(source) => ForeignError::Damaged { what, source },
            Self::TooNew(version, known) => ForeignError::TooNew { what, version, known },
            Self::Said(error) => error,
        }
    }
}

/// A structure of libtpms: its magic, and the greatest version that is known.
#[derive(Clone, Copy)]
pub struct Kind {
    pub magic: u32,
    pub known: u16,
}

impl Kind {
    /// Reads the header and returns the version.
    ///
    /// # Errors
    /// [`Stop`]; `TPM_RC_TAG` for another magic.
    pub fn header(self, r: &mut Reader<'_>) -> Result<u16, Stop> {
        let (version, magic): (u16, u32) = Decode::decode(r)?;
        if magic != self.magic {
            return Err(ResponseCode::BAD_TAG.into());
        }
        if version >= 2 {
            let least = u16::decode(r)?;
            if least > self.known {
                return Err(Stop::TooNew(least, self.known));
            }
        }
        Ok(version)
    }

    /// Reads a structure that this release knows all of: what newer ones have put behind it is passed over.
    pub fn read<'a, T>(
        self,
        r: &mut Reader<'a>,
        f: impl FnOnce(&mut Reader<'a>, u16) -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        let version = self.header(r)?;
        let value = f(r, version)?;
        self.end(r, version)?;
        Ok(value)
    }

    /// The block at the end that newer versions write into.
    ///
    /// # Errors
    /// [`Stop`].
    pub fn end(self, r: &mut Reader<'_>, version: u16) -> Result<(), Stop> {
        if version >= 2 {
            block(r)?;
        }
        Ok(())
    }
}

/// A block that may be there.
///
/// # Errors
/// [`Stop`] for one that is not there and has bytes all the same.
pub fn block<'a>(r: &mut Reader<'a>) -> Result<Option<Reader<'a>>, Stop> {
    let (is_there, size): (bool, u16) = Decode::decode(r)?;
    let bytes = r.take(usize::from(size))?;
    match (is_there, size) {
        (true, _) => Ok(Some(Reader::new(bytes))),
        (false, 0) => Ok(None),
        (false, _) => Err(ResponseCode::SIZE.into()),
    }
}

/// A block that must be there.
///
/// # Errors
/// [`Stop`].
pub fn needed_block<'a>(r: &mut Reader<'a>) -> Result<Reader<'a>, Stop> {
    block(r)?.ok_or(Stop::Damaged(ResponseCode::SIZE))
}

/// A flag as libtpms reads it: anything but zero is set.
///
/// # Errors
/// [`Stop`].
pub fn flag(r: &mut Reader<'_>) -> Result<bool, Stop> {
    Ok(u8::decode(r)? != 0)
}

/// An array with a 16-bit count in front that must be `count`.
///
/// # Errors
/// [`Stop`].
pub fn counted<T>(
    r: &mut Reader<'_>,
    count: u16,
    mut item: impl FnMut(&mut Reader<'_>) -> Result<T, Stop>,
) -> Result<Vec<T>, Stop> {
    if u16::decode(r)? != count {
        return Err(ResponseCode::SIZE.into());
    }
    (0..count).map(|_| item(r)).collect()
}
