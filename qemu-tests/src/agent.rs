//! The host's end of the serial port behind which the guest's agent sits.

use crate::error::{Error, Result};
use crate::frame::{Frame, FrameReader, Request, Response};
use crate::process::wait_until;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

/// After this long without an answer a request is sent again; it may have been lost while the guest booted.
const AGAIN: Duration = Duration::from_millis(500);

/// A connection to the agent.
#[derive(Debug)]
pub struct Agent {
    stream: UnixStream,
    reader: FrameReader,
    next_id: u64,
}

impl Agent {
    /// Connects to the serial port as soon as its socket is there; the agent itself may start later.
    ///
    /// # Errors
    /// [`Error::Timeout`] if the socket does not appear.
    pub fn connect(socket: &Path, timeout: Duration) -> Result<Self> {
        let stream = wait_until(&format!("no serial port at {}", socket.display()), timeout, || {
            Ok(UnixStream::connect(socket).ok())
        })?;
        stream.set_read_timeout(Some(AGAIN)).map_err(Error::io("a timeout for the serial port"))?;
        // The agent remembers the last number across connections, so every connection starts somewhere else.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let next_id = u64::try_from(now.as_nanos()).unwrap_or_default();
        Ok(Self { stream, reader: FrameReader::default(), next_id })
    }

    /// Waits until the agent answers.
    ///
    /// # Errors
    /// [`Error::Timeout`] if it does not.
    pub fn wait_ready(&mut self, timeout: Duration) -> Result<()> {
        self.request(Vec::new(), Vec::new(), Duration::ZERO, timeout).map(drop)
    }

    /// Runs a command line in the guest and waits for its end, whatever its status. The agent kills it after
    /// `timeout` of the guest's time; a guest that does not answer long after that is an error.
    ///
    /// # Errors
    /// [`Error::Timeout`] if the guest does not answer.
    pub fn execute(&mut self, argv: &[&str], stdin: &[u8], timeout: Duration) -> Result<Response> {
        let argv = argv.iter().map(|argument| (*argument).to_owned()).collect();
        let patience = timeout.saturating_add(Duration::from_secs(20));
        self.request(argv, stdin.to_vec(), timeout, patience)
    }

    fn request(
        &mut self,
        argv: Vec<String>,
        stdin: Vec<u8>,
        timeout: Duration,
        patience: Duration,
    ) -> Result<Response> {
        self.next_id = self.next_id.wrapping_add(1);
        let id = self.next_id;
        let what = format!("no answer from the guest to `{}`", argv.join(" "));
        let frame = Frame::Request(Request { id, timeout, argv, stdin }).encode();
        let started = Instant::now();
        let mut buffer = [0; 4096];
        self.send(&frame)?;
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    return Err(Error::Ended { name: "the guest's serial port".into(), detail: what });
                }
                Ok(length) => self.reader.push(buffer.get(..length).unwrap_or_default()),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if started.elapsed() < patience {
                        self.send(&frame)?;
                    }
                }
                Err(error) => return Err(Error::io(what)(error)),
            }
            while let Some(frame) = self.reader.next_frame() {
                match frame {
                    Frame::Response(response) if response.id == id => return Ok(response),
                    // Late answers to what was sent twice, and the terminal's echo before the agent was there.
                    _ => {}
                }
            }
            if started.elapsed() >= patience {
                return Err(Error::Timeout { what, after: patience });
            }
        }
    }

    fn send(&mut self, frame: &[u8]) -> Result<()> {
        self.stream.write_all(frame).map_err(Error::io("writing to the guest's serial port"))
    }
}
