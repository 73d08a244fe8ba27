//! The network between two hosts, which can fail.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

#[derive(Default)]
struct State {
    /// So many pieces pass until everything is cut; 0 for never.
    left: AtomicU64,
    cuts: AtomicU64,
    connections: Mutex<Vec<TcpStream>>,
}

/// Carries connections to one address.
pub struct Network {
    address: SocketAddr,
    state: Arc<State>,
}

impl Network {
    pub fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let network = Self { address: listener.local_addr().unwrap(), state: Arc::default() };
        let state = network.state.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                // A host whose daemon is down does not answer.
                let Ok(server) = TcpStream::connect(target) else { continue };
                let mut connections = state.connections.lock().unwrap();
                connections.extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
                drop(connections);
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let state = state.clone();
                    std::thread::spawn(move || state.carry(from, to));
                }
            }
        });
        network
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All connections are cut once, when so many pieces have passed; `None`: never.
    pub fn cut_after(&self, pieces: Option<u64>) {
        self.state.left.store(pieces.unwrap_or(0), Ordering::SeqCst);
    }

    /// Nothing is cut from now on, and nothing was.
    pub fn heal(&self) {
        self.cut_after(None);
        self.state.cuts.store(0, Ordering::SeqCst);
    }

    pub fn has_cut(&self) -> bool {
        self.state.cuts.load(Ordering::SeqCst) > 0
    }
}

impl State {
    fn carry(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            let spent =
                self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            if spent == Ok(1) {
                self.cuts.fetch_add(1, Ordering::SeqCst);
                for connection in self.connections.lock().unwrap().drain(..) {
                    let _gone = connection.shutdown(Shutdown::Both);
                }
                return;
            }
            if to.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
        let _gone = from.shutdown(Shutdown::Both);
        let _gone = to.shutdown(Shutdown::Both);
    }
}
