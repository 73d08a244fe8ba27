//! The sockets that the daemon need not make, because somebody handed them in: the service manager, which listens on them in its own name, or
//! an earlier process of the daemon, which left them with the service manager.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::net::sockopt;
use vtpm_backend::control::Kept;
use vtpm_backend::socket::{Access, FrontDoorError, Listener, Place};

use super::parcel::{self, Client, Contents};
use super::{PARCEL, PARCEL_END, forget};
use crate::sentence;

/// What the service manager hands in cannot be made out.
#[derive(Debug, thiserror::Error)]
#[error("LISTEN_FDS, LISTEN_PID or LISTEN_FDNAMES is not what sd_listen_fds(3) describes")]
pub struct ServiceError(#[from] io::Error);

/// Sockets and clients that were handed in, until somebody wants them.
#[derive(Default)]
pub struct Sockets {
    /// Of the service manager: it removes their files.
    activated: HashMap<PathBuf, UnixListener>,
    tcp: Vec<(SocketAddr, TcpListener)>,
    /// Of an earlier process.
    kept: HashMap<PathBuf, (Place, UnixListener)>,
    clients: HashMap<String, Kept>,
    parcel: Option<OwnedFd>,
}

impl Sockets {
    /// Takes the descriptors that the service manager passed. To be called once, before anything is opened.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn inherit() -> Result<Self, ServiceError> {
        let mut sockets = Self::default();
        for (number, name) in sd_notify::listen_fds_with_names()? {
            let descriptor = own(number);
            match name.as_str() {
                PARCEL => sockets.parcel = Some(descriptor),
                PARCEL_END => {}
                _ => sockets.add(descriptor, &name),
            }
        }
        Ok(sockets)
    }

    fn add(&mut self, descriptor: OwnedFd, name: &str) {
        if !sockopt::socket_acceptconn(&descriptor).unwrap_or(false) {
            log::error!("the descriptor {name} of the service manager is no socket that listens for streams");
            return;
        }
        let listener = UnixListener::from(descriptor);
        match listener.local_addr() {
            Ok(address) => match address.as_pathname() {
                Some(path) => drop(self.activated.insert(path.to_owned(), listener)),
                None => log::error!("the socket {name} of the service manager has no path"),
            },
            Err(_) => {
                let listener = TcpListener::from(OwnedFd::from(listener));
                match listener.local_addr() {
                    Ok(address) => self.tcp.push((address, listener)),
                    Err(_) => {
                        log::error!("the socket {name} of the service manager is of no kind that is served")
                    }
                }
            }
        }
    }

    /// Unpacks what an earlier process left. To be called when the daemon can do what it is to do: what is packed stays for the
    /// next attempt if this one fails before.
    pub fn unpack(&mut self) {
        let Some(parcel) = self.parcel.take() else { return };
        match parcel::unpack(&parcel) {
            Ok(Contents { clients, listeners }) => {
                log::info!("{} sockets and {} clients were kept", listeners.len(), clients.len());
                self.kept = listeners.into_iter().map(|(p, l)| (p.path.clone(), (p, l))).collect();
                self.clients =
                    clients.into_iter().map(|Client { instance, kept }| (instance, kept)).collect();
            }
            Err(error) => log::error!("what was kept of the sockets of an earlier vtpmd is lost: {error}"),
        }
        forget();
    }

    /// The listening socket at `path`: handed in, or made.
    ///
    /// # Errors
    /// As [`Listener::bind`].
    pub fn unix(&mut self, path: &Path, access: Access) -> Result<Listener, FrontDoorError> {
        if let Some(listener) = self.activated.remove(path) {
            return Listener::adopt(listener, None);
        }
        if let Some((place, listener)) = self.kept.remove(path) {
            match Listener::adopt_at(listener, place, access) {
                Ok(listener) => return Ok(listener),
                Err(error) => log::warn!("a socket is made anew: {}", sentence(&error)),
            }
        }
        Listener::bind(path, access)
    }

    /// The listening socket at `address`: handed in, or made.
    ///
    /// # Errors
    /// The system's.
    pub fn tcp(&mut self, address: SocketAddr) -> io::Result<TcpListener> {
        match self.tcp.iter().position(|&(handed_in, _)| handed_in == address) {
            Some(index) => Ok(self.tcp.swap_remove(index).1),
            None => TcpListener::bind(address),
        }
    }

    /// The client that was connected to an instance.
    pub fn client(&mut self, instance: &str) -> Option<Kept> {
        self.clients.remove(instance)
    }

    /// All instances have their doors: what is left of an earlier process is nobody's.
    pub fn discard_rest(&mut self) {
        for (instance, _hangs_up) in self.clients.drain() {
            log::warn!("there is no instance {instance} any more; its client is sent away");
        }
        for (_, (place, listener)) in self.kept.drain() {
            // With its file.
            drop(Listener::adopt_at(listener, place, Access::default()));
        }
    }
}

/// A descriptor that the service manager passed.
#[expect(unsafe_code, reason = "an inherited descriptor is known by its number only")]
fn own(number: RawFd) -> OwnedFd {
    // SAFETY: `sd_listen_fds_with_names` found it open, it is none of the standard ones, and this is called once for each, before the process
    // has opened any other, so that nothing else owns it.
    unsafe { OwnedFd::from_raw_fd(number) }
}
