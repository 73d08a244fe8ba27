//! Randomness, as the engine sees it.

use core::convert::Infallible;

use rsa::rand_core::{TryCryptoRng, TryRng};

#[cfg(doc)]
use super::CryptoError;

/// A source of random bytes, handed in by whoever runs the engine.
///
/// It cannot fail: a host that cannot gather randomness must not run the engine at all. Functions that
/// document the bytes they draw (key generation) draw exactly those, in that order, so a deterministic source
/// gives a deterministic key.
pub trait RandomSource {
    /// Fills `out` with bytes that nobody can predict.
    fn fill(&mut self, out: &mut [u8]);

    /// Whether nobody waits for the result any more. A search that takes long ends then, with [`CryptoError::Canceled`]; the bytes drawn
    /// do not depend on this.
    fn is_canceled(&mut self) -> bool {
        false
    }
}

/// Lets a [`RandomSource`] be used where the RustCrypto crates ask for a generator of theirs.
pub struct CryptoRngAdapter<'a>(pub &'a mut dyn RandomSource);

impl TryRng for CryptoRngAdapter<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill(out);
        Ok(())
    }
}

impl TryCryptoRng for CryptoRngAdapter<'_> {}
