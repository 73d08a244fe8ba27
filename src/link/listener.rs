//! Lets peers in.
//!
//! Who is no peer costs one handshake of bounded length: at most [`MAX_STRANGERS`] are shaken hands with at once, and when one more comes,
//! one from the network that has the most of them is sent away for it, the one that has been at it longest. A peer's handshake takes
//! milliseconds, so that neither slow ones keep it out nor those that keep coming back.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use vtpm_backend::socket::is_passing;

use super::bell::Bell;
use super::server::{Host, Service};
use super::tls::Tls;
use super::trust::{Admitted, HelloError, Trust, TrustError, answer};
use super::wire::Wire;
use super::{LinkError, Patience};
use crate::gate::Gate;
use crate::migration::client::{Client, Transport};
use crate::sentence;

/// The most that are shaken hands with at once.
pub const MAX_STRANGERS: usize = 16;
/// The most threads of those who were sent away and have not ended yet.
const MAX_LEAVING: usize = 32;
/// How often the log has that somebody was not let in; others in between are counted.
const LOG_PACE: Duration = Duration::from_secs(1);
/// How long the end waits for the threads of connections.
const END_WAIT: Duration = Duration::from_secs(2);

/// What the listener needs to serve a connection.
pub struct Hall<T> {
    /// Its end of TLS.
    pub tls: Tls,
    /// Who is let in.
    pub trust: Arc<dyn Trust>,
    /// By what requests are answered.
    pub client: Arc<Client<T>>,
    /// What is known of this host.
    pub host: Arc<dyn Host + Send + Sync>,
    /// Rung when there is news.
    pub bell: Arc<Bell>,
    /// How long anybody is waited for.
    pub patience: Patience,
    /// The most peers connected at once.
    pub max_connections: usize,
}

/// The open listener.
pub struct Listener {
    address: SocketAddr,
    gate: Arc<Gate>,
    guests: Arc<Guests>,
    bell: Arc<Bell>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Listens at `address`.
    ///
    /// # Errors
    /// [`LinkError::Listen`].
    pub fn bind<T>(address: SocketAddr, hall: Hall<T>) -> Result<Self, LinkError>
    where
        T: Transport + Send + Sync + 'static,
    {
        let socket = TcpListener::bind(address).map_err(|source| LinkError::Listen { address, source })?;
        Self::open(socket, hall)
    }

    /// Listens on a socket that is there.
    ///
    /// # Errors
    /// [`LinkError::Listen`].
    pub fn open<T>(socket: TcpListener, hall: Hall<T>) -> Result<Self, LinkError>
    where
        T: Transport + Send + Sync + 'static,
    {
        let nowhere = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0);
        let address = socket.local_addr().map_err(|source| LinkError::Listen { address: nowhere, source })?;
        let failed = |source| LinkError::Listen { address, source };
        socket.set_nonblocking(true).map_err(failed)?;
        let (gate, guests) = (Arc::new(Gate::new().map_err(failed)?), Arc::new(Guests::default()));
        let bell = hall.bell.clone();
        let thread = std::thread::Builder::new()
            .name("link listener".into())
            .spawn({
                let (gate, guests) = (gate.clone(), guests.clone());
                move || accept(&socket, &gate, &guests, &Arc::new(hall))
            })
            .map_err(failed)?;
        log::info!("the peer link listens at {address}");
        Ok(Self { address, gate, guests, bell, thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.gate.close();
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
        self.bell.close();
        self.guests.close();
    }
}

/// Everybody who is connected.
#[derive(Default)]
struct Guests {
    list: Mutex<List>,
    gone: Condvar,
}

#[derive(Default)]
struct List {
    next: u64,
    /// Those who have not shown who they are, by the order of their arrival.
    strangers: BTreeMap<u64, (IpAddr, TcpStream)>,
    peers: BTreeMap<u64, TcpStream>,
    /// Threads, of whomever.
    threads: usize,
    /// When the log last had one who was not let in, and how many were not since.
    logged: Option<Instant>,
    unlogged: u64,
}

impl List {
    /// The oldest stranger of the network that has the most of them.
    fn one_too_many(&self) -> Option<u64> {
        let mut counts: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for (network, _) in self.strangers.values() {
            let count = counts.entry(*network).or_default();
            *count = count.saturating_add(1);
        }
        let (crowd, _) = counts.into_iter().max_by_key(|&(_, count)| count)?;
        self.strangers.iter().find(|(_, (network, _))| *network == crowd).map(|(&id, _)| id)
    }
}

/// An address, or of an IPv6 address the half that one subscriber has to himself.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

impl Guests {
    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more stranger, in the place of another if need be. `None` when there is no place at all.
    fn welcome(&self, from: IpAddr, socket: TcpStream, max_connections: usize) -> Option<u64> {
        let mut list = self.list();
        let most = max_connections.saturating_add(MAX_STRANGERS).saturating_add(MAX_LEAVING);
        if list.threads >= most {
            return None;
        }
        if list.strangers.len() >= MAX_STRANGERS
            && let Some(id) = list.one_too_many()
            && let Some((_, socket)) = list.strangers.remove(&id)
        {
            let _gone = socket.shutdown(Shutdown::Both);
        }
        let id = list.next;
        list.next = list.next.wrapping_add(1);
        list.strangers.insert(id, (network(from), socket));
        list.threads = list.threads.saturating_add(1);
        Some(id)
    }

    /// A stranger has turned out to be a peer. `false` when there are too many.
    fn admit(&self, id: u64, max_connections: usize) -> bool {
        let mut list = self.list();
        if list.peers.len() >= max_connections {
            return false;
        }
        match list.strangers.remove(&id) {
            Some((_, socket)) => drop(list.peers.insert(id, socket)),
            // Sent away at the last moment.
            None => return false,
        }
        true
    }

    fn leave(&self, id: u64) {
        let mut list = self.list();
        list.strangers.remove(&id);
        list.peers.remove(&id);
        list.threads = list.threads.saturating_sub(1);
        drop(list);
        self.gone.notify_all();
    }

    /// Whether the log may have one who was not let in, with how many it did not have since the last.
    fn may_log(&self) -> Option<u64> {
        let mut list = self.list();
        if list.logged.is_some_and(|at| at.elapsed() < LOG_PACE) {
            list.unlogged = list.unlogged.saturating_add(1);
            return None;
        }
        list.logged = Some(Instant::now());
        Some(std::mem::take(&mut list.unlogged))
    }

    /// Hangs up on everybody, and waits a little for their threads.
    fn close(&self) {
        let mut list = self.list();
        for socket in list.strangers.values().map(|(_, socket)| socket).chain(list.peers.values()) {
            let _gone = socket.shutdown(Shutdown::Both);
        }
        let now = Instant::now();
        let until = now.checked_add(END_WAIT).unwrap_or(now);
        while list.threads > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            list = self.gone.wait_timeout(list, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn accept<T>(socket: &TcpListener, gate: &Gate, guests: &Arc<Guests>, hall: &Arc<Hall<T>>)
where
    T: Transport + Send + Sync + 'static,
{
    loop {
        let accepted = match gate.wait(socket) {
            Ok(true) => socket.accept(),
            Ok(false) => return,
            Err(error) => Err(error),
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_passing(&error) => continue,
            Err(error) => {
                log::warn!("the peer link: {error}");
                std::thread::sleep(Duration::from_millis(200));
                continue;
            }
        };
        let Ok(copy) = stream.try_clone() else { continue };
        let Some(id) = guests.welcome(address.ip(), copy, hall.max_connections) else { continue };
        let spawned = std::thread::Builder::new().name("link peer".into()).spawn({
            let (guests, hall) = (guests.clone(), hall.clone());
            move || {
                let serve = std::panic::AssertUnwindSafe(|| serve(stream, address, id, &guests, &hall));
                if std::panic::catch_unwind(serve).is_err() {
                    log::error!("the link with {address} ended in a panic");
                }
                guests.leave(id);
            }
        });
        if let Err(error) = spawned {
            log::warn!("the peer link: no thread for {address}: {error}");
            guests.leave(id);
        }
    }
}

fn serve<T: Transport>(stream: TcpStream, address: SocketAddr, id: u64, guests: &Guests, hall: &Hall<T>) {
    let not_let_in = |why: &str| {
        if let Some(others) = guests.may_log() {
            let others = if others == 0 { String::new() } else { format!(" ({others} others before)") };
            log::warn!("{address} is not let in: {why}{others}");
        }
    };
    let stream = match hall.tls.accept(stream, hall.patience.handshake) {
        Ok(stream) => stream,
        Err(error) => return not_let_in(&sentence(&error)),
    };
    let link_key = stream.peer();
    let mut wire = Wire::new(stream);
    let peer: Admitted = match answer(&mut wire, &*hall.trust, link_key, hall.patience.handshake) {
        Ok(peer) => peer,
        Err(HelloError::Trust(TrustError::Root(why))) => return log::error!("the peer link: {why}"),
        Err(error) => return not_let_in(&sentence(&error)),
    };
    if !guests.admit(id, hall.max_connections) {
        return not_let_in(&format!("peer {}, but {} are connected", peer.label, hall.max_connections));
    }
    log::debug!(peer:% = peer.label; "peer {} is connected from {address}", peer.label);
    if let Err(error) = Service::new(&hall.client, &*hall.host, &peer, hall.patience).serve(&mut wire) {
        log::debug!(peer:% = peer.label; "the link with peer {} ended: {}", peer.label, sentence(&error));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn connection(listener: &TcpListener) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (listener.accept().unwrap().0, client)
    }

    #[test]
    fn one_stranger_too_many_takes_the_place_of_the_oldest() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let guests = Guests::default();
        let mut clients = Vec::new();
        for expected in 0..=u64::try_from(MAX_STRANGERS).unwrap() {
            let (ours, theirs) = connection(&listener);
            assert_eq!(guests.welcome(HERE, ours, 1), Some(expected));
            clients.push(theirs);
        }
        // The first was hung up on, the others were not.
        let ended = |client: &mut TcpStream| {
            client.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            matches!(std::io::Read::read(client, &mut [0]), Ok(0))
        };
        let over: Vec<bool> = clients.iter_mut().map(ended).collect();
        assert!(over[0] && !over[1..].contains(&true), "{over:?}");
        // One that was sent away cannot become a peer; one that stayed can, while there is room.
        assert!(!guests.admit(0, 1));
        assert!(guests.admit(1, 1));
        assert!(!guests.admit(2, 1));
        for id in 0..=u64::try_from(MAX_STRANGERS).unwrap() {
            guests.leave(id);
        }
        assert_eq!(guests.list().threads, 0);
    }

    #[test]
    fn a_crowd_of_one_network_sends_away_its_own() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let guests = Guests::default();
        let mut clients = Vec::new();
        let mut come = |from: &str| {
            let (ours, theirs) = connection(&listener);
            clients.push(theirs);
            guests.welcome(from.parse().unwrap(), ours, 1).unwrap()
        };
        let single = come("192.0.2.1");
        for n in 0..20 {
            come(&format!("2001:db8:0:1::{n:x}"));
            come("::ffff:192.0.2.9");
        }
        assert!(guests.list().strangers.contains_key(&single));
        let of = |network: &str| {
            let network: IpAddr = network.parse().unwrap();
            guests.list().strangers.values().filter(|(n, _)| *n == network).count()
        };
        assert_eq!(of("192.0.2.1") + of("2001:db8:0:1::") + of("192.0.2.9"), MAX_STRANGERS);
        assert!(guests.admit(single, 1));
    }

    #[test]
    fn threads_are_bounded_however_many_come() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let guests = Guests::default();
        let welcomed = (0..200)
            .filter(|_| {
                let (ours, _theirs) = connection(&listener);
                guests.welcome(HERE, ours, 3).is_some()
            })
            .count();
        assert_eq!(welcomed, 3 + MAX_STRANGERS + MAX_LEAVING);
    }

    #[test]
    fn the_log_has_one_a_second_and_counts_the_others() {
        let guests = Guests::default();
        assert_eq!(guests.may_log(), Some(0));
        assert_eq!((guests.may_log(), guests.may_log()), (None, None));
        guests.list().logged = Instant::now().checked_sub(LOG_PACE);
        assert_eq!(guests.may_log(), Some(2));
    }
}
