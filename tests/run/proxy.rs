//! A network between two hosts that can be cut, or stand still, in the middle of what the first sends to the second.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Default)]
struct Control {
    to: Mutex<String>,
    /// So many bytes of a connection go through; 0 is all.
    limit: AtomicUsize,
    /// Of so many connections.
    times: AtomicU64,
    /// What is over the limit waits; else the connection is cut.
    stall: AtomicBool,
    /// How often the limit was reached.
    reached: AtomicU64,
}

pub struct Proxy {
    address: String,
    control: Arc<Control>,
}

impl Proxy {
    pub fn to(address: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self { address: listener.local_addr().unwrap().to_string(), control: Arc::default() };
        *proxy.control.to.lock().unwrap() = address.to_owned();
        let control = proxy.control.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (control, client) = (control.clone(), client.unwrap());
                let Ok(server) = TcpStream::connect(&*control.to.lock().unwrap()) else { continue };
                std::thread::spawn(move || connection(&control, client, server));
            }
        });
        proxy
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// So many connections are cut after so many bytes to the server.
    pub fn cut(&self, times: u64, after: usize) {
        self.set(times, after, false);
    }

    /// The next connection stands still after so many bytes to the server.
    pub fn stall(&self, after: usize) {
        self.set(1, after, true);
    }

    fn set(&self, times: u64, after: usize, stall: bool) {
        self.control.stall.store(stall, Ordering::SeqCst);
        self.control.reached.store(0, Ordering::SeqCst);
        self.control.times.store(times, Ordering::SeqCst);
        self.control.limit.store(after, Ordering::SeqCst);
    }

    /// Everything goes through, also what stands still.
    pub fn open(&self) {
        self.control.limit.store(0, Ordering::SeqCst);
    }

    pub fn reached(&self) -> u64 {
        self.control.reached.load(Ordering::SeqCst)
    }
}

fn connection(control: &Arc<Control>, client: TcpStream, server: TcpStream) {
    let back = {
        let (mut client, mut server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut server, &mut client);
            let _ = client.shutdown(Shutdown::Both);
        })
    };
    forth(control, &client, &server);
    let _ = server.shutdown(Shutdown::Both);
    let _ = client.shutdown(Shutdown::Both);
    back.join().unwrap();
}

fn forth(control: &Control, mut client: &TcpStream, mut server: &TcpStream) {
    let (mut buffer, mut total) = (vec![0; 4096], 0);
    loop {
        let limit = control.limit.load(Ordering::SeqCst);
        let left = if limit == 0 { usize::MAX } else { limit.saturating_sub(total) };
        if left == 0 {
            let spent = |n: u64| n.checked_sub(1);
            if control.times.fetch_update(Ordering::SeqCst, Ordering::SeqCst, spent).is_ok() {
                control.reached.fetch_add(1, Ordering::SeqCst);
                if !control.stall.load(Ordering::SeqCst) {
                    return;
                }
                while control.limit.load(Ordering::SeqCst) != 0 {
                    std::thread::sleep(Duration::from_millis(5));
                    if server.take_error().is_err() || is_closed(server) {
                        return;
                    }
                }
            }
        }
        let most = if left == 0 { buffer.len() } else { left.min(buffer.len()) };
        let Ok(n @ 1..) = client.read(&mut buffer[..most]) else { return };
        if server.write_all(&buffer[..n]).is_err() {
            return;
        }
        total += n;
    }
}

fn is_closed(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let closed = matches!(stream.peek(&mut [0]), Ok(0));
    stream.set_nonblocking(false).unwrap();
    closed
}
