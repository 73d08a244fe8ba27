//! Secrets, and whether a log has them, or a part of one, however it is spelled.

use std::collections::BTreeMap;
use std::path::Path;

/// So many bytes in a row are no coincidence.
const PART: usize = 8;

/// What must not be in a log.
#[derive(Default)]
pub struct Secrets {
    /// How a part is spelled, and whose it is.
    spellings: BTreeMap<Vec<u8>, String>,
    lengths: std::collections::BTreeSet<usize>,
}

/// The base64 of RFC 4648, without what fills it up.
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits: String = bytes.iter().map(|byte| format!("{byte:08b}")).collect();
    let digits = bits.as_bytes().chunks(6).map(|six| {
        let number = six.iter().fold(0usize, |n, bit| n * 2 + usize::from(bit - b'0')) << (6 - six.len());
        char::from(DIGITS[number])
    });
    digits.collect()
}

impl Secrets {
    /// A fresh secret of so many bytes.
    pub fn new_one(&mut self, what: &str, length: usize) -> Vec<u8> {
        let mut secret = vec![0; length];
        getrandom::fill(&mut secret).unwrap();
        self.add(what, &secret);
        secret
    }

    /// Another one.
    pub fn add(&mut self, what: &str, secret: &[u8]) {
        assert!(secret.len() >= PART, "{what}");
        for part in secret.windows(PART) {
            let pairs = |form: fn(&u8) -> String, between: &str| {
                part.iter().map(form).collect::<Vec<_>>().join(between)
            };
            let lower = |b: &u8| format!("{b:02x}");
            let upper = |b: &u8| format!("{b:02X}");
            let mut forms = vec![part.to_vec()];
            for between in ["", ":", " ", ", ", "0x", ", 0x"] {
                forms.extend([pairs(lower, between).into_bytes(), pairs(upper, between).into_bytes()]);
            }
            for between in [", ", ","] {
                forms.push(pairs(|b| b.to_string(), between).into_bytes());
            }
            // Wherever it begins, these digits are those of whole bytes of the part.
            for before in 0..3 {
                let shifted = [&vec![0; before][..], part].concat();
                let digits = base64(&shifted);
                let (first, last) = ((before * 8).div_ceil(6), shifted.len() * 8 / 6);
                let inner = digits[first..last].to_owned();
                forms.push(inner.replace('+', "-").replace('/', "_").into_bytes());
                forms.push(inner.into_bytes());
            }
            for form in forms {
                self.lengths.insert(form.len());
                self.spellings.insert(form, what.to_owned());
            }
        }
    }

    /// Which one the log has.
    pub fn found_in(&self, log: &[u8]) -> Option<String> {
        let mut windows = self.lengths.iter().flat_map(|length| log.windows(*length));
        windows.find_map(|window| self.spellings.get(window)).cloned()
    }
}

/// The host key as it is in its file, without its spelling.
pub fn host_key(state: &Path) -> Vec<u8> {
    let bytes = std::fs::read(state.join("host.key")).unwrap();
    let text = std::str::from_utf8(&bytes).ok().map(str::trim);
    text.and_then(|text| hex::decode(text).ok()).unwrap_or(bytes)
}
