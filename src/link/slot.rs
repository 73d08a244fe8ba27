//! The slot of an instance that is to come to this host.

use vtpm_protocol::instance::{GetInstanceInfoOut, InstanceName, InstanceState, MigrationTicket, Uuid};
use vtpm_protocol::rc::ResponseCode;

use super::server::Host;
use crate::migration::client::{Client, ClientError, Transport};
use crate::tree::ECC_STORAGE_KEY;

/// Where an instance can come to.
pub enum Slot {
    /// It was prepared before.
    Found {
        /// Its handle.
        instance: u32,
        /// Its ticket.
        ticket: MigrationTicket,
    },
    /// It is prepared now.
    Made {
        /// Its ticket.
        ticket: MigrationTicket,
    },
    /// It cannot come here, for this reason.
    Taken(String),
}

/// The slot of this name for the instance with this UUID. It is made if there is none.
///
/// # Errors
/// [`ClientError`].
pub fn find_or_make<T: Transport>(
    client: &Client<T>,
    host: &dyn Host,
    uuid: Uuid,
    name: &InstanceName,
) -> Result<Slot, ClientError> {
    let Some(info) = look(client, host, uuid)? else {
        let out = client.prepare(name.as_str(), uuid, ECC_STORAGE_KEY)?;
        return Ok(Slot::Made { ticket: out.ticket });
    };
    let (here, state, instance) = (info.summary.name.clone(), info.summary.state, info.summary.instance);
    if state == InstanceState::Void {
        return Ok(Slot::Taken(format!(
            "there is a slot for it here that was given up, {here}; delete it when its source has the receipt"
        )));
    }
    Ok(match ticket(info) {
        Some(ticket) if here == *name => Slot::Found { instance, ticket },
        _ => Slot::Taken(format!("there is an instance with this UUID here, {here}, and it is {state}")),
    })
}

/// The instance with this UUID; `None` also when it went meanwhile.
pub(super) fn look<T: Transport>(
    client: &Client<T>,
    host: &dyn Host,
    uuid: Uuid,
) -> Result<Option<GetInstanceInfoOut>, ClientError> {
    let Some(instance) = host.find(uuid)? else { return Ok(None) };
    match client.info(instance) {
        Err(ClientError::Refused { code, .. }) if is_gone(code) => Ok(None),
        other => other.map(Some),
    }
}

/// The ticket of an instance that waits for a stream.
pub(super) fn ticket(info: GetInstanceInfoOut) -> Option<MigrationTicket> {
    let empty = matches!(
        info.summary.state,
        InstanceState::DestinationLocked | InstanceState::DestinationKeyed | InstanceState::Importing
    );
    info.ticket.filter(|ticket| empty && !ticket.storage_name.is_empty())
}

/// The code of a command to an instance that is deleted.
pub(super) fn is_gone(code: ResponseCode) -> bool {
    code.is(ResponseCode::HANDLE)
}
