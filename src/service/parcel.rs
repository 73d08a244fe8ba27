//! Sockets and clients on their way from one process to the next.
//!
//! The service manager keeps descriptors by name, a limited number of them, and tells the next process their names in its environment, which
//! is limited as well. Thousands of sockets are therefore put into one: they wait as passed descriptors in the queue of a socket whose two ends
//! are kept. The first message brings a memory file that says what they are; the others bring them, in that order.

use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair, sockopt,
};
use serde::{Deserialize, Serialize};
use vtpm_backend::control::{Kept, KeptState};
use vtpm_backend::socket::Place;

/// Of the list of what is in the parcel. A program that reads another number takes nothing out of it.
const VERSION: u32 = 1;
/// As many descriptors as Linux passes with one message (`SCM_MAX_FD`).
const AT_ONCE: usize = 253;
/// Room for the messages that wait: some 50,000 descriptors. The system may allow less.
const ROOM: usize = 1 << 20;

/// A client of an instance, with its place there.
pub struct Client {
    /// The name of the instance.
    pub instance: String,
    /// Its connections at the control channel.
    pub kept: Kept,
}

/// What goes from one process to the next.
#[derive(Default)]
pub struct Contents {
    /// Clients of control channels.
    pub clients: Vec<Client>,
    /// Listening sockets, with their files.
    pub listeners: Vec<(Place, UnixListener)>,
}

#[derive(Serialize, Deserialize)]
struct List {
    version: u32,
    clients: Vec<Listed>,
    listeners: Vec<Place>,
}

#[derive(Serialize, Deserialize)]
struct Listed {
    instance: String,
    control: bool,
    data: bool,
    state: KeptState,
}

/// Where the descriptors wait, and the other end.
pub(super) fn pack(contents: Contents) -> io::Result<(OwnedFd, OwnedFd)> {
    let Contents { clients, listeners } = contents;
    let (mut listed, mut descriptors) = (Vec::new(), Vec::new());
    for Client { instance, kept: Kept { control, data, state } } in clients {
        listed.push(Listed { instance, control: control.is_some(), data: data.is_some(), state });
        descriptors.extend(control.into_iter().chain(data));
    }
    let mut places = Vec::new();
    for (place, listener) in listeners {
        places.push(place);
        descriptors.push(OwnedFd::from(listener));
    }
    let mut list = File::from(memfd_create(c"vtpmd parcel", MemfdFlags::CLOEXEC)?);
    let listing = List { version: VERSION, clients: listed, listeners: places };
    list.write_all(&serde_json::to_vec(&listing)?)?;
    let (parcel, end) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    // As much as the system allows; where that is too little, sending says so.
    let _less = sockopt::set_socket_send_buffer_size(&end, ROOM);
    send(&end, &[list.as_fd()])?;
    for some in descriptors.chunks(AT_ONCE) {
        send(&end, &some.iter().map(AsFd::as_fd).collect::<Vec<_>>())?;
    }
    Ok((parcel, end))
}

fn send(end: &OwnedFd, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
    let mut ancillary = SendAncillaryBuffer::new(&mut room);
    if !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(ErrorKind::InvalidInput.into());
    }
    // Without waiting: nobody reads here before the next process does.
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    sendmsg(end, &[IoSlice::new(&[0])], &mut ancillary, flags)?;
    Ok(())
}

/// The descriptors of the next message.
fn receive(parcel: &OwnedFd) -> io::Result<Vec<OwnedFd>> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut room);
    let mut byte = [0];
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let message = recvmsg(parcel, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, flags)?;
    if message.bytes == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let descriptors = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    Ok(descriptors.flatten().collect())
}

/// What [`pack`] put in. What is not understood is left in it.
pub(super) fn unpack(parcel: &OwnedFd) -> io::Result<Contents> {
    let malformed = || io::Error::from(ErrorKind::InvalidData);
    let mut list = File::from(receive(parcel)?.pop().ok_or_else(malformed)?);
    list.rewind()?;
    let mut text = Vec::new();
    list.read_to_end(&mut text)?;
    // The number alone first: the rest of another version may look otherwise.
    #[derive(Deserialize)]
    struct Numbered {
        version: u32,
    }
    let Numbered { version } = serde_json::from_slice(&text)?;
    if version != VERSION {
        return Err(io::Error::other(format!("version {version} of vtpmd's parcel is not known here")));
    }
    let List { clients, listeners, .. } = serde_json::from_slice(&text)?;

    let count = |listed: &Listed| usize::from(listed.control).saturating_add(listed.data.into());
    let expected = clients.iter().map(count).sum::<usize>().saturating_add(listeners.len());
    let mut descriptors = Vec::with_capacity(expected);
    while descriptors.len() < expected {
        descriptors.extend(receive(parcel)?);
    }
    let mut descriptors = descriptors.into_iter();
    let mut contents = Contents::default();
    for Listed { instance, control, data, state } in clients {
        let mut take = |there: bool| if there { descriptors.next() } else { None };
        let kept = Kept { control: take(control), data: take(data), state };
        contents.clients.push(Client { instance, kept });
    }
    contents.listeners = listeners.into_iter().zip(descriptors.map(UnixListener::from)).collect();
    Ok(contents)
}
