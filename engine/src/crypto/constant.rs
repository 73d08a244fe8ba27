//! Constants as they are published: in hexadecimal digits.

/// Bytes from hexadecimal digits, when the program is compiled.
#[expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    reason = "evaluated by the compiler only"
)]
#[must_use]
pub const fn hex<const N: usize>(digits: &[u8]) -> [u8; N] {
    const fn digit(d: u8) -> u8 {
        match d {
            b'0'..=b'9' => d - b'0',
            b'a'..=b'f' => d - b'a' + 10,
            _ => panic!("not a hexadecimal digit"),
        }
    }
    assert!(digits.len() == 2 * N);
    let mut out = [0; N];
    let mut i = 0;
    while i < N {
        out[i] = digit(digits[2 * i]) << 4 | digit(digits[2 * i + 1]);
        i += 1;
    }
    out
}
