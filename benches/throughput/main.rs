//! How many durable changes vtpmd makes: `cargo bench --bench throughput [-- ROUNDS] [--json FILE]`.
//!
//! One, eight and sixty-four machines, each with a TPM of its own at a control channel of one vtpmd, write NV as fast as it is answered;
//! beside them, on the same file system, a file to which 4 KiB are appended and synchronised (`fdatasync`) again and again, which is the least
//! that a durable change can take. All come in turn, round by round. Beside the rates stands what a change takes of the processors, in vtpmd and in
//! the process of the machines; it depends less on what else goes on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a benchmark that panics gives no figures"
)]

#[allow(dead_code, reason = "shared with tests/control, which uses the rest")]
#[path = "../../tests/control/client.rs"]
mod client;
#[allow(dead_code, reason = "shared with tests/programs.rs, which uses the rest")]
#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../machine/mod.rs"]
mod machine;
#[path = "../report/mod.rs"]
mod report;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use client::Machine;
use common::Host;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use report::{Arguments, Report};

const CLIENTS: [usize; 3] = [1, 8, 64];
/// How long one situation lasts in one round.
const TIME: Duration = Duration::from_millis(500);

/// What was done in one situation.
#[derive(Default)]
struct Figures {
    /// What each took, in microseconds.
    took: Vec<f64>,
    /// In how many seconds.
    seconds: f64,
    /// What vtpmd had of the processors meanwhile, in microseconds.
    daemon: f64,
    /// What this process had.
    machines: f64,
}

impl Figures {
    fn add(&mut self, took: Vec<f64>, since: Instant) {
        self.seconds += since.elapsed().as_secs_f64();
        self.took.extend(took);
    }

    fn rate(&self) -> f64 {
        self.took.len() as f64 / self.seconds
    }

    fn each(&self, sum: f64) -> f64 {
        sum / self.took.len() as f64
    }
}

/// The processor time of all threads that the process has now, in microseconds.
fn of_process(pid: u32) -> f64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of_thread = |task: std::fs::DirEntry| -> f64 {
        let found = std::fs::read_to_string(task.path().join("schedstat")).unwrap();
        found.split(' ').next().unwrap().parse().unwrap()
    };
    tasks.map(|task| of_thread(task.unwrap())).sum::<f64>() / 1e3
}

fn of_this_process() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    (usage.user_time() + usage.system_time()).num_microseconds() as f64
}

/// Does `act` again and again; what each took, in microseconds.
fn repeat(until: Instant, mut act: impl FnMut()) -> Vec<f64> {
    let mut took = Vec::new();
    while Instant::now() < until {
        let start = Instant::now();
        act();
        took.push(start.elapsed().as_secs_f64() * 1e6);
    }
    took
}

fn append(file: &mut File, figures: &mut Figures) {
    let start = Instant::now();
    let took = repeat(start + TIME, || {
        file.write_all(&[7; 4096]).unwrap();
        file.sync_data().unwrap();
    });
    figures.add(took, start);
}

/// With as few system calls as it takes, since the machines have the processors together with vtpmd. A read that waits would also be woken when
/// vtpmd takes the command.
fn exchange(stream: &mut UnixStream, command: &[u8]) {
    stream.write_all(command).unwrap();
    poll(&mut [PollFd::new(stream.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).unwrap();
    let mut response = [0; 4096];
    let length = stream.read(&mut response).unwrap();
    machine::expect_success(&response[..length]);
}

fn write(host: &Host, machines: &mut [Machine], figures: &mut Figures) {
    let command = machine::nv_write();
    let before = (of_process(host.pid()), of_this_process());
    let start = Instant::now();
    let one = |raw: &mut common::Raw| repeat(start + TIME, || exchange(&mut raw.0, &command));
    let took = std::thread::scope(|scope| {
        let threads: Vec<_> = machines.iter_mut().map(|m| scope.spawn(|| one(&mut m.data))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    figures.add(took, start);
    figures.daemon += of_process(host.pid()) - before.0;
    figures.machines += of_this_process() - before.1;
}

fn main() {
    let arguments = Arguments::read();
    let rounds = arguments.rounds(10);
    let dir = machine::directory();
    let host = Host::start(dir.path(), "host");
    let mut file = File::create(dir.path().join("appended")).unwrap();
    let mut machines: Vec<_> = (0..CLIENTS[2]).map(|n| machine::boot(&host, &format!("vm{n}"))).collect();
    machines.iter_mut().for_each(|m| machine::define_index(&mut m.data));

    let mut bare = Figures::default();
    let mut ours = CLIENTS.map(|_| Figures::default());
    for _ in 0..rounds {
        append(&mut file, &mut bare);
        for (clients, figures) in CLIENTS.iter().zip(&mut ours) {
            write(&host, &mut machines[..*clients], figures);
        }
    }

    let mut report =
        Report::new("throughput", format!("Durable changes; {rounds} rounds of {} ms", TIME.as_millis()))
            .column("median", "µs", 0)
            .column("p99", "µs", 0)
            .plotted("rate", "1/s", 0)
            .column("vtpmd's processor time", "µs", 1)
            .column("the machines'", "µs", 1);
    let mut medians = Vec::new();
    let names = CLIENTS.map(|n| format!("NV_Write, {n} machine{}", if n == 1 { "" } else { "s" }));
    for (name, figures) in [("4 KiB appended, fdatasync", &mut bare)]
        .into_iter()
        .chain(names.iter().map(String::as_str).zip(&mut ours))
    {
        let (median, p99) = report::median_and_p99(&mut figures.took);
        medians.push(median);
        let processors = [figures.daemon, figures.machines].map(|sum| figures.each(sum)).map(Some);
        let [daemon, machines] = if figures.daemon > 0.0 { processors } else { [None; 2] };
        report.row(name, [Some(median), Some(p99), Some(figures.rate()), daemon, machines]);
    }
    report.remark(format!("one machine: {:.2} times the bare append", medians[1] / medians[0]));
    report.remark(format!("64 machines: {:.1} times the rate of one", ours[2].rate() / ours[0].rate()));
    report.finish(&arguments);
}
