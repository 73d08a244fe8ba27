//! What is still to be said about migrations whose instance is gone from here: it moved on to another host, or was deleted, and its source may
//! not have asked yet. Records of the root, each written in the transaction that destroys the instance.

use vtpm_protocol::codec::{Decode, Encode, Reader};
use vtpm_protocol::instance::{GetReceiptOut, MAX_KEPT_RECEIPTS, MigrationId, Outcome, Receipt};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::Tpm2b;
use zeroize::Zeroizing;

use super::Persistence;
use super::persistence::{Ops, name};
use crate::migration::State;
use crate::store::{InstanceId, Op, RecordName, StoreError};

const VERSION: u8 = 1;

fn decode(bytes: &[u8]) -> Result<(u64, MigrationId, GetReceiptOut), ResponseCode> {
    let mut r = Reader::new(bytes);
    if u8::decode(&mut r)? != VERSION {
        return Err(ResponseCode::VALUE);
    }
    let (at_ms, id) = (u64::decode(&mut r)?, r.array()?);
    let (outcome, receipt): (Outcome, Receipt) = Decode::decode(&mut r)?;
    r.finish()?;
    Ok((at_ms, id, GetReceiptOut { outcome, receipt }))
}

/// The operations that keep what an instance in that state has to say when it is destroyed, and forget the oldest of too many.
pub(super) fn keep(
    persistence: &dyn Persistence,
    root: InstanceId,
    state: State,
    now_ms: u64,
) -> Result<Vec<Op>, StoreError> {
    let mut ops = Ops::new(root);
    let Some((id, outcome, receipt)) = state.parting() else { return Ok(ops.list) };
    let mut kept: Vec<(u64, RecordName)> = Vec::new();
    for (name, value) in persistence.records(root)? {
        if name.as_bytes().first() == Some(&name::RECEIPT) {
            // One that does not decode is of no use, and the first to go.
            kept.push((decode(&value).map_or(0, |(at_ms, ..)| at_ms), name));
        }
    }
    kept.sort_unstable_by_key(|&(at_ms, _)| at_ms);
    let excess = kept.len().saturating_add(1).saturating_sub(MAX_KEPT_RECEIPTS);
    kept.into_iter().take(excess).for_each(|(_, name)| ops.delete(name));
    let mut value = Zeroizing::new(Vec::with_capacity(128));
    (VERSION, now_ms, id, outcome).encode(&mut value);
    let receipt: Receipt = Tpm2b::new(receipt.expose()).unwrap_or_default();
    receipt.encode(&mut value);
    ops.put(name::receipt(&id)?, value);
    Ok(ops.list)
}

/// The receipt of that migration, where one is kept.
pub(super) fn find(
    persistence: &dyn Persistence,
    root: InstanceId,
    id: &MigrationId,
) -> Result<Option<GetReceiptOut>, StoreError> {
    let wanted = name::receipt(id)?;
    let records = persistence.records(root)?;
    let record = records.into_iter().find(|(name, _)| *name == wanted);
    Ok(record.and_then(|(_, value)| decode(&value).ok()).filter(|(_, of, _)| of == id).map(|(_, _, out)| out))
}
