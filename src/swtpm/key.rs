//! Keys that protect a state: given as such, or derived from a passphrase as swtpm does it.

use std::fs::File;
use std::io::Read;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha512};
use zeroize::Zeroizing;

use super::error::{SwtpmError, file};
use super::process::take_fd;
use super::suboptions::SubOptions;

const NAMES: &[&str] = &["file", "mode", "format", "remove", "pwdfile", "kdf", "fd", "pwdfd"];
/// Of swtpm's PBKDF2.
const SALT: &[u8] = b"swtpm";
/// Of swtpm's PBKDF2.
const ROUNDS: u32 = 1000;
/// The longest file with a key or passphrase.
const MAX_FILE: u64 = 1 << 16;

/// Reads the key that the value of `option` names.
pub(super) fn load(option: &'static str, text: &str) -> Result<Zeroizing<Vec<u8>>, SwtpmError> {
    let sub = SubOptions::parse(option, NAMES, text)?;
    let length = match sub.text("mode").unwrap_or("aes-128-cbc") {
        "aes-cbc" | "aes-128-cbc" => 16,
        "aes-256-cbc" => 32,
        other => return Err(sub.wrong("mode", other)),
    };
    let hex = match sub.text("format").unwrap_or("hex") {
        "hex" => true,
        "binary" => false,
        other => return Err(sub.wrong("format", other)),
    };
    let pbkdf2 = match sub.text("kdf").unwrap_or("pbkdf2") {
        "pbkdf2" => true,
        "sha512" => false,
        other => return Err(sub.wrong("kdf", other)),
    };
    let remove = sub.flag("remove")?;
    let key = if let Some(bytes) = read(&sub, "file", "fd")? {
        let key = if hex { from_hex(&bytes, length) } else { Some(bytes) };
        key.filter(|key| key.len() == length)
            .ok_or_else(|| sub.needs("the key does not have the length of its mode"))?
    } else if let Some(passphrase) = read(&sub, "pwdfile", "pwdfd")? {
        let mut long = if pbkdf2 { first_block(&passphrase) } else { hash(&passphrase) };
        long.truncate(length);
        long
    } else {
        return Err(sub.needs("one of file=, fd=, pwdfile= and pwdfd= is needed"));
    };
    if remove {
        for path in [sub.text("file"), sub.text("pwdfile")].into_iter().flatten() {
            std::fs::remove_file(path).map_err(file("remove", path))?;
        }
    }
    Ok(key)
}

fn read(
    sub: &SubOptions,
    path: &'static str,
    descriptor: &'static str,
) -> Result<Option<Zeroizing<Vec<u8>>>, SwtpmError> {
    let source = match (sub.text(path), sub.descriptor(descriptor)?) {
        (Some(path), _) => File::open(path).map_err(file("open", path))?,
        (None, Some(fd)) => File::from(take_fd(fd)?),
        (None, None) => return Ok(None),
    };
    let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
    source
        .take(MAX_FILE)
        .read_to_end(&mut bytes)
        .map_err(file("read", sub.text(path).unwrap_or("the key")))?;
    Ok(Some(bytes))
}

/// Digits up to the first space, perhaps behind `0x`; more than the key takes are left, as swtpm leaves none.
fn from_hex(bytes: &[u8], length: usize) -> Option<Zeroizing<Vec<u8>>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let text = text.strip_prefix("0x").unwrap_or(text);
    let digits = text.split(char::is_whitespace).next()?;
    let key = Zeroizing::new(hex::decode(digits).ok()?);
    (key.len() == length).then_some(key)
}

fn hash(passphrase: &[u8]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(Sha512::digest(passphrase).to_vec())
}

/// The first block of PBKDF2 (RFC 8018) with HMAC-SHA-512, which is longer than any key.
fn first_block(passphrase: &[u8]) -> Zeroizing<Vec<u8>> {
    // HMAC's own rule for keys, with which no length is wrong.
    let mut block = Zeroizing::new([0u8; 128]);
    let short =
        if passphrase.len() > block.len() { hash(passphrase) } else { Zeroizing::new(passphrase.to_vec()) };
    block.iter_mut().zip(short.iter()).for_each(|(to, from)| *to = *from);
    let mac = |parts: &[&[u8]]| {
        let mut mac = Hmac::<Sha512>::new((&*block).into());
        parts.iter().for_each(|part| mac.update(part));
        Zeroizing::new(mac.finalize().into_bytes().to_vec())
    };
    let mut last = mac(&[SALT, &1u32.to_be_bytes()]);
    let mut sum = last.clone();
    for _ in 1..ROUNDS {
        last = mac(&[&last]);
        sum.iter_mut().zip(last.iter()).for_each(|(to, from)| *to ^= *from);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(content: &[u8], rest: &str, name: &str) -> Result<String, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        std::fs::write(&path, content).unwrap();
        let key = load("--key", &format!("{name}={}{rest}", path.display()));
        assert_eq!(path.exists(), !rest.contains("remove") || key.is_err());
        key.map(hex::encode).map_err(|e| e.to_string())
    }

    #[test]
    fn keys_are_read_in_every_form() {
        let digits = "00112233445566778899aabbccddeeff";
        assert_eq!(key(digits.as_bytes(), "", "file").unwrap(), digits);
        assert_eq!(key(format!("0x{digits}\n").as_bytes(), ",remove", "file").unwrap(), digits);
        assert_eq!(
            key(b"0123456789abcdef", ",format=binary", "file").unwrap(),
            hex::encode("0123456789abcdef")
        );
        let long = digits.repeat(2);
        assert_eq!(key(long.as_bytes(), ",mode=aes-256-cbc", "file").unwrap(), long);
        // hashlib.pbkdf2_hmac('sha512', b'secret', b'swtpm', 1000, 32) and hashlib.sha512(b'secret') of Python.
        assert_eq!(
            key(b"secret", ",mode=aes-256-cbc", "pwdfile").unwrap(),
            "a1fe2452f0008e5d0f231019b748120fd1510b9b1f127d6c67207583b8e13bdf"
        );
        assert_eq!(key(b"secret", ",kdf=sha512", "pwdfile").unwrap(), "bd2b1aaf7ef4f09be9f52ce2d8d59967");
    }

    #[test]
    fn keys_that_do_not_fit_are_refused() {
        let digits = b"00112233445566778899aabbccddeeff";
        for (content, rest, name) in [
            (&digits[..], ",mode=aes-256-cbc", "file"),
            (&digits[..30], "", "file"),
            (b"no digits at all, none of them!", "", "file"),
            (b"0123456789abcde", ",format=binary", "file"),
            (digits, ",mode=des", "file"),
            (digits, ",kdf=md5", "pwdfile"),
        ] {
            assert!(key(content, rest, name).is_err(), "{rest}");
        }
        assert!(load("--key", "mode=aes-cbc").is_err());
    }
}
