//! Public keys of a TPM as X.509 has them.

use vtpm_protocol::tpm::{PublicId, PublicParms, TpmEccCurve, TpmtPublic};

/// `OBJECT IDENTIFIER id-ecPublicKey`, RFC 5480.
const EC_PUBLIC_KEY: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// `OBJECT IDENTIFIER rsaEncryption` and its `NULL`, RFC 3279.
const RSA_ENCRYPTION: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;
const INTEGER: u8 = 0x02;

/// What `TPM2_` structures write as exponent 0.
const DEFAULT_EXPONENT: u32 = 65_537;

/// The `SubjectPublicKeyInfo` (DER) of an RSA key or of one on a NIST curve of 256, 384 or 521 bits; `None` for every other.
#[must_use]
pub fn of_public(public: &TpmtPublic) -> Option<Vec<u8>> {
    let (algorithm, key) = match (&public.parms, &public.unique) {
        (PublicParms::Ecc { curve, .. }, PublicId::Ecc(point)) => {
            let (oid, size): (&[u8], usize) = match *curve {
                TpmEccCurve::NIST_P256 => (&[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07], 32),
                TpmEccCurve::NIST_P384 => (&[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22], 48),
                TpmEccCurve::NIST_P521 => (&[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23], 66),
                _ => return None,
            };
            let mut key = vec![4];
            for coordinate in [&point.x, &point.y] {
                // A TPM may leave zeros in front out.
                key.resize(key.len().checked_add(size.checked_sub(coordinate.len())?)?, 0);
                key.extend_from_slice(coordinate);
            }
            ([EC_PUBLIC_KEY, oid].concat(), key)
        }
        (PublicParms::Rsa { exponent, .. }, PublicId::Rsa(modulus)) => {
            let exponent = if *exponent == 0 { DEFAULT_EXPONENT } else { *exponent };
            let numbers = [integer(modulus), integer(&exponent.to_be_bytes())].concat();
            (RSA_ENCRYPTION.to_vec(), element(SEQUENCE, &numbers))
        }
        _ => return None,
    };
    let bits = [&[0], key.as_slice()].concat();
    Some(element(SEQUENCE, &[element(SEQUENCE, &algorithm), element(BIT_STRING, &bits)].concat()))
}

/// A tag, the length, the content.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match u8::try_from(content.len()) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => {
            let bytes = content.len().to_be_bytes();
            let digits: Vec<u8> = bytes.into_iter().skip_while(|b| *b == 0).collect();
            out.push(0x80 | u8::try_from(digits.len()).unwrap_or(0x7f));
            out.extend_from_slice(&digits);
        }
    }
    out.extend_from_slice(content);
    out
}

/// A non-negative number, with as few bytes as it needs.
fn integer(bytes: &[u8]) -> Vec<u8> {
    let mut number: Vec<u8> = bytes.iter().copied().skip_while(|b| *b == 0).collect();
    if number.first().is_none_or(|first| first & 0x80 != 0) {
        number.insert(0, 0);
    }
    element(INTEGER, &number)
}
