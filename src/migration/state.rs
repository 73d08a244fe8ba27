//! The state of an instance as one value, its steps, and its bytes in the store.

use vtpm_protocol::codec::{Decode, Encode, Reader};
use vtpm_protocol::instance::migration::MigrationTicket;
use vtpm_protocol::instance::{InstanceState, LockFlags, Outcome, PieceInfo, PieceKind, Uuid};
use vtpm_protocol::rc::ResponseCode;
use zeroize::Zeroizing;

use super::content::PieceId;
use super::destination::{DestinationKeyed, DestinationLocked, Imported, Importing, Slot, Void};
use super::session::{MigrationDigest, Secret32, SessionKeys};
use super::source::{
    Armed, Arrival, Exported, Exporting, Live, Part, SourceKeyed, SourceLocked, SourceSession,
};
use super::{Step, StepError};

/// First two bytes of the record. A release that changes the layout counts on and goes on reading the older ones.
const VERSION: u16 = 1;

/// Where an instance stands.
#[derive(Clone)]
pub enum State {
    /// See [`Live`].
    Live(Live),
    /// See [`SourceLocked`].
    SourceLocked(SourceLocked),
    /// See [`SourceKeyed`].
    SourceKeyed(SourceKeyed),
    /// See [`Exporting`].
    Exporting(Exporting),
    /// See [`Exported`].
    Exported(Exported),
    /// See [`DestinationLocked`].
    DestinationLocked(DestinationLocked),
    /// See [`DestinationKeyed`].
    DestinationKeyed(DestinationKeyed),
    /// See [`Importing`].
    Importing(Importing),
    /// See [`Imported`].
    Imported(Imported),
    /// See [`Void`].
    Void(Void),
}

/// What came out of AbortMigration or CommitMigration.
pub enum Settled {
    /// A destination's receipt. The new state where it changed, which is then durable before the receipt leaves.
    Revealed(Option<State>, Secret32),
    /// A source lives again.
    Revived(State),
    /// A source is gone.
    Gone,
}

impl State {
    /// The state of an instance that was never migrated.
    #[must_use]
    pub const fn new_live() -> Self {
        Self::Live(Live { arrival: Arrival::None, armed: None })
    }

    /// The state as the instance commands name it.
    #[must_use]
    pub const fn kind(&self) -> InstanceState {
        match self {
            Self::Live(_) => InstanceState::Live,
            Self::SourceLocked(_) => InstanceState::SourceLocked,
            Self::SourceKeyed(_) => InstanceState::SourceKeyed,
            Self::Exporting(_) => InstanceState::Exporting,
            Self::Exported(_) => InstanceState::Exported,
            Self::DestinationLocked(_) => InstanceState::DestinationLocked,
            Self::DestinationKeyed(_) => InstanceState::DestinationKeyed,
            Self::Importing(_) => InstanceState::Importing,
            Self::Imported(_) => InstanceState::Imported,
            Self::Void(_) => InstanceState::Void,
        }
    }

    /// Whether the instance executes ordinary commands.
    #[must_use]
    pub const fn executes(&self) -> bool {
        matches!(self, Self::Live(_) | Self::Imported(_))
    }

    /// Whether the source lock is engaged.
    #[must_use]
    pub const fn source_locked(&self) -> bool {
        matches!(self, Self::SourceLocked(_) | Self::SourceKeyed(_) | Self::Exporting(_) | Self::Exported(_))
    }

    /// The error for a step that this state does not have.
    #[must_use]
    pub const fn illegal(&self, step: Step) -> StepError {
        StepError::Illegal { state: self.kind(), step }
    }

    /// The ticket: armed or locked with at a source, given out at a destination.
    #[must_use]
    pub fn ticket(&self) -> Option<&MigrationTicket> {
        match self {
            Self::Live(s) => s.armed.as_ref().map(|armed| &armed.ticket),
            Self::SourceLocked(s) => Some(&s.session.ticket),
            Self::SourceKeyed(s) => Some(&s.session.ticket),
            Self::Exporting(s) => Some(&s.session.ticket),
            Self::Exported(s) => Some(&s.session().ticket),
            Self::DestinationLocked(s) => Some(&s.slot.ticket),
            Self::DestinationKeyed(s) => Some(&s.slot.ticket),
            Self::Importing(s) => Some(&s.slot.ticket),
            Self::Imported(s) => Some(&s.slot.ticket),
            Self::Void(s) => Some(&s.ticket),
        }
    }

    /// The sequence number of the piece that is exported or expected next.
    #[must_use]
    pub fn next_sequence(&self) -> u32 {
        match self {
            Self::Exporting(s) => s.next_sequence(),
            Self::Exported(s) => s.next_sequence(),
            Self::Importing(s) => s.next,
            _ => 0,
        }
    }

    fn arrival(&self) -> Option<&Arrival> {
        match self {
            Self::Live(s) => Some(&s.arrival),
            Self::SourceLocked(s) => Some(&s.session.arrival),
            Self::SourceKeyed(s) => Some(&s.session.arrival),
            Self::Exporting(s) => Some(&s.session.arrival),
            Self::Exported(s) => Some(&s.session().arrival),
            _ => None,
        }
    }

    /// Which receipt can be shown.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match (self, self.arrival()) {
            (Self::Void(_), _) | (_, Some(Arrival::Void(_))) => Outcome::Void,
            (_, Some(Arrival::Live(_))) => Outcome::Live,
            _ => Outcome::Open,
        }
    }

    /// ArmInstance.
    ///
    /// # Errors
    /// [`StepError`].
    pub fn arm(self, uuid: Uuid, armed: Option<Armed>) -> Result<Self, StepError> {
        match self {
            Self::Live(s) => s.arm(uuid, armed).map(Self::Live),
            Self::Imported(s) => s.first_command().arm(uuid, armed).map(Self::Live),
            other => Err(other.illegal(Step::Arm)),
        }
    }

    /// LockInstance.
    ///
    /// # Errors
    /// [`StepError`].
    pub fn lock(self, uuid: Uuid, ticket: MigrationTicket, flags: LockFlags) -> Result<Self, StepError> {
        match self {
            Self::Live(s) => s.lock(uuid, ticket, flags).map(Self::SourceLocked),
            Self::Imported(s) => s.first_command().lock(uuid, ticket, flags).map(Self::SourceLocked),
            other => Err(other.illegal(Step::Lock)),
        }
    }

    /// GetInstanceKey: the next state, when it is another one, and the key structure in plain.
    ///
    /// # Errors
    /// [`StepError`].
    pub fn get_key(
        self,
        storage: &[u8],
        fill: &mut dyn FnMut(&mut [u8]),
    ) -> Result<(Option<Self>, Zeroizing<Vec<u8>>), StepError> {
        match self {
            Self::SourceLocked(s) => {
                let keyed = s.make_keys(storage, fill)?;
                let structure = keyed.key_structure(storage)?;
                Ok((Some(Self::SourceKeyed(keyed)), structure.to_secret_bytes()))
            }
            Self::SourceKeyed(s) => Ok((None, s.key_structure(storage)?.to_secret_bytes())),
            Self::Exporting(s) => Ok((None, s.key_structure(storage)?.to_secret_bytes())),
            Self::Exported(s) => Ok((None, s.key_structure(storage)?.to_secret_bytes())),
            other => Err(other.illegal(Step::GetKey)),
        }
    }

    /// SetInstanceKey.
    ///
    /// # Errors
    /// [`StepError`].
    pub fn set_key(self, structure: &[u8]) -> Result<Self, StepError> {
        match self {
            Self::DestinationLocked(s) => s.set_key(structure).map(Self::DestinationKeyed),
            other => Err(other.illegal(Step::SetKey)),
        }
    }

    /// ResetInstance.
    ///
    /// # Errors
    /// [`StepError`].
    pub fn reset(self) -> Result<Self, StepError> {
        match self {
            Self::DestinationLocked(s) => Ok(Self::DestinationLocked(s)),
            Self::DestinationKeyed(s) => Ok(Self::DestinationLocked(s.reset())),
            Self::Importing(s) => Ok(Self::DestinationLocked(s.reset())),
            other => Err(other.illegal(Step::Reset)),
        }
    }

    /// AbortMigration. An empty receipt asks for one; any other is one.
    ///
    /// # Errors
    /// [`StepError`].
    pub fn abort(self, receipt: &[u8]) -> Result<Settled, StepError> {
        if receipt.is_empty() {
            let void = match self {
                Self::DestinationLocked(s) => s.give_up(),
                Self::DestinationKeyed(s) => s.give_up(),
                Self::Importing(s) => s.give_up(),
                Self::Imported(s) => s.give_up(),
                Self::Void(s) => return Ok(Settled::Revealed(None, s.void)),
                other => {
                    return match other.arrival() {
                        Some(Arrival::Void(secret)) => Ok(Settled::Revealed(None, secret.clone())),
                        _ => Err(other.illegal(Step::Abort)),
                    };
                }
            };
            let secret = void.void.clone();
            return Ok(Settled::Revealed(Some(Self::Void(void)), secret));
        }
        let live = match self {
            Self::SourceLocked(s) => s.abort(receipt)?,
            Self::SourceKeyed(s) => s.abort(receipt)?,
            Self::Exporting(s) => s.abort(receipt)?,
            Self::Exported(s) => s.abort(receipt)?,
            other => return Err(other.illegal(Step::Abort)),
        };
        Ok(Settled::Revived(Self::Live(live)))
    }

    /// CommitMigration. An empty receipt asks for one; any other is one.
    ///
    /// # Errors
    /// [`StepError`].
    pub fn commit(self, receipt: &[u8]) -> Result<Settled, StepError> {
        if receipt.is_empty() {
            return match self.arrival() {
                Some(Arrival::Live(secret)) => Ok(Settled::Revealed(None, secret.clone())),
                _ => Err(self.illegal(Step::Commit)),
            };
        }
        match self {
            Self::Exported(s) => s.commit(receipt).map(|_gone| Settled::Gone),
            other => Err(other.illegal(Step::Commit)),
        }
    }

    /// The bytes for the store, with secrets in them.
    #[must_use]
    pub fn to_record(&self) -> Zeroizing<Vec<u8>> {
        // Room for the largest state, so that no half-written copy is left where the buffer grew.
        let entries = match self {
            Self::Exporting(s) => s.log.len(),
            Self::Exported(s) => s.0.log.len(),
            Self::Importing(s) => s.received.len(),
            _ => 0,
        };
        let room = 4096usize.saturating_add(entries.saturating_mul(32));
        let mut out = Zeroizing::new(Vec::with_capacity(room));
        (VERSION, self.kind()).encode(&mut out);
        match self {
            Self::Live(Live { arrival, armed }) => {
                put_arrival(arrival, &mut out);
                armed.is_some().encode(&mut out);
                if let Some(Armed { ticket, flags }) = armed {
                    (ticket, *flags).encode(&mut out);
                }
            }
            Self::SourceLocked(SourceLocked { session }) => put_session(session, &mut out),
            Self::SourceKeyed(SourceKeyed { session, keys }) => {
                put_session(session, &mut out);
                put_keys(keys, &mut out);
            }
            Self::Exporting(exporting) | Self::Exported(Exported(exporting)) => {
                let Exporting { session, keys, digest, log } = exporting;
                put_session(session, &mut out);
                put_keys(keys, &mut out);
                digest.0.encode(&mut out);
                count(log.len()).encode(&mut out);
                for Part { id: PieceId { kind, handle }, offset, total, length } in log {
                    (*kind, *handle, *offset, *total, *length).encode(&mut out);
                }
            }
            Self::DestinationLocked(DestinationLocked { slot }) => put_slot(slot, &mut out),
            Self::DestinationKeyed(DestinationKeyed { slot, keys }) => {
                put_slot(slot, &mut out);
                put_keys(keys, &mut out);
            }
            Self::Importing(Importing { slot, keys, digest, next, received, open, complete }) => {
                put_slot(slot, &mut out);
                put_keys(keys, &mut out);
                (digest.0, *next, *complete, open.is_some()).encode(&mut out);
                if let Some(open) = open {
                    open.encode(&mut out);
                }
                count(received.len()).encode(&mut out);
                received.iter().for_each(|piece| piece.encode(&mut out));
            }
            Self::Imported(Imported { slot }) => put_slot(slot, &mut out),
            Self::Void(Void { ticket, void }) => (ticket, *void.expose()).encode(&mut out),
        }
        out
    }

    /// From the bytes in the store.
    ///
    /// # Errors
    /// A response code that says what does not decode; for the operator's log.
    pub fn from_record(bytes: &[u8]) -> Result<Self, ResponseCode> {
        let mut r = Reader::new(bytes);
        if u16::decode(&mut r)? != VERSION {
            return Err(ResponseCode::VALUE);
        }
        let r = &mut r;
        let state = match InstanceState::decode(r)? {
            InstanceState::Live => {
                let arrival = get_arrival(r)?;
                let armed = if bool::decode(r)? {
                    let (ticket, flags) = Decode::decode(r)?;
                    Some(Armed { ticket, flags })
                } else {
                    None
                };
                Self::Live(Live { arrival, armed })
            }
            InstanceState::SourceLocked => Self::SourceLocked(SourceLocked { session: get_session(r)? }),
            InstanceState::SourceKeyed => {
                Self::SourceKeyed(SourceKeyed { session: get_session(r)?, keys: get_keys(r)? })
            }
            InstanceState::Exporting => Self::Exporting(get_exporting(r)?),
            InstanceState::Exported => Self::Exported(Exported(get_exporting(r)?)),
            InstanceState::DestinationLocked => {
                Self::DestinationLocked(DestinationLocked { slot: get_slot(r)? })
            }
            InstanceState::DestinationKeyed => {
                Self::DestinationKeyed(DestinationKeyed { slot: get_slot(r)?, keys: get_keys(r)? })
            }
            InstanceState::Importing => {
                let (slot, keys) = (get_slot(r)?, get_keys(r)?);
                let (digest, next, complete, is_open): ([u8; 32], u32, bool, bool) = Decode::decode(r)?;
                let open = if is_open { Some(PieceInfo::decode(r)?) } else { None };
                let received = list(r, PieceInfo::decode)?;
                let digest = MigrationDigest(digest);
                Self::Importing(Importing { slot, keys, digest, next, received, open, complete })
            }
            InstanceState::Imported => Self::Imported(Imported { slot: get_slot(r)? }),
            InstanceState::Void => Self::Void(Void { ticket: Decode::decode(r)?, void: get_secret(r)? }),
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

fn put_arrival(arrival: &Arrival, out: &mut Vec<u8>) {
    match arrival {
        Arrival::None => Outcome::Open.encode(out),
        Arrival::Live(secret) => (Outcome::Live, *secret.expose()).encode(out),
        Arrival::Void(secret) => (Outcome::Void, *secret.expose()).encode(out),
    }
}

fn get_arrival(r: &mut Reader<'_>) -> Result<Arrival, ResponseCode> {
    Ok(match Outcome::decode(r)? {
        Outcome::Open => Arrival::None,
        Outcome::Live => Arrival::Live(get_secret(r)?),
        Outcome::Void => Arrival::Void(get_secret(r)?),
    })
}

fn put_session(SourceSession { ticket, flags, arrival }: &SourceSession, out: &mut Vec<u8>) {
    (ticket, *flags).encode(out);
    put_arrival(arrival, out);
}

fn get_session(r: &mut Reader<'_>) -> Result<SourceSession, ResponseCode> {
    let (ticket, flags) = Decode::decode(r)?;
    Ok(SourceSession { ticket, flags, arrival: get_arrival(r)? })
}

fn put_keys(SessionKeys { key, hmac }: &SessionKeys, out: &mut Vec<u8>) {
    (*key.expose(), *hmac.expose()).encode(out);
}

fn get_keys(r: &mut Reader<'_>) -> Result<SessionKeys, ResponseCode> {
    Ok(SessionKeys { key: get_secret(r)?, hmac: get_secret(r)? })
}

fn get_exporting(r: &mut Reader<'_>) -> Result<Exporting, ResponseCode> {
    let (session, keys) = (get_session(r)?, get_keys(r)?);
    let digest = MigrationDigest(r.array()?);
    let log = list(r, |r| {
        let (kind, handle, offset, total, length): (PieceKind, u32, u32, u32, u32) = Decode::decode(r)?;
        Ok(Part { id: PieceId { kind, handle }, offset, total, length })
    })?;
    Ok(Exporting { session, keys, digest, log })
}

fn put_slot(Slot { ticket, void, live }: &Slot, out: &mut Vec<u8>) {
    (ticket, *void.expose(), *live.expose()).encode(out);
}

fn get_slot(r: &mut Reader<'_>) -> Result<Slot, ResponseCode> {
    Ok(Slot { ticket: Decode::decode(r)?, void: get_secret(r)?, live: get_secret(r)? })
}
