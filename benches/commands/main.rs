//! What a command takes, beside swtpm in the same run: `cargo bench --bench commands [-- ROUNDS [NAME]] [--json FILE]`, or `scripts/bench-commands`.
//!
//! Three TPMs behind UNIX stream sockets are asked in turn: swtpm; the engine alone, with nothing durable, as swtpm has it but for NV;
//! and vtpmd's root instance, where every change is durable before its response. Commands that write NV stand apart: swtpm 0.7
//! writes its file and does not synchronise it.
//!
//! A server that does nothing takes eight to eleven microseconds behind such a socket, whichever the scheduler has chosen, and that is most
//! of what a short command takes. What the engine takes of it is in the column "called": the same command to the engine as a function.
//!
//! Which RSA key is found, and so how long it takes, is chance. The template's unique field is therefore another one in each round, and the
//! same for all.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a benchmark that panics gives no figures"
)]

mod cases;
mod client;
#[path = "../report/mod.rs"]
mod report;

use cases::{CASES, Case};
use client::Client;
use report::{Arguments, Report, median_and_p99};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use vtpm_engine::{Change, CommitFailed, Environment, Tpm};

/// A child that ends with us.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_for(socket: &Path) {
    let until = Instant::now() + Duration::from_secs(30);
    while UnixStream::connect(socket).is_err() {
        assert!(Instant::now() < until, "nothing answers at {}", socket.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn swtpm(dir: &Path) -> (Killed, Client) {
    let (state, socket) = (dir.join("swtpm"), dir.join("swtpm.sock"));
    std::fs::create_dir(&state).unwrap();
    let child = Command::new("swtpm")
        .args(["socket", "--tpm2", "--flags", "not-need-init", "--tpmstate"])
        .arg(format!("dir={}", state.display()))
        .arg("--server")
        .arg(format!("type=unixio,path={}", socket.display()))
        .stdin(Stdio::null())
        .spawn()
        .unwrap_or_else(|e| panic!("swtpm does not start: {e}; apt-get install swtpm"));
    let child = Killed(child);
    // It ends with its first connection, so that this must not be a trial.
    let until = Instant::now() + Duration::from_secs(30);
    while !socket.exists() {
        assert!(Instant::now() < until, "swtpm made no socket");
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(200));
    let mut client = Client::connect(&socket, b"");
    client.run(STARTUP);
    (child, client)
}

fn vtpmd(dir: &Path) -> (Killed, Client) {
    let (state, run) = (dir.join("state"), dir.join("run"));
    let program = |what: &str| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_vtpmd"));
        program.arg(what).arg("--state-dir").arg(&state).arg("--runtime-dir").arg(&run);
        program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        program
    };
    assert!(program("init").status().unwrap().success());
    let child = Killed(program("run").spawn().unwrap());
    let socket = run.join("root/tpm.sock");
    wait_for(&socket);
    let owner = std::fs::read_to_string(state.join("root.auth")).unwrap();
    (child, Client::connect(&socket, &hex::decode(owner.trim()).unwrap()))
}

/// Randomness of the system and a clock; nothing is durable.
struct Host(Instant);

impl Environment for Host {
    fn fill_random(&mut self, out: &mut [u8]) {
        getrandom::fill(out).unwrap();
    }

    fn now_ms(&mut self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap()
    }

    fn commit(&mut self, _changes: Vec<Change>, _response: &[u8]) -> Result<(), CommitFailed> {
        Ok(())
    }
}

/// The engine on a thread, behind a socket like the others.
fn engine(dir: &Path) -> Client {
    let socket = dir.join("engine.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        let mut host = Host(Instant::now());
        let mut tpm = Tpm::manufacture(&mut host);
        let (stream, _) = listener.accept().unwrap();
        client::serve(&stream, |command| tpm.execute(&mut host, 0, command));
    });
    let mut client = Client::connect(&socket, b"");
    client.run(STARTUP);
    client
}

/// The engine, called.
fn called() -> Client {
    let mut host = Host(Instant::now());
    let mut tpm = Tpm::manufacture(&mut host);
    let mut client = Client::new(Box::new(move |command| tpm.execute(&mut host, 0, command)), b"");
    client.run(STARTUP);
    client
}

const STARTUP: &[u8] = &[0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x44, 0, 0];

/// Microseconds of each of them, in turn: median and 99th percentile.
fn measure<const N: usize>(case: &Case, clients: &mut [Client; N], rounds: usize) -> [(f64, f64); N] {
    let mut commands = clients.each_mut().map(|client| (case.prepare)(client));
    let rounds = (rounds / case.weight).max(5);
    let mut times = [const { Vec::new() }; N];
    for round in 0..rounds + 1 {
        if let Some(next) = case.next {
            commands.fill(next(u16::try_from(round).unwrap()));
        }
        for (i, client) in clients.iter_mut().enumerate() {
            settle();
            let took = client.timed(&commands[i], case);
            // The first is a rehearsal.
            if round > 0 {
                times[i].push(took);
            }
        }
    }
    for client in clients.iter_mut() {
        if let Some(finish) = case.finish {
            finish(client);
        }
        client.clean();
    }
    times.map(|mut times| median_and_p99(&mut times))
}

/// Lets the others do on this processor what they still have to do after their last response, or it would be measured with the next one's.
fn settle() {
    (0..3).for_each(|_| std::thread::yield_now());
}

/// Microseconds of a command and a response of `length` bytes each over the same kind of socket, of which nobody computes anything.
fn echo(length: usize, rounds: usize) -> f64 {
    let (here, there) = UnixStream::pair().unwrap();
    let server = std::thread::spawn(move || client::serve(&there, <[u8]>::to_vec));
    let mut client = Client::of(here, b"");
    let mut times: Vec<f64> = (0..rounds)
        .map(|_| {
            settle();
            let start = Instant::now();
            client.run(&echoed(length));
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    drop(client);
    server.join().unwrap();
    median_and_p99(&mut times).0
}

/// Bytes that are a response of success.
fn echoed(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    bytes[2..6].copy_from_slice(&u32::try_from(length).unwrap().to_be_bytes());
    bytes
}

fn geometric_mean(ratios: &[f64]) -> f64 {
    (ratios.iter().map(|r| r.ln()).sum::<f64>() / ratios.len() as f64).exp()
}

fn main() {
    let arguments = Arguments::read();
    let rounds = arguments.rounds(200);
    let dir = tempfile::tempdir().unwrap();
    let (_swtpm, first) = swtpm(dir.path());
    let (_vtpmd, third) = vtpmd(dir.path());
    let mut clients = [first, engine(dir.path()), third, called()];
    let title = format!("Commands, beside swtpm; median and 99th percentile of {rounds} rounds");
    let mut report = Report::new("commands", title)
        .column("swtpm", "µs", 0)
        .column("p99", "µs", 0)
        .column("engine", "µs", 0)
        .column("p99", "µs", 0)
        .plotted("engine/swtpm", "times", 2)
        .column("vtpmd", "µs", 0)
        .column("p99", "µs", 0)
        .plotted("vtpmd/swtpm", "times", 2)
        .column("called", "µs", 1)
        .logarithmic()
        .bound(1.1, "1.1 times swtpm");
    let (mut plain, mut durable, mut slow) = (Vec::new(), Vec::new(), Vec::new());
    for case in CASES.iter().filter(|c| arguments.wants(c.name)) {
        let [theirs, engine, vtpmd, called] = measure(case, &mut clients, rounds);
        let (engine_ratio, vtpmd_ratio) = (engine.0 / theirs.0, vtpmd.0 / theirs.0);
        let mark = if case.writes_nv { " *" } else { "" };
        let values =
            [theirs.0, theirs.1, engine.0, engine.1, engine_ratio, vtpmd.0, vtpmd.1, vtpmd_ratio, called.0];
        report.row(format!("{}{mark}", case.name), values.map(Some));
        if !case.writes_nv {
            plain.push(engine_ratio);
            durable.push(vtpmd_ratio);
            if engine_ratio > 1.1 {
                slow.push(case.name);
            }
        }
    }
    report.remark("* writes NV; not in the means");
    report.remark(format!(
        "geometric mean: engine {:.2}, vtpmd {:.2}",
        geometric_mean(&plain),
        geometric_mean(&durable)
    ));
    let echoes = [32, 1024].map(|length| echo(length, rounds));
    report.remark(format!(
        "the socket alone, there and back: {:.1} µs for 32 bytes, {:.1} for 1024",
        echoes[0], echoes[1]
    ));
    if !slow.is_empty() {
        report.remark(format!("engine above 1.1: {}", slow.join(", ")));
    }
    report.finish(&arguments);
}
