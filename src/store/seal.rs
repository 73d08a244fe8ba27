//! Sealing: how an instance's key is wrapped by the host key, and how values are sealed under it.
//!
//! A sealed value is `format (1) | salt (16) | nonce (12) | AES-256-GCM ciphertext | tag (16)`. The key of the cipher
//! is HMAC-SHA-256 of the salt under the instance's key. With 28 random bytes for every value an instance can go on
//! writing for ever, where random nonces of 12 bytes under one key would have to stop after some 2^32 values. Nonces are
//! random rather than counted, because a database put back from a copy would count the same numbers again.
//!
//! The associated data says where a value belongs: the instance, the record's name and the version at which it was
//! written. The instance's own row is sealed in the same way, with no plaintext; its associated data are all columns
//! of the row and the list of the names and versions of all its records.
//!
//! A wrapped instance key is `spread (4096) | format (1) | nonce (12) | ciphertext (32) | tag (16)`, where the wrapping key is HMAC-SHA-256 of the
//! spread under a key derived from the host key. SQLite overwrites what it deletes with zeros, but a page that it
//! rebuilds can keep an old copy of a small cell in a gap. 4 KiB do not fit a cell: they live in a page of their own,
//! which is never copied and is zeroed as a whole; and with any 32 bytes of the spread gone the key is gone. (LUKS spreads
//! its keys for the same reason.)

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, Key, KeyInit, Nonce};
use zeroize::Zeroizing;

use super::{InstanceId, InstanceRow, RecordName, StoreError};
use crate::host_key::{HostKey, keyed_hash};

const FORMAT: u8 = 1;
const SALT_BYTES: usize = 16;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
/// Size of the random bytes before a wrapped key.
pub(super) const SPREAD_BYTES: usize = 4096;

/// A seal did not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

/// The key under which instance keys of one database are wrapped.
pub(super) struct WrappingKey(Zeroizing<[u8; 32]>);

/// The key of one instance.
#[derive(Clone)]
pub(super) struct InstanceKey(Zeroizing<[u8; 32]>);

/// Tells whether a host key belongs to the database with `identity`, without saying anything else about it.
pub(super) fn key_check_value(host_key: &HostKey, identity: &[u8; 16]) -> [u8; 32] {
    *host_key.derive("vtpmd store: host key check", identity)
}

impl WrappingKey {
    pub(super) fn new(host_key: &HostKey, identity: &[u8; 16]) -> Self {
        Self(host_key.derive("vtpmd store: instance keys", identity))
    }

    pub(super) fn wrap(&self, id: InstanceId, key: &InstanceKey) -> Result<Vec<u8>, StoreError> {
        let spread: [u8; SPREAD_BYTES] = random()?;
        let nonce: [u8; NONCE_BYTES] = random()?;
        let mut wrapped = spread.to_vec();
        wrapped.push(FORMAT);
        wrapped.extend_from_slice(&nonce);
        let sealed = encrypt(&self.spread_over(id, &spread), &nonce, &key_place(id), key.0.as_slice())?;
        wrapped.extend_from_slice(&sealed);
        Ok(wrapped)
    }

    pub(super) fn unwrap(&self, id: InstanceId, wrapped: &[u8]) -> Result<InstanceKey, Broken> {
        let (spread, rest) = wrapped.split_first_chunk::<SPREAD_BYTES>().ok_or(Broken)?;
        let (nonce, sealed) = after_format(rest)?.split_first_chunk::<NONCE_BYTES>().ok_or(Broken)?;
        let plain = decrypt(&self.spread_over(id, spread), nonce, &key_place(id), sealed)?;
        let mut key = Zeroizing::new([0u8; 32]);
        if plain.len() != key.len() {
            return Err(Broken);
        }
        key.copy_from_slice(&plain);
        Ok(InstanceKey(key))
    }

    fn spread_over(&self, id: InstanceId, spread: &[u8; SPREAD_BYTES]) -> Zeroizing<[u8; 32]> {
        keyed_hash(&self.0, "vtpmd store: wrapping key", &[&id.0.to_be_bytes(), spread])
    }
}

impl InstanceKey {
    pub(super) fn generate() -> Result<Self, StoreError> {
        let mut key = Zeroizing::new([0u8; 32]);
        getrandom::fill(key.as_mut_slice()).map_err(StoreError::Random)?;
        Ok(Self(key))
    }

    pub(super) fn seal(&self, place: &[u8], plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        let fresh: [u8; SALT_BYTES + NONCE_BYTES] = random()?;
        let mut salt = [0; SALT_BYTES];
        let mut nonce = [0; NONCE_BYTES];
        let (first, second) = fresh.split_at(SALT_BYTES);
        salt.copy_from_slice(first);
        nonce.copy_from_slice(second);
        let ciphertext = encrypt(&self.value_key(&salt), &nonce, place, plain)?;
        let mut sealed = Vec::with_capacity(ciphertext.len().saturating_add(1 + SALT_BYTES + NONCE_BYTES));
        sealed.push(FORMAT);
        sealed.extend_from_slice(&salt);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&ciphertext);
        Ok(sealed)
    }

    pub(super) fn open(&self, place: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Broken> {
        let (salt, rest) = after_format(sealed)?.split_first_chunk::<SALT_BYTES>().ok_or(Broken)?;
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(Broken)?;
        decrypt(&self.value_key(salt), nonce, place, ciphertext)
    }

    fn value_key(&self, salt: &[u8; SALT_BYTES]) -> Zeroizing<[u8; 32]> {
        keyed_hash(&self.0, "vtpmd store: value key", &[salt])
    }
}

/// Where a value belongs: the associated data of its seal.
pub(super) fn record_place(id: InstanceId, name: &RecordName, version: u64) -> Vec<u8> {
    let mut place = Vec::with_capacity(64);
    place.extend_from_slice(b"record\x01");
    place.extend_from_slice(&id.0.to_be_bytes());
    push_name(&mut place, name);
    place.extend_from_slice(&version.to_be_bytes());
    place
}

/// What the seal of an instance's row covers: every column, and which records at which versions belong to it.
pub(super) fn row_place<'a>(
    row: &InstanceRow,
    sequence: u64,
    records: impl ExactSizeIterator<Item = (&'a RecordName, &'a u64)>,
) -> Vec<u8> {
    let InstanceRow { id, parent, handle, name, uuid, attributes } = row;
    const NAME_AND_VERSION: usize = 25;
    let mut place = Vec::with_capacity(records.len().saturating_mul(NAME_AND_VERSION).saturating_add(256));
    place.extend_from_slice(b"instance\x01");
    place.extend_from_slice(&id.0.to_be_bytes());
    place.extend_from_slice(&sequence.to_be_bytes());
    match parent {
        None => place.push(0),
        Some(parent) => {
            place.push(1);
            place.extend_from_slice(&parent.0.to_be_bytes());
        }
    }
    place.extend_from_slice(&handle.to_be_bytes());
    place.extend_from_slice(uuid);
    place.extend_from_slice(&attributes.to_be_bytes());
    place.extend_from_slice(&(name.len() as u64).to_be_bytes());
    place.extend_from_slice(name.as_bytes());
    place.extend_from_slice(&(records.len() as u64).to_be_bytes());
    for (name, version) in records {
        push_name(&mut place, name);
        place.extend_from_slice(&version.to_be_bytes());
    }
    place
}

fn key_place(id: InstanceId) -> Vec<u8> {
    let mut place = b"key\x01".to_vec();
    place.extend_from_slice(&id.0.to_be_bytes());
    place
}

fn push_name(place: &mut Vec<u8>, name: &RecordName) {
    place.push(name.length());
    place.extend_from_slice(name.as_bytes());
}

fn after_format(sealed: &[u8]) -> Result<&[u8], Broken> {
    match sealed.split_first() {
        Some((&FORMAT, rest)) => Ok(rest),
        _ => Err(Broken),
    }
}

fn encrypt(
    key: &[u8; 32],
    nonce: &[u8; NONCE_BYTES],
    place: &[u8],
    plain: &[u8],
) -> Result<Vec<u8>, StoreError> {
    // With room for the tag from the start, the buffer is never moved and leaves no plaintext behind.
    let mut buffer = Vec::with_capacity(plain.len().saturating_add(TAG_BYTES));
    buffer.extend_from_slice(plain);
    cipher(key)
        .encrypt_in_place(&Nonce::from(*nonce), place, &mut buffer)
        // GCM refuses only plaintexts of more than 64 GiB.
        .map_err(|_| StoreError::NumberTooLarge)?;
    Ok(buffer)
}

fn decrypt(
    key: &[u8; 32],
    nonce: &[u8; NONCE_BYTES],
    place: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Broken> {
    let mut buffer = Zeroizing::new(sealed.to_vec());
    cipher(key).decrypt_in_place(&Nonce::from(*nonce), place, &mut *buffer).map_err(|_| Broken)?;
    Ok(buffer)
}

fn cipher(key: &[u8; 32]) -> Aes256Gcm {
    Aes256Gcm::new(<&Key<Aes256Gcm>>::from(key))
}

fn random<const N: usize>() -> Result<[u8; N], StoreError> {
    let mut bytes = [0u8; N];
    getrandom::fill(&mut bytes).map_err(StoreError::Random)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(kind: u8) -> RecordName {
        RecordName::kind(kind)
    }

    #[test]
    fn value_opens_only_in_its_place_and_unchanged() {
        let key = InstanceKey::generate().unwrap();
        let place = record_place(InstanceId(1), &name(1), 7);
        let sealed = key.seal(&place, b"secret").unwrap();
        assert_eq!(&**key.open(&place, &sealed).unwrap(), b"secret");
        for other in [
            record_place(InstanceId(2), &name(1), 7),
            record_place(InstanceId(1), &name(2), 7),
            record_place(InstanceId(1), &name(1), 8),
        ] {
            assert_eq!(key.open(&other, &sealed).err(), Some(Broken));
        }
        assert_eq!(InstanceKey::generate().unwrap().open(&place, &sealed).err(), Some(Broken));
        for position in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[position] ^= 1;
            assert_eq!(key.open(&place, &changed).err(), Some(Broken), "byte {position}");
            assert_eq!(key.open(&place, &sealed[..position]).err(), Some(Broken), "cut at {position}");
        }
    }

    #[test]
    fn equal_values_are_sealed_differently() {
        let key = InstanceKey::generate().unwrap();
        assert_ne!(key.seal(b"p", b"v").unwrap(), key.seal(b"p", b"v").unwrap());
    }

    #[test]
    fn wrapped_key_needs_host_key_identity_instance_and_every_byte() {
        let identity = [3; 16];
        let host = HostKey::for_tests(1);
        let wrapping = WrappingKey::new(&host, &identity);
        let key = InstanceKey::generate().unwrap();
        let wrapped = wrapping.wrap(InstanceId(5), &key).unwrap();
        assert_eq!(*wrapping.unwrap(InstanceId(5), &wrapped).ok().unwrap().0, *key.0);
        assert!(wrapping.unwrap(InstanceId(6), &wrapped).is_err());
        assert!(WrappingKey::new(&HostKey::for_tests(2), &identity).unwrap(InstanceId(5), &wrapped).is_err());
        assert!(WrappingKey::new(&host, &[4; 16]).unwrap(InstanceId(5), &wrapped).is_err());
        for position in (0..wrapped.len()).step_by(97).chain(SPREAD_BYTES - 1..wrapped.len()) {
            let mut changed = wrapped.clone();
            changed[position] ^= 1;
            assert!(wrapping.unwrap(InstanceId(5), &changed).is_err(), "byte {position}");
        }
    }

    #[test]
    fn row_seal_covers_every_column_and_record() {
        let row = InstanceRow {
            id: InstanceId(2),
            parent: Some(InstanceId(1)),
            handle: 3,
            name: "n".into(),
            uuid: [4; 16],
            attributes: 5,
        };
        let records = std::collections::BTreeMap::from([(name(1), 1), (name(2), 2)]);
        let mut places = vec![
            row_place(&row, 1, records.iter()),
            row_place(&row, 2, records.iter()),
            row_place(&row, 1, std::collections::BTreeMap::from([(name(1), 1)]).iter()),
            row_place(&row, 1, std::collections::BTreeMap::from([(name(1), 1), (name(2), 1)]).iter()),
        ];
        for change in [
            InstanceRow { id: InstanceId(9), ..row.clone() },
            InstanceRow { parent: None, ..row.clone() },
            InstanceRow { parent: Some(InstanceId(7)), ..row.clone() },
            InstanceRow { handle: 9, ..row.clone() },
            InstanceRow { name: "m".into(), ..row.clone() },
            InstanceRow { uuid: [9; 16], ..row.clone() },
            InstanceRow { attributes: 9, ..row.clone() },
        ] {
            places.push(row_place(&change, 1, records.iter()));
        }
        let count = places.len();
        places.sort();
        places.dedup();
        assert_eq!(places.len(), count);
    }
}
