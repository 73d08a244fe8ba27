//! Randomness, as the engine sees it.

/// A source of random bytes, handed in by whoever runs the engine.
///
/// It cannot fail: a host that cannot gather randomness must not run the engine at all. Functions that
/// document the bytes they draw (key generation) draw exactly those, in that order, so a deterministic source
/// gives a deterministic key.
pub trait RandomSource {
    /// Fills `out` with bytes that nobody can predict.
    fn fill(&mut self, out: &mut [u8]);
}
