//! Pieces and the records in them: which records of an instance's saved state make up which piece, and the bytes of both.

use std::collections::{BTreeMap, BTreeSet};

use vtpm_engine::env::RecordKey;
use vtpm_protocol::codec::{Decode, Encode, Reader};
use vtpm_protocol::instance::migration::{MAX_PIECE, PieceRecord, SealedPiece, SecretLong};
use vtpm_protocol::instance::{PieceInfo, PieceKind};
use zeroize::Zeroizing;

use super::StepError;
use super::session::SessionKeys;

/// The saved state of an instance, or a part of it.
pub type Records = BTreeMap<RecordKey, Zeroizing<Vec<u8>>>;

/// What an instance has in the store beside its [`State`](super::State), and what the steps of a migration move about.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// The saved state of the TPM, or the part of it that is not exported or is imported already.
    pub live: Records,
    /// What was exported and waits for a receipt.
    pub escrow: Records,
    /// The content so far of an imported piece whose last part is still out.
    pub partial: Zeroizing<Vec<u8>>,
    /// The keys of a strict migration, encrypted to the destination's storage key, as they left.
    pub sent_key: Vec<u8>,
    /// The parts of a strict migration of which all is out, as they left, by sequence number. Nobody here can read them.
    pub sent: BTreeMap<u32, Vec<u8>>,
}

impl Held {
    /// The live records and those of the escrow.
    #[must_use]
    pub fn all(&self) -> Records {
        self.live.iter().chain(&self.escrow).map(|(&key, value)| (key, value.clone())).collect()
    }

    /// The pieces leave the live state: into the escrow, or for good.
    pub(super) fn take_out(&mut self, moved: &[PieceId], keep: bool) {
        let (out, left) = std::mem::take(&mut self.live)
            .into_iter()
            .partition(|&(key, _)| moved.contains(&PieceId::of(key)));
        self.live = left;
        if keep {
            self.escrow.append(&mut { out });
        }
    }

    /// The escrow becomes the live state again.
    pub(super) fn bring_back(&mut self) {
        self.live.append(&mut self.escrow);
        self.sent.clear();
        self.sent_key.clear();
    }

    /// Whether all records of these pieces are here. Releases before 0.3 destroyed under a strict lock what had left.
    pub(super) fn has_all<'a>(&self, mut left: impl Iterator<Item = &'a PieceId>) -> bool {
        left.all(|&id| self.escrow.keys().chain(self.live.keys()).any(|&key| PieceId::of(key) == id))
    }
}

/// Names a piece other than the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PieceId {
    /// What it is.
    pub kind: PieceKind,
    /// The handle of an NV index or persistent object, else 0.
    pub handle: u32,
}

impl PieceId {
    /// The manifest, which is made of no records.
    pub const MANIFEST: Self = Self { kind: PieceKind::Manifest, handle: 0 };

    /// The piece that a record belongs to.
    #[must_use]
    pub fn of(key: RecordKey) -> Self {
        match key {
            RecordKey::Permanent => Self { kind: PieceKind::Permanent, handle: 0 },
            RecordKey::Volatile
            | RecordKey::Transient(_)
            | RecordKey::Sequence(_)
            | RecordKey::Pcr(_)
            | RecordKey::Session(_) => Self { kind: PieceKind::Volatile, handle: 0 },
            RecordKey::Nv(handle) => Self { kind: PieceKind::NvIndex, handle },
            RecordKey::Persistent(handle) => Self { kind: PieceKind::Persistent, handle },
        }
    }
}

/// The pieces that `records` make up, in the order in which `everything` exports them.
#[must_use]
pub fn pieces(records: &Records) -> Vec<PieceInfo> {
    let ids: BTreeSet<PieceId> = records.keys().map(|&key| PieceId::of(key)).collect();
    ids.into_iter()
        .map(|id| PieceInfo { kind: id.kind, handle: id.handle, size: content_length(records, id) })
        .collect()
}

/// The keys of the records of one piece.
#[must_use]
pub fn keys_of(records: &Records, id: PieceId) -> Vec<RecordKey> {
    records.keys().copied().filter(|&key| PieceId::of(key) == id).collect()
}

fn content_length(records: &Records, id: PieceId) -> u32 {
    let length = records
        .iter()
        .filter(|&(&key, _)| PieceId::of(key) == id)
        .fold(0usize, |sum, (_, value)| sum.saturating_add(9).saturating_add(value.len()));
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// The content of a piece: its records in the order of their keys. `None` when it has none.
#[must_use]
pub fn content(records: &Records, id: PieceId) -> Option<Zeroizing<Vec<u8>>> {
    let mut out = Zeroizing::new(Vec::with_capacity(usize::try_from(content_length(records, id)).ok()?));
    for (&key, value) in records.iter().filter(|&(&key, _)| PieceId::of(key) == id) {
        key.to_bytes().encode(&mut out);
        u32::try_from(value.len()).ok()?.encode(&mut out);
        out.extend_from_slice(value);
    }
    if out.is_empty() || u32::try_from(out.len()).ok()? > MAX_PIECE { None } else { Some(out) }
}

/// The records in the content of a piece: at least one, all of that piece, in strict order.
///
/// # Errors
/// [`StepError::Content`].
pub fn records_in(id: PieceId, content: &[u8]) -> Result<Records, StepError> {
    let mut r = Reader::new(content);
    let mut records = Records::new();
    while !r.is_empty() {
        let PieceRecord { key, value: SecretLong(value) } =
            PieceRecord::decode(&mut r).map_err(|_| StepError::Content)?;
        let key = RecordKey::from_bytes(&key).ok_or(StepError::Content)?;
        let in_order = records.last_key_value().is_none_or(|(&last, _)| last < key);
        if PieceId::of(key) != id || !in_order {
            return Err(StepError::Content);
        }
        records.insert(key, value);
    }
    if records.is_empty() { Err(StepError::Content) } else { Ok(records) }
}

/// The records in what was sealed with these keys and is all there.
///
/// # Errors
/// [`StepError::Piece`], [`StepError::Hmac`], [`StepError::Content`].
pub fn reopened(keys: &SessionKeys, sent: &BTreeMap<u32, Vec<u8>>) -> Result<Records, StepError> {
    let mut contents: BTreeMap<PieceId, Zeroizing<Vec<u8>>> = BTreeMap::new();
    for bytes in sent.values() {
        let piece = SealedPiece::take(&mut Reader::new(bytes)).map_err(StepError::Piece)?;
        let id = PieceId { kind: piece.header.kind, handle: piece.header.handle };
        append(contents.entry(id).or_default(), &keys.open(&piece)?);
    }
    contents.remove(&PieceId::MANIFEST);
    let mut records = Records::new();
    for (id, content) in contents {
        records.append(&mut records_in(id, &content)?);
    }
    Ok(records)
}

/// Appends without leaving secrets behind in a buffer that grew out of its place.
pub(super) fn append(to: &mut Zeroizing<Vec<u8>>, more: &[u8]) {
    let mut grown = Zeroizing::new(Vec::with_capacity(to.len().saturating_add(more.len())));
    grown.extend_from_slice(to);
    grown.extend_from_slice(more);
    *to = grown;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> Records {
        [
            (RecordKey::Permanent, vec![1; 30]),
            (RecordKey::Volatile, vec![2; 20]),
            (RecordKey::Session(1), vec![3; 5]),
            (RecordKey::Nv(0x0100_0001), vec![]),
            (RecordKey::Persistent(0x8100_0001), vec![4; 9]),
        ]
        .into_iter()
        .map(|(key, value)| (key, Zeroizing::new(value)))
        .collect()
    }

    #[test]
    fn every_record_is_in_exactly_one_piece_and_comes_back() {
        let all = records();
        let mut back = Records::new();
        for piece in pieces(&all) {
            let id = PieceId { kind: piece.kind, handle: piece.handle };
            let bytes = content(&all, id).unwrap();
            assert_eq!(bytes.len(), piece.size as usize);
            for (key, value) in records_in(id, &bytes).unwrap() {
                assert!(back.insert(key, value).is_none());
            }
        }
        assert!(back == all);
    }

    #[test]
    fn a_piece_with_a_record_of_another_one_is_refused() {
        let volatile = PieceId { kind: PieceKind::Volatile, handle: 0 };
        let bytes = content(&records(), volatile).unwrap();
        let permanent = PieceId { kind: PieceKind::Permanent, handle: 0 };
        assert_eq!(records_in(permanent, &bytes).err(), Some(StepError::Content));
        // Records twice, or in another order.
        assert_eq!(records_in(volatile, &[&bytes[..], &bytes[..]].concat()).err(), Some(StepError::Content));
        for n in 0..bytes.len() {
            if n != 29 {
                assert!(records_in(volatile, &bytes[..n]).is_err(), "{n}");
            }
        }
    }
}
