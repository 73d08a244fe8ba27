//! A host with an endpoint, and a client of that.

use std::io::{Read, Write};
use std::ops::{Deref, DerefMut};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::common::Host;
use crate::openmetrics::Exposition;

/// A daemon whose metrics are at a UNIX socket.
pub struct Observed {
    host: Host,
    config: PathBuf,
    socket: PathBuf,
    rest: String,
}

impl Observed {
    /// A new state below `dir`; `rest` goes into its configuration.
    pub fn start(dir: &Path, name: &str, rest: &str) -> Self {
        let socket = dir.join(format!("{name}.metrics"));
        Self::start_at(dir, name, rest, &format!("unix:{}", socket.display()))
    }

    /// As [`Self::start`], with the endpoint at `address`.
    pub fn start_at(dir: &Path, name: &str, rest: &str, address: &str) -> Self {
        let host = Host::at(dir.join(name));
        assert!(host.vtpmd("init").status().unwrap().success());
        let mut observed = Self {
            host,
            config: dir.join(format!("{name}.toml")),
            socket: dir.join(format!("{name}.metrics")),
            rest: format!("{rest}[metrics]\nlisten = \"{address}\"\n"),
        };
        observed.configure("");
        observed.run();
        observed
    }

    /// Writes the configuration, with more in its last table, which is that of the endpoint.
    pub fn configure(&self, more: &str) {
        std::fs::write(&self.config, format!("{}{more}", self.rest)).unwrap();
    }

    pub fn config(&self) -> &Path {
        &self.config
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Starts the daemon.
    pub fn run(&mut self) {
        let config = self.config.to_str().unwrap().to_owned();
        self.host.run_with(&["--config", &config]);
        // The raw socket is there a moment earlier.
        if self.rest.contains("unix:") {
            until("the endpoint is there", || UnixStream::connect(&self.socket).is_ok());
        }
    }

    /// Ends the daemon and starts another one.
    pub fn again(&mut self) {
        self.host.terminate();
        self.run();
    }

    /// What is answered to `GET /metrics`, head and body.
    pub fn ask(&self) -> String {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        // Whoever is sent away may have been already.
        let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: vtpmd\r\n\r\n");
        let mut text = Vec::new();
        let read = stream.read_to_end(&mut text);
        let text = String::from_utf8(text).unwrap();
        assert!(read.is_ok() || text.starts_with("HTTP/1.1 503 "), "{read:?} {text}");
        text
    }

    /// The text of all metrics.
    pub fn text(&self) -> String {
        let answer = self.ask();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        body.to_owned()
    }

    /// All metrics.
    pub fn scrape(&self) -> Exposition {
        Exposition::read(&self.text())
    }
}

impl Deref for Observed {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}

impl DerefMut for Observed {
    fn deref_mut(&mut self) -> &mut Host {
        &mut self.host
    }
}

/// Waits until something is so.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < end, "{what}: it did not come to be");
        std::thread::sleep(Duration::from_millis(10));
    }
}
