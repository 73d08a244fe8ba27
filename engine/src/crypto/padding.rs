//! The padding of RFC 8017: PKCS #1 v1.5 and PSS for signatures, PKCS #1 v1.5 and OAEP for encryption.
//!
//! Blocks are as long as the modulus, and every modulus here is a whole number of bytes with its highest bit set.
//!
//! # Constant time
//!
//! The two decoders for encryption see the result of a private-key operation. They touch every byte of the block
//! whatever it holds, gather all findings in one `subtle::Choice`, and find the start of the message with
//! conditional selection. The single branch on a secret is the last one, on the final verdict, which the
//! caller learns anyway; only after a positive verdict does the message's length, which the caller also
//! learns, show in a memory access. All failures are one and the same error, so neither code nor timing tells
//! the first byte from the rest (Manger) or one format error from another.
//! For v1.5 the verdict itself is what Bleichenbacher's attack asks for; TPM 2.0 mandates that code, and dictionary
//! attack protection does not cover it. Nothing in here can change that.

use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use zeroize::Zeroizing;

use super::CryptoError;
use super::hash::{HashAlg, Hasher, ct_eq};
use super::rng::RandomSource;

/// The least number of padding bytes in PKCS #1 v1.5.
const MIN_V15_PADDING: usize = 8;

/// How often a byte that must not be zero is drawn before the source is given up as broken.
const MAX_BYTE_DRAWS: u32 = 64;

/// XORs MGF1 of `seed` (RFC 8017, B.2.1) onto `data`.
pub fn mgf1_xor(alg: HashAlg, seed: &[u8], data: &mut [u8]) {
    let mut seeded = Hasher::new(alg);
    seeded.update(seed);
    for (counter, chunk) in (0_u32..).zip(data.chunks_mut(alg.digest_size())) {
        let mut hasher = seeded.clone();
        hasher.update(&counter.to_be_bytes());
        let mask = hasher.finish();
        for (byte, mask) in chunk.iter_mut().zip(mask.iter()) {
            *byte ^= mask;
        }
    }
}

/// EMSA-PKCS1-v1_5 (RFC 8017, 9.2): `00 01 FF… 00 DigestInfo`.
pub(super) fn encode_rsassa(alg: HashAlg, digest: &[u8], size: usize) -> Result<Vec<u8>, CryptoError> {
    if digest.len() != alg.digest_size() {
        return Err(CryptoError::Length);
    }
    let prefix = alg.digest_info_prefix();
    let filler = size
        .checked_sub(prefix.len())
        .and_then(|left| left.checked_sub(digest.len()))
        .and_then(|left| left.checked_sub(3))
        .filter(|filler| *filler >= MIN_V15_PADDING)
        .ok_or(CryptoError::HashTooLarge)?;
    Ok([&[0x00, 0x01], vec![0xff; filler].as_slice(), &[0x00], prefix, digest].concat())
}

/// The salt of a PSS signature that this TPM makes: as long as the digest, or what the key leaves room for
/// (Part 1, B.7, and FIPS 186-5, which caps it at the digest).
pub(super) fn pss_salt_size(alg: HashAlg, size: usize) -> Result<usize, CryptoError> {
    let room = size
        .checked_sub(alg.digest_size())
        .and_then(|left| left.checked_sub(2))
        .ok_or(CryptoError::HashTooLarge)?;
    Ok(room.min(alg.digest_size()))
}

/// EMSA-PSS (RFC 8017, 9.1.1) with MGF1 of the same hash.
pub(super) fn encode_pss(
    alg: HashAlg,
    digest: &[u8],
    size: usize,
    rng: &mut dyn RandomSource,
) -> Result<Vec<u8>, CryptoError> {
    if digest.len() != alg.digest_size() {
        return Err(CryptoError::Length);
    }
    let mut salt = vec![0; pss_salt_size(alg, size)?];
    rng.fill(&mut salt);
    let hash = alg.digest(&[&[0; 8], digest, &salt]);

    let zeros = size
        .checked_sub(hash.len())
        .and_then(|left| left.checked_sub(salt.len()))
        .and_then(|left| left.checked_sub(2))
        .ok_or(CryptoError::HashTooLarge)?;
    let mut block = [vec![0; zeros].as_slice(), &[0x01], &salt].concat();
    mgf1_xor(alg, &hash, &mut block);
    clear_top_bit(&mut block);
    block.extend_from_slice(&hash);
    block.push(0xbc);
    Ok(block)
}

/// EMSA-PSS verification (RFC 8017, 9.1.2), for a salt of any length.
pub(super) fn verify_pss(alg: HashAlg, digest: &[u8], block: &[u8]) -> bool {
    check_pss(alg, digest, block).unwrap_or(false)
}

fn check_pss(alg: HashAlg, digest: &[u8], block: &[u8]) -> Option<bool> {
    if digest.len() != alg.digest_size() || block.first()? & 0x80 != 0 {
        return None;
    }
    let (trailer, rest) = block.split_last()?;
    let (masked, hash) = rest.split_at_checked(rest.len().checked_sub(alg.digest_size())?)?;
    if *trailer != 0xbc {
        return None;
    }
    let mut data = masked.to_vec();
    mgf1_xor(alg, hash, &mut data);
    clear_top_bit(&mut data);
    let separator = data.iter().position(|byte| *byte != 0)?;
    let (one, salt) = data.get(separator..)?.split_first()?;
    Some(*one == 0x01 && ct_eq(hash, &alg.digest(&[&[0; 8], digest, salt])))
}

fn clear_top_bit(block: &mut [u8]) {
    if let Some(first) = block.first_mut() {
        *first &= 0x7f;
    }
}

/// EME-OAEP encoding (RFC 8017, 7.1.1) with MGF1 of the same hash.
pub(super) fn encode_oaep(
    alg: HashAlg,
    label: &[u8],
    message: &[u8],
    size: usize,
    rng: &mut dyn RandomSource,
) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
    let room = size
        .checked_sub(alg.digest_size().saturating_mul(2))
        .and_then(|left| left.checked_sub(2))
        .ok_or(CryptoError::HashTooLarge)?;
    let zeros = room.checked_sub(message.len()).ok_or(CryptoError::MessageTooLong)?;

    let mut seed = Zeroizing::new(vec![0; alg.digest_size()]);
    rng.fill(&mut seed);
    let label = alg.digest(&[label]);
    let mut data = Zeroizing::new([label.as_slice(), vec![0; zeros].as_slice(), &[0x01], message].concat());
    mgf1_xor(alg, &seed, &mut data);
    mgf1_xor(alg, &data, &mut seed);
    Ok(Zeroizing::new([&[0x00], seed.as_slice(), &data].concat()))
}

/// EME-OAEP decoding (RFC 8017, 7.1.2), in constant time as the module documentation has it.
pub(super) fn decode_oaep(
    alg: HashAlg,
    label: &[u8],
    block: &[u8],
) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
    // Lengths are public.
    if block.len() < alg.digest_size().saturating_mul(2).saturating_add(2) {
        return Err(CryptoError::HashTooLarge);
    }
    let (first, rest) = block.split_first().ok_or(CryptoError::Padding)?;
    let (seed, data) = rest.split_at_checked(alg.digest_size()).ok_or(CryptoError::Padding)?;
    let mut seed = Zeroizing::new(seed.to_vec());
    let mut data = Zeroizing::new(data.to_vec());
    mgf1_xor(alg, &data, &mut seed);
    mgf1_xor(alg, &seed, &mut data);
    let (hash, padded) = data.split_at_checked(alg.digest_size()).ok_or(CryptoError::Padding)?;

    let mut valid = first.ct_eq(&0) & hash.ct_eq(&alg.digest(&[label]));
    let mut in_zeros = Choice::from(1);
    let mut start = 0_u32;
    for (position, byte) in (1_u32..).zip(padded) {
        let is_zero = byte.ct_eq(&0);
        let is_one = byte.ct_eq(&1);
        start.conditional_assign(&position, in_zeros & is_one);
        valid &= !in_zeros | is_zero | is_one;
        in_zeros &= is_zero;
    }
    valid &= !in_zeros;
    message_from(padded, start, valid)
}

/// EME-PKCS1-v1_5 encoding (RFC 8017, 7.2.1): `00 02 nonzero… 00 message`.
pub(super) fn encode_rsaes(
    message: &[u8],
    size: usize,
    rng: &mut dyn RandomSource,
) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
    let filler = size
        .checked_sub(message.len())
        .and_then(|left| left.checked_sub(3))
        .filter(|filler| *filler >= MIN_V15_PADDING)
        .ok_or(CryptoError::MessageTooLong)?;
    let mut padding = Zeroizing::new(vec![0; filler]);
    rng.fill(&mut padding);
    for byte in padding.iter_mut() {
        let mut draws = 0_u32;
        while *byte == 0 {
            if draws == MAX_BYTE_DRAWS {
                return Err(CryptoError::Exhausted);
            }
            rng.fill(core::slice::from_mut(byte));
            draws = draws.saturating_add(1);
        }
    }
    Ok(Zeroizing::new([&[0x00, 0x02], padding.as_slice(), &[0x00], message].concat()))
}

/// EME-PKCS1-v1_5 decoding (RFC 8017, 7.2.2), in constant time as the module documentation has it.
pub(super) fn decode_rsaes(block: &[u8]) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
    let (header, padded) = block.split_at_checked(2).ok_or(CryptoError::Padding)?;
    let mut valid = header.ct_eq(&[0x00, 0x02]);
    let mut in_padding = Choice::from(1);
    let mut start = 0_u32;
    for (position, byte) in (1_u32..).zip(padded) {
        let is_zero = byte.ct_eq(&0);
        start.conditional_assign(&position, in_padding & is_zero);
        // The padding may end only when it is long enough; this condition is on the position, which is public.
        if position <= MIN_V15_PADDING as u32 {
            valid &= !is_zero;
        }
        in_padding &= !is_zero;
    }
    valid &= !in_padding;
    message_from(padded, start, valid)
}

/// The one place where a decoder turns its verdict into control flow.
fn message_from(padded: &[u8], start: u32, valid: Choice) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
    if !bool::from(valid) {
        return Err(CryptoError::Padding);
    }
    padded.get(start as usize..).map(|message| Zeroizing::new(message.to_vec())).ok_or(CryptoError::Padding)
}
