//! Runs the commands that the host sends over a serial port.

use crate::Failure;
use nix::sys::signal::{Signal, killpg};
use nix::sys::termios::{self, FlushArg, SetArg};
use nix::unistd::Pid;
use qemu_tests::frame::{Frame, FrameReader, MAX_BODY, Request, Response};
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What a command may print on each of its two streams; more is read and dropped.
const MAX_OUTPUT: usize = MAX_BODY / 4;

/// How long after the end of a command its output is waited for; a background process may hold on to the pipe.
const LINGER: Duration = Duration::from_millis(300);

pub(crate) fn run(tty: &Path) -> Result<(), Failure> {
    let mut port = OpenOptions::new().read(true).write(true).open(tty)?;
    let mut settings = termios::tcgetattr(&port)?;
    termios::cfmakeraw(&mut settings);
    // What the host has sent so far went through a terminal that echoes, and that stops its output when a byte of a frame is a control-S. So not
    // after the output has drained (TCSAFLUSH), which it may never do: without IXON it starts again.
    termios::tcsetattr(&port, SetArg::TCSANOW, &settings)?;
    termios::tcflush(&port, FlushArg::TCIFLUSH)?;

    let mut reader = FrameReader::default();
    let mut last: Option<Response> = None;
    let mut buffer = [0; 4096];
    loop {
        let length = port.read(&mut buffer)?;
        reader.push(buffer.get(..length).unwrap_or_default());
        while let Some(frame) = reader.next_frame() {
            let Frame::Request(request) = frame else { continue };
            let response = match last.take() {
                Some(response) if response.id == request.id => response,
                _ => execute(&request),
            };
            let frame = Frame::Response(response.clone());
            port.write_all(&frame.encode())?;
            last = Some(response);
        }
    }
}

fn execute(request: &Request) -> Response {
    let mut response = Response { id: request.id, status: 0, stdout: Vec::new(), stderr: Vec::new() };
    let Some((program, arguments)) = request.argv.split_first() else { return response };
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            response.status = Response::NOT_STARTED;
            response.stderr = format!("{program}: {error}").into_bytes();
            return response;
        }
    };
    if let Some(mut stdin) = child.stdin.take() {
        let bytes = request.stdin.clone();
        // A program that reads nothing closes the pipe; that is its own affair.
        thread::spawn(move || stdin.write_all(&bytes));
    }
    let stdout = child.stdout.take().map(Output::read);
    let stderr = child.stderr.take().map(Output::read);
    response.status = wait(child, request.timeout);
    let until = Instant::now().checked_add(LINGER).unwrap_or_else(Instant::now);
    response.stdout = stdout.map(|output| output.take(until)).unwrap_or_default();
    response.stderr = stderr.map(|output| output.take(until)).unwrap_or_default();
    response
}

/// Waits for the command, at most as long as it was given.
fn wait(mut child: Child, timeout: Duration) -> i32 {
    let started = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        match child.try_wait() {
            Ok(Some(status)) => {
                let by_signal = status.signal().map(|signal| signal.saturating_add(128));
                return status.code().or(by_signal).unwrap_or(Response::NOT_STARTED);
            }
            Ok(None) if started.elapsed() < timeout => {
                thread::sleep(pause);
                pause = pause.saturating_mul(2).min(Duration::from_millis(20));
            }
            _ => {
                if let Ok(group) = i32::try_from(child.id()) {
                    let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
                }
                // One that sits in a driver may take its time to die, and nobody waits here with it.
                thread::spawn(move || child.wait());
                return Response::TIMED_OUT;
            }
        }
    }
}

/// One of the command's streams, read by a thread of its own.
struct Output {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: thread::JoinHandle<()>,
}

impl Output {
    fn read(mut stream: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&bytes);
        let reader = thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                let mut bytes = shared.lock().unwrap_or_else(PoisonError::into_inner);
                let room = MAX_OUTPUT.saturating_sub(bytes.len()).min(length);
                bytes.extend_from_slice(buffer.get(..room).unwrap_or_default());
            }
        });
        Self { bytes, reader }
    }

    fn take(self, until: Instant) -> Vec<u8> {
        while !self.reader.is_finished() && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
        std::mem::take(&mut *self.bytes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
