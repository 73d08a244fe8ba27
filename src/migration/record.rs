//! The bytes of a state in the store.

use vtpm_protocol::codec::{Decode, Encode, Reader};
use vtpm_protocol::instance::{InstanceState, MigrationPolicy, Outcome, PieceInfo, PieceKind};
use vtpm_protocol::rc::ResponseCode;
use zeroize::Zeroizing;

use super::State;
use super::content::PieceId;
use super::destination::{DestinationKeyed, DestinationLocked, Imported, Importing, Slot, Void};
use super::exported::{Custody, Exported};
use super::session::{MigrationDigest, Seal, Secret32, SessionKeys};
use super::source::{
    Armed, Arrival, Exporting, Live, Part, Past, Shown, SourceKeyed, SourceLocked, SourceSession,
};

/// First two bytes of the record. A release that changes the layout counts on and goes on reading the older ones. Version 1 had no policy, and
/// of the migration that brought an instance here its receipt only; up to version 2 a strict lock kept nothing.
const VERSION: u16 = 3;

impl State {
    /// The bytes for the store, with secrets in them.
    #[must_use]
    pub fn to_record(&self) -> Zeroizing<Vec<u8>> {
        // Room for the largest state, so that no half-written copy is left where the buffer grew.
        let entries = match self {
            Self::Exporting(s) => s.log.len(),
            Self::Exported(s) => s.log.len(),
            Self::Importing(s) => s.received.len(),
            _ => 0,
        };
        let room = 8192usize.saturating_add(entries.saturating_mul(32));
        let mut out = Zeroizing::new(Vec::with_capacity(room));
        (VERSION, self.shape()).encode(&mut out);
        match self {
            Self::Live(Live { arrival, armed, policy, past }) => {
                put_arrival(arrival, &mut out);
                put_past(past, &mut out);
                (*policy, armed.is_some()).encode(&mut out);
                if let Some(Armed { ticket, flags }) = armed {
                    (ticket, *flags).encode(&mut out);
                }
            }
            Self::SourceLocked(SourceLocked { session }) => put_session(session, &mut out),
            Self::SourceKeyed(SourceKeyed { session, keys }) => {
                put_session(session, &mut out);
                put_keys(keys, &mut out);
            }
            Self::Exporting(Exporting { session, keys, digest, log }) => {
                put_session(session, &mut out);
                put_keys(keys, &mut out);
                put_sent((digest, log), &mut out);
            }
            Self::Exported(Exported { session, custody, digest, log }) => {
                put_session(session, &mut out);
                put_custody(custody, &mut out);
                put_sent((digest, log), &mut out);
            }
            Self::DestinationLocked(DestinationLocked { slot }) => put_slot(slot, &mut out),
            Self::DestinationKeyed(DestinationKeyed { slot, keys }) => {
                put_slot(slot, &mut out);
                put_keys(keys, &mut out);
            }
            Self::Importing(Importing {
                slot,
                keys,
                digest,
                next,
                received,
                open,
                complete,
                policy,
                past,
            }) => {
                put_slot(slot, &mut out);
                put_keys(keys, &mut out);
                (digest.0, *next, *complete, *policy, open.is_some()).encode(&mut out);
                if let Some(open) = open {
                    open.encode(&mut out);
                }
                put_past(past, &mut out);
                count(received.len()).encode(&mut out);
                received.iter().for_each(|piece| piece.encode(&mut out));
            }
            Self::Imported(Imported { slot, digest, policy, past, share }) => {
                put_slot(slot, &mut out);
                put_past(past, &mut out);
                (*policy, digest.is_some()).encode(&mut out);
                if let Some(digest) = digest {
                    digest.0.encode(&mut out);
                }
                put_share(share.as_ref(), &mut out);
            }
            Self::Void(Void { ticket, void, share }) => {
                (ticket, *void.expose()).encode(&mut out);
                put_share(share.as_ref(), &mut out);
            }
        }
        out
    }

    /// From the bytes in the store.
    ///
    /// # Errors
    /// A response code that says what does not decode; for the operator's log.
    pub fn from_record(bytes: &[u8]) -> Result<Self, ResponseCode> {
        let mut r = Reader::new(bytes);
        let version = u16::decode(&mut r)?;
        if !(1..=VERSION).contains(&version) {
            return Err(ResponseCode::VALUE);
        }
        let r = &mut r;
        let state = match InstanceState::decode(r)? {
            InstanceState::Live => {
                let arrival = get_arrival(r, version)?;
                let (past, policy) = (get_past(r, version)?, get_policy(r, version)?);
                let armed = if bool::decode(r)? {
                    let (ticket, flags) = Decode::decode(r)?;
                    Some(Armed { ticket, flags })
                } else {
                    None
                };
                Self::Live(Live { arrival, armed, policy, past })
            }
            InstanceState::SourceLocked => {
                Self::SourceLocked(SourceLocked { session: get_session(r, version)? })
            }
            InstanceState::SourceKeyed => Self::SourceKeyed(SourceKeyed {
                session: get_session(r, version)?,
                keys: get_keys(r, version)?,
            }),
            InstanceState::Exporting => Self::Exporting(get_exporting(r, version)?),
            InstanceState::Exported => Self::Exported(get_exported(r, version)?),
            // These are names for states in which a machine is saved, which its flags tell.
            InstanceState::Saving | InstanceState::Saved | InstanceState::Damaged => {
                return Err(ResponseCode::VALUE);
            }
            InstanceState::DestinationLocked => {
                Self::DestinationLocked(DestinationLocked { slot: get_slot(r, version)? })
            }
            InstanceState::DestinationKeyed => Self::DestinationKeyed(DestinationKeyed {
                slot: get_slot(r, version)?,
                keys: get_keys(r, version)?,
            }),
            InstanceState::Importing => {
                let (slot, keys) = (get_slot(r, version)?, get_keys(r, version)?);
                let (digest, next, complete): ([u8; 32], u32, bool) = Decode::decode(r)?;
                let policy = get_policy(r, version)?;
                let open = if bool::decode(r)? { Some(PieceInfo::decode(r)?) } else { None };
                let past = get_past(r, version)?;
                let received = list(r, PieceInfo::decode)?;
                let digest = MigrationDigest(digest);
                Self::Importing(Importing {
                    slot,
                    keys,
                    digest,
                    next,
                    received,
                    open,
                    complete,
                    policy,
                    past,
                })
            }
            InstanceState::Imported => {
                let (slot, past) = (get_slot(r, version)?, get_past(r, version)?);
                let policy = get_policy(r, version)?;
                let has_digest = version > 1 && bool::decode(r)?;
                let digest = if has_digest { Some(MigrationDigest(r.array()?)) } else { None };
                Self::Imported(Imported { slot, digest, policy, past, share: get_share(r, version)? })
            }
            InstanceState::Void => {
                let (ticket, void) = (Decode::decode(r)?, get_secret(r)?);
                Self::Void(Void { ticket, void, share: get_share(r, version)? })
            }
        };
        if r.is_empty() { Ok(state) } else { Err(ResponseCode::SIZE) }
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn list<T>(
    r: &mut Reader<'_>,
    item: impl Fn(&mut Reader<'_>) -> Result<T, ResponseCode>,
) -> Result<Vec<T>, ResponseCode> {
    // Grown as the items are read: a count that lies allocates nothing.
    let mut out = Vec::new();
    for _ in 0..u32::decode(r)? {
        out.push(item(r)?);
    }
    Ok(out)
}

fn get_secret(r: &mut Reader<'_>) -> Result<Secret32, ResponseCode> {
    Ok(Secret32::new(r.array()?))
}

/// Version 1 had none.
fn get_policy(r: &mut Reader<'_>, version: u16) -> Result<MigrationPolicy, ResponseCode> {
    if version > 1 { MigrationPolicy::decode(r) } else { Ok(MigrationPolicy::default()) }
}

fn put_past(past: &Past, out: &mut Vec<u8>) {
    count(past.0.len()).encode(out);
    past.0.iter().for_each(|id| id.encode(out));
}

/// Version 1 had none.
fn get_past(r: &mut Reader<'_>, version: u16) -> Result<Past, ResponseCode> {
    if version > 1 { Ok(Past(list(r, |r| r.array())?)) } else { Ok(Past::default()) }
}

fn put_arrival(arrival: &Arrival, out: &mut Vec<u8>) {
    let (outcome, shown) = match arrival {
        Arrival::None => return Outcome::Open.encode(out),
        Arrival::Live(shown) => (Outcome::Live, shown),
        Arrival::Void(shown) => (Outcome::Void, shown),
    };
    (outcome, shown.migration_id, *shown.receipt.expose()).encode(out);
    put_share(shown.share.as_ref(), out);
}

fn get_arrival(r: &mut Reader<'_>, version: u16) -> Result<Arrival, ResponseCode> {
    let outcome = Outcome::decode(r)?;
    if outcome == Outcome::Open {
        return Ok(Arrival::None);
    }
    let migration_id = if version > 1 { r.array()? } else { [0; 32] };
    let shown = Shown { migration_id, receipt: get_secret(r)?, share: get_share(r, version)? };
    Ok(if outcome == Outcome::Live { Arrival::Live(shown) } else { Arrival::Void(shown) })
}

fn put_session(session: &SourceSession, out: &mut Vec<u8>) {
    let SourceSession { ticket, flags, arrival, policy, past, bound } = session;
    (ticket, *flags).encode(out);
    put_arrival(arrival, out);
    put_past(past, out);
    (*policy, *bound).encode(out);
}

fn get_session(r: &mut Reader<'_>, version: u16) -> Result<SourceSession, ResponseCode> {
    let (ticket, flags) = Decode::decode(r)?;
    let arrival = get_arrival(r, version)?;
    let (past, policy) = (get_past(r, version)?, get_policy(r, version)?);
    Ok(SourceSession { ticket, flags, arrival, policy, past, bound: version > 1 && bool::decode(r)? })
}

fn put_share(share: Option<&Secret32>, out: &mut Vec<u8>) {
    share.is_some().encode(out);
    if let Some(share) = share {
        share.expose().encode(out);
    }
}

/// Versions 1 and 2 had none.
fn get_share(r: &mut Reader<'_>, version: u16) -> Result<Option<Secret32>, ResponseCode> {
    if version > 2 && bool::decode(r)? { get_secret(r).map(Some) } else { Ok(None) }
}

fn put_keys(SessionKeys { key, hmac, strict }: &SessionKeys, out: &mut Vec<u8>) {
    (*key.expose(), *hmac.expose(), *strict).encode(out);
}

fn get_keys(r: &mut Reader<'_>, version: u16) -> Result<SessionKeys, ResponseCode> {
    let (key, hmac) = (get_secret(r)?, get_secret(r)?);
    Ok(SessionKeys { key, hmac, strict: version > 2 && bool::decode(r)? })
}

fn put_custody(custody: &Custody, out: &mut Vec<u8>) {
    match custody {
        Custody::Open(keys) => {
            false.encode(out);
            put_keys(keys, out);
        }
        Custody::Sealed(Seal { key, hmac, opener, mask }) => {
            (true, *key.expose(), *hmac.expose(), *opener, *mask.expose()).encode(out);
        }
    }
}

/// Versions 1 and 2 had the keys in any case.
fn get_custody(r: &mut Reader<'_>, version: u16) -> Result<Custody, ResponseCode> {
    if version < 3 || !bool::decode(r)? {
        return get_keys(r, version).map(Custody::Open);
    }
    let (key, hmac, opener) = (get_secret(r)?, get_secret(r)?, r.array()?);
    Ok(Custody::Sealed(Seal { key, hmac, opener, mask: get_secret(r)? }))
}

fn put_sent((digest, log): (&MigrationDigest, &[Part]), out: &mut Vec<u8>) {
    digest.0.encode(out);
    count(log.len()).encode(out);
    for Part { id: PieceId { kind, handle }, offset, total, length } in log {
        (*kind, *handle, *offset, *total, *length).encode(out);
    }
}

fn get_sent(r: &mut Reader<'_>) -> Result<(MigrationDigest, Vec<Part>), ResponseCode> {
    let digest = MigrationDigest(r.array()?);
    let log = list(r, |r| {
        let (kind, handle, offset, total, length): (PieceKind, u32, u32, u32, u32) = Decode::decode(r)?;
        Ok(Part { id: PieceId { kind, handle }, offset, total, length })
    })?;
    Ok((digest, log))
}

fn get_exporting(r: &mut Reader<'_>, version: u16) -> Result<Exporting, ResponseCode> {
    let (session, keys) = (get_session(r, version)?, get_keys(r, version)?);
    let (digest, log) = get_sent(r)?;
    Ok(Exporting { session, keys, digest, log })
}

fn get_exported(r: &mut Reader<'_>, version: u16) -> Result<Exported, ResponseCode> {
    let (session, custody) = (get_session(r, version)?, get_custody(r, version)?);
    let (digest, log) = get_sent(r)?;
    Ok(Exported { session, custody, digest, log })
}

fn put_slot(Slot { ticket, void, live, bound }: &Slot, out: &mut Vec<u8>) {
    (ticket, *void.expose(), *live.expose(), *bound).encode(out);
}

fn get_slot(r: &mut Reader<'_>, version: u16) -> Result<Slot, ResponseCode> {
    let (ticket, void, live) = (Decode::decode(r)?, get_secret(r)?, get_secret(r)?);
    Ok(Slot { ticket, void, live, bound: version > 1 && bool::decode(r)? })
}
